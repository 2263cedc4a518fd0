"""What tables beside the images say in each version: which columns came and went, and whose cells differ."""

from collections.abc import Iterator

import polars as pl

from imagepack.images.manifest import COLUMN

EXAMPLES = 20
"""Images named for each column, the first by their path."""
KINDS = {pl.Int64: "integer", pl.Float64: "number", pl.Boolean: "boolean", pl.Date: "date", pl.String: "text"}


def changed(pairs: pl.DataFrame, a: pl.DataFrame, b: pl.DataFrame) -> Iterator[dict]:
    """Yield each column that differs, as schema.json has it.

    Args:
        pairs: row_a and row_b of each image.
        a, b: the manifests.
    """
    both = pairs.drop_nulls(["row_a", "row_b"])
    paths = {"path_a": a["path"][both["row_a"]], "path_b": b["path"][both["row_b"]]}
    names = sorted({name for images in (a, b) for name in images.columns if name.startswith(COLUMN)})
    for name in names:
        kinds = [KINDS[images[name].dtype.base_type()] if name in images.columns else None for images in (a, b)]
        found = {"name": name.removeprefix(COLUMN), "a": kinds[0], "b": kinds[1], "changed": 0, "images": []}
        if None not in kinds:
            cells = pl.DataFrame(paths | {"a": a[name][both["row_a"]], "b": b[name][both["row_b"]]})
            if kinds[0] != kinds[1]:
                cells = cells.with_columns(pl.col("a", "b").cast(pl.String))
            differing = cells.filter(pl.col("a").ne_missing(pl.col("b"))).sort("path_b", "path_a")
            found["changed"] = len(differing)
            for path_a, path_b, *values in differing.head(EXAMPLES).iter_rows():
                one, other = ("empty" if value is None else str(value) for value in values)
                found["images"].append({"path_a": path_a, "path_b": path_b, "detail": f"{one} -> {other}"})
        if found["changed"] or kinds[0] != kinds[1]:
            yield found
