"""TIFF files: those that Pillow does not read or shows wrongly, and damage that it passes over."""

import contextlib
import struct
import zlib
from collections.abc import Iterator, Mapping

import simplejpeg
from PIL import Image

from imagepack.images import damage, jpeg
from imagepack.images.containers import Tiff
from imagepack.images.damage import EARLY, INFLATED_A_STEP, LATE
from imagepack.images.faults import Fault

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, ROWS, PLANAR = (
    *(256, 257, 258, 259, 262, 266, 277, 278, 284),
)
TILE_WIDTH, TILE_HEIGHT, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = 322, 323, 338, 339, 347
STRIPS, TILES = (273, 279), (324, 325)
"""Tags; the last two: where the parts are, and how many bytes they have."""
RAW, LZW, DEFLATE, PACKBITS, JPEG = 1, 5, (8, 32946), 32773, 7
"""Values of COMPRESSION."""
UNREAD = {
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG, as in DNG",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL, as in DNG",
}
"""Values of COMPRESSION that Pillow does not know, or not in its wheels."""
APART = 2
"""Value of PLANAR: each channel is stored by itself."""
SIGNED = 2
"""Value of SAMPLE_FORMAT."""
YCBCR = 6
"""Value of PHOTOMETRIC."""
REVERSED, REVERSE = 2, bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""A value of FILL_ORDER, and each byte with its bits the other way round."""
MOST_IN_STRIP = 3 * 2**25
"""A strip by LZW of more bytes is not decoded a second time, which could need more memory than the first."""
LZW_END, MARK = 257, 0xA5
"""The last code, which is also the code for "clear" plus 1; and any byte."""

Tags = Mapping[int, object]
"""Values of a page, by tag, as Pillow has them."""


def first_tags(data: bytes) -> dict[int, int]:
    """Return the first number of each value of the first page, by tag; none where they cannot be read."""
    with contextlib.suppress(ValueError, struct.error):
        tiff = Tiff(data)
        entries, _ = tiff.directory(tiff.first)
        return {entry.tag: value for entry in entries for value in tiff.numbers(entry, 1)}
    return {}


def why_unread(tags: Tags) -> str:
    """Return why Pillow does not read a TIFF that may be whole; empty where that is not known."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO  # registers its format with Pillow

    method, channels = tags.get(COMPRESSION, RAW), tags.get(SAMPLES, 1)
    if method in UNREAD or method not in COMPRESSION_INFO:
        return f"TIFF compressed by {UNREAD.get(method, f'method {method}')}"
    return f"TIFF whose {channels} channels are stored apart" if tags.get(PLANAR) == APART and channels > 3 else ""


def needs_libtiff(tags: Tags) -> bool:
    """Return whether it is uncompressed and has planes of which Pillow's own decoder makes noise: not of 8 bits."""
    apart = tags.get(PLANAR, 1) == APART and tags.get(COMPRESSION, RAW) == RAW
    return apart and (tags.get(SAMPLES, 1) == 1 or max(tags.get(BITS, (1,))) != 8)


def choose_libtiff(image: Image.Image) -> None:
    """Have libtiff decode a page that is open and not yet decoded."""
    from PIL import TiffImagePlugin

    TiffImagePlugin.READ_LIBTIFF = True
    try:
        image._setup()
    finally:
        TiffImagePlugin.READ_LIBTIFF = False


def has_untagged_band(image: Image.Image) -> bool:
    """Return whether a TIFF has a fourth band and no tag that says what it is: transparency, infrared, or nothing."""
    return image.format == "TIFF" and image.mode == "RGBA" and EXTRA_SAMPLES not in image.tag_v2


def require_plain(image: Image.Image) -> None:
    """Refuse a TIFF without all its rows, and one whose numbers do not mean 0 for black to 255 or 65535 for white."""
    tags = image.tag_v2
    strips, rows = tags.get(STRIPS[0], ()), tags.get(ROWS, image.height)
    if strips and rows and len(strips) * rows < tags.get(HEIGHT, image.height):
        raise Fault("truncated", f"has {len(strips) * rows} of {tags[HEIGHT]} rows")
    if SIGNED in tags.get(SAMPLE_FORMAT, (1,)):
        raise Fault("unsupported_variant", "TIFF of signed numbers")
    bits, photometric = tags.get(BITS, (16,)), tags.get(PHOTOMETRIC, 1)
    if image.mode.startswith("I;16") and (bits != (16,) or photometric != 1):
        white = ", white as 0" if photometric == 0 else ""
        raise Fault("unsupported_variant", f"grey TIFF of {bits[0]} bits{white}")
    by_libtiff = tags.get(COMPRESSION, RAW) != RAW or needs_libtiff(tags)
    if by_libtiff and tags.get(PLANAR, 1) == APART and has_untagged_band(image):  # Pillow divides colours by it
        raise Fault("unsupported_variant", "TIFF of planes, the fourth without a tag (ExtraSamples)")


