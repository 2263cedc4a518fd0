"""Merge two versions of a folder that DVC tracks, file by file, as git merges a text line by line.

DVC has a merge driver too (`dvc git-hook merge-driver`). It fails where a list is not in the cache ("No such file"),
and where both sides removed the same file; it does not say which files are in conflict, and leaves no marks of it in
the .dvc file, so that a `git add` takes one side in silence (treeverse/dvc#8360, #8638).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError

from imagepack.dvc.repository import Repo

Listing = dict[str, str]
"""The md5 of each file of a folder, by its path there."""
SIDES = ("ours", "theirs")
OF_THE_LIST = ("md5", "size", "nfiles")
"""What a .dvc file says of a folder that changes with its files."""


class NotMergeable(Exception):
    """The .dvc files cannot be merged file by file; the message says why."""


class ListMissing(Exception):
    """The list of a version is neither in DVC's cache nor on the remote; the message says of which and what to do."""


class Conflict(NamedTuple):
    """A path that both sides changed, each in another way: its md5s, None where there is no such file."""

    path: str
    base: str | None
    ours: str | None
    theirs: str | None


class Merge:
    """Two versions of a folder, ours and theirs, and the base: the one before both.

    Attributes:
        files: the outcome; of a conflict without a choice, our side.
        conflicts: what no choice decides.
        cells: lines about the cells of a table that are in conflict, by its path; table_merge finds them.
    """

    def __init__(
        self, base: Listing, ours: Listing, theirs: Listing, choices: Mapping[str, str] = MappingProxyType({})
    ):
        """Merge.

        Args:
            base, ours, theirs: what the versions have.
            choices: a side, ours or theirs, by the path of a conflict.
        """
        self.base, self.ours, self.theirs = base, ours, theirs
        self.cells: dict[str, list[str]] = {}
        self._choices = choices
        merged = {path: self._of(path) for path in sorted({*base, *ours, *theirs})}
        self.files: Listing = {path: md5 for path, (md5, _) in merged.items() if md5 is not None}
        # a path that is a file on one side and a folder on the other, or may come to be by a choice
        possible = {path for path, (md5, decided) in merged.items() if md5 is not None or not decided}
        clashing = {parent for path in possible for parent in _parents(path) if parent in possible}
        undecided = [path for path, (_, decided) in merged.items() if not decided or path in clashing]
        self.conflicts = [Conflict(path, *(side.get(path) for side in (base, ours, theirs))) for path in undecided]

    def _of(self, path: str) -> tuple[str | None, bool]:
        """The md5 after the merge, and whether it is decided."""
        base, ours, theirs = self.base.get(path), self.ours.get(path), self.theirs.get(path)
        if side := self.choice(path):
            return (ours if side == "ours" else theirs), True
        if base == ours:
            return theirs, True
        return ours, base == theirs or ours == theirs

    def choice(self, path: str) -> str | None:
        """Return the side that was chosen for a path, or for the file that is where the other side has its folder."""
        if not self._choices:
            return None
        files = (parent for parent in _parents(path) if parent in self.ours or parent in self.theirs)
        return next((self._choices[place] for place in (path, *files) if place in self._choices), None)

    def moved_twice(self) -> list[tuple[str, str, str]]:
        """Return images that each side moved to another place, and that are now in both: from where, ours, theirs."""
        new = {side: _new(self.base, listing) for side, listing in (("ours", self.ours), ("theirs", self.theirs))}
        gone = [path for path in self.base if path not in self.ours and path not in self.theirs]
        places = ((path, *(new[side].get(self.base[path]) for side in SIDES)) for path in gone)
        return [(path, ours, theirs) for path, ours, theirs in places if ours and theirs and ours != theirs]


def changes(old: Listing, new: Listing) -> str:
    """Return how many files were added, edited, moved and removed, in words."""
    came = Counter(new[path] for path in new.keys() - old.keys())
    went = Counter(old[path] for path in old.keys() - new.keys())
    moved = (came & went).total()
    edited = sum(path in old and old[path] != md5 for path, md5 in new.items())
    return f"{came.total() - moved} added, {edited} edited, {moved} moved, {went.total() - moved} removed"


