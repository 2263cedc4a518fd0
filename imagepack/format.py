"""The files of a pack: what writer and reader agree on. README.md beside this file is the specification."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

FORMAT = "imagepack"
VERSION = 1
SPLITS = ("train", "val", "test", "excluded")
"""Excluded are images that look like one of another split: in training, they would give its answers away."""
INDEX_NAME = "dataset.h5"
SHARDS_NAME = "shards"


class PackError(Exception):
    """A pack that cannot be read as one; the message names the file, the fault and the fix."""


@dataclass(frozen=True)
class Index:
    """dataset.h5 in memory: everything but the pixels. N images in S shards.

    Attributes:
        classes: names; a label is a position in this list.
        labels: int32, (N,).
        splits: uint8, (N,), positions in SPLITS.
        ids: uint8, (N, 32): sha256 of each source file's bytes.
        paths: of each source file, below data/raw.
        shard_names: S file names below shards/.
        shard_starts: int64, (S + 1,): shard s holds the images shard_starts[s] to shard_starts[s + 1] - 1.
        shard_bytes: int64, (S,): file sizes.
        shape: (H, W, C) of every image; they are uint8.
    """

    classes: list[str]
    labels: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    paths: Sequence[str]
    shard_names: list[str]
    shard_starts: np.ndarray
    shard_bytes: np.ndarray
    shape: tuple[int, int, int]

    def digest(self) -> str:
        """Hexadecimal sha256 that two packs share if and only if they hold the same data in the same order."""
        content = hashlib.sha256(repr((VERSION, self.shape, self.classes)).encode())
        for part in (self.labels.astype("<i4"), self.splits, self.ids, self.shard_starts.astype("<i8")):
            content.update(np.ascontiguousarray(part))
        content.update("\n".join([*self.shard_names, *self.paths]).encode())
        return content.hexdigest()


def write_shard(folder: Path, images: np.ndarray, ids: np.ndarray) -> tuple[str, int]:
    """Write one shard, named after its content; return its file name and size in bytes.

    The same images and ids give the same bytes with every h5py since 3.11.

    Args:
        folder: where to.
        images: uint8, (n, H, W, C).
        ids: uint8, (n, 32).
    """
    from google_crc32c import value as crc32c  # only writers need it

    checksums = np.array([crc32c(image.tobytes()) for image in images], "<u4")
    content = _file_image({"image": images, "id": ids, "crc32c": checksums})
    name = f"{hashlib.sha256(content).hexdigest()}.h5"
    _write(folder / name, content)
    return name, len(content)


def write_index(folder: Path, index: Index) -> int:
    """Write dataset.h5, with a virtual dataset `images` over the shards for other HDF5 tools; return its bytes."""
    arrays = {
        "label": index.labels.astype("<i4"),
        "split": index.splits.astype("u1"),
        "id": index.ids,
        "path": _fixed_text(index.paths),
        "class": _fixed_text(index.classes),
        "shard_name": _fixed_text(index.shard_names),
        "shard_start": index.shard_starts.astype("<i8"),
        "shard_bytes": index.shard_bytes.astype("<i8"),
    }
    attributes = {
        "format": np.bytes_(FORMAT),
        "version": np.uint32(VERSION),
        "digest": np.bytes_(index.digest()),
        "shape": np.array(index.shape, "<u4"),
        "splits": np.bytes_(",".join(SPLITS)),
    }
    content = _file_image(arrays, attributes, index)
    _write(folder / INDEX_NAME, content)
    return len(content)


def read_index(folder: Path) -> tuple[Index, str]:
    """Read dataset.h5 of the pack in `folder`; the index and its digest.

    Raises:
        PackError: there is none, it is damaged, or of another format or version.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise PackError(f"{path} does not exist: make the pack with `dvc repro`, or fetch it with `dvc pull`")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT.encode():
                raise PackError(f"{path} is HDF5, but no {FORMAT} dataset")
            if file.attrs["version"] != VERSION:
                raise PackError(
                    f"{path} has version {file.attrs['version']} of the format, this imagepack reads {VERSION}: "
                    "use the imagepack of the repository revision that made the pack"
                )
            index = Index(
                classes=_texts(file["class"]),
                labels=file["label"][:],
                splits=file["split"][:],
                ids=file["id"][:],
                paths=_texts(file["path"]),
                shard_names=_texts(file["shard_name"]),
                shard_starts=file["shard_start"][:],
                shard_bytes=file["shard_bytes"][:],
                shape=tuple(int(side) for side in file.attrs["shape"]),
            )
            digest = file.attrs["digest"].decode()
    except (OSError, KeyError, ValueError, RuntimeError, UnicodeDecodeError) as error:
        raise PackError(f"{path} is damaged ({error}): get it again with `dvc checkout` or `dvc pull`") from error
    if index.digest() != digest:
        raise PackError(f"{path} is damaged (its digest differs): get it again with `dvc checkout` or `dvc pull`")
    return index, digest


