"""The objects, files of data and lists of folders, that versions need: those that DVC's cache and its remote lack.

`dvc status --cloud` and `dvc push` ask the remote for a folder's list alone and take it that what is listed is there
too, and remember that; an object that was removed from the bucket is then never missed. Here every object is asked for.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from imagepack.dvc.cache import md5
from imagepack.dvc.repository import Out, Repo

Objects = dict[HashInfo, Out]
"""Objects, and the first file or folder that has each."""


def objects(repo: Repo, tracked: Iterable[Out], ask_remote: bool = True) -> dict[str | None, Objects]:
    """Return all objects of `tracked`, by remote: files, lists of folders, and what those list.

    Unless the remote is asked for it, what lists name that are not in the cache is not among the objects.
    """
    found: dict[str | None, Objects] = defaultdict(dict)
    for out in tracked:
        here = found[out.remote]
        here.setdefault(out.info, out)
        if out.info.isdir:
            for child in _listed(repo, out, ask_remote):
                here.setdefault(child, out)
    return found


def of_all_remotes(found: dict[str | None, Objects]) -> Objects:
    """Return the objects of all remotes together."""
    return {info: out for infos in found.values() for info, out in infos.items()}


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


def not_in_cache(repo: Repo, wanted: Objects) -> Objects:
    """Return the objects that the cache lacks."""
    return {info: out for info, out in wanted.items() if not repo.cache.local.exists(info.value)}


def not_on_remote(repo: Repo, remote: str | None, wanted: Objects) -> Objects:
    """Return the objects that the remote lacks."""
    store = repo.cloud.get_remote_odb(remote, "push")
    there = set(store.oids_exist([info.value for info in wanted]))
    return {info: out for info, out in wanted.items() if info.value not in there}


def not_on_remotes(repo: Repo, wanted: dict[str | None, Objects]) -> dict[str | None, Objects]:
    """Return, by remote, the objects that it lacks; a remote of which nothing is wanted is not asked."""
    return {name: not_on_remote(repo, name, infos) if infos else {} for name, infos in wanted.items()}


def upload(repo: Repo, remote: str | None, wanted: Objects, show: bool = False) -> Objects:
    """Copy objects, which the remote lacks, from the cache, with a progress bar or not; return those it still lacks."""
    from dvc_data.callbacks import TqdmCallback  # late: most pushes have nothing to copy

    with TqdmCallback(unit="file", desc="Pushing data", disable=not show) as progress:
        result = transfer(
            repo.cache.local,
            repo.cloud.get_remote_odb(remote, "push"),
            set(wanted),
            cache_odb=repo.cache.local,
            callback=progress,
        )
    return {info: out for info, out in wanted.items() if info not in result.transferred}


def download(repo: Repo, remote: str | None, md5s: Iterable[str], show: bool = False) -> list[str]:
    """Copy files from the remote that the cache lacks, with a progress bar or not; return those that it still lacks."""
    from dvc_data.callbacks import TqdmCallback

    lacking = {md5 for md5 in md5s if not repo.cache.local.exists(md5)}
    if not lacking:
        return []
    with TqdmCallback(unit="file", desc="Fetching data", disable=not show) as progress:
        transfer(
            repo.cloud.get_remote_odb(remote, "fetch"),
            repo.cache.local,
            {HashInfo("md5", md5) for md5 in lacking},
            verify=True,
            callback=progress,
        )
    return sorted(md5 for md5 in lacking if not repo.cache.local.exists(md5))


def damaged_on_remote(repo: Repo, remote: str | None, wanted: Objects) -> Objects:
    """Return those that the remote has with another size than the cache, or with another MD5, where it tells.

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
    """Put objects, which the remote has, there again from the cache; return those that the cache has not whole."""
    store, left = repo.cloud.get_remote_odb(remote, "push"), {}
    for info, out in wanted.items():
        cached = Path(repo.cache.local.oid_to_path(info.value))
        if cached.exists() and md5(cached) == _md5_of(info):
            store.add(str(cached), repo.cache.local.fs, info.value, check_exists=False)
        else:
            left[info] = out
    return left


def damaged_lists(repo: Repo, tracked: Iterable[Out]) -> list[Path]:
    """Return the lists of folders in the cache that cannot be read."""
    store, found = repo.cache.local, []
    for out in tracked:
        if out.info.isdir and store.exists(out.info.value):
            try:
                Tree.load(store, out.info)
            except ObjectFormatError:
                found.append(Path(store.oid_to_path(out.info.value)))
    return found


def _md5_of(info: HashInfo) -> str:
    return info.value.removesuffix(".dir")
