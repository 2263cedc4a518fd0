"""A CSV file about the images of a folder, whose columns have names of their own: image_id, path, diagnosis, ..."""

import csv
import io
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import polars as pl

from imagepack.errors import InputError
from imagepack.importing.folders import above, left_out
from imagepack.importing.labels import LABEL_COLUMNS, choose_label_column, settle
from imagepack.importing.sources import SPLIT, SPLITS, Image, Source, is_image
from imagepack.importing.tree import Tree
from imagepack.names import counted, visible

MORE_LABELS = ("species", "diagnosis", "dx", "breed", "y", "category_name", "type", "kind")
"""Taken for the class of an image where none of LABEL_COLUMNS is there."""
SHOWN_ROWS = 5


def read_csv(
    tree: Tree, table: str, path_column: str | None, label_column: str | None, as_table: bool, class_names: list[str]
) -> Source:
    """Return the images that a CSV file names, in the folder in which it lies.

    Args:
        tree: the folder, zip or tar.
        table: the file's path there; it has a header.
        path_column: which image a row is about, by its path, name, or name without extension; None to find it.
        label_column: its class; None to find it by its name, "" where folders say it.
        as_table: leave images in their folders, and all columns in the table.
        class_names: of classes 0, 1, ...
    """
    file, faults, notes = tree.source / table, tree.faults, left_out(tree, table)
    rows = table_of(file, tree.text(table))
    top = f"{table.rpartition('/')[0]}/".lstrip("/")
    paths = {path.removeprefix(top): path for path in tree.images}
    column, find = choose_path_column(rows, list(paths), path_column, notes, faults)
    if column is not None and (is_image(column) or (re.search("[0-9]", column) and find(column))):
        name = visible(column)
        raise InputError(f"{file}: its first line names an image, {name}: put a line with the columns' names above it")
    label = guess_label(rows, column, label_column, notes, faults)
    source = Source(f"a folder with {visible(table)}", [], tree.contents, notes, faults)
    if column is None or label is None:
        return source
    seen = {}
    for line, row in enumerate(rows.iter_rows(named=True), 2):
        where, name = f"{visible(str(file))} line {line}", row.pop(column) or ""
        found = [paths[path] for path in find(name)]
        if len(found) != 1:
            shown, several = visible(name) or "an image without a name", " or ".join(map(visible, found[:3]))
            few = f"{shown} may be {several}" if found else f"{shown} is not there"
            faults.append(f"{where}: {few}")
        elif found[0] in seen:
            faults.append(f"{where}: a second row of {visible(found[0])}, whose first is in line {seen[found[0]]}")
        else:
            seen[found[0]] = line
            source.images.append(Image(tree.files[found[0]], found[0], above(found[0].removeprefix(top)), row))
    if rest := [path for path in tree.images if path not in seen]:
        shown = ", ".join(map(visible, rest[:3])) + ", ..." * (len(rest) > 3)
        notes.append(f"left out, without a row: {counted(len(rest), 'image')}: {shown}")
    add_splits(source, top)
    source.where = lambda image: f"{visible(str(file))} line {seen[image.origin]}"
    settle(source, label, as_table, class_names)
    return source


def add_splits(source: Source, top: str) -> None:
    """Add the splits that folders say, where no column says them; a note where they say it of some images alone."""
    if any(image.cells.get(SPLIT) for image in source.images):
        return
    found = []
    for image in source.images:
        folders = image.origin.removeprefix(top).lower().split("/")[:-1]
        found.append(next((SPLITS[name] for name in folders if name in SPLITS), ""))
    if found and all(found):
        for image, split in zip(source.images, found, strict=True):
            image.cells[SPLIT] = split
    elif any(found):
        shown = ", ".join(sorted(set(found) - {""}))
        source.notes.append(f"some images lie in folders called like splits ({shown}): add a column split to use that")


def table_of(file: Path, data: bytes) -> pl.DataFrame:
    """Return a CSV file, all cells as text; separated by commas, semicolons or tabs.

    Raises:
        InputError: it cannot be read, or has a column twice or without a name.
    """
    try:
        text = data.decode("utf-8-sig")
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
        raise InputError(_ragged(file, text, separator) or f"{file} cannot be read: {error}".splitlines()[0]) from None
    return rows.with_columns(pl.all().str.strip_chars().replace("", None))


