"""The files of a pack: what writer and reader agree on. docs/format.md is the specification."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import h5py
import numpy as np

FORMAT = "imagepack"
VERSION, WITH_COLUMNS, WITH_KIND = 1, 2, 3
"""Of the format: 3 where labels are of another kind than class; else 2 where tables beside the images have columns,
and 1 without."""
LABEL_TYPES = {"class": "<i4", "multilabel": "u1", "numbers": "<f4"}
"""Kinds of labels, and how dataset.h5 has them: one class an image, (N,); several labels, 1 for each that an image has,
(N, C); numbers to be predicted, (N, C)."""
SPLITS = ("train", "val", "test", "excluded")
"""Excluded are images that look like one of another split: in training, they would give its answers away."""
ENCODINGS = {"raw": "", "png": "PNG", "jpeg": "JPEG"}
"""How a shard holds its images, and Pillow's name for that; raw is one uint8 array."""
INDEX_NAME = "dataset.h5"
SHARDS_NAME = "shards"
SHARD_NAME = re.compile(r"[0-9a-f]{64}\.h5")
"""The digest of the shard's own bytes: so no name leads out of shards/."""
AGAIN = "remove it, then get it again with `dvc checkout` or `dvc pull`"
"""Remove first: DVC goes by time and size, and does not replace a file of which both are unchanged."""


class PackError(Exception):
    """A pack that cannot be read as one; the message names the file, the fault and the fix."""


class Texts(Sequence):
    """Texts as two arrays: a million of them as a list of str would take 100 MB.

    Attributes:
        data: uint8, (B,): all of them, UTF-8, one behind the other.
        starts: int64, (N + 1,): where each begins, and B at the end.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray) -> None:
        self.data, self.starts = data, starts

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Take in `texts`."""
        encoded = [text.encode() for text in texts]
        starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        return self.data[self.starts[i] : self.starts[i + 1]].tobytes().decode()


COLUMN_TYPES = {"integer": "<i8", "number": "<f8", "boolean": "u1", "date": "<i8", "text": "u1"}
"""What a column holds, and how dataset.h5 has it: a date as days since 1970-01-01, a text as UTF-8."""


@dataclass(frozen=True)
class Column:
    """What a table beside the images says of each: N cells.

    Attributes:
        name: in the table.
        kind: a key of COLUMN_TYPES.
        data: (N,) of the type that goes with the kind; of texts uint8, all of them one behind the other.
        starts: int64, (N + 1,), of texts: where each begins, and their bytes at the end; otherwise (0,).
        empty: uint8, (N,): 1 where the cell is empty, and `data` has 0.
    """

    name: str
    kind: str
    data: np.ndarray
    starts: np.ndarray
    empty: np.ndarray

    def digest(self) -> bytes:
        """Return a sha256 of all of it."""
        content = hashlib.sha256(repr((self.name, self.kind)).encode())
        for array, dtype in ((self.data, COLUMN_TYPES[self.kind]), (self.starts, "<i8"), (self.empty, "u1")):
            content.update(np.ascontiguousarray(array, dtype))
        return content.digest()


@dataclass(frozen=True)
class ColumnNames:
    """Which columns there are, K of them, without their cells.

    Attributes:
        names: in the table.
        kinds: keys of COLUMN_TYPES.
        digests: uint8, (K, 32), of each column.
    """

    names: list[str]
    kinds: list[str]
    digests: np.ndarray


NO_COLUMNS = ColumnNames([], [], np.empty((0, 32), "u1"))