def open_shard(path: Path, index: Index, shard: int) -> np.ndarray:
    """Map a shard's pixels into memory: uint8, (n, H, W, C), read-only; nothing is copied.

    Raises:
        PackError: the file is missing, or not such a shard as this module writes.
    """
    check_size(path, int(index.shard_bytes[shard]))
    rows = int(index.shard_starts[shard + 1] - index.shard_starts[shard])
    shape = (rows, *index.shape)
    try:
        with h5py.File(path, "r") as file:
            hard = file.get("image", getclass=True, getlink=True) is h5py.HardLink  # not a link to elsewhere
            if not hard or file.get("image", getclass=True) is not h5py.Dataset:
                raise PackError(f"{path} does not hold its images itself: it was not written by this pipeline")
            images = file["image"]
            plain = images.id.get_create_plist()
            if (
                images.shape != shape
                or images.dtype != np.uint8
                or plain.get_layout() != h5py.h5d.CONTIGUOUS
                or plain.get_external_count()
                or plain.get_nfilters()
            ):
                raise PackError(f"{path} holds {images.dtype}{images.shape}, where the index says uint8{shape}")
            offset = images.id.get_offset()
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise PackError(f"{path} is damaged ({error}): get it again with `dvc checkout` or `dvc pull`") from error
    if offset is None or offset + int(np.prod(shape)) > index.shard_bytes[shard]:
        raise PackError(f"{path} is damaged (pixels beyond its end): get it again with `dvc checkout` or `dvc pull`")
    return np.memmap(path, np.uint8, "r", offset, shape)


def check_size(path: Path, size: int) -> None:
    """Refuse a shard that is missing or not as long as the index says."""
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        raise PackError(f"{path} is missing: get it with `dvc checkout` or `dvc pull`") from None
    if actual != size:
        raise PackError(f"{path} has {actual} bytes instead of {size}: get it again with `dvc checkout` or `dvc pull`")


def _file_image(arrays: dict[str, np.ndarray], attributes: dict | None = None, index: Index | None = None) -> bytes:
    """The bytes of an HDF5 file with these datasets, contiguous and without times: a function of its arguments.

    In memory first, since HDF5 does not report a full disk cleanly.
    """
    libver = ("earliest", "v110") if index else "earliest"  # a virtual dataset needs 1.10; without, any HDF5 reads it
    # not File.in_memory: h5py has it since 3.13 only
    with h5py.File("in memory", "w", driver="core", backing_store=False, libver=libver) as file:
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
        for name, array in arrays.items():
            file.create_dataset(name, data=array, track_times=False)
        if index:
            _link_shards(file, index)
        file.flush()
        return file.id.get_file_image()


def _link_shards(file: h5py.File, index: Index) -> None:
    """Create the virtual dataset `images`. h5py's own call leaves the time of day in the file."""
    whole = h5py.h5s.create_simple((len(index.labels), *index.shape))
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_obj_track_times(False)
    for name, start, stop in zip(index.shard_names, index.shard_starts, index.shard_starts[1:], strict=False):
        block = (int(stop - start), *index.shape)
        whole.select_hyperslab((int(start), 0, 0, 0), block)
        layout.set_virtual(whole, f"{SHARDS_NAME}/{name}".encode(), b"image", h5py.h5s.create_simple(block))
    whole.select_all()
    h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, whole, layout)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, so that a killed run leaves no half shard under a good name."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    """UTF-8 of fixed length, padded with zeros, as h5py stores without a heap."""
    encoded = [text.encode() for text in texts]
    length = max(map(len, encoded), default=1)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))


def _texts(dataset: h5py.Dataset) -> list[str]:
    return [text.decode() for text in dataset[:]]
