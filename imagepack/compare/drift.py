"""Whether the images as a whole have become others: tests that know that two versions share most of their images.

An ordinary two-sample test takes A and B for independent. They are not: an image in both moves both distributions
alike, so such a test hardly ever sees anything. Of a feature, let an image be shared if it is in both versions with
the same pixels and the same value. With a and b images in A and B the difference of the two distribution functions is

    F_A(x) - F_B(x) = sum of w_i [x_i <= x],  w = 1/a - 1/b of a shared image, 1/a of one in A alone, -1/b in B alone,

and the weights add up to 0. If all images are draws of one distribution, this tends to a Brownian bridge times the
square root of S = sum of w_i^2 (its covariance is S (min(F(x), F(y)) - F(x) F(y))), so that

    p = Q(D / sqrt(S)),  D = greatest |F_A - F_B| (the effect),  Q of Kolmogorov's distribution.

With nothing shared, S = 1/a + 1/b, and it is the two-sample test of Kolmogorov and Smirnov. An edited image counts once
in A alone and once in B alone: its two values resemble each other, which makes p too large if anything. Ties, as of
sizes, do too. So do few images, but for a twentieth of p at most: 2 exp(-2 D^2 / S), from which Q differs by nothing
that matters here, bounds the p of two samples but for equally many images below 458 (Wei and Dudley, Two-sample
Dvoretzky-Kiefer-Wolfowitz inequalities, 2012), and at each single x it bounds any weights (Hoeffding, 1963).

The mix of classes likewise: chi-squared = sum over classes of (p_A - p_B)^2 / p / S with one degree of freedom less
than classes; here shared is who kept the label. Its effect is the total variation distance, half the sum of
|p_A - p_B|. A relabelled image has two labels that differ by definition, and so vary by 1 / (1 - sum of p^2) more than
two free draws.

Columns of tables beside the images are tested as these are: numbers as brightness is, texts and true or false as the
mix of classes is (an empty cell is a value of these; of numbers it is left out). Here shared is who kept its cell,
whatever its pixels. Whose cell differs has two cells that differ by definition, in numbers with few values too, and
varies more, as a relabelled image does.

One family: p is corrected by Holm's method (A simple sequentially rejective multiple test procedure, 1979) over all
tests of the comparison. Where nothing drifts, the chance that any of them alarms is ALPHA at most, whatever they have
to do with each other: brightness and contrast, a class and the whole. The step-up method of Benjamini and Hochberg
would promise that only for tests that are independent or positively dependent, and, where one feature did drift,
nothing for the others. Which tests are done depends on how many images came and went, not on how they look.

Taken for granted is that images are separate draws. Frames of one film are not, and differ more often than by ALPHA.

Why no population stability index with its thresholds of 0.1 and 0.25: where nothing changes, it is about (1/n + 1/m)
times chi-squared with bins - 1 degrees of freedom (Yurdakul, Statistical properties of population stability index,
2018). In ten bins, 100 images against 100 have 0.18 on average, an alarm nearly always; 100,000 against 100,000 have
0.0002, and hide a drift a hundred times what chance does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from imagepack.checks import near_duplicates
from imagepack.compare.words import shorten

ALPHA = 0.01
"""Chance that a comparison of versions between which nothing drifted raises any alarm."""
LEAST_EFFECT = 0.1
"""Share of the images beyond some value, in one version and not in the other; less may be true, but hardly matters."""
FEWEST = 10
"""Independent images that a test must rest on: the square of the greatest effect that its numbers allow, over S. That
is n m / (n + m) of n images that came and m that were there, r / 2 where r are exchanged. With 10, the least p
possible is 2 exp(-20) = 4e-9, enough for ALPHA after correction for two million tests; tests with fewer could say
little and would cost the others power."""
LEAST_EXPECTED = 5
"""Images expected of a class; rarer ones are taken together (Cochran, Some methods for strengthening the common
chi-squared tests, 1954). In simulations with 2 to 1000 classes, p is then below 0.01 at most 1.1 times as often as it
should be, below 0.001 at most 1.3 times."""
MOST_LISTED = 1000
BINS = 24
TAIL = 0.005
"""Share of the images beyond each end of a histogram's edges; they are counted in its first and last bin."""
MOST_CATEGORIES = 50
"""Of a chart. A column of texts with more values is not tested: most of what comes would be new by definition."""
LONGEST = 100
"""Columns of a terminal that a category's name takes; of a longer one the middle is left out: a cell may be a page."""
PERCENTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}

