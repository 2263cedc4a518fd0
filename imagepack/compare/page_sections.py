"""The sections of the page that are tables and lists: what to look at, classes, splits, pipeline, metrics, bytes."""

from collections.abc import Iterable, Iterator
from html import escape

from imagepack.checks.validation_page import NO_CLASS, markup
from imagepack.compare.page_cards import in_order
from imagepack.compare.page_drift import more
from imagepack.compare.verdict import Verdict, opening, reasons
from imagepack.compare.words import KINDS, plural, size, transfer, value

CLASSES = 500
"""Rows of the table of classes."""
ROWS = 200
"""Of any other table."""
LISTED = 20
"""Images of a list."""
OPENED = 5
"""A list of as many images is open at first."""


def versions(summary: dict) -> str:
    """What is compared: name, commit, date, size, warnings."""
    return "\n".join(_version(side, summary[side]) for side in "ab")


def _version(side: str, version: dict) -> str:
    commit = [escape(version["revision"][:10])] if version["revision"] else []
    about = [*commit, *[markup(version[key]) for key in ("date", "subject") if version[key]]]
    facts = f"{plural_of(version['accepted'], 'image')} in {plural_of(version['classes'], 'class')}, "
    facts += f"{version['rejected']:,} rejected, {size(version['bytes'])}{'' if version['packed'] else ', no pack'}"
    warnings = "".join(f'<p class="warning">{markup(text)}</p>' for text in version["warnings"])
    return (
        f'<div class="version"><p><b class="side">{side.upper()}</b> <b class="name">{markup(version["name"])}</b> '
        f'<span class="about">{" · ".join(about)}</span></p><p class="about">{facts}</p>{warnings}</div>'
    )


def plural_of(count: int, word: str) -> str:
    """`1 image`, `12,345 images`."""
    return plural(count, word).replace(str(count), f"{count:,}", 1)


def verdict(found: Verdict) -> str:
    """What happened, and what of it matters as a list."""
    text = escape(opening(found))
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons(found))
    return (
        f'<div class="verdict {"bad" if found.matters else "good"}"><p>{text[:1].upper()}{text[1:]}</p>'
        f"{f'<ul>{items}</ul>' if items else ''}</div>"
    )


def tiles(summary: dict) -> str:
    """The numbers at the top, each a link to what it counts."""
    counts = [
        _tile(KINDS.get(kind, kind), count, kind, f"#{kind}" if kind in KINDS else "")
        for kind, count in summary["counts"].items()
    ]
    status, leakage = summary["status"], summary["leakage"]
    conflicts = [finding for finding in summary["findings"] if finding["code"] == "label_conflict"]
    looked = {
        ("newly rejected", "alarm"): status["newly_rejected"],
        ("new label conflicts", "alarm"): [image for finding in conflicts for image in finding["new"]],
        ("new leakage", "alarm"): leakage["new"],
        ("held out, trained on", "alarm"): leakage["trained_on"],
        ("no longer rejected", "fixed"): status["fixed"],
    }
    attention = [_tile(name, len(images), tone, "#look") for (name, tone), images in looked.items()]
    return (
        f'<h2 class="tiles-of">Images</h2>\n<dl class="tiles">{"".join(counts)}</dl>\n'
        f'<h2 class="tiles-of">To look at</h2>\n<dl class="tiles">{"".join(attention)}</dl>'
    )


def _tile(name: str, count: int, tone: str, target: str) -> str:
    number = f'<a href="{target}">{count:,}</a>' if count and target else f"{count:,}"
    return f'<div class="{tone if count else "zero"}"><dt>{name}</dt><dd>{number}</dd></div>'


def look(summary: dict) -> str:
    """The images that matter, by what is the matter with them; then what validate found otherwise."""
    status, leakage = summary["status"], summary["leakage"]
    lists = [
        ("alarm", "look like an image of train, and did not: leakage", leakage["new"]),
        ("alarm", "of val or test were in train of A: a model trained on A has seen them", leakage["trained_on"]),
        ("alarm", "rejected now", status["newly_rejected"]),
        *[
            ("alarm", "new under two labels", finding["new"])
            for finding in summary["findings"]
            if finding["code"] == "label_conflict"
        ],
        ("fixed", "no longer rejected", status["fixed"]),
        ("fixed", "no longer leak", leakage["resolved"]),
    ]
    parts = [_images(tone, words, images) for tone, words, images in lists if images]
    return "\n".join(parts) or "<p>Nothing: no leakage, no image rejected, no new label conflict.</p>"


