"""Labels of several kinds: one class an image, several labels, numbers; from the table to the batch."""

import csv
import json
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from browser import Browser
from conftest import Workspace, contents, picture, save
from PIL import Image
from pydantic import ValidationError

from imagepack import PackedImages, PackError
from imagepack.commands.pin import pin, splits_of_pack
from imagepack.compare import versions
from imagepack.compare.comparison import compare
from imagepack.compare.terminal import text
from imagepack.compare.versions import Version
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.packing import splits
from imagepack.reader import card
from imagepack.reader import format as packs
from stages.pack import Pack, Split
from stages.preview import Augment, Preview, choose, preview
from stages.validate import Labels, Levels, Validate, validate

QUIET = Levels(class_too_small="ignore", class_imbalance="ignore")
ANY_SIZE = Validate(blurry=0, levels=QUIET)
TAGS = ["sea", "sky;sea", "sky", ";", " sky ; sea;", "land", "", "land;sky"]
"""Of images 0 to 7: 3 has none of the labels, and of 6 nobody knows."""
HAS = {0: ["sea"], 1: ["sea", "sky"], 2: ["sky"], 3: [], 4: ["sea", "sky"], 5: ["land"], 7: ["land", "sky"]}
COUNT = len(TAGS)
ALL = Split(train=1, val=0, test=0)


def write(workspace: Workspace, **columns: list) -> None:
    """Write the table, a cell an image."""
    rows = {"file_name": [f"images/{n}.png" for n in range(COUNT)]} | columns
    pl.DataFrame(rows, strict=False).write_csv(workspace.raw / "metadata.csv")


def check(workspace: Workspace, params: Validate = ANY_SIZE, **labels) -> str:
    """Run validate; return its summary."""
    return validate(
        workspace.raw, workspace.acknowledged, workspace.manifest, workspace.reports, params, labels=Labels(**labels)
    )


def run(workspace: Workspace, split: Split = Split(), **labels) -> PackedImages:  # noqa: B008
    """Run the three stages; return the pack."""
    workspace.validate = lambda _=None: check(workspace, **labels)
    return workspace.run(packed=Pack(split=split))


def numbers_of(packed: PackedImages) -> list[int]:
    """Return the number of each image in a pack."""
    return [int(Path(packed.path(i)).stem) for i in range(len(packed))]


def metrics(workspace: Workspace) -> dict:
    return json.loads((workspace.reports / "validation.json").read_text())


def plotted(workspace: Workspace) -> dict[str, int]:
    with (workspace.reports / "plots/classes.csv").open(encoding="utf-8", newline="") as file:
        return {row["label"]: int(row["images"]) for row in csv.DictReader(file)}


def make(folder: Path) -> Workspace:
    """Eight images in one folder, with a table of labels and numbers."""
    workspace = Workspace(folder)
    for number in range(COUNT):
        save(workspace.raw / f"images/{number}.png", picture(number))
    write(workspace, tags=TAGS, size=[n / 4 for n in range(COUNT)], age=[7, None, 5, 4, 3, 2, 1, 0])
    return workspace


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Packed with several labels an image."""
    workspace = make(tmp_path_factory.mktemp("several"))
    run(workspace, ALL, kind="multilabel", column="tags")
    return workspace


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Packed with two numbers an image."""
    workspace = make(tmp_path_factory.mktemp("measured"))
    run(workspace, ALL, kind="numbers", column=["size", "age"])
    return workspace


@pytest.fixture
def flat(tmp_path: Path) -> Workspace:
    """Not yet validated."""
    return make(tmp_path)


def test_several_labels_in_a_cell_become_one_of_two_for_each(several: Workspace):
    packed = PackedImages(several.packed)
    assert (packed.label_kind, packed.classes, packed.index.version) == ("multilabel", ["land", "sea", "sky"], 3)
    assert (packed.labels.dtype, packed.labels.shape) == (np.dtype(bool), (7, 3))
    found = {n: [packed.classes[k] for k in np.flatnonzero(packed.labels[i])] for i, n in enumerate(numbers_of(packed))}
    assert found == HAS
    assert (metrics(several)["issues"], metrics(several)["labels"]) == ({"no_cell": 1}, 3)
    assert "a lone ;" in (several.reports / "rejected.csv").read_text(encoding="utf-8")
    assert plotted(several) == {"land": 2, "sea": 3, "sky": 4}


def test_batches_and_images_have_several_labels_as_float32(several: Workspace):
    packed = PackedImages(several.packed)
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
    assert plotted(flat) == {"land": 3, "moon": 0, "sky": 4}