_WIDTH, _HEIGHT = (pl.when(pl.col(side) > 0).then(pl.col(side)).cast(pl.Float64) for side in ("width", "height"))
FEATURES = {
    "size": ("pixels, root of width x height", (_WIDTH * _HEIGHT).sqrt()),
    "aspect": (
        "width / height, as seen",
        pl.when(pl.col("orientation") >= 5).then(_HEIGHT / _WIDTH).otherwise(_WIDTH / _HEIGHT),
    ),
    "brightness": ("mean luma, 0 to 255", pl.col("brightness")),
    "contrast": ("standard deviation of luma, 0 to 127.5", pl.col("contrast")),
    "saturation": ("colour, 0 to 255", pl.col("saturation")),
    "sharpness": ("variance of the Laplacian", pl.col("sharpness")),
}
"""Name: unit, expression over the manifest. Beside them stand `class`, in images, and `column:NAME` of tables."""

_TEST = {"feature": pl.String, "scope": pl.String, "number": pl.UInt32, "n_a": pl.Int64, "n_b": pl.Int64}
_TEST |= {"effect": pl.Float64, "p": pl.Float64}
"""Columns of a test; number: of the class, null but in scope class. Percentiles come beside them."""
_IN_A, _IN_B, _KEPT, _CAME, _DIFFERS = (np.uint8(1 << bit) for bit in range(5))


def drift(
    a: pl.DataFrame, b: pl.DataFrame, pairs: pl.DataFrame, novelty: bool = False, columns: Sequence[str] = ()
) -> dict:
    """Test each feature in the whole, in each class, and of what came; see the top of this file.

    With A and B exchanged, scopes all and class have the same effects and p, and scope added is of what went.

    Args:
        a: images of A: the manifest. Rejected ones do not count.
        b: of B.
        pairs: a row for each image of both versions: `row_a`, `row_b` (rows of the tables; null where it is in one
            alone) and `kind` (added, ...).
        novelty: also look for images of A that look like those that came.
        columns: of tables, to be tested too, as the manifest calls them: in both versions, numbers in both, or texts or
            true and false.

    Returns:
        `drift` of imagepack/compare/schema.json.
    """
    images = _Images.of(a, b, pairs, columns)
    tests, distributions = [pl.DataFrame(schema=_TEST)], []
    for feature, (unit, expression) in FEATURES.items():
        items = _Items.of(images, expression)
        tests += [frame.with_columns(feature=pl.lit(feature)) for frame in _feature_tests(items)]
        if len(items.values):
            distributions.append({"feature": feature, "unit": unit, **_histogram(items)})
    for name in columns:
        if images.table[name].dtype == pl.Float64:
            items = _Items.of(images, pl.col(name), of_cells=True)
            tests += [frame.with_columns(feature=pl.lit(name)) for frame in _feature_tests(items)]
            shown = {"unit": "cells", **_histogram(items)} if len(items.values) else {}
        else:
            names, numbers = _numbered(images.table[name])
            tests += _mix_tests(name, images, len(names), numbers)
            shown = {"unit": "images", **_categories(images, names, numbers, "values")} if len(names) else {}
        distributions += [{"feature": name, **shown}] if shown else []
    tests += _mix_tests("class", images, len(images.names), images.label)
    if len(images.names):
        of_classes = _categories(images, images.names, images.label, "classes")
        distributions.append({"feature": "class", "unit": "images", **of_classes})
    table = _corrected(pl.concat(tests, how="diagonal_relaxed"))
    return {
        "alpha": ALPHA,
        "least_effect": LEAST_EFFECT,
        "tests": len(table),
        "drifted": bool(table["drifted"].any()),
        "features": _listed(table, images.names),
        "distributions": distributions,
        "novelty": _novelty(images) if novelty else None,
    }