@dataclass(frozen=True)
class Index:
    """dataset.h5 in memory: everything but the pixels. N images in S shards.

    Attributes:
        classes: names: of classes, of labels, or of numbers; a class is a position in this list.
        labels: of the type that goes with `kind`: (N,) of classes, otherwise (N, C).
        splits: uint8, (N,), positions in SPLITS.
        ids: uint8, (N, 32): sha256 of each source file's bytes.
        paths: N, of each source file, below data/raw.
        shard_names: S file names below shards/.
        shard_starts: int64, (S + 1,): shard s holds the images shard_starts[s] to shard_starts[s + 1] - 1.
        shard_bytes: int64, (S,): file sizes.
        shape: (H, W, C) of every image; they are uint8.
        encoding: a key of ENCODINGS.
        mean, std: float64, (C,): of the train split's pixels, scaled to 0 to 1; of all where that is empty.
        columns: which the tables beside the images have.
        kind: a key of LABEL_TYPES.
    """

    classes: list[str]
    labels: np.ndarray
    splits: np.ndarray
    ids: np.ndarray
    paths: Texts
    shard_names: Sequence[str]
    shard_starts: np.ndarray
    shard_bytes: np.ndarray
    shape: tuple[int, int, int]
    encoding: str
    mean: np.ndarray
    std: np.ndarray
    columns: ColumnNames = NO_COLUMNS
    kind: str = "class"

    @property
    def version(self) -> int:
        """Return which version of the format it takes."""
        if self.kind != "class":
            return WITH_KIND
        return WITH_COLUMNS if self.columns.names else VERSION

    def digest(self) -> str:
        """Return a sha256, hexadecimal: two packs share it if and only if they hold the same data in the same order."""
        kind = () if self.kind == "class" else (self.kind,)
        content = hashlib.sha256(repr((self.version, self.shape, self.encoding, self.classes, *kind)).encode())
        content.update("\n".join(self.shard_names).encode())
        parts = (
            ("<i8", (self.shard_starts, self.shard_bytes, self.paths.starts)),
            (LABEL_TYPES[self.kind], (self.labels,)),
            ("u1", (self.splits, self.ids, self.paths.data)),
            ("<f8", (self.mean, self.std)),
        )
        for dtype, arrays in parts:
            for array in arrays:
                content.update(np.ascontiguousarray(array, dtype))
        content.update(np.ascontiguousarray(self.columns.digests))  # of nothing, where there are none
        return content.hexdigest()


@dataclass(frozen=True)
class ShardLayout:
    """Where a shard's images lie in its file.

    Attributes:
        offsets: int64, (n + 1,): bytes; image i lies from offsets[i] to offsets[i + 1].
        checksums: uint32, (n,): CRC-32C of these bytes.
    """

    offsets: np.ndarray
    checksums: np.ndarray


def write_shard(folder: Path, images: np.ndarray | Sequence[bytes], ids: np.ndarray) -> tuple[str, int]:
    """Write one shard, named after its content; return its file name and size in bytes.

    Args:
        folder: where to.
        images, ids: as for `shard_content`.
    """
    content = shard_content(images, ids)
    name = shard_name(content)
    write_file(folder / name, content)
    return name, len(content)


def shard_content(images: np.ndarray | Sequence[bytes], ids: np.ndarray) -> bytes:
    """Return the bytes of a shard; the same images and ids give the same with every h5py since 3.11.

    Args:
        images: uint8, (n, H, W, C); or n image files, encoded.
        ids: uint8, (n, 32).
    """
    from google_crc32c import value as crc32c  # only writers need it, and who verifies

    checksums = np.array([crc32c(bytes(image)) for image in images], "<u4")
    if isinstance(images, np.ndarray):
        pixels = {"image": images}
    else:
        starts = np.cumsum([0, *map(len, images)], dtype="<i8")
        pixels = {"data": np.frombuffer(b"".join(images), "u1"), "start": starts}
    return _file_image(pixels | {"id": ids, "crc32c": checksums})


def shard_name(content: bytes) -> str:
    """Return the file name of a shard with this content."""
    return f"{hashlib.sha256(content).hexdigest()}.h5"


