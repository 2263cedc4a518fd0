"""How the images as a whole have changed, on the page: the distributions of A and B over each other, and what the
tests say of them, in words."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from imagepack.checks.validation_page import markup
from imagepack.compare.words import DRIFTED, plural, probability, widest_drift

WIDTH, HEIGHT = 300, 80
"""Units of a drawing, which is stretched to its place."""
SIDES = ("a", "b", "added")
LISTED = 20
"""Classes that drifted within, and pairs that look alike."""


def section(drift: dict) -> str:
    """Of `drift` in imagepack/compare/schema.json."""
    charts = "\n".join(_chart(distribution, drift) for distribution in drift["distributions"])
    return "\n".join(
        [
            f'<p class="lead">{_summary(drift)}</p>',
            f'<div class="charts">{charts}</div>' if charts else "",
            _within(drift),
            _novelty(drift["novelty"]),
        ]
    )


def _summary(drift: dict) -> str:
    if not drift["tests"]:
        return "Not tested: too few images came or went."
    many = f"{plural(drift['tests'], 'test')}; chance of a false alarm in any of them {drift['alpha']:.2g}"
    many += "; effect: the greatest share of images by which the two differ, 0 to 1"
    if drift["drifted"]:
        found = DRIFTED[widest_drift(drift)]
        return f'<strong class="bad">{found[:1].upper()}{found[1:]}.</strong> ({many}.)'
    return f'<strong class="good">No drift.</strong> ({many}.)'


def _chart(distribution: dict, drift: dict) -> str:
    """A feature: its name, the drawing, the ends of its axis, what was tested."""
    feature, edges, categories = (distribution[key] for key in ("feature", "edges", "categories"))
    ends = [number(edges[0]), number(edges[-1])] if edges else [markup(categories[0]), markup(categories[-1])]
    unit = "the most frequent first" if categories else markup(distribution["unit"])
    tests = [test for test in drift["features"] if test["feature"] == feature]
    told = "".join(
        f"<li>{words}: {_told(test, drift)}</li>"
        for scope, words in (("all", "B against A"), ("added", "Added against kept"))
        for test in tests
        if test["scope"] == scope
    )
    return (
        f'<article class="chart"><h3>{"classes" if feature == "class" else markup(feature)}</h3>'
        f'{_drawing(distribution)}<p class="axis"><span>{ends[0]}</span><span>{unit}</span><span>{ends[1]}</span></p>'
        f"<ul>{told or '<li>Not tested</li>'}</ul></article>"
    )


def _told(test: dict, drift: dict) -> str:
    """A test in words."""
    if test["drifted"]:
        verdict = '<strong class="bad">drifted</strong>'
    elif test["p_adjusted"] <= drift["alpha"]:
        verdict = f"differs, too little to matter (effect below {drift['least_effect']:.2g})"
    else:
        verdict = "no drift"
    medians = dict.fromkeys(number(test[side]["median"]) for side in "ab" if test[side])
    middle = f"median {' → '.join(medians)}, " if medians else ""
    return f"{verdict}; {middle}effect {test['effect']:.2f}, p {escape(probability(test['p_adjusted']))}"


def number(value: float) -> str:
    """`0.0123`, `47.4`, `1,130`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _drawing(distribution: dict) -> str:
    """Outlines of equal area, so that a version with more images looks no different for that."""
    edges = distribution["edges"] or list(range(len(distribution["categories"]) + 1))
    densities = {side: _density(distribution[side], edges) for side in SIDES if sum(distribution[side])}
    top = max((max(density) for density in densities.values()), default=0) or 1
    paths = "".join(
        f'<path class="of-{side}" d="{_outline([d / top for d in density], edges)}"/>'
        for side, density in densities.items()
    )
    return (
        f'<svg viewBox="0 -2 {WIDTH} {HEIGHT + 3}" preserveAspectRatio="none" role="img" '
        f'aria-label="Distribution in A, in B and of what was added">{paths}</svg>'
    )


def _density(counts: Sequence[int], edges: Sequence[float]) -> list[float]:
    """Share of the images for a unit of the axis."""
    total = sum(counts)
    return [count / total / ((high - low) or 1) for count, (low, high) in zip(counts, pairwise(edges), strict=True)]


def _outline(heights: Sequence[float], edges: Sequence[float]) -> str:
    """Steps from the axis and back to it; heights from 0 to 1."""
    length = (edges[-1] - edges[0]) or 1
    steps = ["M0 ", str(HEIGHT)]
    for height, (low, high) in zip(heights, pairwise(edges), strict=True):
        x, end = ((edge - edges[0]) / length * WIDTH for edge in (low, high))
        steps.append(f"L{x:.1f} {(1 - height) * HEIGHT:.1f}H{end:.1f}")
    return "".join([*steps, f"V{HEIGHT}"])


def _within(drift: dict) -> str:
    """Classes within which something drifted."""
    tests = [test for test in drift["features"] if test["scope"] == "class"]
    if not tests:
        return ""
    items = "".join(
        f'<li><span class="label">{markup(test["class"] or "(no class)")}</span>, {markup(test["feature"])}: '
        f"{_told(test, drift)}</li>"
        for test in tests[:LISTED]
    )
    return f"<h3>Within classes</h3>\n<ul>{items}{more(len(tests), LISTED)}</ul>"


def _novelty(novelty: dict | None) -> str:
    if novelty is None:
        return ""
    pairs = "".join(_alike(novelty["pairs"]))
    return (
        f"<h3>How new is what was added?</h3>\n<p>{novelty['alike']:,} of {novelty['added']:,} added images look like "
        f"one of A.</p>\n<ul>{pairs}{more(novelty['alike'], LISTED) if pairs else ''}</ul>"
    )


def _alike(pairs: list[dict]) -> Iterator[str]:
    for pair in pairs[:LISTED]:
        yield (
            f'<li><code class="path" dir="ltr">{markup(pair["path_b"])}</code> looks like <code class="path" dir="ltr">'
            f"{markup(pair['path_a'])}</code> ({pair['distance']} of 256 hash bits differ)</li>"
        )


def more(count: int, most: int) -> str:
    """The last entry of a list that is cut."""
    return f'<li class="more">and {count - most:,} more, all of them in the JSON</li>' if count > most else ""
