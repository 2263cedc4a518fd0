"""Zips of images: what is in one, by its directory alone; the bytes of a member; and zips that are the same each time.

A zip stands for the folder in which it lies, as if its members were extracted there. Nothing is ever extracted, though:
a member is read into memory, and no more of it than its directory says.

Zips come from other people, so the directory is read here and not by zipfile, which takes the last of two directories,
content in front of them, members that overlap, and names that it changes. Layout: PKWARE's APPNOTE.TXT 6.3.
"""

import hashlib
import os
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

ENDING = ".zip"
TYPICAL_BYTES = 8 * 2**20
"""A zip that is made here has about so many, as a shard has: with thousands of small files DVC is much slower."""
DATE = (1980, 1, 1, 0, 0, 0)
"""The date of every member: the first that a zip can say."""
STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001 | 0x0040 | 0x2000
OPEN_FILES = 8
END, END64, LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
ENTRY, LOCAL = struct.Struct("<4s4x2H4x3L3H4x2L"), struct.Struct("<4s5H3L2H")
NAME_BYTES = struct.Struct("<28xH")
"""The length of the name in an ENTRY, which takes less time than all of it."""
LONGEST_COMMENT = 65535
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
"""Stand for a number that is in the part for large zips."""


class Damaged(Exception):
    """A zip that cannot be used at all; says why."""


class Unreadable(Exception):
    """A member that cannot be read: "unreadable", "truncated" or "decode_error", and what was seen."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file as it was when its directory was read.

    Attributes:
        file: the zip.
        bytes: its size.
        changed: its time of change, in nanoseconds.
    """

    file: Path
    bytes: int
    changed: int


class Header(NamedTuple):
    """What a zip's directory says of a member.

    Attributes:
        packed, bytes: its size in the zip, and outside.
        name, extra, comment: bytes of what follows.
        attributes: the Unix file type among them, or 0.
        offset: of its own header.
    """

    signature: bytes
    flags: int
    method: int
    crc: int
    packed: int
    bytes: int
    name: int
    extra: int
    comment: int
    attributes: int
    offset: int


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a zip; str() is its path.

    Attributes:
        archive: the zip.
        folder: where the zip lies below the folder of images, with /.
        entry: of the zip's directory, as it stands there. There may be millions of members: it takes little more
            than half of the memory that the values in it would take, one by one.
    """

    archive: Archive
    folder: str
    entry: bytes

    @property
    def header(self) -> Header:
        """Return all of it, with the numbers from the part for large zips."""
        header = Header._make(ENTRY.unpack_from(self.entry))
        numbers = [header.bytes, header.packed, header.offset]
        if FULL32 not in numbers:
            return header
        size, packed, offset = _numbers64(self.entry[ENTRY.size + header.name :], numbers)
        return header._replace(bytes=size, packed=packed, offset=offset)

    @property
    def name(self) -> bytes:
        """Return the name as it stands in the zip."""
        return self.entry[ENTRY.size : ENTRY.size + NAME_BYTES.unpack_from(self.entry)[0]]

    @property
    def path(self) -> str:
        """Return the path below the folder of images, with /, as if it were extracted beside its zip."""
        return posixpath.normpath(posixpath.join(self.folder, _text(self.name)))

    @property
    def bytes(self) -> int:
        """Return its size outside of the zip."""
        return self.header.bytes

    def __str__(self) -> str:
        return self.path


def list_members(file: Path, folder: str = "") -> tuple[list[Member], list[str]]:
    """Return the files in a zip, in its order, and what is wrong with others' names; nothing is decompressed.

    Args:
        file: the zip.
        folder: where it lies below the folder of images, with /; empty if directly in it.

    Raises:
        Damaged: it is no zip, or not the whole of one, or says of itself what cannot be.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        return list_stream(stream, Archive(file, status.st_size, status.st_mtime_ns), folder)


