"""Each class has images in each split, in the pack that is in data/packed now.

The split is drawn by each image's content, so a small class may lack one by chance; of a class that is large enough,
it is a fault. Decide here what your dataset must have: set CHANCE higher to ask it of smaller classes too.

To add a test: take `packed`; `packed.split("val").labels`, `packed.classes`, `packed.paths` say which images are where.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepack import PackedImages

CHANCE = 1e-4
"""A class that lacks a split though chance would do that less often than this is a fault."""


@pytest.fixture(scope="module")
def packed(root: Path) -> PackedImages:
    """The pack, if the pipeline has run."""
    if not (root / "data/packed/dataset.h5").exists():
        pytest.skip("the pipeline has not run here: python3 run.py")
    packed = PackedImages(root / "data/packed")
    if packed.label_kind == "numbers":
        pytest.skip("numbers are predicted, and not classes")
    return packed


def lacking(packed: PackedImages, split: str) -> Iterator[tuple[str, int]]:
    """Each class without images in a split, and how many it has in all of them."""
    inside = packed.split(split)
    for label, name in enumerate(packed.classes):
        if not inside.has(label).any():
            yield name, int(packed.has(label).sum())


def test_each_class_has_images_to_train_on(packed: PackedImages, params):
    if params["pack"].split.by != "folder" and not params["pack"].split.train:
        pytest.skip("pack.split.train is 0")
    assert list(lacking(packed, "train")) == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_each_class_has_images_to_evaluate_on(packed: PackedImages, params, split: str):
    by_folder = params["pack"].split.by == "folder"
    share = 1.0 if by_folder else getattr(params["pack"].split, split)
    if not share or (by_folder and not len(packed.split(split))):
        pytest.skip(f"there is to be no {split} split")
    found = list(lacking(packed, split))
    faults = [f"{name}: none of {count} images is in {split}" for name, count in found if (1 - share) ** count < CHANCE]
    assert faults == []
    if found:
        pytest.skip(f"as chance has it, no images in {split}: {', '.join(name for name, _ in found)}")
