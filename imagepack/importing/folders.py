"""Folders of images: classes, splits above them, tables beside them; on disk or in a zip, which stands for a folder."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imagepack.errors import InputError
from imagepack.images import raw_files, tables, zips
from imagepack.images.raw_names import RawFile, as_text, is_junk, is_table
from imagepack.importing.sources import NO_CLASS, SPLIT, SPLITS, Image, Source, class_folder, is_image
from imagepack.names import counted, visible

LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
"""Columns that are taken for the class of an image if nobody says which is."""


def read_folder(folder: Path, label_column: str | None, as_table: bool) -> Source:
    """Return the images of a folder.

    Args:
        folder: class folders, or folders of splits with class folders in them; perhaps with metadata.csv or .jsonl.
        label_column: of the tables; None to find it by its name.
        as_table: leave images in their folders, and all columns in the table.
    """
    files, faults = walk(folder)
    return of_files(folder, files, faults, label_column, as_table)


def read_zip(file: Path, label_column: str | None, as_table: bool) -> Source:
    """Return the same as `read_folder`, of what is in a zip."""
    try:
        members, wrong = zips.list_members(file)
    except zips.Damaged as error:
        raise InputError(f"{file} {error}: download it again") from None
    files = {member.path: member for member in sorted(members, key=str)}
    faults = [f"{file}: {fault}: make the zip again, without such names" for fault in wrong]
    if len(files) < len(members):
        faults.append(f"{file}: has {counted(len(members) - len(files), 'name')} twice: make the zip again")
    return of_files(file, files, faults, label_column, as_table)


def walk(folder: Path) -> tuple[dict[str, RawFile], list[str]]:
    """Return every file of a folder, by its path, in natural order of a walk; and what cannot be read."""
    files, faults = {}, []
    for above, folders, names in os.walk(folder, onerror=raw_files.refuse_unlisted):
        folders.sort()
        for name in folders:
            if Path(above, name).is_symlink():
                faults.append(f"{visible(str(Path(above, name)))}: a link to a folder: import that folder by itself")
        for name in sorted(names):
            place = Path(above, name)
            path = place.relative_to(folder).as_posix()
            if place.is_file() or is_junk(path):
                files[path] = path
            elif is_image(path):
                faults.append(f"{visible(str(place))}: a link that leads nowhere, or no file: remove it")
    return files, faults


def of_files(
    source: Path, files: dict[str, RawFile], faults: list[str], label_column: str | None, as_table: bool
) -> Source:
    """Return the source of these files of a folder or zip."""
    paths = [path for path in files if is_image(path) and not is_junk(path)]
    found_tables = [file for path, file in files.items() if is_table(path) and not is_junk(path)]
    top = "" if found_tables else wrapper(paths, archived=source.is_file())
    rows = tables.read(source, found_tables, paths, {}) if found_tables else None
    cells = {} if rows is None else {row.pop("path"): row for row in rows.rows.iter_rows(named=True)}
    notes = left_out(files, paths)
    if rows and rows.without_image:
        table, line, name = rows.without_image[0]
        faults.append(f"{table} line {line}: {visible(name)} is not there ({len(rows.without_image)} such rows)")
    column = choose_label_column(label_column, list(rows.rows.columns[1:]) if rows else [], notes, faults)
    splits = find_splits([path.removeprefix(top) for path in paths], faults)
    images = []
    for path in in_order(paths, top) if splits else paths:
        image, fault = place(path, path.removeprefix(top), files[path], dict(cells.get(path, {})), splits, column)
        if as_table and column and image:
            image = image._replace(cells=image.cells | {column: cells.get(path, {}).get(column)}, folder=above(path))
        images += [image] if image else []
        faults += [fault] if fault else []
    kind = "folders of splits and classes" if splits else "class folders"
    return Source(
        f"{kind} with a table" if rows else kind,
        images,
        lambda wanted: read(source, wanted),
        notes,
        faults,
        column if as_table else "",
    )


def in_order(paths: list[str], top: str) -> list[str]:
    """Return the paths with train first and test last, so that it is not a training image whose name grows longer."""
    order = list(SPLITS.values())
    return sorted(paths, key=lambda path: order.index(SPLITS[path.removeprefix(top).partition("/")[0].lower()]))


def above(path: str) -> str:
    """Return the folder of a path in the source; a folder for those that lie in none."""
    return path.rpartition("/")[0] or NO_CLASS


def wrapper(paths: list[str], archived: bool) -> str:
    """Return the one folder, with /, in which everything lies, if what is in it are splits, or all of a zip."""
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) != 1 or not all(path.count("/") >= 2 for path in paths):
        return ""
    (top,) = tops
    inside = {path.split("/")[1].lower() for path in paths}
    return f"{top}/" if top.lower() not in SPLITS and (archived or inside <= SPLITS.keys()) else ""


def left_out(files: dict[str, RawFile], paths: list[str]) -> list[str]:
    """Return notes of files that are no images by their names."""
    others = [path for path in files if not is_image(path) and not is_table(path) and not is_junk(path)]
    junk = sum(map(is_junk, files))
    notes = []
    if others:
        shown = ", ".join(map(visible, others[:5])) + ", ..." * (len(others) > 5)
        notes.append(f"left out, no images by their names: {counted(len(others), 'file')}: {shown}")
    if junk:
        notes.append(f"left out: {counted(junk, 'file')} that systems leave, such as .DS_Store")
    return notes


def find_splits(paths: list[str], faults: list[str]) -> bool:
    """Return whether the first folders are splits."""
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    named = {top for top in tops if top.lower() in SPLITS}
    if named and (others := sorted(tops - named)):
        faults.append(
            f"folders called like splits ({', '.join(sorted(named))}) stand beside others "
            f"({', '.join(map(visible, others[:5]))}): import them one by one, or move the others elsewhere"
        )
    return bool(named)


def choose_label_column(asked: str | None, columns: list[str], notes: list[str], faults: list[str]) -> str:
    """Return the column that has the labels; empty where folders say them."""
    if asked is not None:
        if asked and asked not in columns:
            faults.append(f"no column {asked!r}: the columns are {', '.join(map(visible, columns)) or 'none'}")
        return asked
    guessed = next((name for name in columns if name.lower() in LABEL_COLUMNS), "")
    if guessed:
        notes.append(f"column {guessed} is the class (another: --label-column NAME; the folder: --label-column '')")
    return guessed


def place(origin: str, path: str, key: RawFile, cells: dict, splits: bool, column: str) -> tuple[Image | None, str]:
    """Return the image of a path, and what is wrong with it."""
    *folders, _ = path.split("/")
    if splits:
        split = SPLITS[folders.pop(0).lower()]
        cells[SPLIT] = cells.get(SPLIT) or split
    if column:
        folder, fault = class_folder(cells.pop(column, None), column)
        if fault:
            return None, f"{visible(origin)}: {fault}"
        folders = [folder]
    elif not folders:
        if not cells.keys() - {SPLIT}:
            return None, f"{visible(as_text(origin))}: lies in no class folder"
        folders = [NO_CLASS]
    return Image(key, path, "/".join(folders), cells), ""


def read(source: Path, images: Iterable[Image]) -> Iterator[tuple[Image, bytes | Path]]:
    """Yield the file of each image, or its bytes where it is in a zip.

    Raises:
        InputError: a damaged member of a zip.
    """
    for image in images:
        if isinstance(image.key, zips.Member):
            try:
                yield image, zips.read(image.key)
            except zips.Unreadable as error:
                raise InputError(f"{visible(image.origin)}: {error.args[1]}") from None
        else:
            yield image, source / image.key
    zips.close()