def test_an_empty_list_is_none_of_the_labels_and_null_is_not_known(flat: Workspace):
    (flat.raw / "metadata.csv").unlink()
    cells = [["b", "a"], [], None, ["a"], ["b"], [], ["a"], ["b"]]
    table = pl.DataFrame({"file_name": [f"images/{n}.png" for n in range(COUNT)], "tags": cells})
    digests = set()
    for kind in ("parquet", "ndjson"):
        file = flat.raw / f"metadata.{'jsonl' if kind == 'ndjson' else kind}"
        getattr(table, f"write_{kind}")(file)
        packed = run(flat, kind="multilabel", column="tags")
        assert {n: packed.labels[i].sum() for i, n in enumerate(numbers_of(packed))} == {
            n: len(cell) for n, cell in enumerate(cells) if cell is not None
        }
        digests.add(packed.digest)
        file.unlink()
    assert len(digests) == 1


def test_numbers_are_float32_a_column_each(measured: Workspace):
    packed = PackedImages(measured.packed)
    assert (packed.label_kind, packed.classes, packed.index.version) == ("numbers", ["size", "age"], 3)
    assert (packed.labels.dtype, packed.labels.shape) == (np.float32, (7, 2))
    found = dict(zip(numbers_of(packed), packed.labels.tolist(), strict=True))
    assert found == {n: [n / 4, 7 - n] for n in range(COUNT) if n != 1}
    _, target = packed[2]
    assert (target.dtype, target.tolist()) == (np.float32, packed.labels[2].tolist())
    assert packed.with_target("size").targets.shape == (7,)
    assert metrics(measured)["numbers"] == {
        "size": {"min": 0, "mean": pytest.approx(27 / 28, abs=1e-5), "max": 1.75},
        "age": {"min": 0, "mean": pytest.approx(22 / 7, abs=1e-4), "max": 7},
    }
    for call in (packed.class_weights, packed.pos_weight, lambda: packed.of_classes("size")):
        with pytest.raises(ValueError, match="numbers"):
            call()


def test_numbers_are_plotted_as_histograms(measured: Workspace):
    found = plotted(measured)
    assert list(found)[:2] == ["size 01: 0 to 0.1", "size 02: 0.1 to 0.2"]
    assert sum(count for name, count in found.items() if name.startswith("size")) == 7
    assert (found["size 01: 0 to 0.1"], found["size 18: 1.7 to 1.8"], found["age 14: 6.5 to 7"]) == (1, 1, 1)
    page = (measured.reports / "validation.html").read_text(encoding="utf-8")
    assert "<figcaption>size: images</figcaption>" in page
    assert "size from 0 to 1.75" in page
    assert "Class" not in page.partition("<main")[0].partition("<body")[2]


def test_numbers_that_are_not_finite_reject_the_image(flat: Workspace):
    (flat.raw / "metadata.csv").unlink()
    cells = [0.5, float("nan"), float("inf"), 1e39, -2, 3, 4, None]
    table = pl.DataFrame({"file_name": [f"images/{n}.png" for n in range(COUNT)], "size": cells}, strict=False)
    table.write_parquet(flat.raw / "metadata.parquet")
    said = check(flat, kind="numbers", column="size")
    assert said.startswith("8 files with size -2 to 4: 4 accepted, 4 rejected")
    with (flat.reports / "rejected.csv").open(encoding="utf-8", newline="") as file:
        seen = [row["seen"] for row in csv.DictReader(file)]
    assert seen == ["size is nan", "size is inf", "size is inf", "its cell of size is empty"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"column": ["tags"]}, "kind class takes one column, and no list: set kind to multilabel"),
        ({"kind": "numbers"}, "kind numbers needs column: the name of a column of a table, or a list of names"),
        ({"kind": "multilabel", "column": ["a", "b", "a"]}, "names a column twice: a"),
        (
            {"kind": "multilabel", "column": []},
            r"must be the name of a column, or a list of names such as \[cat, dog\]",
        ),
        ({"kind": "numbers", "column": [1]}, r"must be the name of a column, or a list .*, is \[1\]"),
        ({"kind": "number", "column": "a"}, "Input should be 'class', 'multilabel' or 'numbers'"),
    ],
)
def test_params_that_do_not_fit_each_other_are_refused(labels: dict, said: str):
    with pytest.raises(ValidationError, match=said):
        Labels(**labels)


