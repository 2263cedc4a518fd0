"""Words that terminal, pull request comment, page and gates share; names from outside are made harmless to show."""

import math
import unicodedata
from collections.abc import Iterator, Sequence

import polars as pl

from imagepack.images.manifest import COLUMN
from imagepack.names import NO_CLASS, visible

KINDS = {
    "reencoded": "saved again, same pixels",
    "edited": "edited",
    "relabelled": "relabelled",
    "moved": "moved or renamed",
    "moved_edited": "moved and edited",
    "split_moved": "in another split",
    "added": "added",
    "removed": "removed",
}
"""What happened to an image, in the order of imagepack/compare/schema.json."""

UNSAFE = set(" '\"$`\\;&|<>*?!()")
"""Characters of a version's name that a shell would take for more than that."""


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide East Asian character, none for an accent."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, width: int) -> str:
    """Return a text in `width` columns, without its middle if need be: a name's end tells as much as its beginning."""
    if len(text) <= width and columns(text) <= width:
        return text
    head, tail, taken = [], [], 1  # of the ellipsis
    left, right = 0, len(text) - 1
    while left <= right:
        first = len(head) <= len(tail)
        character = text[left] if first else text[right]
        taken += columns(character)
        if taken > width:
            break
        (head if first else tail).append(character)
        left, right = (left + 1, right) if first else (left, right - 1)
    return "".join(head) + "…" + "".join(reversed(tail))


def plural(count: int, word: str) -> str:
    """Return `1 image`, `2 images`, `2 classes`."""
    return f"{count} {word if count == 1 else word + ('es' if word.endswith('s') else 's')}"


