"""A comparison for people: one HTML file with pictures, filters and charts, which opens without a network.

What it shows is chosen here; imagepack/html/compare.html is its template.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from imagepack.compare import words
from imagepack.compare.charts import charts, number
from imagepack.compare.pictures import Pictures
from imagepack.compare.verdict import judge, opening, reasons
from imagepack.names import NO_CLASS, visible
from imagepack.reader.format import SPLITS

MOST = 2000
"""Changes on the page: about 2 MB without pictures. Its JSON has all."""
MEANINGS = {
    "edited": "the same path, other pixels",
    "moved_edited": "another path, pixels that look alike",
    "relabelled": "the same picture in another class",
    "added": "only in B",
    "removed": "only in A",
    "reencoded": "other bytes, the same pixels",
    "split_moved": "the same file in another split",
    "moved": "the same picture at another path of its class",
}
"""The kinds of change in the order of the page: what is to be looked at comes first."""
TELLING = ("edited", "moved_edited", "relabelled", "added", "removed")
"""Kinds of which pictures say most."""
WIDE = ("edited", "moved_edited", "reencoded")
"""Kinds with up to three pictures a card."""


def on_page(changes: pl.DataFrame) -> pl.DataFrame:
    """Return the changes that the page shows, at most MOST: evenly from each kind, and from all over its paths.

    Returns:
        rows of `changes` in their order, with `row`, their numbers in it, uint32.
    """
    return _spread(changes.with_row_index("row"), MOST)


def pictured(changes: pl.DataFrame, most: int) -> list[int]:
    """Return the rows of `changes`, at most `most`, that get pictures, in rising order.

    They are spread over the kinds of TELLING; the other kinds get what those leave.
    """
    candidates = on_page(changes)
    telling = pl.col("kind").is_in(TELLING)
    first = _spread(candidates.filter(telling), most)
    others = _spread(candidates.filter(~telling), most - first.height)
    return sorted([*first["row"], *others["row"]])


def _spread(changes: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` rows, evenly from each kind; where a kind has fewer than its share, others have more."""
    counts = sorted(changes.group_by("kind").len().rows(), key=lambda count: (count[1], count[0]))
    shares, left = {}, max(most, 0)
    for position, (kind, count) in enumerate(counts):
        shares[kind] = min(count, left // (len(counts) - position))
        left -= shares[kind]
    parts = [_evenly_spaced(changes.filter(kind=kind), share) for kind, share in shares.items()]
    return pl.concat([changes.clear(), *parts]).sort("row")


def _evenly_spaced(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    return rows[[position * rows.height // most for position in range(most)]]


def write(path: Path, summary: dict, changes: pl.DataFrame, pictures: Mapping[int, Pictures]) -> None:
    """Write the page; the same arguments give the same bytes.

    Args:
        path: the HTML file; its folder is made.
        summary: as imagepack/compare/schema.json has it.
        changes: a row each.
        pictures: by row number of `changes`; those of `pictured`, or fewer.
    """
    from imagepack.html import pages  # imported here, since Jinja2 would slow the start

    shown = on_page(changes)
    class_names, split_names = _names(shown)
    verdict = judge(summary, changes)
    found = [finding["new"] for finding in summary["findings"] if finding["code"] == "label_conflict"]
    data = {
        "summary": summary,
        "names": [visible(summary[side]["name"]) for side in "ab"],
        "opening": opening(verdict),
        "reasons": reasons(verdict),
        "what_drifted": words.DRIFTED.get(verdict.drifted, ""),
        "label_conflicts": [image for images in found for image in images],
        "findings": sorted(summary["findings"], key=lambda f: (not (f["new"] or f["resolved"]), f["code"])),
        "splits": _splits(summary["splits"]["table"]),
        "moves": _moves(summary["splits"]["moves"]),
        "unpinned": words.left_test(summary),
        "group_splits": list(SPLITS[:3]),
        "cells": verdict.cells,
        "transfer": _transfer(summary["transfer"]),
        "classes": _classes(summary["classes"]),
        "charts": charts(summary["drift"]),
        "params": [{"stage": s["stage"], **param} for s in summary["pipeline"]["stages"] for param in s["params"]],
        "metrics": _metrics(summary["metrics"]),
        "kinds": words.KINDS,
        "total": len(changes),
        "shown": len(shown),
        "class_choices": [(name, name or NO_CLASS) for name in class_names],
        "split_choices": [(name, name or "(no split)") for name in split_names],
        "boxes": [(kind, words.KINDS[kind]) for kind in MEANINGS if kind in set(shown["kind"])],
        "groups": _groups(shown, summary["counts"], pictures),
    }
    filters = {"counted": _counted, "number": number, "paths": _paths, "probability": words.probability}
    pages.write(path, "compare", data, **filters, signed=_signed, size=words.size, value=_value)


def _counted(count: int, word: str) -> str:
    """`1 image`, `12,345 images`."""
    return words.plural(count, word).replace(str(count), f"{count:,}", 1)


def _signed(difference: float) -> str:
    """`+12`, `−3.2`."""
    text = f"{abs(difference):,}" if isinstance(difference, int) else f"{abs(difference):.4g}"
    return f"{'+' if difference > 0 else '−'}{text}"


def _value(anything: object) -> str:
    """A param or metric."""
    return f"{anything:,}" if type(anything) is int else words.value(anything)


def _paths(image: dict) -> list[str]:
    """Where an image is in A and B, once if that is the same place."""
    return list(dict.fromkeys(path for path in (image["path_a"], image["path_b"]) if path is not None))


def _in_order(splits: Iterable[str]) -> list[str]:
    """Train, val, test, excluded, then any others."""
    return sorted(splits, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def _splits(table: list[dict]) -> list[dict]:
    rows = {row["split"]: row for row in table}
    return [rows[name] for name in _in_order(rows)]


def _moves(moves: list[dict]) -> dict:
    """A table of how many images moved from each split to each other; None for none."""
    counts = {(move["from"], move["to"]): move["images"] for move in moves}
    names = _in_order({name for pair in counts for name in pair})[:20]
    rows = [{"split": name, "counts": [counts.get((name, to)) for to in names]} for name in names]
    return {"head": ["", *(f"to {name}" for name in names)], "rows": rows}


def _transfer(ways: dict) -> list[dict]:
    """What dvc push and pull move in each direction, part by part, and all of it."""
    directions = ways["a_to_b"], ways["b_to_a"]
    parts = [{part["part"]: words.transfer(part) for part in way["parts"]} for way in directions]
    names = dict.fromkeys(part["part"] for way in directions for part in way["parts"])
    rows = [{"part": name, "moved": [part.get(name, "-") for part in parts]} for name in names]
    return [*rows, {"part": "all", "moved": [words.transfer(way) for way in directions]}]


def _classes(classes: dict) -> dict:
    """The table of classes, those that changed most first; which are new, gone or renamed."""
    table = sorted(classes["table"], key=lambda row: (-_change(row), row["class"]))
    splits = _in_order({split for row in table for split in row["splits"]})
    nothing = {"a": 0, "b": 0}
    rows = [row | {"splits": [row["splits"].get(split, nothing) for split in splits]} for row in table]
    renamed = {pair[side] for pair in classes["renamed"] for side in "ab"}
    added, removed = ([name for name in classes[key] if name not in renamed] for key in ("added", "removed"))
    heads = [f"{split} in B" for split in splits]
    return {"heads": heads, "rows": rows, "new": added, "gone": removed, "renamed": classes["renamed"]}


def _change(row: dict) -> int:
    """By how many images a class has changed, in all its splits."""
    return max(abs(row["b"] - row["a"]), sum(abs(n["b"] - n["a"]) for n in row["splits"].values()))


def _metrics(metrics: list[dict]) -> list[dict]:
    """Those that differ first, with the difference; None where they are no numbers."""
    ordered = sorted(metrics, key=lambda m: (m["a"] == m["b"], m["file"], m["metric"]))
    return [metric | {"difference": _difference(metric["a"], metric["b"])} for metric in ordered]


def _difference(a: object, b: object) -> float | None:
    return b - a if {type(a), type(b)} <= {int, float} else None


def _names(shown: pl.DataFrame) -> tuple[list[str], list[str]]:
    """The classes and the splits that occur in either version."""
    classes = {*shown["label_a"], *shown["label_b"]} - {None}
    splits = {_split(change, side) for change in shown.iter_rows(named=True) for side in "ab"} - {None}
    return sorted(classes), _in_order(splits)


def _split(change: dict, side: str) -> str | None:
    """The split of a changed image in a version; empty for none, None where the version lacks the image."""
    return None if change[f"path_{side}"] is None else change[f"split_{side}"] or ""


def _groups(shown: pl.DataFrame, counts: dict[str, int], pictures: Mapping[int, Pictures]) -> list[dict]:
    """The changes of each kind that occurs: those with pictures as cards, the others as lines."""
    groups = []
    for kind, meaning in MEANINGS.items():
        if changes := shown.filter(kind=kind).to_dicts():
            cards = [_card(change, pictures.get(change["row"])) for change in changes]
            lists = {
                "cards wide" if kind in WIDE else "cards narrow": [card for card in cards if card["figures"]],
                "lines": [card for card in cards if not card["figures"]],
            }
            about = {"kind": kind, "name": words.KINDS[kind], "meaning": meaning}
            groups.append({**about, "count": counts[kind], "shown": len(cards), "lists": lists})
    return groups


def _card(change: dict, drawn: Pictures | None) -> dict:
    """A change: what the filters ask for, as attributes, and what a card says and shows."""
    attributes = {f"data-label-{side}": change[f"label_{side}"] for side in "ab"}
    attributes |= {f"data-split-{side}": _split(change, side) for side in "ab"}
    return {
        "attributes": attributes,
        "paths": _paths(change),
        "facts": _facts(change),
        "evidence": change["evidence"],
        "note": drawn.note if drawn else "",
        "figures": _figures(drawn) if drawn else {},
    }


def _facts(change: dict) -> list[tuple[str, list[str]]]:
    """What is known of an image, by name: a value, or what it was and is."""
    sides = [
        {key: change[f"{key}_{side}"] for key in ("label", "split", "status", "bytes", "width", "height")}
        for side in "ab"
        if change[f"path_{side}"] is not None
    ]
    facts = [
        ("label", [side["label"] or NO_CLASS for side in sides]),
        ("split", [side["split"] or "no split" for side in sides]),
        ("status", [side["status"] for side in sides if side["status"]]),
        ("pixels", [f"{s['width']:,} × {s['height']:,} px" for s in sides if s["width"] and s["height"]]),
        ("bytes", [words.size(side["bytes"]) for side in sides if side["bytes"] is not None]),
    ]
    if change["perceptual_distance"] is not None:
        facts.append(("distance", [f"{change['perceptual_distance']} of 256 hash bits differ"]))
    if change["pixel_distance"] is not None:
        facts.append(("distance", [f"pixels differ by {change['pixel_distance']:.3g} of 255"]))
    facts = [(name, list(dict.fromkeys(values))) for name, values in facts if values]
    return [fact for fact in facts if fact != ("status", ["accepted"])]  # as nearly all are


def _figures(drawn: Pictures) -> dict[str, bytes]:
    """Before, after and difference, as far as there are such; what is the same on both sides once."""
    if drawn.before and drawn.before == drawn.after:
        return {"before and after": drawn.before}
    figures = {"before": drawn.before, "after": drawn.after, "difference": drawn.difference}
    return {name: picture for name, picture in figures.items() if picture}
