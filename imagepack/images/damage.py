"""Damage in the middle of the pixels that decoders pass over, in formats without checksums.

A decoder cannot tell that its data went wrong: it goes on until it has all pixels. But a sound picture needs its data
to the end, and a damaged one mostly is complete before, or has more. So it is decoded once more, without its last bytes
or into more rows: workshop/benchmarks/damage.py measures how much is found, and that no sound file is called damaged.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import simplejpeg
from PIL import Image, ImageFile

from imagepack.images import file_structure

AT_ONCE = 1 << 20
"""Bytes."""
WEBP_REST = 8
"""Bytes without which no sound WebP decodes: libwebp was seen to need the last 4 of its lossy coder, 2 of the other."""
MOST_PIXELS, MOST_IN_STRIP = 2**25, 3 * 2**25
"""Pixels of a WebP, bytes of a strip by LZW: for more, decoding a second time could need more memory than the first."""
UNUSED = 255
"""Number of a colour that few GIFs have."""
LZW_END, MARK = 257, 0xA5
"""In a TIFF: the last code, which is also the code for "clear" plus 1; and any byte."""
TIFF_DEFLATE, TIFF_LZW, TIFF_PACKBITS, TIFF_JPEG = (8, 32946), 5, 32773, 7
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, ROWS, PLANAR, JPEG_TABLES = (
    *(256, 257, 258, 259, 262, 266, 277, 278, 284, 347),
)
TILE_WIDTH, TILE_HEIGHT, STRIPS, TILES = 322, 323, (273, 279), (324, 325)
"""Tags of TIFF; the last two: where the parts are, and how many bytes they have."""
YCBCR = 6
REVERSED, REVERSE = 2, bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""A fill order, and each byte with its bits the other way round."""
EARLY, LATE = "its pixels are complete before its data end", "its data end before its pixels are complete"


def frames(data: bytes, form: str) -> Iterator[Callable[[], str]]:
    """Of each frame of a WebP or GIF, what says what is wrong with it, or an empty text; of other formats nothing.

    Args:
        data: a file that decodes.
        form: its format, a key of images.EXTENSIONS.
    """
    if form == "WEBP":
        yield from (partial(_in_webp, chunks) for chunks in _webp_frames(data))
    elif form == "GIF":
        for kind, start, end in file_structure.gif_blocks(data):
            if kind == file_structure.GIF_FRAME:
                yield partial(_in_gif, data, start, end)


