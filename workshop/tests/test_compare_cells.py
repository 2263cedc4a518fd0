"""What was done to the cells of tables, to groups and to the splits of unpinned images is found, and nothing else."""

import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Project, picture, save
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from summaries import VALIDATOR
from test_drift import images as drawn
from test_drift import matched

from imagepack import PackedImages
from imagepack.checks import table_checks
from imagepack.checks.labels import Predicted
from imagepack.compare import cells, gates, markdown, page, terminal, words
from imagepack.compare.comparison import Comparison, compare
from imagepack.compare.drift import ALPHA, drift
from imagepack.compare.versions import Pack, Version
from imagepack.dvc.lock_files import Stage
from imagepack.images import tables
from imagepack.images.manifest import FACTS
from imagepack.reader.format import SPLITS

ANCHOR = "cat/anchor.png"
"""Its row is never touched, so that the types of columns stay as they are."""
FIRST = {
    "kind": "cat", "age": 1, "size": 0.5, "ill": True, "seen": date(2024, 1, 1), "note": 'two\nlines, "quoted" =1+1',
}  # fmt: skip
VALUES: dict[str, Callable[[int], object]] = {
    "age": lambda n: n % 90,
    "size": lambda n: n / 8,
    "ill": lambda n: n % 2 == 0,
    "seen": lambda n: date(2024, 1, 1) + timedelta(days=n),
    "note": lambda n: ("a, b", 'the "first"', "two\nlines", "=1+1", "Été")[n % 5] + str(n),
}
"""A cell of each column by a number."""


@dataclass
class History:
    """Two versions, what each says of its images, and what was done in between.

    Attributes:
        a, b: by path: which picture it is, and its row by column; None without a cell.
        cells: of each column, path in A, path in B and both cells of those that differ.
        came, gone: columns.
        kinds: kind, path_a, path_b of every image that is not unchanged.
    """

    a: dict[str, tuple[int, dict]]
    b: dict[str, tuple[int, dict]]
    cells: dict[str, set[tuple]] = field(default_factory=dict)
    came: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    kinds: set[tuple] = field(default_factory=set)

    def set(self, path: str, column: str, value: object) -> None:
        """Set a cell of B."""
        number, row = self.b[path]
        self.cells.setdefault(column, set()).add((path, path, row[column], value))
        self.b[path] = number, row | {column: value}


def changed(history: History, path: str, column: str, new: int) -> None:
    row = history.b[path][1]
    values = (VALUES[column](number) for number in range(new, new + 10))
    history.set(path, column, next(value for value in values if value != row[column]))


def emptied_or_filled(history: History, path: str, column: str, new: int) -> None:
    has = history.b[path][1][column] is not None
    history.set(path, column, None if has else VALUES[column](new))


def relabelled(history: History, path: str, column: str, new: int) -> None:
    """By the table alone."""
    old = history.b[path][1]["kind"]
    history.set(path, "kind", "dog" if old == "cat" else "cat")
    history.kinds.add(("relabelled", path, path))


def renamed(history: History, path: str, column: str, new: int) -> None:
    """With its row, which says the same."""
    history.b[path.replace("img", "new")] = history.b.pop(path)
    history.kinds.add(("moved", path, path.replace("img", "new")))


def renamed_and_changed(history: History, path: str, column: str, new: int) -> None:
    changed(history, path, column, new)
    to = path.replace("img", "new")
    ((*_, old, value),) = (each for each in history.cells[column] if each[0] == path)
    history.cells[column] = {each for each in history.cells[column] if each[0] != path} | {(path, to, old, value)}
    renamed(history, path, column, new)


def added(history: History, path: str, column: str, new: int) -> None:
    history.b[f"cat/img{new}.png"] = (new, row_of(new))
    history.kinds.add(("added", None, f"cat/img{new}.png"))


def removed(history: History, path: str, column: str, new: int) -> None:
    del history.b[path]
    history.kinds.add(("removed", path, None))


EDITS = [changed, emptied_or_filled, relabelled, renamed, renamed_and_changed, added, removed]


def row_of(number: int) -> dict:
    rng = random.Random(number)
    drawn_row = {name: value(number) if rng.random() < 0.8 else None for name, value in VALUES.items()}
    return {"kind": rng.choice(["cat", "dog"])} | drawn_row


