"""The pack of any git revision, here or of another repository: no checkout, and no shard before it is needed."""

import errno
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TypeVar

from imagepack import format as packs
from imagepack import provenance
from imagepack.disk_cache import DiskCache
from imagepack.format import PackError

AT_ONCE = 8
"""Shards of a batch that are fetched at the same time."""
PAUSES = (1, 2, 4)
"""Seconds before each further try, where the remote does not answer."""
KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
NO_KEYS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
NO_REPOSITORY = {"NotDvcRepoError", "SCMError", "NotGitRepository", "InvalidRemoteSCMRepo"}

log = logging.getLogger("imagepack")
Result = TypeVar("Result")


class Damaged(Exception):
    """What has arrived is not what was asked for."""


class _Process:
    """What one process has of a revision: after a fork, the child has to connect by itself."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fs = None
        self.infos: dict[str, dict] = {}


class Revision:
    """A pack as DVC has it at a git revision.

    Files are taken from the local DVC cache of the repository where they are; others are fetched from the remote, once,
    into a cache of this user's. Another process knows all this without DVC, unless it has to fetch.

    Attributes:
        remote: whether a shard was not in the local DVC cache when this was opened.
    """

    def __init__(self, revision: str, repo: str | Path, path: str, files: DiskCache, remote: bool | None) -> None:
        """Ask DVC what the pack consists of; read nothing yet.

        Args:
            revision: a commit, tag, branch or DVC experiment.
            repo: a git repository with DVC: a folder, or a URL.
            path: of the pack in the repository.
            files: for what is fetched.
            remote: None to find out.

        Raises:
            PackError: it cannot be opened; the message says why and what to do.
        """
        self._repo = str(Path(repo).resolve()) if Path(repo).exists() else str(repo)
        self._revision, self._path, self._files, self.remote = revision, path.strip("/"), files, remote
        self._where, self._commit = "the remote", None
        self._processes: dict[int, _Process] = {}
        process = self._connected()
        repository = process.fs.repo
        self._md5s = {name: info.get("md5") or info["md5-dos2unix"] for name, info in process.infos.items()}
        old = any("md5-dos2unix" in info for info in process.infos.values())  # of DVC before 3.0
        dvc_cache = repository.cache.legacy if old else repository.cache.local
        self._dvc_cache = Path(dvc_cache.path) if dvc_cache else None  # none in a bare git repository
        self._commit = repository.get_rev()
        self._params = None
        if process.fs.exists(provenance.LOCK):
            with process.fs.open(provenance.LOCK) as lock:
                self._params = provenance.params_of(lock.read())

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_processes": {}}

    def __repr__(self) -> str:
        return f"{self._revision!r} of {self._repo!r}"

    def provenance(self, digest: str) -> dict:
        """{"revision": hash of the commit, "params": those that dvc.lock records, or None}."""
        return {"revision": self._commit, "params": self._params}

    def read_index(self) -> tuple[packs.Index, str]:
        """dataset.h5, and the pack's digest."""
        name = packs.INDEX_NAME
        path = self._in_dvc_cache(name)
        if path is None:
            md5 = self._md5s[name]
            path = self._files.get(f"{md5}.{name}", functools.partial(self._fetch, name, "md5", md5))
        index, digest = packs.read_index(path)
        if self.remote is None:
            shards = zip(index.shard_names, index.shard_bytes.tolist(), strict=True)
            self.remote = any(self._in_dvc_cache(_below(name), size) is None for name, size in shards)
        return index, digest

    def shard(self, name: str, size: int) -> Path:
        """Where a shard is, after it has been fetched if need be.

        Raises:
            PackError: it cannot be fetched, or is not what it ought to be.
        """
        fetch = functools.partial(self._fetch, _below(name), "sha256", Path(name).stem)
        return self._here(name, size) or self._files.get(name, fetch)

    def fetch(self, shards: Sequence[tuple[str, int]]) -> None:
        """Make sure that several shards, names and sizes, are on this machine, some at the same time."""
        if not (away := [shard for shard in shards if not self._here(*shard)]):
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
        return self._in_dvc_cache(_below(name), size) or self._files.find(name)

    def _in_dvc_cache(self, name: str, size: int | None = None) -> Path | None:
        """Where the local DVC cache has a file of the pack."""
        md5 = self._md5s.get(name)
        if md5 is None:
            raise PackError(f"{self!r} has no file {self._path}/{name}: run dvc repro and dvc push there")
        if self._dvc_cache is None:
            return None
        path = self._dvc_cache / md5[:2] / md5[2:]
        try:
            found = path.stat().st_size
        except OSError:
            return None
        return path if size is None or found == size else None

    def _fetch(self, name: str, kind: str, digest: str, part: Path) -> None:
        """Write a file of the pack to `part`, if its hash of this kind is `digest`."""

        def fetch() -> None:
            process = self._connected()
            info = {"dvc_info": dict(process.infos[name])}  # DVC changes it
            process.fs.get_file(f"{self._path}/{name}", str(part), info=info)
            with part.open("rb") as file:
                if (actual := hashlib.file_digest(file, kind).hexdigest()) != digest:
                    raise Damaged(f"{kind} is {actual[:12]}... instead of {digest[:12]}...")

        self._patiently(fetch, f"{self._path}/{name}")

    def _connected(self) -> _Process:
        """This process, with DVC."""
        process = self._processes.setdefault(os.getpid(), _Process())
        with process.lock:
            if process.fs is None:
                process.fs, process.infos = self._patiently(self._connect, self._path)
        return process

    def _connect(self) -> tuple:
        """DVC's file system, and what it says of each file of the pack."""
        try:
            from dvc.api import DVCFileSystem
            from dvc.repo import open_repo
        except ImportError:
            raise PackError("to read a revision takes DVC: pip install 'dvc[s3]'") from None
        clones = len(open_repo.CLONES)
        fs = DVCFileSystem(self._repo, rev=self._commit or self._revision)
        config = fs.repo.config
        if not clones and open_repo.CLONES:  # of a URL; DVC itself removes them after its own commands alone
            Finalize(None, open_repo.clean_repos, exitpriority=0)  # atexit does not run in worker processes
        self._where = config["remote"].get(config["core"].get("remote"), {}).get("url", "")
        try:
            found = fs.ls(self._path) + fs.ls(f"{self._path}/{packs.SHARDS_NAME}")
        except FileNotFoundError:
            found = []
        infos = {info["name"].removeprefix(f"{self._path}/"): info.get("dvc_info") for info in found}
        if not (infos := {name: info for name, info in infos.items() if info and info["type"] == "file"}):
            raise PackError(
                f"{self!r} has no pack in {self._path}: name a revision from after the first dvc repro, "
                "or another folder with path="
            )
        if not all("md5" in info or "md5-dos2unix" in info for info in infos.values()):
            raise PackError(f"{self._path} of {self!r} comes from elsewhere by dvc import: open it where it is from")
        return fs, infos

    def _patiently(self, work: Callable[[], Result], what: str) -> Result:
        """The result of `work`, which is tried again where the network may be at fault.

        Raises:
            PackError: one sentence of what is wrong and what to do.
        """
        for pause in (*PAUSES, None):
            try:
                return work()
            except PackError:
                raise
            except Exception as error:
                chain = list(_causes(error))
                if words := self._fault(chain, what):
                    raise PackError(words) from None
                reason = next((str(cause) for cause in chain if type(cause).__name__ != "DataIndexDirError"), "")
                reason = next(iter(reason.splitlines()), "") or type(error).__name__
                if pause is None:
                    raise PackError(self._last_words(chain, what, reason)) from error
                log.warning("%s from %s: %s; trying again in %s s", what, self._where, reason, pause)
                time.sleep(pause)

    def _last_words(self, chain: list[BaseException], what: str, reason: str) -> str:
        if isinstance(chain[0], Damaged):
            return (
                f"{what} on {self._where} is damaged ({reason}): "
                "remove it there, and run dvc push where the pack is whole"
            )
        if "CloneError" in {type(cause).__name__ for cause in chain}:
            return f"{self._repo} cannot be cloned ({reason}): check the address, your rights and the network"
        return f"{self._where} does not answer ({reason}): check the network and the remote's address, then go on"

    def _fault(self, chain: list[BaseException], what: str) -> str | None:
        """What is wrong for good; None if another try may help. By names, since DVC and boto need not be installed."""
        names = {type(cause).__name__ for cause in chain}
        where = self._where
        if "RevError" in names:
            return f"{self._repo} has no revision {self._revision!r}: name a commit, tag, branch or DVC experiment"
        if names & NO_REPOSITORY or ("CloneError" in names and "://" not in self._repo):
            return f"{self._repo} is no git repository with DVC at its top: give its folder or URL as repo="
        if names & {"RemoteMissingDepsError", "ModuleNotFoundError"}:
            return f"to read from {where} takes more of DVC: pip install 'dvc[s3]'"
        if names & NO_KEYS:
            return f"there are no keys for {where}: {KEYS}"
        if "AuthError" in names or any(isinstance(cause, PermissionError) for cause in chain):
            return f"{where} refuses these keys: {KEYS} (and AWS_ENDPOINT_URL, where it is not Amazon's)"
        if "NoSuchBucket" in names:
            return f"there is no bucket {where.removeprefix('s3://').split('/')[0]}: check the remote's URL"
        if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in chain):
            return f"no space left for {what} in {self._files.folder}: name another folder with cache="
        if any(isinstance(cause, FileNotFoundError) for cause in chain):
            if not where:
                return f"{self!r} names no DVC remote, and its {what} is not in the local DVC cache"
            return f"{what} of {self!r} is not on {where}: run dvc push where the pack was made"
        return None


def _below(shard: str) -> str:
    """A shard's path in the pack."""
    return f"{packs.SHARDS_NAME}/{shard}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@functools.cache
def warn_of_windows(source: str, shards: int) -> None:
    """Say, once in a process, what a shuffle of a pack is that is fetched while it is read."""
    log.warning(
        "%s: some shards are not in the local DVC cache and are fetched when they are needed, so a shuffle takes the "
        "shards in random order and mixes the images of %d at a time, not of all; after dvc fetch it mixes all",
        source,
        shards,
    )
