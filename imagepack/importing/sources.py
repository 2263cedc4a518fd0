"""What every kind of source gives: a list of its images, light enough for millions, and their bytes one by one."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from imagepack.images.formats import EXTENSIONS
from imagepack.names import visible

SPLITS = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What folders and files of splits are called, in small letters, and the template's name for each."""
SPLIT = "split"
"""The column of metadata.csv that decides an image's split (docs/tables.md)."""
IMAGE_ENDINGS = tuple(ending for endings in EXTENSIONS.values() for ending in endings)
NO_CLASS = "images"
"""The folder of images whose class no folder says."""


class Image(NamedTuple):
    """An image of a source.

    Attributes:
        key: by which the source finds its bytes.
        origin: its path in the source, for messages; the last part becomes its name.
        folder: where it belongs below data/raw or the batch: its class, perhaps with folders above it.
        cells: what metadata.csv says of it, by column.
    """

    key: Any
    origin: str
    folder: str
    cells: dict[str, Any]


@dataclass
class Source:
    """A dataset that can be imported.

    Attributes:
        kind: what it was taken for.
        images: in the order in which `contents` has them.
        contents: yields, of some of the images and in their order, each with its bytes or the file that has them.
        notes: what a user should know before anything is copied: columns that were guessed, files left out.
        faults: why it cannot be imported, a line each.
        labels_column: column of the table that has the labels, where the folders have not.
        labels_kind: what those are: labels.kind of params.yaml.
        where: says where an image was found, for messages.
        verbatim: whether it is a data/raw already: every file keeps its path, tables and zips too.
        md5s: of the files, by `key`, where reading them would mean fetching them.
    """

    kind: str
    images: list[Image]
    contents: Callable[[Iterable[Image]], Iterator[tuple[Image, bytes | Path]]]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    labels_column: str = ""
    labels_kind: str = "class"
    where: Callable[[Image], str] = lambda image: visible(image.origin)
    verbatim: bool = False
    md5s: dict[str, str] = field(default_factory=dict)


def is_image(path: str) -> bool:
    """Return whether a file is called like an image."""
    return path.lower().endswith(IMAGE_ENDINGS)


def class_folder(label: Any, column: str) -> tuple[str, str]:
    """Return the folder of a class, and why there can be none."""
    name = str(label).lower() if isinstance(label, bool) else "" if label is None else str(label).strip()
    if isinstance(label, list):
        return "", f"several classes in column {visible(column)}: --table leaves them there"
    if not name:
        return "", f"no class in column {visible(column)}"
    if "/" in name or "\\" in name or name in (".", ".."):
        return "", f"class {visible(repr(name))} is no name of a folder: --table leaves it in the table"
    return name, ""


def split_of(path: str) -> str:
    """Return the split that a file's name or a folder above it says: data/train-00000-of-00002.parquet; or nothing."""
    *folders, name = PurePosixPath(path.lower()).parts
    words = [re.split(r"[-_.]", name)[0], *reversed(folders)]
    return next((SPLITS[word] for word in words if word in SPLITS), "")
