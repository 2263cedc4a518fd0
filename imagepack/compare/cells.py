"""What tables beside the images say in each version: which columns came and went, and whose cells differ."""

from collections.abc import Iterator

import polars as pl

from imagepack.compare.words import shorten
from imagepack.images.manifest import COLUMN

EXAMPLES = 1000
"""Images named for each column, the first by their path."""
WIDTH = 100
"""Columns of a terminal that a cell in a sentence takes; of a longer one the middle is left out."""
KINDS = {pl.Int64: "integer", pl.Float64: "number", pl.Boolean: "boolean", pl.Date: "date", pl.String: "text"}
EMPTY = "empty"
SPLIT = f"{COLUMN}split"
"""The column that gives splits, which a comparison counts by themselves."""
MOST_VALUES = 50
"""Different texts of a column that is taken for a category; of names, notes and ids most of what comes is new."""


def names(a: pl.DataFrame, b: pl.DataFrame) -> list[str]:
    """Return the columns of tables that either manifest has, sorted."""
    return sorted({name.removeprefix(COLUMN) for name in (*a.columns, *b.columns) if name.startswith(COLUMN)})


def changed(pairs: pl.DataFrame, a: pl.DataFrame, b: pl.DataFrame) -> Iterator[dict]:
    """Yield each column that differs, as schema.json has it.

    Args:
        pairs: row_a and row_b of each image.
        a, b: the manifests.
    """
    both = pairs.drop_nulls(["row_a", "row_b"])
    paths = {"path_a": a["path"][both["row_a"]], "path_b": b["path"][both["row_b"]]}
    for name in (f"{COLUMN}{name}" for name in names(a, b)):
        kinds = [KINDS[images[name].dtype.base_type()] if name in images.columns else None for images in (a, b)]
        found = {"name": name.removeprefix(COLUMN), "a": kinds[0], "b": kinds[1], "changed": 0, "images": []}
        if None not in kinds:
            cells = pl.DataFrame(paths | {"a": a[name][both["row_a"]], "b": b[name][both["row_b"]]})
            if kinds[0] != kinds[1]:
                cells = cells.with_columns(pl.col("a", "b").cast(pl.String))
            differing = cells.filter(pl.col("a").ne_missing(pl.col("b"))).sort("path_b", "path_a")
            found["changed"] = len(differing)
            for path_a, path_b, *values in differing.head(EXAMPLES).iter_rows():
                one, other = (EMPTY if value is None else shorten(str(value), WIDTH) for value in values)
                found["images"].append({"path_a": path_a, "path_b": path_b, "detail": f"{one} -> {other}"})
        if found["changed"] or kinds[0] != kinds[1]:
            yield found


def most_first(found: dict) -> tuple:
    """Return what sorts what `changed` yields: columns that came or went, then by how many cells differ."""
    return None not in (found["a"], found["b"]), -found["changed"], found["name"]


def with_drift(a: pl.DataFrame, b: pl.DataFrame, group: str | None) -> list[str]:
    """Return the columns that are tested for drift: numbers, true and false, and texts with few values.

    Not those of which something else is said (labels, splits), nor those of which most is new in whatever comes: the
    group's, running numbers, dates.

    Args:
        a, b: the manifests.
        group: `pack.split.group`.
    """
    left_out = {SPLIT, f"{COLUMN}{group}"}
    names = sorted({name for name in a.columns if name.startswith(COLUMN)} & {*b.columns} - left_out)
    return [name for name in names if _can_drift(*(_accepted(images, name) for images in (a, b)))]


def _accepted(images: pl.DataFrame, name: str) -> pl.DataFrame:
    return images.filter(pl.col("status") == "accepted").select("label", cell=name)


def _can_drift(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    cells = a["cell"], b["cell"]
    if all(each.dtype.is_numeric() for each in cells):
        return not all(map(_is_running_number, cells))
    if cells[0].dtype != cells[1].dtype or cells[0].dtype not in (pl.String, pl.Boolean):
        return False
    texts = pl.concat([a, b]).with_columns(pl.col("cell").cast(pl.String))
    is_label = (texts["cell"] == texts["label"]).all(ignore_nulls=False)
    return not is_label and texts["cell"].n_unique() <= MOST_VALUES


def _is_running_number(cells: pl.Series) -> bool:
    known = cells.drop_nulls()
    return known.dtype == pl.Int64 and len(known) > 1 and known.n_unique() == len(known)
