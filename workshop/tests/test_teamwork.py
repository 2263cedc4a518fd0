"""Two people, two clones, a bucket: what comes of a merge of what each of them did to the images."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import Project, add_pictures, aws_variables, contents, picture, save

from imagepack.commands import s3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="its stage is a command of a Unix shell"),
]
COUNT = """\
stages:
  count:
    cmd: ls data/raw/* | wc -l > reports/count.txt && git hash-object data/raw/*/* > data/hashes.txt
    deps: [data/raw]
    params: [preprocess]
    outs:
      - data/hashes.txt
      - reports/count.txt:
          cache: false
"""
"""A pipeline of a moment, with an out in git and one that is not."""
MERGE = ("python", "-m", "imagepack.commands.merge")
RESOLVE = ("python", "-m", "imagepack.commands.resolve")
RUN = ("python", "-m", "imagepack.commands.run")


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


@pytest.fixture
def team(first_version: Path, s3_server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """Both clones and their origin, copied."""
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)
    shutil.copytree(first_version, tmp_path / "team", symlinks=True)
    return Team(Project(tmp_path / "team/ann"), Project(tmp_path / "team/ben"))


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


def finished(project: Project) -> None:
    """The merge is committed, nothing is left to do, and what is in git is what is in the folder."""
    assert project("git", "status", "--porcelain") == ""
    assert len(project("git", "log", "-1", "--format=%P").split()) == 2
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
    publish_locally(ben, "Ben")

    printed = ben(*MERGE)
    assert "Images: 2 added, 1 changed, 2 removed here" in printed
    assert printed.endswith("Next\n  python3 run.py -- dvc push && git push\n")
    assert contents(raw(ben)) == expected
    finished(ben)
    ben("dvc", "push", "--quiet")
    ben("git", "push", "--quiet")
    ann(*MERGE)
    assert contents(raw(ann)) == expected


def publish_locally(project: Project, message: str) -> None:
    """What comes before the push."""
    project("dvc", "add", "--quiet", "data/raw")
    project("dvc", "repro", "--quiet")
    project.commit(message)
