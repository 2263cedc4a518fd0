"""Which data was this? From a pack to the git revision and the params that made it, and from a digest to revisions."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from imagepack.dvc import cache, git, lock_files
from imagepack.dvc.git import GitError
from imagepack.reader.format import INDEX_NAME, PackError

REPORT = "reports/pack.json"
STAGES = ("validate", "preprocess", "pack")
"""Whose params decide what is in a pack."""


@dataclass(frozen=True)
class Commit:
    """A git revision that has a pack.

    Attributes:
        commit: its hash, hexadecimal.
        date: YYYY-MM-DD, of the commit.
        subject: first line of its message.
        names: tags, branches and experiments that point to it: "tag v1", "branch main", "experiment small".
        digest: of its pack.
    """

    commit: str
    date: str
    subject: str
    names: list[str]
    digest: str


def of_folder(folder: Path, digest: str) -> dict:
    """Return {"revision": ..., "params": ...} of the commit that is checked out, if its pack has this digest.

    None each where it has another one, or there is no git or no repository. Of a pack that came by `dvc import`, the
    revision is of the repository that it came from, `repo`; its params are known there.
    """
    if found := _import_of(folder.absolute()):
        return found | {"params": None}
    project = _project(folder)
    try:
        commit = git.run("rev-parse", "HEAD", folder=project).decode().strip()
        if _digest(git.run("show", f"{commit}:./{REPORT}", folder=project)) == digest:
            lock = git.run("show", f"{commit}:./{lock_files.LOCK}", folder=project)
            return {"revision": commit, "params": params_of(lock)}
    except (OSError, GitError):
        pass
    return {"revision": None, "params": None}


def _import_of(folder: Path) -> dict[str, str] | None:
    """Where a folder came from by `dvc import`, if its dataset.h5 is the one that came."""
    for above in (folder, *folder.parents[:-1]):
        dvc_file = above.with_name(f"{above.name}.dvc")
        if not dvc_file.is_file():
            continue
        text = lock_files.here(dvc_file)
        root = next((top for top in above.parents if (top / ".dvc").is_dir()), None)
        if root and (found := lock_files.read_import(text)):
            index = folder / INDEX_NAME
            listed = cache.listed(root, lock_files.read_outs(text)[0].md5)
            return found if listed.get(index.relative_to(above).as_posix()) == cache.md5(index) else None
    return None


def params_of(lock: bytes | None) -> dict | None:
    """Return the params that a pack was made with by its dvc.lock, by stage; None if it has none, or without PyYAML."""
    stages = lock_files.read_lock(lock)
    recorded = {name: stages[name].params.get("params.yaml", {}).get(name) for name in STAGES if name in stages}
    return {name: params for name, params in recorded.items() if params is not None} or None


def whence(digest: str, repo: Path) -> list[Commit]:
    """Return the commits whose pack has a digest, newest first, among all of any branch, tag or experiment.

    Three git processes, however many commits there are.

    Args:
        digest: hexadecimal, or how it begins.
        repo: of which reports/pack.json says what its pack is, in each commit.

    Raises:
        PackError: no git, or no git repository.
    """
    project, names = _project(repo), defaultdict(list)
    try:
        log = git.run("log", "--all", "--no-show-signature", "--format=%H%x09%cs%x09%s", folder=project)
        commits = [line.split("\t", 2) for line in log.decode("utf-8", "replace").splitlines()]
        reports = git.read_files([commit for commit, *_ in commits], REPORT, project)
        for reference in git.references(project):
            names[reference.commit].append(f"{reference.kind} {reference.name}")
    except FileNotFoundError:
        raise PackError(f"there is no folder {repo}, or git is not installed") from None
    except GitError as error:
        raise PackError(f"{repo} cannot be read by git: {error}") from None
    return [
        Commit(commit, date, subject, names[commit], found)
        for (commit, date, subject), report in zip(commits, reports, strict=True)
        if (found := _digest(report)).startswith(digest.lower()) and found
    ]


def _digest(report: bytes | None) -> str:
    """Empty where it has none: of a time when it had none, or not by the pack stage."""
    try:
        return json.loads(report or b"")["digest"] or ""
    except (ValueError, KeyError, TypeError):
        return ""


def _project(folder: Path) -> Path:
    """The folder above (or this one) that has dvc.yaml; else `folder`."""
    folder = folder.absolute()
    return next((above for above in (folder, *folder.parents) if (above / "dvc.yaml").is_file()), folder)
