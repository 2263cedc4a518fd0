"""`python3 run.py gc`: what is kept can be had from the bucket alone, and what was counted as freed is what is gone."""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import Project, aws_variables

from imagepack.commands import s3

OLD = "2024-05-01T12:00:00"
"""Older than what is kept without being named."""
GC = ("python", "-m", "imagepack.commands.gc")


@dataclass(frozen=True)
class Dataset:
    """A clone with images, its bucket and its git remote."""

    project: Project
    server: s3.Server
    bucket: str

    def commit(self, files: dict[str, str], message: str = "Images", old: bool = False) -> str:
        """Add data/raw with these files, push it and commit; the commit."""
        raw = self.project.folder / "data/raw"
        shutil.rmtree(raw, ignore_errors=True)
        for name, text in files.items():
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            (raw / name).write_text(text)
        self.project("dvc", "add", "--quiet", "data/raw")
        self.project("dvc", "push", "--quiet")
        when = {"GIT_COMMITTER_DATE": OLD, "GIT_AUTHOR_DATE": OLD} if old else {}
        self.project("git", "add", "data/raw.dvc", "data/.gitignore")
        self.project("git", "commit", "--quiet", "--allow-empty", "--message", message, **when)
        return self.project("git", "rev-parse", "HEAD").strip()

    def gc(self, *options: str, ok: bool = True) -> str:
        """What `python3 run.py gc` prints."""
        return self.project(*GC, *options, ok=ok)

    def here(self) -> dict[str, int]:
        """Bytes of each object of the cache."""
        folder = self.project.folder / ".dvc/cache/files/md5"
        return {path.parent.name + path.name: path.stat().st_size for path in folder.glob("??/*")}

    def there(self) -> dict[str, int]:
        """Bytes of each object of the bucket."""
        listed = self.server.client().list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {"".join(found["Key"].split("/")[-2:]): found["Size"] for found in listed}

    def clone(self, folder: Path) -> "Dataset":
        """A clone of it from its git remote, or of itself, without data."""
        self.project("git", "clone", "--quiet", self.origin, str(folder))
        mate = Project(folder)
        mate("git", "config", "user.name", "Mate")
        mate("git", "config", "user.email", "mate@example.com")
        return replace(self, project=mate)

    @property
    def origin(self) -> str:
        """Where its git remote lies."""
        return self.project("git", "remote", "get-url", "origin").strip()


def images(*numbers: int) -> dict[str, str]:
    """Files that differ in size."""
    return {f"cat/{number}.png": f"{number} " * (number + 1) for number in numbers}


@pytest.fixture
def dataset(
    new_project: Callable[[], Project], s3_server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Dataset:
    """A clone without images, with an empty bucket and a git remote."""
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)
    project, bucket = new_project(), f"gc-{abs(hash(tmp_path)) % 10**12}"
    s3_server.client().create_bucket(Bucket=bucket)
    project.write(".dvc/config", (project.folder / ".dvc/config").read_text().replace("image-dataset", f"{bucket}/data"))
    project.commit("Bucket")
    project("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    project("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    project("git", "push", "--quiet", "--set-upstream", "origin", "main")
    return Dataset(project, s3_server, bucket)


def test_a_version_that_nothing_names_goes_and_the_others_stay(dataset: Dataset):
    dataset.commit(images(1, 2, 3), "First", old=True)
    dataset.project("git", "tag", "v1")
    dataset.commit(images(2, 3, 4), "Second, of no name", old=True)
    dataset.commit(images(3, 5), "Third", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main", "v1")
    before = dataset.here(), dataset.there()
    assert before[0] == before[1]
    said = dataset.gc()
    assert (dataset.here(), dataset.there()) == before
    assert "Not kept: 1 version" in said
    print(said)
    said = dataset.gc("--yes", "--cloud"); print(said, dataset.gc(), dataset.gc("-w"))
    gone = before[1].keys() - dataset.there().keys()
    assert gone == before[0].keys() - dataset.here().keys()
    assert len(gone) == 2  # image 4, and the list of that version
