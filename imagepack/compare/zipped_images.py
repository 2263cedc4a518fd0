"""The raw images that are in zips: those of the workspace, or of a version, each zip opened once and only in parts."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from imagepack.dvc.revision_files import RemoteError
from imagepack.images import raw_files, zips
from imagepack.reader.format import PackError

AT_ONCE = 8
"""Zips whose directories are read at the same time."""
OPEN_ZIPS = 64
"""At once; of more, those that were not used for longest are closed, and opened again if need be."""


class Zip:
    """A zip of raw images, open from the first look until `close`.

    Args:
        path: in the folder of raw images.
        opened: opens it.
    """

    def __init__(self, path: str, opened: Callable[[], BinaryIO]) -> None:
        self.path, self._opened = path, opened
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()

    def members(self) -> list[zips.Member]:
        """All that is in it.

        Raises:
            zips.Damaged, PackError, OSError: it cannot be read.
        """
        with self._lock:
            stream = self._open()
            archive = zips.Archive(Path(self.path), stream.seek(0, os.SEEK_END), 0)
            return zips.list_stream(stream, archive, self.path.rpartition("/")[0])[0]

    def read(self, member: zips.Member) -> bytes:
        """One of them.

        Raises:
            zips.Unreadable, PackError, OSError: it cannot be read.
        """
        with self._lock:
            return zips.read(member, self._open())

    def close(self) -> None:
        with self._lock:
            if self._stream:
                self._stream.close()
            self._stream = None

    def _open(self) -> BinaryIO:
        if self._stream is None:
            self._stream = self._opened()
        return self._stream


class ZippedImages:
    """The images in the zips of one place; a zip stands for the folder it lies in.

    Args:
        files_in: the paths of the files of a folder, without those of its subfolders; folder and paths below that of
            the raw images.
        opened: opens the zip of this path.
    """

    def __init__(self, files_in: Callable[[str], Iterable[str]], opened: Callable[[str], BinaryIO]) -> None:
        self._files_in, self._opened = files_in, opened
        self._folders: set[str] = set()
        self._found: dict[str, tuple[Zip, zips.Member]] = {}
        self._used: OrderedDict[Zip, None] = OrderedDict()  # those that are open, the last used at the end
        self._lock = threading.Lock()
        self.faults: list[str] = []
        """Why zips cannot be used."""

    def read(self, path: str, digest: str, size: int) -> bytes | None:
        """The image of this path, if it is in a zip and has this sha256 and size.

        Raises:
            RemoteError: the remote cannot be read.
            PackError: the image is damaged in its zip.
            OSError: the zip cannot be read.
        """
        with self._lock:
            self._look_above(path)
            archive, member = self._found.get(path, (None, None))
            if archive is None or member.bytes != size:
                return None
            self._used[archive] = None
            self._used.move_to_end(archive)
            while len(self._used) > OPEN_ZIPS:
                self._used.popitem(last=False)[0].close()
        try:
            content = archive.read(member)
        except zips.Unreadable as error:
            raise PackError(f"{path}: {error.args[1]}") from None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def zip_of(self, path: str) -> str:
        """The zip that an image is in which `read` has found."""
        return self._found[path][0].path

    def _look_above(self, path: str) -> None:
        """Read the directories of the zips of all folders above an image, those that have not been read before."""
        above = ["/".join(folder.parts) for folder in PurePosixPath(path).parents]
        new = [folder for folder in above if folder not in self._folders]
        names = [name for folder in new for name in self._files_in(folder) if raw_files.is_zip(name)]
        archives = [Zip(name, partial(self._opened, name)) for name in names]
        room = max(0, OPEN_ZIPS - len(self._used))
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="compare-zips") as pool:
            listed = list(pool.map(self._members, archives, [number < room for number in range(len(archives))]))
        for archive, members in zip(archives, listed, strict=True):
            for member in members:
                self._found.setdefault(member.path, (archive, member))
        self._used |= dict.fromkeys(archives[:room])
        self._folders.update(new)

    def _members(self, archive: Zip, keep: bool) -> list[zips.Member]:
        try:
            members = archive.members()
        except RemoteError:
            raise
        except (zips.Damaged, PackError, OSError) as error:
            self.faults.append(f"{archive.path}: {error}")
            members = []
        if not keep:
            archive.close()
        return members

    def close(self) -> None:
        """Close all zips; they are opened again if need be."""
        with self._lock:
            while self._used:
                self._used.popitem()[0].close()
