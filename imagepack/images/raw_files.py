"""The files below data/raw before anything is decoded: which there are, and their bytes.

A zip stands for the folder in which it lies: its members are files as others are.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zlib import crc32

from imagepack.dvc.ignored import ignored_by_dvc
from imagepack.errors import InputError
from imagepack.images import zips
from imagepack.images.faults import Fault
from imagepack.images.formats import prepare_codecs
from imagepack.images.raw_names import PINNED, RawFile, as_text, is_junk, is_table, place_of
from imagepack.names import visible

TYPICAL_GROUP, MOST_OF_A_GROUP = 24, 48
"""Files: large enough that a round trip between processes does not count."""
HELD_BYTES = 4 * 2**20
"""Bytes of files that a worker has in memory together, while it decodes one: little beside what that takes."""
HAS_DVC = "DVC leaves out the whole folder in which it lies, as another repository of DVC: remove it"
MOST_LISTED = 100
"""Faults in a message."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file before it is decoded.

    Attributes:
        place: path, label and batch.
        found: codes of checks and what was seen: of its name, or why its bytes could not be read.
        data: its bytes; None if it is not to be decoded.
        digest, size: of them; an empty text and 0 if they could not be read.
    """

    place: tuple[str, str, str]
    found: list[tuple[str, str]]
    data: bytes | None
    digest: str
    size: int


class Found(NamedTuple):
    """What there is below a folder of images.

    Attributes:
        files: that are to be images.
        tables: about them.
        ignored: how many others DVC ignores.
    """

    files: list[RawFile]
    tables: list[RawFile]
    ignored: int


def find(raw: Path) -> tuple[list[RawFile], int]:
    """Return every file under `raw` that DVC tracks, and every member of a zip, in order; and how many DVC ignores.

    A folder that is a link counts as a file. A zip is none, and where a file is does not change its place in the order.
    Tables beside the images are none either: `find_all` has them.

    Raises:
        InputError: zips that cannot be used, with everything that is wrong with them; or as `tracked`.
    """
    found = find_all(raw)
    return found.files, found.ignored


def find_all(raw: Path) -> Found:
    """As `find`, with the tables."""
    found, ignored = tracked(raw)
    archives = [path for path in found if is_zip(path)]
    if archives:
        listed, faults = _list_all(raw, archives)
        _refuse_zips(raw, faults + _collisions(raw, found, listed))
        is_ignored = ignored_by_dvc()
        members = [member for member in listed if not is_ignored(f"{raw.as_posix()}/{member.path}")]
        ignored += len(listed) - len(members)
        found = sorted([*set(found).difference(archives), *members], key=_walk_order)
    files = [file for file in found if not is_table(str(file))]
    tables = [file for file in found if is_table(str(file)) and str(file) != PINNED]
    return Found(files, tables, ignored)


def find_some(raw: Path) -> Found:
    """As `find_all`.

    Raises:
        InputError: there are no files at all; or as `find`.
    """
    found = find_all(raw)
    if not found.files:
        raise InputError(f"{raw} holds no files: put your images into {raw}/CLASS/ and run again")
    return found


def tracked(raw: Path) -> tuple[list[str], int]:
    """Return the same as `find`, but zips as files and not what is in them.

    Raises:
        InputError: a folder cannot be listed, or is one that DVC does not list.
    """
    is_ignored = ignored_by_dvc()
    found, ignored = [], 0
    for path in _walk(raw):
        if is_ignored((raw / path).as_posix()):
            ignored += 1
        else:
            found.append(path)
    return found, ignored


def groups(files: list[RawFile]) -> Iterator[list[RawFile]]:
    """Cut `files` where their names say so, so that one file more mostly changes the group around it alone."""
    group = []
    for file in files:
        group.append(file)
        if len(group) == MOST_OF_A_GROUP or not crc32(os.fsencode(str(file))) % TYPICAL_GROUP:
            yield group
            group = []
    if group:
        yield group


def members(raw: Path) -> dict[str, zips.Member]:
    """Return what is in all zips that DVC tracks, by path; whether it lies elsewhere too is not looked at.

    Raises:
        InputError: a zip cannot be used.
    """
    is_ignored = ignored_by_dvc()
    archives = [path for path in _walk(raw) if is_zip(path) and not is_ignored((raw / path).as_posix())]
    listed, faults = _list_all(raw, archives)
    _refuse_zips(raw, faults)
    return {member.path: member for member in listed}


def _walk(raw: Path) -> Iterator[str]:
    """Yield every file, relative to `raw`: in each folder its files, then its folders.

    Raises:
        InputError: a folder cannot be listed, or is one that DVC does not list.
    """
    for folder, folders, names in os.walk(raw, onerror=refuse_unlisted):
        if ".dvc" in folders or ".dvc" in names:
            raise InputError(f"{visible(folder)}/.dvc: {HAS_DVC}")
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name).relative_to(raw).as_posix() for name in sorted(names + links))


def is_zip(path: str) -> bool:
    """Return whether the file so called stands for what is in it."""
    return path.lower().endswith(zips.ENDING) and not is_junk(path)


def _list_all(raw: Path, archives: list[str]) -> tuple[list[zips.Member], list[str]]:
    """Return the members of all of them, and what is wrong, a line each."""
    listed, faults = [], []
    for archive in archives:
        members, wrong = _list(raw, archive)
        listed += members
        faults += [f"{visible(str(raw / archive))}: {fault}" for fault in wrong]
    return listed, faults


def _refuse_zips(raw: Path, faults: list[str]) -> None:
    if faults:
        raise InputError(listing(f"{raw} has zips that cannot be used:", faults))


def listing(what: str, faults: list[str]) -> str:
    """Return a message of several lines: the first MOST_LISTED faults."""
    more = [f"... and {len(faults) - MOST_LISTED} more"] if len(faults) > MOST_LISTED else []
    return "\n  ".join([what, *faults[:MOST_LISTED], *more])


def _list(raw: Path, archive: str) -> tuple[list[zips.Member], list[str]]:
    """Return the members of a zip, and what is wrong with other names in it."""
    if (raw / archive).is_symlink():
        return [], ["is a link: put the zip itself here"]
    if not (raw / archive).is_file():  # to read a pipe or a device would never end
        return [], ["is not a file: remove it"]
    try:
        members, wrong = zips.list_members(raw / archive, archive.rpartition("/")[0])
    except zips.Damaged as error:
        return [], [f"{error}: copy or download it again"]
    except OSError as error:
        return [], [f"cannot be read ({error.strerror}): check its permissions"]
    return members, [f"{fault}: make the zip again, without such names" for fault in wrong]


def _collisions(raw: Path, found: list[str], members: list[zips.Member]) -> list[str]:
    """Return faults of paths that are there twice, or as a file and as a folder, were every zip unpacked."""
    owners, faults, is_own = dict.fromkeys(found, ""), [], cache(zips.is_own)
    for member in members:
        owner = owners.setdefault(member.path, member)
        if owner is not member:
            here = "as a file" if isinstance(owner, str) else "twice" if owner.archive == member.archive else ""
            there = here or f"in {owner.archive.file} too"
            half = isinstance(owner, str) and is_own(member.archive.file)  # some of its files may be in it alone
            fix = "python3 run.py zip, which was killed, goes on if run again" if half else "remove one of the two"
            faults.append(f"{member.archive.file}: {as_text(member.path)!r} is there {there}: {fix}")
    folders = {path.rpartition("/")[0] for path in owners}
    folders |= {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    for path in sorted(folders & owners.keys()):
        owner = owners[path] or path
        file = owner.archive.file if isinstance(owner, zips.Member) else raw / owner
        faults.append(f"{file}: {as_text(path)!r} is a file, and elsewhere a folder: rename one of the two")
    return faults


def _walk_order(file: RawFile) -> str:
    """Return a key that sorts as a walk does: in each folder its files, then its folders."""
    folder, _, name = f"/{file}".rpartition("/")
    return folder.replace("/", "\0\2") + "\0\1" + name  # no name has a zero in it


def refuse_unlisted(error: OSError) -> None:
    """Refuse a folder that cannot be listed: it would otherwise be passed over in silence."""
    if not isinstance(error, FileNotFoundError):
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): check its permissions")


def small_groups(raw: Path, files: list[RawFile]) -> Iterator[list[RawFile]]:
    """Cut `files` into groups of few bytes, a large file alone: a group is in memory together."""
    group, size = [], 0
    for file in files:
        its = size_of(raw, file)
        if group and size + its > HELD_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += its
    if group:
        yield group


def size_of(raw: Path, file: RawFile) -> int:
    """Return a file's bytes, by its folder or zip; 0 if it cannot be looked at."""
    try:
        return (raw / file).stat().st_size if isinstance(file, str) else file.bytes
    except OSError:
        return 0


