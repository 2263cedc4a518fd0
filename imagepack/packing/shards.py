"""Shards of a pack: cut, made in workers, and restored from what the memo and DVC's cache have of them."""

import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from imagepack.engine.memo import Memo
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images.cuts import PNG_SHARE, cut
from imagepack.packing import processed
from imagepack.packing.processed import Processed, ProcessedImages
from imagepack.packing.restored import find_again
from imagepack.reader import format as packs

TYPICAL_SHARE = {"raw": 1.0, "png": PNG_SHARE, "jpeg": 0.1}
"""Bytes of an encoded photograph by those of its pixels. It decides how many images a shard gets, since that may
depend on nothing that a single image changes."""


@dataclass(frozen=True)
class PackSpec:
    """What all images of a pack have in common.

    Attributes:
        mode, width, height: of the processed images.
        encoding: raw, png or jpeg.
        quality: of jpeg; else 0.
    """

    mode: str
    width: int
    height: int
    encoding: str
    quality: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, len(self.mode)


@dataclass(frozen=True)
class Shard:
    """A shard.

    Attributes:
        name: of the file, after the hash of its content.
        content: the file.
        counts: int64, (C, 256): how often each channel of the counted images has each value.
    """

    name: str
    content: bytes
    counts: np.ndarray


class BadImage(Exception):
    """Number of the image in its shard, and what is wrong with it."""


def cut_into_shards(ids: np.ndarray, batches: pl.Series, spec: PackSpec, shard_mib: int) -> list[int]:
    """Return where shards of about `shard_mib` begin, and N at the end.

    Args:
        ids: uint8, (N, 32).
        batches: of each image; a shard lies in one.
    """
    images = shard_mib * 2**20 / math.prod(spec.shape) / TYPICAL_SHARE[spec.encoding]
    return cut(ids, batches, max(1, int(images)))


def write(
    folder: Path,
    files: ProcessedImages,
    ids: np.ndarray,
    counted: np.ndarray,
    starts: list[int],
    spec: PackSpec,
    memo: Memo,
) -> list[tuple[str, int, np.ndarray]]:
    """Write the shards into `folder`.

    Args:
        files: N.
        ids: uint8, (N, 32).
        counted: bool, (N,): whose pixels count for mean and standard deviation.
        starts: as `cut_into_shards` returns them.

    Returns:
        Of each shard its name, size in bytes and counts, as of Shard.

    Raises:
        InputError: an image is missing, damaged, or of another shape.
    """
    tasks = (list(zip(files[a:b], ids[a:b], counted[a:b], strict=True)) for a, b in itertools.pairwise(starts))
    make = memo.of(make_shard, shorten, partial(restore, memo.earlier))
    return list(memo.map_in_order(partial(_write_shard, folder, spec, make), tasks, len(ids), "pack"))


def _write_shard(
    folder: Path, spec: PackSpec, make: Callable[..., Shard], task: list[tuple[Processed, np.ndarray, bool]]
) -> tuple[str, int, np.ndarray]:
    data = [processed.read(file) for file, *_ in task]
    try:
        shard = make(data, [image_id.tobytes() for _, image_id, _ in task], [bool(c) for *_, c in task], spec)
    except BadImage as error:
        number, what = error.args
        raise InputError(f"{task[number][0]} is {what}: {processed.PREPROCESS_AGAIN}") from None
    packs.write_file(folder / shard.name, shard.content)
    return shard.name, len(shard.content), shard.counts


def make_shard(files: list[bytes], ids: list[bytes], counted: list[bool], spec: PackSpec) -> Shard:
    """Make a shard of processed images. It must depend on the arguments alone, since the memo keeps it.

    Raises:
        BadImage: one does not decode, or is of another mode, width or height.
    """
    counts = np.zeros((len(spec.mode), 256), np.int64)
    parts = []
    for number, (data, count) in enumerate(zip(files, counted, strict=True)):
        image = _decode(data, number, spec)
        if count:
            counts += np.array(image.histogram()).reshape(counts.shape)
        parts.append(_encode(data, image, spec))
    images = np.stack(parts) if spec.encoding == "raw" else parts
    content = packs.shard_content(images, np.frombuffer(b"".join(ids), "u1").reshape(-1, 32))
    return Shard(packs.shard_name(content), content, counts)


def _decode(data: bytes, number: int, spec: PackSpec) -> Image.Image:
    try:
        image = processed.decode_png(data)
    except OSError as error:
        raise BadImage(number, f"missing or damaged ({error})") from None
    found, expected = (image.mode, *image.size), (spec.mode, spec.width, spec.height)
    if found != expected:
        found, others = (f"{mode} of {width} x {height} pixels" for mode, width, height in (found, expected))
        raise BadImage(number, f"{found}, others are {others}")
    return image


