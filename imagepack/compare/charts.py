"""The distributions of A and B as outlines that a page draws over each other."""

from collections.abc import Sequence
from itertools import pairwise

from imagepack.compare.words import of_column, shorten
from imagepack.names import NO_CLASS

WIDTH, HEIGHT = 300, 80
"""Units of a drawing, which is stretched to its place."""
END = 30
"""Columns of a terminal that a name takes at an end of an axis."""
SIDES = ("a", "b", "added")


def charts(drift: dict) -> list[dict]:
    """Return what to draw of each feature.

    Args:
        drift: as imagepack/compare/schema.json has it.

    Returns:
        feature; unit; ends, what the axis begins and ends with; outlines, paths of SVG by side; tests, each with what
        it compares.
    """
    return [_chart(distribution, drift["features"]) for distribution in drift["distributions"]]


def _chart(distribution: dict, tests: list[dict]) -> dict:
    feature, edges, categories = (distribution[key] for key in ("feature", "edges", "categories"))
    column = of_column(feature)
    named = [shorten(name, END) or ("(empty)" if column else NO_CLASS) for name in categories]
    return {
        "feature": f"column {column}" if column else "classes" if feature == "class" else feature,
        "unit": "the most frequent first" if categories else distribution["unit"],
        "ends": [number(edges[0]), number(edges[-1])] if edges else [named[0], named[-1]],
        "outlines": _outlines(distribution),
        "tests": [
            (words, test)
            for scope, words in (("all", "B against A"), ("added", "Added against kept"))
            for test in tests
            if (test["feature"], test["scope"]) == (feature, scope)
        ],
    }


def number(value: float) -> str:
    """Return `0.0123`, `47.4`, `1,130`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _outlines(distribution: dict) -> dict[str, str]:
    """Outlines of equal area, so that a version with more images looks no different for that."""
    edges = distribution["edges"] or list(range(len(distribution["categories"]) + 1))
    densities = {side: _density(distribution[side], edges) for side in SIDES if sum(distribution[side])}
    top = max((max(density) for density in densities.values()), default=0) or 1
    return {side: _outline([value / top for value in density], edges) for side, density in densities.items()}


def _density(counts: Sequence[int], edges: Sequence[float]) -> list[float]:
    """Share of the images for a unit of the axis."""
    total = sum(counts)
    return [count / total / ((high - low) or 1) for count, (low, high) in zip(counts, pairwise(edges), strict=True)]


def _outline(heights: Sequence[float], edges: Sequence[float]) -> str:
    """Steps from the axis and back to it; heights from 0 to 1."""
    length = (edges[-1] - edges[0]) or 1
    steps = [f"M0 {HEIGHT}"]
    for height, (low, high) in zip(heights, pairwise(edges), strict=True):
        x, end = ((edge - edges[0]) / length * WIDTH for edge in (low, high))
        steps.append(f"L{x:.1f} {(1 - height) * HEIGHT:.1f}H{end:.1f}")
    return "".join([*steps, f"V{HEIGHT}"])
