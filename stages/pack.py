"""Pack: write the processed images into HDF5 shards that a small change of the dataset hardly changes.

    python -m stages.pack data/processed data/validated/manifest.parquet data/packed reports/pack.json

docs/format.md describes the files.
"""

import io
import itertools
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from imagepack import format as packs
from stages.params import Pack, Split
from stages.toolkit import manifest as manifests
from stages.toolkit import workers
from stages.toolkit.errors import InputError
from stages.toolkit.stage import empty_folder, run_stage

CHOSEN = packs.SPLITS[:3]
"""The splits that an image can be given: train, val, test."""
TYPICAL_SHARE = {"raw": 1.0, "png": 0.6, "jpeg": 0.1}
"""Bytes of an encoded image by those of its pixels, of photographs: decides how many images a shard gets, since that
may depend on nothing that a single image changes."""


def pack(processed: Path, manifest: Path, out: Path, report: Path, params: Pack) -> str:
    """Write the accepted images, in the manifest's order, to `out`, and the counts to `report`."""
    table = manifests.read_accepted(manifest)
    ids = np.frombuffer(bytes.fromhex("".join(table["sha256"])), "u1").reshape(-1, 32)
    splits = choose_splits(ids, table["batch"], params.split)
    if params.split.leakage == "exclude":
        splits = exclude_leaks(splits, table["group"])
    mode, side = peek(processed / f"{table['path'][0]}.png")
    shape = (*side[::-1], len(mode))
    starts = cut(
        ids, table["batch"], max(1, int(params.shard_mib * 2**20 / math.prod(shape) / TYPICAL_SHARE[params.encoding]))
    )
    empty_folder(out)
    (out / packs.SHARDS_NAME).mkdir()
    counted = splits == 0 if (splits == 0).any() else np.ones(len(splits), bool)  # train, or all where it is empty
    files = [processed / f"{path}.png" for path in table["path"]]
    tasks = (list(zip(files[a:b], ids[a:b], counted[a:b], strict=True)) for a, b in itertools.pairwise(starts))
    write = partial(write_shard, out / packs.SHARDS_NAME, params, mode, side)
    shards = list(workers.map_in_order(write, tasks, len(table), "pack"))
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
    return f"{len(table)} images ({split}) in {len(shards)} shard{plural}, {metrics['bytes'] / 2**20:.1f} MiB"


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
    uniform = _number(ids, 0) / 2.0**64
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


def cut(ids: np.ndarray, batches: pl.Series, rows: int) -> list[int]:
    """Where shards of about `rows` images begin, and N at the end: decided by content, so that a change stays local.

    An image ends a shard where its hash is the least of the 2w + 1 around it, which happens once in 2w + 1 images
    on average (local-minimum chunking, Bjorner et al. 2010); w comes from `rows`, never from the number of images.
    A shard of 4 * rows is cut in any case, and no shard reaches over the end of a batch.
    """
    w = (rows - 1) // 2
    batch_ends = np.flatnonzero((batches != batches.shift(-1)).fill_null(True).to_numpy()) + 1
    starts = [0]
    for begin, end in zip([0, *batch_ends], batch_ends, strict=False):
        hashes = pl.Series(_number(ids[begin:end], 8))
        least = hashes == hashes.rolling_min(2 * w + 1, center=True)
        if w:  # of equal ones (duplicates that params let in) the first
            least &= hashes < hashes.shift(1).rolling_min(w)
        for stop in [*(begin + 1 + np.flatnonzero(least.fill_null(False).to_numpy())), end]:
            starts += range(starts[-1] + 4 * rows, stop, 4 * rows)
            if stop > starts[-1]:
                starts.append(int(stop))
    return starts


def _number(ids: np.ndarray, offset: int) -> np.ndarray:
    """Eight bytes of each id as a uint64: parts of a sha256, so as good as independent hashes."""
    return np.ascontiguousarray(ids[:, offset : offset + 8]).view(">u8")[:, 0].astype("u8")


def write_shard(
    folder: Path, params: Pack, mode: str, side: tuple[int, int], task: list[tuple[Path, np.ndarray, bool]]
) -> tuple[str, int, np.ndarray]:
    """Runs in a worker; a task is one shard: processed file, id, and whether its pixels are counted, of each image.

    Returns:
        File name, size in bytes, and how often each channel has each value: int64, (C, 256).
    """
    counts = np.zeros((len(mode), 256), np.int64)
    parts = []
    for path, _, counted in task:
        data, image = read(path, mode, side)
        if counted:
            counts += np.array(image.histogram()).reshape(counts.shape)
        parts.append(encode(data, image, params))
    images = np.stack(parts) if params.encoding == "raw" else parts
    ids = np.stack([image_id for _, image_id, _ in task])
    return *packs.write_shard(folder, images, ids), counts


def encode(data: bytes, image: Image.Image, params: Pack) -> np.ndarray | bytes:
    """As the shard holds it: pixels, uint8 (H, W, C); or a PNG, which `data` is; or a JPEG."""
    match params.encoding:
        case "raw":
            return np.asarray(image).reshape(image.height, image.width, -1)
        case "png":
            return data
        case "jpeg":
            file = io.BytesIO()
            image.save(file, "JPEG", quality=params.jpeg_quality)
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


def peek(path: Path) -> tuple[str, tuple[int, int]]:
    """Mode, width and height of a processed image."""
    _, image = read(path)
    return image.mode, image.size


def read(path: Path, mode: str | None = None, side: tuple[int, int] | None = None) -> tuple[bytes, Image.Image]:
    """A processed image: the file, and what it shows.

    Raises:
        InputError: it is missing or damaged, or not of this mode, width and height.
    """
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run dvc repro again") from None
    if side and (image.mode, image.size) != (mode, side):
        found, others = (f"{m} of {w} x {h} pixels" for m, (w, h) in ((image.mode, image.size), (mode, side)))
        raise InputError(f"{path} is {found}, others are {others}: run dvc repro again")
    return data, image


if __name__ == "__main__":
    run_stage(pack)
