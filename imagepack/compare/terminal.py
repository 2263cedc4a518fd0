"""A comparison on the terminal, to read in ten seconds: what happened, whether it matters, the first examples."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from imagepack.compare.verdict import judge, opening, reasons
from imagepack.compare.words import (
    KINDS,
    by_kind,
    changed_columns,
    changed_findings,
    columns,
    drift_sentences,
    first_few,
    left_test,
    moved_groups,
    novelty_sentences,
    parted_groups,
    place,
    plural,
    remark,
    shorten,
    transfer,
    value,
)
from imagepack.names import visible

LINES = 40
EXAMPLES = 3
"""Images named for each kind of change, as far as they fit."""
ROOM = [(3, 2), (2, 2), (2, 1), (1, 1)]
"""Entries of a section and lines of an entry: the first that gives few enough lines is taken."""
INDENT = 10


def text(summary: dict, changes: pl.DataFrame, width: int = 100) -> str:
    """Return a comparison as at most 40 lines of plain text, none wider than `width`, with a newline at the end.

    Args:
        summary: as imagepack/compare/schema.json has it.
        changes: a row each.
        width: columns, 40 or more.
    """
    width = max(width, 40)
    for most, wrapped in ROOM:
        lines = list(_lines(summary, changes, width, _Sections(width, most, wrapped)))
        if len(lines) <= LINES:
            break
    return "".join(f"{shorten(line, width)}\n" for line in lines[:LINES])


@dataclass(frozen=True)
class _Sections:
    """How sections are laid out: columns, entries of a section, lines of an entry."""

    width: int
    most: int
    wrapped: int

    def __call__(self, title: str, texts: Iterable[str], most: int | None = None) -> Iterator[str]:
        """Yield the lines of a title and the texts beside it; nothing where there are none."""
        texts = [visible(text) for text in texts if text]
        most = most or self.most
        shown = texts[:most] + [f"... and {len(texts) - most} more"] * (len(texts) > most)
        for text in shown:
            for line in textwrap.wrap(text, self.width - INDENT, max_lines=self.wrapped, placeholder=" ..."):
                yield f"{title:<{INDENT}}{line}"
                title = ""


def _lines(summary: dict, changes: pl.DataFrame, width: int, section: _Sections) -> Iterator[str]:
    a, b = summary["a"], summary["b"]
    yield from _headline(summary, changes, width)
    yield from section("Warnings", [f"{which.upper()}: {w}" for which in "ab" for w in summary[which]["warnings"]])
    yield ""
    yield from section("Images", [", ".join(f"{_step(a[k], b[k])} {k}" for k in ("accepted", "rejected", "classes"))])
    for kind, count in summary["counts"].items():
        if count:
            yield f"{count:>{INDENT}} {_kind(kind, count, changes, width - INDENT - 1)}"
    yield from section("Splits", _splits(summary["splits"]), 2)
    yield from section("Unpinned", [left_test(summary)])
    yield from section("Groups", _groups(summary["groups"]))
    yield from section("Classes", _classes(summary["classes"]), 3)
    yield from section("Columns", _columns(summary["columns"]))
    yield from section("Findings", [first_few(list(changed_findings(summary)), 6)])
    status, leakage = summary["status"], summary["leakage"]
    yield from section("Rejected", [*_seen("now", status["newly_rejected"]), *_seen("no longer", status["fixed"])])
    leaks = {"new": leakage["new"], "in train of A": leakage["trained_on"], "resolved": leakage["resolved"]}
    yield from section("Leakage", [line for words, images in leaks.items() for line in _seen(words, images)])
    if sum(summary["counts"].values()) > summary["counts"]["unchanged"] or summary["columns"]:
        yield from section("Drift", _drift(summary["drift"]))
    yield from section("Novelty", novelty_sentences(summary["drift"]))
    yield from section("Pipeline", summary["pipeline"]["explanation"])
    if summary["transfer"]["a_to_b"]["files"]:
        yield from section("To push", [transfer(summary["transfer"]["a_to_b"])])
    yield from section("Metrics", [first_few(_metrics(summary["metrics"]), 6)])


def _headline(summary: dict, changes: pl.DataFrame, width: int) -> Iterator[str]:
    """One line; what matters, if anything does, below it."""
    names = [shorten(visible(summary[which]["name"]), width // 5) for which in "ab"]
    verdict = judge(summary, changes)
    yield from textwrap.wrap(f"{names[0]} -> {names[1]}: {opening(verdict)}", width, subsequent_indent="  ")
    if why := "; ".join(reasons(verdict)):
        yield from textwrap.wrap(f"{why}.", width, initial_indent="  ", subsequent_indent="  ", max_lines=3)


def _step(a: int, b: int) -> str:
    return str(a) if a == b else f"{a} -> {b}"


def _kind(kind: str, count: int, changes: pl.DataFrame, width: int) -> str:
    """What happened, and to which images: as many examples as fit, at least one."""
    title = KINDS.get(kind, kind)
    if kind == "unchanged":
        return title
    examples = [place(change) + _noted(change) for change in by_kind(changes, kind, EXAMPLES)]
    for shown in range(len(examples), 0, -1):
        line = f"{title}: {first_few(examples, shown, count)}"
        if columns(line) <= width:
            return line
    if not examples:
        return title
    more = f", ... and {count - 1} more" if count > 1 else ""
    first = by_kind(changes, kind, 1)[0]
    room = width - len(title) - 2 - len(more) - columns(_noted(first))
    return f"{title}: {place(first, room)}{_noted(first)}{more}"


def _noted(change: dict) -> str:
    return f" ({note})" if (note := remark(change)) else ""


def _splits(splits: dict) -> list[str]:
    table = [f"{row['split']} {_step(row['a'], row['b'])}" for row in splits["table"]]
    moves = [f"{move['from']} -> {move['to']} {move['images']}" for move in splits["moves"]]
    return [first_few(table, 6), f"moved: {first_few(moves, 6)}" if moves else ""]


def _groups(groups: dict) -> list[str]:
    """Groups (pack.split.group) on two sides of the splits, and those that went from one split to another."""
    parted, moved = list(parted_groups(groups)), list(moved_groups(groups))
    return [
        f"in several splits: {first_few(parted, EXAMPLES)}" if parted else "",
        f"moved: {first_few(moved, EXAMPLES)}" if moved else "",
    ]


def _columns(found: list[dict]) -> Iterator[str]:
    """Columns of tables that came, went or have another type; cells that differ, with the first of their images."""
    for column, said in zip(found, changed_columns(found), strict=True):
        examples = [f"{place(image)} ({visible(image['detail'])})" for image in column["images"][:EXAMPLES]]
        yield said + (f": {first_few(examples, EXAMPLES, column['changed'])}" if examples else "")


def _classes(classes: dict) -> Iterator[str]:
    """Those that are new, gone or renamed; five of each."""
    renamed = [f"{pair['a']} -> {pair['b']}" for pair in classes["renamed"]]
    taken = {pair[side] for pair in classes["renamed"] for side in "ab"}
    new, gone = ([name for name in classes[key] if name not in taken] for key in ("added", "removed"))
    for words, names in (("new", new), ("gone", gone), ("renamed", renamed)):
        if names:
            yield f"{words}: {first_few([shorten(visible(name), 40) for name in names[:5]], 5, len(names))}"


def _seen(words: str, images: list[dict]) -> list[str]:
    if not images:
        return []
    shown = [f"{place(image, 50)} ({shorten(visible(image['detail']), 70)})" for image in images[:2]]
    return [f"{len(images)} {words}: {first_few(shown, 2, len(images))}"]


def _drift(drift: dict) -> list[str]:
    found = list(drift_sentences(drift))
    if drift["tests"]:
        return found or [f"none ({plural(drift['tests'], 'test')})"]
    return ["not tested: too few images came or went"]


def _metrics(metrics: list[dict]) -> list[str]:
    changed = [metric for metric in metrics if metric["a"] != metric["b"]]
    return [f"{shorten(visible(m['metric']), 40)} {value(m['a'])} -> {value(m['b'])}" for m in changed]
