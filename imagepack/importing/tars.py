"""WebDataset's tars: files of one sample have one name, up to its first dot; read from beginning to end, twice."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from imagepack.errors import InputError
from imagepack.images.raw_names import is_junk, is_table
from imagepack.images.zips import fault_of_name
from imagepack.importing.folders import find_splits, place, wrapper
from imagepack.importing.labels import LABEL_COLUMNS, choose_label_column, settle
from imagepack.importing.sources import NO_CLASS, SPLIT, Image, Source, is_image, split_of
from imagepack.importing.tree import Tree
from imagepack.names import counted, visible

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST_TEXT = 2**20
"""Bytes of a member that says something of an image."""
TEXTS = ("cls", "txt", "json")
"""Extensions of such members."""
CLASS = "class"
"""The column of a .cls member."""


@dataclass
class Scan:
    """What tars have in them.

    Attributes:
        images: tar, name and key of each.
        said: what members say of their image, by tar and key.
        names: of the members that say something, by tar and key.
        tables: bytes of metadata.csv and the like, by tar and name.
        others: tar and name of each other member.
    """

    images: list[tuple[Path, str, str]] = field(default_factory=list)
    said: dict[tuple[Path, str], dict] = field(default_factory=dict)
    names: dict[tuple[Path, str], list[str]] = field(default_factory=dict)
    tables: dict[tuple[Path, str], bytes] = field(default_factory=dict)
    others: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    left: set[str] = field(default_factory=set)


def scan(files: list[Path]) -> Scan:
    """Return what is in tars, but the images.

    Raises:
        InputError: one cannot be read.
    """
    found = Scan()
    for file in files:
        seen = set()
        for member, data in members(file, found.faults):
            key, _, extension = split_name(member.name)
            if member.name in seen:
                found.faults.append(f"{file}: {visible(repr(member.name))} is there twice: make the tar again")
            elif is_image(member.name) and not is_junk(member.name):
                found.images.append((file, member.name, key))
            elif is_data(member.name):
                found.tables[file, member.name] = data
            elif extension in TEXTS and not is_junk(member.name):
                said, new = found.said.setdefault((file, key), {}), cells_of(file, member, data, found)
                if other := [name for name in new if name in said and said[name] != new[name]]:
                    fault = f"says another {visible(other[0])} than the member before it: remove one of the two"
                    found.faults.append(f"{file}: {visible(member.name)}: {fault}")
                said.update(new)
                found.names.setdefault((file, key), []).append(member.name)
            else:
                found.others.append((file, member.name))
            seen.add(member.name)
    return found


def is_data(name: str) -> bool:
    """Return whether a member is a table."""
    return (is_table(name) or name.lower().endswith((".csv", ".tsv"))) and not is_junk(name)


def is_webdataset(found: Scan) -> bool:
    """Return whether members say something of images, under the same name; a README.txt does not."""
    has_table = any(is_table(name) for _, name in found.tables)
    return not has_table and any((file, key) in found.said for file, _, key in found.images)


def of_samples(top: Path, found: Scan, label_column: str | None, as_table: bool, class_names: list[str]) -> Source:
    """Return the images of WebDataset's tars.

    Args:
        top: the folder of the tars, whose names and folders say the split.
        found: in them.
        label_column: a key of .json members; None to take .cls or find it by its name.
        as_table: leave images in their folders, and all columns in the table.
        class_names: of classes 0, 1, ...
    """
    notes, faults, keys = found.notes, found.faults, {(file, key) for file, _, key in found.images}
    others = [name for where in found.names.keys() - keys for name in found.names[where]]
    others += [name for _, name in (*found.tables, *found.others) if not is_junk(name)]
    if others:
        shown = ", ".join(map(visible, sorted(others)[:5])) + ", ..." * (len(others) > 5)
        number = counted(len(others), "member")
        notes.append(f"left out, neither images nor .cls, .txt or .json of one: {number}: {shown}")
    cells = {where: found.said[where] for where in found.said if where in keys}
    if found.left:
        left = ", ".join(f"key {visible(key)}" for key in sorted(found.left))
        notes.append(f"left out, no texts, numbers or lists of texts: {left}")
    columns = list(dict.fromkeys(name for each in cells.values() for name in each))
    if label_column is None and CLASS in columns:
        column = CLASS if class_names else named_in_json(list(cells.values()))
        if column == CLASS:
            notes.append("the class is in .cls")
        else:
            notes.append(f"the class is in {column} of .json, whose number is in .cls (another: --label-column NAME)")
            for each in cells.values():
                each.pop(CLASS, None)
    else:
        column = choose_label_column(label_column, columns, notes, faults)
    top_folder = wrapper([name for _, name, _ in found.images], archived=False)
    splits = find_splits([name.removeprefix(top_folder) for _, name, _ in found.images], faults)
    source = Source("WebDataset tars", [], read, notes, faults)
    if column is None:
        return source
    for file, name, key in found.images:
        row = dict(cells.get((file, key), {}))
        split, folder = place(name.removeprefix(top_folder), splits)
        if split := split or split_of(file.relative_to(top).as_posix()):
            row[SPLIT] = row.get(SPLIT) or split
        origin = f"{stem(file)}/{name}"
        source.images.append(Image((file, name), origin, folder or NO_CLASS, row))
    drop_lists(source, column)
    source.where = lambda image: f"{image.key[0]}: {visible(image.key[1])}"
    settle(source, column, as_table, class_names)
    if column == CLASS and not class_names and all(image.folder.isdecimal() for image in source.images):
        notes.append("classes have numbers, no names: --class-names FILE has one a line")
    return source


def named_in_json(cells: list[dict]) -> str:
    """Return the key of .json members that has the names of the classes whose numbers are in .cls; else CLASS."""
    for name in LABEL_COLUMNS:
        if any(isinstance(each.get(key), list) for each in cells for key in (CLASS, name)):
            continue
        pairs = {(each.get(CLASS), each.get(name)) for each in cells}
        numbers, names = {number for number, _ in pairs}, {text for _, text in pairs}
        texts = all(isinstance(text, str) for text in names) and all(isinstance(number, int) for number in numbers)
        if name != CLASS and pairs and texts and len(pairs) == len(numbers) == len(names):
            return name
    return CLASS


def drop_lists(source: Source, column: str) -> None:
    """Leave out lists of numbers that are not the labels, and note that."""
    left = set()
    for image in source.images:
        for name in [name for name, cell in image.cells.items() if name != column and has_floats(cell)]:
            left.add(name)
            del image.cells[name]
    if left:
        source.notes.append(f"left out, several numbers a cell: {', '.join(map(visible, sorted(left)))}")


def has_floats(cell: object) -> bool:
    """Return whether it is a list of numbers."""
    return isinstance(cell, list) and any(isinstance(each, float) for each in cell)


def tree_of(top: Path, files: list[Path], found: Scan) -> Tree:
    """Return tars as the folders that are in them.

    Several become one folder; each in the folder of its split, where the names of all tars say that. Where two have the
    same name in them, the tar's name becomes a part of it.

    Raises:
        InputError: several tars have tables.
    """
    if len(files) > 1 and found.tables:
        file, name = next(iter(found.tables))
        raise InputError(f"{file} has a table, {visible(name)}: import the tars one by one")
    names = [(file, name) for file, name, _ in found.images]
    names += [(file, name) for (file, _), said in found.names.items() for name in said]
    names += [*found.tables, *found.others]
    splits = {file: split_of(file.relative_to(top).as_posix()) for file in files}
    if len(files) > 1 and all(splits.values()):
        tops = {file: wrapper([name for tar, name, _ in found.images if tar == file], True) for file in files}
        paths = {(file, name): f"{splits[file]}/{name.removeprefix(tops[file])}" for file, name in names}
    else:
        paths = {(file, name): name for file, name in names}
    if len(set(paths.values())) < len(paths):
        paths = {where: with_stem(path, stem(where[0])) for where, path in paths.items()}
    tree = {path: where for where, path in sorted(paths.items(), key=itemgetter(1))}  # as a folder has them
    source = files[0] if len(files) == 1 else top
    return Tree(source, tree, found.faults, read, lambda path: found.tables[tree[path]], archived=True)


def with_stem(path: str, tar: str) -> str:
    """Return a path whose name begins with that of its tar."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{tar}-{name}"


