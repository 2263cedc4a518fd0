"""What of a version is exported: its accepted images of some splits, what is known of each, and their files."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from imagepack.compare.versions import Version, read
from imagepack.errors import InputError
from imagepack.images import png, raw_files
from imagepack.images.manifest import COLUMN, FILE
from imagepack.reader import format as packs
from imagepack.reader.packed_images import PackedImages

SPLITS = ("train", "val", "test")
"""What is exported unless some of these are named."""
AT_ONCE = 64
"""Images that are read and encoded together; so many are in memory, and as many that are being written."""
ASKED_AT_ONCE = 4096
"""Raw files that are asked for together."""
OWN_NAMES = ("file_name", "image", "label", "labels", "id", "path", "split")
"""Columns that an export makes; a column of a table with such a name is called TABLE + name."""
TABLE = "table_"
EXTENSIONS = {"JPEG": ".jpg", "TIFF": ".tif"}
"""Where Pillow's name of a format in small letters is not what its files are called."""


@dataclass(frozen=True)
class Selection:
    """Accepted images of some splits of a version.

    Attributes:
        version: that they are of.
        packed: its whole pack.
        images: rows of the manifest, in its order, with `row`: the position in the pack.
        raw: whether it is the files of data/raw that are exported, and not the images of the pack.
        left_out: how many images are not exported, by reason.
    """

    version: Version
    packed: PackedImages
    images: pl.DataFrame
    raw: bool
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> list[str]:
        return self.packed.classes

    @cached_property
    def labels(self) -> np.ndarray:
        """What is predicted: int64 (N,), positions in `classes`; bool (N, C), several; or float, (N,) or (N, K)."""
        labels = self.packed.labels[self.images["row"].to_numpy()]
        return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind == "f" else labels

    @property
    def of_classes(self) -> bool:
        """Whether each image has one class."""
        return self.labels.ndim == 1 and self.labels.dtype.kind in "iu"

    @cached_property
    def splits(self) -> list[str]:
        """Those that have images, in the order of SPLITS."""
        return [name for name in SPLITS if name in set(self.images["split"])]

    def of_split(self, name: str) -> "Selection":
        """Return the images of one split."""
        images = self.images.filter(pl.col("split") == name)
        return Selection(self.version, self.packed, images, self.raw, self.left_out)

    @cached_property
    def facts(self) -> pl.DataFrame:
        """label (or labels), id and path of each image, N, and the columns of tables, typed.

        A label is a text; several are a list of texts, numbers a float32 or a list of them.
        """
        own = {**self._label_column(), "id": self.images["sha256"], "path": self.images["path"]}
        theirs = columns_of(self.images)
        facts = zip(theirs, exported_names(theirs), strict=True)
        return pl.DataFrame(own | {new: self.images[COLUMN + old] for old, new in facts})

    def _label_column(self) -> dict[str, pl.Series]:
        labels, names = self.labels, np.array(self.classes, dtype=object)
        if self.of_classes:
            return {"label": pl.Series(names[labels].tolist(), dtype=pl.String)}
        if labels.dtype.kind == "b":
            texts = [names[row].tolist() for row in labels]
            return {"labels": pl.Series(texts, dtype=pl.List(pl.String))}
        dtype = pl.Float32 if labels.ndim == 1 else pl.List(pl.Float32)
        return {"label": pl.Series(labels.tolist(), dtype=dtype)}

    @property
    def suffix(self) -> str | None:
        """The ending of all files; None where each file of data/raw has its own."""
        return None if self.raw else ".jpg" if self.packed.index.encoding == "jpeg" else ".png"

    def extensions(self) -> list[str]:
        """Return the ending of each file, by its content."""
        if self.suffix:
            return [self.suffix] * len(self)
        return [EXTENSIONS.get(name, f".{name.lower()}") for name in self.images["format"]]

    def files(self) -> Iterator[bytes]:
        """Yield the file of each image, in order: as it is in data/raw, or the image of the pack as PNG or JPEG.

        Raises:
            InputError: raw files that are nowhere, each with the reason.
            PackError: a shard that is nowhere, or damaged.
        """
        return self._raw_files() if self.raw else self._packed_files()

    def pixels(self) -> Iterator[np.ndarray]:
        """Yield the images of the pack, some at a time: uint8 (n, H, W, C).

        Raises:
            PackError: a shard that is nowhere, or damaged.
        """
        for rows in _parts(self.images["row"].to_numpy(), AT_ONCE):
            yield self.packed.take(rows)

    def _packed_files(self) -> Iterator[bytes]:
        if self.packed.index.encoding != "raw":
            for rows in _parts(self.images["row"].to_numpy(), AT_ONCE):
                yield from self.packed.files(rows)
            return
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
            for images in self.pixels():
                yield from pool.map(_png, images)

    def _raw_files(self) -> Iterator[bytes]:
        largest = int(self.images["bytes"].max())
        for paths in _parts(self.images["path"], ASKED_AT_ONCE):
            faults = []
            for path, content, why in self.version.fetch(paths.to_list(), largest):
                if content is None:
                    faults.append(f"{path}: {why}")
                elif not faults:
                    yield content
            if faults:
                raise InputError(raw_files.listing("raw images cannot be had:", faults))