@dataclass(frozen=True)
class _Images:
    """The accepted images, those of A before those of B: N rows.

    Attributes:
        table: the manifests' columns that are needed; of those of tables numbers are float64, the others texts, empty
            where the cell is.
        names: classes, sorted.
        label: uint16 or uint32, (N,), number of the class.
        in_b: bool, (N,).
        came: bool, (N,), of kind added.
        first, second: int64, (M,), rows of the images accepted in both versions, in A and in B.
        same_pixels: bool, (M,).
    """

    table: pl.DataFrame
    names: list[str]
    label: np.ndarray
    in_b: np.ndarray
    came: np.ndarray
    first: np.ndarray
    second: np.ndarray
    same_pixels: np.ndarray

    @classmethod
    def of(cls, a: pl.DataFrame, b: pl.DataFrame, pairs: pl.DataFrame, columns: Sequence[str] = ()) -> "_Images":
        measures = ("width", "height", "orientation", "brightness", "contrast", "saturation", "sharpness")
        needed = [pl.col(name).cast(pl.Float64) for name in measures]
        needed += [pl.col(name).cast(pl.String).fill_null("") for name in ("label", "pixel_hash")]
        needed += [pl.col("path", "perceptual_hash").cast(pl.String)]
        for name in columns:
            number = a[name].dtype.is_numeric()
            needed.append(pl.col(name).cast(pl.Float64) if number else pl.col(name).cast(pl.String).fill_null(""))
        accepted = [(version["status"] == "accepted").fill_null(False) for version in (a, b)]
        count = int(accepted[0].sum())
        table = pl.concat([v.filter(kept).select(needed) for v, kept in zip((a, b), accepted, strict=True)])
        rows = []  # of the table, by row of a version; -1 if rejected
        for kept, start in zip(accepted, (0, count), strict=True):
            numbers = start - 1 + kept.cast(pl.Int64).cum_sum().to_numpy()
            rows.append(np.where(kept.to_numpy(), numbers, -1))
        both = pairs.filter(pl.col("row_a").is_not_null() & pl.col("row_b").is_not_null())
        first, second = (rows[i][both[f"row_{v}"].to_numpy().astype("i8")] for i, v in enumerate("ab"))
        in_both = (first >= 0) & (second >= 0)
        first, second = first[in_both], second[in_both]
        digest = table["pixel_hash"]
        came = np.zeros(len(table), bool)
        added = pairs.filter((pl.col("kind") == "added") & pl.col("row_b").is_not_null())["row_b"]
        arrived = rows[1][added.to_numpy().astype("i8")]
        came[arrived[arrived >= 0]] = True
        names, label = _numbered(table["label"])
        return cls(
            table=table,
            names=names,
            label=label,
            in_b=np.arange(len(table)) >= count,
            came=came,
            first=first,
            second=second,
            same_pixels=(digest[first] == digest[second]).to_numpy() & (digest[first] != "").to_numpy(),
        )


def _numbered(texts: pl.Series) -> tuple[list[str], np.ndarray]:
    """Return the different texts, sorted, and which each is: uint16 or uint32, (N,)."""
    names = texts.unique().sort()
    numbers = texts.cast(pl.Enum(names)).to_physical().to_numpy()
    return names.to_list(), numbers.astype("u2" if len(names) <= 1 << 16 else "u4")  # two bytes are sorted by radix