def _webp_frames(data: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """The chunks of each frame of an animation, or of the one picture."""
    chunks = list(_riff_chunks(data, 12))
    animated = [content for kind, content in chunks if kind == b"ANMF"]
    yield from (list(_riff_chunks(content, 16)) for content in animated) if animated else [chunks]


def _riff_chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk from offset `at`."""
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _in_webp(chunks: list[tuple[bytes, bytes]]) -> str:
    """Of a frame that decodes; transparency beside a lossy picture is a lossless one without a header."""
    size = b""
    for kind, content in reversed(chunks):  # transparency stands before the picture, whose size it has
        if kind == b"VP8 ":
            width, height = (int.from_bytes(content[at : at + 2], "little") - 1 & 0x3FFF for at in (6, 8))
            size = struct.pack("<BI", 0x2F, width | height << 14)
        elif kind == b"ALPH" and size and content[:1] and content[0] & 3 == 1:  # compressed
            kind, content = b"VP8L", size + content[1:]
        elif kind != b"VP8L":
            continue
        content = content[:-WEBP_REST]
        chunk = kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        if _decodes(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk):
            return EARLY
    return ""


def _in_gif(data: bytes, start: int, end: int) -> str:
    """Of the frame in these bytes: decoded into one row more than it has, the last of which must stay unused."""
    width, height, flags = struct.unpack_from("<HHB", data, start + 5)
    at = start + 10 + file_structure.gif_palette(flags)
    codes = data[at:end] + b"\0;"
    if not width or not height or height == 0xFFFF:
        return ""
    parser = ImageFile.Parser()
    try:
        with warnings.catch_warnings(action="ignore"):
            parser.feed(_gif_header(width, height + 1) + codes)
            parser.feed(b"")
    except OSError:
        return EARLY
    image = parser.image
    if image.crop((0, height, width, height + 1)).getextrema() != (UNUSED, UNUSED):
        return EARLY
    suspect = image.getpixel((width - 1, height - 1)) == UNUSED
    return LATE if suspect and not _decodes(_gif_header(width, height) + codes) else ""


def _gif_header(width: int, height: int) -> bytes:
    """What stands before the codes of a GIF of this size: all of it is of colour UNUSED before it is decoded."""
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\0\0\0!\xf9\4\1\0\0" + bytes([UNUSED]) + b"\0,\0\0\0\0" + size + b"\0"


def in_tiff(data: bytes, tags: Mapping[int, object]) -> str:
    """What is wrong with a strip or tile of a TIFF by deflate, LZW, PackBits or JPEG; empty where nothing is.

    Deflate has a checksum that Pillow does not look at.

    Args:
        data: the whole file.
        tags: of a page that decodes, by number.
    """
    compression = tags.get(COMPRESSION)
    if compression not in (*TIFF_DEFLATE, TIFF_LZW, TIFF_PACKBITS, TIFF_JPEG):
        return ""
    for number, part, shape in _tiff_parts(data, tags):
        if tags.get(FILL_ORDER) == REVERSED and compression != TIFF_JPEG:
            part = part.translate(REVERSE)
        if compression in TIFF_DEFLATE:
            wrong = _in_deflated(part)
        elif compression == TIFF_JPEG:
            wrong = _in_jpeg(tags[JPEG_TABLES][:-2] + part[2:] if JPEG_TABLES in tags else part)
        elif tags.get(PHOTOMETRIC) == YCBCR:
            return ""  # colours in blocks: bytes a row do not follow from the width
        else:
            wrong = (_in_lzw if compression == TIFF_LZW else _in_packbits)(part, *shape)
        if wrong:
            return f"part {number}: {wrong}"
    return ""


def _tiff_parts(data: bytes, tags: Mapping[int, object]) -> Iterator[tuple[int, bytes, tuple[int, int, int]]]:
    """Of each strip or tile its number, its bytes, and its shape: bytes a row, rows, and rows of a full one."""
    offsets, sizes = next((tags.get(at, ()), tags.get(size, ())) for at, size in (TILES, STRIPS) if at in tags)
    bits, planes = tags.get(BITS, (1,)), tags.get(SAMPLES, 1) if tags.get(PLANAR) == 2 else 1
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
        while not inflater.eof and inflater.decompress(part, AT_ONCE):
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
            at = file_structure.zeros_in_jpeg(part)
            return f"zeros where there should be pixels, at its byte {at}" if at else ""
    return ""


def _in_packbits(part: bytes, columns: int, rows: int, full_rows: int) -> str:
    """Whether the lengths in its packets add up; some writers fill the last part up to the rows of the others."""
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
    """As `_in_packbits`, of a part that decodes. It is decoded once more, with a byte more that stands for its end.

    Not by leaving out the end, of which libtiff would complain on the terminal.
    """
    marked = _marked(part) if columns * full_rows <= MOST_IN_STRIP else b""
    for count in (rows, full_rows) if marked else ():
        image = _opened(_grey_tiff(marked, columns * count + 1))
        if image is None or image.getpixel((columns * count, 0)) == MARK:
            return ""
    return EARLY if marked else ""


def _marked(part: bytes) -> bytes:
    """Pixels by LZW, with MARK before the end: nothing where that is not found, or of the old kind that libtiff reads.

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
    """A TIFF of one row of pixels by LZW."""
    tags = {WIDTH: pixels, HEIGHT: 1, BITS: 8, COMPRESSION: TIFF_LZW, PHOTOMETRIC: 1}
    tags |= {STRIPS[0]: 8 + 2 + 9 * 12 + 4, SAMPLES: 1, ROWS: 1, STRIPS[1]: len(part)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + part


def _decodes(file: bytes) -> bool:
    return _opened(file) is not None


def _opened(file: bytes) -> Image.Image | None:
    """A WebP, GIF or TIFF, decoded; None where Pillow does not."""
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 2**31 - 1  # bytes become pixels; the file was opened before
    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(file), formats=("WEBP", "GIF", "TIFF"))
            image.load()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (Pillow's plugins raise whatever broke)
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = most
    return image
