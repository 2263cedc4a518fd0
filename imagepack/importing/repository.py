"""data/raw of another repository of this template, at any revision: from its DVC cache or its remote."""

import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagepack.dvc.download_cache import DownloadCache, user_folder
from imagepack.dvc.revision_files import RevisionFiles
from imagepack.errors import InputError
from imagepack.images.raw_names import PINNED
from imagepack.importing.sources import Image, Source
from imagepack.names import visible
from imagepack.reader.format import PackError

RAW = "data/raw"
AT_ONCE = 8
"""Files that are fetched at the same time; at most twice as many are held in memory."""


def is_repository(source: str) -> bool:
    """Return whether a source is an address of git, or a folder with DVC in it."""
    is_address = re.match(r"(https?|ssh|git|file)://|[\w.-]+@[\w.-]+:", source) is not None
    return is_address or Path(source, ".dvc").is_dir()


def read_repository(repo: str, revision: str, batch: str, trust_remote: bool) -> Source:
    """Return all files of data/raw at a revision, tables and zips among them.

    Args:
        repo: a folder or an address.
        revision: a tag, branch, commit or experiment.
        batch: where they go; empty for data/raw itself.
        trust_remote: whether keys may go to an address that the other repository names.

    Raises:
        InputError: it cannot be read.
    """
    try:
        dvc = RevisionFiles(revision, repo, DownloadCache(user_folder(), 50 * 10**9), trust_remote)
        md5s = {path.removeprefix(f"{RAW}/"): md5 for path, md5 in dvc.md5s_below(RAW).items()}
    except PackError as error:
        raise InputError(str(error).replace("pass trust_remote=True", "add --trust-remote")) from None
    if not md5s:
        raise InputError(
            f"{repo}: nothing of {RAW} is committed at revision {revision}, commit {dvc.commit[:12]}. There: run "
            f"`dvc add {RAW}` and commit; or import the folder {RAW} itself"
        )
    notes = [f"revision {revision}, commit {dvc.commit[:12]}"]
    if batch and md5s.pop(PINNED, None):
        notes.append(f"left out: {PINNED}, whose pinned splits are those of the other data/raw")
    images = [Image(path, path, path.rpartition("/")[0], {}) for path in sorted(md5s)]
    kind = "a repository of this template"
    return Source(kind, images, lambda wanted: fetch(dvc, md5s, wanted), notes, verbatim=True, md5s=md5s)


def fetch(dvc: RevisionFiles, md5s: dict[str, str], images: Iterable[Image]) -> Iterator[tuple[Image, bytes | Path]]:
    """Yield the file of each image in the DVC cache, or what the remote has.

    Raises:
        InputError: it cannot be fetched.
    """

    def content(image: Image) -> bytes | Path:
        path = f"{RAW}/{image.key}"
        if not dvc.has(path):
            raise PackError(f"{path} of {dvc!r} cannot be found by DVC")
        if found := dvc.in_dvc_cache(path):
            return found
        with tempfile.TemporaryDirectory(prefix="imagepack-") as folder:
            part = Path(folder, "part")
            dvc.fetch(path, "md5", md5s[image.key], part)
            return part.read_bytes()

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="import-fetch") as pool:
        waiting = deque()
        try:
            for image in images:
                waiting.append((image, pool.submit(content, image)))
                if len(waiting) > 2 * AT_ONCE:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        except PackError as error:
            raise InputError(visible(str(error))) from None
        finally:
            pool.shutdown(cancel_futures=True)
