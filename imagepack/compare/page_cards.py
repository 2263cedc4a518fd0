"""Changed images on the page: which of them, and a card for each, with pictures where there are some."""

import base64
from collections.abc import Iterable, Mapping
from html import escape

import polars as pl

from imagepack.checks.validation_page import NO_CLASS, markup
from imagepack.compare.pictures import Pictures
from imagepack.compare.words import KINDS, size
from imagepack.reader.format import SPLITS

MOST = 2000
"""Changes on the page: about 2 MB without pictures. Its JSON has all."""
TELLING = ("edited", "moved_edited", "relabelled", "added", "removed")
"""Kinds of which pictures say most."""
ORDER = (*TELLING, "reencoded", "split_moved", "moved")
"""Of the kinds on the page: what is to be looked at comes first."""
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
NO_SPLIT = "(no split)"
PNG = b"\x89PNG"


def shown(changes: pl.DataFrame) -> pl.DataFrame:
    """The changes that the page lists, at most MOST: as many of each kind as there is room for, from all over its
    paths.

    Returns:
        rows of `changes` in their order, with `row`, their numbers in it, uint32.
    """
    return _spread(changes.with_row_index("row"), MOST)


def pictured(changes: pl.DataFrame, most: int) -> list[int]:
    """The rows of `changes`, at most `most`, of which the page is to have pictures, in rising order.

    They are spread over the kinds of TELLING; the other kinds have what those leave.
    """
    listed = shown(changes)
    telling = pl.col("kind").is_in(TELLING)
    first = _spread(listed.filter(telling), most)
    others = _spread(listed.filter(~telling), most - first.height)
    return sorted([*first["row"], *others["row"]])