def open_one(raw: Path, file: RawFile, most: int, split: bool) -> Opened:
    """Read and hash a file, once.

    Args:
        raw: the folder.
        file: what `find` found.
        most: bytes that it may have.
        split: whether frames become images.
    """
    place, found = place_of(raw, file, split)
    data, digest = b"", ""
    try:
        data = read(raw, file, most)
        digest = hashlib.sha256(data).hexdigest()
        if is_junk(str(file)):
            *folders, name = map(as_text, str(file).split("/"))
            folder = next(filter(is_junk, folders), "")
            raise Fault("junk", f"lies in a folder {folder}" if folder else f"is called {name}")
    except Fault as fault:
        return Opened(place, [*found, (fault.code, fault.seen)], None, digest, len(data))
    except MemoryError:
        return Opened(place, [*found, ("resource_limit", "needs more memory than a worker may have")], None, "", 0)
    return Opened(place, found, data, digest, len(data))


def untrackable(folder: Path | str) -> list[str]:
    """Return what DVC stops at below `folder`, waits for without an end, or leaves out in silence: a line a file."""
    is_ignored, faults, waiting = ignored_by_dvc(), [], [str(folder)]
    while waiting:
        for entry in sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name):
            if (fault := _fault_of(entry)) and not is_ignored(Path(entry.path).as_posix()):
                faults.append(f"{visible(entry.path)}: {fault}")
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return sorted(faults)


