"""Rules that a change of the dataset may be held to: `--fail-on edited_in_test,leakage`."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from imagepack.compare.words import drift_sentences, first_few, parted_groups, plural
from imagepack.errors import InputError
from imagepack.names import visible

RULES = {
    "test_changed": "test is not as it was: any of the next three",
    "added_to_test": "an image came into test: added, accepted again, or from another split",
    "edited_in_test": "an image of test was edited or has another label",
    "removed_from_test": "an image of test was removed, rejected, or is in another split",
    "split_moved": "an image of both versions is in another split, or in none any more, or for the first time",
    "group_split": "a group (pack.split.group) is on two sides of train, val and test",
    "class_removed": "a class has no accepted image any more, and was not renamed",
    "leakage": "an image of val or test looks like one of train, or was one",
    "invalid_increase": "more images are rejected",
    "label_conflict": "an image has the bytes or pixels of one with another label, and did not",
    "column_changed": "cells of a table differ for an image of both versions, or a column came or went; "
    "column_changed:NAME: this column alone",
    "drift": "the images have drifted: all of them, those of a class, or those that came against those that stayed",
}
"""Name and meaning.

test_changed asks whether a score on test still means the same. Its three parts are rules too, since a dataset that
grows has more images of test, which says nothing against scores on the old ones. An image of test that was only moved,
renamed or saved again with the same pixels does not count, unless that took it into another split (the split follows
from the file's bytes) or gave it another label; all images of a renamed class have one. What params do to all images
alike is no matter of these rules.

Images that are in test and were rejected before, or the reverse, have come into test or left it: a rejected image has
no split.
"""
OF_COLUMN = "column_changed:"
SHOWN = 10
"""Images that a message names."""
FULL = 1000
"""As many as a finding lists at most."""


@dataclass(frozen=True)
class Failure:
    """A rule that does not hold.

    Attributes:
        rule: of RULES.
        count: how many images (class_removed: classes; group_split: groups; drift: features) break it; 0 where it could
            not be checked.
        images: their paths, in B, or in A where B has none; none of class_removed, group_split and drift.
        message: one line: the rule, what happened, the first images. Harmless to print.
    """

    rule: str
    count: int
    images: list[str]
    message: str


def parse(text: str) -> list[str]:
    """The rules of `a,b`, each once.

    Raises:
        InputError: no such rule, or none at all; with those there are.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    faults = [_unknown(name) for name in names if name not in RULES and not _of_column(name)]
    if not names:
        faults.append("no rule is named")
    if faults:
        listed = "\n".join(f"  {name}: {meaning}" for name, meaning in RULES.items())
        raise InputError("\n".join([f"--fail-on: {'; '.join(faults)}. There are:", listed]))
    return names


def _of_column(rule: str) -> str:
    """Return the column of `column_changed:NAME`; empty of any other rule."""
    return rule.removeprefix(OF_COLUMN) if rule.startswith(OF_COLUMN) else ""


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, RULES, n=1)
    return f"no rule {visible(name)!r}" + (f" (did you mean {near[0]}?)" if near else "")


def check(summary: dict, changes: pl.DataFrame, rules: Sequence[str]) -> list[Failure]:
    """Which of these rules do not hold, in their order.

    A rule about splits that cannot be checked, since a version has no pack, does not hold: a gate that is open because
    nobody could look is none.

    Args:
        summary: of a comparison, as imagepack/compare/schema.json has it.
        changes: its changes, a row each.
        rules: names of RULES.
    """
    failures = []
    changes = _with_turned(summary["status"], changes)
    for rule in rules:
        count, images, what = _check(rule, summary, changes)
        if what:
            named = f": {first_few([visible(image) for image in images[:SHOWN]], SHOWN, len(images))}" if images else ""
            failures.append(Failure(rule, count, images, f"{rule}: {what}{named}"))
    return failures


