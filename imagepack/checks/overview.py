"""What a dataset consists of, for its page: classes as bars, sizes and brightness as histograms, samples of each class.

All numbers come from the manifest by whole numbers and fixed edges, so that any machine draws the same.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from imagepack.images import manifest as manifests

CLASSES = 30
"""Classes with a bar of their own, the largest; the rest is counted."""
SAMPLED, EACH = 12, 6
"""Classes with samples, the largest, and images of each: at 256 pixels, about 1 MB."""
SIZES = 5
"""Sizes that are named, the most frequent."""
SIDES = [1, *(round(2 ** (n / 2)) for n in range(8, 29)), 2**31 - 1]
"""Edges of the histogram of sides in pixels: 1, 16, 23, 32, 45, 64, ... 16384, and beyond."""
LUMA = list(range(0, 257, 16))
"""Edges of the histogram of brightness."""
MEASURED = ("width", "height", "orientation", "brightness", "format", "bytes", "frame")
"""Columns of the manifest that `sizes` reads."""
SPLITS = ("train", "val", "test", "excluded")
WIDTH, HEIGHT = 600, 80
"""Units of a drawing, which is stretched to its place."""
RANGES = 20
"""Bars of the histogram of a number, at most."""
CHARTS = 12
"""Numbers that are drawn, the first; of a quarter of them there are samples."""
TITLES = {"class": "Classes", "multilabel": "Labels", "numbers": "Numbers"}


def classes(table: pl.DataFrame) -> dict:
    """Return how many images each class or label has; of numbers histograms.

    Args:
        table: label and status, on demand split (null: none), and what is predicted, of a manifest.

    Returns:
        parts, what a bar consists of, with the images of all classes; rows, of the CLASSES largest, each with label,
        images (accepted) and parts: name, count, and where its piece of the bar begins and how wide it is; rest, the
        other classes: classes, images; title; histograms of numbers. Parts are rejected, and accepted or where there
        are splits these.
    """
    accepted = pl.col("split").fill_null("no split") if "split" in table.columns else pl.lit("accepted")
    part = pl.when(pl.col("status") == "rejected").then(pl.lit("rejected")).otherwise(accepted)
    parted = table.with_columns(part=part)
    whole = dict(parted["part"].value_counts().iter_rows())
    names = [name for name in (*SPLITS, "no split", "accepted", "rejected") if name in whole]
    counts = manifests.by_label(parted).lazy().group_by("label", "part").len("images").collect()
    by_class: dict[str, dict[str, int]] = {}
    for label, name, count in counts.iter_rows():
        by_class.setdefault(label, dict.fromkeys(names, 0))[name] = count
    rows = [(label, sum(found.values()) - found.get("rejected", 0), found) for label, found in by_class.items()]
    rows.sort(key=lambda row: (-row[1], row[0]))
    widest = max((sum(found.values()) for *_, found in rows[:CLASSES]), default=0) or 1
    return {
        "title": TITLES[manifests.label_kind(table.columns)],
        "histograms": list(_of_numbers(table)),
        "parts": _pieces({name: whole[name] for name in names}, len(table) or 1),
        "rows": [
            {"label": label, "images": images, "parts": _pieces(found, widest)}
            for label, images, found in rows[:CLASSES]
        ],
        "rest": {"classes": len(rows[CLASSES:]), "images": sum(images for _, images, _ in rows[CLASSES:])},
    }


def _of_numbers(table: pl.DataFrame) -> Iterator[dict]:
    """Yield the histogram of each number to be predicted, as `sizes` has them."""
    if manifests.label_kind(table.columns) != "numbers":
        return
    accepted = manifests.accepted(table)
    for name in manifests.predicted(table.columns)[:CHARTS]:
        edges, counts = ranges(accepted[name])
        if len(counts):
            names = [int(edge) if edge.is_integer() else edge for edge in edges]
            yield _bars(f"{name.removeprefix(manifests.NUMBER)}: images", np.array(counts), names)


def ranges(numbers: pl.Series) -> tuple[list[float], list[int]]:
    """Return up to RANGES ranges of round numbers, and how many of these numbers lie in each.

    Returns:
        R + 1 edges, rising, and R counts; the last range has its end too.
    """
    values = np.sort(numbers.drop_nulls().to_numpy().astype("f4"))
    if not len(values):
        return [], []
    low, high = float(values[0]), float(values[-1])
    least = (high - low) / RANGES or abs(low) / RANGES or 1.0
    size = 10.0 ** math.floor(math.log10(least))
    step = next(times * size for times in (1, 2, 5, 10, 20) if times * size >= least * (1 - 1e-6))
    first, last = math.floor(low / step * (1 + 1e-6 * (low < 0))), math.ceil(high / step * (1 - 1e-6 * (high > 0)))
    edges = [float(f"{number * step:.6g}") for number in range(first, max(last, first + 1) + 1)]
    inside = np.searchsorted(values, np.array(edges[1:-1], "f4"))
    return edges, np.diff([0, *inside, len(values)]).tolist()


def _pieces(counts: dict[str, int], whole: int) -> list[dict]:
    """The pieces of a bar that is WIDTH units for `whole` images."""
    pieces, x = [], 0
    for name, count in counts.items():
        end = x + count
        pieces.append({"name": name, "count": count, "x": x * WIDTH // whole, "width": -(-count * WIDTH // whole)})
        x = end
    return pieces


def sizes(table: pl.DataFrame) -> dict:
    """Return how large and how bright the accepted images are.

    Args:
        table: the manifest.

    Returns:
        histograms: of side and brightness, where known, each with title, ends (of its axis) and bars; shapes: how many
        are wide, tall, square; frequent: up to SIZES of the most frequent sizes, as seen, with their images; others:
        how many more sizes; formats: images by format; bytes: of all files.
    """
    accepted = table.select(MEASURED).filter(table["status"] == "accepted")
    stored = [pl.col("width"), pl.col("height")]
    turned = pl.col("orientation") >= 5
    seen = [pl.when(turned).then(b).otherwise(a) for a, b in (stored, stored[::-1])]
    sides = accepted.select(width=seen[0], height=seen[1])
    found = sides.group_by("width", "height").len("images").sort("images", "width", "height", descending=True)
    frequent = found.filter(pl.col("images") > 1).head(SIZES).rows() or found.head(1).rows()
    wide = pl.col("width") - pl.col("height")
    shapes = found.group_by(shape=wide.sign()).agg(pl.col("images").sum()).rows()
    area = sides.select(pl.col("width").cast(pl.Int64) * pl.col("height"))["width"].to_numpy()
    histograms = [
        _histogram("Side, root of width × height (pixels)", area, [side**2 for side in SIDES], SIDES),
        _histogram("Brightness (0 to 255)", accepted["brightness"].drop_nulls().to_numpy(), LUMA, LUMA),
    ]
    return {
        "histograms": [histogram for histogram in histograms if histogram["bars"]],
        "shapes": [(words, dict(shapes)[sign]) for sign, words in SHAPES.items() if sign in dict(shapes)],
        "frequent": frequent,
        "others": len(found) - len(frequent),
        "formats": accepted["format"].value_counts().sort("count", "format", descending=[True, False]).rows(),
        "bytes": accepted.select(pl.col("bytes").filter(pl.col("frame") <= 1).sum()).item(),
    }


SHAPES = {1: "wide", -1: "tall", 0: "square"}


def _histogram(title: str, values: np.ndarray, edges: Sequence[int], names: Sequence[int]) -> dict:
    """Bars of how many values lie between two edges, from the first that has any to the last."""
    return _bars(title, np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1)[1:-1], names)


def _bars(title: str, counts: np.ndarray, names: Sequence[float]) -> dict:
    """Bars of counts between edges called `names`, from the first that has any to the last."""
    used = np.flatnonzero(counts)
    if not len(used):
        return {"title": title, "bars": [], "ends": ()}
    first, last, top = int(used[0]), int(used[-1]), int(counts.max())
    step = WIDTH / (last - first + 1)
    bars = [
        {
            "low": names[n],
            "high": names[n + 1],
            "count": int(counts[n]),
            "x": round((n - first) * step, 1),
            "width": round(0.92 * step, 1),
            "height": -(-int(counts[n]) * HEIGHT // top),
        }
        for n in range(first, last + 1)
    ]
    return {"title": title, "bars": bars, "ends": (names[first], names[last + 1])}


def samples(table: pl.DataFrame) -> dict[str, list[str]]:
    """Return the paths of up to EACH accepted images of each of the SAMPLED largest classes, those with the lowest ids.

    An id is a hash, so this is a random choice, and mostly the same in the next version. Of numbers, EACH images from
    the least to the greatest.
    """
    if manifests.label_kind(table.columns) == "numbers":
        return dict(_samples_of_numbers(manifests.accepted(table)))
    accepted = manifests.by_label(manifests.accepted(table)).lazy().select("label", "path", "sha256")
    largest = accepted.group_by("label").len().sort("len", "label", descending=[True, False]).head(SAMPLED)
    of_them = accepted.join(largest, on="label", how="semi").group_by("label")
    chosen = dict(of_them.agg(pl.struct("sha256", "path").bottom_k(EACH)).collect().iter_rows())
    ordered = {
        label: sorted(images, key=lambda image: (image["sha256"], image["path"])) for label, images in chosen.items()
    }
    return {label: [image["path"] for image in ordered[label]] for label in largest.collect()["label"]}


def _samples_of_numbers(accepted: pl.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """Yield a title for each number, and paths: one of each of EACH equal parts, in the order of the number."""
    if accepted.is_empty():
        return
    for name in manifests.predicted(accepted.columns)[: CHARTS // 4]:
        ordered = accepted.select(name, "path", "sha256").sort(name, "sha256", "path")
        part = pl.int_range(pl.len()) * EACH // pl.len()
        first = ordered.with_columns(part=part).sort("part", "sha256", "path").unique("part", keep="first").sort("part")
        low, high = ordered[name][0], ordered[name][-1]
        yield f"{name.removeprefix(manifests.NUMBER)} from {low:g} to {high:g}", first["path"].to_list()
