"""Augmentation on the fly: a function of (seed, epoch, image id), so that it is the same wherever it runs.

Every random number comes from a hash of (seed, epoch, operation, image id). Nothing depends on batch, worker
or order: adding an image to the dataset changes no other image's augmentation, and a resumed epoch continues
as if it had never stopped.
"""

import hashlib
import math
from dataclasses import dataclass, field, fields

import numpy as np
from PIL import Image, ImageEnhance


def _knob(default: float, low: float, high: float) -> float:
    return field(default=default, metadata={"ge": low, "le": high})


@dataclass(frozen=True)
class Augment:
    """What training does to each image anew in each epoch; the fields are the keys of `augment` in params.yaml.

    Raises:
        ValueError: a value outside its range; all of them at once.
    """

    seed: int = _knob(0, 0, 2**63 - 1)
    hflip: float = _knob(0.5, 0, 1)
    """Probability of a left-right flip."""
    vflip: float = _knob(0.0, 0, 1)
    """Probability of an upside-down flip."""
    rotate: float = _knob(10.0, 0, 180)
    """Degrees: turned by an angle uniform in [-rotate, rotate]; corners show the edge's mirror image."""
    crop: float = _knob(0.8, 0.1, 1)
    """Smallest share of the side that a random square crop keeps, before it is scaled back to full size."""
    brightness: float = _knob(0.2, 0, 1)
    """Factor uniform in [1 - brightness, 1 + brightness], as for the next two."""
    contrast: float = _knob(0.2, 0, 1)
    saturation: float = _knob(0.2, 0, 1)
    erase: float = _knob(0.0, 0, 1)
    """Probability of setting a random rectangle of 2 to 20 % of the area to the image's mean colour."""

    def __post_init__(self) -> None:
        faults = [
            f"augment.{f.name} must be between {f.metadata['ge']} and {f.metadata['le']}, is {value!r}"
            for f in fields(self)
            if not f.metadata["ge"] <= (value := getattr(self, f.name)) <= f.metadata["le"]
        ]
        if faults:
            raise ValueError("; ".join(faults))

    def __call__(self, image: np.ndarray, image_id: bytes, epoch: int) -> np.ndarray:
        """Return the variant of `image` that `epoch` sees.

        Args:
            image: uint8, (H, W, 3) or (H, W, 1); not changed.
            image_id: the image's 32 bytes of identity, as the pack holds them.
            epoch: 0, 1, 2, ...

        Returns:
            uint8, of the same shape.
        """
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)

        def draw(operation: str) -> np.ndarray:
            """Four numbers uniform in [0, 1), of this image, epoch and operation alone."""
            key = f"{self.seed}/{epoch}/{operation}/".encode() + bytes(image_id)
            return np.frombuffer(hashlib.blake2b(key, digest_size=16).digest(), "<u4") / 2.0**32

        picture = self._move(picture, draw)
        picture = self._tone(picture, draw)
        result = np.array(picture).reshape(image.shape)
        if draw("erase")[0] < self.erase:
            _erase(result, draw("rectangle"))
        return result

    def _move(self, picture: Image.Image, draw) -> Image.Image:
        """Flip, turn and crop."""
        if draw("hflip")[0] < self.hflip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if draw("vflip")[0] < self.vflip:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if self.rotate or self.crop < 1:
            picture = self._turn_and_crop(picture, draw)
        return picture

    def _turn_and_crop(self, picture: Image.Image, draw) -> Image.Image:
        """One affine map, so that the pixels are interpolated once."""
        width, height = picture.size
        angle = math.radians((2 * draw("rotate")[0] - 1) * self.rotate)
        share, right, down, _ = draw("crop")
        share = self.crop + share * (1 - self.crop)
        margin = max(width, height) // 2 if self.rotate else 0  # what the corners may reach beyond the edge
        pixels = np.asarray(picture)
        pixels = np.pad(pixels, [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2), mode="symmetric")
        cos, sin = share * math.cos(angle), share * math.sin(angle)
        x = margin + width * (share / 2 + right * (1 - share))  # the crop's centre
        y = margin + height * (share / 2 + down * (1 - share))
        x, y = x - cos * width / 2 - sin * height / 2, y + sin * width / 2 - cos * height / 2
        affine = (cos, sin, x, -sin, cos, y)
        return Image.fromarray(pixels).transform(
            (width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
        )

    def _tone(self, picture: Image.Image, draw) -> Image.Image:
        """Brightness, contrast and saturation."""
        for name, enhance in (
            ("brightness", ImageEnhance.Brightness),
            ("contrast", ImageEnhance.Contrast),
            ("saturation", ImageEnhance.Color),
        ):
            amount = getattr(self, name)
            if amount and (name != "saturation" or picture.mode == "RGB"):
                picture = enhance(picture).enhance(1 + (2 * draw(name)[0] - 1) * amount)
        return picture


def _erase(image: np.ndarray, draws: np.ndarray) -> None:
    """Blank a rectangle of `image` in place; its area and aspect as in Zhong et al. 2017, kept to a fifth."""
    height, width = image.shape[:2]
    area, aspect = 0.02 + 0.18 * draws[0], 0.3 ** (2 * draws[1] - 1)
    tall = min(height, round((area * height * width * aspect) ** 0.5))
    wide = min(width, round((area * height * width / aspect) ** 0.5))
    top, left = int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1))
    image[top : top + tall, left : left + wide] = image.mean((0, 1))
