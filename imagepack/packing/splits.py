"""Train, val and test: by hash or by folder, groups whole, and without look-alikes of one split in another."""

import hashlib
import re

import numpy as np
import polars as pl

from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images.cuts import uint64
from imagepack.images.raw_files import listing
from imagepack.names import visible
from imagepack.reader import format as packs

CHOICES = packs.SPLITS[:3]
"""The splits that an image can be given: train, val, test."""
MOST_NAMED = 20
"""Classes in a message."""
SHOWN = 3
"""Images of a group in a message, of each split."""
SPLIT_COLUMN = f"{manifests.COLUMN}split"
FOLDERS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}
"""Names of folders and cells, and the split of each."""


def choices_table(table: pl.DataFrame, columns: pl.DataFrame, ids: np.ndarray, group: str) -> pl.DataFrame:
    """Return what a split may be chosen by: path, label, batch, `key` of what stays together, `hash`, and the columns.

    Args:
        table: path, label and batch of each image, N rows.
        columns: what tables beside the images say of them, N rows.
        ids: uint8, (N, 32).
        group: none: an image stays by itself; batch: images of a batch stay together; else a column, or a pattern on
            the path whose first group is the key.

    Returns:
        `key` is empty with group none. `hash` is uint64, as good as a random number: of the key, or of the id.

    Raises:
        InputError: no such column; images without a batch or a cell in it, or whose path the pattern does not match.
    """
    table = table.select("path", "label", "batch").hstack(
        [column.alias(f"{manifests.COLUMN}{column.name}") for column in columns.iter_columns()]
    )
    if group == "none":
        return table.with_columns(key=pl.lit(""), hash=pl.Series(uint64(ids, 0)))
    first = "pack.split.group: "
    table = table.with_columns(key=group_keys(table, group))
    if group == "batch":
        fault = f"{first}batch, but there are images without a batch folder:"
    elif group in columns.columns:
        fault = f"{first}{group}, but the cells of these are empty:"
    elif not re.compile(group).groups:
        has = ", ".join(map(visible, columns.columns)) or "there is none beside the images"
        raise InputError(f"{first}no table has a column {group!r} ({has}); a pattern needs a group: patient([0-9]+)")
    else:
        fault = f"{first}{group} does not match, or has an empty group in, the paths:"
    if without := table.filter(pl.col("key") == "")["path"].to_list():
        raise InputError(listing(fault, [*map(visible, without)]))
    digests = {key: hashlib.sha256(key.encode()).digest()[:8] for key in table["key"].unique()}
    hashes = np.frombuffer(b"".join(map(digests.__getitem__, table["key"])), ">u8").astype("u8")
    return table.with_columns(hash=pl.Series(hashes))


def group_keys(images: pl.DataFrame, group: str) -> pl.Series:
    """Return the key of the group of each image, N texts; empty where it has none.

    Args:
        images: path, batch and the columns of tables, as in the manifest; N rows.
        group: `pack.split.group`.
    """
    column = f"{manifests.COLUMN}{group}"
    key = pl.lit("")
    if group == "batch":
        key = pl.col("batch")
    elif group != "none" and column in images.columns:
        key = pl.col(column).cast(pl.String)
    elif group != "none" and re.compile(group).groups:
        key = pl.col("path").str.extract(group)
    return images.select("path", key=key.fill_null(""))["key"]


def by_hash(hashes: pl.Series, val: float, test: float) -> np.ndarray:
    """Return the split of each image by its hash and the fractions alone: uint8, (N,), positions in CHOICES.

    No image changes its split when others come or go. Test lies at the low end and train at the high end: moving the
    border between train and val leaves test as it is.

    Args:
        hashes: uint64, N.
        val, test: fractions, 0 to 1.
    """
    uniform = hashes.to_numpy() / 2.0**64
    return np.select([uniform < test, uniform < test + val], [2, 1], 0).astype("u1")


def require_pattern(pattern: str) -> str:
    """Return `pattern`: a column's name is one too.

    Raises:
        ValueError: it is no regular expression, for a message about params.yaml.
    """
    wanted = "must be none, batch, a column or a regular expression with a group, such as patient([0-9]+)"
    try:
        pl.Series([""]).str.extract(pattern)
        re.compile(pattern)
    except (re.error, pl.exceptions.ComputeError) as error:
        raise ValueError(f"{wanted}: {str(error).splitlines()[0]}") from None
    if not pattern:
        raise ValueError(wanted)
    return pattern


