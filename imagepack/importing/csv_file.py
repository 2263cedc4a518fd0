"""A CSV file about the images of a folder, whose columns have names of their own: image_id, path, diagnosis, ..."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import polars as pl

from imagepack.errors import InputError
from imagepack.images.raw_names import is_junk
from imagepack.importing.folders import LABEL_COLUMNS, above, choose_label_column, left_out, read, walk
from imagepack.importing.sources import SPLIT, SPLITS, Image, Source, class_folder, is_image
from imagepack.names import counted, visible

MORE_LABELS = ("species", "diagnosis", "dx", "breed", "y", "category_name", "type", "kind")
"""Taken for the class of an image where none of LABEL_COLUMNS is there."""


def read_csv(file: Path, path_column: str | None, label_column: str | None, as_table: bool) -> Source:
    """Return the images that a CSV file names, in the folder in which it lies.

    Args:
        file: with a header.
        path_column: which image a row is about, by its path, name, or name without extension; None to find it.
        label_column: its class; None to find it by its name, "" where folders say it.
        as_table: leave images in their folders, and all columns in the table.
    """
    rows = table_of(file)
    files, faults = walk(file.parent)
    paths = [path for path in files if is_image(path) and not is_junk(path)]
    notes = left_out({path: key for path, key in files.items() if path != file.name}, paths)
    column, find = choose_path_column(rows, paths, path_column, notes, faults)
    label = guess_label(rows, column, label_column, notes, faults)
    images, seen = [], {}
    for line, row in enumerate(rows.iter_rows(named=True), 2) if column else ():
        where, name = f"{visible(str(file))} line {line}", row.pop(column) or ""
        found = find(name)
        if len(found) != 1:
            few = f"{visible(name)} is not there" if not found else f"{visible(name)} may be {' or '.join(found[:3])}"
            faults.append(f"{where}: {few}")
        elif found[0] in seen:
            faults.append(f"{where}: a second row of {visible(found[0])}, whose first is in line {seen[found[0]]}")
        else:
            seen[found[0]] = line
            image, fault = image_of(found[0], row, label, as_table)
            images += [image] if image else []
            faults += [f"{where}: {fault}"] if fault else []
    if column and (rest := [path for path in paths if path not in seen]):
        shown = ", ".join(map(visible, rest[:3])) + ", ..." * (len(rest) > 3)
        notes.append(f"left out, without a row: {counted(len(rest), 'image')}: {shown}")
    kind = f"a folder with {visible(file.name)}"
    contents = lambda wanted: read(file.parent, wanted)  # noqa: E731
    return Source(kind, images, contents, notes, faults, label if as_table else "")


def image_of(path: str, row: dict, label: str, as_table: bool) -> tuple[Image | None, str]:
    """Return the image of a row, and what is wrong with it."""
    if row.get(SPLIT):
        row[SPLIT] = SPLITS.get(row[SPLIT].lower(), row[SPLIT])
    if as_table or not label:
        return Image(path, path, above(path), row), ""
    folder, fault = class_folder(row.pop(label), label)
    return None if fault else Image(path, path, folder, row), fault


def table_of(file: Path) -> pl.DataFrame:
    """Return a CSV file, all cells as text; separated by commas, semicolons or tabs.

    Raises:
        InputError: it cannot be read, or has a column twice or without a name.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8: save it as CSV UTF-8") from None
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    names = next(csv.reader(io.StringIO(head), delimiter=separator), [])
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(name.strip() for name in names):
        raise InputError(f"{file}: its first line must name each column, once: {visible(head[:200])}")
    try:
        rows = pl.read_csv(text.encode(), infer_schema=False, separator=separator)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    return rows.with_columns(pl.all().str.strip_chars().replace("", None))


def finder(paths: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function from what a cell says to the images that it may mean."""
    whole, names, stems = set(paths), {}, {}
    for path in paths:
        pure = PurePosixPath(path)
        names.setdefault(pure.name, []).append(path)
        stems.setdefault(pure.stem, []).append(path)

    def find(cell: str) -> list[str]:
        cell = cell.replace("\\", "/").removeprefix("./")
        name = cell.rpartition("/")[2]
        if cell in whole:
            return [cell]
        found = names.get(name) or stems.get(name, [])
        ending = [path for path in found if path.endswith(f"/{cell}") or f"/{path}".endswith(f"/{cell}")]
        return ending or found

    return find


def choose_path_column(
    rows: pl.DataFrame, paths: list[str], asked: str | None, notes: list[str], faults: list[str]
) -> tuple[str, Callable[[str], list[str]]]:
    """Return the column that names images, the one with most images that are there; and how to find them."""
    find = finder(paths)
    shown = ", ".join(map(visible, rows.columns))
    if asked:
        if asked not in rows.columns:
            faults.append(f"no column {asked!r}: the columns are {shown}")
            return "", find
        return asked, find
    hits = {name: sum(bool(cell and find(cell)) for cell in rows[name].head(1000)) for name in rows.columns}
    best = max(hits, key=hits.get) if hits else ""
    if not best or not hits[best]:
        faults.append(f"no column names images of this folder: name it, --path-column (the columns are {shown})")
        return "", find
    notes.append(f"column {visible(best)} says which image (another: --path-column NAME)")
    return best, find


def guess_label(rows: pl.DataFrame, path_column: str, asked: str | None, notes: list[str], faults: list[str]) -> str:
    """Return the column that has the classes; empty where folders say them."""
    others = [name for name in rows.columns if name != path_column]
    by_name = {name.lower(): name for name in others}
    if asked is None and not set(LABEL_COLUMNS) & by_name.keys():
        guess = next((by_name[name] for name in MORE_LABELS if name in by_name), None)
        guess = guess or (others[0] if len(others) == 1 and others[0].lower() != SPLIT else None)
        if guess is None:
            faults.append(
                f"which column is the class? --label-column NAME ('' if the folders say it): {', '.join(others)}"
            )
            return ""
        notes.append(f"column {visible(guess)} is the class (another: --label-column NAME)")
        return guess
    return choose_label_column(asked, others, notes, faults)