class DvcFile:
    """A .dvc file of one folder, as a version has it."""

    def __init__(self, text: str | bytes, what: str) -> None:
        """Read it.

        Args:
            text: of the file.
            what: the version, for messages.

        Raises:
            NotMergeable: it is damaged, or of something else than one folder of DVC 3.
        """
        from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml_for_update

        self.what = what
        try:
            self.document = parse_yaml_for_update(text, what)
            (self.out,) = self.document["outs"]
            md5 = self.out["md5"]
        except (YAMLFileCorruptedError, ValueError, LookupError, TypeError):
            raise NotMergeable(f"it is not of one folder in {what}") from None
        if "hash" not in self.out or not str(md5).endswith(".dir"):
            raise NotMergeable(f"it is not of a folder in {what}")
        self.info = HashInfo("md5", md5)

    @property
    def remote(self) -> str | None:
        return self.out.get("remote")

    def listing(self, repo: Repo) -> Listing:
        """Return the folder's files, from the cache or else the remote, whose answer is kept in the cache.

        Raises:
            ListMissing: neither has it.
        """
        cache = repo.cache.local
        try:
            tree = Tree.load(cache, self.info)
        except (FileNotFoundError, ObjectFormatError):
            store = repo.cloud.get_remote_odb(self.remote, "fetch")
            try:
                tree = Tree.load(store, self.info)
            except (FileNotFoundError, ObjectFormatError):
                raise ListMissing(
                    f"the list of the images of {self.what} is neither in DVC's cache here nor on the remote: "
                    "who made that version runs `dvc push`"
                ) from None
            cache.add(tree.path, tree.fs, tree.oid)
        return {"/".join(key): info.value for key, _, info in tree}

    def rest(self) -> dict:
        """Return what else the file says."""
        out = {key: value for key, value in self.out.items() if key not in OF_THE_LIST}
        return {**self.document, "outs": [out]}


def write(repo: Repo, merge: Merge, base: DvcFile | None, ours: DvcFile, theirs: DvcFile) -> str:
    """Put the merged list into DVC's cache and return the text of its .dvc file, as `dvc add` writes it.

    Where the sizes of too few files are known, it has no size, until the next `dvc add`.

    Raises:
        NotMergeable: the .dvc files differ in more than the folder's files, on both sides.
    """
    from dvc.utils.serialize import dumps_yaml

    like = _changed_alone(base, ours, theirs)
    tree = Tree()
    for path, md5 in merge.files.items():
        tree.add(PurePosixPath(path).parts, Meta(), HashInfo("md5", md5))
    tree.digest()
    repo.cache.local.add(tree.path, tree.fs, tree.oid)
    size = _size(repo, merge, base, ours, theirs)
    like.out["md5"], like.out["nfiles"] = tree.hash_info.value, len(merge.files)
    if size is None:
        like.out.pop("size", None)
    else:
        like.out["size"] = size
    return dumps_yaml(like.document)


def _changed_alone(base: DvcFile | None, ours: DvcFile, theirs: DvcFile) -> DvcFile:
    """The side whose rest the merge has."""
    rest = base.rest() if base else None
    if ours.rest() == theirs.rest() or theirs.rest() == rest:
        return ours
    if ours.rest() == rest:
        return theirs
    raise NotMergeable("both sides changed more of it than the folder's files")


def _size(repo: Repo, merge: Merge, base: DvcFile | None, ours: DvcFile, theirs: DvcFile) -> int | None:
    """Bytes of the merged folder. Those of the three versions are known; of single files, where the cache has them."""
    totals = [file.out.get("size") if file else 0 for file in (ours, theirs, base)]
    if None in totals or (merge.base and not base):
        return None
    odd: Counter[str] = Counter()  # how often a file counts too little or too much in ours + theirs - base
    for path in {*merge.base, *merge.ours, *merge.theirs}:
        base_md5, our_md5, their_md5 = (side.get(path) for side in (merge.base, merge.ours, merge.theirs))
        for sign, md5 in ((1, merge.files.get(path)), (-1, our_md5), (-1, their_md5), (1, base_md5)):
            if md5:
                odd[md5] += sign
    sizes = [(times, _bytes(repo, md5)) for md5, times in odd.items() if times]
    if any(found is None for _, found in sizes):
        return None
    return totals[0] + totals[1] - totals[2] + sum(times * found for times, found in sizes)


def _bytes(repo: Repo, md5: str) -> int | None:
    """Size of a file, if the cache has it."""
    try:
        return Path(repo.cache.local.oid_to_path(md5)).stat().st_size
    except OSError:
        return None


def _new(base: Listing, listing: Listing) -> dict[str, str]:
    """Path by md5 of the files that came."""
    return {md5: path for path, md5 in listing.items() if path not in base}


def _parents(path: str) -> Iterator[str]:
    """The folders that a file lies in, from within."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
