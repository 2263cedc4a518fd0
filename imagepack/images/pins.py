"""data/raw/pinned.parquet: the split that an image keeps from `python3 run.py pin` on, whatever becomes of its file."""

import io
import os
from pathlib import Path

import polars as pl

from imagepack.errors import InputError
from imagepack.images.raw_names import PINNED

SCHEMA = {"path": pl.String, "sha256": pl.String, "split": pl.String}
"""An image's path below data/raw and id as they were, and train, val or test."""


def read(raw: Path) -> pl.DataFrame:
    """Return what is pinned; no rows where nothing is.

    Raises:
        InputError: the file is damaged.
    """
    path = raw / PINNED
    if not path.exists():
        return pl.DataFrame(schema=SCHEMA)
    try:
        pins = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is damaged ({str(error).splitlines()[0]}): dvc checkout it, or pin again") from None
    if pins.schema != SCHEMA:
        raise InputError(f"{path} has other columns than {', '.join(SCHEMA)}: dvc checkout it, or pin again")
    return pins


def write(raw: Path, pins: pl.DataFrame) -> None:
    """Write them, whole or not at all."""
    file = io.BytesIO()
    pins.sort("path", "sha256").write_parquet(file, compression="zstd", statistics=False)
    beside = raw / f".{PINNED}.{os.getpid()}"
    beside.write_bytes(file.getbuffer())
    beside.replace(raw / PINNED)


def splits_of(pins: pl.DataFrame, images: pl.DataFrame) -> pl.Series:
    """Return the split in which each image is pinned: by its content, else by its path; null where it is not.

    Args:
        pins: as `read` returns them.
        images: path and sha256, N rows.
    """
    found = images.select("path", "sha256")
    for key in ("sha256", "path"):
        known = pins.rename({"split": f"by_{key}"}).filter(pl.col(key) != "").select(key, f"by_{key}")
        found = found.join(
            known.unique(key, keep="first", maintain_order=True), on=key, how="left", maintain_order="left"
        )
    return found.select(pl.coalesce("by_sha256", "by_path")).to_series()