def _check(rule: str, summary: dict, changes: pl.DataFrame) -> "Found":
    if column := _of_column(rule):
        _require_column(column, summary["table_columns"])
        columns = [found for found in summary["columns"] if found["name"] == column]
        return _column_changed(summary | {"columns": columns}, changes)
    return CHECKS[rule](summary, changes)


def _require_column(name: str, there: Sequence[str]) -> None:
    """Refuse a rule about a column that no version has: such a gate would never close."""
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        known = (
            f"did you mean {visible(near[0])}?" if near else f"there are: {', '.join(map(visible, there)) or 'none'}"
        )
        raise InputError(f"--fail-on: no table of either version has a column {visible(name)!r} ({known})")


def _with_turned(status: dict, changes: pl.DataFrame) -> pl.DataFrame:
    """The changes, and images that are as they were but now rejected, or accepted: they left a split, or came in."""
    turned = [
        {name: image[name] for name in ("path_a", "path_b", "split_a", "split_b")}
        for image in (*status["newly_rejected"], *status["fixed"])
    ]
    rows = pl.DataFrame(turned, schema=dict.fromkeys(("path_a", "path_b", "split_a", "split_b"), pl.String))
    rows = rows.join(changes, on=["path_a", "path_b"], how="anti")
    return pl.concat([changes, rows.with_columns(kind=pl.lit("unchanged"))], how="diagonal")


Found = tuple[int, list[str], str]
"""Count, images, and what happened: empty where the rule holds."""
HOLDS: Found = (0, [], "")


def _without_pack(summary: dict, versions: str) -> Found | None:
    """None where these versions have packs."""
    if missing := [
        f"{which.upper()} ({visible(summary[which]['name'])})" for which in versions if not summary[which]["packed"]
    ]:
        return (
            0,
            [],
            f"cannot be checked: no pack, and so no splits, in {' and '.join(missing)}; run dvc repro and commit",
        )
    return None


def _paths(rows: pl.DataFrame) -> list[str]:
    return rows.select(pl.coalesce("path_b", "path_a")).to_series().to_list()


def _references(*lists: list[dict]) -> list[str]:
    """Paths of image references, each once."""
    return list(dict.fromkeys(image["path_b"] or image["path_a"] or "" for images in lists for image in images))


IN_TEST_A, IN_TEST_B = pl.col("split_a").eq_missing("test"), pl.col("split_b").eq_missing("test")
IN_BOTH = pl.col("path_a").is_not_null() & pl.col("path_b").is_not_null()
OTHER_SPLIT = pl.col("split_a").ne_missing(pl.col("split_b"))
OTHER_LABEL = pl.col("label_a").ne_missing(pl.col("label_b"))
OTHER_CONTENT = pl.col("kind").is_in(["edited", "moved_edited"])
CAME, LEFT = ~IN_TEST_A & IN_TEST_B, IN_TEST_A & ~IN_TEST_B
EDITED = IN_TEST_A & IN_TEST_B & (OTHER_LABEL | OTHER_CONTENT)


def _test_changed(summary: dict, changes: pl.DataFrame) -> Found:
    if unknown := _without_pack(summary, "ab"):
        return unknown
    rows = changes.filter(CAME | EDITED | LEFT)
    parts = {
        "added": rows.filter(CAME).height,
        "edited": rows.filter(EDITED).height,
        "removed": rows.filter(LEFT).height,
    }
    what = ", ".join(f"{count} {word}" for word, count in parts.items() if count)
    return rows.height, _paths(rows), what and f"images of test: {what}"


def _added_to_test(summary: dict, changes: pl.DataFrame) -> Found:
    return _in_test(summary, changes.filter(CAME), "new in test")


def _edited_in_test(summary: dict, changes: pl.DataFrame) -> Found:
    return _in_test(summary, changes.filter(EDITED), "of test edited or with another label")


def _removed_from_test(summary: dict, changes: pl.DataFrame) -> Found:
    return _in_test(summary, changes.filter(LEFT), "no longer in test")


def _in_test(summary: dict, rows: pl.DataFrame, what: str) -> Found:
    if unknown := _without_pack(summary, "ab"):
        return unknown
    return rows.height, _paths(rows), f"{plural(rows.height, 'image')} {what}" if rows.height else ""


