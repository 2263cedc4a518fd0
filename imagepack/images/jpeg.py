"""What a JPEG's segments say: faults in its header that can be mended, its coding, and holes among its pixels."""

import simplejpeg

from imagepack.images.containers import JPEG_ALONE, JPEG_BEGINS, JPEG_END, JPEG_MARKER, JPEG_SCAN, end_of, jpeg_segments

HUFFMAN_TABLES, APP2, FILL, END = 0xC4, 0xE2, 0xFF, b"\xff\xd9"
MPF, ICC = b"MPF\0", b"ICC_PROFILE\0"
MOST_ZEROS = 8
"""Bytes between two parts of a header; more are a hole."""
SEQUENTIAL, PROGRESSIVE, ARITHMETIC = {0xC0, 0xC1}, 0xC2, {0xC9, 0xCA}
RARE = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}
"""Lossless or hierarchical."""
HOLE = bytes(256)
"""Longer than what refines a progressive picture: libjpeg writes up to 1,000 bits, which may all be zero, behind one
symbol."""


def mend_header(data: bytes) -> tuple[bytes, str]:
    """Return a JPEG without what libjpeg warns of before its pixels, though those are whole; and what that was.

    A colour profile of which a part is missing, which no program uses, is left out, and so are zeros between two parts.
    Any other file is returned as it is, with an empty text.
    """
    if not data.startswith(JPEG_BEGINS):
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
        if kind in (JPEG_SCAN, JPEG_END, FILL, *JPEG_ALONE):
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == APP2 and data.startswith(ICC, at + 4) and end - at >= 4 + len(ICC) + 2:
            profile.append(len(parts))
        parts.append(data[at:end])
        at = end
    numbers = sorted(tuple(parts[index][4 + len(ICC) :][:2]) for index in profile)
    if numbers != [(number, len(profile)) for number in range(1, len(profile) + 1)]:
        wrong.append("a colour profile that is incomplete")
        parts = [part for index, part in enumerate(parts) if index not in profile]
    return (b"".join([*parts, data[at:]]), "; ".join(wrong)) if wrong else (data, "")


def with_end(data: bytes) -> bytes:
    """Return a JPEG that lacks nothing but its end marker with it, since Pillow insists on it; any other as it is."""
    if not data.startswith(JPEG_BEGINS) or data.endswith(END) or end_of(data, "JPEG") is not None:
        return data
    if not is_one_scan(data):
        return data
    whole = data.removesuffix(b"\xff") + END
    try:
        simplejpeg.decode_jpeg(whole, "GRAY", strict=True)
    except ValueError:
        return data
    return whole


def mpf_origin(data: bytes) -> int:
    """Return from where a phone's JPEG counts the offsets of its further pictures; 0 for any other."""
    starts = (start for kind, start, _ in jpeg_segments(data) if kind == APP2)
    return next((start + len(MPF) for start in starts if data.startswith(MPF, start)), 0)


def is_rare(data: bytes) -> bool:
    """Return whether it is coded as hardly any program reads: lossless or hierarchical."""
    return any(kind in RARE for kind, *_ in jpeg_segments(data))


def is_huffman(data: bytes) -> bool:
    """Return whether it is sequential or progressive, coded by Huffman, as nearly all are."""
    frames = SEQUENTIAL | RARE | ARITHMETIC | {PROGRESSIVE}
    first = next((kind for kind, *_ in jpeg_segments(data) if kind in frames), None)
    return first in SEQUENTIAL or first == PROGRESSIVE


def is_one_scan(data: bytes) -> bool:
    """Return whether its one scan holds the whole picture: of several, the last could be missing unnoticed."""
    starts = {}
    for kind, start, _ in jpeg_segments(data):
        if kind in starts and kind == JPEG_SCAN:
            return False
        starts[kind] = start
    if JPEG_SCAN not in starts or not (frame := starts.keys() & SEQUENTIAL):
        return False
    return data[starts[JPEG_SCAN]] == data[starts[frame.pop()] + 5]  # colour components, in scan and in picture


def zeros(data: bytes) -> int:
    """Return the offset of a run of zeros among the compressed pixels that no encoder writes; 0 if there is none.

    A hole in a file reads as zeros, and decoders may find their way back behind it without a warning. An encoder
    writes zeros for blocks of one tone, and only with Huffman tables in which the code of nothing but zeros stands
    for "no difference" and "end of block", both symbol 0; the first symbol of a table is what that code stands for.
    In the scans of a progressive file behind those of the mean values, it writes one symbol for many such blocks.
    """
    if HOLE not in data:
        return 0
    zeros_are_flat, progressive = True, False
    for kind, start, end in jpeg_segments(data):
        if kind == HUFFMAN_TABLES:
            at = start
            while at + 17 < end:
                zeros_are_flat &= data[at + 17] == 0
                at += 17 + sum(data[at + 1 : at + 17])
        elif kind in RARE | ARITHMETIC or kind == JPEG_END:
            return 0
        elif kind == PROGRESSIVE:
            progressive = True
        elif kind == JPEG_SCAN:
            of_means = data[start + 1 + 2 * data[start]] == 0
            behind = JPEG_MARKER.search(data, end)
            at = data.find(HOLE, end, behind.start() if behind else len(data))
            if at > 0 and (not of_means if progressive else not zeros_are_flat):
                return at
    return 0