def _images(tone: str, words: str, images: list[dict]) -> str:
    items = "".join(f"<li>{_place(image)}: {markup(image['detail'])}</li>" for image in images[:LISTED])
    opened = " open" if len(images) <= OPENED else ""
    return (
        f'<details class="{tone}"{opened}><summary><b>{len(images):,}</b> {words}</summary>'
        f"<ul>{items}{more(len(images), LISTED)}</ul></details>"
    )


def _place(image: dict) -> str:
    paths = dict.fromkeys(path for path in (image["path_a"], image["path_b"]) if path is not None)
    return " → ".join(f'<code class="path" dir="ltr">{markup(path)}</code>' for path in paths)


def findings(summary: dict) -> str:
    """Codes of validate, those of which there are other images first."""
    found = sorted(summary["findings"], key=lambda f: (not (f["new"] or f["resolved"]), f["code"]))
    rows = [
        [
            markup(f["code"]),
            f"{f['a']:,}",
            f"{f['b']:,}",
            delta(f["b"] - f["a"]),
            *(f"{len(f[key]):,}" for key in ("new", "resolved")),
        ]
        for f in found
    ]
    return _table(["Finding", "A", "B", "±", "new", "resolved"], rows) if rows else "<p>None in either version.</p>"


def classes(summary: dict) -> str:
    """Classes added, removed, renamed; the table of classes, those that changed most first."""
    table = sorted(summary["classes"]["table"], key=lambda row: (-_changed(row), row["class"]))
    splits = in_order({split for row in table for split in row["splits"]})
    rows = []
    for row in table[:CLASSES]:
        counts = [row["splits"].get(split, {"a": 0, "b": 0}) for split in splits]
        name = f'<span class="label">{markup(row["class"] or NO_CLASS)}</span>'
        cells = [f"{row['a']:,}", f"{row['b']:,}", delta(row["b"] - row["a"])]
        rows.append([name, *cells, *(f"{n['b']:,} {delta(n['b'] - n['a'])}" for n in counts)])
    cut = f'<p class="more">{CLASSES:,} of {len(table):,} classes, those that changed most; the JSON has all.</p>'
    head = ["Class", "A", "B", "±", *(f"{markup(split)} in B" for split in splits)]
    names = "".join(_names(summary["classes"]))
    return names + (cut if len(table) > CLASSES else "") + (_table(head, rows) if rows else "<p>None.</p>")


def _changed(row: dict) -> int:
    """By how many images a class has changed, in all its splits."""
    return max(abs(row["b"] - row["a"]), sum(abs(n["b"] - n["a"]) for n in row["splits"].values()))


def _names(found: dict) -> Iterator[str]:
    renamed = [(f"{_label(pair['a'])} → {_label(pair['b'])} ({pair['images']:,})") for pair in found["renamed"]]
    taken = {pair[side] for pair in found["renamed"] for side in "ab"}
    added, removed = ([_label(n) for n in found[key] if n not in taken] for key in ("added", "removed"))
    for words, tone, names in (("New", "added", added), ("Gone", "removed", removed), ("Renamed", "moved", renamed)):
        if names:
            rest = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
            yield f'<p class="{tone}"><b class="tone">{words}:</b> {", ".join(names[:LISTED])}{rest}</p>\n'


def _label(name: str) -> str:
    return f'<span class="label">{markup(name or NO_CLASS)}</span>'


def splits(summary: dict) -> str:
    """Images by split, and from which to which they moved."""
    table = {row["split"]: row for row in summary["splits"]["table"]}
    rows = [
        [markup(name), f"{table[name]['a']:,}", f"{table[name]['b']:,}", delta(table[name]["b"] - table[name]["a"])]
        for name in in_order(table)[:ROWS]
    ]
    moves = {(move["from"], move["to"]): move["images"] for move in summary["splits"]["moves"]}
    names = in_order({name for pair in moves for name in pair})[:LISTED]
    matrix = [
        [markup(name), *(f"{moves[name, to]:,}" if (name, to) in moves else "·" for to in names)] for name in names
    ]
    moved = "<h3>Moved, from row to column</h3>\n" + _table(["", *(f"to {markup(to)}" for to in names)], matrix)
    return (_table(["Split", "A", "B", "±"], rows) if rows else "<p>No version has splits.</p>") + (
        moved if moves else "<p>No image of both versions has moved to another split.</p>"
    )


