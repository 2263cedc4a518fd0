"""What is to stay in one split (pack.split.group): groups that went to another, or that are on two sides now."""

import polars as pl

from imagepack.compare.versions import Version
from imagepack.packing import splits

NONE = "none"


def setting(version: Version) -> dict:
    """Return what dvc.lock says of `pack.split`; empty if nothing."""
    params = version.lock["pack"].params if "pack" in version.lock else {}
    found = params.get("params.yaml", {}).get("pack", {}).get("split", {})
    return found if isinstance(found, dict) else {}


def chosen(a: Version, b: Version) -> str | None:
    """Return the `pack.split.group` of B, or where that is none, of A: who gives groups up sees what that parts."""
    found = [group for version in (b, a) if (group := setting(version).get("group", NONE)) not in (NONE, "", None)]
    return str(found[0]) if found else None


def compared(a: pl.DataFrame, b: pl.DataFrame, group: str | None) -> dict:
    """Return `groups` of schema.json.

    Args:
        a, b: the manifests with `split`.
        group: of `chosen`.
    """
    if group is None:
        return {"by": None, "a": 0, "b": 0, "moved": [], "split": []}
    sides = [_used(images, group) for images in (a, b)]
    return {
        "by": group,
        **{side: images["key"].n_unique() for side, images in zip("ab", sides, strict=True)},
        "moved": _moved(*sides),
        "split": _parted(sides[1]),
    }


def _used(images: pl.DataFrame, group: str) -> pl.DataFrame:
    """Return key, split and path of the images of train, val and test that are in a group."""
    keyed = images.select("path", "split", key=splits.group_keys(images, group))
    return keyed.filter(pl.col("key") != "", pl.col("split").is_in(splits.CHOICES))


def _moved(a: pl.DataFrame, b: pl.DataFrame) -> list[dict]:
    """Groups that are whole in both versions, in different splits."""
    whole = [
        images.group_by("key").agg(pl.col("split").unique(), pl.len()).filter(pl.col("split").list.len() == 1)
        for images in (a, b)
    ]
    table = whole[0].join(whole[1], on="key", suffix="_b").with_columns(pl.col("split", "split_b").list.first())
    moved = table.filter(pl.col("split") != pl.col("split_b")).sort("key")
    rows = moved.select("key", "split", "split_b", "len_b").iter_rows()
    return [{"group": key, "from": one, "to": other, "images": count} for key, one, other, count in rows]


def _parted(images: pl.DataFrame) -> list[dict]:
    """Groups with images in several of train, val and test."""
    order = splits.CHOICES.index
    return [
        {
            "group": key,
            "splits": {split: count for split, count, _ in sorted(parts, key=lambda part: order(part[0]))},
            "images": [path for *_, paths in sorted(parts, key=lambda part: order(part[0])) for path in paths],
        }
        for key, parts in splits.parted(images["key"], images["split"], images["path"])
    ]