def list_stream(stream: BinaryIO, archive: Archive, folder: str = "") -> tuple[list[Member], list[str]]:
    """Return the same as `list_members` of a zip that is open, here or elsewhere; only its directory is read.

    Args:
        stream: can be sought in.
        archive: what it is.
        folder: as there.
    """
    start, length, count = _directory(stream, archive.bytes)
    stream.seek(start)
    directory = stream.read(length)
    entries = list(_entries(archive, folder, directory, count))
    _require_apart(entries, start)
    members, faults = [], []
    for member in entries:
        name = member.name
        if fault := fault_of_name(_text(name)):
            faults.append(f"{_quoted(name)} {fault}")
        elif not name.endswith(b"/"):
            members.append(member)
        elif member.bytes:
            faults.append(f"{_quoted(name)} is a folder with content")
    return members, faults


def _text(name: bytes) -> str:
    """Return a name as Linux would show that of a file: UTF-8, whether or not the zip says so."""
    return name.decode("utf-8", "surrogateescape")


def _quoted(name: bytes) -> str:
    """A name, for messages."""
    return repr(name.decode("utf-8", "backslashreplace"))


def _directory(stream: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where the central directory begins, its bytes, its entries."""
    stream.seek(max(0, size - END.size - LONGEST_COMMENT))
    tail = stream.read()
    ends = [found.start() for found in re.finditer(b"PK\5\6", tail)]
    ends = [
        at for at in ends if len(tail) - at >= END.size and at + END.size + END.unpack_from(tail, at)[-1] == len(tail)
    ]
    if len(ends) != 1:
        raise Damaged("has several ends" if ends else "is no zip, or its end is missing")
    end = size - len(tail) + ends[0]
    _, disk, first_disk, here, count, length, start, _ = END.unpack_from(tail, ends[0])
    if FULL16 in (disk, first_disk, here, count) or FULL32 in (length, start):
        stream.seek(max(0, end - LOCATOR64.size))
        locator = stream.read(LOCATOR64.size)
        if locator.startswith(b"PK\6\7"):
            _, _, end, _ = LOCATOR64.unpack(locator)
            stream.seek(min(end, size))
            record = stream.read(END64.size)
            if len(record) < END64.size or not record.startswith(b"PK\6\6"):
                raise Damaged("its end is damaged")
            _, _, _, _, disk, first_disk, here, count, length, start = END64.unpack(record)
    if disk or first_disk or here != count:
        raise Damaged("is one of several parts")
    if start + length != end or count * ENTRY.size > length:
        raise Damaged("its parts are not where its end says")
    return start, length, count


def _entries(archive: Archive, folder: str, directory: bytes, count: int) -> Iterator[Member]:
    """Yield the entries of a central directory."""
    at = 0
    for _ in range(count):
        if len(directory) - at < ENTRY.size or directory[at : at + 4] != b"PK\1\2":
            raise Damaged("its list of files is damaged")
        header = Header._make(ENTRY.unpack_from(directory, at))
        end = at + ENTRY.size + header.name + header.extra
        if end + header.comment > len(directory):
            raise Damaged("its list of files is damaged")
        yield Member(archive, folder, directory[at:end])
        at = end + header.comment
    if at != len(directory):
        raise Damaged("its list of files is damaged")


def _numbers64(extra: bytes, numbers: list[int]) -> list[int]:
    """Return the numbers, those that do not fit into 32 bits from the part for large zips."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            large = iter(struct.unpack_from(f"<{length // 8}Q", extra[4 : 4 + length].ljust(length, b"\0")))
            return [next(large, FULL32) if number == FULL32 else number for number in numbers]
        extra = extra[4 + length :]
    return numbers


def _require_apart(members: list[Member], end: int) -> None:
    """Refuse members that share bytes (a bomb of few bytes, David Fifield 2019), or lie outside of their part."""
    ordered = sorted(members, key=lambda member: member.header.offset)
    for member, following in zip_longest(ordered, ordered[1:]):
        header = member.header
        limit = following.header.offset if following else end
        if header.offset + LOCAL.size + header.name + header.packed > limit:
            raise Damaged(f"{_quoted(member.name)} reaches into what follows it")


def fault_of_name(name: str) -> str:
    """Return why a member may not be called so; empty if it may."""
    if not name:
        return "has no name"
    if "\0" in name:
        return "has a zero byte in its name"
    if "\\" in name:
        return "has a backslash in its name"
    if name.startswith("/"):
        return "begins with a slash"
    if re.match("[A-Za-z]:", name):
        return "begins with a drive letter"
    if ".." in name.split("/"):
        return "leads out of its folder by .."
    return "" if PurePosixPath(name).name or name.endswith("/") else "has no name"


_open_files: OrderedDict[Archive, BinaryIO] = OrderedDict()


def read(member: Member, stream: BinaryIO | None = None) -> bytes:
    """Return the whole of a member, checked; it never takes more memory than the directory says.

    Args:
        member: of a zip.
        stream: the zip, open; otherwise it is opened here.

    Raises:
        Unreadable: it is damaged, or of a kind that is not read.
    """
    where, header = f"in {member.archive.file.name}", member.header
    mode = stat.S_IFMT(header.attributes >> 16)
    if mode not in (0, stat.S_IFREG):
        raise Unreadable("unreadable", f"is a link {where}" if stat.S_ISLNK(mode) else f"is not a file {where}")
    if header.flags & ENCRYPTED:
        raise Unreadable("unreadable", f"is encrypted {where}")
    if header.method not in (STORED, DEFLATED):
        raise Unreadable("unreadable", f"is compressed by method {header.method} {where}; read are 0 and 8 (deflate)")
    try:
        packed = _packed(member, stream or _open(member.archive))
    except OSError as error:
        raise Unreadable("unreadable", f"{error.strerror or error} {where}") from None
    data = packed if header.method == STORED else _inflate(packed, header.bytes, where)
    if len(data) != header.bytes:
        code = "truncated" if len(data) < header.bytes else "decode_error"
        raise Unreadable(code, f"is not of the {header.bytes} bytes that it should be {where}")
    if zlib.crc32(data) != header.crc:
        raise Unreadable("decode_error", f"its checksum is wrong {where}")
    return data


def _inflate(packed: bytes, size: int, where: str) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise Unreadable("decode_error", f"{error} {where}") from None
    if len(data) <= size and not unpacker.eof:
        raise Unreadable("truncated", f"its end is missing {where}")
    return data


def _packed(member: Member, stream: BinaryIO) -> bytes:
    """Return a member's bytes as they stand in the zip."""
    header, called = member.header, member.name
    stream.seek(header.offset)
    local = stream.read(LOCAL.size + len(called))
    if len(local) < LOCAL.size or not local.startswith(b"PK\3\4"):
        raise Unreadable("decode_error", f"its header is damaged in {member.archive.file.name}")
    *_, method, _, _, _, _, _, name, extra = LOCAL.unpack_from(local)
    if local[LOCAL.size :] != called or name != len(called) or method != header.method:
        raise Unreadable("decode_error", f"its header says something else in {member.archive.file.name}")
    stream.seek(extra, 1)
    data = stream.read(header.packed)
    if len(data) < header.packed:
        raise Unreadable("truncated", f"its end is missing in {member.archive.file.name}")
    return data


def _open(archive: Archive) -> BinaryIO:
    """Return this process's open file; the last few stay open."""
    if archive not in _open_files:
        while len(_open_files) >= OPEN_FILES:
            _open_files.popitem(last=False)[1].close()
        _open_files[archive] = archive.file.open("rb")
    _open_files.move_to_end(archive)
    return _open_files[archive]


def close() -> None:
    """Close what `read` has left open in this process: on Windows an open file cannot be removed."""
    while _open_files:
        _open_files.popitem()[1].close()


def write(stream: BinaryIO, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip of these, in this order, uncompressed; the same files give the same bytes, on every system."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files:
            member = zipfile.ZipInfo(name, DATE)
            member.create_system, member.external_attr = 3, (stat.S_IFREG | 0o644) << 16  # Unix, as anywhere
            archive.writestr(member, data)


def name_of(digest: str) -> str:
    """Return the name of a zip made here, from the sha256 of its bytes."""
    return digest[:32] + ENDING


def is_own(file: Path) -> bool:
    """Return whether a zip was made here, and not changed since."""
    if not re.fullmatch(r"[0-9a-f]{32}\.zip", file.name):
        return False
    with file.open("rb") as stream:
        return name_of(hashlib.file_digest(stream, "sha256").hexdigest()) == file.name
