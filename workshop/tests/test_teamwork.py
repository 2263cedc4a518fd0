"""Two people, two clones, a bucket: what comes of a merge of what each of them did to the images."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import Project, add_pictures, aws_variables, contents, picture, save

from imagepack.commands import s3
from imagepack.dvc.cache import md5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="its stage is a command of a Unix shell"),
]
COUNT = """\
stages:
  count:
    cmd: ls data/raw/* | wc -l > reports/count.json && git hash-object data/raw/*/* > data/hashes.txt
    deps: [data/raw]
    params: [preprocess]
    outs:
      - data/hashes.txt
      - reports/count.json:
          cache: false
"""
"""A pipeline of a moment, with an out in git and one that is not."""
MERGE = ("python", "-m", "imagepack.commands.merge")
RESOLVE = ("python", "-m", "imagepack.commands.resolve")
RUN = ("python", "-c", "from imagepack.commands import run; exit(run.bring_up_to_date())")
"""`python3 run.py` without its summary, which is of the template's stages."""


OUTSIDE = f"{Path(shutil.which('git') or 'git').parent}:/usr/bin:/bin"
"""The PATH outside the environment, as a git GUI has it."""


class Team(NamedTuple):
    """Two clones of one repository."""

    ann: Project
    ben: Project


def make_team(project: Project, server: s3.Server, folder: Path, prepare: Callable[[Project], None]) -> None:
    """Make a first version in a clone, push it, and have a second person clone it."""
    folder.mkdir()
    name = f"team-{abs(hash(folder)) % 10**12}"
    server.client().create_bucket(Bucket=name)
    project("dvc", "remote", "modify", "s3", "url", f"s3://{name}/data")
    add_pictures(project.folder / "data/raw", 6, "cat")
    add_pictures(project.folder / "data/raw", 6, "dog", first=10)
    project("dvc", "add", "--quiet", "data/raw")
    prepare(project)
    project("dvc", "repro", "--quiet")
    project("dvc", "push", "--quiet")
    project.commit("First version")
    project("git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder / "origin.git"))
    project("git", "remote", "add", "origin", "../origin.git")
    shutil.move(project.folder, folder / "ann")
    ann = Project(folder / "ann")
    ann("git", "push", "--quiet", "--set-upstream", "origin", "main")
    ann("git", "clone", "--quiet", "../origin.git", "../ben")
    ben = Project(folder / "ben")
    ben("git", "config", "user.name", "Ben")
    ben("git", "config", "user.email", "ben@example.com")
    ben("git", "remote", "set-url", "origin", "../origin.git")
    ben("dvc", "pull", "--quiet")


@pytest.fixture(scope="module")
def first_version(new_project: Callable, s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both clones as they begin; not to be changed."""
    folder = tmp_path_factory.mktemp("team") / "team"

    def prepare(project: Project) -> None:
        project.write("dvc.yaml", COUNT)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(s3_server).items():
            patch.setenv(name, value)
        make_team(new_project(), s3_server, folder, prepare)
    return folder


@pytest.fixture(autouse=True)
def keys(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have keys of the bucket in their environment."""
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def team(first_version: Path, tmp_path: Path) -> Team:
    """Both clones and their origin, copied."""
    return copy_team(first_version, tmp_path / "team")


def copy_team(made: Path, folder: Path) -> Team:
    shutil.copytree(made, folder, symlinks=True)
    return Team(Project(folder / "ann"), Project(folder / "ben"))


def raw(project: Project) -> Path:
    return project.folder / "data/raw"


def new(number: int, *places: Path) -> None:
    """Save a new picture in all places."""
    for place in places:
        save(place, picture(number))


def publish(project: Project, message: str) -> None:
    """What somebody does who has changed images: add, run, commit, push."""
    project("dvc", "add", "--quiet", "data/raw")
    project("dvc", "repro", "--quiet")
    project("dvc", "push", "--quiet")
    project.commit(message)
    project("git", "push", "--quiet")


def finished(project: Project, parents: int = 2) -> None:
    """The merge is committed, nothing is left to do, and what is in git is what is in the folder."""
    assert project("git", "status", "--porcelain") == ""
    assert len(project("git", "log", "-1", "--format=%P").split()) == parents
    assert "up to date" in project("dvc", "status")
    named = (project.folder / "data/raw.dvc").read_bytes()
    project("dvc", "add", "--quiet", "data/raw")
    assert (project.folder / "data/raw.dvc").read_bytes() == named  # md5, size and nfiles
    assert sum(path.stat().st_size for path in raw(project).rglob("*.png")) == yaml.safe_load(named)["outs"][0]["size"]


def test_additions_removals_edits_and_relabellings_of_both_sides_merge_by_themselves(team: Team):
    ann, ben = team
    (raw(ann) / "cat/img0.png").unlink()
    (raw(ann) / "dog/img10.png").rename(raw(ann) / "cat/img10.png")
    new(100, raw(ann) / "cat/ann.png", raw(ann) / "cat/both.png")
    new(101, raw(ann) / "cat/img1.png")
    new(102, raw(ann) / "cat/img2.png")
    (raw(ann) / "cat/img3.png").unlink()
    expected = contents(raw(ann))
    publish(ann, "Ann")

    new(100, raw(ben) / "cat/both.png")
    new(102, raw(ben) / "cat/img2.png")  # the same edit
    (raw(ben) / "cat/img3.png").unlink()  # the same removal, which DVC's own merge driver refuses
    (raw(ben) / "dog/img11.png").rename(raw(ben) / "cat/img11.png")
    new(103, raw(ben) / "fox/ben.png")
    new(104, raw(ben) / "dog/img12.png")
    ours = contents(raw(ben))
    for path in ("fox/ben.png", "dog/img12.png", "cat/img11.png"):
        expected[path] = ours[path]
    del expected["dog/img11.png"]
    ben("dvc", "add", "--quiet", "data/raw")
    ben.commit("Ben")

    printed = ben(*MERGE)
    assert "Images here: 1 added, 1 edited, 1 moved, 1 removed" in printed
    assert printed.endswith("Next\n  python3 run.py -- dvc push && git push\n")
    assert contents(raw(ben)) == expected
    finished(ben)


def publish_locally(project: Project, message: str) -> None:
    """What comes before the push."""
    project("dvc", "add", "--quiet", "data/raw")
    project("dvc", "repro", "--quiet")
    project.commit(message)


@pytest.fixture(scope="module")
def conflict(first_version: Path, s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both changed img0 to img3, cat/new.png, a param and data/acknowledged.csv; Ann has pushed. Not to be changed."""
    folder = tmp_path_factory.mktemp("conflict") / "team"
    ann, ben = copy_team(first_version, folder)
    for project, number in ((ann, 200), (ben, 300)):
        new(number, raw(project) / "cat/img0.png")
        new(number + 1, raw(project) / "cat/img1.png")
        new(number + 2, raw(project) / "cat/new.png")
        new(number + 3, raw(project) / f"fox/{number}.png")
        set_size(project, number)
        with (project.folder / "data/acknowledged.csv").open("a", encoding="utf-8") as file:
            file.write(f"{number},dark,seen,\n")
    (raw(ann) / "cat/img2.png").unlink()
    new(301, raw(ben) / "cat/img2.png")
    new(201, raw(ann) / "cat/img3.png")
    (raw(ben) / "cat/img3.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(s3_server).items():
            patch.setenv(name, value)
        publish(ann, "Ann's")
        publish_locally(ben, "Ben's")
    return folder


def set_size(project: Project, size: int) -> None:
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", re.sub(r"^  size: .*", f"  size: {size}", text, flags=re.MULTILINE))


@pytest.fixture
def conflicting(conflict: Path, tmp_path: Path) -> Team:
    return copy_team(conflict, tmp_path / "team")


def test_conflicts_are_named_image_by_image_and_either_side_can_be_taken(conflicting: Team):
    ann, ben = conflicting
    theirs, ours = contents(raw(ann)), contents(raw(ben))
    printed = ben(*MERGE, ok=False)
    for line in (
        "5 files of data/raw were changed by both sides",
        "cat/img0.png: edited by both",
        "cat/img2.png: edited by ours, removed by theirs",
        "cat/img3.png: removed by ours, edited by theirs",
        "cat/new.png: added by both",
        ", Ben's\n",
        ", Ann's\n",
        "git found a conflict in\n  params.yaml",
    ):
        assert line in printed
    assert "acknowledged" not in printed
    assert contents(raw(ben)) == ours
    assert "merge is under way" in ben(*MERGE, "origin/main", ok=False)
    doctor = ben("python", "-m", "imagepack.commands.doctor", ok=False)
    assert "hint     locks: a merge is not committed yet: python3 run.py merge --continue, or --abort" in doctor
    assert "problem  locks: data/raw.dvc has a merge conflict: python3 run.py merges it" in doctor

    assert "data/raw/cat/img2.png: edited by ours" in ben(*RESOLVE)
    sides = ("ours", ours, ("img0", "img1", "img2", "new")), ("theirs", theirs, ("img0", "img1", "img3", "new"))
    assert contents(ben.folder / ".dvc/tmp/merge") == {
        f"{side}/data/raw/cat/{name}.png": files[f"cat/{name}.png"] for side, files, names in sides for name in names
    }
    assert "nothing there is in conflict" in ben(*RESOLVE, "data/raw/cat/img5.png", "--ours", ok=False)
    assert "3 left" in ben(*RESOLVE, "data/raw/cat/img0.png", "data/raw/cat/img3.png", "--theirs")
    ben(*RESOLVE, "data/raw/cat/new.png", "--theirs")
    ben(*RESOLVE, "data/raw/cat/new.png", "--ours")
    assert "1 left" not in ben(*RESOLVE, "data/raw", "--ours")
    assert "params.yaml" in ben(*MERGE, "--continue", ok=False)

    ben("git", "checkout", "--theirs", "params.yaml")
    ben("git", "add", "params.yaml")
    ben(*MERGE, "--continue")
    wanted = ours | {path: theirs[path] for path in ("cat/img0.png", "cat/img3.png", "fox/200.png")}
    assert contents(raw(ben)) == wanted
    acknowledged = (ben.folder / "data/acknowledged.csv").read_text(encoding="utf-8")
    assert acknowledged == "image,code,note,keep\n300,dark,seen,\n200,dark,seen,\n"
    assert "size: 200" in (ben.folder / "dvc.lock").read_text(encoding="utf-8")
    assert (ben.folder / "reports/count.json").read_text().split() == [str(len(wanted) + 5)]  # and names of folders
    finished(ben)


def test_a_merge_can_be_undone_wherever_it_stands(conflicting: Team):
    _, ben = conflicting
    before = contents(raw(ben)), (ben.folder / "data/raw.dvc").read_bytes(), ben("git", "rev-parse", "HEAD")

    def is_undone() -> bool:
        now = contents(raw(ben)), (ben.folder / "data/raw.dvc").read_bytes(), ben("git", "rev-parse", "HEAD")
        return now == before and ben("git", "status", "--porcelain") == "" and "up to date" in ben("dvc", "status")

    assert "nothing to undo" in ben(*MERGE, "--abort", ok=False)
    ben(*MERGE, ok=False)
    ben(*MERGE, "--abort")
    assert is_undone()
    ben(*MERGE, ok=False)
    ben(*RESOLVE, "data/raw", "--theirs")
    ben("git", "checkout", "--ours", "params.yaml")
    ben("git", "add", "params.yaml")
    ben.write("dvc.yaml", (ben.folder / "dvc.yaml").read_text().replace("cmd: ", "cmd: false && "))
    ben("git", "add", "dvc.yaml")
    printed = ben(*MERGE, "--continue", ok=False)
    assert "The merge is not committed yet. Mend that" in printed
    assert contents(raw(ben)) != before[0]
    ben(*MERGE, "--abort")
    assert is_undone()


@pytest.fixture(scope="module")
def apart(first_version: Path, s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ann has added a picture and pushed it; Ben has added another and removed one. Not to be changed."""
    folder = tmp_path_factory.mktemp("apart") / "team"
    ann, ben = copy_team(first_version, folder)
    new(400, raw(ann) / "cat/ann.png")
    new(401, raw(ben) / "cat/ben.png")
    (raw(ben) / "cat/img0.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(s3_server).items():
            patch.setenv(name, value)
        publish(ann, "Ann's")
        publish_locally(ben, "Ben's")
    return folder


@pytest.fixture
def different(apart: Path, tmp_path: Path) -> Team:
    return copy_team(apart, tmp_path / "team")


def merged(team: Team) -> dict[str, bytes]:
    """What a merge of `apart` has to be."""
    files = contents(raw(team.ann)) | contents(raw(team.ben))
    del files["cat/img0.png"]
    return files


def test_with_the_hooks_git_pull_merges_by_image_and_run_py_brings_the_images(different: Team):
    _, ben = different
    expected = merged(different)
    ben("python", "-m", "imagepack.commands.hooks")
    printed = ben("git", "pull", "--no-rebase", "--no-edit", PATH=OUTSIDE)
    assert "data/raw.dvc, images: 1 added, 0 edited, 0 moved, 0 removed. Next: python3 run.py" in printed
    assert ben("git", "status", "--porcelain") == ""
    ben(*RUN)
    assert contents(raw(ben)) == expected
    assert ben("git", "diff", "--name-only", "HEAD").split() == ["dvc.lock"]
    ben.commit("Made anew")
    finished(ben, parents=1)


def test_without_the_driver_run_py_merges_what_git_could_not(different: Team):
    _, ben = different
    expected = merged(different)
    assert "CONFLICT" in ben("git", "pull", "--no-rebase", "--no-edit", ok=False)
    assert "<<<<<<<" in (ben.folder / "data/raw.dvc").read_text()
    ben("git", "add", "data/raw.dvc")  # in haste
    assert "with a merge conflict in it: git checkout --merge -- data/raw.dvc" in ben(*RUN, ok=False)
    ben("git", "checkout", "--merge", "--", "data/raw.dvc")
    ben(*RUN)
    assert contents(raw(ben)) == expected
    ben("git", "add", "reports")
    ben("git", "commit", "--no-edit", "--quiet")
    finished(ben)


def test_a_rebase_merges_by_image_too(different: Team):
    _, ben = different
    expected = merged(different)
    assert "CONFLICT" in ben("git", "pull", "--rebase", ok=False)
    ben(*RUN)
    ben("git", "add", "reports")
    ben("git", "-c", "core.editor=true", "rebase", "--continue")
    assert contents(raw(ben)) == expected
    finished(ben, parents=1)


def test_nothing_is_mixed_into_a_merge(different: Team):
    _, ben = different
    head = ben("git", "rev-parse", "HEAD")
    new(500, raw(ben) / "cat/late.png")
    ben.write("README.md", "mine\n")
    printed = ben(*MERGE, ok=False)
    assert "data/raw has other images than data/raw.dvc says. To keep them: python3 run.py" in printed
    assert "changes that are not committed:\n   M README.md" in printed
    assert "no branch nobody/none; there are: main, origin" in ben(*MERGE, "nobody/none", ok=False)
    assert (raw(ben) / "cat/late.png").exists()
    assert ben("git", "rev-parse", "HEAD") == head
    assert "no merge is under way" in ben(*MERGE, "--continue", ok=False)


def test_a_lock_in_conflict_is_named_and_not_installed(different: Team):
    _, ben = different
    lock = (ben.folder / "requirements.lock").read_text(encoding="utf-8")
    ben.write("requirements.lock", f"# ours\n<<<<<<< HEAD\n{lock}=======\n>>>>>>> theirs\n")
    printed = ben("python", "run.py", "merge", "--continue", ok=False)
    assert "git checkout --theirs -- requirements.lock && git add requirements.lock (or --ours)" in printed
    assert not (ben.folder / ".venv").exists()


def test_what_cannot_be_fetched_is_said_before_anything_changes(different: Team, s3_server: s3.Server):
    ann, ben = different
    new(501, raw(ann) / "cat/kept-back.png")
    publish_locally(ann, "Not pushed to the bucket")
    ann("git", "push", "--quiet")
    before = contents(raw(ben))
    assert "who made that version runs `dvc push`" in ben(*MERGE, ok=False)
    nobody = f"http://127.0.0.1:{s3.free_ports(1)[0]}"
    assert f"no S3 answers at {nobody}" in ben(*MERGE, ok=False, AWS_ENDPOINT_URL=nobody, AWS_MAX_ATTEMPTS="1")
    ann("dvc", "push", "--quiet")
    digest = md5(raw(ann) / "cat/kept-back.png")
    bucket = re.search("s3://(.*)/data", (ann.folder / ".dvc/config").read_text())[1]
    s3_server.client().delete_object(Bucket=bucket, Key=f"data/files/md5/{digest[:2]}/{digest[2:]}")
    assert "1 image of origin/main not found, in DVC's cache here or on the remote" in ben(*MERGE, ok=False)
    assert contents(raw(ben)) == before
    assert ben("git", "status", "--porcelain") == ""
    assert "no merge is under way" in ben(*MERGE, "--continue", ok=False)


def test_a_branch_without_changes_of_its_own_moves_on(different: Team):
    ann, ben = different
    ben("git", "reset", "--quiet", "--hard", "HEAD~1")
    ben("dvc", "checkout", "--quiet", "--force")
    ben(*MERGE)
    assert contents(raw(ben)) == contents(raw(ann))
    assert ben("git", "rev-parse", "HEAD") == ann("git", "rev-parse", "HEAD")
    assert "Already up to date" in ben(*MERGE)


def test_what_comes_of_a_merge_is_what_a_run_from_nothing_makes(
    new_project: Callable[[], Project], s3_server: s3.Server, tmp_path: Path
):
    """With the template's stages: Ben adds images, Ann others and a param; a third clone makes it all anew."""
    make_team(new_project(), s3_server, tmp_path / "team", lambda project: None)
    ann, ben = Project(tmp_path / "team/ann"), Project(tmp_path / "team/ben")
    for project, number in ((ann, 50), (ben, 60)):
        add_pictures(raw(project), 2, "cat", first=number)
    set_size(ann, 16)
    ann(*RUN)
    ann("dvc", "push", "--quiet")
    ann.commit("Smaller, and two more")
    ann("git", "push", "--quiet")
    ben("dvc", "add", "--quiet", "data/raw")
    ben.commit("Two more")
    printed = ben(*MERGE)
    assert "pack: 16 images" in printed
    assert "Images here: 2 added, 0 edited, 0 moved, 0 removed" in printed
    finished(ben)
    ben("dvc", "push", "--quiet")
    ben("git", "push", "--quiet")
    ann("git", "clone", "--quiet", "../origin.git", "../third")
    third = Project(tmp_path / "team/third")
    third("dvc", "pull", "--quiet", "data/raw.dvc")
    third("dvc", "repro", "--quiet")
    assert third("git", "status", "--porcelain") == ""


def test_what_a_server_merged_without_a_driver_is_made_right_after_git_pull(different: Team, tmp_path: Path):
    """As the button of a pull request does where only one side changed the images, and both dvc.lock."""
    ann, ben = different
    ben("git", "reset", "--quiet", "--hard", "origin/main")
    ben("dvc", "checkout", "--quiet", "--force")
    set_size(ben, 90)  # not as long as 128, or git, which goes by seconds, may not see it
    ben("dvc", "repro", "--quiet")
    ben.commit("Other params")
    ben("git", "push", "--quiet", "origin", "main:ben")
    server = tmp_path / "server"
    ben("git", "clone", "--quiet", "../origin.git", str(server))
    Project(server)("git", "-c", "user.name=Server", "-c", "user.email=s@example.com", "merge", "--quiet", "origin/ben")
    Project(server)("git", "push", "--quiet", "origin", "main")
    ann("git", "pull", "--quiet")
    ann(*RUN)
    assert "size: 90" in (ann.folder / "dvc.lock").read_text(encoding="utf-8")
    assert "up to date" in ann("dvc", "status")


def test_images_that_nobody_has_added_yet_survive_a_git_pull(different: Team):
    """With the merge driver of the hooks, and data/raw not as data/raw.dvc says."""
    _, ben = different
    ben("python", "-m", "imagepack.commands.hooks")
    new(700, raw(ben) / "cat/late.png", raw(ben) / "cat/img1.png")
    late = (raw(ben) / "cat/late.png").read_bytes()
    expected = merged(different) | {"cat/late.png": late, "cat/img1.png": late}
    ben("git", "pull", "--no-rebase", "--no-edit", "--quiet")
    printed = ben(*RUN, ok=False)
    assert "data/raw/cat/late.png\n" in printed
    assert "data/raw has files that no version has: move them elsewhere, run this again, put them back" in printed
    assert (raw(ben) / "cat/late.png").read_bytes() == (raw(ben) / "cat/img1.png").read_bytes() == late
    for name in ("late", "img1"):
        (raw(ben) / f"cat/{name}.png").unlink()
    ben(*RUN)
    new(700, raw(ben) / "cat/late.png", raw(ben) / "cat/img1.png")
    ben(*RUN)
    assert contents(raw(ben)) == expected


def test_killed_at_any_moment_it_goes_on(different: Team):
    _, ben = different
    expected = merged(different)
    for moment, arguments in ((".git/MERGE_HEAD", []), (".dvc/tmp/run-py-is-pulling", ["--continue"]), (None, [])):
        command = [sys.executable, *MERGE[1:], *arguments]
        process = subprocess.Popen(command, cwd=ben.folder, stdout=subprocess.DEVNULL, start_new_session=True)
        while moment and not (ben.folder / moment).exists() and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        if moment:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 1  # the one that was not killed: a merge is under way
    ben(*MERGE, "--continue")
    assert contents(raw(ben)) == expected
    finished(ben)


def test_a_merge_that_git_had_not_named_yet_when_it_was_killed_is_committed(different: Team):
    """git writes MERGE_HEAD, then MERGE_MSG."""
    _, ben = different
    expected = merged(different)
    hook = ben.folder / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    ben(*MERGE, ok=False)
    hook.unlink()
    (ben.folder / ".git/MERGE_MSG").unlink()
    ben(*MERGE, "--continue")
    assert contents(raw(ben)) == expected
    assert ben("git", "log", "-1", "--format=%s").startswith("Merge commit '")
    finished(ben)


def test_a_table_is_merged_cell_by_cell_and_a_cell_that_both_changed_is_decided(team: Team):
    """First different cells, by `merge` alone; then the same cell too, which is named and decided."""
    ann, ben = team
    rows = "file_name,kind,age\ncat/img0.png,cat,1\ncat/img1.png,cat,2\ndog/img10.png,dog,3\n"
    table = [raw(project) / "metadata.csv" for project in team]
    table[0].write_text(rows, encoding="utf-8")
    publish(ann, "A table")
    ben("git", "pull", "--quiet")
    ben(*RUN)
    table[0].write_text(rows.replace("img0.png,cat", "img0.png,fox"), encoding="utf-8")
    publish(ann, "A fox")
    table[1].write_text(rows.replace("dog,3", "dog,30") + "cat/img2.png,cat,4\n", encoding="utf-8")
    publish_locally(ben, "Ages")
    ben(*MERGE)
    both = "file_name,kind,age\ncat/img0.png,fox,1\ncat/img1.png,cat,2\ndog/img10.png,dog,30\ncat/img2.png,cat,4\n"
    assert table[1].read_text(encoding="utf-8") == both
    assert "up to date" in ben("dvc", "status")
    assert ben("git", "status", "--porcelain") == ""

    fox = rows.replace("img0.png,cat", "img0.png,fox")
    table[0].write_text(fox.replace("cat,2", "owl,2") + "cat/img3.png,cat,5\n", encoding="utf-8")
    publish(ann, "An owl")
    table[1].write_text(both.replace("cat,2", "cow,2").replace("fox,1", "fox,11"), encoding="utf-8")
    publish_locally(ben, "A cow")
    named = "row cat/img1.png, column kind: cow by ours, owl by theirs"
    assert f"data/raw/metadata.csv: edited by both:\n    {named}\nours: " in ben(*MERGE, ok=False)
    assert f"data/raw/metadata.csv: edited by both:\n    {named}\nours: " in ben(*RESOLVE)
    ben(*RESOLVE, "data/raw/metadata.csv", "--theirs")
    assert f"edited by both: -> theirs\n    {named}" in ben(*RESOLVE)
    ben(*MERGE, "--continue")
    wanted = both.replace("cat,2", "owl,2").replace("fox,1", "fox,11") + "cat/img3.png,cat,5\n"
    assert table[1].read_text(encoding="utf-8") == wanted
    assert "up to date" in ben("dvc", "status")
    assert ben("git", "status", "--porcelain") == ""
