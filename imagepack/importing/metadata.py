"""metadata.csv, .jsonl and .parquet of a source, read as those of data/raw are, once what these cannot have is gone."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from imagepack.errors import InputError
from imagepack.images import tables
from imagepack.importing import features
from imagepack.importing.labels import NUMBERS, SEVERAL
from imagepack.importing.tree import Tree
from imagepack.names import visible

RESERVED = ("path", "line")
"""Columns that no table below data/raw may have."""
LISTS = "lists of numbers"
"""What a column may have besides the kinds of labels."""


class Metadata(NamedTuple):
    """What all tables say.

    Attributes:
        cells: of each image that has a row, by its path.
        label: the column of the labels; empty where the folders say them, None where there is none as asked.
        kind: of the labels, where the tables say it; else empty.
    """

    cells: dict[str, dict]
    label: str | None
    kind: str


def read(tree: Tree, choose: Callable[[list[str]], str | None], notes: list[str], faults: list[str]) -> Metadata:
    """Return what the tables of a tree say.

    Args:
        tree: has tables.
        choose: says which of the columns has the labels.
        notes, faults: get what a user should know.

    Raises:
        InputError: they cannot be read, or disagree.
    """
    paths, kinds = tree.images, {}
    with tempfile.TemporaryDirectory(prefix="imagepack-") as folder:
        for path in tree.tables:
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(mended(path, tree.text(path), kinds, notes))
        try:
            found = tables.read(Path(folder), tree.tables, paths, {})
            label = choose(found.rows.columns[1:])
            if label and found.rows[label].dtype.is_float():
                kinds.setdefault(label, NUMBERS)
            elif label and found.rows[label].dtype != pl.String:  # TRUE stays so
                found = tables.read(Path(folder), tree.tables, paths, {label: "text"})
        except InputError as error:
            raise InputError(str(error).replace(folder, str(tree.source))) from None
    if found.without_image:
        table, line, name = found.without_image[0]
        faults.append(f"{table} line {line}: {visible(name)} is not there ({len(found.without_image)} such rows)")
    left = [name for name, kind in kinds.items() if kind == LISTS and name != label]
    rows = found.rows.drop(left, strict=False)
    if left:
        notes.append(f"left out, several numbers a cell: {', '.join(f'column {visible(name)}' for name in left)}")
    cells = {row.pop("path"): row for row in rows.iter_rows(named=True)}
    kind = kinds.get(label or "", "")
    return Metadata(cells, label, NUMBERS if kind == LISTS else kind)


def mended(path: str, data: bytes, kinds: dict[str, str], notes: list[str]) -> bytes:
    """Return a table whose columns one of data/raw can have; `kinds` gets columns whose cells are lists."""
    ending = path.lower().rpartition(".")[2]
    return {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[ending](data, kinds, notes)


def _new_names(names: list[str], notes: list[str]) -> dict[str, str]:
    """Return other names for columns that may not be called as they are."""
    new = {name: f"source_{name}" for name in names if name in RESERVED}
    for name in new:
        while new[name] in names:
            new[name] = f"source_{new[name]}"
        note = f"column {name} is called {new[name]} in metadata.csv"
        if note not in notes:
            notes.append(note)
    return new


def _csv(data: bytes, kinds: dict[str, str], notes: list[str]) -> bytes:
    head, line_end, rest = data.partition(b"\n")
    try:
        names = next(csv.reader([head.decode("utf-8-sig")]), [])
    except (csv.Error, UnicodeDecodeError):
        return data
    new = _new_names(names, notes)
    if not new:
        return data
    output = io.StringIO(newline="")
    csv.writer(output, lineterminator="").writerow([new.get(name, name) for name in names])
    return output.getvalue().encode() + (b"\r" if head.endswith(b"\r") else b"") + line_end + rest


def _jsonl(data: bytes, kinds: dict[str, str], notes: list[str]) -> bytes:
    try:
        rows = [
            json.loads(line, object_pairs_hook=_object) for line in data.decode("utf-8-sig").split("\n") if line.strip()
        ]
    except (ValueError, RecursionError):
        return data  # who reads it next says where it is wrong
    if not all(isinstance(row, dict) for row in rows):
        return data
    names = list(dict.fromkeys(name for row in rows for name in row))
    new = _new_names(names, notes)
    left = set()
    for row in rows:
        for name, cell in row.items():
            if isinstance(cell, dict) or (isinstance(cell, list) and any(isinstance(c, dict | list) for c in cell)):
                left.add(name)
            elif isinstance(cell, list):
                floats = any(isinstance(each, float) for each in cell)
                kinds[name] = LISTS if floats else kinds.get(name) or SEVERAL
    _note_left(left, notes)
    if not left and not new and not any(name in kinds for name in names):
        return data
    lines = []
    for row in rows:
        kept = {new.get(name, name): cell for name, cell in row.items() if name not in left}
        texts = {n: list(map(_text, c)) for n, c in kept.items() if isinstance(c, list)}
        lines.append(json.dumps(kept | texts))
    return "\n".join(lines).encode()


def _object(pairs: list[tuple]) -> dict:
    """Return an object of JSON, refusing a key that is there twice."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError
    return found


def _text(cell: object) -> str:
    return cell if isinstance(cell, str) else json.dumps(cell)


def _parquet(data: bytes, kinds: dict[str, str], notes: list[str]) -> bytes:
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except Exception:  # noqa: BLE001  (polars' errors have several bases, and a panic is one)
        return data  # who reads it next says what is wrong
    names = features.class_names(features.features_of(io.BytesIO(data)))
    new = _new_names(rows.columns, notes)
    columns, left = [], []
    for column in rows:
        kind, name = column.dtype, column.name
        if features.has_numbers(kind):
            kinds[name] = LISTS
            column = column.cast(pl.List(kind.inner)).cast(pl.List(pl.String))
        elif not features.is_cell(kind):
            left.append(name)
            continue
        elif name in names:
            column = pl.Series(name, [features.named(cell, names[name]) for cell in column.to_list()], strict=False)
        if isinstance(kind, pl.List):
            kinds.setdefault(name, SEVERAL)
            column = column.cast(pl.List(pl.String))
        if kind.is_float():
            column = column.fill_nan(None)
        columns.append(column.alias(new.get(name, name)))
    _note_left(left, notes)
    output = io.BytesIO()
    pl.DataFrame(columns).write_parquet(output)
    return output.getvalue()


def _note_left(names: list[str] | set[str], notes: list[str]) -> None:
    for name in sorted(names):
        note = f"left out, no texts, numbers or dates: column {visible(name)}"
        if note not in notes:
            notes.append(note)
