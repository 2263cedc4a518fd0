"""The files in which a memo's values lie, and how a worker of a cluster has them; memo_store.py has the whole."""

import errno
import platform
import re
import secrets
import shutil
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from xxhash import xxh3_64_digest

SEGMENTS = "segments"
FULL = "full"
"""A file that tells workers of a cluster to write no more in this run."""
SEGMENT_BYTES = 64 * 2**20
"""What a segment has at least before the next is begun, where the limit is high enough for many."""
SPARE_BYTES = 2**30
"""Of the disk, left to the pipeline itself."""
OPEN_FILES = 32
ROW = struct.Struct("<32sqq8s")
"""Of NAME.rows: key, start, length, checksum."""


class Segments:
    """What memo_store.Store and `FarStore` have in common: finding values, and the files in which they lie.

    Attributes:
        damaged: where values were that had changed on disk, in words; the reader may empty the list.
        news: segments that were read or written, of which memo_store.Store.collect is to be told; the reader may empty
            it. Empty where the index knows.
    """

    def __init__(self, folder: Path, limit: int, index: sqlite3.Connection) -> None:
        self._folder, self._limit, self._index = folder, limit, index
        self._segments = folder / SEGMENTS
        self._files: dict[str, BinaryIO] = {}
        self._touched: set[str] = set()
        self.damaged: list[str] = []
        self.news: set[str] = set()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None where there is none, or a damaged one."""
        return [self._get(key) for key in keys]

    def _get(self, key: bytes) -> bytes | None:
        query = "SELECT name, start, length, checksum FROM entries JOIN segments ON id = segment WHERE key = ?"
        row = self._index.execute(query, (key,)).fetchone()
        if row is None:
            return None
        name, start, length, checksum = row
        try:
            file = self._open(name)
            file.seek(start)
            value = file.read(length)
        except (OSError, TypeError, ValueError, OverflowError, MemoryError) as error:
            if getattr(error, "errno", 0) in (errno.ENOENT, errno.ESTALE):  # removed to make room, a moment ago
                return None
            value = b""  # a damaged disk or index
        if xxh3_64_digest(key + value) != checksum:
            self.damaged.append(f"{self._segments / str(name)} at byte {start}")
            return None
        if name not in self._touched:
            self._touched.add(name)
            self._touch(name)
        return value

    def _open(self, name: str) -> BinaryIO:
        if name not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[name] = self.path_of(name).open("rb", buffering=0)
        return self._files[name]

    def _touch(self, name: str) -> None:
        """A segment was read, for the first time by this process."""

    def has_space(self) -> bool:
        """Whether the disk has."""
        return shutil.disk_usage(self._folder).free >= SPARE_BYTES

    def is_long(self, end: int) -> bool:
        """Whether a segment of so many bytes is to have no more."""
        return end >= min(SEGMENT_BYTES, self._limit // 16)

    def path_of(self, name: str) -> Path:
        """Of a segment: never anything outside, whatever a damaged index says."""
        if not re.fullmatch(r"[0-9a-f]{16}\.bin", name):
            raise ValueError(f"no segment is called {name!r}")
        return self._segments / name

    def rows_of(self, name: str) -> Path:
        return self.path_of(name).with_suffix(".rows")

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._index.close()


class FarStore(Segments):
    """The store of a worker of a cluster. What it writes, it does not find: that is for the next run.

    Args:
        folder, limit: as of memo_store.Store.
        copy: the name of the one of the index that memo_store.Store.lend has made.

    Raises:
        memo_store.FAILURES: it cannot be used; so may `get` and `put`.
    """

    def __init__(self, folder: Path, limit: int, copy: str) -> None:
        path = folder / copy
        if not path.exists():
            raise FileNotFoundError(f"{platform.node()} does not see {path}")
        uri = f"{path.as_uri()}?immutable=1&mode=ro"
        super().__init__(folder, limit, sqlite3.connect(uri, uri=True, check_same_thread=False))
        self._own = ""

    def _touch(self, name: str) -> None:
        self.news.add(name)

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> bool:
        """As memo_store.Store.put. Closes the files each time: only then do other machines see all that is in them."""
        if (self._folder / FULL).exists() or not self.has_space():
            return False
        name, self._own = self._own or new_name(), ""  # where this fails, nothing is to follow behind it
        with self.path_of(name).open("ab") as file:
            rows, end = append(file, items)
        with self.rows_of(name).open("ab") as file:
            file.write(b"".join(ROW.pack(*row) for row in rows))
        self.news.add(name)
        self._own = "" if self.is_long(end) else name
        return True


def append(file: BinaryIO, items: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple], int]:
    """Write values behind each other; key, start, length and checksum of each, and where the file ends now."""
    rows, end = [], file.tell()
    for key, value in items:
        rows.append((key, end, len(value), xxh3_64_digest(key + value)))
        end += file.write(value)
    file.flush()
    return rows, end


def new_name() -> str:
    return f"{secrets.token_hex(8)}.bin"
