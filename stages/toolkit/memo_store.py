"""Where the memo lies on disk: values in a few large files, and an SQLite index of where each is.

    FOLDER/index.sqlite         key -> segment, start, length, checksum
    FOLDER/segments/NAME.bin    values, one behind the other; each is written by one process, and only at its end

A file an image would cost more than most images. Values are written before the index says where they are, and no value
is returned whose checksum, of key and value, is wrong: whatever a killed process, a full disk or a failing one leaves
behind, nothing false comes out. Any number of processes may read and write at once, on one machine: SQLite's
write-ahead log does not work over network file systems (https://sqlite.org/wal.html).
"""

import contextlib
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from xxhash import xxh3_64_digest

INDEX, SEGMENTS, DAMAGED = "index.sqlite", "segments", "damaged"
SEGMENT_BYTES = 64 * 2**20
"""What a segment has at least before the next is begun, where the limit is high enough for many."""
SPARE_BYTES = 2**30
"""Of the disk, left to the pipeline itself."""
OPEN_FILES = 32
VERSION = 1
SCHEMA = f"""
DROP TABLE IF EXISTS segments;
DROP TABLE IF EXISTS entries;
CREATE TABLE segments (id INTEGER PRIMARY KEY, name TEXT NOT NULL, bytes INTEGER NOT NULL, used REAL NOT NULL);
CREATE TABLE entries (key BLOB PRIMARY KEY, segment INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
    checksum BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX entries_of_a_segment ON entries (segment);
PRAGMA user_version = {VERSION};
"""
FAILURES = (sqlite3.Error, OSError, MemoryError, TypeError, ValueError)
"""What may go wrong with a memo, the last two where its index is damaged; none of it is a reason to stop."""
NO_DAMAGE = ("AUTH", "BUSY", "CANTOPEN", "FULL", "IOERR", "LOCKED", "NOMEM", "PERM", "PROTOCOL", "READONLY")
"""SQLite's errors that say nothing of the index: locks, rights, disks."""


def is_damage(error: Exception) -> bool:
    """Whether one of FAILURES tells that the index cannot be used any more."""
    if isinstance(error, sqlite3.Error):
        return not getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").startswith(NO_DAMAGE)
    return isinstance(error, (TypeError, ValueError))


