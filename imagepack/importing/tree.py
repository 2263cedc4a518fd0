"""The files of a folder, or of a zip or tar that stands for one."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from imagepack.errors import InputError
from imagepack.images import raw_files, zips
from imagepack.images.raw_names import is_junk, is_table
from imagepack.importing.sources import Image, is_image
from imagepack.names import counted, visible


@dataclass
class Tree:
    """Files by their paths.

    Attributes:
        source: the folder, zip or tar.
        files: by path what `contents` finds them by.
        faults: why some cannot be imported.
        contents: yields, of some images, each with its bytes or its file.
        text: returns the bytes of a table.
        archived: whether it is a zip or tar.
    """

    source: Path
    files: dict[str, Any]
    faults: list[str]
    contents: Callable[[Iterable[Image]], Iterator[tuple[Image, bytes | Path]]]
    text: Callable[[str], bytes]
    archived: bool = False

    @cached_property
    def images(self) -> list[str]:
        """Return the paths of the images."""
        return [path for path in self.files if is_image(path) and not is_junk(path)]

    @cached_property
    def tables(self) -> list[str]:
        """Return the paths of metadata.csv and the like."""
        return [path for path in self.files if is_table(path) and not is_junk(path)]

    @property
    def csvs(self) -> list[str]:
        """Return the paths of other tables: directly in it, or in the one folder that an archive has."""
        tops = {path.partition("/")[0] for path in self.files if not is_junk(path)}
        depth = int(self.archived and len(tops) == 1)
        found = [path for path in self.files if path.lower().endswith((".csv", ".tsv")) and not is_junk(path)]
        return [path for path in found if path.count("/") <= depth]


def folder_tree(folder: Path) -> Tree:
    """Return the files of a folder."""
    files, faults = walk(folder)

    def contents(images: Iterable[Image]) -> Iterator[tuple[Image, Path]]:
        return ((image, folder / image.key) for image in images)

    return Tree(folder, files, faults, contents, lambda path: (folder / path).read_bytes())


def zip_tree(file: Path) -> Tree:
    """Return the files of a zip.

    Raises:
        InputError: it is damaged.
    """
    try:
        members, wrong = zips.list_members(file)
    except zips.Damaged as error:
        raise InputError(f"{file} {error}: download it again") from None
    files = {member.path: member for member in sorted(members, key=str)}
    faults = [f"{file}: {fault}: make the zip again, without such names" for fault in wrong]
    if len(files) < len(members):
        faults.append(f"{file}: has {counted(len(members) - len(files), 'name')} twice: make the zip again")
    return Tree(file, files, faults, read_zip, lambda path: unzipped(files[path], path), archived=True)


def read_zip(images: Iterable[Image]) -> Iterator[tuple[Image, bytes]]:
    """Yield the bytes of images that are in a zip."""
    for image in images:
        yield image, unzipped(image.key, image.origin)
    zips.close()


def unzipped(member: zips.Member, path: str) -> bytes:
    """Return the bytes of a member.

    Raises:
        InputError: it is damaged.
    """
    try:
        return zips.read(member)
    except zips.Unreadable as error:
        raise InputError(f"{visible(path)}: {error.args[1]}") from None


def walk(folder: Path) -> tuple[dict[str, str], list[str]]:
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
