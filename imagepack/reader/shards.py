"""Read rows of the shards straight into an array: HDF5 says once where they lie and is not used from then on."""

import errno
import functools
import io
import itertools
import math
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagepack.reader import format as packs
from imagepack.reader.format import AGAIN, Index, PackError, ShardLayout

OPEN_FILES, OPEN_A_THREAD = 128, 64
"""Shards that stay open, and how many more a thread may open; systems mostly allow 1,024 files to a process."""
VERIFY = ("never", "first-read", "always")


class OpenShard:
    """A shard mapped into memory, closed once nobody has it any more: no reader can tell whether another still reads.

    Attributes:
        view: all bytes.
        layout: where its images lie.
        images: uint8, (n, H * W * C), of a shard of arrays; of others None.
    """

    def __init__(self, path: Path, layout: ShardLayout, size: int | None) -> None:
        """Map the file; `size` is the bytes of an image of a shard of arrays.

        Raises:
            OSError: it cannot be opened.
            PackError: the file is shorter than it was.
        """
        self.path, self.layout = path, layout
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = len(self._map)
        self.view = np.frombuffer(self._map, np.uint8)
        if layout.offsets[-1] > self._size:  # it was looked into before, and is opened again
            raise self._shorter()
        pixels = slice(int(layout.offsets[0]), int(layout.offsets[-1]))
        self.images = None if size is None else self.view[pixels].reshape(-1, size)

    def require_whole(self) -> None:
        """Refuse a file that has been cut off: to read on would end the process.

        Raises:
            PackError: the file is shorter than it was.
        """
        if self._map.size() < self._size:
            raise self._shorter()

    def _shorter(self) -> PackError:
        return PackError(f"{self.path} has become shorter while it was read: {AGAIN}")


