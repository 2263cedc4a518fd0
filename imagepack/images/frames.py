"""The frames of an image: going to one, and what of a GIF's canvas the frames so far have painted."""

import numpy as np
from PIL import Image

from imagepack.images.pixels import PAINTED

RESTORE_BACKGROUND = 2
"""Disposal method of a GIF's frame: what it has painted is cleared before the next."""


def go_to(image: Image.Image, number: int) -> None:
    """Go to frame `number`, from 1, of what `open_image` returned; raises what its `seek` does.

    In a GIF by way of the frames before it, so that it is known which pixels they have painted.
    """
    if image.format == "HEIF":
        _go_to_picture(image, number)
        return
    if image.format != "GIF":
        image.seek(number - 1)
        return
    while image.tell() < number - 1:
        paint(image)
        if image.disposal_method == RESTORE_BACKGROUND:
            _painted_box(image)[...] = False
        image.seek(image.tell() + 1)


def _go_to_picture(image: Image.Image, number: int) -> None:
    """Go to a picture of a HEIC: 1 is its primary picture, which need not be the first in the file."""
    if number > image.n_frames:
        raise EOFError
    if image.n_frames == 1:
        return
    order = list(range(image.n_frames))
    for place in order:
        image.seek(place)
        if image.info["primary"]:
            break
    image.seek(sorted(order, key=lambda other: other != place)[number - 1])


def paint(image: Image.Image) -> None:
    """Remember that the frame of a GIF at which `image` is covers its part of the canvas."""
    before = image.info.get(PAINTED)
    width, height = image.size
    if before is None or before.shape != (height, width):  # a frame may enlarge the canvas
        painted = np.zeros((height, width), bool)
        if before is not None:
            painted[: before.shape[0], : before.shape[1]] = before
        image.info[PAINTED] = painted
    _painted_box(image)[...] = True


def _painted_box(image: Image.Image) -> np.ndarray:
    left, top, right, bottom = image.dispose_extent
    return image.info[PAINTED][top:bottom, left:right]
