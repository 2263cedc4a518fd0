"""DVC's view of a repository: what its versions track, what has changed, what its experiments gave."""

import contextlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.repo.worktree import worktree_view
from dvc.scm import SCMError
from dvc_data.hashfile.hash_info import HashInfo

from imagepack.dvc import config, git
from imagepack.errors import InputError

__all__ = ["DvcException", "LockError", "Repo", "SCMError"]  # and what is below


class Out(NamedTuple):
    """What a version says of one file or folder that DVC tracks."""

    path: str
    version: str  # beginning of the commit's hash, or `the workspace`
    info: HashInfo
    remote: str | None  # None: the default one


def open_repo(root: Path, commit: str | None = None) -> Repo:
    """Open the repository at `root`, with the remotes that the .dvc/config of `commit` names."""
    return Repo(str(root), config=config.read_commit(root, commit) or None if commit else None)


def outs(repo: Repo, commits: list[str]) -> tuple[list[Out], list[str]]:
    """Return what the commits track, or the workspace if none is given; and a line for each that cannot be read."""
    found, unreadable, seen = [], [], set()
    if commits and Path(repo.root_dir) != Path(repo.scm.root_dir):  # those from before there was this subfolder
        configs = git.read_files(commits, ".dvc/config", Path(repo.root_dir))
        commits = [commit for commit, config in zip(commits, configs, strict=True) if config is not None]
        if not commits:
            return [], []
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
                found.append(Out(str(out), name, out.hash_info, out.remote))
    return found, unreadable


def in_use(repo: Repo, commit: str | None = None) -> tuple[set[str], set[str]]:
    """Return the md5s of what a commit, None for the workspace, keeps in the cache, and of its other outputs.

    The latter are those with `cache: false`, and what `dvc import` has from another repository.

    Raises:
        DvcException: DVC cannot read it.
    """
    cached, other = set(), set()
    for _ in repo.brancher(revs=[commit] if commit else None, workspace=not commit, sha_only=True):
        for out in repo.index.outs:
            if out.hash_info and out.hash_info.value:
                (cached if out.use_cache and not out.stage.is_repo_import else other).add(out.hash_info.value)
    return cached, other


def known_md5(repo: Repo, path: Path) -> str | None:
    """Return the md5 that DVC remembers of a file that has still the time and size of then; None without one."""
    _, known = repo.state.get(str(path.absolute()), localfs)
    return known.value if known and known.name == "md5" else None


def compare_with_workspace(path: str) -> tuple[bool, bool] | None:
    """Compare a folder with its .dvc file, which takes a look at each of its files.

    Returns:
        None if they agree, or DVC cannot say; otherwise whether DVC's cache has the version that the .dvc file names,
        and the one that is here.
    """
    try:
        with closing(Repo()) as repo:
            # the .dvc file alone: to find the out by its path DVC reads every file of the pipeline
            (out,) = (out for stage in repo.stage.load_file(f"{path}.dvc") for out in stage.outs)
            here = out.get_hash()
            if not out.hash_info or here == out.hash_info:
                return None
            return repo.cache.local.exists(out.hash_info.value), repo.cache.local.exists(here.value)
    except (DvcException, OSError):
        return None


def forget_data_index() -> None:
    """Drop DVC's list of what there is to push or pull, so that the next `dvc push`, `pull` or `fetch` makes it anew.

    DVC 3.67.1 writes the list bit by bit, and takes for whole what there is of it when it was killed or interrupted:
    the next `dvc push` pushes that part, with lists of folders that name files which are not there, and says that all
    is up to date. DVC trusts those lists, so that no later `dvc push` pushes the rest.

    Where the list cannot be dropped, as where another DVC is at work, the command that follows says why.
    """
    with contextlib.suppress(DvcException, OSError, sqlite3.Error), closing(Repo()) as repo, repo.lock:
        repo.drop_data_index()


def experiment_results(folder: Path, commits: Sequence[str]) -> dict[str, Any]:
    """Return what `dvc exp show` knows of each commit and the workspace: an object with params and metrics, by file.

    DVC keeps what it has read of a commit, so that only the first time takes long: some 0.2 s a commit.

    Raises:
        InputError: DVC cannot read the repository.
    """
    try:
        with Repo(str(folder)) as repo:
            states = repo.experiments.show(revs=list(commits), sha_only=True, hide_queued=True, hide_failed=True)
    except (DvcException, SCMError) as error:
        raise InputError(f"DVC cannot read {folder}: {error}") from None
    return {state.rev: state for state in states}