def test_cells_that_do_not_fit_are_named_with_table_and_line_all_at_once(flat: Workspace):
    write(flat, sky=[0, 7, 1, "x", "", 0, 0, 1], land=[0.5] + [1] * 7, **{"a/b": [1] * COUNT})
    with pytest.raises(InputError) as error:
        check(flat, kind="multilabel", column=["sky", "land", "a/b"])
    first, *faults = str(error.value).replace(f"{flat.raw}/", "").splitlines()
    assert first == "labels in params.yaml, of kind multilabel, does not fit:"
    assert faults == [
        "  metadata.csv line 3: sky is neither 0 nor 1, true nor false: '7'",
        "  metadata.csv line 5: sky is neither 0 nor 1, true nor false: 'x'",
        "  metadata.csv line 2: land is neither 0 nor 1, true nor false: 0.5",
        "  the column 'a/b' cannot be the name of a class, after which files are named",
    ]
    with pytest.raises(InputError, match=r"metadata.csv line 5: sky is no number: 'x'$"):
        check(flat, kind="numbers", column=["land", "sky"])
    with pytest.raises(
        InputError, match=r"labels.column in params.yaml is 'sea', 'moon', and no table .* they have a/b, l"
    ):
        check(flat, kind="multilabel", column=["sea", "sky", "moon"])


def test_the_same_pixels_with_other_labels_are_a_conflict(flat: Workspace):
    shutil.copy(flat.raw / "images/0.png", flat.raw / "images/2.png")
    shutil.copy(flat.raw / "images/1.png", flat.raw / "images/4.png")  # whose labels are the same
    check(flat, kind="multilabel", column="tags")
    assert metrics(flat)["issues"] == {"exact_duplicate": 1, "label_conflict": 2, "no_cell": 1}
    check(flat, kind="numbers", column="size")
    assert metrics(flat)["issues"] == {"label_conflict": 4}


def test_labels_are_counted_each_by_itself(flat: Workspace):
    write(flat, tags=["Sea;sky", "sky", "sea;sky", "sky", "sky", "sky", "sky", "sky"])
    params = Validate(blurry=0, min_class_images=2, max_class_ratio=7)
    check(flat, params, kind="multilabel", column="tags")
    found = metrics(flat)["issues"]
    assert found == {"class_imbalance": 2, "class_too_small": 2, "similar_class_names": 1}


def test_the_card_says_what_is_predicted(several: Workspace, measured: Workspace):
    lines = card.text(PackedImages(several.packed)).splitlines()
    assert "labels     3" in lines
    assert {line.split()[0]: int(line.split()[1]) for line in lines[-4:]} == {"land": 2, "sea": 3, "sky": 4, "all": 7}
    numbers = PackedImages(measured.packed)
    assert "numbers    size 0 to 1.75, mean 0.9643; age 0 to 7, mean 3.143" in card.text(numbers)
    assert "<img" in card.html(PackedImages(several.packed))
    assert "0 to 1.75" in card.html(numbers)


def test_the_preview_has_a_sheet_for_each_label_or_number(several: Workspace, measured: Workspace, tmp_path: Path):
    for workspace, names in ((several, ["land", "sea", "sky"]), (measured, ["age", "size"])):
        preview(workspace.packed, tmp_path / "sheets", Preview(images=3, variants=1), Augment())
        assert sorted(file.stem for file in (tmp_path / "sheets").iterdir()) == names
        with Image.open(tmp_path / f"sheets/{names[0]}.png") as sheet:
            assert sheet.height > 3 * 128 * (2 if names[0] == "land" else 3) / 3
    train = PackedImages(measured.packed).split("train")
    sizes = train.labels[choose(train, 0, 3), 0].tolist()
    assert sizes == sorted(sizes) and sizes[0] <= 0.5 and sizes[2] >= 1.5
    assert len(choose(train, 0, 50)) == 7
    assert train.label_words(0) == ["size 0", "age 7"]
    assert PackedImages(several.packed).label_words(1) == ["sea", "sky"]


