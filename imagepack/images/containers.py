"""The parts of which image files are made: one walker for each container format, and where the image ends.

A walker yields (kind, start, end) for each part, in the file's order; the part's content is data[start:end]. Files come
from other people: every length is checked, every loop is bounded, and what is not there in full is left out. Boxes, of
which AVIF, HEIC and JPEG XL are made, are in boxes.py.

Sources: JPEG (ITU-T T.81), PNG (third edition), the WebP container specification, GIF89a, TIFF 6.0.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from imagepack.images import boxes

JPEG_BEGINS, PNG_BEGINS = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
TIFF_BEGINS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""Neither a stuffed zero nor a restart marker, so it is found inside pixels too."""
JPEG_ALONE, JPEG_END = (0x01, 0xD8), 0xD9
"""Markers that no length follows."""
JPEG_SCAN = 0xDA
GIF_FRAME, GIF_EXTENSION, GIF_END = b",!;"
TYPE_BYTES = dict.fromkeys((1, 2, 6, 7, 129), 1) | dict.fromkeys((3, 8), 2) | dict.fromkeys((4, 9, 11, 13), 4)
TYPE_BYTES |= dict.fromkeys((5, 10, 12, 16, 17, 18), 8)
"""Bytes of one number, by its type in a TIFF."""
UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of whole numbers without a sign, as `struct` has them."""
MOST_ENTRIES = 100_000
"""Entries of a TIFF's directory that are read."""


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each marker, and where the content of its segment is; a marker alone has none."""
    at = 2
    while marker := JPEG_MARKER.search(data, at):
        start = at = marker.end()
        kind = marker[1][0]
        if kind not in (*JPEG_ALONE, JPEG_END):
            start, at = at + 2, at + max(2, int.from_bytes(data[at : at + 2], "big"))
        yield kind, start, at


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk up to IEND; its length and kind are the 8 bytes before `start`, its checksum the 4 behind."""
    start = 16
    while start + 4 <= len(data):
        kind, end = data[start - 4 : start], start + int.from_bytes(data[start - 8 : start - 4], "big")
        if end + 4 > len(data):
            return
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end + 12


def is_webp(data: bytes) -> bool:
    """Return whether a file begins as a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def webp_size(data: bytes) -> int:
    """Return how many bytes a WebP says it has."""
    return 8 + int.from_bytes(data[4:8], "little")


def webp_chunks(data: bytes, start: int = 12, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk of a WebP, or of the part of it from `start` to `stop`; padding stands behind an odd length."""
    stop = min(len(data), webp_size(data)) if stop is None else stop
    while start + 8 <= stop:
        kind, start, size = data[start : start + 4], start + 8, int.from_bytes(data[start + 4 : start + 8], "little")
        if start + size > stop:
            return
        yield kind, start, start + size
        start += size + size % 2


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the first byte of each block, and where the rest of it is, up to the end marker."""
    at = 13 + gif_palette(data[10])
    while at < len(data):
        kind, start = data[at], at + 1
        at = start
        if kind == GIF_END:
            yield kind, start, at
            return
        if kind == GIF_FRAME:
            at += 9 + (gif_palette(data[at + 8]) if at + 8 < len(data) else 0) + 1
        elif kind == GIF_EXTENSION:
            at += 1
        else:
            continue  # decoders pass over what is neither
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        yield kind, start, at


def gif_palette(flags: int) -> int:
    """Return how many bytes a palette has, from the flags before it."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


class Entry(NamedTuple):
    """An entry of a TIFF's directory: where its value is, and how many bytes that has; 0 where its type is unknown."""

    tag: int
    kind: int
    count: int
    start: int
    size: int


class Tiff:
    """The directories of a TIFF file, or of EXIF, which is one without pixels.

    Attributes:
        data: the file.
        first: offset of the first directory.
        count, entry, offset: how numbers stand in it.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
        version = struct.unpack_from(order + "H", data, 2)[0] if order and len(data) >= 16 else 0
        if version not in (42, 43):
            raise ValueError("no TIFF")
        self.data, self.order, self.is_big = data, order, version == 43
        counts, numbers = ("Q", "Q") if self.is_big else ("H", "I")
        self.count, self.offset = struct.Struct(order + counts), struct.Struct(order + numbers)
        self.entry = struct.Struct(f"{order}HH{numbers}{self.offset.size}s")
        self.first = self.offset.unpack_from(data, 8 if self.is_big else 4)[0]

    def directory(self, at: int) -> tuple[list[Entry], int]:
        """Return the entries at this offset, as far as they are there, and where the next directory is; 0: nowhere."""
        if not 0 < at <= len(self.data) - self.count.size:
            return [], 0
        begin = at + self.count.size
        wanted = self.count.unpack_from(self.data, at)[0]
        number = min(wanted, (len(self.data) - begin) // self.entry.size, MOST_ENTRIES)
        end = begin + number * self.entry.size
        entries, width = [], self.offset.size
        value_at = begin + self.entry.size - width
        for tag, kind, count, value in self.entry.iter_unpack(self.data[begin:end]):
            size = TYPE_BYTES.get(kind, 0) * count
            start = value_at if size <= width else self.offset.unpack(value)[0]
            entries.append(Entry(tag, kind, count, start, size if start + size <= len(self.data) else 0))
            value_at += self.entry.size
        is_whole = number == wanted and end + width <= len(self.data)
        return entries, self.offset.unpack_from(self.data, end)[0] if is_whole else 0

    def value(self, entry: Entry, most: int | None = None) -> bytes:
        """Return the value as it stands in the file; at most the first `most` bytes."""
        size = entry.size if most is None else min(entry.size, most)
        return bytes(self.data[entry.start : entry.start + size])

    def numbers(self, entry: Entry, most: int | None = None) -> tuple[int, ...]:
        """Return at most `most` whole numbers without a sign; nothing where the value is of another type."""
        letter = UNSIGNED.get(entry.kind)
        if not letter or not entry.size:
            return ()
        count = entry.count if most is None else min(entry.count, most)
        return struct.unpack_from(f"{self.order}{count}{letter}", self.data, entry.start)


def end_of(data: bytes, form: str) -> int | None:
    """Return the offset behind the image; None where its end is missing; the file's end where the format has no mark.

    Args:
        data: a file that decodes.
        form: its format, a key of formats.EXTENSIONS.
    """
    match form:
        case "JPEG":
            return next((end for kind, _, end in jpeg_segments(data) if kind == JPEG_END), None)
        case "PNG":
            return next((end + 4 for kind, _, end in png_chunks(data) if kind == b"IEND"), None)
        case "GIF":
            return next((end for kind, _, end in gif_blocks(data) if kind == GIF_END), None)
        case "WEBP":
            return webp_size(data) if webp_size(data) <= len(data) else None
        case "AVIF" | "HEIF" | "JXL":
            return boxes.end_of(data) or len(data)
        case _:
            return len(data)


def missing_webp_bytes(data: bytes) -> int:
    """Return how many bytes a WebP lacks of the length that it gives; 0 for any other file."""
    return max(0, webp_size(data) - len(data)) if is_webp(data) else 0
