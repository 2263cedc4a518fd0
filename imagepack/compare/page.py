"""A comparison for people: one HTML file with pictures, filters and charts, which opens without a network.

Text is escaped where its markup is made: here, in page_sections.py (tables and lists), page_drift.py (charts) and
page_cards.py (pictures). The frame, the style and the script are in page.html. The page shows all it has without its
script, which only filters, lays pictures over each other and moves between them by keyboard.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path

import polars as pl

from imagepack.checks.validation_page import fill, options
from imagepack.compare import page_cards, page_drift, page_sections
from imagepack.compare.page_cards import pictured, shown
from imagepack.compare.pictures import Pictures
from imagepack.compare.verdict import judge
from imagepack.names import visible

__all__ = ["pictured", "shown", "write"]
TEMPLATE = Path(__file__).with_suffix(".html")


def write(path: Path, summary: dict, changes: pl.DataFrame, pictures: Mapping[int, Pictures]) -> None:
    """Write the page; the same arguments give the same bytes.

    Args:
        path: the HTML file; its folder is made.
        summary: as imagepack/compare/schema.json has it.
        changes: a row each.
        pictures: by row number of `changes`; those of `pictured`, or fewer.
    """
    listed = shown(changes)
    names = [escape(visible(summary[side]["name"])) for side in "ab"]
    parts = {
        "names": " → ".join(names),
        "versions": page_sections.versions(summary),
        "verdict": page_sections.verdict(judge(summary, changes)),
        "tiles": page_sections.tiles(summary),
        "look": page_sections.look(summary),
        "findings": page_sections.findings(summary),
        "classtable": page_sections.classes(summary),
        "splittable": page_sections.splits(summary),
        "drift": page_drift.section(summary["drift"]),
        "pipeline": page_sections.pipeline(summary),
        "metrics": page_sections.metrics(summary),
        "transfer": page_sections.moved_bytes(summary),
        "listed": _listed(len(listed), len(changes)),
        "kinds": page_cards.boxes(listed),
        "classes": options(page_cards.labels(listed)),
        "splits": options(page_cards.splits(listed)),
        "groups": page_cards.groups(listed, summary["counts"], pictures),
    }
    fill(TEMPLATE, parts, path)


def _listed(shown: int, total: int) -> str:
    if shown == total:
        return ""
    return f'<p class="more">{shown:,} of {total:,} changes are on this page, some of each kind; the JSON has all.</p>'
