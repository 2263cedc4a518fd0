"""A comparison for people: one HTML file with pictures and filters, which opens without a network.

The markup of the parts is here and in distributions.py, the frame, the style and the script in page.html. Whatever
comes from outside is escaped, so the page shows all of it without its script too, which only filters and swipes.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

import polars as pl

from compare import distributions, gates, terminal, words
from compare.pictures import Pictures
from imagepack.format import SPLITS
from stages.toolkit.validation_page import options, policy, text

TEMPLATE = Path(__file__).with_suffix(".html")
MOST_CARDS = 1000
"""Changes on the page, some of each kind: more would not be looked at, and take seconds to lay out."""
MOST_CLASSES = 300
MOST_LINES = 50
WANTED = ("edited", "moved_edited", "relabelled", "added", "removed", "split_moved", "reencoded", "moved")
"""Kinds of change, those that are most worth a picture first."""


def shown(changes: pl.DataFrame, most: int = MOST_CARDS) -> pl.DataFrame:
    """The changes that the page lists, the first of each kind, with `row`, their number in `changes`."""
    return _spread(changes, most).sort("order", "row")


def pictured(changes: pl.DataFrame, most: int) -> list[int]:
    """Rows of `changes` of which the page wants pictures, at most `most`; in the order of WANTED, kinds in turn."""
    return _spread(changes, min(most, MOST_CARDS))["row"].to_list()


def _spread(changes: pl.DataFrame, most: int) -> pl.DataFrame:
    order = pl.col("kind").replace_strict(WANTED, range(len(WANTED)), return_dtype=pl.Int32)
    numbered = changes.with_row_index("row").with_columns(turn=pl.int_range(pl.len()).over("kind"), order=order)
    return numbered.sort("turn", "order").head(most)


def write(path: Path, summary: dict, changes: pl.DataFrame, pictures: Mapping[int, Pictures]) -> None:
    """Write the page; the same arguments give the same bytes.

    Args:
        path: the HTML file; its folder is made.
        summary: as compare/schema.json describes it.
        changes: likewise, a row each.
        pictures: by row of `changes`.
    """
    cards = shown(changes)
    template = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "policy": policy(template),
        "versions": "\n".join(_version(side, summary[side]) for side in "ab"),
        "verdict": _verdict(summary, changes),
        "tiles": _tiles(summary),
        "tables": "\n".join(filter(None, _tables(summary))),
        "drift": distributions.section(summary["drift"]),
        "more": _more(len(cards), len(changes)),
        "kinds": options((kind, f"{name} ({summary['counts'][kind]:,})") for kind, name in words.KINDS.items()
                         if summary["counts"][kind]),
        "labels": options((label, label or "(no class)") for label in _values(cards, "label")),
        "splits": options((split, split) for split in SPLITS if split in _values(cards, "split")),
        "cards": "\n".join(_card(card, pictures.get(card["row"])) for card in cards.iter_rows(named=True)),
    }  # fmt: skip
    page = re.sub(r"<!-- (\w+) -->", lambda place: parts[place[1]], template)  # one pass: no name can be a place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", newline="\n")


def _values(cards: pl.DataFrame, name: str) -> list[str]:
    return pl.concat([cards[f"{name}_a"], cards[f"{name}_b"]]).drop_nulls().unique().sort().to_list()


def _version(side: str, version: dict) -> str:
    """Name, commit, date, subject and warnings."""
    facts = [version["revision"][:12] if version["revision"] else "", version["date"] or "", version["subject"] or ""]
    facts.append(f"{version['images']:,} images, {words.size(version['bytes'])}")
    facts = " · ".join(text(fact) for fact in facts if fact)
    warnings = "".join(f'<p class="warning">{text(warning)}</p>' for warning in version["warnings"])
    name = f'<strong class="text">{text(version["name"])}</strong>'
    about = f'{name} <span class="dim text">{facts}</span>{warnings}'
    return f'<div class="{side}"><b>{side.upper()}</b><div>{about}</div></div>'


def _verdict(summary: dict, changes: pl.DataFrame) -> str:
    broken = any(failure.count for failure in gates.check(summary, changes, list(terminal.MATTERS)))
    sentence = text(terminal.verdict(summary, changes))
    return f'<p class="verdict{" matters" * broken}">{sentence[:1].upper()}{sentence[1:]}</p>'


def _tiles(summary: dict) -> str:
    status, leakage = summary["status"], summary["leakage"]
    conflicts = next((each for each in summary["findings"] if each["code"] == "label_conflict"), {"new": []})
    tiles = [("unchanged", summary["counts"]["unchanged"], "")]
    tiles += [(name, summary["counts"][kind], "") for kind, name in words.KINDS.items()]
    tiles += [
        ("newly rejected", len(status["newly_rejected"]), "bad"),
        ("accepted again", len(status["fixed"]), "good"),
        ("new label conflicts", len(conflicts["new"]), "bad"),
        ("leaking into test, val", len(leakage["new"]) + len(leakage["trained_on"]), "bad"),
    ]
    return "\n".join(
        f'<div class="{tone if number else "zero"}"><dt>{name}</dt><dd>{number:,}</dd></div>'
        for name, number, tone in tiles
    )


def _tables(summary: dict) -> Iterator[str]:
    """The sections beside each other, those without content left out."""
    yield _classes(summary["classes"])
    yield _section("Between splits", _lines(_moves(summary["splits"]["moves"])))
    yield _section("Rejected and accepted", _lines(_noted(summary["status"])))
    yield _section("Leakage", _lines(_noted(summary["leakage"])))
    yield _section("Findings of validate", _lines(words.findings(summary)))
    yield _section("Pipeline", _lines(_pipeline(summary["pipeline"])))
    yield _section("To push or pull", _transfer(summary["transfer"]))
    yield _section("Metrics", _metrics(summary["metrics"]))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def _lines(lines: Iterable[str]) -> str:
    """A list, cut."""
    lines = list(lines)
    items = "".join(f'<li class="text">{text(line)}</li>' for line in lines[:MOST_LINES])
    return f'<ul class="list">{items}</ul>{_more(MOST_LINES, len(lines))}' if lines else ""


def _more(listed: int, total: int) -> str:
    return f'<p class="more">{listed:,} of {total:,} shown; the JSON has all</p>' if total > listed else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Of cells that are markup."""
    head = "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _classes(classes: dict) -> str:
    """Accepted images by class and split, what changed first; classes that came, went or were renamed."""
    news = [f"new: {name}" for name in classes["added"]] + [f"gone: {name}" for name in classes["removed"]]
    news += [f"renamed: {each['a']} → {each['b']} ({each['images']:,} images)" for each in classes["renamed"]]
    rows = sorted(classes["table"], key=lambda row: (-abs(row["b"] - row["a"]), row["class"]))
    splits = [split for split in SPLITS if any(split in row["splits"] for row in rows)]
    none = {"a": 0, "b": 0}
    table = _table(
        ["class", "images", "change", *splits],
        ([f'<span class="text">{text(row["class"])}</span>', _step(row), _delta(row),
          *(_step(row["splits"].get(split, none)) for split in splits)] for row in rows[:MOST_CLASSES]),
    )  # fmt: skip
    return _section("Classes and splits", _lines(news) + table + _more(MOST_CLASSES, len(rows))) if rows else ""