def history_of(edits: list[tuple[Callable, str]], untouched: int, came: bool, gone: str) -> History:
    """Each edit done to an image of its own; then a column that comes, and one that goes."""
    count = len(edits) + untouched
    before = {f"cat/img{n}.png": (n, row_of(n)) for n in range(count)} | {ANCHOR: (10**6, FIRST)}
    history = History(dict(before), dict(before))
    for n, (edit, column) in enumerate(edits):
        edit(history, f"cat/img{n}.png", column, count + n)
    if came:
        history.b = {path: (n, row | {"site": f"s{n % 3}"}) for path, (n, row) in history.b.items()}
        history.came = {"site"}
    if gone:
        history.b = {path: (n, {k: v for k, v in row.items() if k != gone}) for path, (n, row) in history.b.items()}
        history.gone = {gone}
        history.cells.pop(gone, None)
    return history


HISTORIES = st.builds(
    history_of,
    st.lists(st.tuples(st.sampled_from(EDITS), st.sampled_from(sorted(VALUES))), max_size=15),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(["", "", "age", "note"]),
)


def version(name: str, images: pl.DataFrame, group: str = "none", by: str = "auto", packed: bool = True) -> Version:
    params = {"params.yaml": {"pack": {"split": {"group": group, "by": by}}}}
    pack = Pack(name * 32, {}, 0) if packed else None
    return Version(name, None, None, None, images, pack, {"pack": Stage(params=params)}, None, {}, [], {})


def facts(pictures: dict[str, tuple[int, dict]]) -> pl.DataFrame:
    """What the manifest would say of these files, in an order that says nothing, but for what tables do."""
    rows = []
    for path, (number, _) in pictures.items():
        known = {"path": path, "label": path.split("/")[-2], "batch": "", "sha256": f"{number:064x}", "frame": 1}
        noise = np.random.default_rng(number).bytes(32).hex()
        rows.append(known | {"pixel_hash": f"{number:032x}", "perceptual_hash": noise, "bytes": 1000})
    random.Random(len(rows)).shuffle(rows)
    return pl.DataFrame(rows, schema=FACTS)


def with_results(images: pl.DataFrame) -> pl.DataFrame:
    none = pl.lit([], pl.List(pl.String))
    return images.with_columns(
        status=pl.lit("accepted"), issues=none, seen=none, group=pl.lit(""), split=pl.lit("train")
    ).drop("signature")


