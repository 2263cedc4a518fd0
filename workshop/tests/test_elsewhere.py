"""docs/elsewhere.md: a pack in a project of one's own, and the pipeline in one; each of its commands is run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, add_pictures

from imagepack import PackedImages

pytestmark = pytest.mark.slow
TEXT = (REPOSITORY / "docs/elsewhere.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))
ADDRESS = "https://github.com/me/my-dataset"
RUN = ("python", "-m", "imagepack.commands.run")


def commands(section: str) -> list[list[str]]:
    """Return the commands of a section, without comments."""
    lines = [line for block in re.findall(r"```console\n(.*?)```", SECTIONS[section], flags=re.DOTALL)
             for line in block.splitlines() if line.startswith("$ ")]  # fmt: skip
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]


def started(folder: Path) -> Project:
    """A git repository with DVC of somebody's own."""
    project = Project(folder)
    folder.mkdir(parents=True)
    for command in ("git init --quiet", "git config user.name Me", "git config user.email m@example.com", "dvc init"):
        project(*command.split())
    project.write("notes.txt", "mine")
    project("dvc", "add", "notes.txt")
    project.commit("Project")
    return project


@pytest.fixture(scope="module")
def dataset(new_project: Callable[[], Project], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A dataset's repository, pushed, with versions v1 and v2."""
    project = new_project()
    remote = tmp_path_factory.mktemp("remote")
    project("dvc", "remote", "modify", "s3", "url", str(remote))
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("  size: 128\n", "  size: 16\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGEPACK_CACHE", str(remote / "cache"))
        for version, count in (("v1", 6), ("v2", 8)):
            add_pictures(project.folder / "data/raw", count)
            project("dvc", "add", "data/raw")
            project("dvc", "repro", "pack")
            project("dvc", "push")
            project.commit(version)
            project("git", "tag", version)
        yield project


def test_a_pack_comes_into_another_project_by_every_way(dataset: Project, tmp_path: Path):
    mine, address = started(tmp_path / "mine"), dataset.folder.as_uri()
    (get,) = commands("Copy a pack")
    bring, update = commands("Import a pack")
    mine(*(word.replace(ADDRESS, address) for word in get))
    copied = PackedImages(mine.folder / "data/images")
    assert len(copied) == 6
    shutil.rmtree(mine.folder / "data/images")
    mine(*(word.replace(ADDRESS, address) for word in bring))
    packed = PackedImages(mine.folder / "data/images")
    commit = dataset("git", "rev-parse", "v1").strip()
    assert packed.version == {"repo": address, "revision": commit, "params": None, "digest": copied.digest}
    mine.commit("Images")
    mine(*update)
    assert len(PackedImages(mine.folder / "data/images")) == 8
    (code,) = re.findall(r"```py\n(.*?)```", SECTIONS["Read it without a copy"], flags=re.DOTALL)
    printed = mine("python", "-c", code.replace(ADDRESS, address))
    assert printed.split() == ["6", commit]


def test_the_reader_is_installed_from_git_at_a_tag(dataset: Project, tmp_path: Path):
    (install,) = commands("Install the reader")
    assert install[:2] == ["pip", "install"]
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env/bin/python")
    address = install[2].replace(ADDRESS, dataset.folder.as_uri())
    options = ["--quiet", "--no-deps", "--target", str(tmp_path / "packages")]
    subprocess.run([python, "-m", "pip", "install", *options, address], check=True)
    assert (tmp_path / "packages/imagepack/reader/packed_images.py").is_file()
    assert not (tmp_path / "packages/stages").exists()


def test_the_pipeline_moves_into_a_project_of_dvc_and_leaves_that_as_it_was(
    new_project: Callable[[], Project], tmp_path: Path
):
    template, project = new_project(), started(tmp_path / "project")
    make, *move, enter, leave, stage, repro = commands("Bring the pipeline into your project")
    assert make == ["python3", "run.py", "new", "../my-dataset"]
    template("python", "-P", "-m", "imagepack.commands.new", str(tmp_path / "my-dataset"))
    for command in move:
        project(*command)
    assert (enter, leave) == (["cd", "vision"], ["cd", ".."])
    vision = Project(project.folder / "vision")
    vision("dvc", "remote", "modify", "s3", "url", str(tmp_path / "remote"))
    add_pictures(vision.folder / "data/raw", 6)
    vision("dvc", "add", "data/raw")
    vision("dvc", "repro", "pack")
    vision("dvc", "push", "pack")
    project.write(
        "train.py", "import json, os\njson.dump(os.listdir('vision/data/packed'), open('metrics.json', 'w'))\n"
    )
    project(*stage)
    project(*repro)
    project.commit("Train")
    assert project("git", "status", "--porcelain") == vision("git", "status", "--porcelain") == ""
    assert "up to date" in project("dvc", "status")
    assert "dataset.h5" in json.loads((project.folder / "metrics.json").read_text())
    add_pictures(vision.folder / "data/raw", 1, first=20)
    vision("dvc", "repro", "pack")
    assert "vision/reports/pack.json" in project("dvc", "status")
    lock = (vision.folder / "dvc.lock").read_bytes()
    project(*repro)
    assert (vision.folder / "dvc.lock").read_bytes() == lock