def columns_of(images: pl.DataFrame) -> list[str]:
    """Return the columns of tables of a manifest that are exported: not `split`, which the export says itself."""
    names = [name.removeprefix(COLUMN) for name in images.columns if name.startswith(COLUMN)]
    return [name for name in names if name != "split"]


def exported_names(columns: Sequence[str], own: Sequence[str] = OWN_NAMES) -> list[str]:
    """Return what columns of tables are called in an export: as they are, with TABLE before the names of its `own`."""
    names = []
    for name in columns:
        while name in own or name in names:
            name = TABLE + name
        names.append(name)
    return names


def select(folder: Path, revision: str | None, splits: Sequence[str], raw: bool) -> Selection:
    """Return what is to be exported; nothing is fetched but the manifest and dataset.h5.

    Args:
        folder: of the repository.
        revision: a commit, tag, branch or DVC experiment; None for the workspace.
        splits: some of SPLITS.
        raw: the files of data/raw, or the images of the pack.

    Raises:
        InputError, PackError: there is no such version, or it has no images to export.
    """
    version = read(revision, folder)
    packed = open_pack(folder, version)
    accepted = version.images.filter(pl.col("status") == "accepted").with_row_index("row")
    if len(accepted) != len(packed) or accepted["split"].null_count():
        raise InputError(f"the pack of {version.name} holds other images than its manifest: run `dvc repro`")
    chosen = accepted.filter(pl.col("split").is_in(splits))
    left_out = {
        "rejected": len(version.images) - len(accepted),
        "excluded": accepted.filter(pl.col("split") == "excluded").height,
    }
    if raw and len(files := chosen.unique(FILE, keep="first", maintain_order=True)) < len(chosen):
        left_out["more frames of the same files"] = len(chosen) - len(files)
        chosen = files.with_columns(path=FILE)
    if not len(chosen):
        there = dict(accepted["split"].value_counts().iter_rows())
        counts = ", ".join(f"{name} {there.get(name, 0)}" for name in packs.SPLITS)
        raise InputError(f"{version.name} has no image in {' and '.join(splits)}: it has {counts}")
    return Selection(version, packed, chosen, raw, left_out)


def open_pack(folder: Path, version: Version) -> PackedImages:
    """Open the pack of a version; each image that is read is compared with its checksum.

    Raises:
        InputError, PackError: it has none, or it cannot be opened.
    """
    if (path := version.pack_path) is None or version.pack is None:
        where = "run `dvc repro`" if version.revision is None else "name a revision from after the first `dvc repro`"
        raise InputError(f"{version.name} has no pack: {where}")
    if version.revision is None:
        packed = PackedImages(folder / path, verify="always")
    else:
        packed = PackedImages.at(version.revision, folder, path, verify="always")
    if packed.digest != version.pack.digest:
        raise InputError(f"the pack of {version.name} changed while it was read: run again")
    return packed


def _parts(sequence: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]


def _png(image: np.ndarray) -> bytes:
    return png.encode(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image))
