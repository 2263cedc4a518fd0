"""What Hugging Face's `datasets` wrote into a Parquet file of its columns, and which columns a table can have."""

import io
import json
from pathlib import Path

import polars as pl


def features_of(file: Path | io.BytesIO) -> dict:
    """Return what `datasets` wrote of the columns; empty where another program made the file."""
    try:
        return dict(json.loads(pl.read_parquet_metadata(file)["huggingface"])["info"]["features"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def class_names(features: dict) -> dict[str, list[str]]:
    """Return the names of the classes in columns of ClassLabel, one or a list of them, by column."""
    found = {}
    for column, feature in features.items():
        while isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        feature = feature[0] if isinstance(feature, list) and feature else feature
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature:
            found[column] = feature["names"]
    return found


def is_cell(kind: pl.DataType) -> bool:
    """Return whether a cell of metadata.csv can hold such a value."""
    if isinstance(kind, pl.List):
        return is_text(kind.inner) or kind.inner.is_integer()
    return is_text(kind) or kind in (pl.Boolean, pl.Date, pl.Null) or kind.is_numeric()


def is_text(kind: pl.DataType) -> bool:
    """Return whether it is text, in some way of keeping it."""
    return kind in (pl.String, pl.Categorical, pl.Enum)


def has_numbers(kind: pl.DataType) -> bool:
    """Return whether a cell has several numbers."""
    return isinstance(kind, pl.List | pl.Array) and kind.inner.is_float()


def named(cell: int | list | None, names: list[str]) -> str | int | list | None:
    """Return the name of a class, or of each of several; None for -1, by which `datasets` says that it has none."""
    if isinstance(cell, list):
        found = [named(each, names) for each in cell]
        return None if cell and all(each is None for each in found) else [each for each in found if each is not None]
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None if cell == -1 else cell