def write_index(folder: Path, index: Index, columns: Sequence[Column] = ()) -> int:
    """Write dataset.h5, with a virtual dataset `images` over raw shards for other HDF5 tools; return its bytes.

    Args:
        columns: those of `index.columns`, in that order.
    """
    arrays = {
        "label": index.labels.astype(LABEL_TYPES[index.kind]),
        "split": index.splits.astype("u1"),
        "id": index.ids,
        "path": index.paths.data,
        "path_start": index.paths.starts.astype("<i8"),
        "class": _fixed_text(index.classes),
        "shard_name": _fixed_text(index.shard_names),
        "shard_start": index.shard_starts.astype("<i8"),
        "shard_bytes": index.shard_bytes.astype("<i8"),
    }
    attributes = {
        "format": np.bytes_(FORMAT),
        "version": np.uint32(index.version),
        "digest": np.bytes_(index.digest()),
        "shape": np.array(index.shape, "<u4"),
        "encoding": np.bytes_(index.encoding),
        "splits": np.bytes_(",".join(SPLITS)),
        "mean": index.mean.astype("<f8"),
        "std": index.std.astype("<f8"),
    }
    if index.kind != "class":
        attributes["label_kind"] = np.bytes_(index.kind)
    if index.version > VERSION:
        arrays |= {"column_name": _fixed_text(index.columns.names), "column_type": _fixed_text(index.columns.kinds)}
        arrays["column_digest"] = index.columns.digests
    for number, column in enumerate(columns):
        arrays[f"column_{number}"] = np.asarray(column.data, COLUMN_TYPES[column.kind])
        arrays[f"column_{number}_empty"] = column.empty.astype("u1")
        if column.kind == "text":
            arrays[f"column_{number}_start"] = column.starts.astype("<i8")
    content = _file_image(arrays, attributes, index if index.encoding == "raw" else None)
    write_file(folder / INDEX_NAME, content)
    return len(content)


def read_index(path: Path) -> tuple[Index, str]:
    """Read the dataset.h5 at `path`; the index and its digest.

    Raises:
        PackError: there is none, it is damaged, its parts contradict each other, or it is of another format or version.
    """
    if not path.is_file():
        raise PackError(f"{path} does not exist: make the pack with `dvc repro`, or fetch it with `dvc pull`")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT.encode():
                raise PackError(f"{path} is HDF5, but no {FORMAT} dataset")
            version = file.attrs["version"]
            if version not in (VERSION, WITH_COLUMNS, WITH_KIND):
                raise PackError(
                    f"{path} has version {version} of the format, this imagepack reads {VERSION} to {WITH_KIND}: "
                    "use the imagepack of the repository revision that made the pack, or a newer one"
                )
            kind = file.attrs["label_kind"].decode() if version == WITH_KIND else "class"
            if kind not in LABEL_TYPES or (version == WITH_KIND and kind == "class"):
                raise ValueError(f"labels of a kind {kind!r}, which there is not")
            index = Index(
                classes=_texts(file, "class"),
                labels=_array(file, "label", LABEL_TYPES[kind]),
                splits=_array(file, "split", "u1"),
                ids=_array(file, "id", "u1"),
                paths=Texts(_array(file, "path", "u1"), _array(file, "path_start", "<i8")),
                shard_names=_texts(file, "shard_name"),
                shard_starts=_array(file, "shard_start", "<i8"),
                shard_bytes=_array(file, "shard_bytes", "<i8"),
                shape=tuple(int(side) for side in file.attrs["shape"]),
                encoding=file.attrs["encoding"].decode(),
                mean=file.attrs["mean"],
                std=file.attrs["std"],
                columns=_column_names(file) if version > VERSION else NO_COLUMNS,
                kind=kind,
            )
            digest = file.attrs["digest"].decode()
            damaged = index.digest() != digest
        if not damaged:
            _require_sound(index)
    except PackError:
        raise
    except Exception as error:
        raise PackError(f"{path} is damaged ({error}): {AGAIN}") from error
    if damaged:
        raise PackError(f"{path} is damaged (its digest differs): {AGAIN}")
    return index, digest


def _column_names(file: h5py.File) -> ColumnNames:
    return ColumnNames(_texts(file, "column_name"), _texts(file, "column_type"), _array(file, "column_digest", "u1"))