def stem(file: Path) -> str:
    """Return the name of a tar without what it ends in."""
    return file.name.partition(".")[0]


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
                    text = faults is not None and (member.size <= LARGEST_TEXT or is_data(member.name))
                    yield member, archive.extractfile(member).read() if text else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{file} cannot be read as a tar ({error}): download it again") from None


def cells_of(file: Path, member: tarfile.TarInfo, data: bytes, found: Scan) -> dict:
    """Return what a member says of its image, by column."""
    extension = split_name(member.name)[2]
    try:
        if member.size > LARGEST_TEXT:
            raise ValueError(f"has more than {LARGEST_TEXT} bytes")
        text = data.decode("utf-8").strip()
        if extension == "txt":
            return {"text": text}
        if extension == "cls":
            return {CLASS: int(text) if text.isdecimal() else text}
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError("is no object")
    except (ValueError, RecursionError) as error:
        found.faults.append(f"{file}: {visible(member.name)}: {error}")
        return {}
    kept = {key: cell for key, cell in said.items() if is_cell(cell)}
    found.left |= said.keys() - kept.keys()
    return kept


def is_cell(cell: object) -> bool:
    """Return whether a table can have such a value."""
    flat = (str, int, float, bool, type(None))
    cells = cell if isinstance(cell, list) else [cell]
    return all(isinstance(each, flat) for each in cells)


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