def size(count: int) -> str:
    """Return a number of bytes as `0 bytes`, `12 KiB`, `9.8 MiB`."""
    if count < 1024:
        return plural(count, "byte")
    power = min(int(math.log2(count) // 10), 4)
    value = count / 1024**power
    return f"{value:.1f} {' KMGT'[power]}iB" if value < 10 else f"{value:.0f} {' KMGT'[power]}iB"


def value(anything: object) -> str:
    """Return a param or metric: a float in four figures, anything else as it is; `-` for none."""
    if anything is None:
        return "-"
    return f"{anything:.4g}" if isinstance(anything, float) else visible(str(anything))


def transfer(way: dict) -> str:
    """Return how much dvc push moves: `about 12 MiB in 3 files`."""
    return f"{'about ' * way['estimated']}{size(way['bytes'])} in {plural(way['files'], 'file')}"


def place(change: dict, width: int | None = None) -> str:
    """Return where an image is, or was and is; each path is shortened if both take more than `width` columns."""
    paths = [visible(path) for path in dict.fromkeys((change["path_a"], change["path_b"])) if path is not None]
    if width is not None and paths and columns(" -> ".join(paths)) > width:
        paths = [shorten(path, max(8, (width - 4 * (len(paths) - 1)) // len(paths))) for path in paths]
    return " -> ".join(paths)


def remark(change: dict) -> str:
    """Return what else matters about a changed image (a new label, status or split; test), or an empty text."""
    splits, statuses = ([change[f"{key}_{side}"] for side in "ab"] for key in ("split", "status"))
    in_both = None not in (change["path_a"], change["path_b"])
    if change["path_a"] == change["path_b"] and change["label_a"] != change["label_b"]:  # by a table
        return " -> ".join(visible(change[f"label_{side}"] or NO_CLASS) for side in "ab")
    if in_both and statuses[0] != statuses[1]:
        return f"now {statuses[1]}"
    if in_both and splits[0] != splits[1]:
        return " -> ".join(visible(split or "no split") for split in splits)
    if "rejected" in statuses:
        return "rejected"
    return "test" if "test" in splits else ""


def by_kind(changes: pl.DataFrame, kind: str, count: int) -> list[dict]:
    """Return the first `count` changes of a kind."""
    return changes.filter(pl.col("kind") == kind).head(count).to_dicts()


def drift_sentences(drift: dict) -> Iterator[str]:
    """Yield each feature that drifted: in which images, how far (effect: 0 to 1), how likely by chance."""
    for test in drift["features"]:
        if test["drifted"]:
            yield f"{_tested(test)}: {_how_far(test)}, p {probability(test['p_adjusted'])}"


DRIFTED = {
    "all": "the images have drifted",
    "class": "the images of a class have drifted",
    "added": "what was added is unlike the rest",
    "column": "cells of tables have drifted",
}
"""What has drifted, by the scope of a test; the widest scope first; columns of tables where nothing else has."""


def widest_drift(drift: dict) -> str | None:
    """Return the widest scope of DRIFTED in which a feature drifted; None where none did."""
    drifted = [test for test in drift["features"] if test["drifted"]]
    scopes = {"column" if of_column(test["feature"]) else test["scope"] for test in drifted}
    return next((scope for scope in DRIFTED if scope in scopes), None)


def of_column(feature: str) -> str:
    """Return the name of the column that a feature is of; empty of other features."""
    return feature.removeprefix(COLUMN) if feature.startswith(COLUMN) else ""


def novelty_sentences(drift: dict) -> list[str]:
    """Return how many of the added images look like one of A, if that was asked for; one sentence or none."""
    if (found := drift["novelty"]) is None:
        return []
    return [f"{found['alike']} of {plural(found['added'], 'accepted image')} that came look like one of A"]


def _tested(test: dict) -> str:
    feature = "shares of classes" if test["feature"] == "class" else visible(test["feature"])
    if name := shorten(visible(of_column(test["feature"])), 40):
        feature = f"{'shares of ' if test['a'] is None else ''}column {name}"
    match test["scope"]:
        case "class":
            return f"{feature} within {shorten(visible(test['class'] or NO_CLASS), 40)}"
        case "added":
            return f"{feature} of what came, against what stayed"
    return feature


def _how_far(test: dict) -> str:
    effect = f"effect {test['effect']:.2f}"
    if test["a"] is None or test["b"] is None:
        return effect
    return f"median {test['a']['median']:.3g} -> {test['b']['median']:.3g}, {effect}"


def probability(p: float) -> str:
    """Return `0.013`, `< 0.0001`."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def changed_columns(columns: list[dict]) -> Iterator[str]:
    """Yield what is to be said of each column that differs: `age: new`, `age: integer -> text, 3 cells`."""
    for column in columns:
        said = []
        if None in (column["a"], column["b"]):
            said.append("new" if column["a"] is None else "gone")
        elif column["a"] != column["b"]:
            said.append(f"{column['a']} -> {column['b']}")
        if column["changed"]:
            said.append(plural(column["changed"], "cell"))
        yield f"{shorten(visible(column['name']), 40)}: {', '.join(said)}"


def parted_groups(groups: dict) -> Iterator[str]:
    """Yield each group of B that is in several splits: `p8 (train 2, test 1)`."""
    for group in groups["split"]:
        counts = ", ".join(f"{split} {count}" for split, count in group["splits"].items())
        yield f"{shorten(visible(group['group']), 40)} ({counts})"


def moved_groups(groups: dict) -> Iterator[str]:
    """Yield each group that went to another split: `p7 (test -> train, 3 images)`."""
    for group in groups["moved"]:
        name, images = shorten(visible(group["group"]), 40), plural(group["images"], "image")
        yield f"{name} ({group['from']} -> {group['to']}, {images})"


def left_test(summary: dict) -> str:
    """Return the sentence of `unpinned` about a comparison."""
    return unpinned(len(summary["splits"]["unpinned"]), summary["a"]["name"])


def unpinned(count: int, name: str) -> str:
    """Return a sentence about images that left test since nothing pins them, with the fix; empty if there are none.

    Args:
        count: how many.
        name: of the version in which they were in test.
    """
    if not count:
        return ""
    them, they_go = ("it", "it goes") if count == 1 else ("them", "they go")
    version = " A" if not name.isprintable() or set(name) & UNSAFE else f" {name}" * (name != "workspace")
    fix = f"python3 run.py pin{version}, then python3 run.py, and {they_go} back"
    return f"{plural(count, 'image')} of test came into train or val, since nothing pins {them}: {fix}"


def changed_findings(summary: dict) -> Iterator[str]:
    """Yield validate's codes that other images have than before: `blurry 3 -> 5 (3 new, 1 resolved)`."""
    for finding in summary["findings"]:
        parts = [f"{len(finding[key])} {key}" for key in ("new", "resolved") if finding[key]]
        if parts or finding["a"] != finding["b"]:
            yield f"{visible(finding['code'])} {finding['a']} -> {finding['b']}" + (
                f" ({', '.join(parts)})" if parts else ""
            )


def first_few(texts: Sequence[str], shown: int, total: int | None = None) -> str:
    """Return `a, b, c, ... and 7 more`."""
    total = len(texts) if total is None else total
    more = [f"... and {total - min(shown, len(texts))} more"] if total > min(shown, len(texts)) else []
    return ", ".join([*texts[:shown], *more])
