"""Preview: contact sheets of what augmentation makes of the training images.

    python -m imagepack.engine preview data/packed reports/preview

Edit `draw` to show something else. Augmentation operations of your own stand in stages/augment.py.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

import imagepack
from imagepack.engine.inputs import Input
from imagepack.engine.params import Section, section_like
from imagepack.engine.stage import empty_folder
from imagepack.errors import InputError
from imagepack.images import png
from imagepack.images.contact_sheet import NEW_LINE, contact_sheet
from imagepack.names import counted
from stages.augment import OPS


class Preview(Section):
    """Section `preview` of params.yaml."""

    classes: int = Field(10, ge=1, le=1000)
    images: int = Field(4, ge=1, le=50)
    variants: int = Field(6, ge=1, le=20)


class Augment(section_like(imagepack.Augment)):
    """Section `augment` of params.yaml: the knobs of imagepack.Augment."""


def draw(images: imagepack.PackedImages, chosen: np.ndarray, augment: imagepack.Augment, variants: int) -> Image.Image:
    """Draw a row for each chosen image: the original and what the first epochs of training see of it. Edit here.

    Args:
        images: those of the train split.
        chosen: positions in it, of one class or label; of numbers, from the least to the greatest.
        augment: what training applies: the section `augment`, and OPS of stages/augment.py.
        variants: how many epochs.
    """
    rows = []
    for i in chosen:
        original, image_id = images[i][0], images.ids[i].tobytes()
        row = [(original, [Path(images.path(i)).name, NEW_LINE, *images.label_words(i)])]
        for epoch in range(variants):
            words = augment.sample(image_id, epoch).words(grey=original.shape[-1] == 1)
            row.append((augment(original, image_id, epoch), words))
        rows.append(row)
    return contact_sheet(["original", *(f"epoch {n}" for n in range(variants))], rows)


def choose(images: imagepack.PackedImages, label: int, count: int) -> np.ndarray:
    """Return positions of the `count` images of a class or label with the lowest ids: random, and mostly the same next
    time."""
    if images.label_kind == "numbers":
        return choose_along(images, label, count)
    members = np.flatnonzero(images.has(label))
    lowest = np.lexsort(images.ids[members].T[::-1])[:count]
    return members[lowest]


def choose_along(images: imagepack.PackedImages, number: int, count: int) -> np.ndarray:
    """Return positions of `count` images from the least to the greatest number, and between those of as many equal
    parts the one with the lowest id."""
    by_id = np.lexsort(images.ids.T[::-1])
    ordered = by_id[np.argsort(images.labels[by_id, number], kind="stable")]
    rank = np.argsort(by_id)
    chosen = [part[rank[part].argmin()] for part in np.array_split(ordered, min(count, len(ordered)))]
    if len(chosen) > 1:
        chosen[0], chosen[-1] = ordered[0], ordered[-1]
    return np.array(chosen)


def preview(packed: Input, out: Path, params: Preview, augment: Augment) -> str:
    """Write `out`/CLASS.png for the first `params.classes` classes, labels or numbers that have training images.

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
    every = range(len(drawn.classes))
    labels = [label for label in every if drawn.label_kind == "numbers" or drawn.has(label).any()][: params.classes]
    for label in labels:
        picture = draw(drawn, choose(drawn, label, params.images), transform, variants)
        (out / f"{drawn.classes[label]}.png").write_bytes(png.encode(picture))
    sheets, shown = counted(len(labels), "sheet"), counted(params.images, "image")
    if not variants:
        return (
            f"no image is in the train split (pack.split), so nothing is augmented: {sheets} of up to {shown} of the "
            f"other splits as they are, in {out}"
        )
    return f"{sheets} of up to {shown} and {counted(params.variants, 'variant')} each, in {out}"