def read_column(path: Path, index: Index, name: str) -> Column:
    """Read one column of the dataset.h5 at `path`, whose index was read.

    Raises:
        PackError: it is damaged, or no more the same.
    """
    number = index.columns.names.index(name)
    kind = index.columns.kinds[number]
    try:
        with h5py.File(path, "r") as file:
            column = Column(
                name=name,
                kind=kind,
                data=_array(file, f"column_{number}", COLUMN_TYPES[kind]),
                starts=_array(file, f"column_{number}_start", "<i8") if kind == "text" else np.empty(0, "<i8"),
                empty=_array(file, f"column_{number}_empty", "u1"),
            )
    except Exception as error:
        raise PackError(f"{path} is damaged ({error}): {AGAIN}") from error
    if column.digest() != index.columns.digests[number].tobytes():
        raise PackError(f"{path} is damaged or no more the same (the digest of {name} differs): {AGAIN}")
    return column


def _require_sound(index: Index) -> None:
    """Refuse an index that leads to other files, or to rows, labels or splits that there are not: whoever made it.

    Raises:
        ValueError: the first fault.
    """
    count, channels = len(index.labels), index.shape[-1:]
    for name in index.shard_names:
        if not SHARD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a shard, which is 64 hexadecimal digits and .h5")
    if len(index.shape) != 3 or min(index.shape) < 1:
        raise ValueError(f"its images have the shape {index.shape}, not (H, W, C)")
    if index.encoding not in ENCODINGS:
        raise ValueError(f"its encoding {index.encoding!r} is none of {', '.join(ENCODINGS)}")
    shapes = {
        "label": (index.labels, (count,) if index.kind == "class" else (count, len(index.classes))),
        "split": (index.splits, (count,)),
        "id": (index.ids, (count, 32)),
        "path_start": (index.paths.starts, (count + 1,)),
        "shard_start": (index.shard_starts, (len(index.shard_names) + 1,)),
        "shard_bytes": (index.shard_bytes, (len(index.shard_names),)),
        "mean": (index.mean, channels),
        "std": (index.std, channels),
        "column_digest": (index.columns.digests, (len(index.columns.names), 32)),
    }
    for name, (array, shape) in shapes.items():
        if np.shape(array) != shape:
            raise ValueError(f"{name} has the shape {np.shape(array)}, not {shape}")
    limits = [("split", index.splits, len(SPLITS))]
    if index.kind != "numbers":
        limits.append(("label", index.labels, 2 if index.kind == "multilabel" else len(index.classes)))
    for name, array, limit in limits:
        if array.size and not 0 <= array.min() <= array.max() < limit:
            raise ValueError(f"a {name} is not within 0 to {limit - 1}")
    if index.kind != "class" and (not index.classes or not np.isfinite(index.labels).all()):
        raise ValueError("a label is no finite number, or there are no labels")
    if len(index.columns.kinds) != len(index.columns.names) or set(index.columns.kinds) - COLUMN_TYPES.keys():
        raise ValueError("its columns are of types that there are not")
    _require_cuts("path_start", index.paths.starts, index.paths.data.size, least=0)
    _require_cuts("shard_start", index.shard_starts, count, least=1)
    if (index.shard_bytes < 1).any():
        raise ValueError("a shard has no bytes")
    if index.mean.dtype != "<f8" or index.std.dtype != "<f8":
        raise ValueError("mean and std are not float64")


def _require_cuts(name: str, starts: np.ndarray, end: int, least: int) -> None:
    """Refuse starts of parts that do not go from 0 to `end`, each part with at least so many.

    Raises:
        ValueError: the fault.
    """
    if starts[0] != 0 or starts[-1] != end or (starts[1:] < starts[:-1] + least).any():
        raise ValueError(f"{name} does not go from 0 to {end} in order")