def damage_in(data: bytes, tags: Tags) -> str:
    """Return what is wrong with a strip or tile by deflate, LZW, PackBits or JPEG; empty where nothing is.

    Deflate has a checksum that Pillow does not look at.

    Args:
        data: the whole file.
        tags: of a page that decodes.
    """
    compression = tags.get(COMPRESSION)
    if compression not in (*DEFLATE, LZW, PACKBITS, JPEG):
        return ""
    for number, part, shape in _parts(data, tags):
        if tags.get(FILL_ORDER) == REVERSED and compression != JPEG:
            part = part.translate(REVERSE)
        if compression in DEFLATE:
            wrong = _in_deflated(part)
        elif compression == JPEG:
            wrong = _in_jpeg(tags[JPEG_TABLES][:-2] + part[2:] if JPEG_TABLES in tags else part)
        elif tags.get(PHOTOMETRIC) == YCBCR:
            return ""  # colours in blocks: bytes a row do not follow from the width
        else:
            wrong = (_in_lzw if compression == LZW else _in_packbits)(part, *shape)
        if wrong:
            return f"part {number}: {wrong}"
    return ""


def _parts(data: bytes, tags: Tags) -> Iterator[tuple[int, bytes, tuple[int, int, int]]]:
    """Yield the number of each strip or tile, its bytes, and its shape: bytes a row, rows, and rows of a full one."""
    offsets, sizes = next((tags.get(at, ()), tags.get(size, ())) for at, size in (TILES, STRIPS) if at in tags)
    bits, planes = tags.get(BITS, (1,)), tags.get(SAMPLES, 1) if tags.get(PLANAR) == APART else 1
    height, rows = tags[HEIGHT], max(1, min(tags[HEIGHT], tags.get(ROWS, tags[HEIGHT])))
    width, tiled = tags[WIDTH], TILES[0] in tags
    if tiled:
        width, height, rows = tags[TILE_WIDTH], tags[TILE_HEIGHT], tags[TILE_HEIGHT]
    of_plane = -(-height // rows)
    depth = bits[0] if planes > 1 else bits[0] * tags.get(SAMPLES, 1)
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=False)):
        here = rows if tiled else min(rows, height - number % of_plane * rows)
        yield number, data[offset : offset + size], (-(-width * depth // 8), here, rows)


def _in_deflated(part: bytes) -> str:
    inflater = zlib.decompressobj()
    try:
        while not inflater.eof and inflater.decompress(part, INFLATED_A_STEP):
            part = inflater.unconsumed_tail
    except zlib.error as error:
        return str(error)
    return "" if inflater.eof else "ends too early"


def _in_jpeg(part: bytes) -> str:
    for colours in ("GRAY", "CMYK"):  # without a conversion of colours, which not every kind of picture has
        try:
            simplejpeg.decode_jpeg(part, colours, strict=True)
        except ValueError as error:
            words = str(error)
            if "corrupt jpeg data" in words.lower() or "premature end" in words.lower():
                return words
        else:
            at = jpeg.zeros(part)
            return f"zeros where there should be pixels, at its byte {at}" if at else ""
    return ""


def _in_packbits(part: bytes, columns: int, rows: int, full_rows: int) -> str:
    """Check that the lengths in its packets add up; some writers fill the last part up to the rows of the others."""
    at, found = 0, 0
    while at + 1 < len(part):  # one byte alone fills up to an even number
        length = part[at]
        if length < 128:
            at, found = at + length + 2, found + length + 1
        elif length > 128:
            at, found = at + 2, found + 257 - length
        else:
            at += 1  # nothing
    if at <= len(part) and found in (columns * rows, columns * full_rows):
        return ""
    return EARLY if found > columns * rows else LATE


def _in_lzw(part: bytes, columns: int, rows: int, full_rows: int) -> str:
    """Check a part that decodes: it is decoded once more, with a byte more that stands for its end.

    Not by leaving out the end, of which libtiff would complain on the terminal.
    """
    marked = _marked(part) if columns * full_rows <= MOST_IN_STRIP else b""
    for count in (rows, full_rows) if marked else ():
        image = damage.try_decode(_grey_tiff(marked, columns * count + 1))
        if image is None or image.getpixel((columns * count, 0)) == MARK:
            return ""
    return EARLY if marked else ""


def _marked(part: bytes) -> bytes:
    """Return pixels by LZW with MARK before the end; nothing where that is not found, or of the old kind of LZW.

    The code for the end has as many bits as those before it, or 9 behind the code for "clear".
    """
    tail = int.from_bytes(part[-4:], "big")
    behind = (tail & -tail).bit_length() - 1  # bits that fill the last byte
    codes = tail >> max(0, behind)
    if len(part) < 4 or codes & 0x1FF != LZW_END or (part[0] == 0 and part[1] & 1):
        return b""
    codes = ((codes - 1) << 9 | MARK) << 9 | LZW_END
    bits = 32 - behind + 18
    return part[:-4] + (codes << -bits % 8).to_bytes((bits + 7) // 8, "big")


def _grey_tiff(part: bytes, pixels: int) -> bytes:
    """Return a TIFF of one row of pixels by LZW."""
    tags = {WIDTH: pixels, HEIGHT: 1, BITS: 8, COMPRESSION: LZW, PHOTOMETRIC: 1}
    tags |= {STRIPS[0]: 8 + 2 + 9 * 12 + 4, SAMPLES: 1, ROWS: 1, STRIPS[1]: len(part)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + part
