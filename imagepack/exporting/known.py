"""What cards say, gathered: of its owner, of git, of the version before, and the contact sheets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from imagepack.compare import terminal
from imagepack.compare.comparison import compare
from imagepack.compare.versions import CACHE_BYTES, MANIFEST_NAME, Version, read
from imagepack.dvc import git
from imagepack.dvc.download_cache import DownloadCache, user_folder
from imagepack.dvc.revision_files import RevisionFiles
from imagepack.exporting import citation
from imagepack.exporting.citation import Citation

WIDTH = 100
"""Columns of the comparison with the version before."""


@dataclass(frozen=True)
class Commit:
    """The commit of a version, and tags that name it; of a workspace whose data is not committed, empty."""

    name: str = ""
    date: str = ""
    tags: Sequence[str] = ()


class VersionFiles:
    """Files of a version, in the workspace or without a checkout.

    Args:
        folder: of the repository.
        version: of the dataset.
    """

    def __init__(self, folder: Path, version: Version) -> None:
        self._folder, files = folder, DownloadCache(user_folder(), CACHE_BYTES)
        self._dvc = RevisionFiles(version.revision, folder, files) if version.revision else None

    def read(self, path: str) -> bytes | None:
        """Return a small file that git tracks; None without it."""
        if self._dvc:
            return self._dvc.read(path)
        return (self._folder / path).read_bytes() if (self._folder / path).is_file() else None

    def get(self, path: str) -> Path | None:
        """Return where a file that DVC tracks is on this machine; None without it.

        Raises:
            PackError: it is nowhere.
        """
        if self._dvc:
            return self._dvc.get(path) if self._dvc.has(path) else None
        return self._folder / path if (self._folder / path).is_file() else None

    def list(self, path: str) -> list[str]:
        """Return the paths of the files in a folder that DVC tracks."""
        if self._dvc:
            return sorted(self._dvc.files_in(path))
        return sorted(f"{path}/{file.name}" for file in (self._folder / path).glob("*") if file.is_file())


def cited(folder: Path, version: Version, name: str) -> Citation:
    """Return what CITATION.cff of a version says; the `name` alone where that is not about a dataset.

    Raises:
        InputError: it cannot be read.
    """
    return citation.parse(VersionFiles(folder, version).read(citation.FILE), name)


def commit_of(folder: Path, version: Version) -> Commit:
    """Return the commit of a version: of the workspace the last one, if its data is that of the workspace."""
    name = version.revision
    if not name:
        changed = git.lines("status", "--porcelain", "--", "dvc.lock", "*.dvc", folder=folder)
        name = None if changed else git.text("rev-parse", "--verify", "-q", "HEAD", folder=folder)
    if not name:
        return Commit()
    tags = [found.name for found in git.references(folder) if found.kind == "tag" and found.commit == name]
    return Commit(name, git.text("log", "-1", "--format=%cs", name, folder=folder) or "", tags)


def changes(folder: Path, version: Version, commit: Commit) -> str:
    """Return what happened to the images since the tag before a version, as `compare` says it; empty without a tag.

    Raises:
        InputError: that version cannot be read.
    """
    start = f"{commit.name}^" if commit.name else "HEAD"
    if not (tag := git.text("describe", "--tags", "--abbrev=0", start, folder=folder)):
        return ""
    name = commit.tags[0] if commit.tags else commit.name[:10] or version.name
    found = compare(read(tag, folder), replace(version, name=name))
    return terminal.text(found.summary, found.changes, WIDTH)


def sheets(folder: Path, version: Version) -> Iterator[tuple[str, Path]]:
    """Yield class and file of each contact sheet; none where preview has not run, or they are nowhere."""
    outs = version.lock["preview"].outs if "preview" in version.lock else ()
    files = VersionFiles(folder, version)
    for out in outs:
        for path in files.list(out.path):
            if path.endswith(".png") and (found := files.get(path)):
                yield PurePosixPath(path).stem, found


def manifest_path(version: Version) -> str:
    """Return where the version has its manifest."""
    return next(out.path for out in version.lock["validate"].outs if PurePosixPath(out.path).name == MANIFEST_NAME)


def origin(folder: Path) -> str:
    """Return the address of the repository that this one was cloned from, without keys in it; empty without one."""
    address = git.text("remote", "get-url", "origin", folder=folder) or ""
    if "://" not in address:
        return "" if Path(address).exists() else address
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
