"""What is predicted, taken from tables beside the images: one class an image, several labels, or numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images.manifest import LABEL, NO_LABELS, NUMBER, SEPARATOR
from imagepack.images.raw_files import MOST_LISTED, listing
from imagepack.images.tables import BOOLEANS, Table
from imagepack.names import visible

Finding = tuple[str, str, str, str]
"""As in validation.py."""
LONGEST_NAME = 200
"""Bytes: files are named after classes."""
EMPTY = "its cell in labels.column is empty"
NO_ROW = "no table has a row of it"


@dataclass(frozen=True)
class Predicted:
    """What the section `labels` of params.yaml says.

    Attributes:
        kind: class, multilabel or numbers.
        columns: of tables; none where folders are the classes.
        in_cells: multilabel only: the labels stand in the cells of one column; else each column is a label.
    """

    kind: str
    columns: tuple[str, ...]
    in_cells: bool = False

    @classmethod
    def of(cls, kind: str, column: str | list[str]) -> "Predicted":
        """Return what `labels.kind` and `labels.column` say."""
        columns = tuple(column) if isinstance(column, list) else tuple(filter(None, [column]))
        return cls(kind, columns, kind == "multilabel" and isinstance(column, str))


BY_FOLDER = Predicted("class", ())


def require_names(column: object) -> object:
    """Return `labels.column`, if it is a name or several.

    Raises:
        ValueError: it is neither, for a message about params.yaml.
    """
    several = isinstance(column, list)
    names = column if several else [column]
    if not names or not all(isinstance(name, str) and (name or not several) for name in names):
        raise ValueError(f"must be the name of a column, or a list of names such as [cat, dog], is {column!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names a column twice: {', '.join(twice)}")
    return column


def require_columns(kind: str, column: str | list[str]) -> None:
    """Refuse columns that do not go with a kind of labels.

    Raises:
        ValueError: for a message about params.yaml.
    """
    if kind == "class" and isinstance(column, list):
        raise ValueError(
            "kind class takes one column, and no list: set kind to multilabel, if each column is a label, or to numbers"
        )
    if kind != "class" and not column:
        raise ValueError(f"kind {kind} needs column: the name of a column of a table, or a list of names")


def require_usable(table: Table, predicted: Predicted) -> None:
    """Refuse columns that no table has, or whose cells are not what is to be predicted.

    Raises:
        InputError: all faults, cells with table and line.
    """
    kinds = dict(table.rows.drop("path").schema)
    if missing := [name for name in predicted.columns if name not in kinds]:
        has = f"they have {', '.join(map(visible, kinds))}" if kinds else "there is none: docs/tables.md"
        wanted = ", ".join(map(repr, missing))
        raise InputError(f"labels.column in params.yaml is {wanted}, and no table beside the images has it; {has}")
    faults = [fault for name in predicted.columns for fault in _faults(table, predicted, name)]
    if faults:
        raise InputError(listing(f"labels in params.yaml, of kind {predicted.kind}, does not fit:", faults))


def _faults(table: Table, predicted: Predicted, name: str) -> Iterator[str]:
    """Yield what is wrong with a column."""
    kind, shown = table.rows.schema[name], visible(name)
    if predicted.kind == "class" or predicted.in_cells:
        if kind not in (pl.String, pl.Int64, pl.Boolean):
            numbers = ": set its type in labels.types, or predict it by labels.kind: numbers" * (kind == pl.Float64)
            yield f"{shown}: its cells are {kind}, and classes are texts or whole numbers{numbers}"
        return
    if fault := fault_of_name(name):
        yield f"the column {fault}"
    if predicted.kind == "numbers":
        wrong, what = _not_numbers(table.rows[name]), "is no number"
    else:
        wrong, what = _not_yes_or_no(table.rows[name]), "is neither 0 nor 1, true nor false"
    for number, (path, cell) in enumerate(table.rows.filter(wrong).select("path", name).iter_rows()):
        place = table.place(path, name) if number < MOST_LISTED else path  # to look a place up takes its time
        yield f"{place}: {shown} {what}: {visible(repr(cell)[:50])}"


def _not_numbers(column: pl.Series) -> pl.Series:
    if column.dtype in (pl.Int64, pl.Float64, pl.Boolean):
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    numbers = column.cast(pl.Float64, strict=False) if column.dtype == pl.String else None
    return column.is_not_null() & (numbers.is_null() if numbers is not None else True)


def _not_yes_or_no(column: pl.Series) -> pl.Series:
    return column.is_not_null() & _yes_or_no(column).is_null()


def _yes_or_no(column: pl.Series) -> pl.Series:
    """Return Boolean; null where the cell is empty or something else."""
    if column.dtype == pl.Boolean:
        return column
    if column.dtype in (pl.Int64, pl.Float64):
        return pl.select(pl.when((column == 0) | (column == 1)).then(column == 1)).to_series()
    texts = column.cast(pl.String).str.to_lowercase()
    return texts.replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)


def take(joined: pl.DataFrame, predicted: Predicted) -> tuple[pl.DataFrame, list[Finding]]:
    """Take the labels of images from their columns.

    Args:
        joined: path, label (the folder), has_row, and the tables' columns, N rows.

    Returns:
        The same with label, empty where no cell can be used; with several labels also LABEL and their names, true or
        false, with numbers NUMBER and theirs, float32. And what is wrong.
    """
    if predicted.kind == "class":
        return _classes(joined, f"{manifests.COLUMN}{predicted.columns[0]}")
    if predicted.kind == "numbers":
        values, faults = _numbers(joined, predicted.columns)
    elif predicted.in_cells:
        values, faults = _labels_in_cells(joined[f"{manifests.COLUMN}{predicted.columns[0]}"])
    else:
        values, faults = _labels_in_columns(joined, predicted.columns)
    faults = [fault if has or not fault else NO_ROW for fault, has in zip(faults, joined["has_row"], strict=True)]
    found = [(path, "no_cell", fault, "") for path, fault in zip(joined["path"], faults, strict=True) if fault]
    usable = pl.Series([not fault for fault in faults], dtype=pl.Boolean)
    if not usable.any():
        return joined.with_columns(label=pl.lit("")), found
    values = values.with_columns(pl.when(usable).then(pl.col(name)).alias(name) for name in values.columns)
    return joined.with_columns(_as_text(values, usable)).hstack(values), found


def _classes(joined: pl.DataFrame, column: str) -> tuple[pl.DataFrame, list[Finding]]:
    cells = joined[column].cast(pl.String).to_list()
    faults = {cell: fault_of_name(cell) for cell in set(cells)}
    usable = {cell for cell, fault in faults.items() if not fault}
    found = []
    for path, folder, has, cell in zip(joined["path"], joined["label"], joined["has_row"], cells, strict=True):
        if cell not in usable:
            found.append((path, "no_cell", faults[cell] if has else NO_ROW, ""))
        elif folder in usable and folder != cell:
            found.append((path, "label_mismatch", f"{cell} in the table, {folder} by its folder", ""))
    label = pl.Series("label", [cell if cell in usable else "" for cell in cells], dtype=pl.String)
    return joined.with_columns(label), found


def _labels_in_cells(column: pl.Series) -> tuple[pl.DataFrame, list[str]]:
    """Return a column for each label, true where a cell has it; and why a cell cannot be used, or an empty text."""
    cells = column.cast(pl.String)
    number = cells.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()  # of each different cell, from 1 in order
    different = [None, *cells.drop_nulls().unique().sort()]
    labels = [labels_in(cell) for cell in different]
    faults = [_fault_of_labels(cell, some) for cell, some in zip(different, labels, strict=True)]
    names = sorted({label for some, fault in zip(labels, faults, strict=True) if not fault for label in some})
    if not names:
        faults = [fault or "no image has a label" for fault in faults]
    places = {name: place for place, name in enumerate(names)}
    has = np.zeros((len(different), len(names)), bool)
    for row, (some, fault) in enumerate(zip(labels, faults, strict=True)):
        if not fault:
            has[row, [places[label] for label in some]] = True
    values = {f"{LABEL}{name}": has[number, place] for name, place in places.items()}
    return pl.DataFrame(values), [faults[each] for each in number.tolist()]


def labels_in(cell: str | None) -> list[str]:
    """Return the labels in a cell, sorted, each once."""
    return sorted({label for part in (cell or "").split(SEPARATOR) if (label := part.strip())})


def _fault_of_labels(cell: str | None, labels: list[str]) -> str:
    if not cell or not cell.strip():
        return f"{EMPTY} (an image with none of the labels has a lone {SEPARATOR})"
    return next(filter(None, map(fault_of_name, labels)), "")


def _labels_in_columns(joined: pl.DataFrame, names: tuple[str, ...]) -> tuple[pl.DataFrame, list[str]]:
    values = pl.DataFrame([_yes_or_no(joined[f"{manifests.COLUMN}{name}"]).alias(f"{LABEL}{name}") for name in names])
    return values, _empty_in(values, LABEL)


def _numbers(joined: pl.DataFrame, names: tuple[str, ...]) -> tuple[pl.DataFrame, list[str]]:
    """Return the numbers as float32; and why an image's cannot be used, or an empty text."""
    columns = {f"{NUMBER}{name}": joined[f"{manifests.COLUMN}{name}"] for name in names}
    values = pl.DataFrame({name: cells.cast(pl.Float64).cast(pl.Float32) for name, cells in columns.items()})
    return values, _empty_in(values, NUMBER)


