"""Pack: write the processed images into HDF5 shards that a small change of the dataset hardly changes.

    python -m stages.pack data/processed data/validated/manifest.parquet data/packed reports/pack.json

docs/format.md describes the files.
"""

import io
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from imagepack.engine.inputs import Input
from imagepack.engine.memo import NO_MEMO, Memo
from imagepack.engine.params import Pack, Split
from imagepack.engine.stage import empty_folder, run_stage
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images import png, zips
from imagepack.images.cuts import PNG_SHARE, cut, uint64
from imagepack.reader import format as packs

LIBRARIES = ("pillow", "numpy", "h5py", "zlib-ng", "google-crc32c")
"""Packages on which the results depend: the memo forgets them when another version is installed."""
CHOSEN = packs.SPLITS[:3]
"""The splits that an image can be given: train, val, test."""
TYPICAL_SHARE = {"raw": 1.0, "png": PNG_SHARE, "jpeg": 0.1}
"""Bytes of an encoded image by those of its pixels, of photographs: decides how many images a shard gets, since that
may depend on nothing that a single image changes."""
AGAIN = "run dvc repro --force --single-item preprocess, then dvc repro"
"""What helps also where DVC holds preprocess for up to date."""

Processed = Path | zips.Member
"""A processed image: a file, or a member of a zip."""


