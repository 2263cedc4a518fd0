"""What tables beside the images say of them: labels, and what does not fit together."""

import unicodedata

import polars as pl

from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images import pins
from imagepack.images.tables import Table
from imagepack.names import visible

Finding = tuple[str, str, str, str]
"""As in validation.py."""
LONGEST_LABEL = 200
"""Bytes: files are named after classes."""


def require_label_column(table: Table, column: str) -> None:
    """Refuse labels from a column that no table has, or of which no classes can be made; an empty text is no column.

    Raises:
        InputError: what there is.
    """
    if not column:
        return
    kinds = dict(table.rows.drop("path").schema)
    if column not in kinds:
        has = f"they have {', '.join(map(visible, kinds))}" if kinds else "there is none: docs/tables.md"
        raise InputError(f"labels.column in params.yaml is {column!r}, and no table beside the images has it; {has}")
    if kinds[column] not in (pl.String, pl.Int64, pl.Boolean):
        raise InputError(
            f"labels.column in params.yaml is {column!r}, whose cells are {kinds[column]}, and classes are texts or "
            "whole numbers: set its type in labels.types, or leave labels.column empty and predict it by with_target"
        )


def with_pins(facts: pl.DataFrame, pinned: pl.DataFrame) -> pl.DataFrame:
    """Put the split of pinned images (pins.py) where the tables' column `split` is empty, or missing."""
    if pinned.is_empty():
        return facts
    name = f"{manifests.COLUMN}split"
    kept = pins.splits_of(pinned, facts)
    said = facts[name].cast(pl.String) if name in facts.columns else pl.Series([None], dtype=pl.String)
    return facts.with_columns(pl.select(pl.coalesce(said, kept)).to_series().alias(name))


def join(facts: pl.DataFrame, table: Table, column: str) -> tuple[pl.DataFrame, list[Finding]]:
    """Add the tables' columns to the facts, and take the labels from one of them.

    Args:
        facts: a row an image.
        column: whose cells are the labels; empty where the folders' names are.

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
    if column:
        labels, of_labels = _labels(joined, f"{manifests.COLUMN}{column}")
        joined = joined.with_columns(labels)
        found += of_labels
    else:
        found += [(path, "no_row", "no table has a row of it", "") for path in sorted(without)]
    return joined.drop("file", "has_row"), found


def _labels(joined: pl.DataFrame, column: str) -> tuple[pl.Series, list[Finding]]:
    """Return the labels of images, empty where there is none that can be used; and what is wrong."""
    cells = joined[column].cast(pl.String).to_list()
    faults = {cell: _fault(cell) for cell in set(cells)}
    usable = {cell for cell, fault in faults.items() if not fault}
    found = []
    for path, folder, has, cell in zip(joined["path"], joined["label"], joined["has_row"], cells, strict=True):
        if cell not in usable:
            found.append((path, "no_cell", faults[cell] if has else "no table has a row of it", ""))
        elif folder in usable and folder != cell:
            found.append((path, "label_mismatch", f"{cell} in the table, {folder} by its folder", ""))
    return pl.Series("label", [cell if cell in usable else "" for cell in cells], dtype=pl.String), found


def _fault(label: str | None) -> str:
    """Return why it cannot be a class's name; empty if it can."""
    if not label or not label.strip():
        return "its cell in labels.column is empty"
    if "/" in label or label in (".", "..") or len(label.encode()) > LONGEST_LABEL or not label.isprintable():
        return f"{visible(label[:50])!r} cannot be the name of a class, after which files are named"
    return ""


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