def read_layout(path: Path, index: Index, shard: int) -> ShardLayout:
    """Look into a shard and say where its images lie; no pixel is read.

    Raises:
        PackError: the file is missing, of another size, holds other images, or is no such shard as this module writes.
    """
    check_size(path, int(index.shard_bytes[shard]))
    start, stop = (int(row) for row in index.shard_starts[shard : shard + 2])
    rows = stop - start
    try:
        with h5py.File(path, "r") as file:
            ids, checksums = _array(file, "id", "u1"), _array(file, "crc32c", "<u4")
            if index.encoding == "raw":
                begins = np.arange(rows + 1) * int(np.prod(index.shape))
                offset = _offset(file, "image", (rows, *index.shape))
            else:
                begins = _array(file, "start", "<i8")
                offset = _offset(file, "data", (int(begins[-1]),))
        if not np.array_equal(ids, index.ids[start:stop]):
            raise ValueError("it holds other images than the index says")
        if begins.shape != (rows + 1,) or checksums.shape != (rows,) or begins[0] or (np.diff(begins) <= 0).any():
            raise ValueError("its parts do not fit together")
        if offset + begins[-1] > index.shard_bytes[shard]:
            raise ValueError("images beyond its end")
    except Exception as error:
        raise PackError(f"{path} is damaged ({error}): {AGAIN}") from error
    return ShardLayout(offset + begins, checksums)


def check_size(path: Path, size: int) -> None:
    """Refuse a shard that is missing, not as long as the index says, or a link that leads to no cache."""
    if path.is_symlink() and not _is_kept_by_content(target := path.resolve(), path):
        raise PackError(f"{path} is a link to {target}, which is in no cache: {AGAIN}")
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        raise PackError(f"{path} is missing: get it with `dvc checkout` or `dvc pull`") from None
    if actual != size:
        raise PackError(f"{path} has {actual} bytes instead of {size}: {AGAIN}")


def _is_kept_by_content(target: Path, shard: Path) -> bool:
    """Return whether a link leads to DVC's cache (`cache.type symlink`), or to a store of files named by sha256."""
    dvc = re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{30}", f"{target.parent.name}/{target.name}")
    return bool(dvc) or target.stem == shard.stem


def _plain(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose bytes lie in this file, in one piece and as they are.

    Raises:
        ValueError: it is none: a link, virtual, external, chunked or filtered.
    """
    hard = file.get(name, getclass=True, getlink=True) is h5py.HardLink
    if not hard or file.get(name, getclass=True) is not h5py.Dataset:
        raise ValueError(f"it does not hold {name} itself")
    made = file[name].id.get_create_plist()
    dataset = file[name]
    apart = made.get_layout() != h5py.h5d.CONTIGUOUS or made.get_external_count() or made.get_nfilters()
    if apart:
        raise ValueError(f"{name} is no plain array")
    return dataset


def _array(file: h5py.File, name: str, dtype: str) -> np.ndarray:
    """Return all of a plain dataset of this type, which cannot be larger than the file."""
    dataset = _plain(file, name)
    if dataset.dtype != dtype:
        raise ValueError(f"{name} is of type {dataset.dtype}, not {np.dtype(dtype)}")
    if dataset.size and (dataset.id.get_offset() or 0) + dataset.nbytes > file.id.get_filesize():
        raise ValueError(f"{name} reaches beyond its end")
    return dataset[:]


def _offset(file: h5py.File, name: str, shape: tuple[int, ...]) -> int:
    """Return where the uint8 pixels begin in the file, bytes."""
    pixels = _plain(file, name)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"{name} is {pixels.dtype}{pixels.shape}, where the index says uint8{shape}")
    if (offset := pixels.id.get_offset()) is None:
        raise ValueError("images beyond its end")
    return offset


def _file_image(arrays: dict[str, np.ndarray], attributes: dict | None = None, index: Index | None = None) -> bytes:
    """Return an HDF5 file with these datasets, contiguous and without times: a function of its arguments.

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


def write_file(path: Path, content: bytes) -> None:
    """Write it whole or not at all, so that a killed run leaves no half shard under a good name."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    """Return UTF-8 of fixed length, padded with zeros, as h5py stores without a heap."""
    encoded = [text.encode() for text in texts]
    length = max(map(len, encoded), default=1)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))


def _texts(file: h5py.File, name: str) -> list[str]:
    dtype = _plain(file, name).dtype
    if dtype.kind != "S":
        raise ValueError(f"{name} is of type {dtype}, not text of fixed length")
    return [text.decode() for text in _array(file, name, dtype)]