def pipeline(summary: dict) -> str:
    """Params, code and packages; what that explains."""
    found = summary["pipeline"]
    known = {True: "changed", False: "the same", None: "not known"}
    said = [f"Raw images: {known[found['raw_changed']]}. Pack: {known[found['packed_changed']]}."]
    sentences = "".join(f"<li>{markup(text)}</li>" for text in found["explanation"][:ROWS])
    params = [
        [markup(param["param"]), f'<span class="label">{markup(stage["stage"])}</span>', *map(_value, _both(param))]
        for stage in found["stages"]
        for param in stage["params"]
    ]
    packages = [[markup(package["package"]), *map(_value, _both(package))] for package in found["packages"]]
    parts = [
        f"<p>{said[0]}</p>",
        f"<ul>{sentences}</ul>" if sentences else "",
        _titled("Params", ["Param", "Stage", "A", "B"], params),
        "".join(map(_code, found["stages"])),
        _titled("Packages", ["Package", "A", "B"], packages),
    ]
    return "\n".join(filter(None, parts))


def _both(item: dict) -> tuple:
    return item["a"], item["b"]


def _value(anything: object) -> str:
    text = f"{anything:,}" if type(anything) is int else value(anything)
    return f'<span class="value">{markup(text)}</span>'


def _code(stage: dict) -> str:
    """What else differs of a stage."""
    told = {"code": stage["code"], "data": stage["data"]}
    lists = [
        f"{words}: " + ", ".join(f'<code class="path">{markup(path)}</code>' for path in paths[:LISTED])
        + (f" and {len(paths) - LISTED:,} more" if len(paths) > LISTED else "")
        for words, paths in told.items()
        if paths
    ]  # fmt: skip
    lists += ["another command"] if stage["command"] else []
    return f"<p><b>{markup(stage['stage'])}</b> has other {'; '.join(lists)}</p>" if lists else ""


def metrics(summary: dict) -> str:
    """Side by side, those that differ first."""
    found = sorted(summary["metrics"], key=lambda m: (m["a"] == m["b"], m["file"], m["metric"]))
    rows = [
        [markup(m["metric"]), f"<small>{markup(m['file'])}</small>", *map(_value, _both(m)), _less(m)] for m in found
    ]
    return _table(["Metric", "File", "A", "B", "±"], rows) if rows else "<p>None.</p>"


def _less(metric: dict) -> str:
    a, b = _both(metric)
    numbers = all(isinstance(number, int | float) and not isinstance(number, bool) for number in (a, b))
    return delta(b - a) if numbers else ""


def moved_bytes(summary: dict) -> str:
    """What dvc push and pull move, part by part."""
    ways = summary["transfer"]["a_to_b"], summary["transfer"]["b_to_a"]
    names = dict.fromkeys(part["part"] for way in ways for part in way["parts"])
    rows = [[markup(name), *(_part(way, name) for way in ways)] for name in names]
    rows.append(["<b>all</b>", *(f'<b class="value">{transfer(way)}</b>' for way in ways)])
    return _table(["Part", "from A to B", "from B to A"], rows)


def _part(way: dict, name: str) -> str:
    return next((f'<span class="value">{transfer(p)}</span>' for p in way["parts"] if p["part"] == name), "-")


def delta(difference: float) -> str:
    """`+12`, `−3.2`; nothing where nothing changed."""
    if not difference:
        return ""
    text = f"{abs(difference):,}" if isinstance(difference, int) else f"{abs(difference):.4g}"
    return f'<span class="delta">{"+" if difference > 0 else "−"}{text}</span>'


def _titled(title: str, head: list[str], rows: list[list[str]]) -> str:
    return f"<h3>{title}</h3>\n{_table(head, rows)}" if rows else ""


def _table(head: Iterable[str], rows: list[list[str]]) -> str:
    """Cells are HTML; the first of a row is its name. What is too wide or long scrolls by itself."""
    most = max(ROWS, CLASSES if "Class" in head else 0)
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows[:most]
    ]
    cut = f'<p class="more">{most:,} of {len(rows):,} shown; the JSON has all.</p>' if len(rows) > most else ""
    body = "\n".join(lines)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="table"><table>'
        f"<thead><tr>{titles}</tr></thead><tbody>\n{body}\n</tbody></table></div>{cut}\n"
    )