def _empty_in(values: pl.DataFrame, prefix: str) -> list[str]:
    """Return for each image which of its cells cannot be used, in words; an empty text if all can."""
    faults = [""] * len(values)
    for column in values.iter_columns():
        name = visible(column.name.removeprefix(prefix))
        unusable = column.is_null() if column.dtype == pl.Boolean else ~column.is_finite().fill_null(False)
        for row in unusable.arg_true().to_list():
            cell = column[row]
            faults[row] = faults[row] or (f"its cell of {name} is empty" if cell is None else f"{name} is {cell}")
    return faults


def _as_text(values: pl.DataFrame, usable: pl.Series) -> pl.Series:
    """Return the labels or numbers of each image as a text, equal where they are; empty where they cannot be used."""
    names = [name.partition(":")[2] for name in values.columns]
    if values.dtypes[0] == pl.Boolean:
        said = [pl.when(pl.col(f"{LABEL}{name}")).then(pl.lit(name)) for name in sorted(names)]
        text = pl.concat_str(said, separator=SEPARATOR, ignore_nulls=True).replace("", NO_LABELS)
    else:
        rows = zip(*(column.to_numpy() for column in values.iter_columns()), strict=True)
        text = pl.Series([SEPARATOR.join(map(str, row)) for row in rows], dtype=pl.String)
    return values.select(label=pl.when(usable).then(text).otherwise(pl.lit(""))).to_series()


def fault_of_name(label: str | None) -> str:
    """Return why it cannot be a class's name; empty if it can."""
    if not label or not label.strip():
        return EMPTY
    bad = {"/", SEPARATOR} & set(label) or label in (".", "..") or not label.isprintable()
    if bad or len(label.encode()) > LONGEST_NAME:
        return f"{visible(label[:50])!r} cannot be the name of a class, after which files are named"
    return ""