def pack(processed: Input, manifest: Input, out: Path, report: Path, params: Pack, memo: Memo = NO_MEMO) -> str:
    """Write the accepted images, in the manifest's order, to `out`, and the counts to `report`."""
    table = manifests.read_accepted(manifest, "path", "label", "batch", "sha256", "group")
    ids = manifests.hashes(table["sha256"])
    splits = choose_splits(ids, table["batch"], params.split)
    if params.split.leakage == "exclude":
        splits = exclude_leaks(splits, table["group"])
    zipped = members(processed)

    def files(start: int, end: int) -> list[Processed]:
        return [zipped.get(f"{path}.png") or processed / f"{path}.png" for path in table["path"][start:end]]

    mode, width, height = peek(*files(0, 1))
    shape = (height, width, len(mode))
    starts = cut(
        ids, table["batch"], max(1, int(params.shard_mib * 2**20 / math.prod(shape) / TYPICAL_SHARE[params.encoding]))
    )
    empty_folder(out)
    (out / packs.SHARDS_NAME).mkdir()
    counted = splits == 0 if (splits == 0).any() else np.ones(len(splits), bool)  # train, or all where it is empty
    tasks = (list(zip(files(a, b), ids[a:b], counted[a:b], strict=True)) for a, b in itertools.pairwise(starts))
    how = How(mode, width, height, params.encoding, params.jpeg_quality if params.encoding == "jpeg" else 0)
    make = memo.of(make_shard, shorten, partial(restore, memo.earlier))
    write = partial(write_shard, out / packs.SHARDS_NAME, how, make)
    shards = list(memo.map_in_order(write, tasks, len(table), "pack"))
    mean, std = mean_and_std(sum(counts for *_, counts in shards))
    classes = sorted(table["label"].unique())
    index = packs.Index(
        classes=classes,
        labels=table["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int32).to_numpy(),
        splits=splits,
        ids=ids,
        paths=packs.Texts.of(table["path"]),
        shard_names=[name for name, *_ in shards],
        shard_starts=np.array(starts),
        shard_bytes=np.array([size for _, size, _ in shards]),
        shape=shape,
        encoding=params.encoding,
        mean=mean,
        std=std,
    )
    packs.write_index(out, index)
    counts = {name: int((splits == number).sum()) for number, name in enumerate(packs.SPLITS)}
    metrics = {
        "images": len(table),
        "classes": len(classes),
        "shards": len(shards),
        "bytes": int(index.shard_bytes.sum()),
        "digest": index.digest(),
        "split": counts,
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8", newline="\n")
    split = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in CHOSEN)
    plural = "s" if len(shards) > 1 else ""
    size = f"{metrics['bytes'] / 2**20:.1f} MiB"
    return f"{len(table)} images ({split}) in {len(shards)} shard{plural}, {size}{memo.summary()}"


def choose_splits(ids: np.ndarray, batches: pl.Series, params: Split) -> np.ndarray:
    """The split of each image, uint8, (N,), positions in format.SPLITS.

    By hash, it depends on the image's content and the fractions alone, so no image changes its split when others
    come or go. Test lies at the low end and train at the high end: moving the border between train and val leaves
    test as it is.

    Args:
        ids: uint8, (N, 32).
        batches: of each image, for `by: folder`.
    """
    if params.by == "folder":
        names = batches.str.split("/").list.first()
        if strange := sorted(set(names) - set(CHOSEN)):
            raise InputError(
                f"pack.split.by is folder, so the folders above the classes must be {', '.join(CHOSEN)}; "
                f"found {', '.join(repr(name) for name in strange)}: rename them, or set by: hash"
            )
        return names.replace_strict(list(CHOSEN), range(len(CHOSEN)), return_dtype=pl.UInt8).to_numpy()
    uniform = uint64(ids, 0) / 2.0**64
    train, val, test = range(len(CHOSEN))
    return np.select([uniform < params.test, uniform < params.test + params.val], [test, val], train).astype("u1")


def exclude_leaks(splits: np.ndarray, groups: pl.Series) -> np.ndarray:
    """Leave in each group of images that look alike those of one split alone: test before val before train.

    The others belong to no split: moved into test, they would change what models are compared on.

    Args:
        splits: uint8, (N,).
        groups: a name that images which look alike share; empty for those without.
    """
    table = pl.DataFrame({"split": splits, "group": groups})
    first = pl.col("split").max().over("group")  # their numbers rise: train, val, test
    leaks = (pl.col("group") != "") & (pl.col("split") < first)
    excluded = pl.lit(packs.SPLITS.index("excluded"), pl.UInt8)
    return table.select(pl.when(leaks).then(excluded).otherwise("split")).to_series().to_numpy()


@dataclass(frozen=True)
class Shard:
    """What becomes of a task.

    Attributes:
        name: of its file.
        content: the file.
        counts: int64, (C, 256): how often each channel of the images to be counted has each value.
    """

    name: str
    content: bytes
    counts: np.ndarray


@dataclass(frozen=True)
class How:
    """What all images of a pack have in common.

    Attributes:
        mode, width, height: of the processed images.
        encoding, quality: of the pack; quality is 0 where it is no matter.
    """

    mode: str
    width: int
    height: int
    encoding: str
    quality: int


class BadImage(Exception):
    """Number of the image in its task, and what it is."""


def write_shard(
    folder: Path, how: How, make: Callable[..., Shard], task: list[tuple[Processed, np.ndarray, bool]]
) -> tuple[str, int, np.ndarray]:
    """Runs in a worker; a task is one shard: processed file, id, and whether its pixels are counted, of each image.

    Returns:
        File name, size in bytes, and how often each channel has each value: int64, (C, 256).
    """
    files = [read(path) for path, *_ in task]
    try:
        shard = make(files, [image_id.tobytes() for _, image_id, _ in task], [bool(c) for *_, c in task], how)
    except BadImage as error:
        number, what = error.args
        raise InputError(f"{task[number][0]} is {what}: {AGAIN}") from None
    packs.write_file(folder / shard.name, shard.content)
    return shard.name, len(shard.content), shard.counts


def make_shard(files: list[bytes], ids: list[bytes], counted: list[bool], how: How) -> Shard:
    """A shard of these processed images. It must depend on the arguments alone, since the memo keeps what it was.

    Raises:
        BadImage: one does not decode, or is of another mode, width or height.
    """
    counts = np.zeros((len(how.mode), 256), np.int64)
    parts = []
    for number, (data, count) in enumerate(zip(files, counted, strict=True)):
        try:
            image = decode(data)
        except OSError as error:
            raise BadImage(number, f"missing or damaged ({error})") from None
        found, expected = (image.mode, *image.size), (how.mode, how.width, how.height)
        if found != expected:
            found, others = (f"{mode} of {width} x {height} pixels" for mode, width, height in (found, expected))
            raise BadImage(number, f"{found}, others are {others}")
        if count:
            counts += np.array(image.histogram()).reshape(counts.shape)
        parts.append(encode(data, image, how))
    images = np.stack(parts) if how.encoding == "raw" else parts
    content = packs.shard_content(images, np.frombuffer(b"".join(ids), "u1").reshape(-1, 32))
    return Shard(packs.shard_name(content), content, counts)


def shorten(shard: Shard) -> bytes:
    """What the memo keeps of a shard: all but the content, which its name tells and DVC's cache mostly has."""
    return f"{shard.name} ".encode() + shard.counts.astype("<i8").tobytes()


def restore(find: Callable[[str], Path | None], kept: bytes) -> Shard | None:
    """The shard, from the file that `find` finds; None if it finds none, or one of another content."""
    name, _, counts = kept.partition(b" ")
    try:
        path = find(name.decode())
        content = path.read_bytes() if path else b""
    except OSError:
        return None
    if packs.shard_name(content) != name.decode():
        return None
    return Shard(name.decode(), content, np.frombuffer(counts, "<i8").reshape(-1, 256))


def encode(data: bytes, image: Image.Image, how: How) -> np.ndarray | bytes:
    """As the shard holds it: pixels, uint8 (H, W, C); or a PNG, which `data` is; or a JPEG."""
    match how.encoding:
        case "raw":
            return np.asarray(image).reshape(image.height, image.width, -1)
        case "png":
            return data
        case "jpeg":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=how.quality)
            return file.getvalue()


