"""PNG files, written three times as fast as by Pillow, which tries five filters for every row.

Every row is stored as its difference from the one above (filter 2, Up), and compressed by zlib-ng's RLE strategy: it
looks for no earlier text, so that no processor finds another one. Files of photographs are 6 % larger than Pillow's of
level 1, those of clip art 10 % (benchmarks/png.py).
Source: PNG (third edition), https://www.w3.org/TR/png-3/.
"""

import struct
import zlib

import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {"L": 0, "RGB": 2}
UP, LEVEL, WINDOW_BITS, MEMORY = 2, 1, 15, 9


def encode(image: Image.Image) -> bytes:
    """The PNG file of an image of mode L or RGB, without metadata."""
    pixels = np.asarray(image).reshape(image.height, -1)
    rows = np.empty((image.height, 1 + pixels.shape[1]), "u1")
    rows[:, 0] = UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256, as the filter wants it
    deflate = zlib_ng.compressobj(LEVEL, zlib_ng.DEFLATED, WINDOW_BITS, MEMORY, zlib_ng.Z_RLE)
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, COLOUR_TYPES[image.mode], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", deflate.compress(rows) + deflate.flush()), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
