"""metadata.csv of an import: the rows of its images, added to those that are there."""

import csv
import io
import re
from pathlib import Path
from typing import Any

from imagepack.errors import InputError
from imagepack.images.raw_files import listing
from imagepack.images.tables import FILE_NAME, NONE
from imagepack.importing import copying
from imagepack.importing.labels import grouped
from imagepack.importing.sources import SPLIT, SPLITS, Image, Source
from imagepack.names import visible

NAME = "metadata.csv"
SHA256 = re.compile("[0-9a-f]{64}")
RESERVED = {FILE_NAME, "path", "line"}
"""What tables.py takes no column of the user's by."""


def rename_reserved(source: Source) -> None:
    """Give columns other names where metadata.csv may not have theirs, and note that."""
    names = dict.fromkeys(name for image in source.images for name in image.cells)
    for name in names:
        if not name.strip() or not name.isprintable():
            source.faults.append(f"a column cannot be called {visible(repr(name))}: rename it")
    for name in sorted(RESERVED & names.keys()):
        new = f"source_{name}"
        while new in names:
            new = f"source_{new}"
        source.notes.append(f"column {name} is called {new} in {NAME}")
        source.labels_column = new if source.labels_column == name else source.labels_column
        for image in source.images:
            if name in image.cells:
                image.cells[new] = image.cells.pop(name)


def leave_own_out(source: Source) -> None:
    """Leave out the id and path that `run.py export` writes of each image, which are those of another data/raw."""
    names = {name for image in source.images for name in image.cells}
    paths = [name for name in ("path", "source_path") if name in names]
    ids = [image.cells.get("id") for image in source.images]
    if not paths or not ids or not all(isinstance(each, str) and SHA256.fullmatch(each) for each in ids):
        return
    for image in source.images:
        image.cells.pop("id")
        image.cells.pop(paths[0], None)
    source.notes = [note for note in source.notes if not note.startswith("column path is called")]
    source.notes.append("left out: id and path, which python3 run.py export wrote of the images in its data/raw")


def name_splits(source: Source) -> None:
    """Give the splits of images the names that they have here; a fault where they have others."""
    wrong = {}
    for image in source.images:
        if cell := image.cells.get(SPLIT):
            image.cells[SPLIT] = SPLITS.get(str(cell).lower(), cell)
            if str(cell).lower() not in SPLITS:
                wrong.setdefault(str(cell), []).append(image)
    fix = "call it train, val or test, leave it empty, or give the column another name"
    for cell, images in wrong.items():
        source.faults.append(grouped(source, f"split {visible(repr(cell))} in column {SPLIT}: {fix}", images))


def write(placed: dict[str, Image], folder: Path, dry_run: bool = False) -> int:
    """Write the cells of the images to metadata.csv of `folder`; return how many rows are new.

    Raises:
        InputError: a table is there that says something else.
    """
    columns = list(dict.fromkeys(name for image in placed.values() for name in image.cells))
    if not columns:
        return 0
    file = folder / NAME
    before = read(file)
    header = [FILE_NAME, *columns]
    if before:
        header = before[0] + [name for name in header if name not in before[0]]
    rows = {row[0]: row + [""] * (len(header) - len(row)) for row in before[1:]}
    faults, new = [], 0
    for path, image in placed.items():
        row = [path, *(text(image.cells.get(name)) for name in header[1:])]
        if path not in rows:
            new += 1
        elif any(old and now and old != now for old, now in zip(rows[path], row, strict=True)):
            faults.append(f"{visible(path)}: the row there says something else")
        rows[path] = [now or old for old, now in zip(rows.get(path, row), row, strict=True)]
    if faults:
        raise InputError(listing(f"{file} is there already: name a batch folder (--batch NAME)", faults))
    whole = [header, *rows.values()]
    if whole != before and not dry_run:
        output = io.StringIO(newline="")
        csv.writer(output, lineterminator="\n").writerows(whole)
        copying.write(file, output.getvalue().encode())
    return new


def read(file: Path) -> list[list[str]]:
    """Return the rows of a table, the header first; none where there is none.

    Raises:
        InputError: it has no column file_name at first.
    """
    if not file.exists():
        return []
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if not rows or rows[0][0] != FILE_NAME or any(len(row) != len(rows[0]) for row in rows):
        raise InputError(f"{file} is there, and no table that begins with {FILE_NAME}: name a batch (--batch NAME)")
    return rows


def text(cell: Any) -> str:
    """Return a cell as the table has it."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, list | tuple):
        return ";".join(text(each) for each in cell if each is not None) or NONE
    if isinstance(cell, float) and cell != cell:
        return ""
    return "" if cell is None else str(cell)