def given(images: pl.DataFrame, splits: np.ndarray) -> np.ndarray:
    """Return `splits`, but that of the column `split` where a table or a pin has one of the image or of its group.

    Raises:
        InputError: cells that name no split.
    """
    if SPLIT_COLUMN not in images.columns:
        return splits
    table = images.select("key", known=known(images), drawn=pl.Series(splits))
    of_group = pl.when(pl.col("key") != "").then(pl.col("known").min().over("key"))
    return table.select(pl.coalesce("known", of_group, "drawn")).to_series().to_numpy()


def known(images: pl.DataFrame) -> pl.Series:
    """Return the split that the column `split` gives each image, UInt8, N; null where it gives none.

    Raises:
        InputError: cells that name no split.
    """
    if SPLIT_COLUMN not in images.columns:
        return pl.repeat(None, len(images), dtype=pl.UInt8, eager=True)
    cells = images[SPLIT_COLUMN].cast(pl.String).str.to_lowercase()
    found = cells.replace_strict(FOLDERS, default=None, return_dtype=pl.UInt8)
    if (wrong := found.is_null() & cells.is_not_null()).any():
        named = images.filter(wrong).select("path", SPLIT_COLUMN).iter_rows()
        faults = [f"{visible(path)}: {visible(str(cell))}" for path, cell in named]
        raise InputError(listing(f"cells of the column split that are none of {', '.join(FOLDERS)}:", faults))
    return found


def stratified(images: pl.DataFrame, train: float, val: float, test: float) -> np.ndarray:
    """Return the split of each image, so that each class has these fractions: uint8, (N,), positions in CHOICES.

    Images whose split is given, by a pin or a table, keep it. Of the others of a class, those with the lowest hashes
    fill up test, the next ones val; the rest is train. So the split of an image that is not pinned depends on which
    others of its class there are.

    Args:
        images: as `choices_table` returns them.
        train, val, test: fractions, 0 to 1.
    """
    table = images.select("label", "hash", known=known(images))
    used = sum(fraction > 0 for fraction in (train, val, test))
    classes = table.group_by("label").agg(
        *(
            (_wanted(fraction, used) - (pl.col("known") == CHOICES.index(name)).sum()).clip(0).alias(name)
            for name, fraction in (("val", val), ("test", test))
        )
    )
    if not train:
        classes = classes.with_columns(val=pl.lit(len(images), pl.Int64))
    new = table.filter(pl.col("known").is_null()).group_by("label", "hash").len().sort("label", "hash")  # all frames
    new = new.with_columns(before=pl.col("len").cum_sum().over("label") - pl.col("len")).join(classes, on="label")
    before, of_test = pl.col("before").cast(pl.Int64), pl.col("test")
    drawn = pl.when(before < of_test).then(2).when(before < of_test + pl.col("val")).then(1).otherwise(0)
    new = new.select("label", "hash", drawn=drawn.cast(pl.UInt8))
    table = table.join(new, on=["label", "hash"], how="left", maintain_order="left")
    return table.select(pl.coalesce("known", "drawn")).to_series().to_numpy()


def _wanted(fraction: float, used: int) -> pl.Expr:
    """Return how many images of a class go with a fraction: one at least, if there are enough for all splits."""
    least = pl.when(pl.len() >= used).then(1 if fraction else 0).otherwise(0)
    return pl.max_horizontal((pl.len() * fraction + 0.5).floor().cast(pl.Int64), least.cast(pl.Int64))


def require_classes(columns: list[str]) -> None:
    """Refuse to stratify by something else than one class an image.

    Args:
        columns: of what is predicted, of the manifest.

    Raises:
        InputError: what is predicted.
    """
    if (kind := manifests.label_kind(columns)) != "class":
        raise InputError(f"pack.split.stratify is by class, and labels.kind is {kind}: set it to false in params.yaml")


def note_unpinned(images: pl.DataFrame) -> str:
    """Return the end of a summary that says how many splits may change, being stratified and not pinned."""
    count = known(images).null_count()
    return (
        f"\nstratified; {count} images are not pinned, and may change their split: python3 run.py pin" if count else ""
    )


