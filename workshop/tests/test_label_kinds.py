"""Labels of several kinds: one class an image, several labels, numbers; from the table to the batch."""

import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Workspace, picture, save

from imagepack import PackedImages
from imagepack.reader import card
from stages.pack import Pack, Split
from stages.validate import Labels, Levels, Validate, validate

ANY_SIZE = Validate(blurry=0, levels=Levels(class_too_small="ignore", class_imbalance="ignore"))
TAGS = ["sea", "sky;sea", "sky", ";", " sky ; sea;", "land", "", "land;sky"]
"""Of images 0 to 7: 3 has none of the labels, and of 6 nobody knows."""
HAS = {0: ["sea"], 1: ["sea", "sky"], 2: ["sky"], 3: [], 4: ["sea", "sky"], 5: ["land"], 7: ["land", "sky"]}
COUNT = len(TAGS)


def write(workspace: Workspace, **columns: list) -> None:
    """Write the table, a cell an image."""
    rows = {"file_name": [f"images/{n}.png" for n in range(COUNT)]} | columns
    pl.DataFrame(rows, strict=False).write_csv(workspace.raw / "metadata.csv")


def run(workspace: Workspace, params: Validate = ANY_SIZE, split: Split = Split(), **labels) -> PackedImages:  # noqa: B008
    """Run the three stages; return the pack."""
    said = Labels(**labels)
    workspace.validate = lambda _=None: validate(
        workspace.raw, workspace.acknowledged, workspace.manifest, workspace.reports, params, labels=said
    )
    return workspace.run(packed=Pack(split=split))


def numbers_of(packed: PackedImages) -> list[int]:
    """Return the number of each image in a pack."""
    return [int(Path(packed.path(i)).stem) for i in range(len(packed))]


def metrics(workspace: Workspace) -> dict:
    return json.loads((workspace.reports / "validation.json").read_text())


@pytest.fixture
def flat(workspace: Workspace) -> Workspace:
    """Eight images in one folder, with a table of labels."""
    for number in range(COUNT):
        save(workspace.raw / f"images/{number}.png", picture(number))
    write(workspace, tags=TAGS)
    return workspace


def test_several_labels_in_a_cell_become_one_of_two_for_each(flat: Workspace):
    packed = run(flat, kind="multilabel", column="tags")
    assert (packed.label_kind, packed.classes, packed.index.version) == ("multilabel", ["land", "sea", "sky"], 3)
    assert (packed.labels.dtype, packed.labels.shape) == (np.dtype(bool), (7, 3))
    found = {n: [packed.classes[k] for k in np.flatnonzero(packed.labels[i])] for i, n in enumerate(numbers_of(packed))}
    assert found == HAS
    assert (metrics(flat)["issues"], metrics(flat)["classes"]) == ({"no_cell": 1}, 3)


def test_batches_and_images_have_several_labels_as_float32(flat: Workspace):
    packed = run(flat, kind="multilabel", column="tags")
    _, target = packed[1]
    assert (target.dtype, target.tolist()) == (np.float32, packed.labels[1].tolist())
    batches = [targets for _, targets in packed.batches(4)]
    assert [(targets.dtype, targets.shape) for targets in batches] == [(np.float32, (4, 3)), (np.float32, (3, 3))]
    assert np.array_equal(np.concatenate(batches), packed.labels)
    assert np.array_equal(pickle.loads(pickle.dumps(packed)).targets, packed.labels)
    assert packed.pos_weight().tolist() == pytest.approx([5 / 2, 4 / 3, 3 / 4])
    with pytest.raises(ValueError, match=r"labels are of kind multilabel: pos_weight\(\) weights several labels"):
        packed.class_weights()
    assert sorted(numbers_of(packed.of_classes("land", "sea"))) == [0, 1, 4, 5, 7]


def test_columns_may_each_be_a_label_in_their_order(flat: Workspace):
    sky, land = [0, 1, 1, 0, 1, 0, None, 1], ["false", "False", "false", "true", "false", "true", "false", "TRUE"]
    write(flat, sky=sky, land=land, moon=[0.0] * COUNT)
    packed = run(flat, kind="multilabel", column=["sky", "moon", "land"])
    assert packed.classes == ["sky", "moon", "land"]
    found = {n: packed.labels[i].tolist() for i, n in enumerate(numbers_of(packed))}
    assert found == {n: [sky[n] == 1, False, land[n].lower() == "true"] for n in range(COUNT) if n != 6}
    assert packed.pos_weight()[1] == 1  # none has it, and nothing is divided by nought


def test_numbers_are_float32_a_column_each(flat: Workspace):
    write(flat, size=[n / 4 for n in range(COUNT)], age=[7, None, 5, 4, 3, 2, 1, 0])
    packed = run(flat, kind="numbers", column=["size", "age"])
    assert (packed.label_kind, packed.classes, packed.index.version) == ("numbers", ["size", "age"], 3)
    assert (packed.labels.dtype, packed.labels.shape) == (np.float32, (7, 2))
    found = dict(zip(numbers_of(packed), packed.labels.tolist(), strict=True))
    assert found == {n: [n / 4, 7 - n] for n in range(COUNT) if n != 1}
    _, target = packed[2]
    assert (target.dtype, target.tolist()) == (np.float32, packed.labels[2].tolist())
    assert metrics(flat)["numbers"] == {
        "size": {"min": 0, "mean": pytest.approx(27 / 28, abs=1e-5), "max": 1.75},
        "age": {"min": 0, "mean": pytest.approx(22 / 7, abs=1e-4), "max": 7},
    }
    for call in (packed.class_weights, packed.pos_weight, lambda: packed.of_classes("size")):
        with pytest.raises(ValueError, match="numbers"):
            call()


def test_one_number_is_a_column_too(flat: Workspace):
    write(flat, size=list(range(COUNT)))
    packed = run(flat, kind="numbers", column="size")
    assert next(iter(packed.batches(5)))[1].shape == (5, 1)
    assert packed.with_target("size").targets.shape == (COUNT,)


def test_the_card_says_what_is_predicted(flat: Workspace):
    several = card.text(run(flat, kind="multilabel", column="tags"))
    assert "labels     3" in several
    rows = {line.split()[0]: sum(map(int, line.split()[1:])) for line in several.splitlines()[-4:]}
    assert rows == {"land": 2, "sea": 3, "sky": 4, "all": 7}
    write(flat, size=list(range(COUNT)))
    numbers = run(flat, kind="numbers", column="size")
    assert "numbers    size 0 to 7, mean 3.5" in card.text(numbers)
    assert "<img" not in card.html(numbers) and "<img" in card.html(run(flat))


def test_a_pack_of_classes_stays_a_pack_of_version_1_or_2(flat: Workspace):
    assert run(flat).index.version == 2
    (flat.raw / "metadata.csv").unlink()
    assert run(flat).index.version == 1
