"""A dataset with a bucket and a git remote of its own, for tests of what lies in them."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import Project

from imagepack.commands import s3

OLD = "2024-05-01T12:00:00"
"""Older than what gc keeps without a name."""
DATES = ("GIT_COMMITTER_DATE", "GIT_AUTHOR_DATE")
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
        when = dict.fromkeys(DATES, OLD) if old else {}
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


def connect(project: Project, server: s3.Server, origin: Path) -> Dataset:
    """Give a clone a bucket and a git remote of its own, which has its branch main."""
    bucket = f"gc-{abs(hash(origin)) % 10**12}"
    server.client().create_bucket(Bucket=bucket)
    project("git", "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    project("git", "remote", "add", "origin", str(origin))
    project("dvc", "remote", "modify", "--quiet", "s3", "url", f"s3://{bucket}/data")
    project("git", "commit", "--quiet", "--all", "--message", "Bucket")
    project("git", "push", "--quiet", "--set-upstream", "origin", "main")
    return Dataset(project, server, bucket)
