"""The bytes of some raw images of a version: from data/raw, the local DVC cache, or the remote; loose or in zips."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath

import polars as pl

from imagepack.compare.zipped_images import ZippedImages
from imagepack.dvc.download_cache import DownloadCache
from imagepack.dvc.revision_files import RemoteError, RevisionFiles
from imagepack.images.manifest import file_of
from imagepack.reader.format import PackError

AT_ONCE = 8
"""Files that are fetched at the same time; at most twice as many are held in memory."""
LARGEST = 128 * 2**20
"""Bytes; larger files are not fetched for a picture."""


class RawImages:
    """The raw images of a version.

    Args:
        dvc: of the version.
        files: keeps what is fetched, by sha256.
        path: of the folder of raw images in the repository.
        folder: the same in the workspace; there a file serves any version that has the same bytes.
    """

    def __init__(self, dvc: RevisionFiles, files: DownloadCache, path: str, folder: Path) -> None:
        self._dvc, self._files, self._path, self.folder = dvc, files, path, folder
        self._down = ""  # why the remote is not asked again
        self._answers, self._first = False, threading.Lock()
        self._zips_here = ZippedImages(self._files_here, lambda path: (folder / path).open("rb"))
        self._zips_in_dvc = ZippedImages(self._files_in_dvc, lambda file: dvc.open(f"{path}/{file}"))

    def fetch(
        self, images: pl.DataFrame, paths: Sequence[str], largest: int = LARGEST
    ) -> Iterator[tuple[str, bytes | None, str]]:
        """See Version.fetch.

        Args:
            images: the version's manifest.
            paths: some of its.
            largest: bytes; larger files are not fetched.
        """
        files = _files(images, paths)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="compare-fetch") as pool:
            waiting: deque[tuple[str, Future | None]] = deque()
            try:
                for path in paths:
                    waiting.append((path, pool.submit(self._bytes, *files[path], largest) if path in files else None))
                    if len(waiting) > AT_ONCE:
                        yield _result(*waiting.popleft())
                while waiting:
                    yield _result(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)
                self._zips_here.close()
                self._zips_in_dvc.close()

    def _bytes(self, path: str, digest: str, size: int, largest: int) -> tuple[bytes | None, str]:
        """The content of a file with this sha256, or why there is none."""
        if not digest:
            return None, "the file is empty or could not be read"
        if size > largest:
            return None, f"the file is larger than {largest >> 20} MiB"
        if (content := self._in_workspace(path, digest, size)) is not None:
            return content, ""
        try:
            return self._kept(digest) or self._from_dvc(path, digest, size), ""
        except (PackError, OSError) as error:
            return None, str(error)

    def _in_workspace(self, path: str, digest: str, size: int) -> bytes | None:
        place = self.folder / path
        if ".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute():
            return None
        try:
            if not place.is_file() or place.stat().st_size != size:
                return self._in_zip_here(path, digest, size)
        except (OSError, ValueError):
            return None
        return _content(place, digest)

    def _in_zip_here(self, path: str, digest: str, size: int) -> bytes | None:
        try:
            return self._zips_here.read(path, digest, size)
        except PackError:  # damaged here
            return None

    def _files_here(self, folder: str) -> list[str]:
        """The files of a folder of the workspace, links and others not among them."""
        try:
            with os.scandir(self.folder / folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        except OSError:
            return []
        return [PurePosixPath(folder, name).as_posix() for name in names]

    def _files_in_dvc(self, folder: str) -> list[str]:
        """The files of a folder of the version."""
        files = self._dvc.files_in(PurePosixPath(self._path, folder).as_posix())
        return sorted(file.removeprefix(f"{self._path}/") for file in files)

    def _kept(self, digest: str) -> bytes | None:
        """What an earlier comparison has fetched."""
        if not (found := self._files.find(f"{digest}.raw")):
            return None
        if (content := _content(found, digest)) is None:
            found.unlink(missing_ok=True)  # damaged: it is fetched again
        return content

    def _from_dvc(self, path: str, digest: str, size: int) -> bytes:
        """From the local DVC cache or the remote. Once the remote is down, nobody waits for it again."""
        with nullcontext() if self._answers else self._first:  # till one has got through, the others wait for that
            if self._down:
                raise PackError(self._down)
            try:
                content = self._ask(path, digest, size)
            except RemoteError as error:
                self._down = str(error)
                raise
            self._answers = True
        return content

    def _ask(self, path: str, digest: str, size: int) -> bytes:
        file = f"{self._path}/{path}"
        if not self._dvc.has(file):
            return self._unzipped(path, digest, size)
        if found := self._dvc.in_dvc_cache(file):
            if (content := _content(found, digest)) is None:
                raise PackError(f"{found} is another file than was validated: remove it, and run `dvc fetch`")
            return content
        return self._files.get(f"{digest}.raw", partial(self._dvc.fetch, file, "sha256", digest)).read_bytes()

    def _unzipped(self, path: str, digest: str, size: int) -> bytes:
        """From a zip; kept as files are that were fetched."""
        if (content := self._zips_in_dvc.read(path, digest, size)) is None:
            why = f" (not read: {'; '.join(self._zips_in_dvc.faults)})" if self._zips_in_dvc.faults else ""
            where = f"{self._path}/{path} is not in DVC at {self._dvc!r}, in no zip either{why}"
            raise PackError(f"{where}: run `dvc add` and `dvc push` there")
        if not self._dvc.in_dvc_cache(f"{self._path}/{self._zips_in_dvc.zip_of(path)}"):
            self._files.get(f"{digest}.raw", lambda part: part.write_bytes(content))
        return content


def _files(images: pl.DataFrame, paths: Sequence[str]) -> dict[str, tuple[str, str, int]]:
    """Path, sha256 and bytes of the file that each image is in; the sha256 of a later frame is no file's."""
    asked = images.lazy().filter(pl.col("path").is_in(list(paths))).select("path", "frame").collect()
    names = {path: file_of(path, frame) for path, frame in asked.iter_rows()}
    found = images.lazy().filter(pl.col("path").is_in(list(set(names.values())))).select("path", "sha256", "bytes")
    facts = {path: (digest, size) for path, digest, size in found.collect().iter_rows()}
    return {path: (file, *facts[file]) for path, file in names.items() if file in facts}


def _result(path: str, future: Future | None) -> tuple[str, bytes | None, str]:
    if future is None:
        return path, None, "it is not in the manifest"
    return path, *future.result()


def _content(path: Path, digest: str) -> bytes | None:
    """Of a file, if it has this sha256."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None
