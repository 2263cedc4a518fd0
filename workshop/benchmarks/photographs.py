"""Photographs for the benchmarks: random views of the ten that the scikit-image package holds, a class each.

Made here, since a benchmark should download nothing. 500 x 375 pixels is the commonest size in collections such as
PASCAL VOC. The grain of a camera sensor is added, without which enlarged views would compress too well: files have
58 KB on average.
"""

import importlib.resources
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from imagepack.engine import workers
from imagepack.errors import InputError

WIDTH, HEIGHT = 500, 375
"""Pixels."""
QUALITY = 88
"""Of the JPEG files."""
GRAIN = 5
"""Standard deviation of the noise, grey levels of 255: gives files of 58 KB on average."""
PHOTOGRAPHS = {  # class: file in skimage/data
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "galaxies": "hubble_deep_field.jpg",
    "gravel": "gravel.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}


def generate(folder: Path, count: int, first: int = 0, times: int = 1) -> None:
    """Write photographs number `first` to `first + count - 1` as `folder`/CLASS/NUMBER.jpg, on all cores.

    A number always gives the same picture, and no two numbers do; those that are there already are not made again.
    They are `times` times as wide and as high.

    Raises:
        InputError: scikit-image is missing, or does not hold the photographs.
    """
    for label in PHOTOGRAPHS:
        original(label)
        (folder / label).mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(first, first + count) if not (folder / _name(number)).exists()]
    for _ in workers.map_in_order(partial(_write, folder, times), workers.groups(missing), len(missing), "photographs"):
        pass


def link(made: Path, folder: Path, count: int) -> None:
    """Give the first `count` photographs that `generate` has written to `made` a second name in `folder`."""
    for number in range(count):
        name = _name(number)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).hardlink_to(made / name)


def _name(number: int) -> str:
    return f"{list(PHOTOGRAPHS)[number % len(PHOTOGRAPHS)]}/{number:06}.jpg"


def _write(folder: Path, times: int, numbers: Sequence[int]) -> None:
    """Runs in a worker."""
    for number in numbers:
        label = list(PHOTOGRAPHS)[number % len(PHOTOGRAPHS)]
        image = photograph(original(label), np.random.default_rng(number), times)
        unfinished = folder / f"{number:06}.part"
        image.save(unfinished, "JPEG", quality=QUALITY)
        unfinished.replace(folder / _name(number))


@lru_cache(maxsize=len(PHOTOGRAPHS))
def original(label: str) -> Image.Image:
    """The photograph of class `label`, RGB, read from the installed scikit-image."""
    try:
        file = importlib.resources.files("skimage") / "data" / PHOTOGRAPHS[label]
        with file.open("rb") as stream:
            return Image.open(stream).convert("RGB")
    except (ModuleNotFoundError, FileNotFoundError):
        raise InputError(
            "the photographs come with scikit-image 0.26, which is missing: python3 run.py -- pip install scikit-image"
        ) from None


def photograph(image: Image.Image, rng: np.random.Generator, times: int = 1) -> Image.Image:
    """Another view of `image`, RGB: cropped, flipped, turned, in another light, with new grain.

    It has `times` times 500 x `times` times 375 pixels, and no more to show: but for the grain it is enlarged.
    """
    gamma, light = rng.uniform(0.8, 1.25), rng.uniform(0.9, 1.1, 3)
    tones = 255 * np.outer(light, np.linspace(0, 1, 256) ** gamma).clip(0, 1)
    view = _view(image, rng).point(tones.round().astype(int).ravel().tolist())
    lit = np.asarray(view.resize((times * WIDTH, times * HEIGHT), Image.Resampling.BICUBIC) if times > 1 else view)
    grain = GRAIN * rng.standard_normal((*lit.shape[:2], 1), "f4")  # the same for red, green and blue
    return Image.fromarray((lit + grain.round()).clip(0, 255).astype("u1"))


def _view(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random rectangle inside `image`, 60 to 100 % of the largest, turned by up to 8 degrees, mirrored or not."""
    angle = math.radians(rng.uniform(-8, 8))
    cos, sin = math.cos(angle), math.sin(angle)
    around = np.array([WIDTH * cos + HEIGHT * abs(sin), HEIGHT * cos + WIDTH * abs(sin)])  # of the turned rectangle
    scale = (image.size / around).min() * rng.uniform(0.6, 1)
    x, y = image.size / np.array(2) + rng.uniform(-0.5, 0.5, 2) * (image.size - scale * around)
    right = scale * rng.choice([-1, 1])  # source pixels for one to the right; negative mirrors
    rows = ((right * cos, -scale * sin, x), (right * sin, scale * cos, y))
    matrix = [(a, b, c - a * WIDTH / 2 - b * HEIGHT / 2) for a, b, c in rows]
    return image.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, sum(matrix, ()), Image.Resampling.BICUBIC)
