"""Train, val and test: by content or by folder, and without look-alikes of one split in another."""

import numpy as np
import polars as pl

from imagepack.errors import InputError
from imagepack.images.cuts import uint64
from imagepack.reader import format as packs

CHOICES = packs.SPLITS[:3]
"""The splits that an image can be given: train, val, test."""


def by_hash(ids: np.ndarray, val: float, test: float) -> np.ndarray:
    """Return the split of each image by its content and the fractions alone: uint8, (N,), positions in CHOICES.

    No image changes its split when others come or go. Test lies at the low end and train at the high end: moving the
    border between train and val leaves test as it is.

    Args:
        ids: uint8, (N, 32).
        val, test: fractions, 0 to 1.
    """
    uniform = uint64(ids, 0) / 2.0**64
    return np.select([uniform < test, uniform < test + val], [2, 1], 0).astype("u1")


def by_folder(batches: pl.Series) -> np.ndarray:
    """Return the split of each image by its first folder: uint8, (N,), positions in CHOICES.

    Raises:
        InputError: a folder is called otherwise.
    """
    names = batches.str.split("/").list.first()
    if strange := sorted(set(names) - set(CHOICES)):
        raise InputError(
            f"pack.split.by is folder, so the folders above the classes must be {', '.join(CHOICES)}; "
            f"found {', '.join(repr(name) for name in strange)}: rename them, or set by: hash"
        )
    return names.replace_strict(list(CHOICES), range(len(CHOICES)), return_dtype=pl.UInt8).to_numpy()


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
