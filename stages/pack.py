"""Pack: write the processed images into HDF5 shards that a small change of the dataset hardly changes.

    python -m imagepack.engine pack data/processed data/validated/manifest.parquet data/packed reports/pack.json

Edit `choose_split` to split in another way. docs/format.md describes the files.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from imagepack.engine.inputs import Input
from imagepack.engine.memo import NO_MEMO, Memo
from imagepack.engine.params import Section
from imagepack.engine.stage import empty_folder
from imagepack.images import manifest as manifests
from imagepack.names import counted
from imagepack.packing import shards, splits
from imagepack.packing.processed import ProcessedImages, mode_and_size
from imagepack.reader import format as packs

LIBRARIES = ("pillow", "numpy", "h5py", "zlib-ng", "google-crc32c")
"""Packages that decide what is written: after another version of one is installed, the memo starts afresh."""


class Split(Section):
    """Which images train, which validate, which test."""

    by: Literal["auto", "hash", "folder"] = "auto"
    group: str = "none"
    stratify: bool = False
    leakage: Literal["exclude", "allow"] = "exclude"
    train: float = Field(0.8, ge=0, le=1)
    val: float = Field(0.1, ge=0, le=1)
    test: float = Field(0.1, ge=0, le=1)

    @field_validator("group")
    @classmethod
    def _is_pattern(cls, group: str) -> str:
        return group if group in ("none", "batch") else splits.require_pattern(group)

    @model_validator(mode="after")
    def _add_up_to_one(self) -> "Split":
        if abs((total := self.train + self.val + self.test) - 1) > 1e-9:
            raise ValueError(f"train, val and test must add up to 1, not {total}")
        return self

    @model_validator(mode="after")
    def _stratifies_images(self) -> "Split":
        if self.stratify and (self.group != "none" or self.by == "folder"):
            raise ValueError("stratify goes with neither group nor by: folder, which choose splits themselves")
        return self


class Pack(Section):
    """Section `pack` of params.yaml."""

    shard_mib: int = Field(8, ge=1, le=256)
    encoding: Literal["raw", "png", "jpeg"] = "raw"
    jpeg_quality: int = Field(90, ge=1, le=95)
    split: Split = Split()


def choose_split(images: pl.DataFrame, params: Split) -> np.ndarray:
    """Return the split of each image: uint8, (N,); 0 is train, 1 val, 2 test. Edit here.

    Args:
        images: path, label (`cat;dog` where there are several), batch, key (of the group that `group` says stays
            together, or empty), hash (of the key, or of the image's content: uint64, as good as a random number that
            never changes), and the columns of tables beside the images, `column:` before their names; N rows. A column
            `split` wins over what this returns.
        params: section `pack.split`; add a field to `Split` above to add a knob.
    """
    if params.stratify:
        return splits.stratified(images, params.train, params.val, params.test)
    if params.by == "folder":
        return splits.by_folder(images["batch"])
    return splits.by_hash(images["hash"], params.val, params.test)


def pack(processed: Input, manifest: Input, out: Path, report: Path, params: Pack, memo: Memo = NO_MEMO) -> str:
    """Write the accepted images, in the manifest's order, to `out`, and the counts to `report`."""
    table = manifests.read_accepted(manifest, "path", "label", "batch", "sha256", "group")
    ids = manifests.hashes(table["sha256"])
    columns, predicted = manifests.read_columns(manifest), manifests.read_predicted(manifest)
    images = splits.choices_table(table, columns, ids, params.split.group)
    if params.split.stratify:
        splits.require_classes(predicted.columns)
    if params.split.by == "auto":
        splits.require_decision(images)
    split = splits.given(images, choose_split(images, params.split))
    splits.require_whole_groups(images, split)
    if params.split.leakage == "exclude":
        split = splits.exclude_leaks(split, table["group"])
    files = ProcessedImages(processed, table["path"])
    quality = params.jpeg_quality if params.encoding == "jpeg" else 0
    spec = shards.PackSpec(*mode_and_size(*files[:1]), params.encoding, quality)
    starts = shards.cut_into_shards(ids, table["batch"], spec, params.shard_mib)
    empty_folder(out)
    (out / packs.SHARDS_NAME).mkdir()
    used = split == 0 if (split == 0).any() else np.ones(len(split), bool)  # train, or all where it is empty
    made = shards.write(out / packs.SHARDS_NAME, files, ids, used, starts, spec, memo)
    cells = shards.columns_of(columns)
    index = shards.index_of(table, split, ids, made, starts, spec, cells, predicted)
    packs.write_index(out, index, cells)
    metrics = shards.metrics_of(index)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8", newline="\n")
    counts = ", ".join(f"{n} {name}" for name, n in metrics["split"].items() if n or name in splits.CHOICES)
    size = f"{counted(len(made), 'shard')}, {metrics['bytes'] / 2**20:.1f} MiB"
    lacking = splits.note_lacking(table.hstack(predicted), split)
    unpinned = splits.note_unpinned(images) if params.split.stratify else ""
    return f"{counted(len(table), 'image')} ({counts}) in {size}{memo.summary()}{lacking}{unpinned}"
