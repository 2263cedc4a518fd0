"""The memo's files: values in a few large segments, to which workers only append, and an SQLite index of them.

    FOLDER/index.sqlite         key -> segment, start, length, checksum
    FOLDER/segments/NAME.bin    blocks, one behind the other: a header, values, a row for each of them

A file an image would cost more than most images. Nothing needs a lock, so it works alike on one machine and on a
cluster with a shared file system, where SQLite's write-ahead log and many locks do not (https://sqlite.org/wal.html):

- A worker (`WorkerStore`) reads the index, appends to segments of its own, and reports the blocks that it has written.
- The stage's main process (`Store`) puts a new index in the place of the old one when its workers have ended. So what
  a run writes is found by the next one.
- Where a run was killed before that, its segments are longer than the index says. The next run reads their rows.

No value is returned whose checksum, of key and value, is wrong: whatever a killed process, a full disk or a failing one
leaves behind, nothing false comes out.
"""

import contextlib
import errno
import itertools
import os
import platform
import secrets
import shutil
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from xxhash import xxh3_64_digest

INDEX, SEGMENTS = "index.sqlite", "segments"
FULL = "full"
"""A file that tells workers to write no more in this run."""
DAMAGED = "damaged"
"""A file that tells the next run to begin anew."""
VERSION = 2
SCHEMA = f"""
CREATE TABLE segments (segment INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE entries (key BLOB PRIMARY KEY, segment INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
    checksum BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
LONGER = "ON CONFLICT DO UPDATE SET bytes = max(bytes, excluded.bytes)"
MAGIC = b"memo\0\0\0\2"
HEADER, ROW = struct.Struct("<8sQQ"), struct.Struct("<32sQ8s")
"""Of a block: MAGIC, the number of values, and their bytes; of each value key, length, checksum."""
SEGMENT_BYTES = 64 * 2**20
"""Least size of a segment before the next is begun, where the limit is high enough for many."""
SPARE_BYTES = 2**30
"""Of the disk, left to the pipeline itself."""
OPEN_FILES = 32
STALE = 24 * 3600.0
"""Age in seconds of an unfinished index that a killed run has left."""
FAILURES = (sqlite3.Error, struct.error, OSError, MemoryError, TypeError, ValueError)
"""What may go wrong with a memo, the last two where its index is damaged; none of it is a reason to stop."""
NO_DAMAGE = ("AUTH", "BUSY", "CANTOPEN", "FULL", "IOERR", "LOCKED", "NOMEM", "PERM", "PROTOCOL", "READONLY")
"""SQLite's errors that say nothing of the index: locks, rights, disks."""


class Block(NamedTuple):
    """Values that were written together.

    Attributes:
        segment: where they lie.
        start: byte at which the first one begins.
        end: byte at which the block ends.
        rows: of all.
    """

    segment: int
    start: int
    end: int
    rows: bytes

    def entries(self) -> Iterator[tuple[bytes, int, int, int, bytes]]:
        """Yield key, segment, start, length and checksum of each value."""
        start = self.start
        for key, length, checksum in ROW.iter_unpack(self.rows):
            yield key, self.segment, start, length, checksum
            start += length


def is_damage(error: Exception) -> bool:
    """Return whether one of FAILURES tells that the index cannot be used any more."""
    if isinstance(error, sqlite3.Error):
        return not getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").startswith(NO_DAMAGE)
    return isinstance(error, (TypeError, ValueError))