def require_decision(images: pl.DataFrame) -> None:
    """Refuse to draw splits where the first folders are called like splits, and nobody has said what they are.

    Raises:
        InputError: how to say it.
    """
    names = set(images["batch"].str.split("/").list.first())
    if SPLIT_COLUMN not in images.columns and len(names) > 1 and names <= FOLDERS.keys():
        raise InputError(
            f"the folders above the classes are called {', '.join(sorted(names))}: set pack.split.by in params.yaml to "
            "folder, if they are the splits, or to hash, to draw splits anew"
        )


def by_folder(batches: pl.Series) -> np.ndarray:
    """Return the split of each image by its first folder: uint8, (N,), positions in CHOICES.

    Raises:
        InputError: a folder is called otherwise.
    """
    names = batches.str.split("/").list.first()
    if strange := sorted(set(names) - FOLDERS.keys()):
        raise InputError(
            f"pack.split.by is folder, so the folders above the classes must be {', '.join(FOLDERS)}; "
            f"found {', '.join(map(repr, map(visible, strange)))}: rename them, or set by: hash"
        )
    return names.replace_strict(FOLDERS, return_dtype=pl.UInt8).to_numpy()


def require_whole_groups(images: pl.DataFrame, splits: np.ndarray) -> None:
    """Refuse splits that part what is to stay together.

    Args:
        images: as `choices_table` returns them.
        splits: uint8, (N,).

    Raises:
        InputError: which keys are in several splits, and the images that say so.
    """
    faults = [
        f"{visible(key)}: {'; '.join(_in_split(*each) for each in parts)}"
        for key, parts in parted(images["key"], pl.Series(splits), images["path"])
    ]
    if faults:
        fix = "(see the folders, the column split, `python3 run.py pin` or your choose_split)"
        raise InputError(listing(f"pack.split.group: these are in several splits, and are to be in one {fix}:", faults))


def _in_split(split: int, count: int, paths: list[str]) -> str:
    more = f" and {count - len(paths)} more" if count > len(paths) else ""
    return f"{CHOICES[split]} has {', '.join(map(visible, paths))}{more}"


def parted(keys: pl.Series, splits: pl.Series, paths: pl.Series) -> list[tuple[str, list[tuple]]]:
    """Return the groups with images in several splits: the key, and of each split how many images and the first ones.

    Args:
        keys: of each image, empty of those in no group; N texts.
        splits: N; those that do not count are left out by the caller.
        paths: N.
    """
    table = pl.DataFrame({"key": keys, "split": splits, "path": paths}).filter(pl.col("key") != "")
    several = table.group_by("key").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    parts = table.join(several, on="key", how="semi").group_by("key", "split")
    parts = parts.agg(pl.len(), pl.col("path").bottom_k(SHOWN).sort()).sort("key", "split")
    found: dict[str, list[tuple]] = {}
    for key, split, count, first in parts.iter_rows():
        found.setdefault(key, []).append((split, count, first))
    return list(found.items())


def lacking(images: pl.DataFrame, splits: np.ndarray) -> list[str]:
    """Return a line for each class without an image in a split that others have: how many it has in each."""
    table = manifests.by_label(images.with_columns(split=pl.Series(splits)))
    counts = table.group_by("label").agg(*((pl.col("split") == i).sum().alias(name) for i, name in enumerate(CHOICES)))
    used = [name for name in CHOICES if counts[name].sum()]
    few = counts.filter(pl.any_horizontal(pl.col(used) == 0)).sort("label").rows(named=True)
    return [f"{visible(row['label'])}: {', '.join(f'{row[name]} {name}' for name in used)}" for row in few]


def note_lacking(images: pl.DataFrame, splits: np.ndarray) -> str:
    """Return the end of a summary that names classes without an image in some split; empty if each has one.

    Args:
        images: label and what is predicted, N rows of the manifest.
        splits: uint8, (N,).
    """
    few = lacking(images, splits)
    more = [f"... and {len(few) - MOST_NAMED} more"] if len(few) > MOST_NAMED else []
    return "\n  ".join(["\nclasses without an image in some split:", *few[:MOST_NAMED], *more]) if few else ""


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
