"""What the cells of the label column are: a class, several labels, or numbers; and what becomes of each."""

import re
from collections.abc import Iterable
from typing import Any

from imagepack.images.tables import PATTERNS
from imagepack.importing.sources import NO_CLASS, Source, class_folder
from imagepack.names import counted, visible

LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
"""Columns that are taken for the class of an image if nobody says which is."""
SEVERAL, NUMBERS, ONE = "multilabel", "numbers", "class"
"""labels.kind of params.yaml."""
NUMBER, INTEGER = (re.compile(PATTERNS[name]) for name in ("number", "integer"))


def choose_label_column(asked: str | None, columns: list[str], notes: list[str], faults: list[str]) -> str | None:
    """Return the column that has the labels; empty where folders say them; None where there is none as asked."""
    if asked is not None:
        if asked and asked not in columns:
            shown = ", ".join(map(visible, columns)) or "none"
            faults.append(f"no column {asked!r} (--label-column): the columns are {shown}")
            return None
        return asked
    guessed = next((name for name in columns if name.lower() in LABEL_COLUMNS), "")
    if guessed:
        notes.append(f"column {guessed} is the class (another: --label-column NAME; the folder: --label-column '')")
    return guessed


def settle(source: Source, column: str, as_table: bool, class_names: list[str], kind: str = "") -> None:
    """Give each image the folder of its class; or leave the column in the table, of several labels and numbers always.

    Args:
        source: images whose cells have the column, each in the folder that it has if that stays in the table.
        column: of the labels; empty where the folders say them.
        as_table: leave classes in the table too.
        class_names: of classes 0, 1, ...; empty if nobody gave them.
        kind: where the source says it; else the cells do.
    """
    if class_names and column:
        name_classes(source, column, class_names)
    elif class_names:
        source.faults.append("--class-names: no column has the numbers of classes (--label-column NAME says which)")
    if not column and any(image.folder == NO_CLASS for image in source.images):
        source.notes.append(
            f"nothing says the class of images in {NO_CLASS}: --label-column NAME does, if a column has it"
        )
    if not column or (source.faults and not source.images):
        return
    kind = kind or kind_of(image.cells.get(column) for image in source.images)
    if kind == ONE and not as_table:
        into_folders(source, column)
        return
    source.labels_column, source.labels_kind = column, kind
    if kind == SEVERAL:
        require_plain(source, column)
    if kind == NUMBERS:
        spread(source, column)
    if kind != ONE:
        source.notes[:] = [note for note in source.notes if not note.startswith(f"column {visible(column)} is the")]
        what = "several labels an image" if kind == SEVERAL else "numbers"
        source.notes.append(
            f"column {visible(column)} has {what}, no classes: it stays in the table (another: --label-column NAME)"
        )


def kind_of(cells: Iterable[Any]) -> str:
    """Return what the cells of a label column are."""
    cells = [cell for cell in cells if cell is not None and cell != ""]
    if any(isinstance(cell, list) for cell in cells):
        parts = [part for cell in cells if isinstance(cell, list) for part in cell]
        return NUMBERS if any(isinstance(part, float) for part in parts) else SEVERAL
    if any(isinstance(cell, str) and ";" in cell for cell in cells):
        return SEVERAL
    if not cells or any(isinstance(cell, bool) or not NUMBER.fullmatch(str(cell)) for cell in cells):
        return ONE
    return ONE if all(INTEGER.fullmatch(str(cell)) or re.fullmatch("[0-9]+", str(cell)) for cell in cells) else NUMBERS


def name_classes(source: Source, column: str, names: list[str]) -> None:
    """Put the names of classes in place of their numbers."""
    wrong = []

    def named(cell: Any) -> Any:
        if isinstance(cell, list):
            return [named(each) for each in cell]
        text = "" if cell is None else str(cell).strip()
        if ";" in text and text not in names:
            return [named(each) for each in text.split(";") if each.strip()]
        if re.fullmatch("[0-9]+", text) and int(text) < len(names):
            return names[int(text)]
        if text not in ("", "-1", *names):
            wrong.append(text)
        return None if text in ("", "-1") else text

    for image in source.images:
        if column in image.cells:
            image.cells[column] = named(image.cells[column])
    if wrong:
        source.faults.append(
            f"--class-names has names of the classes 0 to {len(names) - 1}, and {counted(len(wrong), 'label')} in "
            f"column {visible(column)} are others, such as {visible(repr(wrong[0]))}"
        )


def into_folders(source: Source, column: str) -> None:
    """Give each image the folder of its class, and take the column out of the table."""
    images, wrong = [], {}
    for image in source.images:
        folder, fault = class_folder(image.cells.pop(column, None), column)
        if fault:
            wrong.setdefault(fault, []).append(image)
        else:
            images.append(image._replace(folder=folder))
    source.images = images
    source.faults += [grouped(source, fault, found) for fault, found in wrong.items()]


def grouped(source: Source, fault: str, images: list) -> str:
    """Return one line about all images that have the same fault."""
    more = f" (and {counted(len(images) - 1, 'image')} more)" if len(images) > 1 else ""
    return f"{source.where(images[0])}: {fault}{more}"


def require_plain(source: Source, column: str) -> None:
    """Find labels with a ; in them, which a cell of several labels would take for two."""
    wrong = [
        image
        for image in source.images
        if isinstance(cell := image.cells.get(column), list) and any(";" in str(each) for each in cell)
    ]
    if wrong:
        fault = f"a label in column {visible(column)} has a ; in it, which parts labels in metadata.csv: rename it"
        source.faults.append(grouped(source, fault, wrong))


def spread(source: Source, column: str) -> None:
    """Make a column for each of several numbers an image."""
    lists = [numbers_of(image.cells.get(column)) for image in source.images]
    count = max((len(cell) for cell in lists if cell), default=1)
    if wrong := [image for image, cell in zip(source.images, lists, strict=True) if cell and len(cell) != count]:
        fault = f"column {visible(column)} has not the {counted(count, 'number')} that other images have"
        source.faults.append(grouped(source, fault, wrong))
    if wrong or count == 1:
        return
    there = {name for image in source.images for name in image.cells}
    names = [f"{column}_{number}" for number in range(1, count + 1)]
    while there & set(names):
        names = [f"{name}_" for name in names]
    for image, cell in zip(source.images, lists, strict=True):
        image.cells.pop(column, None)
        image.cells.update(zip(names, cell or [None] * count, strict=True))
    source.labels_column = f"[{', '.join(names)}]"
    source.notes.append(f"column {visible(column)} has {counted(count, 'number')} an image: {', '.join(names)}")


def numbers_of(cell: Any) -> list:
    """Return the numbers of a cell, none of an empty one."""
    if isinstance(cell, str):
        return cell.split(";")
    return cell if isinstance(cell, list) else [] if cell is None else [cell]