def mean_and_std(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel's pixels, scaled to 0 to 1: float64, (C,). Exact, so the order of the images does not matter.

    Args:
        counts: int64, (C, 256): how often each value occurs.
    """
    values, total = np.arange(256), counts.sum(1)
    first, second = counts @ values, counts @ values**2
    mean = first / total / 255
    return mean, np.sqrt(np.maximum(second / total / 255**2 - mean**2, 0))


def members(processed: Path) -> dict[str, zips.Member]:
    """What is in the zips of the processed images, by path; empty where preprocess has made none.

    What lies there decides, and not preprocess.layout, on which a pack does not depend.

    Raises:
        InputError: a zip is not whole.
    """
    found = {}
    for file in sorted(processed.glob(f"*{zips.ENDING}")):
        try:
            inside, faults = zips.list_members(file)
        except (zips.Damaged, OSError) as error:
            faults = [str(error)]
        if faults:
            raise InputError(f"{file} is damaged ({faults[0]}): {AGAIN}")
        found |= {member.path: member for member in inside}
    return found


def peek(file: Processed) -> tuple[str, int, int]:
    """Mode, width and height of a processed image."""
    try:
        image = decode(read(file))
    except OSError as error:
        raise InputError(f"{file} is missing or damaged ({error}): {AGAIN}") from None
    return image.mode, *image.size


def read(file: Processed) -> bytes:
    """A processed image's file.

    Raises:
        InputError: it is missing, or damaged in its zip.
    """
    try:
        return file.read_bytes() if isinstance(file, Path) else zips.read(file)
    except (OSError, zips.Unreadable) as error:
        raise InputError(f"{file} is missing or damaged ({error}): {AGAIN}") from None


def decode(data: bytes) -> Image.Image:
    """A processed image.

    Raises:
        OSError: it is damaged.
    """
    if (pixels := png.decode(data)) is not None:
        return Image.fromarray(pixels)
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
    except SyntaxError as error:
        raise OSError(str(error)) from None
    return image


if __name__ == "__main__":
    run_stage(pack)