def _step(row: dict) -> str:
    same = row["a"] == row["b"]
    return f'<span class="same">{row["b"]:,}</span>' if same else f"{row['a']:,} → {row['b']:,}"


def _delta(row: dict) -> str:
    delta = row["b"] - row["a"]
    return f'<span class="{"up" if delta > 0 else "down"}">{delta:+,}</span>' if delta else ""


def _moves(moves: list[dict]) -> Iterator[str]:
    return (f"{move['from']} → {move['to']}: {words.plural(move['images'], 'image')}" for move in moves)


def _noted(lists: dict[str, list[dict]]) -> Iterator[str]:
    """Images with what was seen of them, by the name of their list."""
    for name, images in lists.items():
        for image in images:
            path = image["path_a"] if image["path_b"] is None else image["path_b"]
            yield f"{name.replace('_', ' ')}: {path} ({image['detail']})"


def _pipeline(pipeline: dict) -> Iterator[str]:
    yield from pipeline["explanation"]
    for stage in pipeline["stages"]:
        for param in stage["params"]:
            yield f"{stage['stage']}: {param['param']} {words.value(param['a'])} → {words.value(param['b'])}"
        if stage["code"]:
            yield f"{stage['stage']}: {', '.join(stage['code'])}"


def _transfer(transfer: dict) -> str:
    rows = {part["part"]: {} for way in transfer.values() for part in way["parts"]}
    for name, way in transfer.items():
        for part in way["parts"]:
            rows[part["part"]][name] = words.transfer(part)
    table = ([text(part), ways.get("a_to_b", ""), ways.get("b_to_a", "")] for part, ways in rows.items())
    return _table(["", "B, for who has A", "A, for who has B"], table) if rows else ""


