"""One plain HDF5 file: images, labels, splits, ids and paths as arrays, and a group with the columns of tables."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from imagepack.errors import InputError
from imagepack.exporting.selection import Selection

TEXT = h5py.string_dtype()


def write(selection: Selection, path: Path, step: Callable[[], None]) -> None:
    """Write the file; docs/export.md lists what is in it.

    Args:
        selection: what to write.
        path: of the file, which is not there.
        step: called after each image.

    Raises:
        InputError: the disk has not as much room.
    """
    shape = (len(selection), *selection.packed.shape)
    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed > free:  # HDF5 does not report a full disk cleanly
        raise InputError(f"{path.parent} has {free >> 20} MiB left, and the images take {needed >> 20} MiB: make room")
    facts = selection.facts
    with h5py.File(path, "w", libver="earliest") as file:
        images = file.create_dataset("images", shape, "u1", track_times=False)
        start = 0
        for pixels in selection.pixels():
            images[start : start + len(pixels)] = pixels
            start += len(pixels)
            for _ in pixels:
                step()
        _add(file, "labels", selection.labels)
        _add(file, "classes", _fixed(selection.classes))
        _add(file, "splits", _fixed(selection.images["split"].to_list()))
        _add(file, "ids", _fixed(facts["id"].to_list()))
        _add_texts(file, "paths", facts["path"])
        columns = file.create_group("columns")
        for name in facts.columns[facts.columns.index("path") + 1 :]:
            _add_column(columns, name.replace("/", "%2F"), facts[name])


def _add(group: h5py.Group, name: str, array: np.ndarray) -> None:
    group.create_dataset(name, data=array, track_times=False)


def _fixed(texts: list[str]) -> np.ndarray:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded), default=1)))


def _add_texts(group: h5py.Group, name: str, texts: pl.Series) -> None:
    """As texts of any length: of fixed length, all would take as much as the longest."""
    group.create_dataset(name, data=texts.fill_null("").to_list(), dtype=TEXT, track_times=False)


def _add_column(group: h5py.Group, name: str, cells: pl.Series) -> None:
    """Numbers as they are, but as float64 with NaN where some are empty; dates and texts as texts."""
    if cells.dtype in (pl.Date, pl.String):
        _add_texts(group, name, cells.cast(pl.String))
    else:
        _add(group, name, (cells.cast(pl.Float64) if cells.null_count() else cells).to_numpy())