@dataclass(frozen=True)
class _Items:
    """A feature's values, sorted; an image with one value and one label in both versions is one item.

    Attributes:
        values: float64, (M,).
        label: uint16 or uint32, (M,).
        role: uint8, (M,), of _IN_A, _IN_B, _KEPT (of A, and B has the same image and value), _CAME, _DIFFERS (a cell
            that is another in the other version).
    """

    values: np.ndarray
    label: np.ndarray
    role: np.ndarray

    @classmethod
    def of(cls, images: _Images, expression: pl.Expr, of_cells: bool = False) -> "_Items":
        values = images.table.select(value=expression.cast(pl.Float64))["value"].to_numpy()
        role = np.where(images.in_b, _IN_B, _IN_A)
        role[images.came] |= _CAME
        same = values[images.first] == values[images.second]
        kept = same if of_cells else images.same_pixels & same
        if of_cells:
            other = ~same & np.isfinite(values[images.first]) & np.isfinite(values[images.second])
            role[images.first[other]] |= _DIFFERS
            role[images.second[other]] |= _DIFFERS
        first, second = images.first[kept], images.second[kept]
        role[first] |= _KEPT
        one = images.label[first] == images.label[second]
        role[first[one]] |= _IN_B
        known = np.isfinite(values)
        known[second[one]] = False
        rows = np.flatnonzero(known)
        rows = rows[np.argsort(values[rows])]
        return cls(values[rows], images.label[rows], role[rows])

    def by_class(self) -> "_Items":
        """The same, sorted by class before value."""
        order = np.argsort(self.label, kind="stable")
        return _Items(self.values[order], self.label[order], self.role[order])

    def has(self, role: np.uint8) -> np.ndarray:
        """bool, (M,)."""
        return self.role & role > 0


def _feature_tests(items: _Items) -> list[pl.DataFrame]:
    """Of all three scopes; those that the numbers of images allow."""
    if not len(items.values):
        return []
    whole = np.zeros(1, np.int64)
    none = np.zeros(len(items.values), bool)
    all_ = _compared(items.values, whole, items.has(_IN_A), items.has(_IN_B), items.has(_KEPT), items.has(_DIFFERS))
    added = _compared(items.values, whole, items.has(_KEPT), items.has(_CAME), none, none)
    ordered = items.by_class()
    starts = np.flatnonzero(np.diff(ordered.label, prepend=ordered.label[0]) != 0)
    starts = np.concatenate([whole, starts])
    in_a, in_b = ordered.has(_IN_A), ordered.has(_IN_B)
    classes = _compared(ordered.values, starts, in_a, in_b, in_a & in_b, ordered.has(_DIFFERS)).with_columns(
        number=pl.Series(ordered.label[starts], dtype=pl.UInt32)
    )
    scopes = {"all": all_, "added": added, "class": classes.filter(pl.col("reach") >= LEAST_EFFECT)}
    return [
        frame.filter(pl.col("rests_on") >= FEWEST).with_columns(scope=pl.lit(scope)).drop("reach", "rests_on")
        for scope, frame in scopes.items()
    ]


