"""What tables beside the images say of them: labels, and what does not fit together."""

import unicodedata

import polars as pl

from imagepack.checks import labels
from imagepack.checks.labels import Predicted
from imagepack.images import manifest as manifests
from imagepack.images import pins
from imagepack.images.tables import Table
from imagepack.names import visible

Finding = tuple[str, str, str, str]
"""As in validation.py."""


def with_pins(facts: pl.DataFrame, pinned: pl.DataFrame) -> pl.DataFrame:
    """Put the split of pinned images (pins.py) where the tables' column `split` is empty, or missing."""
    if pinned.is_empty():
        return facts
    name = f"{manifests.COLUMN}split"
    kept = pins.splits_of(pinned, facts)
    said = facts[name].cast(pl.String) if name in facts.columns else pl.Series([None], dtype=pl.String)
    return facts.with_columns(pl.select(pl.coalesce(said, kept)).to_series().alias(name))


def join(facts: pl.DataFrame, table: Table, predicted: Predicted) -> tuple[pl.DataFrame, list[Finding]]:
    """Add the tables' columns to the facts, and take from them what is predicted.

    Args:
        facts: a row an image.
        predicted: which columns that is; none where it is the folder.

    Returns:
        The facts, and findings: images without a row or a label, labels that differ from the folder's, rows without an
        image.
    """
    found = [(name, "row_without_image", f"line {line}: {file}", "") for name, line, file in table.without_image]
    if not table.rows.width > 1:
        return facts, found
    named = table.rows.rename({name: f"{manifests.COLUMN}{name}" for name in table.rows.columns[1:]})
    named = named.rename({"path": "file"}).with_columns(has_row=True)
    joined = facts.with_columns(file=manifests.FILE).join(named, on="file", how="left", maintain_order="left")
    rows = joined.select("path", "file", "label", "has_row").iter_rows()
    without = {path for path, file, _, has in rows if not has and table.covered(file)}
    if predicted.columns:
        joined, of_labels = labels.take(joined, predicted)
        found += of_labels
    else:
        found += [(path, "no_row", "no table has a row of it", "") for path in sorted(without)]
    return joined.drop("file", "has_row"), found


def similar_classes(labels: pl.Series) -> list[Finding]:
    """Find classes whose names are the same but for case, spaces or accents, all but the most frequent."""
    counts = labels.filter(labels != "").value_counts(name="images").sort("images", "label", descending=[True, False])
    first: dict[str, str] = {}
    return [
        (label, "similar_class_names", f"{first[key]} is nearly the same name", "")
        for label in counts["label"]
        if first.setdefault(key := _key(label), label) != label
    ]


def _key(label: str) -> str:
    bare = "".join(each for each in unicodedata.normalize("NFKD", label) if not unicodedata.combining(each))
    return "".join(each for each in bare.casefold() if each.isalnum()) or label


def unclaimed(table: pl.DataFrame) -> str:
    """Return a note about files that look like tables and that nobody reads; empty if there are none."""
    names = table.filter(pl.col("path").str.to_lowercase().str.contains(r"\.(csv|tsv|jsonl|parquet|xlsx)$"))["path"]
    if names.is_empty():
        return ""
    shown = ", ".join(map(visible, names.head(3))) + (" and more" if len(names) > 3 else "")
    return f"{shown}: no image. A table about images is called metadata.csv, with a column file_name (docs/tables.md)"
