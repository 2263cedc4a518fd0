"""What a person reads in ten seconds: whether anything happened, whether it matters, and the first examples."""

import textwrap
from collections.abc import Iterable, Iterator

import polars as pl

from compare import gates
from compare.words import (
    KINDS,
    aside,
    by_kind,
    columns,
    drifts,
    findings,
    place,
    plural,
    shorten,
    some,
    transfer,
    value,
    visible,
)

LINES = 40
EXAMPLES = 3
INDENT = 10
MATTERS = {
    "test_changed": ("{} of test changed", "{} of test changed"),
    "class_removed": ("{} class gone", "{} classes gone"),
    "leakage": ("{} of val or test that training may have seen", "{} of val or test that training may have seen"),
    "invalid_increase": ("{} more rejected", "{} more rejected"),
    "label_conflict": ("{} new under two labels", "{} new under two labels"),
    "drift": ("the images as a whole have become others", "the images as a whole have become others"),
}
"""Rules of gates.RULES that make a change matter, for one and for several."""


def text(summary: dict, changes: pl.DataFrame, width: int = 100) -> str:
    """A comparison as lines of plain text, at most 40, none wider than `width` columns; with a newline at the end.

    Args:
        summary: as compare/schema.json has it.
        changes: a row each.
        width: columns, 40 or more.
    """
    for examples in range(EXAMPLES, -1, -1):  # as many examples as there is room for
        lines = list(_lines(summary, changes, max(width, 40), examples))
        if len(lines) <= LINES:
            break
    return "".join(f"{shorten(line, max(width, 40))}\n" for line in lines[:LINES])


def verdict(summary: dict, changes: pl.DataFrame) -> str:
    """Whether anything happened and whether it matters: one sentence, without any name from outside."""
    counts = summary["counts"]
    total = sum(counts.values())
    differ = total - counts["unchanged"]
    failures = {
        failure.rule: failure.count for failure in gates.check(summary, changes, list(MATTERS)) if failure.count
    }
    matters = "; ".join(MATTERS[rule][count != 1].format(count) for rule, count in failures.items())
    if differ:
        happened = f"{differ} of {plural(total, 'image')} differ{'s' * (differ == 1)}"
    else:
        happened = f"the same {plural(total, 'image')}"
        if summary["pipeline"]["packed_changed"]:
            happened += ", but other packs"
        elif not matters and not _worked_otherwise(summary):
            return f"nothing changed: {happened}, labels and splits."
    if matters:
        return f"{happened}. It matters: {matters}."
    unknown = [] if summary["a"]["packed"] and summary["b"]["packed"] else ["splits unknown: a version has no pack"]
    unknown = unknown or ["test as before, no new leakage, no drift"]
    return f"{happened}; {unknown[0]}."


def _worked_otherwise(summary: dict) -> bool:
    return bool(summary["pipeline"]["stages"] or summary["pipeline"]["packages"] or summary["metrics"])


def _lines(summary: dict, changes: pl.DataFrame, width: int, examples: int) -> Iterator[str]:
    a, b = summary["a"], summary["b"]
    names = [shorten(visible(version["name"]), width // 4) for version in (a, b)]
    yield from textwrap.wrap(f"{names[0]} -> {names[1]}: {verdict(summary, changes)}", width, max_lines=3)
    yield from _section(
        "Warnings", [f"{which.upper()}: {w}" for which in "ab" for w in summary[which]["warnings"]], width
    )
    yield ""
    yield from _section("Images", _numbers(a, b), width)
    for kind, count in summary["counts"].items():
        if count:
            yield f"  {count:>8} {KINDS.get(kind, kind)}"
            if kind != "unchanged":
                yield from _examples(by_kind(changes, kind, examples), count if examples else 0, width)
    yield from _section("Splits", _splits(summary["splits"]), width)
    yield from _section("Classes", _classes(summary["classes"]), width)
    yield from _section("Findings", [some(list(findings(summary)), 6)], width)
    yield from _section("Rejected", _seen("now", summary["status"]["newly_rejected"]), width)
    yield from _section("", _seen("no longer", summary["status"]["fixed"]), width)
    leakage = summary["leakage"]
    yield from _section("Leakage", _seen("new", leakage["new"]), width)
    yield from _section("Leakage", _seen("was in train of A", leakage["trained_on"]), width)
    yield from _section("Leakage", _seen("resolved", leakage["resolved"]), width)
    yield from _section("Drift", _drift(summary["drift"]), width)
    yield from _section("Pipeline", summary["pipeline"]["explanation"], width, 4)
    if summary["transfer"]["a_to_b"]["files"]:
        yield from _section("To push", [transfer(summary["transfer"]["a_to_b"])], width)
    metrics = [
        f"{visible(m['metric'])} {value(m['a'])} -> {value(m['b'])}" for m in summary["metrics"] if m["a"] != m["b"]
    ]
    yield from _section("Metrics", [some(metrics, 6)], width)


def _section(title: str, texts: Iterable[str], width: int, most: int = 3) -> Iterator[str]:
    """A title and texts beside it, each wrapped to at most two lines; nothing where there are no texts."""
    texts = [visible(text) for text in texts if text]
    shown = texts[:most] + [f"... and {len(texts) - most} more"] * (len(texts) > most)
    for i, text in enumerate(shown):
        lines = textwrap.wrap(text, width - INDENT, max_lines=2, placeholder=" ...")
        for j, line in enumerate(lines):
            yield f"{title if i == j == 0 else '':<{INDENT}}{line}"


def _numbers(a: dict, b: dict) -> list[str]:
    keys = {"accepted": "accepted", "rejected": "rejected", "classes": "classes"}
    return [", ".join(f"{_step(a[key], b[key])} {word}" for key, word in keys.items())]


def _step(a: int, b: int) -> str:
    return str(a) if a == b else f"{a} -> {b}"


def _examples(changes: list[dict], count: int, width: int) -> Iterator[str]:
    for change in changes:
        note = aside(change)
        note = f" ({note})" if note else ""
        yield " " * 11 + shorten(place(change), width - 11 - columns(note)) + note
    if count > len(changes):
        yield " " * 11 + f"... and {count - len(changes)} more"


def _splits(splits: dict) -> list[str]:
    table = [f"{row['split']} {_step(row['a'], row['b'])}" for row in splits["table"]]
    moves = [f"{move['from']} -> {move['to']} {move['images']}" for move in splits["moves"]]
    return [some(table, 6), moves and f"moved: {some(moves, 6)}"]


def _classes(classes: dict) -> list[str]:
    renamed = [f"{pair['a']} -> {pair['b']}" for pair in classes["renamed"]]
    taken = {pair[side] for pair in classes["renamed"] for side in "ab"}
    new, gone = ([name for name in classes[key] if name not in taken] for key in ("added", "removed"))
    lists = {"new": new, "gone": gone, "renamed": renamed}
    return [
        f"{word}: {some([shorten(visible(name), 40) for name in names[:5]], 5, len(names))}"
        for word, names in lists.items()
        if names
    ]


def _seen(word: str, images: list[dict]) -> list[str]:
    if not images:
        return []
    shown = [f"{shorten(place(image), 60)} ({shorten(visible(image['detail']), 40)})" for image in images[:2]]
    return [f"{len(images)} {word}: {some(shown, 2, len(images))}"]


def _drift(drift: dict) -> list[str]:
    found = list(drifts(drift))
    return found or [f"none ({plural(drift['tests'], 'test')})" if drift["tests"] else "not tested: too few images"]
