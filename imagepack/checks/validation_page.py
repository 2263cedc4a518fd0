"""The validation report for people: one HTML file with pictures and filters, which opens without a network.

The markup of a finding is here; the frame, the style and the script are in validation_page.html. Every name is
escaped here, so the page shows all of it without its script too, which only filters: some viewers of build
artifacts run none. The page of a comparison (imagepack/compare/page.py) is filled and escaped by the same functions.
"""

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path

import polars as pl

TEMPLATE = Path(__file__).with_suffix(".html")
LEVELS = {"error": "errors", "warning": "warnings", "info": "info"}
"""The gravest first, and what several of them are called."""
EACH = 40
"""Findings of a code on the page: enough to see what is wrong, and the page stays at a few MB."""
LARGE, PAIRS = 400, 12
"""Pixels of the pictures of a pair that are shown side by side, and pairs of a code that have such: a photograph's is
about 30 KB, so the page stays below 10 MB."""
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters and those that turn or hide what follows. Not the joiners: emoji and scripts need them."""
NO_CLASS = "(no class)"
NOTHING_FOUND = '<p class="fine"><strong>Nothing found.</strong> Every file passed every check.</p>'


def shown(findings: pl.DataFrame, each: int = EACH) -> pl.DataFrame:
    """The first `each` findings of each code and level, in their order: kept errors are warnings."""
    return findings.filter(pl.int_range(pl.len()).over("level", "code") < each)


def pictured(findings: pl.DataFrame) -> list[str]:
    """What the page has thumbnails of: the paths of the findings shown, each followed by its twin's, each once.

    Where a finding is about a whole class, this is the class's name, and there is nothing to decode.
    """
    pairs = shown(findings).select("path", "other").iter_rows()
    return list(dict.fromkeys(path for pair in pairs for path in pair if path))


def compared(findings: pl.DataFrame) -> list[str]:
    """What the page has large pictures of: both paths of the first pairs of each code, each once."""
    pairs = shown(findings.filter(pl.col("other") != ""), PAIRS).select("path", "other").iter_rows()
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
    names = pictured(findings)
    files = _files(table, names)
    groups = _groups(findings)
    cards = defaultdict(list)
    for finding in shown(findings).iter_rows(named=True):
        group = cards[finding["level"], finding["code"]]
        pairs = sum('class="card pair"' in card[:30] for card in group)
        wide = finding["other"] and pairs < PAIRS
        group.append(_card(finding, files, thumbnails | (large or {}) if wide else thumbnails))
    sections = [_group(level, code, count, fixes[code], cards[level, code]) for level, code, count in groups]
    labels = sorted({_label(name, files) for name in names})
    parts = {
        "tiles": _tiles(table, findings),
        "levels": _level_boxes(groups),
        "codes": options((code, f"{code} ({count:,})") for code, count in _codes(groups).items()),
        "classes": options((label, label or NO_CLASS) for label in labels),
        "groups": "\n".join(sections) or NOTHING_FOUND,
    }
    fill(TEMPLATE, parts, path)


def fill(template: Path, parts: dict[str, str], path: Path) -> None:
    """Write a page: a template of HTML, in which `<!-- name -->` stands for a part of that name.

    Args:
        template: with one style and one script. `<!-- policy -->`, which needs no part, stands for a content security
            policy that allows these two and data: images.
        parts: HTML, in which all text is escaped.
        path: the HTML file; its folder is made.
    """
    frame = template.read_text(encoding="utf-8")
    parts = parts | {"policy": _policy(frame)}
    page = re.sub(r"<!-- (\w+) -->", lambda place: parts[place[1]], frame)  # one pass: no name can be a place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", newline="\n")


def _files(table: pl.DataFrame, paths: list[str]) -> dict[str, dict]:
    """The rows of the manifest that the page needs, by path."""
    rows = table.filter(pl.col("path").is_in(paths))
    return {row["path"]: row for row in rows.iter_rows(named=True)}


def _label(path: str, files: dict[str, dict]) -> str:
    """The class of a file, or the class that `path` itself names."""
    return files[path]["label"] if path in files else path


def _groups(findings: pl.DataFrame) -> list[tuple[str, str, int]]:
    """Level, code and count: the gravest first, then the most frequent."""
    counted = findings.group_by("level", "code").len("count").iter_rows()
    return sorted(counted, key=lambda group: (list(LEVELS).index(group[0]), -group[2], group[1]))


def _codes(groups: list[tuple[str, str, int]]) -> dict[str, int]:
    """How many findings a code has, of all levels; in the order of the groups."""
    counts = defaultdict(int)
    for _, code, count in groups:
        counts[code] += count
    return counts


def _policy(template: str) -> str:
    """A content security policy that allows this style, this script and data: images, and nothing else."""
    hashes = {}
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)[1]
        hashes[tag] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    allowed = "; ".join(f"{tag}-src 'sha256-{digest}'" for tag, digest in hashes.items())
    content = f"default-src 'none'; img-src data:; {allowed}; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def _tiles(table: pl.DataFrame, findings: pl.DataFrame) -> str:
    """The numbers at the top; those that reports/validation.json has too are the same there."""
    accepted = table.select("status", "label").filter(pl.col("status") == "accepted")
    numbers = {
        "files": len(table),
        "accepted": len(accepted),
        "rejected": len(table) - len(accepted),
        "classes": accepted["label"].n_unique(),
    }
    tiles = [f"<div><dt>{name}</dt><dd>{number:,}</dd></div>" for name, number in numbers.items()]
    for level, name in LEVELS.items():
        number = (findings["level"] == level).sum()
        tiles.append(f'<div class="{level if number else "zero"}"><dt>{name}</dt><dd>{number:,}</dd></div>')
    return "\n".join(tiles)


def _level_boxes(groups: list[tuple[str, str, int]]) -> str:
    """A checkbox for each level that occurs."""
    found = {level for level, _, _ in groups}
    boxes = [(level, name) for level, name in LEVELS.items() if level in found]
    return "\n".join(
        f'<label><input type="checkbox" name="level" value="{level}" checked> {name}</label>' for level, name in boxes
    )


def options(choices: Iterable[tuple[str, str]]) -> str:
    """The entries of a select: value and text, escaped here."""
    return "\n".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in choices)


def _group(level: str, code: str, count: int, fix: str, cards: list[str]) -> str:
    """All cards of a code."""
    more = ""
    if count > len(cards):
        told = "all errors are in rejected.csv, all findings in manifest.parquet"
        more = f'<p class="more">{len(cards):,} of {count:,} shown; {told}</p>'
    return (
        f'<section class="group {level}" data-level="{level}" data-code="{escape(code)}">\n'
        f'<h2><span class="level">{level}</span> {escape(code)} <span class="count">{count:,}</span></h2>\n'
        f'<p class="fix"><b>What to do:</b> {escape(fix)}</p>\n{more}<ul>\n' + "\n".join(cards) + "\n</ul>\n</section>"
    )


def _card(finding: dict[str, str], files: dict[str, dict], thumbnails: dict[str, bytes]) -> str:
    """One finding: the file, its twin if it has one, what was seen."""
    paths = [path for path in (finding["path"], finding["other"]) if path]
    figures = "".join(_figure(path, files, thumbnails.get(path)) for path in paths)
    kind = "card pair" if len(paths) == 2 else "card"
    button = '<button type="button" class="compare" hidden>Side by side</button>' if len(paths) == 2 else ""
    return (
        f'<li class="{kind}"><div class="figures">{figures}</div><p class="seen">{markup(finding["seen"])}</p>'
        f"{button}</li>"
    )


def _figure(path: str, files: dict[str, dict], thumbnail: bytes | None) -> str:
    """A file's picture, path and facts, or what stands for them."""
    file = files.get(path)
    missing = "not decoded" if file else "whole class"
    picture = f'<div class="missing">{missing}</div>'
    if thumbnail:
        picture = f'<img src="data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}" alt="">'
    return (
        f'<figure data-label="{escape(_label(path, files))}"><div class="picture">{picture}</div><figcaption>'
        f'<code class="path" dir="ltr">{markup(path)}</code>{_facts(file) if file else ""}</figcaption></figure>'
    )


def _facts(file: dict) -> str:
    """Label, status, and pixels and bytes where they are known."""
    facts = [f'<span class="label">{markup(file["label"]) or NO_CLASS}</span>', file["status"]]
    if file["width"]:
        facts.append(f"{file['width']:,} × {file['height']:,} pixels")
    if file["sha256"]:  # without one the file is empty or could not be read
        facts.append(f"{file['bytes']:,} bytes")
    return " ".join(f'<span class="fact">{fact}</span>' for fact in facts)


def markup(text: str) -> str:
    """Any text as HTML, as itself; the style of a page shows the number of an invisible character before it.

    Such a character has an element of its own, which confines what it does to the direction of writing.
    """
    marked = INVISIBLE.sub(lambda found: f'<bdi data-is="U+{ord(found[0]):04X}">{found[0]}</bdi>', escape(text))
    return marked.replace("\r", "&#13;")  # a bare one would be read as a line feed
