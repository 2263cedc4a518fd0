"""The data that commits need, and what of it the DVC remote lacks.

`dvc status --cloud` and `dvc push` ask the remote for a folder's list alone and take it that what is listed is there
too, and remember that; an object that was removed from the bucket is then never missed. Here every object is asked for.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.worktree import worktree_view
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from imagepack.dvc.git import git

Objects = dict[HashInfo, str]
"""Objects, and where each is met first: `data/raw of 1234567`."""


class Out(NamedTuple):
    """What a version says of one file or folder that DVC tracks."""

    where: str
    info: HashInfo
    remote: str | None  # None: the default one


def open_repo(root: Path, commit: str | None = None) -> Repo:
    """The repository at `root`, with the remotes that `commit` has in its .dvc/config: a branch may have its own."""
    config = {}
    if commit and (text := git("show", f"{commit}:.dvc/config", folder=root)) is not None:
        with TemporaryDirectory() as folder:
            Path(folder, "config").write_text(text, encoding="utf-8")
            config = Config.load_file(f"{folder}/config")
        # paths in it are relative to where it stands; this machine's keys and addresses go before what is committed
        config = Config._load_paths(config, str(root / ".dvc/config"))
        for section, values in Config(dvc_dir=str(root / ".dvc"), validate=False).load_one("local").items():
            _merge(config.setdefault(section, {}), values)
    return Repo(str(root), config=config or None)


def _merge(into: dict, values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def outs(repo: Repo, commits: list[str]) -> tuple[list[Out], list[str]]:
    """What the commits track, or the workspace if there are none; and those that cannot be read, a line each."""
    found, unreadable, seen = [], [], set()
    for commit in repo.brancher(revs=commits, workspace=not commits, sha_only=True):
        name = commit[:9] if commits else "the workspace"
        try:
            tracked = list(worktree_view(repo.index, push=True).outs)
        except DvcException as fault:
            unreadable.append(f"{name}: {fault}")
            continue
        for out in tracked:
            if out.hash_info and out.hash_info.name == "md5" and (out.hash_info, out.remote) not in seen:
                seen.add((out.hash_info, out.remote))
                found.append(Out(f"{out} of {name}", out.hash_info, out.remote))
    return found, unreadable


def objects(repo: Repo, tracked: Iterable[Out], ask_remote: bool = True) -> dict[str | None, Objects]:
    """All objects of `tracked`, by remote: files, lists of folders, and what those list.

    Args:
        repo: of this machine.
        tracked: of one or more versions.
        ask_remote: for lists that are not in the cache; without, what they list is not among the objects.
    """
    found: dict[str | None, Objects] = defaultdict(dict)
    for out in tracked:
        here = found[out.remote]
        here.setdefault(out.info, out.where)
        if out.info.isdir:
            for child in _listed(repo, out, ask_remote):
                here.setdefault(child, out.where)
    return found


def _listed(repo: Repo, out: Out, ask_remote: bool) -> list[HashInfo]:
    """What a folder holds; empty if its list is nowhere."""
    stores = [repo.cache.local]
    if ask_remote:
        stores.append(repo.cloud.get_remote_odb(out.remote, "push"))
    for store in stores:
        try:
            return [info for _, _, info in Tree.load(store, out.info)]
        except (FileNotFoundError, ObjectFormatError):
            continue
    return []


def absent(repo: Repo, remote: str | None, wanted: Objects) -> Objects:
    """Those that are not on the remote."""
    store = repo.cloud.get_remote_odb(remote, "push")
    there = set(store.oids_exist([info.value for info in wanted]))
    return {info: where for info, where in wanted.items() if info.value not in there}


def upload(repo: Repo, remote: str | None, wanted: Objects, callback: Callback = DEFAULT_CALLBACK) -> Objects:
    """Copy objects, which the remote has not, from the cache; those that it still lacks."""
    result = transfer(
        repo.cache.local,
        repo.cloud.get_remote_odb(remote, "push"),
        set(wanted),
        cache_odb=repo.cache.local,
        callback=callback,
    )
    return {info: where for info, where in wanted.items() if info not in result.transferred}


def damaged(repo: Repo, remote: str | None, wanted: Objects) -> Objects:
    """Those that the remote has with another size than the cache, or with another MD5, where it tells.

    S3 tells it (ETag) of what was put there in one piece, unless it encrypts with a key of the user's: then of none.
    """
    store = repo.cloud.get_remote_odb(remote, "push")
    store.fs.fs.invalidate_cache()
    there = store.fs.fs.find(store.path, detail=True)
    found = {info: there[path] for info in wanted if (path := store.oid_to_path(info.value)) in there}
    tags = {info: str(says.get("ETag", "")).strip('"') for info, says in found.items()}
    tells = any(tag == _md5_of(info) for info, tag in tags.items())

    def is_damaged(info: HashInfo) -> bool:
        cached = Path(repo.cache.local.oid_to_path(info.value))
        if cached.exists() and cached.stat().st_size != found[info]["size"]:
            return True
        return tells and len(tags[info]) == len(_md5_of(info)) and tags[info] != _md5_of(info)

    return {info: wanted[info] for info in found if is_damaged(info)}


def replace(repo: Repo, remote: str | None, wanted: Objects) -> Objects:
    """Put objects, which the remote has, there again from the cache; those that the cache has not, or not whole."""
    store, left = repo.cloud.get_remote_odb(remote, "push"), {}
    for info, where in wanted.items():
        cached = Path(repo.cache.local.oid_to_path(info.value))
        if cached.exists() and md5(cached) == _md5_of(info):
            store.add(str(cached), repo.cache.local.fs, info.value, check_exists=False)
        else:
            left[info] = where
    return left


def md5(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of(info: HashInfo) -> str:
    return info.value.removesuffix(".dir")