def _split_moved(summary: dict, changes: pl.DataFrame) -> Found:
    if unknown := _without_pack(summary, "ab"):
        return unknown
    rows = changes.filter(IN_BOTH & OTHER_SPLIT)
    return rows.height, _paths(rows), f"{plural(rows.height, 'image')} in another split" if rows.height else ""


def _group_split(summary: dict, changes: pl.DataFrame) -> Found:
    """Of B alone: where it has no groups any more, those of A."""
    if unknown := _without_pack(summary, "b"):
        return unknown
    found = summary["groups"]["split"]
    parts = first_few(list(parted_groups({"split": found[:SHOWN]})), SHOWN, len(found))
    return len(found), [], f"{plural(len(found), 'group')} in several splits: {parts}" if found else ""


def _class_removed(summary: dict, changes: pl.DataFrame) -> Found:
    classes = summary["classes"]
    renamed = {pair["a"] for pair in classes["renamed"]}
    gone = [name for name in classes["removed"] if name not in renamed]
    names = first_few([visible(name) for name in gone[:SHOWN]], SHOWN, len(gone))
    return len(gone), [], f"{plural(len(gone), 'class')} without images now: {names}" if gone else ""


def _leakage(summary: dict, changes: pl.DataFrame) -> Found:
    if unknown := _without_pack(summary, "b"):
        return unknown
    leakage = summary["leakage"]
    parts = {
        "look like one of train": leakage["new"],
        "were in train of A, or look like one that was": leakage["trained_on"],
    }
    what = ", ".join(f"{len(images)} {word}" for word, images in parts.items() if images)
    images = _references(*parts.values())
    return len(images), images, what and f"of the images of val and test, {what}"


def _invalid_increase(summary: dict, changes: pl.DataFrame) -> Found:
    before, now = summary["a"]["rejected"], summary["b"]["rejected"]
    if now <= before:
        return HOLDS
    added = changes.filter((pl.col("kind") == "added") & pl.col("status_b").eq_missing("rejected"))
    images = list(dict.fromkeys([*_references(summary["status"]["newly_rejected"]), *_paths(added)]))
    return now - before, images, f"{plural(now, 'rejected image')} instead of {before}"


def _label_conflict(summary: dict, changes: pl.DataFrame) -> Found:
    new = next((finding["new"] for finding in summary["findings"] if finding["code"] == "label_conflict"), [])
    images = _references(new)
    more = " or more" if len(new) >= FULL else ""
    return len(images), images, f"{len(images)}{more} new under two labels" if images else ""


def _column_changed(summary: dict, changes: pl.DataFrame) -> Found:
    columns = summary["columns"]
    images = _references(*(column["images"] for column in columns))
    parts = []
    for column in columns:
        came_or_went = {(True, False): "new", (False, True): "gone"}.get((column["a"] is None, column["b"] is None))
        parts.append(f"{visible(column['name'])} ({came_or_went or plural(column['changed'], 'cell')})")
    return max([1, *(column["changed"] for column in columns)]) if columns else 0, images, first_few(parts, SHOWN)


def _drift(summary: dict, changes: pl.DataFrame) -> Found:
    if not summary["drift"]["drifted"]:
        return HOLDS
    features = list(drift_sentences(summary["drift"]))
    return len(features), [], "; ".join(features[:3] + [f"... and {len(features) - 3} more"] * (len(features) > 3))


CHECKS: dict[str, Callable[[dict, pl.DataFrame], Found]] = {
    "test_changed": _test_changed,
    "added_to_test": _added_to_test,
    "edited_in_test": _edited_in_test,
    "removed_from_test": _removed_from_test,
    "split_moved": _split_moved,
    "group_split": _group_split,
    "class_removed": _class_removed,
    "leakage": _leakage,
    "invalid_increase": _invalid_increase,
    "label_conflict": _label_conflict,
    "column_changed": _column_changed,
    "drift": _drift,
}
