"""The page of a dataset: what it consists of, and what was found; one HTML file, which opens without a network.

What it shows is chosen here; imagepack/html/validation.html is its template. A stage's output may depend neither on the
day nor on where it is, so name, date, revision, splits and the place of data/raw come by `python3 run.py report`.
"""

from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

import polars as pl

from imagepack.checks import overview
from imagepack.images import manifest as manifests
from imagepack.images.manifest import COLUMN
from imagepack.images.thumbnail import SIDE
from imagepack.names import NO_CLASS

LEVELS = {"error": "errors", "warning": "warnings", "info": "info"}
"""The gravest first, and what several of them are called."""
EACH = 40
"""Findings of a code on the page: enough to see what is wrong, and the page stays at a few MB."""
LARGE, PAIRS = 400, 12
"""Pixels of the pictures of a pair that are shown side by side, and pairs of a code that have such: a photograph's is
about 30 KB, so the page stays below 10 MB."""
SAMPLE = 256
"""Pixels of a sample of a class."""
COLUMNS, CELL = 50, 200
"""Columns of tables on the page, the first by name, and characters of a cell: a table may have any number of both."""


def once(findings: pl.DataFrame) -> pl.Series:
    """Return which findings, bool (N,), are not the mirror of an earlier one: of b like a, where a is like b."""
    one, other = pl.col("path").hash(), pl.col("other").hash()  # numbers, since a million paths take much memory
    pair = pl.min_horizontal(one, other).hash(1) ^ pl.max_horizontal(one, other)
    key = pair ^ pl.col("level").hash(2) ^ pl.col("code").hash(3)
    return findings.select(once=(pl.col("other") == "") | key.is_first_distinct())["once"]


def on_page(findings: pl.DataFrame, each: int = EACH) -> pl.DataFrame:
    """Return the first `each` findings of each code and level, in their order, a pair once: kept errors are warnings.

    Their column `side` says how large their pictures are.
    """

    def first(of: pl.Expr, most: int) -> pl.Expr:
        return of & (of.cast(pl.UInt32).cum_sum().over("level", "code") <= most)

    shown = findings.with_columns(once(findings)).filter(first(pl.col("once"), each)).drop("once")
    large = first(pl.col("other") != "", PAIRS)
    return shown.with_columns(side=pl.when(large).then(LARGE).otherwise(SIDE))


def pictured(table: pl.DataFrame, findings: pl.DataFrame) -> dict[str, tuple[int, ...]]:
    """Return the paths of which the page has pictures, with their sides in pixels, the largest first.

    These are the samples and the findings shown, with their twins. Where a finding is about a whole class, its path is
    the class's name, and there is nothing to decode.
    """
    sides: dict[str, set[int]] = defaultdict(set)
    for *pair, side in on_page(findings).select("path", "other", "side").iter_rows():
        for path in filter(None, pair):
            sides[path].add(side)
    for paths in overview.samples(table).values():
        for path in paths:
            sides[path].add(SAMPLE)
    return {path: tuple(sorted(wanted, reverse=True)) for path, wanted in sides.items()}


def write(
    path: Path,
    table: pl.DataFrame,
    findings: pl.DataFrame,
    fixes: dict[str, str],
    pictures: dict[tuple[str, int], bytes],
) -> None:
    """Write the page; the same arguments give the same bytes.

    Args:
        path: the HTML file; its folder is made.
        table: the manifest.
        findings: path, code, seen, level (error, warning or info) and other (the path of the twin, or empty), a row
            each, all strings. One about a whole class has the class's name as its path, which is not in `table`.
        fixes: what to do about each code.
        pictures: JPEG files by path and side; those of `pictured` that could be decoded.
    """
    from imagepack.html import pages  # imported here, since Jinja2 would slow the stage's start

    groups, shown, sampled = _groups(findings), on_page(findings), overview.samples(table)
    found = list(dict.fromkeys(path for pair in shown.select("path", "other").iter_rows() for path in pair if path))
    files = _files(table, found + [path for paths in sampled.values() for path in paths])
    codes = defaultdict(int)
    for _, code, count, _ in groups:
        codes[code] += count
    kind = manifests.label_kind(table.columns)
    labels = sorted({files[path]["label"] for path in found})
    if kind == "multilabel":
        labels = sorted({label for text in labels for label in text.split(manifests.SEPARATOR)} - {""})
    cards = _cards(shown, files, pictures)
    counts = {level: int((findings["level"] == level).sum()) for level in LEVELS}
    data = {
        "numbers": _numbers(table),
        "classes": overview.classes(table),
        "kind": kind,
        "sizes": overview.sizes(table),
        "samples": [
            (label, [_pictured(files[path], pictures, SAMPLE) for path in paths]) for label, paths in sampled.items()
        ],
        "levels": [(level, name, counts[level]) for level, name in LEVELS.items()],
        "boxes": [(level, name) for level, name in LEVELS.items() if counts[level]],
        "codes": [(code, f"{code} ({count:,})") for code, count in codes.items()],
        "labels": [(label, label or NO_CLASS) for label in labels],
        "columns": _columns(table),
        "groups": [
            {
                "level": level,
                "code": code,
                "count": count,
                "cards": cards[level, code],
                "left": unlike - len(cards[level, code]),
                "fix": fixes[code],
            }
            for level, code, count, unlike in groups
        ],
    }
    pages.write(path, "validation", data)