class WorkerStore:
    """The memo in a worker process.

    Args:
        folder, limit: as of `Store`, which has made it.

    Attributes:
        damaged: where values have changed on disk, in words; the reader may empty the list.

    Raises:
        FAILURES: it cannot be used; so may `get` and `put`.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        if not (folder / INDEX).exists():
            raise FileNotFoundError(f"{platform.node()} does not see {folder / INDEX}")
        self._folder, self._index = folder, _connect(folder)
        self._long = min(SEGMENT_BYTES, limit // 16)
        self._own = 0
        self._files: dict[int, BinaryIO] = {}
        self._used: set[int] = set()
        self.damaged: list[str] = []

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`; None where there is none, or a damaged one."""
        query = "SELECT segment, start, length, checksum FROM entries WHERE key = ?"
        row = self._index.execute(query, (key,)).fetchone()
        if row is None:
            return None
        segment, start, length, checksum = row
        try:
            file = self._open(segment)
            file.seek(start)
            value = file.read(length)
        except (OSError, TypeError, ValueError, OverflowError, MemoryError) as error:
            if getattr(error, "errno", 0) in (errno.ENOENT, errno.ESTALE):  # removed to make room
                return None
            value = b""  # a damaged disk or index
        if xxh3_64_digest(key + value) != checksum:
            self.damaged.append(f"{_path(self._folder, segment)} at byte {start}")
            return None
        return value

    def _open(self, segment: int) -> BinaryIO:
        if segment not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            path = _path(self._folder, segment)
            self._files[segment] = path.open("rb", buffering=0)
            if segment not in self._used:
                self._used.add(segment)
                with contextlib.suppress(OSError):  # it may be that nothing can be written
                    os.utime(path)  # when it was used last, for Store.make_room
        return self._files[segment]

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> Block | None:
        """Keep a value for each key; return their block, for `Store.enter`, or None where there is no room.

        The file is closed each time: only then do other machines see all that is in it.
        """
        if (self._folder / FULL).exists() or shutil.disk_usage(self._folder).free < SPARE_BYTES:
            return None
        if not self._own or not _path(self._folder, self._own).exists():  # removed by another run, to make room
            self._own = secrets.randbits(62) + 1
        segment, values = self._own, [value for _, value in items]
        rows = b"".join(ROW.pack(key, len(value), xxh3_64_digest(key + value)) for key, value in items)
        with _path(self._folder, segment).open("ab") as file:
            begin = file.tell()
            try:
                file.writelines([HEADER.pack(MAGIC, len(items), sum(map(len, values))), *values, rows])
                file.flush()
            except OSError:
                self._own = 0  # nothing follows behind what may be half a block
                os.ftruncate(file.fileno(), begin)
                raise
            end = file.tell()
        if end >= self._long:
            self._own = 0
        return Block(segment, begin + HEADER.size, end, rows)

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._index.close()


