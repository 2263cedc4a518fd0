"""An image as `check_image` of stages/validate.py gets it, and the template's own checks of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from imagepack.checks.appearance import Appearance
from imagepack.checks.examination import Seen
from imagepack.engine.params import Section
from imagepack.images import colour, decode
from imagepack.images.content import Content
from imagepack.images.formats import EXTENSIONS

LEAST_WHITE = 1 << 14
"""Of 16 bits: a camera or scanner of 10, 12 or 14 bits whose values were not scaled has none as large."""


@dataclass(frozen=True)
class CheckedImage(Content, Appearance):
    """An image that decodes, for a check; if the check raises an exception, the image gets decode_error.

    It has the attributes of Content (format, mode, width, height, ...) and of Appearance
    (brightness, contrast, saturation, sharpness, ...), and:

    Attributes:
        path: of the file, below data/raw.
        frame: number of the frame in the file, from 1.
        data: the file.
    """

    path: PurePosixPath = field(default_factory=PurePosixPath)
    frame: int = 1
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, path: str, frame: int, data: bytes, content: Content, look: Appearance) -> "CheckedImage":
        """Put together what was found out about a frame."""
        return cls(path=PurePosixPath(path), frame=frame, data=data, **vars(content), **vars(look))

    def pixels(self) -> np.ndarray:
        """Return the image as screens show it: uint8, (H, W, 3), RGB, upright, over white. It is decoded once more."""
        image = decode.open_decoded(self.data, self.frame)
        return np.asarray(colour.upright_srgb(image, "RGB", (255, 255, 255)))


def standard_checks(image: CheckedImage, params: Section) -> Iterator[Seen]:
    """Yield the code of each of the template's checks that `image` fails, and what was seen.

    Args:
        params: section `validate`.
    """
    shorter, longer = sorted((image.width, image.height))
    if image.path.suffix.lower() not in EXTENSIONS[image.format]:
        yield "extension_mismatch", f"is {image.format}"
    if image.unexplained:
        yield "extra_bands", f"{image.unexplained} of {image.bands} bands: what they are, the file does not say"
    if image.most < LEAST_WHITE:
        yield "unused_range", f"no value is above {image.most} of 65535"
    elif image.bits > 8:
        yield "reduced_depth", f"{image.bits} bits a channel"
    if shorter < params.min_side:
        yield "too_small", f"{image.width} x {image.height} pixels"
    if longer > params.max_side:
        yield "too_large", f"{image.width} x {image.height} pixels"
    if longer > params.max_aspect * shorter:
        yield "aspect", f"{image.width} x {image.height} pixels, sides of 1 : {longer / shorter:.1f}"
    if shorter >= params.min_side:  # fewer pixels do not say what can be seen in them
        yield from _what_is_seen(image, params)
    if image.orientation != 1:
        yield "exif_orientation", f"orientation {image.orientation}"


def _what_is_seen(image: CheckedImage, params: Section) -> Iterator[Seen]:
    """Yield one finding at most: an image of one tone is not also called dark."""
    if image.contrast < params.uniform:
        yield "uniform", f"standard deviation of {image.contrast:.1f} grey levels"
    elif image.brightest < params.dark:
        yield "dark", f"99 % of the pixels are no brighter than {image.brightest} of 255"
    elif image.darkest > params.bright:
        yield "bright", f"99 % of the pixels are at least {image.darkest} of 255"
    elif image.entropy < params.low_information:
        yield "low_information", f"entropy of {image.entropy:.2f} bits"
    elif image.sharpness < params.blurry:
        yield "blurry", f"sharpness of {image.sharpness:.0f}"
