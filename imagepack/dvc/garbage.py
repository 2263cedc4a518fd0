"""What no kept version needs, in DVC's cache and on its remote: found, counted, and removed by DVC's own collector.

`dvc gc` keeps what it is told to and removes the rest, whoever put it there. Here an object goes only if a version of
this repository names it. What no version names is perhaps another dataset's, or of a version that somebody has not
pushed yet: it stays unless it is asked for, and so does whatever its folder lists name.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from imagepack.dvc import git, lock_files, repository
from imagepack.dvc.kept_versions import Version
from imagepack.dvc.repository import Repo
from imagepack.dvc.stores import Share, Store
from imagepack.errors import InputError


@dataclass(frozen=True)
class Wanted:
    """Which versions are kept.

    Attributes:
        known: all versions, by commit.
        kept: those to keep, beside what lies in this working tree.
        changing: commits, `kept` among them, that together have all that any version names.
        skip_failed: whether to go on where it cannot be told what one of `kept` that has a name needs.
    """

    known: dict[str, Version]
    kept: list[Version]
    changing: list[str]
    skip_failed: bool = False


@dataclass(frozen=True)
class Held:
    """What a kept version holds.

    Attributes:
        versions: that have the same data.
        is_here: whether this working tree has it too.
        files: how many objects it needs.
        size: their bytes.
        alone: the bytes of those that no other kept version needs.
    """

    versions: tuple[Version, ...]
    is_here: bool
    files: int
    size: int
    alone: int


@dataclass
class Plan:
    """What is kept and what would go.

    Attributes:
        held: by version, the newest first.
        kept: names of all objects that kept versions need.
        dropped: versions that name data and are not kept, the newest first.
        skipped: kept versions of which it cannot be told what they need, and why.
        doomed, unnamed, staying: by store: what goes, what no version names, and what is kept of it.
    """

    held: list[Held]
    kept: set[str]
    dropped: list[Version]
    skipped: list[str]
    doomed: list[Share]
    unnamed: list[Share]
    staying: list[Share]


class Unknowable(InputError):
    """It cannot be told what a kept version needs, so nothing may go."""


def plan(repo: Repo, stores: list[Store], wanted: Wanted, unnamed: bool) -> Plan:
    """Find what goes from each store.

    Args:
        repo: this one.
        stores: the cache first.
        wanted: which versions are kept.
        unnamed: whether what no version names goes too.

    Raises:
        Unknowable: what a kept version needs.
    """
    lists, skipped = _Lists(stores), []
    states = _states(wanted.changing)
    groups: dict[tuple[str, ...], list[Version]] = {_workspace(repo): []}
    for version in wanted.kept:
        groups.setdefault(states[version.commit].outs, []).append(version)
    needs = []
    for outs, versions in groups.items():
        if fault := _fault(repo, lists, outs, versions, states):
            if not versions or (not wanted.skip_failed and any(version.is_named for version in versions)):
                raise Unknowable(fault)
            skipped.append(fault)
        needs.append(lists.known_part(outs))
    kept = lists.names_of(lists.union(needs))
    named = kept | lists.names_of(lists.union(lists.known_part(state.outs) for state in states.values()))
    spared = set() if unnamed else lists.named_by_unnamed(named)
    parts = [_part(store, kept, named, spared, unnamed) for store in stores]
    doomed, left, staying = (list(column) for column in zip(*parts, strict=True))
    dropped = [wanted.known[commit] for commit in wanted.changing if states[commit].outs not in groups]
    return Plan(
        _held(lists, groups, needs),
        kept,
        sorted((version for version in dropped if states[version.commit].outs), key=lambda v: v.date, reverse=True),
        skipped,
        doomed,
        left,
        staying,
    )


def _fault(
    repo: Repo, lists: "_Lists", outs: tuple[str, ...], versions: list[Version], states: dict[str, "_State"]
) -> str:
    """Why it cannot be told what a version needs, and what to do; empty if it can."""
    for version in versions:
        if damaged := states[version.commit].damaged:
            return f"it cannot be told what {_called(version)} needs: {'; '.join(damaged)}"
    called = _called(versions[0]) if versions else "this working tree"
    missing = lists.missing(outs)
    if missing:
        missing -= repository.in_use(repo, versions[0].commit if versions else None)[1]
    if not missing:
        return ""
    name = min(missing)
    where = [store.where for store in lists.stores if name in store.sizes]
    if where:
        return f"the list {name} of a folder of {called} is damaged in {where[0]}: python3 run.py doctor --deep"
    return (
        f"it cannot be told what {called} needs: neither the cache here nor the remote has the list of its files, "
        f"{name}. Who has them runs dvc push"
    )


def _called(version: Version) -> str:
    if version.is_named:
        return f"{', '.join(version.names)} ({version.commit[:9]})"
    return f"{version.commit[:9]} of {version.date}"


def _part(store: Store, kept: set[str], named: set[str], spared: set[str], unnamed: bool) -> tuple[Share, Share, Share]:
    """What goes from a store, what no version names, and what is kept."""
    going, nameless, staying = Share(), Share(), Share()
    for name, size in store.sizes.items():
        if name in kept:
            staying.sizes[name] = size
            continue
        if name not in named or name in spared:
            nameless.sizes[name] = size
        if unnamed or (name in named and name not in spared):
            going.sizes[name] = size
    return going, nameless, staying


def _held(lists: "_Lists", groups: dict[tuple[str, ...], list[Version]], needs: list[np.ndarray]) -> list[Held]:
    """What each group of versions with the same data holds; the first is that of this working tree."""
    times, sizes, found = lists.count(needs), lists.sizes(), []
    for number, (versions, need) in enumerate(zip(groups.values(), needs, strict=True)):
        alone = need[times[need] == 1]
        found.append(Held(tuple(versions), number == 0, len(need), int(sizes[need].sum()), int(sizes[alone].sum())))
    return [held for held in found if held.files]


@dataclass(frozen=True)
class _State:
    """What the files of DVC say in a version: objects, and what is wrong with those that are damaged."""

    outs: tuple[str, ...]
    damaged: tuple[str, ...]


def _states(commits: Iterable[str]) -> dict[str, _State]:
    """State by commit; each file of DVC is read once, in however many versions it is the same."""
    files = {commit: _dvc_files(commit) for commit in dict.fromkeys(commits)}
    blobs = dict.fromkeys((path, blob) for found in files.values() for path, blob in found)
    contents = git.read_objects([blob for _, blob in blobs])
    read: dict[tuple[str, str], list[str]] = {}
    damaged: dict[tuple[str, str], str] = {}
    for (path, blob), content in zip(blobs, contents, strict=True):
        try:
            read[path, blob] = lock_files.read_md5s(path, content or b"")
        except ValueError as error:
            damaged[path, blob] = str(error).splitlines()[0]
    return {
        commit: _State(
            tuple(sorted({md5 for key in found for md5 in read.get(key, ())})),
            tuple(damaged[key] for key in found if key in damaged),
        )
        for commit, found in files.items()
    }


def _dvc_files(commit: str) -> list[tuple[str, str]]:
    """Path and hash of each dvc.lock and .dvc file."""
    listed = git.run("ls-tree", "-r", "-z", "--full-tree", commit).decode("utf-8", "surrogateescape")
    found = (entry.partition("\t") for entry in listed.split("\0") if entry)
    return [(path, about.split()[2]) for about, _, path in found if _is_dvcs(path)]


def _is_dvcs(path: str) -> bool:
    return path.endswith(".dvc") or path.rpartition("/")[2] == lock_files.LOCK.name


def _workspace(repo: Repo) -> tuple[str, ...]:
    """What this working tree has in use."""
    try:
        return tuple(sorted(set().union(*repository.in_use(repo))))
    except repository.DvcException as error:
        raise Unknowable(f"it cannot be told what is in use here: {str(error).splitlines()[0]}") from None


class _Lists:
    """Folders' lists, each read once, with a number for each object: versions of 100,000 images fit into memory."""

    def __init__(self, stores: list[Store]) -> None:
        self.stores = stores
        self._numbers: dict[str, int] = {}
        self._read: dict[str, np.ndarray | None] = {}

    def _number(self, names: Iterable[str]) -> np.ndarray:
        return np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names], dtype=np.int32)

    def _listed(self, name: str) -> np.ndarray | None:
        """What a folder's list names; None where it is nowhere."""
        if name not in self._read:
            found = (store.read_list(name) for store in self.stores)
            names = next((names for names in found if names is not None), None)
            self._read[name] = None if names is None else self._number(names)
        return self._read[name]

    def known_part(self, outs: Iterable[str]) -> np.ndarray:
        """Numbers of these objects, and of what those lists name that are somewhere."""
        outs = list(outs)
        listed = [found for name in outs if name.endswith(".dir") and (found := self._listed(name)) is not None]
        return np.unique(np.concatenate([self._number(outs), *listed]))

    def missing(self, outs: Iterable[str]) -> set[str]:
        """Return those lists among these objects that are nowhere."""
        return {name for name in outs if name.endswith(".dir") and self._listed(name) is None}

    def union(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        together = np.zeros(0, np.int32)
        for part in parts:
            together = np.union1d(together, part)
        return together

    def named_by_unnamed(self, named: set[str]) -> set[str]:
        """Names that those lists name which no version does: perhaps of a version that is not pushed yet."""
        nameless = {name for store in self.stores for name in store.sizes if name.endswith(".dir")} - named
        return self.names_of(self.union(self.known_part([name]) for name in nameless))

    def names_of(self, numbers: np.ndarray) -> set[str]:
        names = list(self._numbers)
        return {names[number] for number in numbers}

    def count(self, parts: list[np.ndarray]) -> np.ndarray:
        """In how many parts each object is, by its number."""
        times = np.zeros(len(self._numbers), np.int32)
        for part in parts:
            times[part] += 1
        return times

    def sizes(self) -> np.ndarray:
        """Bytes by number; 0 of what is nowhere."""
        found: dict[str, int] = {}
        for store in self.stores:
            found |= store.sizes
        return np.array([found.get(name, 0) for name in self._numbers], dtype=np.int64)