class Store:
    """The memo in the main process of a stage.

    Args:
        folder: is made.
        limit: bytes on disk. What was not used for longest makes room.

    Raises:
        FAILURES: it cannot be used; so may every method.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
        self._folder, self._limit = folder, limit
        self._full = folder / FULL
        with self._full.open("w") as file:
            self._since = os.fstat(file.fileno()).st_mtime  # by the clock of the file server, as the times of segments
        self._full.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Make the index and the segments agree, and keep to the limit."""
        for path in self._folder.glob("new-*.sqlite"):
            with contextlib.suppress(OSError):
                if self._since - path.stat().st_mtime > STALE:
                    path.unlink()
        known = self._known()
        self.make_room()
        segments = _segments(self._folder)
        longer = [number for number, (_, size) in segments.items() if size > known.get(number, 0)]
        found = [block for number in longer for block in blocks(_path(self._folder, number), known.get(number, 0))]
        if found or known.keys() - segments.keys() or not (self._folder / INDEX).exists():
            self.enter(found)

    def _known(self) -> dict[int, int]:
        """Return up to which byte the index has each segment."""
        if not (self._folder / INDEX).exists():
            return {}
        with contextlib.closing(_connect(self._folder)) as index:
            if index.execute("PRAGMA user_version").fetchone() == (VERSION,):
                return dict(index.execute("SELECT segment, bytes FROM segments"))
        shutil.rmtree(self._folder)  # another version of this module has written it
        (self._folder / SEGMENTS).mkdir(parents=True)
        return {}

    def enter(self, blocks: Sequence[Block]) -> None:
        """Write a new index, with these blocks too, and without segments that are gone."""
        new = self._folder / f"new-{secrets.token_hex(8)}.sqlite"
        try:
            if (self._folder / INDEX).exists():
                shutil.copyfile(self._folder / INDEX, new)
            with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as index:
                index.execute("PRAGMA journal_mode = OFF")  # nobody wants half of it
                if index.execute("PRAGMA user_version").fetchone() == (0,):
                    index.executescript(SCHEMA)
                index.execute("BEGIN")
                self._change(index, blocks)
                index.execute("COMMIT")
            new.replace(self._folder / INDEX)
        finally:
            new.unlink(missing_ok=True)

    def _change(self, index: sqlite3.Connection, blocks: Sequence[Block]) -> None:
        entries = (entry for block in blocks for entry in block.entries())
        while some := sorted(itertools.islice(entries, 100_000)):  # by key, as the index is: takes half the time
            index.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", some)
        for segment, _, end, _ in blocks:
            index.execute(f"INSERT INTO segments VALUES (?, ?) {LONGER}", (segment, end))
        segments = index.execute("SELECT segment FROM segments").fetchall()
        if gone := [row for row in segments if not _path(self._folder, *row).exists()]:
            index.executemany("DELETE FROM segments WHERE segment = ?", gone)
            index.execute("DELETE FROM entries WHERE segment NOT IN (SELECT segment FROM segments)")

    def make_room(self, end: bool = False) -> bool:
        """Remove the segments that were not used for longest, until the others fit into the limit.

        Args:
            end: nobody writes any more, so what was written last may be removed too.

        Returns:
            Whether there was room. If not, workers are told to write no more in this run.
        """
        used = sorted((time, segment, size) for segment, (time, size) in _segments(self._folder).items())
        removable = [each for each in used if each[0] < self._since]
        excess = total_size(self._folder) - self._limit
        fits = excess <= sum(size for _, _, size in removable)
        if end:
            removable += reversed(used[len(removable) :])
        elif not fits:
            self._full.touch()
        for _, segment, freed in removable:
            if excess <= 0:
                break
            with contextlib.suppress(OSError):  # what cannot be removed now is by the next run
                _path(self._folder, segment).unlink()  # the index forgets it when it is written anew
                excess -= freed
        return fits


def total_size(folder: Path) -> int:
    """Return the bytes that a memo takes on disk."""
    index = (folder / INDEX).stat().st_size if (folder / INDEX).exists() else 0
    return index + sum(size for _, size in _segments(folder).values())


def count(folder: Path) -> int:
    """Return how many entries a memo has."""
    with contextlib.closing(_connect(folder)) as index:
        return index.execute("SELECT count(*) FROM entries").fetchone()[0]


def is_empty(folder: Path) -> bool:
    """Return whether a memo, which has been made, has no entry."""
    with contextlib.closing(_connect(folder)) as index:
        return index.execute("SELECT 1 FROM entries LIMIT 1").fetchone() is None


def _connect(folder: Path) -> sqlite3.Connection:
    """Open the index, which nobody changes, without locks."""
    uri = f"{(folder / INDEX).absolute().as_uri()}?immutable=1&mode=ro"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


def _path(folder: Path, segment: int) -> Path:
    return folder / SEGMENTS / f"{segment:016x}.bin"


def _segments(folder: Path) -> dict[int, tuple[float, int]]:
    """Return when each segment was used last, and its size."""
    found = {}
    for path in (folder / SEGMENTS).glob("[0-9a-f]" * 16 + ".bin"):
        with contextlib.suppress(FileNotFoundError):  # removed by another run, to make room
            status = path.stat()
            found[int(path.stem, 16)] = status.st_mtime, status.st_size
    return found


def blocks(path: Path, begin: int = 0) -> Iterator[Block]:
    """Yield the blocks of a segment that begin at byte `begin` or behind it, as far as they are whole."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while begin + HEADER.size <= size:
            file.seek(begin)
            magic, values, length = HEADER.unpack(file.read(HEADER.size))
            start, end = begin + HEADER.size, begin + HEADER.size + length + values * ROW.size
            if magic != MAGIC or end > size:  # whoever wrote it was killed
                return
            file.seek(start + length)
            yield Block(int(path.stem, 16), start, end, file.read(values * ROW.size))
            begin = end
