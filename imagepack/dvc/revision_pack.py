"""The pack of a git revision, of this or another repository: without a checkout, shards fetched when needed."""

import functools
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagepack.dvc import lock_files, provenance
from imagepack.dvc.download_cache import DownloadCache
from imagepack.dvc.revision_files import RevisionFiles
from imagepack.reader import format as packs
from imagepack.reader.format import PackError

AT_ONCE = 8
"""Shards of a batch that are fetched at the same time."""

log = logging.getLogger("imagepack")


class RevisionPack:
    """The pack that DVC tracks at a git revision, read from where `RevisionFiles` finds its files.

    Attributes:
        remote: whether a shard was not in the local DVC cache when this was opened.
    """

    def __init__(
        self,
        revision: str,
        repo: str | Path,
        path: str,
        files: DownloadCache,
        remote: bool | None,
        trust_remote: bool = False,
    ) -> None:
        """Ask DVC what the pack consists of; read nothing yet.

        Args:
            revision: a commit, tag, branch or DVC experiment.
            repo: a git repository with DVC: a folder, or a URL.
            path: of the pack in the repository.
            files: for what is fetched.
            remote: None to find out.
            trust_remote: as for RevisionFiles.

        Raises:
            PackError: it cannot be opened; the message says why and what to do.
        """
        self._dvc = RevisionFiles(revision, repo, files, trust_remote, inside=path.strip("/"))
        self._path = path.strip("/").removeprefix(f"{self._dvc.subfolder}/")
        self._files, self.remote = files, remote
        folders = (self._path, f"{self._path}/{packs.SHARDS_NAME}")
        self._names = {file for folder in folders for file in self._dvc.files_in(folder)}
        if not (self._names or self._dvc.connected().repo.dvc_dir or Path(repo, ".dvc").is_dir()):
            raise PackError(f"{self!r} has no DVC at its top: name the folder of it that has, as repo= or before path=")
        if not self._names:
            raise PackError(
                f"{self!r} has no pack in {self._path}: name a revision from after the first dvc repro, "
                "or another folder with path="
            )
        self._params = provenance.params_of(self._dvc.read(str(lock_files.LOCK)))
        self._source = self._dvc.source(self._path)

    def __repr__(self) -> str:
        return repr(self._dvc)

    def provenance(self, digest: str) -> dict:
        """{"revision": hash of the commit, "params": those that dvc.lock records, or None}; also "repo" if imported."""
        if self._source:
            return self._source | {"params": None}
        return {"revision": self._dvc.commit, "params": self._params}

    def read_index(self) -> tuple[packs.Index, str]:
        """Return dataset.h5, and the pack's digest."""
        index, digest = packs.read_index(self._dvc.get(self._tracked(packs.INDEX_NAME)))
        if self.remote is None:
            shards = zip(index.shard_names, index.shard_bytes.tolist(), strict=True)
            self.remote = any(self._in_dvc_cache(name, size) is None for name, size in shards)
        return index, digest

    def read_column(self, index: packs.Index, name: str) -> packs.Column:
        """Return a column of dataset.h5."""
        return packs.read_column(self._dvc.get(self._tracked(packs.INDEX_NAME)), index, name)

    def shard(self, name: str, size: int) -> Path:
        """Return where a shard is, and fetch it if need be.

        Raises:
            PackError: it cannot be fetched, or is not what it ought to be.
        """
        fetch = functools.partial(self._dvc.fetch, self._tracked(_below(name)), "sha256", Path(name).stem)
        return self._here(name, size) or self._files.get(name, fetch)

    def fetch(self, shards: Sequence[tuple[str, int]]) -> None:
        """Fetch those of several shards, names and sizes, that are not on this machine, some at the same time."""
        if len(away := [shard for shard in shards if not self._here(*shard)]) < 2:
            list(itertools.starmap(self.shard, away))
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="imagepack-fetch") as pool:
            fetched = [pool.submit(self.shard, *shard) for shard in away]
            try:
                for future in fetched:
                    future.result()
            finally:
                for future in fetched:  # after an error the others would only take as long to fail
                    future.cancel()

    def _here(self, name: str, size: int) -> Path | None:
        return self._sound_in_dvc_cache(name, size) or self._files.find(name)

    def _in_dvc_cache(self, shard: str, size: int) -> Path | None:
        return self._dvc.in_dvc_cache(self._tracked(_below(shard)), size)

    def _sound_in_dvc_cache(self, shard: str, size: int) -> Path | None:
        """Read and compared with the hash that it is called after when it is first asked for."""
        if path := self._in_dvc_cache(shard, size):
            self._files.require_sound(path, "sha256", Path(shard).stem)
        return path

    def _tracked(self, name: str) -> str:
        """The path in the repository of a file of the pack, which has to be there."""
        path = f"{self._path}/{name}"
        if path not in self._names:
            raise PackError(f"{self!r} has no file {path}: run dvc repro and dvc push there")
        return path


def _below(shard: str) -> str:
    """A shard's path in the pack."""
    return f"{packs.SHARDS_NAME}/{shard}"


@functools.cache
def warn_of_windows(source: str, shards: int) -> None:
    """Say, once a process, that a pack which is fetched while it is read is shuffled in windows."""
    log.warning(
        "%s: some shards are not in the local DVC cache and are fetched when they are needed, so a shuffle takes the "
        "shards in random order and mixes the images of up to %d at a time, not of all; after dvc fetch it mixes all",
        source,
        shards,
    )
