"""The cache of what was fetched: files named after their content, in a folder of limited size that processes share."""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagepack.reader.format import PackError

try:
    import fcntl
except ImportError:  # Windows: two processes may fetch the same file at once, which costs time only
    fcntl = None

GRACE = 10
"""Seconds for which a file that was used stays, however full the folder: its user is about to open it."""
SLACK = 50
"""A 50th of the limit may come in between two looks at the whole folder, which take 30 ms where it has 6,000 files."""


def user_folder() -> Path:
    """Return the default folder: $IMAGEPACK_CACHE, or one in the user's folder for caches."""
    if named := os.environ.get("IMAGEPACK_CACHE"):
        return Path(named)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local", "imagepack/Cache")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/imagepack"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "imagepack")


class DownloadCache:
    """A folder of files that never change; the least recently used go, so that it stays below `limit` bytes.

    A file that goes while it is open can be read to its end (POSIX), or stays (Windows).
    """

    def __init__(self, folder: Path, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"cache_bytes must be 1 or more, is {limit}")
        self.folder, self._limit = folder.absolute(), limit
        self._unseen = limit  # bytes that have come in since this process last looked: at first, any number

    def find(self, name: str) -> Path | None:
        """Return the file `name` if it is there, which counts as its use."""
        path = self.folder / name
        try:
            os.utime(path)
        except PermissionError:  # another user's
            return path if path.exists() else None
        except FileNotFoundError:
            return None
        return path

    def get(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file `name`; if it is not there, `make` writes it to the path that it is given.

        Only one thread of one process does that; others that ask for the same file meanwhile wait for it.

        Raises:
            PackError: the folder cannot be written into; or whatever `make` raises.
        """
        path = self.folder / name
        with self._alone(name):
            if not self.find(name):
                part = path.with_name(f"{name}.{os.getpid()}.part")
                try:
                    make(part)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
                self._keep_below(self._limit, path.stat().st_size)
        return path

    def require_sound(self, path: Path, kind: str, digest: str) -> None:
        """Compare a file of another folder with its hash (`kind` as of hashlib): once, until the file is changed.

        Raises:
            PackError: the file has another hash.
        """
        found = path.stat()
        stamp = f"{found.st_size} {found.st_mtime_ns} {found.st_ino} {path}"
        if _sound.get(digest) == stamp:
            return
        note = self.folder / f"{digest}.sound"
        with suppress(OSError):
            if note.read_text(encoding="utf-8") == stamp:
                os.utime(note)  # counts as its use
                _sound[digest] = stamp
                return
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, kind).hexdigest()
        if actual != digest:
            what = f"{kind} is {actual[:12]}... instead of {digest[:12]}..."
            raise PackError(f"{path} is damaged ({what}): remove it, then `dvc fetch`")
        _sound[digest] = stamp
        with suppress(OSError):  # a folder that cannot be written into costs the time to read it again
            self.folder.mkdir(parents=True, exist_ok=True)
            part = note.with_name(f"{note.name}.{os.getpid()}.{threading.get_ident()}.part")
            part.write_text(stamp, encoding="utf-8")
            part.replace(note)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        if fcntl is None:
            with _locks.setdefault(name, threading.Lock()):
                self.folder.mkdir(parents=True, exist_ok=True)
                yield
            return
        lock = self.folder / f"{name}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = lock.open("ab")
        except OSError as error:
            raise PackError(
                f"the cache folder {self.folder} cannot be written into ({error.strerror}): "
                "name another one with cache= or IMAGEPACK_CACHE"
            ) from None
        with file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # closing is not enough: a process forked meanwhile has the file too
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _keep_below(self, limit: int, added: int) -> None:
        """Remove the files whose last use is longest ago."""
        self._unseen += added
        if self._unseen < limit / SLACK:
            return
        self._unseen = 0
        files = sorted(_files(self.folder))
        excess = sum(size for _, size, _ in files) - limit
        recent = time.time() - GRACE
        for used, size, path in files:
            if excess <= 0 or used > recent:
                return
            with suppress(OSError):  # open (Windows), another user's, or gone
                path.unlink()
                excess -= size


_locks: dict[str, threading.Lock] = {}
_sound: dict[str, str] = {}
"""Of files of other folders that were found sound: by hash, their size, time, inode and path then."""


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, size in bytes and path of each file; those that go meanwhile are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found = entry.stat()
                yield found.st_mtime, found.st_size, Path(entry.path)