def _metrics(metrics: list[dict]) -> str:
    """Those that differ first."""
    rows = sorted(metrics, key=lambda row: row["a"] == row["b"])
    table = (
        [f'<span class="text">{text(row["metric"])}</span> <span class="dim text">{text(row["file"])}</span>',
         text(words.value(row["a"])), text(words.value(row["b"]))] for row in rows[:MOST_CLASSES]
    )  # fmt: skip
    return _table(["metric", "A", "B"], table) + _more(MOST_CLASSES, len(rows)) if rows else ""


def _card(card: dict, pictures: Pictures | None) -> str:
    """One change: its pictures beside each other, paths and facts."""
    kind = card["kind"]
    data = "".join(f' data-{name}-{side}="{escape(card[f"{name}_{side}"])}"' for name in ("label", "split")
                   for side in "ab" if card[f"{name}_{side}"] is not None)  # fmt: skip
    paths = dict.fromkeys(path for path in (card["path_a"], card["path_b"]) if path is not None)
    names = ' <span class="dim">→</span> '.join(f'<code class="path" dir="ltr">{text(path)}</code>' for path in paths)
    facts = "".join(f'<span class="text">{text(fact)}</span>' for fact in _facts(card))
    return (
        f'<li class="card {kind}" data-kind="{kind}"{data}>'
        f'<div class="facts"><span class="kind">{words.KINDS[kind]}</span>{facts}</div>'
        f"<div>{names}</div>{_figures(card, pictures) if pictures else ''}</li>"
    )


def _facts(card: dict) -> Iterator[str]:
    """Labels, splits, status, size, distances, evidence."""
    for name in ("label", "split", "status"):
        values = [card[f"{name}_{side}"] for side in "ab" if card[f"path_{side}"] is not None]
        if name != "status" or "rejected" in values:
            yield " → ".join(
                dict.fromkeys(value or ("no class" if name == "label" else "no split") for value in values)
            )
    sizes = [f"{card[f'width_{side}']} × {card[f'height_{side}']}" for side in "ab" if card[f"width_{side}"]]
    yield " → ".join(dict.fromkeys(sizes)) or "no pixels"
    if card["perceptual_distance"] is not None and not card["evidence"]:
        yield f"looks: {card['perceptual_distance']} of 256 bits differ"
    if card["pixel_distance"] is not None:
        yield f"pixels: {card['pixel_distance']:.1f} of 255"
    if card["evidence"]:
        yield f"probably: {card['evidence']}"


def _figures(card: dict, pictures: Pictures) -> str:
    """Before, after and the difference; where both are there and differ, a slider draws the one over the other."""
    before, after = (
        None if card[f"path_{side}"] is None else picture or b""
        for side, picture in (("a", pictures.before), ("b", pictures.after))
    )
    swipe = bool(before and after and before != after)
    same = bool(before and before == after)
    figures = []
    if before is not None and not same:
        figures.append(_figure("before", before, after if swipe else None))
    if after is not None:
        figures.append(_figure("the picture" if same else "after", after))
    if pictures.difference:
        figures.append(_figure("difference", pictures.difference))
    slider = '<label class="swipe" hidden>swipe<input type="range" min="0" max="100" value="0" tabindex="-1"></label>'
    note = f'<p class="more text">{text(pictures.note)}</p>' if pictures.note else ""
    return f'<div class="figures">{"".join(figures)}</div>{slider * swipe}{note}'


def _figure(name: str, picture: bytes, over: bytes | None = None) -> str:
    content = _image(picture, name) if picture else '<div class="missing">not available</div>'
    if over:
        content += f'<div class="over">{_image(over, "after")}</div>'
    return f'<figure><div class="picture">{content}</div><figcaption>{name}</figcaption></figure>'


def _image(picture: bytes, name: str) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f'<img src="data:image/{kind};base64,{base64.b64encode(picture).decode()}" alt="{name}">'
