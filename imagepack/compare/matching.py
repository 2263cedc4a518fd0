"""Which image of one version is which of the other: a cascade, from what is certain to what is likely."""

import numpy as np
import polars as pl

from imagepack.checks import near_duplicates

KINDS = (
    "unchanged",
    "reencoded",
    "edited",
    "relabelled",
    "moved",
    "moved_edited",
    "split_moved",
    "added",
    "removed",
)
"""What can have happened to an image; each image of both versions is in exactly one of these classes."""
KIND = pl.Enum(KINDS)
HASH_BITS = 256
RECOGNISED = HASH_BITS // 4
"""Bits in which the perceptual hashes of a file and of what has taken its name may differ for it to be the same picture
edited, rather than another. Two pictures that have nothing in common differ in about half of them."""


def match(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Pair the images of two versions, and say of each what happened to it.

    In this order, each step with what the steps before have left:

    1. same path, same bytes: unchanged, split_moved, or relabelled by a table;
    2. same bytes elsewhere: moved, or relabelled in another class;
    3. same pixels, same path but for its ending: reencoded;
    4. same pixels elsewhere: moved or relabelled;
    5. same path, and the pictures look related: edited;
    6. the pictures look alike: moved_edited;
    7. same path: edited (another picture under the old name);
    8. what is left was added or removed.

    Where several are equal (copies of one file), those of the same class and name find each other first, then the
    others in the order of their paths. The answer to swapped arguments is the mirrored answer.

    Args:
        a, b: rows as in the manifest, with `split` (null for rejected images).

    Returns:
        A row for each image: `row_a` and `row_b`, its rows in `a` and `b`, uint32 (null in `row_a` if it was added, in
        `row_b` if removed); `kind`, of KINDS; `distance`, bits of 256 in which the perceptual hashes differ, uint16
        (null unless edited or moved_edited and known); `evidence`, null unless moved_edited.
    """
    matching = _Matching(_keys(a, "row_a"), _keys(b, "row_b"))
    splits = matching.join("path", "sha256")
    relabelled = pl.when(pl.col("label") != pl.col("label_b")).then(pl.lit("relabelled"))  # by a table
    matching.take(splits, relabelled.when(pl.col("split") != pl.col("split_b")).then(pl.lit("split_moved")))
    elsewhere = pl.when(pl.col("label") == pl.col("label_b")).then(pl.lit("moved")).otherwise(pl.lit("relabelled"))
    for hint in (("label", "name"), ("label",), ("name",), ()):
        matching.take(matching.join("sha256", *hint), elsewhere)
    for place in ("path", "path_stem"):
        matching.take(matching.join("pixel_hash", place), pl.lit("reencoded"))
    for hint in (("label", "stem"), ("label",), ("stem",), ()):
        matching.take(matching.join("pixel_hash", *hint), elsewhere)
    same_path = _with_distance(matching.join("path"))
    matching.take(same_path.filter(pl.col("distance") <= RECOGNISED), pl.lit("edited"))
    matching.take(_alike(matching.a, matching.b), pl.lit("moved_edited"))
    matching.take(_with_distance(matching.join("path")), pl.lit("edited"))
    return matching.finish()


def hamming(one: pl.Series, other: pl.Series) -> np.ndarray:
    """Bits in which perceptual hashes differ, uint16, (N,).

    Args:
        one, other: N hexadecimal hashes of 256 bits.
    """
    return np.bitwise_count(_bits(one) ^ _bits(other)).sum(1, dtype=np.uint16)


class _Matching:
    """Two tables that shrink while pairs are found."""

    def __init__(self, a: pl.DataFrame, b: pl.DataFrame) -> None:
        self.a, self.b = a, b
        self.found: list[pl.DataFrame] = []

    def join(self, *keys: str) -> pl.DataFrame:
        """Pair the rows that agree in `keys`, of which the first must be known: two files without bytes are no copies.

        Of several equal ones, the first path goes with the first.
        """
        a, b = (side.filter(pl.col(keys[0]) != "") for side in (self.a, self.b))
        if "path" not in keys:
            a, b = (side.with_columns(rank=pl.col("path").rank("ordinal").over(keys)) for side in (a, b))
            keys = (*keys, "rank")
        return a.join(b, on=keys, how="inner", suffix="_b", coalesce=False)

    def take(self, pairs: pl.DataFrame, kind: pl.Expr) -> None:
        """Note these pairs, of unchanged images where `kind` is null."""
        known = [name for name in ("distance", "evidence") if name in pairs.columns]
        named = kind.fill_null("unchanged").cast(KIND) if not pairs.is_empty() else pl.lit(None, KIND)
        pairs = pairs.select("row_a", "row_b", *known, kind=named)
        self.found.append(pairs)
        self.a = self.a.join(pairs, on="row_a", how="anti")
        self.b = self.b.join(pairs, on="row_b", how="anti")

    def finish(self) -> pl.DataFrame:
        rest = [
            self.b.select("row_b", kind=pl.lit("added", KIND)),
            self.a.select("row_a", kind=pl.lit("removed", KIND)),
        ]
        schema = {"row_a": pl.UInt32, "row_b": pl.UInt32, "kind": KIND, "distance": pl.UInt16, "evidence": pl.String}
        return pl.concat([pl.DataFrame(schema=schema), *self.found, *rest], how="diagonal")


def _keys(images: pl.DataFrame, row: str) -> pl.DataFrame:
    """What is compared, and the number of the row."""
    name = pl.col("path").str.split("/").list.last()
    no_ending = r"\.[^./]*$"
    return images.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias(row),
        "path",
        "label",
        "split",
        "sha256",
        "pixel_hash",
        "perceptual_hash",
        name=name,
        stem=name.str.replace(no_ending, ""),
        path_stem=pl.col("path").str.replace(no_ending, ""),
    ).with_columns(pl.col("sha256", "pixel_hash", "perceptual_hash").fill_null(""))


def _with_distance(pairs: pl.DataFrame) -> pl.DataFrame:
    """`distance` of each pair, null where a picture could not be decoded or has nothing in it to recognise."""
    known = (pl.col("perceptual_hash").str.len_bytes() > 0) & (pl.col("perceptual_hash_b").str.len_bytes() > 0)
    zero = "0" * (HASH_BITS // 4)
    one, other = (pairs.select(pl.when(known).then(name).otherwise(pl.lit(zero))).to_series()
                  for name in ("perceptual_hash", "perceptual_hash_b"))  # fmt: skip
    distance = pl.Series("distance", hamming(one, other), pl.UInt16)
    return pairs.with_columns(distance).with_columns(pl.when(known).then("distance").alias("distance"))


def _alike(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Pairs of images that look alike: each with the one of its name if it can be, else with the likest."""
    a, b = (side.filter(pl.col("perceptual_hash") != "") for side in (a, b))
    if a.is_empty() or b.is_empty():
        return pl.DataFrame(schema={"row_a": pl.UInt32, "row_b": pl.UInt32})
    hashes = np.concatenate([_bits(a["perceptual_hash"]), _bits(b["perceptual_hash"])])
    across = near_duplicates.find(hashes, None, np.arange(len(hashes)) < len(a)) - [0, len(a)]
    table = pl.concat([a[across[:, 0]], b[across[:, 1]].rename(lambda name: f"{name}_b")], how="horizontal")
    table = table.rename({"row_b_b": "row_b"}).with_columns(
        distance=pl.Series(hamming(table["perceptual_hash"], table["perceptual_hash_b"]), dtype=pl.UInt16),
        renamed=pl.col("stem") != pl.col("stem_b"),
        relabelled=pl.col("label") != pl.col("label_b"),
        first=pl.min_horizontal("path", "path_b"),
        last=pl.max_horizontal("path", "path_b"),
    )
    table = table.sort("renamed", "distance", "relabelled", "first", "last")
    chosen = _first_of_each(table["row_a"].to_list(), table["row_b"].to_list())
    bits = pl.format("perceptual hashes differ in {} of {} bits", "distance", pl.lit(HASH_BITS))
    name = pl.when("renamed").then(pl.lit("")).otherwise(pl.lit("same file name, "))
    return table[chosen].select("row_a", "row_b", "distance", evidence=name + bits)


def _first_of_each(a: list[int], b: list[int]) -> list[int]:
    """Positions of pairs, from the first on, whose members are in none before."""
    taken_a, taken_b, chosen = set(), set(), []
    for position, (one, other) in enumerate(zip(a, b, strict=True)):
        if one not in taken_a and other not in taken_b:
            taken_a.add(one)
            taken_b.add(other)
            chosen.append(position)
    return chosen


def _bits(hashes: pl.Series) -> np.ndarray:
    """uint8, (N, 32), of N hexadecimal hashes."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, HASH_BITS // 8)
