"""The boxes of which AVIF, HEIC and some JPEG XL files are made: what they say, and what is missing.

Sources: ISO 14496-12 and 23008-12.
"""

import re
from collections.abc import Iterator

Box = tuple[bytes, int, int]
"""Kind, and the offsets at which what is in it begins and ends."""
AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
"""The last two are those of any picture in boxes; an AVIF says that it is one too."""
FIRST = {b"ftyp", b"JXL "}
"""Boxes with which a file begins."""
PICTURES = {b"av01", b"hvc1"}
"""Kinds of items that are compressed pixels."""
HOLE = bytes(256)
"""Encoders of AV1 write no such run: at most 7 zeros were seen, in pictures of one tone."""
UNIT_BEGINS = re.compile(rb"\0\0[\0-\2]")
"""Bytes that are in no unit of HEVC: an encoder puts a 3 between (ITU-T H.265, 7.3.1.1)."""
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions (ITU-T H.273) of pictures brighter than white."""


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes from `start` to `end`, up to the first that is none or is not there in full."""
    end = len(data) if end is None else end
    while (box := _box(data, start, end)) and box[2] <= end:
        yield box
        start = box[2]


def _box(data: bytes, at: int, end: int) -> Box | None:
    """Return the box that begins at `at`; it may say that it ends behind `end`."""
    size, kind, inside = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
    if size == 1:
        size, inside = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
    size = size or end - at  # 0: to the end
    if len(kind) < 4 or not kind.isascii() or not kind.decode().isprintable() or size < inside - at:
        return None
    return kind, inside, at + size


def brands(data: bytes) -> set[bytes]:
    """Return the kinds of file that `data` says it is; none where it does not begin as files of boxes do."""
    kind, start, end = next(boxes(data), (b"", 0, 0))
    parts = {data[at : at + 4] for at in range(start, end, 4)}
    return parts if kind == b"ftyp" else set()


def end_of(data: bytes) -> int:
    """Return the offset behind the last box of the file with which `data` begins."""
    last, seen = 0, set()
    for kind, _, end in boxes(data):
        if kind in seen & FIRST:
            break
        seen.add(kind)
        last = end
    return last


def missing_bytes(data: bytes) -> int:
    """Return how many bytes the last box lacks."""
    last = end_of(data)
    box = _box(data, last, len(data)) if last else None
    return max(0, box[2] - len(data)) if box else len(data) - last < 8 and last < len(data)


def damage(data: bytes) -> int:
    """Return the offset of the first bytes among compressed pixels that no encoder writes; 0 if there are none.

    In pictures alone: where the frames of a film are is not looked at.
    """
    lengths = {data[start + 21] & 3 for kind, start, _ in _properties(data) if kind == b"hvcC"}
    for kind, start, end in items(data, PICTURES):
        in_units = kind == b"hvc1" and lengths == {3}  # of four bytes, as all known writers have them
        at = _unit_damage(data, start, end) if in_units else data.find(HOLE, start, end)
        if at > 0:
            return at
    return 0


def _unit_damage(data: bytes, start: int, end: int) -> int:
    """Return the same for one picture of HEVC: its units follow their lengths, and hold no bytes that begin a unit."""
    while start < end:
        unit, start = start + 4, start + 4 + int.from_bytes(data[start : start + 4], "big")
        if start == unit or start > end:
            return unit - 4
        if begin := UNIT_BEGINS.search(data, unit, start):
            return begin.start()
    return 0


def bits(data: bytes) -> int:
    """Return the bits a channel of whichever picture in the file has the most, 8 or more."""
    most = 8
    for kind, start, end in _properties(data):
        if kind == b"pixi":
            most = max([most, *data[start + 5 : end]])
        elif kind == b"av1C" and end > start + 2 and data[start + 2] & 0x40:
            most = max(most, 12 if data[start + 2] & 0x20 else 10)
    return most


def hdr(data: bytes) -> str:
    """Return the name of the transfer function, if it is one of pictures brighter than white."""
    colours = (data[start : start + 8] for kind, start, _ in _properties(data) if kind == b"colr")
    transfers = [int.from_bytes(colour[6:8], "big") for colour in colours if colour[:4] == b"nclx"]
    return next((HDR[transfer] for transfer in transfers if transfer in HDR), "")


def _meta(data: bytes) -> list[Box]:
    """Return what is in the box that describes the pictures."""
    return [box for kind, start, end in boxes(data) if kind == b"meta" for box in boxes(data, start + 4, end)]


def _properties(data: bytes) -> list[Box]:
    """Return the properties of all pictures; which picture has which is not looked at."""
    inside = [box for kind, start, end in _meta(data) if kind == b"iprp" for box in boxes(data, start, end)]
    return [box for kind, start, end in inside if kind == b"ipco" for box in boxes(data, start, end)]


def items(data: bytes, wanted: set[bytes]) -> Iterator[Box]:
    """Yield the kind of each item that is `wanted`, and where each of its parts begins and ends."""
    kinds, places = {}, {}
    for kind, start, end in _meta(data):
        if kind == b"iinf":
            first = start + (6 if data[start] == 0 else 8)
            kinds = dict(_item(data, at) for name, at, _ in boxes(data, first, end) if name == b"infe")
        elif kind == b"iloc":
            places = dict(_locations(data, start))
    for item, extents in places.items():
        if kinds.get(item) in wanted:
            yield from ((kinds[item], *extent) for extent in extents)


def _item(data: bytes, at: int) -> tuple[int, bytes]:
    """Return number and kind of an item, whose entry has its content at `at`."""
    width = 2 if data[at] < 3 else 4
    return int.from_bytes(data[at + 4 : at + 4 + width], "big"), data[at + 6 + width : at + 10 + width]


def _locations(data: bytes, at: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield the number of each item and where its parts begin and end, if they are counted from the file's start."""

    def number(width: int) -> int:
        nonlocal at
        at += width
        return int.from_bytes(data[at - width : at], "big")

    version, sizes = data[at], data[at + 4 : at + 6]
    offset, length, base, index = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15
    at += 6
    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        at += 2
        begin = number(base)
        parts = []
        for _ in range(number(2)):
            at += index if version else 0
            start = begin + number(offset)
            parts.append((start, start + number(length)))
        if at > len(data):
            return
        if method == 0:
            yield item, parts