def written(raw: Path, pictures: dict[str, tuple[int, dict]]) -> pl.DataFrame:
    """The manifest of files whose labels and more stand in metadata.csv; its rows and columns are shuffled."""
    raw.mkdir()
    order = random.Random(str(raw))
    columns = order.sample(names := list(pictures[ANCHOR][1]), len(names))
    with (raw / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file_name", *columns])
        for path, (_, row) in order.sample(list(pictures.items()), len(pictures)):
            cells = (row[name] for name in columns)
            out.writerow([path, *("" if cell is None else str(cell) for cell in cells)])
    beside = tables.read(raw, ["metadata.csv"], pictures, {})
    return with_results(table_checks.join(facts(pictures), beside, Predicted.of("class", "kind"))[0])


def compared(a: pl.DataFrame, b: pl.DataFrame, **settings_of_b) -> Comparison:
    """The comparison, in accordance with the schema."""
    found = compare(version("a", a, **(settings_of_b | {"group": settings_of_b.pop("group_of_a", "none")})),
                    version("b", b, **settings_of_b))  # fmt: skip
    VALIDATOR.validate(found.summary | {"changes": found.changes.to_dicts()})
    return found


@settings(max_examples=30, deadline=None)
@given(HISTORIES)
def test_every_change_of_a_cell_is_found_and_no_other(tmp_path_factory: pytest.TempPathFactory, history: History):
    folder = tmp_path_factory.mktemp("history")
    found = compared(written(folder / "a", history.a), written(folder / "b", history.b))
    columns = {column["name"]: column for column in found.summary["columns"]}
    assert {name for name, column in columns.items() if column["a"] is None} == history.came
    assert {name for name, column in columns.items() if column["b"] is None} == history.gone
    shown = {name: {(i["path_a"], i["path_b"], i["detail"]) for i in c["images"]} for name, c in columns.items()}
    planted = {
        name: {(a, b, " -> ".join("empty" if cell is None else str(cell) for cell in two)) for a, b, *two in edits}
        for name, edits in history.cells.items()
    }
    assert {name: images for name, images in shown.items() if images} == planted
    assert all(column["changed"] == len(column["images"]) for column in columns.values())
    assert set(found.changes.select("kind", "path_a", "path_b").iter_rows()) == history.kinds


def numbered(count: int, seed: int, **columns) -> pl.DataFrame:
    """A manifest of images without drift, with columns of tables."""
    return drawn(count, seed).with_columns(**{f"column:{name}": pl.Series(cells) for name, cells in columns.items()})


def alarms(a: pl.DataFrame, b: pl.DataFrame, group: str | None = None) -> set[tuple[str, str]]:
    found = drift(a, b, matched(a, b), columns=cells.with_drift(a, b, group))
    return {(test["feature"], test["scope"]) for test in found["features"] if test["drifted"]}


def columns_of(count: int, seed: int) -> dict:
    """Cells of one distribution: a number, a number with few values, a text, true and false, some of them empty."""
    rng = np.random.default_rng(seed)
    few = [None if rng.random() < 0.1 else int(n) for n in rng.integers(0, 3, count)]
    return {
        "size": rng.normal(50, 10, count),
        "grade": pl.Series(few, dtype=pl.Int64),
        "site": rng.choice(["north", "south", "east", ""], count).tolist(),
        "ill": pl.Series((rng.random(count) < 0.3).tolist()),
    }


def test_a_column_that_drifts_is_named_and_no_other():
    a = numbered(1000, 1, **columns_of(1000, 1))
    more = columns_of(300, 2)
    came = numbered(300, 2, **more)
    assert alarms(a, pl.concat([a, came])) == set()
    for name, other in {
        "size": more["size"] + 15,
        "site": ["west"] * 300,
        "ill": [True] * 300,
        "grade": [2] * 300,
    }.items():
        b = pl.concat([a, numbered(300, 2, **more | {name: other})])
        found = alarms(a, b)
        assert (f"column:{name}", "added") in found
        assert {feature for feature, _ in found} == {f"column:{name}"}


def test_empty_cells_are_a_value_of_texts_and_none_of_numbers():
    a = numbered(1000, 1, **columns_of(1000, 1))
    gone = columns_of(300, 2) | {
        "site": pl.Series([None] * 300, dtype=pl.String),
        "size": pl.Series([None] * 300, dtype=pl.Float64),
    }
    assert {feature for feature, _ in alarms(a, pl.concat([a, numbered(300, 2, **gone)]))} == {"column:site"}


def test_cells_changed_in_one_direction_drift_although_each_image_stayed():
    a = numbered(600, 1, **columns_of(600, 1))
    first = pl.int_range(pl.len()) < 200
    b = a.with_columns(pl.when(first).then(pl.lit("north")).otherwise("column:site").alias("column:site"))
    assert alarms(a, b) == {("column:site", "all")}
    b = a.with_columns(pl.when(first).then(pl.col("column:size") + 40).otherwise("column:size").alias("column:size"))
    assert alarms(a, b) == {("column:size", "all"), ("column:size", "class")}


@pytest.mark.slow
def test_cells_drawn_anew_raise_no_more_alarms_than_claimed():
    """Numbers with three values and texts: a cell that differs has two values that are unlike by definition."""
    comparisons, below = 150, dict.fromkeys(["column:size", "column:grade", "column:site", "column:ill"], 0)
    for seed in range(comparisons):
        a = numbered(1000, seed, **columns_of(1000, seed))
        b = pl.concat([numbered(300, seed, **columns_of(300, 1000 + seed)), a[300:]])
        b = b.with_columns(a.select("path", "pixel_hash", "label"))
        found = drift(a, b, matched(a, b), columns=cells.with_drift(a, b, None))
        for test in found["features"]:
            if test["scope"] == "all" and test["feature"] in below:
                below[test["feature"]] += test["p"] <= 0.05
    assert all(count <= binom.ppf(0.9995, comparisons, 0.05) for count in below.values()), below
    assert below["column:site"] >= binom.ppf(0.0005, comparisons, 0.03)
    assert below["column:size"] >= binom.ppf(0.0005, comparisons, 0.03)


@pytest.mark.slow
def test_with_columns_too_a_comparison_raises_any_alarm_with_the_claimed_chance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("imagepack.compare.drift.LEAST_EFFECT", 0)
    comparisons, falsely = 60, 0
    for seed in range(comparisons):
        a = numbered(500, seed, **columns_of(500, seed))
        falsely += bool(alarms(a, pl.concat([a, numbered(200, 1000 + seed, **columns_of(200, 1000 + seed))])))
    assert falsely <= binom.ppf(0.999, comparisons, ALPHA)


def test_what_is_new_by_its_nature_is_not_tested():
    def images(first: int, count: int) -> pl.DataFrame:
        numbers = range(first, first + count)
        return numbered(
            count, first, patient=[f"p{n // 20}" for n in numbers], number=list(numbers),
            taken=[date(2024, 1, 1) + timedelta(days=n) for n in numbers], note=[f"note {n}" for n in numbers],
            split=["train"] * count,
        ).with_columns(pl.col("label").alias("column:kind"))  # fmt: skip

    a = images(1, 400)
    assert cells.with_drift(a, images(401, 400), "patient") == []
    assert cells.with_drift(a, images(401, 400), None) == ["column:patient"]
    other = images(401, 400).with_columns(pl.lit(1).alias("column:note"))
    assert cells.with_drift(a, other, "patient") == []


def grouped(splits: dict[str, str], group: int = 2) -> pl.DataFrame:
    """Images of some patients, by path and split."""
    rows = {path: (int(path[8:-4]), {"kind": "cat", "patient": f"p{int(path[8:-4]) // group}"}) for path in splits}
    images = with_results(facts(rows)).with_columns(pl.lit("cat").alias("column:kind"))
    number = pl.col("path").str.extract(r"(\d+)").cast(pl.Int64)
    return images.with_columns(
        pl.format("p{}", number // group).alias("column:patient"),
        split=pl.col("path").replace_strict(splits, return_dtype=pl.String),
    )


def in_splits(*splits: str) -> dict[str, str]:
    return {f"cat/img{number:04}.png": split for number, split in enumerate(splits)}


def test_groups_that_went_to_another_split_or_are_in_several_are_named():
    a = grouped(in_splits("train", "train", "test", "test", "val", "val"))
    b = grouped(in_splits("train", "test", "train", "train", "val", "excluded"))
    found = compared(a, b, group="patient").summary
    assert found["groups"] == {
        "by": "patient", "a": 3, "b": 3, "moved": [{"group": "p1", "from": "test", "to": "train", "images": 2}],
        "split": [{
            "group": "p0", "splits": {"train": 1, "test": 1}, "images": ["cat/img0000.png", "cat/img0001.png"],
        }],
    }  # fmt: skip
    assert list(words.parted_groups(found["groups"])) == ["p0 (train 1, test 1)"]
    assert list(words.moved_groups(found["groups"])) == ["p1 (test -> train, 2 images)"]


def test_whoever_gives_groups_up_sees_what_that_parts_and_who_has_none_has_nothing_to_see():
    a = grouped(in_splits("train", "train", "test", "test"))
    b = grouped(in_splits("train", "test", "test", "test"))
    found = compared(a, b, group_of_a="patient")
    (failure,) = gates.check(found.summary, found.changes, ["group_split"])
    assert failure.message == "group_split: 1 group in several splits: p0 (train 1, test 1)"
    assert "1 group in several splits" in terminal.text(found.summary, found.changes)
    assert gates.check(compared(b, a, group="patient").summary, found.changes, ["group_split"]) == []
    none = compared(a, b)
    assert none.summary["groups"]["by"] is None
    assert gates.check(none.summary, none.changes, ["group_split"]) == []


@pytest.mark.parametrize(
    ("b", "settings_of_b", "count"),
    [
        (grouped(in_splits("train", "val", "test", "excluded", "train")), {}, 2),
        (grouped(in_splits("train", "val", "test", "excluded", "train")), {"by": "folder"}, 0),
        (grouped(in_splits("train", "train", "test", "test", "val")).with_columns(
            pl.Series("column:split", ["train"] * 5)), {}, 0),
        (grouped(in_splits("test", "test", "test", "test", "val")), {}, 0),
    ],
    ids=["drawn anew", "by folder", "given by a table", "as before"],
)  # fmt: skip
def test_images_of_test_that_nothing_pins_and_that_are_trained_on_now_are_named(b, settings_of_b, count: int):
    a = grouped(in_splits("test", "test", "test", "test", "train"))
    found = compared(a, b, **settings_of_b)
    unpinned = found.summary["splits"]["unpinned"]
    assert len(unpinned) == count
    said = terminal.text(found.summary, found.changes)
    assert ("2 images of test came into train or val, since nothing pins them: python3 run.py pin a" in said) == (
        count > 0
    )


@pytest.mark.parametrize("name", ["v1", "workspace", "a b", "$(id)", "x;y"])
def test_the_version_to_pin_is_named_as_a_shell_would_take_it(name: str):
    command = {"v1": "pin v1,", "workspace": "pin,"}.get(name, "pin A,")
    assert f"since nothing pins it: python3 run.py {command}" in words.unpinned(1, name)


def test_every_output_says_which_cells_changed(tmp_path: Path):
    a = grouped(in_splits(*["train"] * 4))
    b = a.with_columns(
        pl.when(pl.col("path").str.contains("0002"))
        .then(pl.lit("<script>x"))
        .otherwise("column:patient")
        .alias("column:patient")
    )
    found = compared(a, b)
    said = terminal.text(found.summary, found.changes)
    assert "the same 4 images, but 1 cell of tables differs" in said
    assert "patient: 1 cell: cat/img0002.png (p1 -> <script>x)" in said
    comment = markdown.text(found.summary, found.changes)
    assert "Columns of tables:\n\n- `patient: 1 cell`\n" in comment
    assert "- `cat/img0002.png`: `patient` `p1 -> <script>x`" in comment
    page.write(tmp_path / "page.html", found.summary, found.changes, {})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="columns"' in text
    assert "p1 -&gt; &lt;script&gt;x" in text
    assert text.count("<script>") == 1


@pytest.mark.slow
def test_an_image_of_test_that_was_saved_again_is_named_by_compare_and_doctor_and_goes_back(
    new_project: Callable[[], Project],
):
    """The commands as one types them, with a table whose column is the label, until the split is v1's again."""
    project = new_project()
    raw = project.folder / "data/raw"
    for number in range(16):
        save(raw / f"images/{number}.png", picture(number))
    rows = "".join(f"images/{n}.png,{'cat' if n % 2 else 'dog'},{n / 4}\n" for n in range(16))
    (raw / "metadata.csv").write_text(f"file_name,kind,size\n{rows}", encoding="utf-8")
    params = (project.folder / "params.yaml").read_text(encoding="utf-8").replace('column: ""', "column: kind")
    thirds = {"train: 0.8": "train: 0.34", "val: 0.1": "val: 0.33", "test: 0.1": "test: 0.33"}
    for one, other in thirds.items():
        params = params.replace(one, other)
    project.write("params.yaml", params)
    run(project)
    project.commit("First version")
    project("git", "tag", "v1")
    before = splits(project)
    tested = sorted(path for path, split in before.items() if split == "test")
    for path in tested:
        save(raw / path, picture(int(Path(path).stem)), compress_level=1)
    (raw / "metadata.csv").write_text(f"file_name,kind,size\n{rows.replace('2.5', '25')}", encoding="utf-8")
    run(project)
    left = [path for path in tested if splits(project)[path] in ("train", "val")]
    assert left
    count = f"{len(left)} image{'s' * (len(left) > 1)} of test came into train or val, since nothing pins "
    said = project("python", "-m", "imagepack.commands.compare", "v1", "--json", "c.json")
    assert f"Unpinned  {count}" in said
    assert "Columns   size: 1 cell: images/10.png (2.5 -> 25.0)" in said
    assert [i["path_b"] for i in json.loads((project.folder / "c.json").read_text())["splits"]["unpinned"]] == left
    asked = project("python", "-m", "imagepack.commands.doctor", ok=None)
    assert f"hint     splits: {count}" in asked
    assert "python3 run.py pin v1, then python3 run.py, and " in asked
    assert "16 images keep their split" in project("python", "-m", "imagepack.commands.pin", "v1")
    run(project)
    assert splits(project) == before
    assert "Unpinned" not in project("python", "-m", "imagepack.commands.compare", "v1")
    asked = project("python", "-m", "imagepack.commands.doctor", ok=None)
    assert "ok       splits: no unpinned image of test came into train or val since v1" in asked


def run(project: Project) -> None:
    project("dvc", "add", "data/raw")
    project("dvc", "repro", "pack")


def splits(project: Project) -> dict[str, str]:
    packed = PackedImages(project.folder / "data/packed")
    return {packed.path(i): SPLITS[split] for i, split in enumerate(packed.splits)}
