"""Preview: contact sheets of what augmentation makes of the training images.

    python -m stages.preview data/packed reports/preview

A sheet a class; a row an image: the original, then what epochs 0, 1, 2, ... of training see.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import imagepack
from stages.params import Augment, Preview
from stages.toolkit.errors import InputError
from stages.toolkit.stage import empty_folder, run_stage

GAP, HEADER = 4, 22
"""Pixels between images, and above them for the headings."""


def preview(packed: Path, out: Path, params: Preview, augment: Augment) -> str:
    """Write `out`/CLASS.png for the first `params.classes` classes that have training images."""
    try:
        train = imagepack.PackedImages(packed).split("train")
    except imagepack.PackError as error:
        raise InputError(str(error)) from None
    if not len(train):
        raise InputError("no image is in the train split: add images, or raise pack.split.train")
    empty_folder(out)
    transform = imagepack.Augment(**augment.model_dump())
    labels = np.unique(train.labels)[: params.classes]
    for label in labels:
        picture = sheet(train, choose(train, label, params.images), transform, params.variants)
        picture.save(out / f"{train.classes[label]}.png", compress_level=1)
    return f"{len(labels)} sheets of up to {params.images} images and {params.variants} variants each, in {out}"


def choose(train: imagepack.PackedImages, label: int, count: int) -> np.ndarray:
    """Positions of the `count` images of the class with the lowest ids: random ones, and mostly the same next time."""
    members = np.flatnonzero(train.labels == label)
    lowest = np.lexsort(train.ids[members].T[::-1])[:count]
    return members[lowest]


def sheet(
    train: imagepack.PackedImages, chosen: np.ndarray, transform: imagepack.Augment, variants: int
) -> Image.Image:
    """Draw a row for each chosen image: the original and what the first `variants` epochs see of it."""
    height, width, _ = train.shape
    font = ImageFont.load_default(12)
    size = ((width + GAP) * (variants + 1) + GAP, (height + GAP) * len(chosen) + HEADER)
    canvas = Image.new("RGB", size, "gainsboro")
    draw = ImageDraw.Draw(canvas)
    for column, heading in enumerate(["original", *(f"epoch {n}" for n in range(variants))]):
        draw.text((GAP + column * (width + GAP), 3), heading, "black", font)
    for row, i in enumerate(chosen):
        original, _ = train[i]
        epochs = (transform(original, train.ids[i].tobytes(), epoch) for epoch in range(variants))
        for column, pixels in enumerate([original, *epochs]):
            picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            canvas.paste(picture, (GAP + column * (width + GAP), HEADER + row * (height + GAP)))
    return canvas


if __name__ == "__main__":
    run_stage(preview)