class Store:
    """A bounded table of bytes by key, for one process; others may have the same folder open.

    Args:
        folder: is made.
        limit: bytes on disk. What was not used for longest makes room; what was used since `since` stays, and where
            that leaves no room, nothing is added.
        since: seconds since the epoch: when this run began.

    Attributes:
        damaged: where in it values were that had changed on disk, in words; the reader may empty the list.

    Raises:
        FAILURES: it cannot be used; so may `get` and `put`.
    """

    def __init__(self, folder: Path, limit: int, since: float) -> None:
        self._folder, self._limit, self._since = folder, limit, since
        self._segments = folder / SEGMENTS
        self._files: dict[str, BinaryIO] = {}
        self._touched: set[int] = set()
        self._own: tuple[int, Path, BinaryIO] | None = None
        self.damaged: list[str] = []
        self._segments.mkdir(parents=True, exist_ok=True)
        self._index = sqlite3.connect(folder / INDEX, timeout=60, isolation_level=None, check_same_thread=False)
        self._index.execute("PRAGMA journal_mode = WAL")
        self._index.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last entries, and no more
        self._index.execute("PRAGMA wal_autocheckpoint = 256")
        if self._index.execute("PRAGMA user_version").fetchone() != (VERSION,):
            self._create()

    def _create(self) -> None:
        with self._transaction():
            if self._index.execute("PRAGMA user_version").fetchone() == (VERSION,):
                return  # another process was first
            for statement in SCHEMA.split(";"):
                self._index.execute(statement)
            for path in self._segments.iterdir():
                path.unlink()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None where there is none, or a damaged one."""
        return [self._get(key) for key in keys]

    def _get(self, key: bytes) -> bytes | None:
        query = "SELECT segment, name, start, length, checksum FROM entries JOIN segments ON id = segment WHERE key = ?"
        row = self._index.execute(query, (key,)).fetchone()
        if row is None:
            return None
        segment, name, start, length, checksum = row
        try:
            file = self._open(name)
            file.seek(start)
            value = file.read(length)
        except FileNotFoundError:  # removed to make room, a moment ago
            return None
        except (OSError, TypeError, ValueError, OverflowError, MemoryError):  # a damaged disk or index
            value = b""
        if xxh3_64_digest(key + value) != checksum:
            self.damaged.append(f"{self._segments / str(name)} at byte {start}")
            return None
        if segment not in self._touched:
            self._touched.add(segment)
            with contextlib.suppress(sqlite3.OperationalError):  # it may be that no more can be written
                self._index.execute("UPDATE segments SET used = ? WHERE id = ?", (time.time(), segment))
        return value

    def _open(self, name: str) -> BinaryIO:
        if name not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[name] = self._path(name).open("rb", buffering=0)
        return self._files[name]

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> bool:
        """Keep a value for each key: all of them or, where there is no room, none; whether there was."""
        if shutil.disk_usage(self._folder).free < SPARE_BYTES:
            return False
        self._own = self._own or self._begin()
        segment, _, file = self._own
        start = file.tell()
        try:
            rows, end = [], start
            for key, value in items:
                rows.append((key, segment, end, len(value), xxh3_64_digest(key + value)))
                end += file.write(value)
            file.flush()
            with self._transaction():
                gone = self._make_room(end - start)
                update = "UPDATE segments SET bytes = ?, used = ? WHERE id = ?"
                found = self._index.execute(update, (end, time.time(), segment)).rowcount
                if gone is None:
                    raise _NoRoom
                if not found:
                    raise _Evicted
                self._index.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        except BaseException as error:
            with contextlib.suppress(OSError):
                file.truncate(start)
            self._finish()
            if isinstance(error, _Evicted):
                return self.put(items)
            if isinstance(error, _NoRoom):
                return False
            raise
        self._remove(gone)
        if end >= min(SEGMENT_BYTES, self._limit // 16):
            self._finish()
        return True

    def _begin(self) -> tuple[int, Path, BinaryIO]:
        """A new segment; in the index first, so that no file is without a row."""
        name = f"{secrets.token_hex(8)}.bin"
        segment = self._index.execute(
            "INSERT INTO segments (name, bytes, used) VALUES (?, 0, ?)", (name, time.time())
        ).lastrowid
        path = self._segments / name
        return segment, path, path.open("xb")

    def _finish(self) -> None:
        _, path, file = self._own
        self._own = None
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            if not path.stat().st_size:
                path.unlink()

    def _make_room(self, wanted: int) -> list[str] | None:
        """Take segments from the index until `wanted` bytes more fit; their files' names, or None where it is full."""
        excess = self.size() + wanted - self._limit
        oldest = "SELECT id, name, bytes FROM segments WHERE used < ? ORDER BY used, id"
        gone = []
        for segment, name, size in self._index.execute(oldest, (self._since,)).fetchall() if excess > 0 else []:
            if excess <= 0:
                break
            self._index.execute("DELETE FROM entries WHERE segment = ?", (segment,))
            self._index.execute("DELETE FROM segments WHERE id = ?", (segment,))
            gone.append(name)
            excess -= size
        return gone if excess <= 0 else None

    def tidy(self) -> None:
        """Make the index and the files agree where a killed run left them different, and keep to the limit."""
        files = {path.name for path in self._segments.iterdir()}  # before the index: a new file's row is there first
        with self._transaction():
            known = set()
            for segment, name, size in self._index.execute("SELECT id, name, bytes FROM segments").fetchall():
                path = self._path(name)
                if not path.exists():
                    self._index.execute("DELETE FROM entries WHERE segment = ?", (segment,))
                    self._index.execute("DELETE FROM segments WHERE id = ?", (segment,))
                elif (actual := path.stat().st_size) != size:
                    self._index.execute("UPDATE segments SET bytes = ? WHERE id = ?", (actual, segment))
                known.add(name)
            gone = self._make_room(0)
        self._remove({name for name in files - known if name.endswith(".bin")}.union(gone or []))

    def _remove(self, names: Iterable[str]) -> None:
        """Remove segments that the index no longer has; one that cannot be removed now, `tidy` removes later."""
        for name in names:
            with contextlib.suppress(OSError):
                self._path(name).unlink()

    def _path(self, name: str) -> Path:
        """Of a segment: never anything outside, whatever a damaged index says."""
        if not re.fullmatch(r"[0-9a-f]{16}\.bin", name):
            raise ValueError(f"no segment is called {name!r}")
        return self._segments / name

    def size(self) -> int:
        """Bytes on disk."""
        (values,) = self._index.execute("SELECT coalesce(sum(bytes), 0) FROM segments").fetchone()
        files = (self._folder / name for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"))
        return values + sum(path.stat().st_size for path in files if path.exists())

    def __len__(self) -> int:
        return self._index.execute("SELECT count(*) FROM entries").fetchone()[0]

    def close(self) -> None:
        """Close every file."""
        if self._own:
            self._finish()
        for file in self._files.values():
            file.close()
        self._index.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and one process at a time."""
        self._index.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._index.execute("COMMIT")
        except BaseException:
            if self._index.in_transaction:
                self._index.execute("ROLLBACK")
            raise


class _NoRoom(Exception):
    """All that is there was used in this run."""


class _Evicted(Exception):
    """Another run has made room for itself, and this one's segment was the oldest."""