def test_a_relabelling_changes_no_shard(several: Workspace, tmp_path: Path):
    shutil.copytree(several.folder, tmp_path / "copy")
    copied = Workspace(tmp_path / "copy")
    before = contents(copied.packed)
    write(copied, tags=[*TAGS[:6], "sea", TAGS[7]])  # 6 is known now
    write(copied, tags=["land", *TAGS[1:]], size=[0] * COUNT, age=[0] * COUNT)
    run(copied, ALL, kind="multilabel", column="tags")
    after = contents(copied.packed)
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"dataset.h5"}
    pairs = [
        Version(name, None, None, None, split(w), None, {}, None, {}, [], {})
        for name, w in zip("ab", (several, copied), strict=True)
    ]
    summary = compare(*pairs)
    assert summary.summary["counts"]["relabelled"] == 1
    table = {row["class"]: (row["a"], row["b"]) for row in summary.summary["classes"]["table"]}
    assert table == {"land": (2, 3), "sea": (3, 2), "sky": (4, 4)}
    assert "images/0.png" in text(summary.summary, summary.changes)


def split(workspace: Workspace) -> pl.DataFrame:
    """The manifest as compare reads it, all images in train."""
    images = versions.read_manifest(workspace.manifest, "manifest", "")
    return images.with_columns(split=pl.when(pl.col("status") == "accepted").then(pl.lit("train")))


def test_versions_with_other_numbers_are_compared(measured: Workspace, tmp_path: Path):
    shutil.copytree(measured.folder, tmp_path / "copy")
    copied = Workspace(tmp_path / "copy")
    write(copied, size=[9, *(n / 4 for n in range(1, COUNT))], age=[7, None, 5, 4, 3, 2, 1, 0])
    check(copied, kind="numbers", column=["size", "age"])
    pairs = [
        Version(name, None, None, None, split(w), None, {}, None, {}, [], {})
        for name, w in zip("ab", (measured, copied), strict=True)
    ]
    summary = compare(*pairs).summary
    assert (summary["counts"]["relabelled"], summary["classes"]["table"]) == (1, [])
    assert summary["a"]["classes"] == 0
    assert next(column for column in summary["columns"] if column["name"] == "size")["changed"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file["label"].write_direct(np.full((7, 3), 2, "u1")), "its digest differs"),
        (
            lambda file: file.attrs.modify("version", np.uint32(4)),
            "has version 4 of the format, this imagepack reads 1 to 3",
        ),
        (lambda file: file.attrs.modify("version", np.uint32(2)), "label is of type uint8, not int32"),
        (lambda file: file.attrs.modify("label_kind", np.bytes_("numbers")), "label is of type uint8, not float32"),
        (lambda file: file.attrs.modify("label_kind", np.bytes_("masks")), "labels of a kind 'masks'"),
    ],
)
def test_a_pack_that_says_something_else_is_refused(several: Workspace, tmp_path: Path, change, said: str):
    shutil.copytree(several.packed, tmp_path / "packed")
    with h5py.File(tmp_path / "packed/dataset.h5", "r+") as file:
        change(file)
    with pytest.raises(PackError, match=said):
        PackedImages(tmp_path / "packed")


def test_labels_that_are_none_are_refused_whoever_made_them(several: Workspace, measured: Workspace):
    for workspace, wrong, said in ((several, 2, "label is not within 0 to 1"), (measured, np.nan, "no finite number")):
        index, _ = packs.read_index(workspace.packed / packs.INDEX_NAME)
        labels = index.labels.copy()
        labels[0, 0] = wrong
        with pytest.raises(ValueError, match=said):
            packs._require_sound(packs.Index(**vars(index) | {"labels": labels}))


def images_of(classes: dict[str, int], seed: int = 0, **columns) -> pl.DataFrame:
    """What a split may be chosen by: so many images of each class, with random hashes."""
    labels = [label for label, count in classes.items() for _ in range(count)]
    hashes = np.random.default_rng(seed).integers(0, 2**63, len(labels)).astype("u8")
    paths = [f"{label}/{n}.png" for n, label in enumerate(labels)]
    return pl.DataFrame({"path": paths, "label": labels, "hash": hashes} | columns)


def counts(images: pl.DataFrame, found: np.ndarray) -> dict[str, list[int]]:
    return {
        label: [int(((images["label"] == label).to_numpy() & (found == k)).sum()) for k in range(3)]
        for label in images["label"].unique(maintain_order=True)
    }


def test_stratified_splits_have_the_fractions_in_each_class():
    images = images_of({"cat": 100, "dog": 20, "emu": 3, "fox": 1})
    found = splits.stratified(images, 0.8, 0.1, 0.1)
    assert counts(images, found) == {"cat": [80, 10, 10], "dog": [16, 2, 2], "emu": [1, 1, 1], "fox": [1, 0, 0]}
    mixed = images.sample(fraction=1, shuffle=True, seed=1)
    again = dict(zip(mixed["path"], splits.stratified(mixed, 0.8, 0.1, 0.1), strict=True))
    assert again == dict(zip(images["path"], found, strict=True))
    halves = images_of({"cat": 7})
    assert counts(halves, splits.stratified(halves, 0, 0.5, 0.5)) == {"cat": [0, 3, 4]}