def _spread(changes: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` rows, evenly from each kind; where a kind has fewer than its share, others have more."""
    counts = sorted(changes.group_by("kind").len().rows(), key=lambda count: (count[1], count[0]))
    shares, left = {}, max(most, 0)
    for position, (kind, count) in enumerate(counts):
        shares[kind] = min(count, left // (len(counts) - position))
        left -= shares[kind]
    parts = [_every(changes.filter(kind=kind), share) for kind, share in shares.items()]
    return pl.concat([changes.clear(), *parts]).sort("row")


def _every(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """`most` rows, evenly spaced."""
    return rows[[position * rows.height // most for position in range(most)]]


def boxes(listed: pl.DataFrame) -> str:
    """A checkbox for each kind that occurs."""
    kinds = set(listed["kind"])
    return "\n".join(
        f'<label class="{kind}"><input type="checkbox" name="kind" value="{kind}" checked> {KINDS[kind]}</label>'
        for kind in ORDER
        if kind in kinds
    )


def labels(listed: pl.DataFrame) -> list[tuple[str, str]]:
    """The classes that occur in either version: value and text."""
    names = set(listed["label_a"]) | set(listed["label_b"])
    return [(name, name or NO_CLASS) for name in sorted(names - {None})]


def splits(listed: pl.DataFrame) -> list[tuple[str, str]]:
    """The splits that occur in either version: value and text."""
    names = {_split(change, side) for change in listed.iter_rows(named=True) for side in "ab"} - {None}
    return [(name, name or NO_SPLIT) for name in in_order(names)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names of splits: train, val, test, excluded, then any others."""
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def groups(listed: pl.DataFrame, counts: dict[str, int], pictures: Mapping[int, Pictures]) -> str:
    """A group for each kind: those with pictures as cards, then the others as lines."""
    parts = []
    for kind in ORDER:
        changes = listed.filter(kind=kind).to_dicts()
        if changes:
            parts.append(_group(kind, counts[kind], changes, pictures))
    return "\n".join(parts) or '<p class="none">No image has changed.</p>'


def _group(kind: str, count: int, changes: list[dict], pictures: Mapping[int, Pictures]) -> str:
    cards, lines = [], []
    for change in changes:
        drawn = pictures.get(change["row"])
        seen = drawn is not None and (drawn.before or drawn.after)
        (cards if seen else lines).append(_card(change, drawn))
    more = f'<p class="more">{len(changes):,} of {count:,} shown</p>' if count > len(changes) else ""
    both = "wide" if kind in ("edited", "moved_edited", "reencoded") else "narrow"
    listing = "".join(
        f'<ul class="{name}">\n' + "\n".join(items) + "\n</ul>\n"
        for name, items in ((f"cards {both}", cards), ("lines", lines))
        if items
    )
    return (
        f'<section class="group {kind}" id="{kind}" data-kind="{kind}">\n<h3><span class="kind">{KINDS[kind]}</span> '
        f'<span class="count">{count:,}</span> <span class="meaning">{MEANINGS[kind]}</span></h3>\n{more}{listing}'
        "</section>"
    )


def _card(change: dict, drawn: Pictures | None) -> str:
    """One change. What the filters ask for stands in its attributes; one that a version lacks has none."""
    known = {"label-a": change["label_a"], "label-b": change["label_b"]}
    known |= {f"split-{side}": _split(change, side) for side in "ab"}
    data = "".join(f' data-{key}="{escape(value)}"' for key, value in known.items() if value is not None)
    note = f'<p class="note">{markup(drawn.note)}</p>' if drawn and drawn.note else ""
    evidence = f'<p class="evidence">{markup(change["evidence"])}</p>' if change["evidence"] else ""
    facts = "".join(f'<span class="fact">{fact}</span> ' for fact in _facts(change))
    figures = f'<div class="figures">{_figures(drawn)}</div>' if drawn and (drawn.before or drawn.after) else ""
    return (
        f'<li class="card" tabindex="-1"{data}>{figures}<div class="told"><div><p class="paths">{_paths(change)}</p>'
        f'<p class="facts">{facts}</p>{evidence}{note}</div>{_opener(drawn)}</div></li>'
    )


def _split(change: dict, side: str) -> str | None:
    """Of a version that has the image; empty where it is in no split."""
    return None if change[f"path_{side}"] is None else change[f"split_{side}"] or ""


def _paths(change: dict) -> str:
    paths = dict.fromkeys(path for path in (change["path_a"], change["path_b"]) if path is not None)
    return ' <span class="to">→</span> '.join(f'<code class="path" dir="ltr">{markup(path)}</code>' for path in paths)


def _facts(change: dict) -> list[str]:
    """What is known of both versions, as HTML: a value, or what it was and is."""
    a, b = ({key: change[f"{key}_{side}"] for key in ("path", "status", "bytes", "width", "height")} for side in "ab")
    sides = [(side, values) for side, values in (("a", a), ("b", b)) if values["path"] is not None]
    facts = [
        _step([markup(change[f"label_{side}"] or NO_CLASS) for side, _ in sides], "label"),
        _step([markup(change[f"split_{side}"] or "no split") for side, _ in sides], "split"),
        _step([markup(values["status"]) for _, values in sides if values["status"]], "status"),
        _step([f"{v['width']:,} × {v['height']:,} px" for _, v in sides if v["width"] and v["height"]]),
        _step([size(v["bytes"]) for _, v in sides if v["bytes"] is not None]),
    ]
    if change["perceptual_distance"] is not None:
        facts.append(f"{change['perceptual_distance']} of 256 hash bits differ")
    if change["pixel_distance"] is not None:
        facts.append(f"pixels differ by {change['pixel_distance']:.3g} of 255")
    accepted = '<span class="status">accepted</span>'  # as nearly all are
    return [fact for fact in facts if fact not in ("", accepted)]


def _step(values: list[str], name: str = "") -> str:
    """`cat`, `cat → dog`; one that differs is emphasised."""
    values = list(dict.fromkeys(values))
    text = " → ".join(values)
    if len(values) > 1:
        text = f"<b>{text}</b>"
    return f'<span class="{name}">{text}</span>' if name and text else text


def _figures(drawn: Pictures) -> str:
    """Before, after and difference, as far as there are such; what is the same on both sides once."""
    if drawn.before == drawn.after:
        return _figure("before and after", drawn.before)
    pictures = {"before": drawn.before, "after": drawn.after, "difference": drawn.difference}
    return "".join(_figure(name, picture) for name, picture in pictures.items() if picture)


def _figure(name: str, picture: bytes) -> str:
    kind = "png" if picture.startswith(PNG) else "jpeg"
    data = base64.b64encode(picture).decode()
    picture = f'<img src="data:image/{kind};base64,{data}" alt="{name}" loading="lazy" decoding="async">'
    caption = f"<figcaption>{name}</figcaption>"
    return f'<figure class="{name.split()[0]}"><div class="picture">{picture}</div>{caption}</figure>'


def _opener(drawn: Pictures | None) -> str:
    """The button that lays one over the other; the script shows it."""
    if not drawn or not drawn.before or not drawn.after or drawn.before == drawn.after:
        return ""
    return '<button type="button" class="swipe" hidden>Swipe</button>'
