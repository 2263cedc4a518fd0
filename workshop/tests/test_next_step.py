"""How `python3 run.py` and doctor end: in one next step, which fits what has been done already."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from conftest import Project, add_pictures

from imagepack.commands import doctor, run
from imagepack.commands.doctor_case import HINT, OK, PROBLEM
from imagepack.engine.memo import Memo, Memoised

RUN = ("python", "-m", "imagepack.commands.run")
PUSH, COMMIT = "python3 run.py -- dvc push", 'git add reports && git commit -a -m "Dataset: what is new"'
READ = "read the packs in training (README.md, Read the packs in training)"


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A dataset of one class with a remote of its own, after its first run; and what that said."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 12)
    cat = project.folder / "data/raw/cat"
    (cat / "broken.png").write_text("no image")
    shutil.copy(cat / "img0.png", cat / "once-more.png")
    remote = tmp_path_factory.mktemp("remote")
    project("dvc", "remote", "add", "--quiet", "--default", "--force", "s3", str(remote))
    return project, project(*RUN)


def next_step(said: str) -> str:
    """What it says to do next: one line, and the last."""
    return said.split("\nNext\n")[1].strip()


@pytest.mark.slow
def test_each_run_ends_in_the_one_step_that_comes_next(project: tuple[Project, str], tmp_path: Path):
    project, said = project
    assert "12 images in 1 class (" in said and "packed: " in said and "in 1 shard." in said
    assert "validate: 14 files in 1 class: 12 accepted, 2 rejected" in said
    assert "from the memo" not in said
    assert "2 of 14 files rejected:" in said and "quarantine moves them out" in said
    assert next_step(said).startswith(f"{PUSH} && {COMMIT}   # the data goes to /")
    project("python", "-m", "imagepack.commands.dvc", "push")
    assert next_step(project(*RUN)) == COMMIT
    project("git", "add", "reports")
    project("git", "commit", "--quiet", "--all", "--message", "First version")
    assert next_step(project(*RUN)) == READ

    project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "mate"))
    mate = Project(tmp_path / "mate")
    said = mate(*RUN)
    assert "fetching them" in said
    assert next_step(said) == READ  # what came by a pull need not be pushed
    add_pictures(mate.folder / "data/raw", 1, first=50)
    assert next_step(mate(*RUN)).startswith(f"{PUSH} && {COMMIT}")


@pytest.mark.slow
def test_the_local_s3_is_said_to_run_and_how_to_stop_it(
    project: tuple[Project, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(project[0].folder)
    assert json.loads(Path("reports/pack.json").read_text())["classes"] == 1
    run.summarise(own=False)
    assert capsys.readouterr().out.endswith("The local S3 server goes on running; to stop it: python3 run.py s3 stop\n")


def upper(data: bytes) -> bytes:
    return data.upper()


def each(function: Memoised, files: Sequence[bytes]) -> list[bytes]:
    return [function(file) for file in files]


def test_a_run_that_began_without_a_memo_says_nothing_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that is met twice may come from it the second time, which is no news."""
    monkeypatch.setenv("STAGE_WORKERS", "1")
    said = []
    for _ in range(2):
        memo = Memo(tmp_path / "memo", 2**20)
        assert list(memo.map_in_order(partial(each, memo.of(upper)), [[b"a"], [b"b"]], 2, "upper")) == [[b"A"], [b"B"]]
        memo.asked, memo.taken = memo.asked + 1, memo.taken + 1  # the second time of one
        said.append(memo.summary())
    assert said == ["", "; 3 of 3 from the memo"]


def test_doctor_says_where_to_begin():
    said = [
        (OK, "git", "fine"),
        (HINT, "links", "copies: nothing to type"),
        (HINT, "hooks", "git push does not push the data: python3 run.py hooks"),
    ]
    assert doctor.first_step(said[:2]) == ""
    assert doctor.first_step(said) == f". Begin with hooks: {said[2][2]}"
    assert doctor.first_step([*said, (PROBLEM, "params", "bad")]) == ". Begin with params: bad"
