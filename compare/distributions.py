"""The page's drawings of how features are distributed, each with what the tests of drift say of it."""

from collections.abc import Iterator, Sequence

from compare import words
from stages.toolkit.validation_page import text

WIDTH, HEIGHT = 240, 100
"""Of a drawing, in its own units."""
KEY = (
    '<p class="key"><span><i></i>A</span><span><i class="of-b"></i>B</span><span><i class="of-new"></i>added</span></p>'
)


def section(drift: dict) -> str:
    """The part of the page about drift; markup."""
    drifted = [f"<li>{text(each)}</li>" for each in words.drifts(drift)]
    found = f'<ul class="list">{"".join(drifted[:50])}</ul>' if drifted else f"<p>{_none(drift)}</p>"
    novelty = drift["novelty"]
    if novelty:
        found += f"<p>{novelty['alike']:,} of {words.plural(novelty['added'], 'added image')} look like one of A.</p>"
    plots = "\n".join(_plot(each, drift["features"]) for each in drift["distributions"] if each["edges"])
    return f'<section><h2>Drift</h2>\n{found}\n{KEY if plots else ""}<div class="plots">\n{plots}\n</div></section>'


def _none(drift: dict) -> str:
    if not drift["tests"]:
        return "Not tested: too few images came or went."
    return (
        f"None in {words.plural(drift['tests'], 'test')} (p of {drift['alpha']:g} for all of them together, and an "
        f"effect of {drift['least_effect']:g} or more)."
    )


def _plot(distribution: dict, tests: list[dict]) -> str:
    """A, B and what was added, each as shares, under its feature's name."""
    lines = {name: _shares(distribution[name]) for name in ("a", "b", "added")}
    top = max([share for line in lines.values() for share in line], default=0) or 1
    paths = [f'<path class="area-a" d="{_steps(lines["a"], top)}V{HEIGHT}H0Z"/>'] if any(lines["a"]) else []
    paths += [f'<path class="line-{shown}" d="{_steps(lines[name], top)}"/>' for name, shown in
              (("a", "a"), ("b", "b"), ("added", "new")) if any(lines[name])]  # fmt: skip
    mine = [test for test in tests if test["feature"] == distribution["feature"] and test["scope"] != "class"]
    drifted = any(test["drifted"] for test in mine)
    said = "".join(f'<p class="{"drifted" if test["drifted"] else "dim"}">{_result(test)}</p>' for test in mine)
    first, last = distribution["edges"][0], distribution["edges"][-1]
    name = text(distribution["feature"])
    return (
        f'<div class="plot{" drifted" * drifted}"><h3>{name} <span class="dim">{text(distribution["unit"])}</span></h3>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{name}">'
        f'{"".join(paths)}</svg><div class="axis"><span>{first:.4g}</span><span>{last:.4g}</span></div>{said}</div>'
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0 for count in counts]


def _steps(shares: Sequence[float], top: float) -> str:
    """The outline of a histogram as an SVG path."""
    return f"M0 {HEIGHT}" + "".join(_pieces(shares, top))


def _pieces(shares: Sequence[float], top: float) -> Iterator[str]:
    for i, share in enumerate(shares, 1):
        yield f"V{HEIGHT - HEIGHT * 0.96 * share / top:.1f}H{WIDTH * i / len(shares):.1f}"


def _result(test: dict) -> str:
    """What a test of the whole, or of what was added, found."""
    what = "added against kept" if test["scope"] == "added" else "B against A"
    p = test["p_adjusted"]
    chance = "p < 0.0001" if p < 0.0001 else f"p {p:.2g}"
    medians = f"median {test['a']['median']:.4g} → {test['b']['median']:.4g}, " if test["a"] and test["b"] else ""
    return f"{what}: {medians}effect {test['effect']:.2f}, {chance}{': drift' if test['drifted'] else ''}"
