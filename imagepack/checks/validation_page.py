"""The validation report for people: one HTML file with pictures and filters, which opens without a network.

What it shows is chosen here; imagepack/html/validation.html is its template.
"""

from collections import defaultdict
from pathlib import Path

import polars as pl

from imagepack.names import NO_CLASS

LEVELS = {"error": "errors", "warning": "warnings", "info": "info"}
"""The gravest first, and what several of them are called."""
EACH = 40
"""Findings of a code on the page: enough to see what is wrong, and the page stays at a few MB."""
LARGE, PAIRS = 400, 12
"""Pixels of the pictures of a pair that are shown side by side, and pairs of a code that have such: a photograph's is
about 30 KB, so the page stays below 10 MB."""


def on_page(findings: pl.DataFrame, each: int = EACH) -> pl.DataFrame:
    """The first `each` findings of each code and level, in their order: kept errors are warnings."""
    return findings.filter(pl.int_range(pl.len()).over("level", "code") < each)


def pictured(findings: pl.DataFrame) -> list[str]:
    """What the page has thumbnails of: the paths of the findings shown, each followed by its twin's, each once.

    Where a finding is about a whole class, this is the class's name, and there is nothing to decode.
    """
    pairs = on_page(findings).select("path", "other").iter_rows()
    return list(dict.fromkeys(path for pair in pairs for path in pair if path))


def compared(findings: pl.DataFrame) -> list[str]:
    """What the page has large pictures of: both paths of the first pairs of each code, each once."""
    pairs = on_page(findings.filter(pl.col("other") != ""), PAIRS).select("path", "other").iter_rows()
    return list(dict.fromkeys(path for pair in pairs for path in pair))


def write(
    path: Path,
    table: pl.DataFrame,
    findings: pl.DataFrame,
    fixes: dict[str, str],
    thumbnails: dict[str, bytes],
    large: dict[str, bytes] | None = None,
) -> None:
    """Write the page; the same arguments give the same bytes.

    Args:
        path: the HTML file; its folder is made.
        table: the manifest.
        findings: path, code, seen, level (error, warning or info) and other (the path of the twin, or empty), a row
            each, all strings. One about a whole class has the class's name as its path, which is not in `table`.
        fixes: what to do about each code.
        thumbnails: JPEG files of at most 128 x 128 pixels, by path; those of `pictured` that could be decoded.
        large: likewise of LARGE x LARGE pixels, those of `compared`.
    """
    from imagepack.html import pages  # imported here, since Jinja2 would slow the stage's start

    groups = _groups(findings)
    files = _files(table, pictured(findings))
    codes = defaultdict(int)
    for _, code, count in groups:
        codes[code] += count
    labels = sorted({file["label"] for file in files.values()})
    cards = _cards(findings, files, thumbnails, thumbnails | (large or {}))
    counts = {level: int((findings["level"] == level).sum()) for level in LEVELS}
    data = {
        "numbers": _numbers(table),
        "levels": [(level, name, counts[level]) for level, name in LEVELS.items()],
        "boxes": [(level, name) for level, name in LEVELS.items() if counts[level]],
        "codes": [(code, f"{code} ({count:,})") for code, count in codes.items()],
        "classes": [(label, label or NO_CLASS) for label in labels],
        "groups": [
            {"level": level, "code": code, "count": count, "fix": fixes[code], "cards": cards[level, code]}
            for level, code, count in groups
        ],
    }
    pages.write(path, "validation", data)


def _groups(findings: pl.DataFrame) -> list[tuple[str, str, int]]:
    """Level, code and count: the gravest first, then the most frequent."""
    counted = findings.group_by("level", "code").len("count").iter_rows()
    return sorted(counted, key=lambda group: (list(LEVELS).index(group[0]), -group[2], group[1]))


def _files(table: pl.DataFrame, paths: list[str]) -> dict[str, dict]:
    """The rows of the manifest, by path; a path that is not in it is a class's name, and has no status."""
    rows = table.filter(pl.col("path").is_in(paths)).iter_rows(named=True)
    return {path: {"path": path, "label": path, "status": ""} for path in paths} | {row["path"]: row for row in rows}


def _cards(
    findings: pl.DataFrame, files: dict[str, dict], thumbnails: dict[str, bytes], large: dict[str, bytes]
) -> dict[tuple[str, str], list[dict]]:
    """By level and code, the findings shown: what was seen, and the file and its twin with their pictures."""
    cards = defaultdict(list)
    for finding in on_page(findings).iter_rows(named=True):
        group = cards[finding["level"], finding["code"]]
        paths = [path for path in (finding["path"], finding["other"]) if path]
        pairs = sum(len(card["files"]) == 2 for card in group)
        pictures = large if len(paths) == 2 and pairs < PAIRS else thumbnails
        pair = [files[path] | {"picture": pictures.get(path)} for path in paths]
        group.append({"seen": finding["seen"], "files": pair})
    return cards


def _numbers(table: pl.DataFrame) -> dict[str, int]:
    """The numbers at the top that reports/validation.json has too."""
    accepted = table.select("status", "label").filter(pl.col("status") == "accepted")
    return {
        "files": len(table),
        "accepted": len(accepted),
        "rejected": len(table) - len(accepted),
        "classes": accepted["label"].n_unique(),
    }