def _ragged(file: Path, text: str, separator: str) -> str:
    """Return which rows have more cells than the first line has, in words; empty if none."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    width = len(next(reader))
    rows = [f"line {reader.line_num} has {len(row)} cells" for row in reader if len(row) > width]
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    return f"{file}: {', '.join(rows[:SHOWN_ROWS])}{more}; line 1 has {width}" if rows else ""


def finder(paths: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function from a path, or the end of one, with or without its extension, to the images so called."""
    names, stems = {}, {}
    for path in paths:
        pure = PurePosixPath(path)
        names.setdefault(pure.name, []).append(path)
        stems.setdefault(pure.stem, []).append(path)

    def find(cell: str) -> list[str]:
        name = cell.rpartition("/")[2]
        named = names.get(name, ())
        if ends := [path for path in named if path == cell] or [path for path in named if path.endswith(f"/{cell}")]:
            return ends
        return [path for path in stems.get(name, ()) if f"/{path}".rpartition(".")[0].endswith(f"/{cell}")]

    return find


def rooted(find: Callable[[str], list[str]], cells: Iterable[str | None]) -> Callable[[str], list[str]]:
    """Return how to find what cells of a column say, which may all begin with folders that are not there: /data/x/."""
    root = root_of([plain(cell) for cell in cells if cell], find)
    return lambda cell: find(plain(cell).removeprefix(root))


def plain(cell: str) -> str:
    """Return a path with / and without ./ and folder/.. in it."""
    return posixpath.normpath(cell.replace("\\", "/")) if cell else cell


def root_of(cells: list[str], found: Callable[[str], list[str]]) -> str:
    """Return the folders, with /, with which all cells begin and without which the first of them is there."""
    if not cells or found(cells[0]) or ".." in cells[0].split("/"):
        return ""
    parts = cells[0].split("/")
    roots = ["/".join(parts[:count]) + "/" for count in range(1, len(parts))]
    hits = (root for root in roots if found(cells[0].removeprefix(root)))
    return next((root for root in hits if all(cell.startswith(root) for cell in cells)), "")


def choose_path_column(
    rows: pl.DataFrame, paths: list[str], asked: str | None, notes: list[str], faults: list[str]
) -> tuple[str | None, Callable[[str], list[str]]]:
    """Return the column that names images, the one with most images that are there; and how to find them."""
    find = finder(paths)
    shown = ", ".join(map(visible, rows.columns))
    if asked:
        if asked not in rows.columns:
            faults.append(f"no column {asked!r}: the columns are {shown}")
            return None, find
        return asked, rooted(find, rows[asked])
    finders = {name: rooted(find, rows[name]) for name in rows.columns}
    hits = {name: sum(bool(cell and finders[name](cell)) for cell in rows[name].head(1000)) for name in rows.columns}
    best = max(hits, key=hits.get) if hits else ""
    if not best or not hits[best]:
        faults.append(
            f"no column names images of this folder: name it, --path-column (the columns are {shown}); "
            "if it is no table of them, move it elsewhere"
        )
        return None, find
    notes.append(f"column {visible(best)} says which image (another: --path-column NAME)")
    return best, finders[best]


def guess_label(
    rows: pl.DataFrame, path_column: str | None, asked: str | None, notes: list[str], faults: list[str]
) -> str | None:
    """Return the column that has the classes; empty where folders say them, None where it cannot be told."""
    others = [name for name in rows.columns if name != path_column]
    by_name = {name.lower(): name for name in others}
    if asked is None and not set(LABEL_COLUMNS) & by_name.keys():
        guess = next((by_name[name] for name in MORE_LABELS if name in by_name), None)
        guess = guess or (others[0] if len(others) == 1 and others[0].lower() != SPLIT else None)
        if guess is None:
            faults.append(
                f"which column is the class? --label-column NAME ('' if the folders say it): {', '.join(others)}"
            )
            return None
        notes.append(f"column {visible(guess)} is the class (another: --label-column NAME)")
        return guess
    return choose_label_column(asked, others, notes, faults)
