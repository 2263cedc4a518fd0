"""Where the memo lies on disk: values in a few large files, and an SQLite index of where each is.

    FOLDER/index.sqlite         key -> segment, start, length, checksum
    FOLDER/segments/NAME.bin    values, one behind the other; each is written by one process, and only at its end
    FOLDER/segments/NAME.rows   of a segment that a worker of a cluster wrote: what the index is to be told of it
    FOLDER/lent-NAME.sqlite     a copy of the index, for the workers of one run on a cluster

A file an image would cost more than most images. Values are written before the index says where they are, and no value
is returned whose checksum, of key and value, is wrong: whatever a killed process, a full disk or a failing one leaves
behind, nothing false comes out.

On one machine any number of processes may read and write at once (`Store`). SQLite's write-ahead log does not work over
network file systems (https://sqlite.org/wal.html), and on some of them its locks hold nobody off. So on a cluster the
stage's main process alone opens the index (`Store`, alone), and workers (memo_segments.FarStore) need no lock: they
read by a copy that nobody writes, and each writes files of its own, of which the main process enters into the index
what they hold, or the next run if that was killed.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from imagepack.engine import memo_segments
from imagepack.engine.memo_segments import FULL, ROW, SEGMENTS, Segments

INDEX, LENT, DAMAGED = "index.sqlite", "lent-", "damaged"
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


class Store(Segments):
    """A bounded table of bytes by key, for one process; others may have the same folder open.

    Args:
        folder: is made.
        limit: bytes on disk. What was not used for longest makes room; what was used since `since` stays, and where
            that leaves no room, nothing is added.
        since: seconds since the epoch: when this run began.
        alone: no other process may have the index open; for network file systems.
        patience: seconds for which to wait for others who have it open or write to it.

    Raises:
        FAILURES: it cannot be used; so may every method.
    """

    def __init__(self, folder: Path, limit: int, since: float, alone: bool = False, patience: float = 60) -> None:
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
        index = sqlite3.connect(folder / INDEX, timeout=patience, isolation_level=None, check_same_thread=False)
        super().__init__(folder, limit, index)
        self._since = since
        self._own: tuple[int, Path, BinaryIO] | None = None
        self._lent: Path | None = None
        self._collected: dict[str, int] = {}
        if alone:  # before anything is read, so that a write-ahead log of a local run is read without shared memory
            index.execute("PRAGMA locking_mode = EXCLUSIVE")
            index.execute("PRAGMA cache_size = -524288")  # kibibytes at most, where the index is that large
        index.execute(f"PRAGMA journal_mode = {'DELETE' if alone else 'WAL'}")
        index.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last entries, and no more
        index.execute("PRAGMA wal_autocheckpoint = 256")
        if index.execute("PRAGMA user_version").fetchone() != (VERSION,):
            self._create()

    def _create(self) -> None:
        with self._transaction():
            if self._index.execute("PRAGMA user_version").fetchone() == (VERSION,):
                return  # another process was first
            for statement in SCHEMA.split(";"):
                self._index.execute(statement)
            for path in self._segments.iterdir():
                path.unlink()

    def _touch(self, name: str) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # it may be that no more can be written
            self._index.execute("UPDATE segments SET used = ? WHERE name = ?", (time.time(), name))

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> bool:
        """Keep a value for each key: all of them or, where there is no room, none; whether there was."""
        if not self.has_space():
            return False
        self._own = self._own or self._begin()
        segment, _, file = self._own
        start = file.tell()
        try:
            rows, end = memo_segments.append(file, items)
            with self._transaction():
                gone, fits = self._make_room(end - start)
                update = "UPDATE segments SET bytes = ?, used = ? WHERE id = ?"
                found = self._index.execute(update, (end, time.time(), segment)).rowcount
                if not fits:
                    raise _NoRoom
                if not found:
                    raise _Evicted
                self._insert(segment, rows)
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
        if self.is_long(end):
            self._finish()
        return True

    def _insert(self, segment: int, rows: Iterable[tuple]) -> None:
        several = ((key, segment, *where) for key, *where in rows)
        self._index.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", several)

    def _begin(self) -> tuple[int, Path, BinaryIO]:
        """A new segment; in the index first, so that no file is without a row."""
        name = memo_segments.new_name()
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

    def _make_room(self, wanted: int) -> tuple[list[str], bool]:
        """Take segments from the index until `wanted` bytes more fit; their files' names, and whether they do now."""
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
        return gone, excess <= 0

    def tidy(self) -> None:
        """Make the index and the files agree where a killed run left them different, and keep to the limit."""
        for path in (self._folder / FULL, *self._folder.glob(f"{LENT}*")):
            with contextlib.suppress(OSError):
                path.unlink()
        files = {path.name for path in self._segments.iterdir()}  # before the index: a new file's row is there first
        written = self._written()
        with self._transaction():
            for name in written:
                self._add(name, self._since - 1)
            known = set()
            for segment, name, size in self._index.execute("SELECT id, name, bytes FROM segments").fetchall():
                path = self.path_of(name)
                if not path.exists():
                    self._index.execute("DELETE FROM entries WHERE segment = ?", (segment,))
                    self._index.execute("DELETE FROM segments WHERE id = ?", (segment,))
                elif (actual := path.stat().st_size) != size:
                    self._index.execute("UPDATE segments SET bytes = ? WHERE id = ?", (actual, segment))
                known.add(name)
            gone, _ = self._make_room(0)
        self._remove({name for name in files - known if name.endswith(".bin")}.union(gone))
        self._forget(written)

    def lend(self, name: str) -> None:
        """Make the copy `name` of the index, for memo_segments.FarStore; `close` removes it."""
        self._lent = self._folder / name
        try:
            with contextlib.closing(sqlite3.connect(self._lent)) as copy:
                copy.execute("PRAGMA journal_mode = OFF")  # nobody wants half a copy
                self._index.backup(copy)
        except sqlite3.Error:
            self._lent.unlink(missing_ok=True)
            raise

    def collect(self, names: Iterable[str], end: bool = False) -> None:
        """Add to the index what workers of a cluster have written; where that leaves no room, make them stop.

        Args:
            names: segments that they have read or written since the last time.
            end: nobody writes any more.
        """
        names = {*names, *(self._written() if end else ())}
        with self._transaction():
            read = {name: self._add(name, time.time()) for name in names}
            gone, fits = self._make_room(0)
        self._collected |= read
        self._remove(gone)
        if end:
            self._forget(names)
        elif not fits:
            (self._folder / FULL).touch()

    def _add(self, name: str, used: float) -> int:
        """Enter what there is to be told of a segment, beyond what was; how many bytes of its rows that makes."""
        done, data = self._collected.get(name, 0), b""
        with contextlib.suppress(FileNotFoundError), self.rows_of(name).open("rb") as file:
            file.seek(done)
            data = file.read()
        data = data[: len(data) // ROW.size * ROW.size]  # whoever wrote it may have been killed
        known = self._index.execute("UPDATE segments SET used = ? WHERE name = ?", (used, name)).rowcount
        if data and (path := self.path_of(name)).exists():
            if not known:
                self._index.execute("INSERT INTO segments (name, bytes, used) VALUES (?, 0, ?)", (name, used))
            (segment,) = self._index.execute("SELECT id FROM segments WHERE name = ?", (name,)).fetchone()
            self._index.execute("UPDATE segments SET bytes = ? WHERE id = ?", (path.stat().st_size, segment))
            self._insert(segment, sorted(ROW.iter_unpack(data)))  # by key, as the index is: takes half the time
        return done + len(data)

    def _written(self) -> list[str]:
        """Segments of which there is something to be told."""
        return [f"{path.stem}.bin" for path in self._segments.glob("[0-9a-f]" * 16 + ".rows")]

    def _forget(self, names: Iterable[str]) -> None:
        """What there was to be told of segments is in the index; what a forgotten worker adds later is lost."""
        for name in names:
            with contextlib.suppress(OSError):
                self.rows_of(name).unlink()

    def _remove(self, names: Iterable[str]) -> None:
        """Remove segments that the index no longer has; one that cannot be removed now, `tidy` removes later."""
        for name in names:
            with contextlib.suppress(OSError):
                self.path_of(name).unlink()

    def size(self) -> int:
        """Bytes on disk."""
        (values,) = self._index.execute("SELECT coalesce(sum(bytes), 0) FROM segments").fetchone()
        files = (*self._folder.glob(f"{INDEX}*"), *self._folder.glob(f"{LENT}*"))
        return values + sum(path.stat().st_size for path in files if path.exists())

    def __len__(self) -> int:
        return self._index.execute("SELECT count(*) FROM entries").fetchone()[0]

    def close(self) -> None:
        """Close every file."""
        if self._own:
            self._finish()
        super().close()
        if self._lent:
            self._lent.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and one process at a time."""
        self._index.execute("BEGIN EXCLUSIVE")
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
