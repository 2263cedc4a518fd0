"""Preview: contact sheets of what augmentation makes of the training images.

    python -m imagepack.engine preview data/packed reports/preview

A sheet a class; a row an image: the original, then what epochs 0, 1, 2, ... of training see, and what was drawn for it.
Edit `draw` for sheets of another kind; operations of your own stand in stages/augment.py.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

import imagepack
from imagepack.engine.inputs import Input
from imagepack.engine.params import Section, section_like
from imagepack.engine.stage import empty_folder
from imagepack.errors import InputError
from imagepack.images import png
from stages.augment import OPS

GAP, HEADER, LINE = 8, 24, 13
"""Pixels between images, above them for the headings, and from line to line of what stands under them."""
NARROWEST = 128
"""Pixels: what the words under an image need; a smaller image is drawn larger, each of its pixels as a square."""
HEADING, CAPTION = ImageFont.load_default(13), ImageFont.load_default(11)


class Augment(section_like(imagepack.Augment)):
    """Section `augment` of params.yaml: the knobs of imagepack.Augment."""


class Preview(Section):
    """Section `preview` of params.yaml."""

    classes: int = Field(10, ge=1, le=1000)
    images: int = Field(4, ge=1, le=50)
    variants: int = Field(6, ge=1, le=20)


def draw(train: imagepack.PackedImages, chosen: np.ndarray, transform: imagepack.Augment, variants: int) -> Image.Image:
    """Draw a row for each chosen image: the original and what the first `variants` epochs see of it. Edit here."""
    height, width, channels = train.shape
    scale = -(-NARROWEST // width)  # rounded up
    height, width = height * scale, width * scale
    rows = [row(train, i, transform, variants) for i in chosen]
    captions = [[wrap(words, width) for _, words in cells] for cells in rows]
    lines = max(len(caption) for cells in captions for caption in cells)
    across, down = width + GAP, height + lines * LINE + 2 * GAP
    canvas = Image.new("RGB", (across * (variants + 1) + GAP, down * len(rows) + HEADER), "white")
    pen = ImageDraw.Draw(canvas)
    for column, heading in enumerate(["original", *(f"epoch {n}" for n in range(variants))]):
        pen.text((GAP + column * across, 5), heading, "black", HEADING)
    for y, cells in enumerate(rows):
        for x, (pixels, _) in enumerate(cells):
            left, top = GAP + x * across, HEADER + y * down
            picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            pen.rectangle((left - 1, top - 1, left + width, top + height), outline="silver")
            canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
            for n, line in enumerate(captions[y][x]):
                pen.text((left, top + height + 3 + n * LINE), line, "dimgrey", CAPTION)
    return canvas


def choose(train: imagepack.PackedImages, label: int, count: int) -> np.ndarray:
    """Positions of the `count` images of the class with the lowest ids: random ones, and mostly the same next time."""
    members = np.flatnonzero(train.labels == label)
    lowest = np.lexsort(train.ids[members].T[::-1])[:count]
    return members[lowest]


def row(
    train: imagepack.PackedImages, i: int, transform: imagepack.Augment, variants: int
) -> list[tuple[np.ndarray, list[str]]]:
    """Pixels and words of each cell: the original with its file's name, then the first epochs with what was drawn."""
    original, _ = train[i]
    image_id = train.ids[i].tobytes()
    cells = [(original, [Path(train.path(i)).name])]
    for epoch in range(variants):
        words = transform.sample(image_id, epoch).words(grey=original.shape[-1] == 1)
        cells.append((transform(original, image_id, epoch), words))
    return cells


def wrap(words: list[str], width: int) -> list[str]:
    """Lines of at most `width` pixels; a word that is wider is cut."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]}  {word}".strip()
        if CAPTION.getlength(longer) <= width:
            lines[-1] = longer
        else:
            while CAPTION.getlength(word) > width:
                word = word.removesuffix("…")[:-1] + "…"
            lines.append(word)
    return [line for line in lines if line]


def preview(packed: Input, out: Path, params: Preview, augment: Augment) -> str:
    """Write `out`/CLASS.png for the first `params.classes` classes that have training images.

    Where no image is in the train split, the sheets show originals of the other splits, without augmentation.
    """
    try:
        images = imagepack.PackedImages(packed)
    except imagepack.PackError as error:
        raise InputError(str(error)) from None
    train = images.split("train")
    drawn, variants = (train, params.variants) if len(train) else (images, 0)
    empty_folder(out)
    transform = imagepack.Augment(**augment.model_dump(), ops=OPS)
    labels = np.unique(drawn.labels)[: params.classes]
    for label in labels:
        picture = draw(drawn, choose(drawn, label, params.images), transform, variants)
        (out / f"{drawn.classes[label]}.png").write_bytes(png.encode(picture))
    if not variants:
        return (
            f"no image is in the train split (pack.split), so nothing is augmented: {len(labels)} sheets of up to "
            f"{params.images} images of the other splits as they are, in {out}"
        )
    return f"{len(labels)} sheets of up to {params.images} images and {params.variants} variants each, in {out}"
