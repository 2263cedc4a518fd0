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
    read: Callable[[File], bytes], max_pixels: int, side: int, frames: Iterable[tuple[str, int, File]]
) -> dict[str, bytes]:
    """Return JPEGs of at most `side` pixels a side, by path, of what decodes, if only in part; runs in a worker.

    Args:
        read: a file's bytes.
        max_pixels: larger images have none.
        side: pixels.
        frames: path and number of the frame, from 1, as in the manifest; and what to `read`.
    """
    accept_truncated()
    small = {}
    for path, frame, file in frames:
        with contextlib.suppress(Exception):
            small[path] = encode(shrink(read(file), frame, side, max_pixels))
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
