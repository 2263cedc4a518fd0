"""How a file is put together: damage that decoders pass over, and where the image ends inside it."""

import re
import zlib
from collections.abc import Iterator

from imagepack.images import boxes

JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""Neither a stuffed zero nor a restart marker, so it is found inside pixels too."""
JPEG_ALONE, JPEG_END = (0x01, 0xD8), 0xD9
"""Markers that no length follows."""
JPEG_SCAN, JPEG_TABLES, JPEG_APP2, MPF, ICC = 0xDA, 0xC4, 0xE2, b"MPF\0", b"ICC_PROFILE\0"
MOST_ZEROS = 8
"""Bytes between two parts of a JPEG's header; more are a hole."""
JPEG_SEQUENTIAL, JPEG_PROGRESSIVE, JPEG_ARITHMETIC = {0xC0, 0xC1}, 0xC2, {0xC9, 0xCA}
JPEG_RARE = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
"""Lossless or hierarchical."""
HOLE = bytes(256)
"""Longer than what refines a progressive picture: libjpeg writes up to 1,000 bits, which may all be zero, behind one
symbol."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG's passes: first column and row, steps between columns and rows."""
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
GIF_FRAME, GIF_END = ord(","), ord(";")
AT_ONCE = 1 << 20


def end_of(data: bytes, form: str) -> int | None:
    """The offset behind the image; None where its end marker is missing. Of BMP and TIFF, which have none, the file's.

    Args:
        data: a file that decodes.
        form: its format, a key of images.EXTENSIONS.
    """
    match form:
        case "JPEG":
            return _end_of_jpeg(data)
        case "PNG":
            return next((end for kind, _, end in _png_chunks(data) if kind == b"IEND"), None)
        case "GIF":
            return _end_of_gif(data)
        case "WEBP":
            end = 8 + int.from_bytes(data[4:8], "little")
            return end if end <= len(data) else None
        case "AVIF" | "HEIF" | "JXL":
            return boxes.end_of(data) or len(data)
        case _:
            return len(data)


def _end_of_jpeg(data: bytes) -> int | None:
    return next((end for kind, _, end in jpeg_markers(data) if kind == JPEG_END), None)


def mend_jpeg_header(data: bytes) -> tuple[bytes, str]:
    """A JPEG without what libjpeg warns of before its pixels, though those are whole; and what that was.

    A colour profile of which a part is missing, which no program uses, is left out, and so are zeros between two parts.
    Any other file is returned as it is, with an empty text.
    """
    if not data.startswith(b"\xff\xd8"):
        return data, ""
    parts, profile, wrong, at = [data[:2]], [], [], 2
    while True:
        start = at
        while data[at : at + 1] == b"\0":
            at += 1
        if at > start:
            wrong.append(f"{at - start} bytes of zeros in its header, at byte {start}")
        kind = data[at + 1] if data[at : at + 1] == b"\xff" and at + 4 <= len(data) else JPEG_SCAN
        if at - start > MOST_ZEROS or (kind in JPEG_ALONE and at > start):
            return data, ""
        if kind in (JPEG_SCAN, JPEG_END, 0xFF, *JPEG_ALONE):  # 0xFF fills
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == JPEG_APP2 and data.startswith(ICC, at + 4) and end - at >= 4 + len(ICC) + 2:
            profile.append(len(parts))
        parts.append(data[at:end])
        at = end
    numbers = sorted(tuple(parts[index][4 + len(ICC) :][:2]) for index in profile)
    if numbers != [(number, len(profile)) for number in range(1, len(profile) + 1)]:
        wrong.append("a colour profile that is incomplete")
        parts = [part for index, part in enumerate(parts) if index not in profile]
    return (b"".join([*parts, data[at:]]), "; ".join(wrong)) if wrong else (data, "")


def origin_of_mpf(data: bytes) -> int:
    """From where a phone's JPEG counts the offsets of its further pictures; 0 of any other."""
    starts = (start + 2 for kind, start, _ in jpeg_markers(data) if kind == JPEG_APP2)
    return next((start + len(MPF) for start in starts if data.startswith(MPF, start)), 0)


def is_rare_jpeg(data: bytes) -> bool:
    """Whether a JPEG is of one of the processes that hardly any program reads: lossless, hierarchical."""
    return any(kind in JPEG_RARE for kind, *_ in jpeg_markers(data))


def is_huffman_jpeg(data: bytes) -> bool:
    """Whether a JPEG is sequential or progressive, coded by Huffman, as nearly all are."""
    frames = JPEG_SEQUENTIAL | JPEG_RARE | JPEG_ARITHMETIC | {JPEG_PROGRESSIVE}
    first = next((kind for kind, *_ in jpeg_markers(data) if kind in frames), None)
    return first in JPEG_SEQUENTIAL or first == JPEG_PROGRESSIVE