def _groups(findings: pl.DataFrame) -> list[tuple[str, str, int, int]]:
    """Level, code, count, and count of `once`: the gravest first, then the most frequent."""
    counted = (
        findings.select("level", "code", once(findings)).group_by("level", "code").agg(pl.len(), pl.col("once").sum())
    )
    counted = counted.iter_rows()
    return sorted(counted, key=lambda group: (list(LEVELS).index(group[0]), -group[2], group[1]))


def _files(table: pl.DataFrame, paths: list[str]) -> dict[str, dict]:
    """The rows of the manifest, by path; a path that is not in it is a class's name, and has no status."""
    rows = table.filter(pl.col("path").is_in(paths)).iter_rows(named=True)
    unknown = {path: {"path": path, "label": path, "status": "", "file": "", "cells": []} for path in paths}
    columns = [name for name, _ in _columns(table)]
    return unknown | {row["path"]: row | {"file": _file(row), "cells": _cells(row, columns)} for row in rows}


def _columns(table: pl.DataFrame) -> list[tuple[str, str]]:
    """Return name and kind (number, date, text) of the columns of tables that the page shows."""
    names = sorted(name for name in table.columns if name.startswith(COLUMN))[:COLUMNS]
    kinds = [table[name].dtype for name in names]
    return [
        (name.removeprefix(COLUMN), "number" if kind.is_numeric() else "date" if kind == pl.Date else "text")
        for name, kind in zip(names, kinds, strict=True)
    ]


def _cells(row: dict, columns: list[str]) -> list[tuple[int, str, str]]:
    """Return number and name of each column in which an image has a cell, and the cell as text, cut if it is long."""
    cells = [(number, name, row[f"{COLUMN}{name}"]) for number, name in enumerate(columns)]
    texts = [(number, name, _text(cell)) for number, name, cell in cells if cell is not None]
    return [(number, name, f"{text[:CELL]}…" if len(text) > CELL else text) for number, name, text in texts]


def _text(cell: object) -> str:
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _file(row: dict) -> str:
    """The address of an image's file below data/raw; empty of a later frame, which a browser would not show."""
    return quote(row["path"]) if (row["frame"] or 1) <= 1 else ""


def _pictured(file: dict, pictures: dict[tuple[str, int], bytes], side: int) -> dict:
    return file | {"picture": pictures.get((file["path"], side))}


def _cards(
    shown: pl.DataFrame, files: dict[str, dict], pictures: dict[tuple[str, int], bytes]
) -> dict[tuple[str, str], list[dict]]:
    """By level and code, the findings shown: what was seen, and the file and its twin with their pictures."""
    cards = defaultdict(list)
    for finding in shown.iter_rows(named=True):
        group = cards[finding["level"], finding["code"]]
        paths = [path for path in (finding["path"], finding["other"]) if path]
        pair = [_pictured(files[path], pictures, finding["side"]) for path in paths]
        group.append({"seen": finding["seen"], "files": pair})
    return cards


def _numbers(table: pl.DataFrame) -> dict[str, int]:
    """The numbers at the top that reports/validation.json has too."""
    accepted = manifests.accepted(table)
    found = {"files": len(table), "accepted": len(accepted), "rejected": len(table) - len(accepted)}
    kind, named = manifests.label_kind(table.columns), manifests.by_label(accepted)["label"].n_unique()
    return found if kind == "numbers" else found | {"classes" if kind == "class" else "labels": named}
