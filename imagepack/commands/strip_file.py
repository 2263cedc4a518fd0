"""A picture file without its metadata: its parts are copied as they stand, and nothing is encoded again.

What stays is what bears on the pixels: the picture's own data, size, palette, transparency, colour profile and
colour space, resolution, frames of an animation, and the orientation, which gets an EXIF block of its own. All else
goes: EXIF, XMP, IPTC, comments, text, dates, previews, and what stands behind the image. What is not known goes too,
since nobody can say what it holds.
"""

import struct
from collections.abc import Iterator

from imagepack.images import containers, png
from imagepack.images.containers import Entry, Tiff

JPEG_APPLICATION, JPEG_COMMENT = range(0xE0, 0xF0), 0xFE
JPEG_JFIF, JPEG_PROFILE, JPEG_ADOBE = (0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe")
JFIF_BYTES = 16
"""Bytes of the segment without its preview, with the two of its length."""
PNG_KEPT = (
    *(b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi"),
    *(b"sBIT", b"bKGD", b"hIST", b"sPLT", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
)
"""Kept beside those that every decoder must know, whose names begin with a capital."""
WEBP_KEPT = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP")
WEBP_EXIF, WEBP_XMP = 0x08, 0x04
"""Bits of VP8X that say that there is such a chunk."""
TIFF_STRIPS, TIFF_TILES = (273, 279), (324, 325)
TIFF_KEPT = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 274, 277, 278, 280, 281, 282, 283, 284),
    *(290, 291, 292, 293, 296, 297, 301, 317, 318, 319, 320, 321, 322, 323, 332, 334, 336, 338, 339),
    *(340, 341, 342, 347, 529, 530, 531, 532, 34675, *TIFF_STRIPS, *TIFF_TILES),
}
"""Tags that say how to read the pixels (TIFF 6.0), and the colour profile."""


class CannotStrip(Exception):
    """A file whose picture cannot be kept alone; says why."""


def without_metadata(data: bytes, orientation: int) -> bytes:
    """Return the file without its metadata.

    Args:
        data: a JPEG, PNG, WebP or TIFF that decodes.
        orientation: EXIF, 1 to 8, as it is read from `data`; what is returned has the same.

    Raises:
        CannotStrip: it is another file, or put together in a way that is not known here.
    """
    if data[4:8] == b"ftyp":
        raise CannotStrip("is an AVIF or HEIC, which is not taken apart here: save it again without its metadata")
    try:
        if data.startswith(containers.JPEG_BEGINS):
            return b"".join(_jpeg(data, orientation))
        if data.startswith(containers.PNG_BEGINS):
            return b"".join(_png(data, orientation))
        if data.startswith(b"RIFF"):
            return _webp(data, orientation)
        return _tiff(data)
    except (ValueError, struct.error, OverflowError) as error:
        raise CannotStrip(f"is put together in a way that is not known here ({error})") from None


def exif_of(orientation: int) -> bytes:
    """Return an EXIF block that says nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _jpeg(data: bytes, orientation: int) -> Iterator[bytes]:
    head, kept_from = [data[:2]], 2
    parts = []
    for kind, start, end in containers.jpeg_segments(data):
        if kind == containers.JPEG_END:
            parts.append(data[kept_from:end])
            break
        if kind != JPEG_COMMENT and kind not in JPEG_APPLICATION:
            continue
        segment = data[start - 4 : end]
        parts.append(data[kept_from : start - 4])
        kept_from = end
        if _is(segment, JPEG_JFIF):
            head.append(_without_preview(segment))
        elif _is(segment, JPEG_PROFILE) or _is(segment, JPEG_ADOBE):
            parts.append(segment)
    else:
        parts.append(data[kept_from:])
    yield from head
    if orientation != 1:
        block = b"Exif\0\0" + exif_of(orientation)
        yield b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block
    yield from parts


def _is(segment: bytes, known: tuple[int, bytes]) -> bool:
    """Return whether a segment is of this kind, and its content begins so."""
    return segment[1] == known[0] and segment.startswith(known[1], 4)


def _without_preview(jfif: bytes) -> bytes:
    """Return a JFIF segment without its preview, which may show what was cut away from the picture."""
    if len(jfif) < 2 + JFIF_BYTES:
        return jfif
    return jfif[:2] + struct.pack(">H", JFIF_BYTES) + jfif[4:JFIF_BYTES] + b"\0\0"


def _png(data: bytes, orientation: int) -> Iterator[bytes]:
    yield data[:8]
    for kind, start, end in containers.png_chunks(data):
        chunk = data[start - 8 : end + 4]
        if kind == b"IHDR":
            yield chunk
            if orientation != 1:
                yield png.chunk(b"eXIf", exif_of(orientation))
        elif kind[:1].isupper() or kind in PNG_KEPT:
            yield chunk


def _webp(data: bytes, orientation: int) -> bytes:
    parts = []
    for kind, start, end in containers.webp_chunks(data):
        chunk = data[start - 8 : end + (end - start) % 2]
        if kind == b"VP8X":
            flags = chunk[8] & ~(WEBP_EXIF | WEBP_XMP) | (WEBP_EXIF if orientation != 1 else 0)
            parts.append(chunk[:8] + bytes([flags]) + chunk[9:])
        elif kind in WEBP_KEPT:
            parts.append(chunk)
    if orientation != 1:
        block = exif_of(orientation)
        parts.append(b"EXIF" + struct.pack("<I", len(block)) + block)
    content = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _tiff(data: bytes) -> bytes:
    """Return a TIFF in which what is kept stays where it is, so that no offset changes; other bytes become zeros."""
    tiff, out = Tiff(data), bytearray(len(data))
    kept, directories = [(0, 16 if tiff.is_big else 8)], []
    at, seen = tiff.first, set()
    while at and at not in seen:
        seen.add(at)
        entries, following = tiff.directory(at)
        directories.append((at, *_directory(tiff, at, entries, following)))
        kept += _kept(tiff, entries)
        at = following
    for start, end in kept:
        out[start:end] = data[start:end]
    for start, whole, old_size in directories:
        out[start : start + old_size] = whole.ljust(old_size, b"\0")
        kept.append((start, start + len(whole)))
    return bytes(out[: max(end for _, end in kept)])


def _directory(tiff: Tiff, at: int, entries: list[Entry], following: int) -> tuple[bytes, int]:
    """Return a directory of the entries that are kept, and how many bytes the old one has."""
    begin, width = at + tiff.count.size, tiff.entry.size
    kept = [begin + number * width for number, entry in enumerate(entries) if entry.tag in TIFF_KEPT]
    parts = [tiff.count.pack(len(kept)), *(tiff.data[start : start + width] for start in kept)]
    return b"".join([*parts, tiff.offset.pack(following)]), begin + len(entries) * width + tiff.offset.size - at


def _kept(tiff: Tiff, entries: list[Entry]) -> Iterator[tuple[int, int]]:
    """Yield where the values of the entries that are kept stand, and the pixels."""
    by_tag = {entry.tag: entry for entry in entries}
    yield from ((entry.start, entry.start + entry.size) for entry in entries if entry.tag in TIFF_KEPT)
    found = [pair for pair in (TIFF_STRIPS, TIFF_TILES) if all(tag in by_tag for tag in pair)]
    if not found:
        raise CannotStrip("is a TIFF that does not say where its pixels begin and end")
    offsets, sizes = (tiff.numbers(by_tag[tag]) for tag in found[0])
    yield from ((start, min(start + size, len(tiff.data))) for start, size in zip(offsets, sizes, strict=True))
