"""Images that are there more than once: the same bytes, the same pixels, or looking alike."""

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import polars as pl

from imagepack.checks import near_duplicates
from imagepack.images import manifest as manifests

Finding = tuple[str, str, str, str]
"""Path, code, what was seen, the path of the other image."""
KEEP_FIRST = ("test", "val")
"""Batches so called, of users who split by folder: of two equal images the one there is kept, and train gives way."""


def find(
    table: pl.DataFrame, signatures: np.ndarray, rejected: Collection[str], furthest: int
) -> tuple[list[Finding], np.ndarray]:
    """Find duplicates: under several labels all of them, under one label all but the first.

    Args:
        table: the facts, in the manifest's order.
        signatures: uint8, (any, SIGNATURE_BYTES), of which `signature` gives the row.
        rejected: paths of files that have an error already; one of these is not what is kept, if there is another.
        furthest: bits of 256 in which the perceptual hashes of images that look alike may differ.

    Returns:
        Findings (path, code, seen, the other's path), and which images are alike: int64, (P, 2), row numbers.
    """
    needed = ("path", "label", "batch", "sha256", "pixel_hash", "perceptual_hash", "signature")
    shown = table.select(needed).with_row_index("row")
    shown = shown.filter((pl.col("pixel_hash") != "") & (pl.col("label") != ""))
    batch = pl.col("batch").str.split("/").list.first()
    yields = [pl.col("path").is_in(list(rejected)), *(batch != name for name in KEEP_FIRST)]
    shown = (
        shown.sort(*yields, "row")
        .group_by("pixel_hash", maintain_order=True)
        .agg(pl.col("row", "path", "label", "sha256"), pl.col("perceptual_hash", "signature").first())
    )
    findings: list[Finding] = []
    for members in shown.filter(pl.col("row").list.len() > 1).select("path", "label", "sha256").iter_rows():
        findings += _same_pixels(list(zip(*members, strict=True)))
    hashes = manifests.hashes(shown["perceptual_hash"])
    pairs = near_duplicates.find(hashes, signatures, rows=shown["signature"].to_numpy(), furthest=furthest)
    findings += _alike(shown, pairs, furthest, by_label=manifests.label_kind(table.columns) != "numbers")
    firsts = shown["row"].list.first().to_numpy()
    equal = (
        shown.select("row", first=pl.col("row").list.first()).explode("row").filter(pl.col("row") != pl.col("first"))
    )
    return findings, np.concatenate([firsts[pairs].reshape(-1, 2), equal.to_numpy().reshape(-1, 2)]).astype(np.int64)


def _same_pixels(members: list[tuple[str, str, str]]) -> list[Finding]:
    """Return findings about images (path, label, sha256) with equal pixels, of which the first is kept."""
    firsts: dict[str, dict[str, str]] = defaultdict(dict)  # by sha256, and by "" for any: label -> first path
    for path, label, digest in members:
        firsts[digest].setdefault(label, path)
        firsts[""].setdefault(label, path)
    conflict = len(firsts[""]) > 1
    findings = []
    for path, label, digest in members:
        twins = [_of_other_label(part, label) if conflict else part[label] for part in (firsts[digest], firsts[""])]
        for what, code, other in zip(("bytes", "pixels"), ("exact_duplicate", "pixel_duplicate"), twins, strict=True):
            if other not in (None, path):  # path: the first, which is kept
                findings.append((path, "label_conflict" if conflict else code, f"same {what} as {other}", other))
                break
    return findings


def _alike(shown: pl.DataFrame, pairs: np.ndarray, furthest: int, by_label: bool) -> list[Finding]:
    """Return findings about images that look alike: under two labels both, under one label the later one.

    Args:
        shown: a row for each different image, best to keep first; `path` and `label` list the files that hold it.
        pairs: int64, (P, 2), row numbers in `shown`, in order.
        furthest: bits in which their hashes may differ, for the message.
        by_label: whether another label is worth a word: numbers of images that look alike may well differ.
    """
    rows = shown.select("path", "label", "perceptual_hash")[pairs.ravel()].iter_rows()
    similar, alike = {}, {}
    for one, other in zip(rows, rows, strict=True):  # two rows at a time
        distance = (int(one[2], 16) ^ int(other[2], 16)).bit_count()
        seen = f"distance {distance} of 256, threshold {furthest}"
        if not by_label or len({*one[1], *other[1]}) == 1:
            alike.setdefault(other[0][0], (one[0][0], seen))
            continue
        for mine, theirs in ((one, other), (other, one)):
            firsts = dict(zip(reversed(theirs[1]), reversed(theirs[0]), strict=True))
            for path, label in zip(*mine[:2], strict=True):
                if twin := _of_other_label(firsts, label):
                    similar.setdefault(path, (twin, seen))
    found = [("similar_labels", similar), ("near_duplicate", alike)]
    return [
        (path, code, f"looks like {twin}: {seen}", twin)
        for code, by_path in found
        for path, (twin, seen) in by_path.items()
    ]


def _of_other_label(firsts: dict[str, str], label: str) -> str | None:
    """Return a path of `firsts` (label: path) with another label; None if there is none."""
    return next((path for its_label, path in firsts.items() if its_label != label), None)


def groups(table: pl.DataFrame, edges: np.ndarray) -> pl.Series:
    """Return each image's group of those alike, directly or through others; empty if one alone is accepted.

    A group is called after the least sha256 in it.

    Args:
        table: the manifest.
        edges: int64, (P, 2), rows of the table; what `find` returned.
    """
    kept = pl.col("status") == "accepted"
    grouped = table.select("status", "sha256", group=pl.Series(near_duplicates.groups(len(table), edges)))
    several = kept & (kept.sum().over("group") > 1)
    least = pl.col("sha256").filter(kept).min().over("group")
    return grouped.select(group=pl.when(several).then(least).otherwise(pl.lit(""))).to_series()
