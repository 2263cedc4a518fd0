"""Small pictures of images, for people to look at."""

import contextlib
import io
from collections.abc import Callable, Iterable
from typing import TypeVar

from PIL import Image, ImageFile

from imagepack.images.decode import open_decoded
from imagepack.images.pixels import WHITE, eight_bit, over, upright

File = TypeVar("File")
SIDE = 128
"""Pixels."""
QUALITY = 80


def thumbnails(
    read: Callable[[File], bytes], max_pixels: int, frames: Iterable[tuple[str, int, File, tuple[int, ...]]]
) -> dict[tuple[str, int], bytes]:
    """Return JPEGs by path and side, of what decodes, if only in part; each file is decoded once. Runs in a worker.

    Args:
        read: a file's bytes.
        max_pixels: larger images have none.
        frames: path and number of the frame, from 1, as in the manifest; what to `read`; and sides in pixels, the
            largest first: a JPEG has no longer side than that.
    """
    accept_truncated()
    small = {}
    for path, frame, file, sides in frames:
        with contextlib.suppress(Exception):
            seen = shrink(read(file), frame, sides[0], max_pixels)
            for side in sides:
                seen.thumbnail((side, side))
                small[path, side] = encode(seen)
    return small


def accept_truncated() -> None:
    """Have this process show of a damaged file what decodes: only for one that makes what people look at."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True


def shrink(data: bytes, frame: int, side: int, max_pixels: int, exact: bool = False) -> Image.Image:
    """Return an image as people see it, mode L or RGB, of at most `side` pixels a side.

    Args:
        data: the whole file.
        frame: its number, from 1.
        side: pixels.
        max_pixels: of the file.
        exact: not by way of a JPEG's coarser scales, which blur.

    Raises:
        Fault: it does not decode.
    """
    image = open_decoded(data, frame, None if exact else lambda _: (2 * side, 2 * side), max_pixels)
    seen = over(upright(eight_bit(image), image), WHITE)
    seen.thumbnail((side, side))
    return seen


def encode(image: Image.Image) -> bytes:
    """Return a JPEG of the pixels alone: Pillow would write comments into it that it has read."""
    bare, file = image.copy(), io.BytesIO()
    bare.info = {}
    bare.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