def _encode(data: bytes, image: Image.Image, spec: PackSpec) -> np.ndarray | bytes:
    """Return an image as the shard holds it: pixels, uint8 (H, W, C); or a PNG, which `data` is; or a JPEG."""
    match spec.encoding:
        case "raw":
            return np.asarray(image).reshape(image.height, image.width, -1)
        case "png":
            return data
        case "jpeg":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=spec.quality)
            return file.getvalue()


def shorten(shard: Shard) -> bytes:
    """Return what the memo keeps of a shard: name and counts."""
    return f"{shard.name} ".encode() + shard.counts.astype("<i8").tobytes()


def restore(find: Callable[[str], Path | None], kept: bytes) -> Shard | None:
    """Return the shard again, or None where it is not found."""
    name, _, counts = kept.partition(b" ")
    content = find_again(find, name.decode(), packs.shard_name)
    return None if content is None else Shard(name.decode(), content, np.frombuffer(counts, "<i8").reshape(-1, 256))


def index_of(
    table: pl.DataFrame,
    splits: np.ndarray,
    ids: np.ndarray,
    shards: list[tuple[str, int, np.ndarray]],
    starts: list[int],
    spec: PackSpec,
    columns: list[packs.Column],
    predicted: pl.DataFrame,
) -> packs.Index:
    """Return the index of a pack: labels, splits, ids, and where each image lies.

    Args:
        table: path and label of each image, N rows.
        splits: uint8, (N,), positions in format.SPLITS.
        ids: uint8, (N, 32).
        shards: as `write` returned them.
        starts: of each shard, and N at the end.
        columns: as `columns_of` returned them.
        predicted: several labels or numbers, as manifests.read_predicted returns them.
    """
    kind, classes, labels = labels_of(table["label"], predicted)
    mean, std = mean_and_std(sum(counts for *_, counts in shards))
    return packs.Index(
        classes=classes,
        labels=labels,
        splits=splits,
        ids=ids,
        paths=packs.Texts.of(table["path"]),
        shard_names=[name for name, *_ in shards],
        shard_starts=np.array(starts),
        shard_bytes=np.array([size for _, size, _ in shards]),
        shape=spec.shape,
        encoding=spec.encoding,
        mean=mean,
        std=std,
        columns=packs.ColumnNames(
            [column.name for column in columns],
            [column.kind for column in columns],
            np.frombuffer(b"".join(column.digest() for column in columns), "u1").reshape(-1, 32),
        ),
        kind=kind,
    )


def labels_of(label: pl.Series, predicted: pl.DataFrame) -> tuple[str, list[str], np.ndarray]:
    """Return what a pack says is predicted: its kind, names, and the labels, as of packs.Index."""
    if not predicted.width:
        classes = sorted(label.unique())
        return "class", classes, label.replace_strict(classes, range(len(classes)), return_dtype=pl.Int32).to_numpy()
    kind = manifests.label_kind(predicted.columns)
    values = np.stack([column.to_numpy() for column in predicted.iter_columns()], 1)
    names = [name.partition(":")[2] for name in predicted.columns]
    return kind, names, values.astype(packs.LABEL_TYPES[kind])


def columns_of(table: pl.DataFrame) -> list[packs.Column]:
    """Return the columns of tables beside the images as a pack holds them."""
    kinds = {pl.Int64: "integer", pl.Float64: "number", pl.Boolean: "boolean", pl.Date: "date", pl.String: "text"}
    found = []
    for column in table.iter_columns():
        kind, empty = kinds[column.dtype.base_type()], column.is_null().to_numpy()
        if kind == "text":
            texts = packs.Texts.of(column.fill_null(""))
            data, starts = texts.data, texts.starts
        else:
            numbers = column.cast(pl.UInt8) if kind == "boolean" else column.to_physical()
            data, starts = numbers.fill_null(0).to_numpy(), np.empty(0, np.int64)
        found.append(packs.Column(column.name, kind, data, starts, empty))
    return found


def metrics_of(index: packs.Index) -> dict:
    """Return what reports/pack.json says of a pack."""
    return {
        "images": len(index.ids),
        {"class": "classes", "multilabel": "labels", "numbers": "numbers"}[index.kind]: len(index.classes),
        "shards": len(index.shard_names),
        "bytes": int(index.shard_bytes.sum()),
        "digest": index.digest(),
        "split": {name: int((index.splits == number).sum()) for number, name in enumerate(packs.SPLITS)},
    }


def mean_and_std(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel, of pixels scaled to 0 to 1: float64, (C,) each.

    They are exact, so the order of the images does not matter.

    Args:
        counts: int64, (C, 256): how often each value occurs.
    """
    values, total = np.arange(256), counts.sum(1)
    first, second = counts @ values, counts @ values**2
    mean = first / total / 255
    return mean, np.sqrt(np.maximum(second / total / 255**2 - mean**2, 0))
