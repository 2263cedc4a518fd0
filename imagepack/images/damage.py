"""Damage in the middle of the pixels that decoders pass over: in PNG, WebP and GIF; jpeg.py and tiff.py have theirs.

A decoder cannot tell that its data went wrong: it goes on until it has all pixels. But a sound picture needs its data
to the end, and a damaged one mostly is complete before, or has more. So it is decoded once more, without its last bytes
or into more rows: workshop/benchmarks/damage.py measures how much is found, and that no sound file is called damaged.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image, ImageFile

from imagepack.images.containers import GIF_FRAME, gif_blocks, gif_palette, png_chunks, webp_chunks

INFLATED_A_STEP = 1 << 20
"""Bytes of a PNG or TIFF that are inflated in one step."""
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and the steps between its columns and rows."""
WEBP_REST = 8
"""Bytes without which no sound WebP decodes: libwebp was seen to need the last 4 of its lossy coder, 2 of the other."""
MOST_PIXELS = 2**25
"""A larger WebP is not decoded a second time, which could need more memory than the first."""
UNUSED = 255
"""Number of a colour that few GIFs have."""
EARLY, LATE = "its pixels are complete before its data end", "its data end before its pixels are complete"

Chunks = list[tuple[bytes, bytes]]
"""Kind and content of each chunk of a WebP's frame."""


def damaged_png_chunk(data: bytes) -> str:
    """Return the kind of the first chunk of pixels with a wrong checksum, which Pillow does not look at; or nothing."""
    view = memoryview(data)
    for kind, start, end in png_chunks(data):
        if kind in PNG_PIXELS and zlib.crc32(view[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return kind.decode()
    return ""


def missing_png_bytes(data: bytes) -> int:
    """Return how many bytes of pixels a PNG that decodes lacks: decoders leave rows that are not there black.

    It inflates the pixels once more, in steps, so that memory stays flat.
    """
    (_, start, _), *chunks = png_chunks(data)
    width, height, bits, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, start)
    wanted = 0
    for column, row, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((column - width) // across), -((row - height) // down)
        row_bytes = 1 + (columns * bits * PNG_CHANNELS[colours] + 7) // 8
        wanted += rows * row_bytes if columns > 0 and rows > 0 else 0
    inflater, found = zlib.decompressobj(), 0
    for kind, start, end in chunks:
        if kind == b"IDAT":
            found += len(inflater.decompress(memoryview(data)[start:end], INFLATED_A_STEP))
            while inflater.unconsumed_tail and found < wanted:
                found += len(inflater.decompress(inflater.unconsumed_tail, INFLATED_A_STEP))
    return max(0, wanted - found)


def frames(data: bytes, form: str) -> Iterator[Callable[[], str]]:
    """Yield a check for each frame of a WebP or GIF, which says what is wrong with it or nothing; none for others.

    Args:
        data: a file that decodes.
        form: its format, a key of formats.EXTENSIONS.
    """
    if form == "WEBP":
        yield from (partial(_in_webp, chunks) for chunks in _webp_frames(data))
    elif form == "GIF":
        for kind, start, end in gif_blocks(data):
            if kind == GIF_FRAME:
                yield partial(_in_gif, data, start, end)


def _webp_frames(data: bytes) -> Iterator[Chunks]:
    """Yield the chunks of each frame of an animation, or of the one picture."""
    parts = list(webp_chunks(data))
    animation = [list(webp_chunks(data, start + 16, end)) for kind, start, end in parts if kind == b"ANMF"]
    for frame in animation or [parts]:
        yield [(kind, data[start:end]) for kind, start, end in frame]


def _in_webp(chunks: Chunks) -> str:
    """Check a frame that decodes; transparency beside a lossy picture is a lossless one without a header."""
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
        if try_decode(b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk):
            return EARLY
    return ""


def _in_gif(data: bytes, start: int, end: int) -> str:
    """Check a frame by decoding it into one row more than it has, the last of which must stay unused."""
    width, height, flags = struct.unpack_from("<HHB", data, start + 4)
    codes = data[start + 9 + gif_palette(flags) : end] + b"\0;"
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
    return LATE if suspect and not try_decode(_gif_header(width, height) + codes) else ""


def _gif_header(width: int, height: int) -> bytes:
    """Return what stands before the codes of a GIF of this size, all of colour UNUSED before it is decoded."""
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\0\0\0!\xf9\4\1\0\0" + bytes([UNUSED]) + b"\0,\0\0\0\0" + size + b"\0"


def try_decode(file: bytes) -> Image.Image | None:
    """Return a WebP, GIF or TIFF, decoded; None where Pillow does not decode it."""
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