def test_pinned_images_stay_and_new_ones_make_up_for_them():
    given = [None] * 90 + ["test"] * 10 + [None] * 100
    images = images_of({"cat": 100, "dog": 100}, **{splits.SPLIT_COLUMN: given})
    found = splits.stratified(images, 0.8, 0.1, 0.1)
    assert (found[90:100] == 2).all()
    assert counts(images, found) == {"cat": [80, 10, 10], "dog": [80, 10, 10]}
    given = ["test"] * 50 + [None] * 150
    images = images.with_columns(pl.Series(splits.SPLIT_COLUMN, given))
    assert counts(images, splits.stratified(images, 0.8, 0.1, 0.1))["cat"] == [40, 10, 50]


def test_frames_of_a_file_stay_together():
    images = images_of({"film": 60}).with_columns(hash=pl.int_range(60, dtype=pl.UInt64) // 6)
    found = splits.stratified(images, 0.5, 0.25, 0.25)
    assert (found.reshape(10, 6) == found.reshape(10, 6)[:, :1]).all()
    assert counts(images, found)["film"] == [30, 12, 18]


def test_stratified_and_pinned_any_history_ends_in_the_same_pack(tmp_path: Path):
    workspace = Workspace(tmp_path / "grown")
    stratified = Split(stratify=True, train=0.6, val=0.2, test=0.2)
    for number in range(10):
        save(workspace.raw / f"{'cat' if number < 5 else 'dog'}/{number}.png", picture(number))
    first = run(workspace, stratified)
    assert card.counts(first).tolist() == [[3, 1, 1, 0]] * 2
    pin(workspace.raw, splits_of_pack(workspace.packed))
    for number in range(10, 15):
        save(workspace.raw / f"cat/{number}.png", picture(number))
    grown = run(workspace, stratified)
    assert card.counts(grown).tolist() == [[6, 2, 2, 0], [3, 1, 1, 0]]
    before = {first.path(i): int(first.splits[i]) for i in range(10)}
    assert before.items() <= {grown.path(i): int(grown.splits[i]) for i in range(15)}.items()
    from_nothing = Workspace(tmp_path / "from nothing")
    shutil.copytree(workspace.raw, from_nothing.raw)
    assert run(from_nothing, stratified).digest == grown.digest


def test_stratify_says_what_it_does_not_go_with(flat: Workspace):
    for other in ({"group": "batch"}, {"by": "folder"}):
        with pytest.raises(ValidationError, match="stratify goes with neither group nor by: folder"):
            Split(stratify=True, **other)
    with pytest.raises(
        InputError, match=r"pack.split.stratify is by class, and labels.kind is multilabel: set it to false"
    ):
        run(flat, Split(stratify=True), kind="multilabel", column="tags")


def test_labels_of_a_manifest_are_a_row_each(several: Workspace, measured: Workspace):
    table = manifests.read_accepted(several.manifest)
    assert manifests.by_label(table)["label"].value_counts().sort("label").rows() == [
        ("land", 2),
        ("sea", 3),
        ("sky", 4),
    ]
    assert manifests.by_label(manifests.read_accepted(measured.manifest)).is_empty()


def test_the_page_filters_by_each_label_and_not_by_numbers(flat: Workspace, browser: Browser):
    shutil.copy(flat.raw / "images/0.png", flat.raw / "images/2.png")  # sea and sky: a conflict
    shutil.copy(flat.raw / "images/5.png", flat.raw / "images/3.png")  # land, and none of the labels
    check(flat, kind="multilabel", column="tags")
    browser.open(flat.reports / "validation.html")
    assert browser.js("[...document.forms.filters.elements.class.options].map(option => option.value)") == [
        "",
        "land",
        "sea",
        "sky",
    ]
    seen = {}
    for label in ("land", "sea", "sky"):
        browser.choose("class", label)
        seen[label] = len(browser.visible())
    assert seen == {"land": 1, "sea": 1, "sky": 1}
    check(flat, kind="numbers", column="size")
    browser.open(flat.reports / "validation.html")
    assert browser.js("document.forms.filters.elements.class === undefined")
    assert browser.counted() == "Showing 2 of 2 cards"