def _fault_of(entry: os.DirEntry) -> str:
    """Return why DVC cannot store it, and the fix; empty if it can."""
    if as_text(entry.name) != entry.name:
        return "its name is not valid UTF-8: rename it"
    if entry.name == ".dvc":
        return HAS_DVC
    if entry.name == ".dvcignore":
        return "DVC takes no such file below what it stores: move its rules to ./.dvcignore"
    if entry.is_file() or (entry.is_dir() and not entry.is_symlink()):
        return ""
    if not entry.is_symlink():
        return "is a pipe, a socket or a device, for which DVC would wait without an end: remove it"
    if entry.is_dir():
        return "a link to a folder, which DVC leaves out: put the folder itself here"
    if Path(entry.path).exists():
        return "leads to a pipe, a socket or a device, for which DVC would wait without an end: remove it"
    return "a link that leads nowhere: remove it, or put the image there"


def read(raw: Path, file: RawFile, most: int | None = None) -> bytes:
    """Read the whole file: the one way in which stages come by the bytes of raw images.

    Args:
        raw: the folder.
        file: what `find` found.
        most: bytes; a member of a zip with more is not unpacked.

    Raises:
        Fault: unreadable or empty_file; of a member also truncated or decode_error.
        MemoryError: more than `most`.
    """
    prepare_codecs()  # before the file takes the memory that they need
    if not isinstance(file, str):
        if most is not None and file.bytes > most:
            raise MemoryError
        try:
            data = zips.read(file)
        except zips.Unreadable as error:
            raise Fault(*error.args) from None
    else:
        data = _read_loose(raw / file)
    if not data:
        raise Fault("empty_file", "0 bytes")
    return data


def _read_loose(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # to read a pipe or a device would never end
            raise Fault("unreadable", "is not a file")
        return path.read_bytes()
    except OSError as error:
        raise Fault("unreadable", error.strerror or str(error)) from None