def _compared(
    values: np.ndarray,
    starts: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    shared: np.ndarray,
    differs: np.ndarray,
) -> pl.DataFrame:
    """Two samples in each of G groups.

    Args:
        values: float64, (M,), group after group, sorted in each.
        starts: int64, (G,), where groups begin.
        one, other: bool, (M,), which values are of the one and of the other sample.
        shared: bool, (M,), marks each image that is in both samples once.
        differs: bool, (M,), marks the values of images that are in both samples with another value each.

    Returns:
        A row a group: n_a, n_b, effect, p, reach, rests_on, and the percentiles, as a_p5, ...
    """
    from scipy import special  # a third of a second, for nothing where no test is done

    n_a, n_b, n_shared = (np.add.reduceat(which, starts, dtype=np.int64) for which in (one, other, shared))
    spread, reach = _spread(n_a, n_b, n_shared), _reach(n_a, n_b, n_shared)
    if differs.any():
        twice = [np.add.reduceat(which & differs, starts, dtype=np.int64) for which in (one, other)]
        spread += _spread_of_differing(*twice, n_a, n_b, _chance_of_a_tie(values, starts))
    effect = _distance(values, starts, one, other, n_a, n_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = special.kolmogorov(effect / np.sqrt(spread))
        rests_on = np.nan_to_num(reach**2 / spread)
    percentiles = {
        f"{version}_{name}": values[which][_ranks(count, share)] if which.any() else np.full(len(starts), np.nan)
        for version, which, count in (("a", one, n_a), ("b", other, n_b))
        for name, share in PERCENTILES.items()
    }
    numbers = {"n_a": n_a, "n_b": n_b, "effect": effect, "p": p, "reach": reach, "rests_on": rests_on}
    return pl.DataFrame(numbers | percentiles)


def _spread(n_a: np.ndarray, n_b: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """S, the sum of the squared weights; 0 where a sample is empty or nothing changed."""
    one, other = (1 / np.maximum(count, 1) for count in (n_a, n_b))
    spread = shared * (one - other) ** 2 + ((n_a - shared) * one**2 + (n_b - shared) * other**2)
    return np.where((n_a > 0) & (n_b > 0), spread, 0)


def _spread_of_differing(
    one: np.ndarray, other: np.ndarray, n_a: np.ndarray, n_b: np.ndarray, tie: np.ndarray
) -> np.ndarray:
    """What S gains by images, of both samples, whose two values differ by definition.

    Args:
        one, other: how many values of each sample are of such images.
        n_a, n_b: how many values the samples have.
        tie: the chance that two free draws are equal.
    """
    more = 1 / np.maximum(1 - tie, 1e-9) - 1
    return (one / np.maximum(n_a, 1) ** 2 + other / np.maximum(n_b, 1) ** 2) * np.where(one + other > 0, more, 0)


def _chance_of_a_tie(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return how likely two values of a group are equal, sum of p^2: float64, (G,)."""
    sizes = np.diff(starts, append=len(values))
    runs = np.concatenate([[True], values[1:] != values[:-1]])
    runs[starts] = True
    begin = np.flatnonzero(runs)
    group = np.searchsorted(starts, begin, "right") - 1
    squares = np.diff(begin, append=len(values)).astype(np.float64) ** 2
    return np.bincount(group, weights=squares, minlength=len(starts)) / sizes.astype(np.float64) ** 2


def _reach(n_a: np.ndarray, n_b: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """The greatest effect that these numbers allow; 0 where a sample is empty."""
    reach = np.maximum((n_a - shared) / np.maximum(n_a, 1), (n_b - shared) / np.maximum(n_b, 1))
    return np.where((n_a > 0) & (n_b > 0), reach, 0)


def _distance(
    values: np.ndarray, starts: np.ndarray, one: np.ndarray, other: np.ndarray, n_a: np.ndarray, n_b: np.ndarray
) -> np.ndarray:
    """Kolmogorov-Smirnov distance in each group, float64, (G,); 0 where a sample is empty.

    In whole numbers, so that it is exact, and the same with the samples exchanged.
    """
    sizes = np.diff(starts, append=len(values))
    gap = np.zeros(len(values), np.int64)
    for which, own, others, sign in ((one, n_a, n_b, 1), (other, n_b, n_a, -1)):
        below = np.cumsum(which, dtype=np.int64)
        below -= np.repeat(np.cumsum(own) - own, sizes)  # those of the groups before
        gap += sign * below * np.repeat(others, sizes)
    last = np.append(values[1:] != values[:-1], True)  # of equal values
    last[starts[1:] - 1] = True
    gap[~last] = 0
    return np.maximum.reduceat(np.abs(gap), starts) / np.maximum(n_a * n_b, 1)


def _ranks(count: np.ndarray, share: float) -> np.ndarray:
    """Where a quantile of each group lies among the sample's values, group after group: int64, (G,).

    Of an empty group it is that of another.
    """
    ranks = np.cumsum(count) - count + np.rint(share * np.maximum(count - 1, 0)).astype(np.int64)
    return np.minimum(ranks, count.sum() - 1)


def _mix_tests(feature: str, images: _Images, count: int, numbers: np.ndarray) -> list[pl.DataFrame]:
    """Of the shares of classes or other categories, in the whole and of what came.

    Args:
        count: of categories.
        numbers: of each image the category's, (N,).
    """
    kept = numbers[images.first] == numbers[images.second]

    def counts(which: np.ndarray) -> np.ndarray:
        return np.bincount(which, minlength=count)

    shared = counts(numbers[images.first[kept]])
    in_a, in_b = counts(numbers[~images.in_b]), counts(numbers[images.in_b])
    came = counts(numbers[images.came])
    tests = {
        "all": _mix(in_a, in_b, shared, int(np.count_nonzero(~kept))),
        "added": _mix(shared, came, np.zeros_like(came), 0),
    }
    return [
        pl.DataFrame([found]).with_columns(feature=pl.lit(feature), scope=pl.lit(scope))
        for scope, found in tests.items()
        if found
    ]


def _mix(one: np.ndarray, other: np.ndarray, shared: np.ndarray, relabelled: int) -> dict | None:
    """n_a, n_b, effect and p; None where the numbers do not allow a test.

    Args:
        one, other, shared: int64, (C,), images by class.
        relabelled: images in both samples with different labels.
    """
    n_a, n_b, n_shared = (int(sample.sum()) for sample in (one, other, shared))
    spread = float(_spread(n_a, n_b, n_shared))
    if not spread:
        return None
    fourth = n_shared * (1 / n_a - 1 / n_b) ** 4 + ((n_a - n_shared) / n_a**4 + (n_b - n_shared) / n_b**4)
    tailed = fourth / spread**2
    share = (one + other - shared) / (n_a + n_b - n_shared)
    if relabelled:
        spread += float(_spread_of_differing(relabelled, relabelled, n_a, n_b, share @ share))
    rests_on = float(_reach(n_a, n_b, n_shared)) ** 2 / spread
    groups = _common(share, rests_on)
    if rests_on < FEWEST or len(groups) < 2:
        return None
    difference = np.abs(np.add.reduceat((one / n_a - other / n_b)[np.concatenate(groups)], _starts(groups)))
    pooled = np.add.reduceat(share[np.concatenate(groups)], _starts(groups))
    p = _p_of_mix((difference**2 / pooled).sum() / spread, pooled, tailed)
    return {"n_a": n_a, "n_b": n_b, "effect": float(difference.sum() / 2), "p": p}


def _p_of_mix(chi_squared: float, share: np.ndarray, tailed: float) -> float:
    """By a multiple of a chi-squared distribution with the mean and the variance that the statistic has.

    Many classes that are expected few times give it a greater variance than 2 (C - 1), of labels drawn at random
    2 (C - 1) + (sum of 1 / p - C^2 - 2 (C - 1)) sum of w^4 / S^2.
    """
    from scipy import special

    freedom = len(share) - 1
    variance = 2 * freedom + max(0.0, tailed * (float((1 / share).sum()) - len(share) ** 2 - 2 * freedom))
    factor = 2 * freedom / variance
    return float(special.chdtrc(freedom * factor, chi_squared * factor))


def _starts(groups: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *map(len, groups[:-1])])


def _common(share: np.ndarray, rests_on: float) -> list[np.ndarray]:
    """Groups of classes, each expected often enough: the rare together, the rarest first, the others by themselves."""
    order = np.argsort(share, kind="stable")
    order = order[share[order] > 0]
    starts, expected = [], LEAST_EXPECTED
    for place, more in enumerate((share[order] * rests_on).tolist()):
        if expected >= LEAST_EXPECTED:
            starts.append(place)
            expected = 0
        expected += more
    if expected < LEAST_EXPECTED:
        starts.pop()
    return np.split(order, starts[1:])


def _corrected(tests: pl.DataFrame) -> pl.DataFrame:
    """With p_adjusted, by Holm's method, and drifted."""
    p = tests["p"].to_numpy()
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    tests = tests.with_columns(p_adjusted=pl.Series(adjusted))
    return tests.with_columns(drifted=(pl.col("p_adjusted") <= ALPHA) & (pl.col("effect") >= LEAST_EFFECT))


def _listed(tests: pl.DataFrame, names: list[str]) -> list[dict]:
    """`features` of the schema."""
    shown = tests.filter((pl.col("scope") != "class") | pl.col("drifted"))
    scope = pl.col("scope").replace_strict({"all": 0, "added": 1, "class": 2}, return_dtype=pl.Int8)
    shown = shown.sort(scope, -pl.col("effect"), "p", "feature", "number").head(MOST_LISTED)
    listed = []
    for row in shown.iter_rows(named=True):
        plain = {key: row[key] for key in ("n_a", "n_b", "effect", "p", "p_adjusted", "drifted")}
        listed.append(
            {
                "feature": row["feature"],
                "scope": row["scope"],
                "class": None if row["number"] is None else names[row["number"]],
                **plain,
                **{version: _percentiles(row, version) for version in "ab"},
            }
        )
    return listed


def _percentiles(row: dict, version: str) -> dict | None:
    """To six digits: more are noise of 32-bit numbers."""
    if row.get("a_median") is None:  # of categories
        return None
    return {name: float(f"{row[f'{version}_{name}']:.6g}") for name in PERCENTILES}


def _histogram(items: _Items) -> dict:
    """Edges and counts of A, B and what came."""
    samples = {key: items.values[items.has(role)] for key, role in (("a", _IN_A), ("b", _IN_B), ("added", _CAME))}
    ends = [[v[round(q * (len(v) - 1))] for q in (TAIL, 1 - TAIL)] for v in (samples["a"], samples["b"]) if len(v)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = {
        key: np.diff(np.searchsorted(values, edges[1:-1]), prepend=0, append=len(values)).tolist()
        for key, values in samples.items()
    }
    return {"edges": edges.tolist(), "categories": [], **counts}


def _categories(images: _Images, names: list[str], numbers: np.ndarray, what: str) -> dict:
    """Categories, the most frequent first, those beyond MOST_CATEGORIES as one; and counts.

    Args:
        names: of all categories.
        numbers: of each image the category's, (N,).
        what: several of them are called.
    """
    samples = {"a": ~images.in_b, "b": images.in_b, "added": images.came}
    counts = {key: np.bincount(numbers[which], minlength=len(names)) for key, which in samples.items()}
    order = np.argsort(-(counts["a"] + counts["b"]), kind="stable")
    shown, others = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    if len(others) == 1:
        shown, others = order, others[:0]
    rest = [f"{len(others)} other {what}"] if len(others) else []
    return {
        "edges": [],
        "categories": [shorten(names[number], LONGEST) for number in shown] + rest,
        **{key: n[shown].tolist() + [int(n[others].sum())] * len(rest) for key, n in counts.items()},
    }


def _novelty(images: _Images) -> dict:
    """Which of the images that came look like one of A, by their perceptual hashes, and the nearest of A to each."""
    looks = images.table.select("path", hash=pl.col("perceptual_hash")).with_columns(
        in_b=pl.Series(images.in_b), came=pl.Series(images.came)
    )
    looks = looks.filter(pl.col("hash").str.contains("^[0-9a-f]{64}$"))
    known = looks.filter(~pl.col("in_b")).unique("hash", keep="first", maintain_order=True)
    came = looks.filter("came")
    kinds = came.select("hash").unique(maintain_order=True)
    hashes = np.frombuffer(b"".join(pl.concat([known["hash"], kinds["hash"]]).str.decode("hex")), "u1").reshape(-1, 32)
    found = near_duplicates.find(hashes, None, np.arange(len(hashes)) < len(known))
    distance = np.bitwise_count(hashes[found[:, 0]] ^ hashes[found[:, 1]]).sum(1, dtype=np.int64)
    nearest = (
        pl.DataFrame({"known": found[:, 0], "kind": found[:, 1] - len(known), "distance": distance})
        .sort("kind", "distance", "known")
        .unique("kind", keep="first", maintain_order=True)
    )
    pairs = nearest.select(
        "distance", path_a=known["path"][nearest["known"]], hash=kinds["hash"][nearest["kind"]]
    ).join(came.select("hash", path_b="path"), on="hash")
    listed = pairs.sort("distance", "path_b").head(MOST_LISTED).select("path_a", "path_b", "distance")
    return {"added": int(images.came.sum()), "alike": len(pairs), "pairs": listed.to_dicts()}