class Shards:
    """The pixels of a pack. Threads and forked processes may read at any time; unpickled, it opens the files anew."""

    def __init__(
        self,
        index: Index,
        find: Callable[[str, int], Path],
        verify: str = "never",
        fetch: Callable[[list[tuple[str, int]]], None] | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            index: of the pack.
            find: from a shard's file name and size in bytes to where it is on this machine; may fetch it.
            verify: when to compare an image with its checksum: never, first-read (once) or always.
            fetch: brings several shards, names and sizes, to this machine at once; None where all are here.
        """
        if verify not in VERIFY:
            raise ValueError(f"verify must be {', '.join(VERIFY[:-1])} or {VERIFY[-1]}, not {verify!r}")
        if verify != "never":
            _crc32c()
        self._index, self._find, self._verify, self._fetch = index, find, verify, fetch
        self._reset()

    def _reset(self) -> None:
        """Have nothing open and no lock taken."""
        _of_this_process().add(self)
        self._lock = threading.Lock()
        self._files: OrderedDict[int, OpenShard] = OrderedDict()
        self._layouts: dict[int, ShardLayout] = {}
        self._seen: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {"_index": self._index, "_find": self._find, "_verify": self._verify, "_fetch": self._fetch}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self._reset()

    def fetch(self, rows: np.ndarray) -> None:
        """Bring the shards of these images to this machine, several at once; nothing where all are here."""
        if self._fetch is None:
            return
        shards = np.unique(np.searchsorted(self._index.shard_starts, rows, "right") - 1).tolist()
        closed = [shard for shard in shards if shard not in self._files]
        self._fetch([(self._index.shard_names[shard], int(self._index.shard_bytes[shard])) for shard in closed])

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy images into `out`, one after the other.

        Args:
            rows: int64, (n,), of the pack, in any order.
            out: uint8, (n, H, W, C), contiguous.

        Raises:
            PackError: a shard is missing, damaged or no such shard; an image does not match its checksum.
        """
        if not len(rows):
            return
        self.fetch(rows)
        shards = np.searchsorted(self._index.shard_starts, rows, "right") - 1
        inside = rows - self._index.shard_starts[shards]
        if len(set(shards.tolist())) <= OPEN_A_THREAD:  # in the order of `out`, which is faster
            self._read_some(range(len(rows)), shards.tolist(), inside.tolist(), out)
            return
        by_shard = np.argsort(shards, kind="stable")
        changes = np.flatnonzero(np.diff(shards[by_shard])) + 1
        for places in np.split(by_shard, changes[OPEN_A_THREAD - 1 :: OPEN_A_THREAD]):
            self._read_some(places.tolist(), shards[places].tolist(), inside[places].tolist(), out)

    def _read_some(self, places: Sequence[int], shards: list[int], inside: list[int], out: np.ndarray) -> None:
        """Copy images of few shards, since each takes a file descriptor: row `inside` of shard to a place in `out`."""
        opened = {shard: self._open(shard) for shard in dict.fromkeys(shards)}
        for each in opened.values():
            each.require_whole()
        if self._index.encoding == "raw":
            images = {shard: each.images for shard, each in opened.items()}
            _copy([images[shard][row] for shard, row in zip(shards, inside, strict=True)], places, out)
            if self._verify == "never":
                return
        for i, shard, row in zip(places, shards, inside, strict=True):
            if self._index.encoding != "raw":
                self._decode(shard, row, opened[shard], out[i])
            else:
                self._check(shard, row, opened[shard].layout, out[i])

    def _decode(self, shard: int, row: int, file: OpenShard, out: np.ndarray) -> None:
        data = file.view[file.layout.offsets[row] : file.layout.offsets[row + 1]]
        if self._verify != "never":
            self._check(shard, row, file.layout, data)
        try:
            with Image.open(io.BytesIO(data), formats=[packs.ENCODINGS[self._index.encoding]]) as image:
                if (image.height, image.width, len(image.getbands())) != self._index.shape:
                    raise ValueError(f"it is {image.mode} of {image.width} x {image.height} pixels")
                out[:] = np.asarray(image).reshape(out.shape)
        except Exception as error:
            raise PackError(f"{file.path}: image {row} is damaged ({error}): {AGAIN}") from error

    def _check(self, shard: int, row: int, layout: ShardLayout, data: np.ndarray) -> None:
        """Compare with the checksum, unless that was done and once is enough."""
        seen = self._seen.setdefault(shard, np.zeros(len(layout.checksums), bool))
        if seen[row] and self._verify == "first-read":
            return
        if _crc32c()(data.reshape(-1)) != layout.checksums[row]:
            name = self._index.shard_names[shard]
            raise PackError(f"image {row} of shard {name} does not match its checksum: {AGAIN}")
        seen[row] = True

    def read_files(self, rows: np.ndarray) -> list[bytes]:
        """Return images as the files that they are in the shards, which are PNG or JPEG.

        Args:
            rows: int64, (n,), of the pack.

        Raises:
            PackError: a shard is missing or damaged; a file does not match its checksum.
        """
        self.fetch(rows)
        files = []
        for row in rows.tolist():
            shard = int(np.searchsorted(self._index.shard_starts, row, "right")) - 1
            file = self._open(shard)
            file.require_whole()
            inside = row - int(self._index.shard_starts[shard])
            data = file.view[file.layout.offsets[inside] : file.layout.offsets[inside + 1]]
            if self._verify != "never":
                self._check(shard, inside, file.layout, data)
            files.append(data.tobytes())
        return files

    def bad_rows(self, shard: int) -> list[int]:
        """Return which images of a shard, counted from 0, do not match their checksums.

        Raises:
            PackError: the shard cannot be read at all.
        """
        file = self._open(shard)
        file.require_whole()
        parts = (file.view[start:stop] for start, stop in itertools.pairwise(file.layout.offsets.tolist()))
        return [row for row, data in enumerate(parts) if _crc32c()(data) != file.layout.checksums[row]]

    def _open(self, shard: int) -> OpenShard:
        """Return a shard; looked into once, kept open while among the latest.

        A file that is put out of the list is closed by Python once nobody reads from it any more.
        """
        with self._lock:
            if shard in self._files:
                self._files.move_to_end(shard)
                return self._files[shard]
        path = self._find(self._index.shard_names[shard], int(self._index.shard_bytes[shard]))
        if (layout := self._layouts.get(shard)) is None:
            layout = packs.read_layout(path, self._index, shard)
        try:
            opened = OpenShard(path, layout, math.prod(self._index.shape) if self._index.encoding == "raw" else None)
        except OSError as error:
            fix = "raise the limit (ulimit -n)" if error.errno == errno.EMFILE else "check its permissions"
            raise PackError(f"{path} cannot be opened ({error.strerror}): {fix}") from None
        with self._lock:
            self._layouts[shard] = layout
            self._files[shard] = opened
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        return opened


def _copy(images: Sequence[np.ndarray], places: Sequence[int], out: np.ndarray) -> None:
    """Copy images, uint8 (H * W * C,) each, to places in `out`; all in one call if those follow each other.

    NumPy lets other threads run while it copies.
    """
    if isinstance(places, range):
        np.concatenate(images, out=out.reshape(-1))
        return
    flat = out.reshape(len(out), -1)
    for place, image in zip(places, images, strict=True):
        flat[place] = image


@functools.cache
def _of_this_process() -> "weakref.WeakSet[Shards]":
    """Return all Shards; a forked process makes their locks anew, since its parent's thread cannot open one here."""
    every = weakref.WeakSet()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: [shards._reset() for shards in list(every)])
    return every


@functools.cache
def _crc32c() -> Callable[[np.ndarray], int]:
    """Return the function from uint8 (n,) to its CRC-32C."""
    try:
        from google_crc32c import value
    except ImportError:
        raise PackError("to verify images needs google-crc32c: pip install google-crc32c") from None
    return value