def is_one_scan_jpeg(data: bytes) -> bool:
    """Whether all of the picture is in the one scan that is there: where there are to be more, nobody misses them."""
    parts = {}
    for kind, start, _ in jpeg_markers(data):
        if kind in parts and kind == JPEG_SCAN:
            return False
        parts[kind] = start
    if JPEG_SCAN not in parts or not (frame := parts.keys() & JPEG_SEQUENTIAL):
        return False
    return data[parts[JPEG_SCAN] + 2] == data[parts[frame.pop()] + 7]  # colour components, in scan and in picture


def zeros_in_jpeg(data: bytes) -> int:
    """The offset of a run of zeros among the compressed pixels that no encoder writes; 0 if there is none.

    A hole in a file reads as zeros, and decoders may find their way back behind it without a warning. An encoder
    writes zeros for blocks of one tone, and only with Huffman tables in which the code of nothing but zeros stands
    for "no difference" and "end of block", both symbol 0; the first symbol of a table is what that code stands for.
    In the scans of a progressive file behind those of the mean values, it writes one symbol for many such blocks.
    """
    if HOLE not in data:
        return 0
    zeros_are_flat, progressive = True, False
    for kind, start, end in jpeg_markers(data):
        if kind == JPEG_TABLES:
            at = start + 2
            while at + 17 < end:
                zeros_are_flat &= data[at + 17] == 0
                at += 17 + sum(data[at + 1 : at + 17])
        elif kind in JPEG_RARE | JPEG_ARITHMETIC or kind == JPEG_END:
            return 0
        elif kind == JPEG_PROGRESSIVE:
            progressive = True
        elif kind == JPEG_SCAN:
            of_means = data[start + 3 + 2 * data[start + 2]] == 0
            behind = JPEG_MARKER.search(data, end)
            at = data.find(HOLE, end, behind.start() if behind else len(data))
            if at > 0 and (not of_means if progressive else not zeros_are_flat):
                return at
    return 0


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Number of each marker, and the offsets where what belongs to it begins and ends."""
    at = 2
    while marker := JPEG_MARKER.search(data, at):
        at, kind = marker.end(), marker[1][0]
        start = at
        if kind not in (*JPEG_ALONE, JPEG_END):
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        yield kind, start, at


def _end_of_gif(data: bytes) -> int | None:
    return next((end for kind, _, end in gif_blocks(data) if kind == GIF_END), None)


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """First byte of each block of a GIF, and the offsets where it begins and ends, up to the end marker."""
    at = 13 + gif_palette(data[10])
    while at < len(data):
        start, kind = at, data[at]
        at += 1
        if kind == GIF_END:
            yield kind, start, at
            return
        if kind == GIF_FRAME:
            at += 10 + (gif_palette(data[at + 8]) if at + 8 < len(data) else 0)
        elif kind == ord("!"):
            at += 1
        else:
            continue  # decoders pass over what is neither
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        yield kind, start, at


def gif_palette(flags: int) -> int:
    """Bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Kind, content and the offset behind, of each chunk that is there in full."""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], view[at + 8 : end - 4], end
        at = end


def missing_webp_bytes(data: bytes) -> int:
    """How many bytes a WebP lacks of the length that it gives; 0 for any other file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0
    return max(0, 8 + int.from_bytes(data[4:8], "little") - len(data))


def damaged_png_chunk(data: bytes) -> str:
    """The name of the first chunk that bears on the pixels and has a wrong checksum, which Pillow does not look at."""
    for kind, content, end in _png_chunks(data):
        if kind in PNG_PIXELS and zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
            return kind.decode()
    return ""


def missing_png_bytes(data: bytes) -> int:
    """How many bytes of pixels a PNG that decodes lacks: decoders leave rows that are not there black, and say nothing.

    Inflates the pixels once more, in steps of a mebibyte.
    """
    chunks = list(_png_chunks(data))
    header = bytes(chunks[0][1])
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits, channels, interlaced = header[8], PNG_CHANNELS[header[9]], header[12]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for column, row, across, down in passes:
        columns, rows = -((column - width) // across), -((row - height) // down)
        wanted += rows * (1 + (columns * bits * channels + 7) // 8) if columns > 0 and rows > 0 else 0
    inflater, found = zlib.decompressobj(), 0
    for kind, content, _ in chunks:
        if kind == b"IDAT":
            found += len(inflater.decompress(content, AT_ONCE))
            while inflater.unconsumed_tail and found < wanted:
                found += len(inflater.decompress(inflater.unconsumed_tail, AT_ONCE))
    return max(0, wanted - found)
