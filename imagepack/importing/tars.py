"""WebDataset's tars: files of one sample have one name, up to its first dot; read from beginning to end, twice."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from imagepack.errors import InputError
from imagepack.images.raw_names import is_junk
from imagepack.images.zips import fault_of_name
from imagepack.importing.folders import choose_label_column, find_splits, in_order, place, wrapper
from imagepack.importing.sources import NO_CLASS, SPLIT, Image, Source, class_folder, is_image, split_of
from imagepack.names import counted, visible

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST_TEXT = 2**20
"""Bytes of a member that says something of an image."""
TEXTS = ("cls", "txt", "json")
"""Extensions of such members."""
CLASS = "class"
"""The column of a .cls member."""


def read_tars(top: Path, files: list[Path], label_column: str | None, as_table: bool, class_names: list[str]) -> Source:
    """Return the images of tars: WebDataset's, or of folders of classes.

    Args:
        top: the folder of the files, whose names and folders say the split.
        files: that belong together.
        label_column: a key of .json members; None to take .cls or find it by its name.
        as_table: leave images in their folders, and all columns in the table.
        class_names: of classes 0, 1, ...
    """
    notes, faults, found, cells = [], [], [], {}
    others = 0
    for file in files:
        for member, data in members(file, faults):
            key, _, extension = split_name(member.name)
            if is_image(member.name):
                found.append((file, member.name, key))
            elif extension in TEXTS:
                cells.setdefault((file, key), {}).update(cells_of(file, member.name, extension, data, faults))
            elif not is_junk(member.name):
                others += 1
    if others:
        notes.append(f"left out: {counted(others, 'member')} that are neither images nor .cls, .txt or .json")
    contents = lambda wanted: read(wanted)  # noqa: E731
    if not cells:
        return of_folders(found, notes, faults, contents)
    columns = list(dict.fromkeys(name for each in cells.values() for name in each))
    if label_column is None and CLASS in columns:
        column = CLASS
        notes.append("the class is in .cls")
    else:
        column = choose_label_column(label_column, columns, notes, faults)
    images = []
    for file, name, key in found:
        row = dict(cells.get((file, key), {}))
        if split := split_of(file.relative_to(top).as_posix()):
            row[SPLIT] = row.get(SPLIT) or split
        if column and isinstance(row.get(column), int) and row[column] < len(class_names):
            row[column] = class_names[row[column]]
        folder = NO_CLASS
        if column and not as_table:
            folder, fault = class_folder(row.pop(column, None), column)
            if fault:
                faults.append(f"{file}: {visible(name)}: {fault}")
                continue
        images.append(Image((file, name), f"{file.name.partition('.')[0]}/{name}", folder, row))
    if column == CLASS and not class_names and all(image.folder.isdecimal() for image in images):
        notes.append("classes have numbers, no names: --class-names FILE has one a line")
    return Source("WebDataset tars", images, contents, notes, faults, column if as_table else "")


def of_folders(found: list[tuple[Path, str, str]], notes: list[str], faults: list[str], contents) -> Source:
    """Return the images of tars of folders, in which nothing else says their class."""
    keys = {name: (file, name) for file, name, _ in found}
    if len(keys) < len(found):
        faults.append(f"{counted(len(found) - len(keys), 'name')} are there twice: import the tars one by one")
    top = wrapper(list(keys), archived=True)
    splits = find_splits([name.removeprefix(top) for name in keys], faults)
    images = []
    for name in in_order(list(keys), top) if splits and not faults else keys:
        image, fault = place(name, name.removeprefix(top), keys[name], {}, splits, "")
        images += [image] if image else []
        faults += [fault] if fault else []
    order = {key: number for number, key in enumerate(keys.values())}
    images.sort(key=lambda image: order[image.key])  # as the tars have them
    return Source("tars of class folders", images, contents, notes, faults)


def split_name(name: str) -> tuple[str, str, str]:
    """Return the key of a member, as webdataset has it, a dot, and its extension."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return f"{folder}{slash}{stem}", dot, extension.lower()


def members(file: Path, faults: list[str] | None = None) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield each file of a tar, and the bytes of a small one that is no image; `faults` gets what is refused.

    Raises:
        InputError: it is no tar, or only a part of one.
    """
    try:
        with tarfile.open(file, "r:*") as archive:
            for member in archive:
                archive.members = []  # else all of them stay in memory
                if member.isdir():
                    continue
                member.name = member.name.removeprefix("./")
                fault = fault_of_name(member.name)
                if not member.isreg():
                    fault = "is a link" if member.islnk() or member.issym() else "is no file"
                if fault:
                    faults is None or faults.append(f"{file}: {visible(repr(member.name))} {fault}")
                elif is_image(member.name):
                    yield member, b"" if faults is not None else archive.extractfile(member).read()
                else:
                    text = faults is not None and member.size <= LARGEST_TEXT
                    yield member, archive.extractfile(member).read() if text else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{file} cannot be read as a tar ({error}): download it again") from None


def cells_of(file: Path, name: str, extension: str, data: bytes, faults: list[str]) -> dict:
    """Return what a member says of its image, by column."""
    try:
        text = data.decode("utf-8").strip()
        if extension == "txt":
            return {"text": text}
        if extension == "cls":
            return {CLASS: int(text) if text.isdecimal() else text}
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError("is no object")
        flat = (str, int, float, bool, type(None))
        return {
            key: cell
            for key, cell in said.items()
            if isinstance(cell, flat) or (isinstance(cell, list) and all(isinstance(each, str) for each in cell))
        }
    except ValueError as error:
        faults.append(f"{file}: {visible(name)}: {error}")
        return {}


def read(images: Iterable[Image]) -> Iterator[tuple[Image, bytes]]:
    """Yield the bytes of images, tar by tar, in their order there."""
    by_file: dict[Path, dict[str, Image]] = {}
    for image in images:
        file, name = image.key
        by_file.setdefault(file, {})[name] = image
    for file, wanted in by_file.items():
        for member, data in members(file):
            if image := wanted.pop(member.name, None):
                yield image, data
