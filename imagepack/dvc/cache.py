"""DVC's cache on this machine, read without DVC: a file is called after its md5."""

import configparser
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from imagepack.dvc import lock_files

FILES = Path("files", "md5")
"""Where files lie in the cache's folder, since DVC 3.0."""
LARGE = (".h5", ".zip")
"""Files that hold many images: those that a result of one image a file may have are not wanted, and may be millions."""


@dataclass(frozen=True)
class LastOuts:
    """The files of many images that the last run of a stage has made. Picklable, however many there are.

    What is found is a hint: whoever uses it checks its content. Where DVC keeps things in another way than it did in
    version 3, nothing is found.

    Attributes:
        folder: of DVC's cache. A text, as of memo.Place.
        listings: md5 of the list of each folder that the stage wrote.
    """

    folder: str
    listings: tuple[str, ...]

    @classmethod
    def of(cls, stage: str) -> "LastOuts":
        """By the dvc.lock of the repository in which the stage runs."""
        last = lock_files.read_lock(lock_files.here()).get(stage, lock_files.Stage())
        try:
            return cls(str(_folder()), tuple(out.md5 for out in last.outs if out.md5.endswith(".dir")))
        except (OSError, ValueError, configparser.Error):
            return cls("", ())

    def find(self, name: str) -> Path | None:
        """Return where the file called `name` lies, whatever its folder."""
        return _large_files(self).get(name)


def path_of(folder: Path | str, md5: str) -> Path:
    """Return where a cache whose files lie in `folder` has a file."""
    return Path(folder, md5[:2], md5[2:])


def md5(path: Path) -> str:
    """Return the MD5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def listed(root: Path, md5: str) -> dict[str, str]:
    """Return the md5 of each file of a folder by its path there, from its list in the cache of the repository `root`.

    Nothing where the cache has no such list.
    """
    try:
        entries = json.loads(path_of(_folder(root), md5).read_bytes())
        return {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, LookupError, TypeError, configparser.Error):
        return {}


def some_files(cache_folder: Path, least: int = 20) -> list[Path]:
    """Return a few files of a cache: at least as many, if it has them."""
    found = []
    for folder in (cache_folder / FILES).glob("??"):
        found += [path for path in folder.iterdir() if path.is_file()][:2]
        if len(found) >= least:
            break
    return found


def unfinished_runs() -> list[str]:
    """Return what is wrong with the run cache, DVC's record of earlier runs, each with the fix.

    DVC 3.67.1 makes a folder for a run, then a file in it. Killed in between, it fails at each later run of this stage
    with these deps, and says only that join() had no name.
    """
    folders = sorted((_folder().parents[1] / "runs").glob("??/*"))
    empty = [os.path.relpath(path) for path in folders if path.is_dir() and not any(path.iterdir())]
    return [f"{path} is empty, as DVC leaves it when killed: rmdir {path}, then python3 run.py" for path in empty]


def possible_links(source: Path, target: Path) -> dict[str, bool]:
    """Return whether a file of the folder `source` can be had in `target` by copy, reflink, hardlink and symlink.

    Each is tried; links that cannot be tried, as where `source` may only be read, are left out.
    """
    from dvc_objects.fs import system

    can = {"copy": True}
    try:
        with (
            TemporaryDirectory(prefix=".doctor-", dir=source) as there,
            TemporaryDirectory(prefix=".doctor-", dir=target) as here,
        ):
            file = Path(there, "file")
            file.write_bytes(b"x" * 4096)
            for kind in ("reflink", "hardlink", "symlink"):
                try:
                    getattr(system, kind)(str(file), str(Path(here, kind).resolve()))
                    can[kind] = True
                except OSError:
                    can[kind] = False
    except PermissionError:
        pass
    return can


def _folder(root: Path = Path()) -> Path:
    """cache.dir of DVC's configuration, the local one before the repository's; its user's and system's are left out."""
    folder = root / ".dvc/cache"
    for name in ("config", "config.local"):
        config = configparser.ConfigParser(interpolation=None)
        config.read(root / ".dvc" / name, encoding="utf-8")
        if chosen := config.get("cache", "dir", fallback=None):
            folder = root / ".dvc" / chosen
    return folder.absolute() / FILES


@cache
def _large_files(outs: LastOuts) -> dict[str, Path]:
    """Path by name."""
    found = {}
    for listing in outs.listings:
        try:
            entries = json.loads(path_of(outs.folder, listing).read_bytes())
            for path, md5 in ((entry["relpath"], entry["md5"]) for entry in entries):
                if path.endswith(LARGE):
                    found[Path(path).name] = path_of(outs.folder, md5)
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
