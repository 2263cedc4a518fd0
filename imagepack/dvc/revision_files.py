"""Files that DVC tracks at a git revision, of this or another repository: without a checkout, each fetched once."""

import errno
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from imagepack.dvc import cache, lock_files, remotes
from imagepack.dvc.download_cache import DownloadCache
from imagepack.reader.format import PackError

PAUSES = (1, 2, 4)
"""Seconds before each further try, where the remote does not answer."""
READ_AHEAD = 2**18
"""Bytes that are fetched beyond those asked for, of a file that is read in parts."""
NO_REPOSITORY = {"NotDvcRepoError", "SCMError", "NotGitRepository", "InvalidRemoteSCMRepo"}

KEYS_GO_TO = {"endpointurl", "oss_endpoint", "configpath", "credentialpath"}
"""Options of a remote that say which server is sent the keys; the last two name files, which may run a command too."""

log = logging.getLogger("imagepack")
Result = TypeVar("Result")


class RemoteError(PackError):
    """The remote as a whole cannot be read: no other file can be fetched either."""


class Damaged(Exception):
    """What has arrived is not what was asked for."""


class _Process:
    """The connection of one process: after a fork the child opens its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.fs = None
        self.infos: dict[str, dict] = {}


class RevisionFiles:
    """The files that DVC tracks at a git revision, by their paths in the repository, with `/`.

    Files are read in the repository's local DVC cache where they are there; others are fetched from the remote, once,
    into this user's download cache. A copy in another process needs DVC only to fetch.

    Attributes:
        commit: hash of the commit; None of the workspace.
        where: the remote's URL, for messages; empty if there is none.
        subfolder: of the git repository that has DVC, and that paths are in; empty where that is its top.
    """

    def __init__(
        self,
        revision: str | None,
        repo: str | Path,
        files: DownloadCache,
        trust_remote: bool = True,
        inside: str = "",
    ) -> None:
        """Find the revision.

        Args:
            revision: a commit, tag, branch or DVC experiment; None for the workspace, which `repo` is then a folder of.
            repo: a git repository with DVC: a folder, or a URL.
            files: for what is fetched.
            trust_remote: whether keys may go to an address that the `.dvc/config` of a foreign repository names, one
                that this process does not run in. What the user's own configuration names is trusted.
            inside: a path of the git repository; where that has DVC in a subfolder alone, the one that is meant.

        Raises:
            PackError: it cannot be opened, or its remote is not trusted; the message says why and what to do.
        """
        self._repo = str(Path(repo).resolve()) if Path(repo).exists() else str(repo)
        self._revision, self._files, self._inside = revision, files, inside
        self.subfolder = ""
        self._trusted = trust_remote or _stands_in(self._repo)
        self.where, self.commit = "the remote", None
        self._processes: dict[int, _Process] = {}
        self._md5s: dict[str, tuple[str, bool]] = {}  # and whether it is one of DVC before 3.0
        repository = self.connected().repo
        stores = (repository.cache.local, repository.cache.legacy)  # none in a bare git repository
        self._dvc_caches = [Path(store.path) if store else None for store in stores]
        if revision is not None:
            self.commit = repository.get_rev()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_processes": {}}

    def __repr__(self) -> str:
        return f"{self._revision!r} of {self._repo!r}"

    def connected(self):
        """Return DVC's file system of the revision, in this process."""
        process = self._process()
        with process.lock:
            if process.fs is None:
                process.fs = self._patiently(self._connect, "it")
        return process.fs

    def files_in(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder that DVC tracks, subfolders left out; empty if there are none.

        Raises:
            PackError: its listing cannot be fetched, or it comes from another repository.
        """

        def found() -> list[dict]:
            try:
                return self.connected().ls(f"/{folder}")  # not relative to where this process happens to be
            except FileNotFoundError:
                return []

        infos = {info["name"].removeprefix("/"): info.get("dvc_info") for info in self._patiently(found, folder)}
        infos.pop(folder, None)  # no folder, or one that was never made
        infos = {path: info for path, info in infos.items() if info and info["type"] == "file"}
        for path, info in infos.items():
            self._learn(path, info, folder)
        return list(infos)

    def md5s_below(self, folder: str) -> dict[str, str]:
        """Return the md5 of each file that DVC tracks below a folder, by its path.

        Raises:
            PackError: the folder's listing cannot be fetched.
        """

        def found() -> dict[str, dict]:
            fs = self.connected()
            with self._process().lock:
                return self._data(fs).fs.find(f"/{folder}", detail=True)

        return {path.removeprefix("/"): info.get("md5") or "" for path, info in self._patiently(found, folder).items()}

    def open(self, path: str) -> BinaryIO:
        """Open a file that `files_in` or `has` has found, to read parts of it, in the local DVC cache or on the remote.

        Raises:
            RemoteError: the remote cannot be read.
            PackError: the remote does not have the file.
        """
        if found := self.in_dvc_cache(path):
            return found.open("rb")

        def opened() -> BinaryIO:
            fs = self.connected()
            with self._process().lock:
                data = self._data(fs)
            stream = data.open(f"/{path}", "rb")
            if hasattr(cache := getattr(stream, "cache", None), "blocksize"):  # of a bucket; else 50 MB at each place
                cache.blocksize = READ_AHEAD
            return stream

        return self._patiently(opened, path)

    @staticmethod
    def _data(fs):
        """What DVC tracks, without the files of the workspace."""
        from dvc.fs.data import DataFileSystem

        return DataFileSystem(index=fs.repo.index.data["repo"])

    def has(self, path: str) -> bool:
        """Return whether DVC tracks this file."""
        if path in self._md5s:
            return True
        process = self._process()

        def found() -> dict | None:
            with process.lock:  # the first look into a folder loads its listing
                try:
                    return self.connected().info(f"/{path}").get("dvc_info")
                except FileNotFoundError:
                    return None

        info = self._patiently(found, path)
        if info and info["type"] == "file" and (info.get("md5") or info.get("md5-dos2unix")):
            self._learn(path, info, path)
        return path in self._md5s

    def read(self, path: str) -> bytes | None:
        """Return a small file that git tracks; None if there is none."""
        fs, path = self.connected(), f"/{path}"  # not relative to where this process happens to be
        if not fs.exists(path):
            return None
        with fs.open(path) as file:
            return file.read()

    def in_dvc_cache(self, path: str, size: int | None = None) -> Path | None:
        """Return where the local DVC cache has a file that `files_in` or `has` has found, of `size` bytes."""
        return self.md5_in_dvc_cache(*self._md5s[path], size=size)

    def md5_in_dvc_cache(self, md5: str, old: bool = False, size: int | None = None) -> Path | None:
        """Return where the local DVC cache has a file of this md5 (`old`: of DVC before 3.0) and size in bytes."""
        if (folder := self._dvc_caches[old]) is None:
            return None
        place = cache.path_of(folder, md5)
        try:
            found = place.stat().st_size
        except OSError:
            return None
        return place if size is None or found == size else None

    def get(self, path: str, name: str | None = None) -> Path:
        """Return where a file that `files_in` or `has` has found is on this machine, and fetch it if need be.

        In the download cache it is called `name`, by default after its md5.
        """
        md5, _ = self._md5s[path]
        name = name or f"{md5}.{path.rpartition('/')[2]}"
        return self.in_dvc_cache(path) or self._files.get(name, functools.partial(self.fetch, path, "md5", md5))

    def fetch(self, path: str, kind: str, digest: str, part: Path) -> None:
        """Write a file to `part`, if its hash of this kind (as hashlib calls it) is `digest`.

        Raises:
            RemoteError: the remote cannot be read.
            PackError: the remote does not have the file, or another one in its place.
        """

        def fetch() -> None:
            fs, process = self.connected(), self._process()
            with process.lock:
                if path not in process.infos:
                    process.infos[path] = fs.info(f"/{path}")["dvc_info"]
                data = self._data(fs)
            data.get_file(path, str(part), info=dict(process.infos[path]))  # DVC changes it
            with part.open("rb") as file:
                if (actual := hashlib.file_digest(file, kind).hexdigest()) != digest:
                    raise Damaged(f"{kind} is {actual[:12]}... instead of {digest[:12]}...")

        self._patiently(fetch, path)

    def _process(self) -> _Process:
        return self._processes.setdefault(os.getpid(), _Process())

    def _learn(self, path: str, info: dict, what: str) -> None:
        """Remember what DVC says of a file."""
        if not (md5 := info.get("md5") or info.get("md5-dos2unix")):
            raise self._imported(what)
        self._md5s[path] = md5, "md5" not in info
        self._process().infos[path] = info

    def source(self, path: str) -> dict[str, str] | None:
        """Return {"repo": ..., "revision": ...} of what came by `dvc import`, the file or a folder above; else None."""
        places = (f"{place}.dvc" for place in (path, *PurePosixPath(path).parents))
        return next(filter(None, map(lock_files.read_import, map(self.read, places))), None)

    def _imported(self, what: str) -> PackError:
        found = self.source(what)
        where = f": {found['repo']}, revision {found['revision']}" if found else ""
        return PackError(f"{what} of {self!r} comes from elsewhere by dvc import: open it where it is from{where}")

    def _connect(self):
        """DVC's file system."""
        try:
            from dvc.api import DVCFileSystem
            from dvc.repo import open_repo
        except ImportError:
            raise PackError("to read a revision takes DVC: pip install 'dvc[s3]'") from None
        clones = len(open_repo.CLONES)
        fs = DVCFileSystem(self._repo, rev=self.commit or self._revision)
        if not fs.repo.dvc_dir and (repo := self._in_subfolder(fs)):
            fs = DVCFileSystem(repo)
        config = fs.repo.config
        if not self._trusted:
            self._require_own_addresses(config["remote"], fs)
        if not clones and open_repo.CLONES:  # of a URL; DVC itself removes them after its own commands alone
            Finalize(None, open_repo.clean_repos, exitpriority=0)  # atexit does not run in worker processes
        self.where = config["remote"].get(config["core"].get("remote"), {}).get("url", "")
        return fs

    def _in_subfolder(self, fs):
        """DVC's repository in a subfolder of the git repository: the folder that was named, or one that `inside` is in.

        None where there is none.
        """
        from dvc.repo import Repo
        from dvc.repo.open_repo import _get_remote_config

        git_fs, top = fs.repo.fs, Path(fs.repo.scm.root_dir)
        local = Path(self._repo).is_dir()
        named = Path(self._repo).relative_to(top).as_posix() if local and Path(self._repo) != top else ""
        for folder in (named, *map(str, PurePosixPath(self._inside).parents)) if named != "." else ():
            if folder not in ("", ".") and git_fs.exists(f"/{folder}/.dvc"):
                self.subfolder = folder
                options = {"fs": git_fs, "scm": fs.repo.scm}
                if local:
                    return Repo(f"/{folder}", config=_get_remote_config(str(top / folder)), **options)
                return fs.repo._fs_conf["repo_factory"](f"/{folder}", **options)
        return None

    def _require_own_addresses(self, remotes_of_repo: dict[str, dict], fs) -> None:
        """Refuse a foreign repository that says where keys go; nothing has been asked of a remote so far.

        Raises:
            PackError: its committed configuration names an address, or a file that may name one.
        """
        from imagepack.dvc import config

        own = [config.level(name) for name in ("system", "global")]
        # where it is committed it is not one's own
        committed = fs.repo.fs.exists(fs.repo.fs.join(fs.repo.root_dir, ".dvc", "config.local"))
        if (top := _top(self._repo)) and not committed:
            own.append(config.level("local", top / ".dvc"))
        for name, remote in remotes_of_repo.items():
            for key in KEYS_GO_TO & remote.keys():
                if all(level.get("remote", {}).get(name, {}).get(key) != remote[key] for level in own):
                    raise PackError(
                        f"{self!r} is another repository, and its .dvc/config says where your keys would go "
                        f"({key} of remote {name}: {remote[key]}): if you trust that address, pass trust_remote=True"
                    )

    def _patiently(self, work: Callable[[], Result], what: str) -> Result:
        """The result of `work`, which is tried again where the network may be at fault.

        Raises:
            PackError: one sentence of what is wrong and what to do; RemoteError if it is so of all files.
        """
        for pause in (*PAUSES, None):
            try:
                return work()
            except PackError:
                raise
            except Exception as error:
                chain = list(remotes.causes(error))
                if fault := self._fault(chain, what):
                    raise fault from None
                reason = next((str(cause) for cause in chain if type(cause).__name__ != "DataIndexDirError"), "")
                reason = next(iter(reason.splitlines()), "") or type(error).__name__
                if pause is None:
                    raise self._last_fault(chain, what, reason) from error
                log.warning("%s from %s: %s; trying again in %s s", what, self.where, reason, pause)
                time.sleep(pause)

    def _last_fault(self, chain: list[BaseException], what: str, reason: str) -> PackError:
        if isinstance(chain[0], Damaged):
            return PackError(
                f"{what} on {self.where} is damaged ({reason}): remove it there, and run dvc push where it is whole"
            )
        if "CloneError" in {type(cause).__name__ for cause in chain}:
            return PackError(
                f"{self._repo} cannot be cloned ({reason}): check the address, your rights and the network"
            )
        return RemoteError(
            f"{self.where} does not answer ({reason}): check the network and the remote's address, then go on"
        )

    def _fault(self, chain: list[BaseException], what: str) -> PackError | None:
        """What is wrong for good; None if another try may help. By names, since DVC and boto need not be installed."""
        names = {type(cause).__name__ for cause in chain}
        if "RevError" in names and self._revision == "HEAD":
            return PackError(f"{self._repo} has no commit yet: commit a version, then name it")
        if "RevError" in names:
            return PackError(
                f"{self._repo} has no revision {self._revision!r}: name a commit, tag, branch or DVC experiment"
            )
        if names & NO_REPOSITORY or ("CloneError" in names and "://" not in self._repo):
            return PackError(f"{self._repo} is no git repository with DVC at its top: name the folder or URL of one")
        if words := remotes.fault(self.where, chain):
            return RemoteError(words)
        if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in chain):
            return RemoteError(
                f"no space left for {what} in {self._files.folder}: name another folder with cache= or IMAGEPACK_CACHE"
            )
        if any(isinstance(cause, FileNotFoundError) for cause in chain):
            if self._process().fs and self.source(what):
                return self._imported(what)
            if not self.where:
                return PackError(f"{self!r} names no DVC remote, and its {what} is not in the local DVC cache")
            return PackError(f"{what} of {self!r} is not on {self.where}: run dvc push where it was made")
        return None


def _top(folder: str | Path) -> Path | None:
    """The top of the DVC repository in which a folder lies; None if it is no folder of one."""
    folder = Path(folder)
    return next((above for above in (folder, *folder.parents) if folder.is_dir() and (above / ".dvc").is_dir()), None)


def _stands_in(repo: str) -> bool:
    """Whether this process stands in the repository."""
    top = _top(repo)
    return top is not None and top == _top(Path.cwd())
