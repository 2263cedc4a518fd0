"""A comparison as a comment for a pull request: GitHub's Markdown, what matters first, always short enough.

Nothing that comes from outside (names of files, classes, versions, params, sentences with them) is Markdown or HTML
here: names stand in code spans, with an escape in place of each character that could end one, a table cell or a line;
of sentences only plain words stand outside. So no name makes a link, a mention, a reference to an issue, or a layout.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import polars as pl

from imagepack.compare.verdict import judge, sentence
from imagepack.compare.words import (
    KINDS,
    by_kind,
    changed_columns,
    changed_findings,
    drift_sentences,
    left_test,
    moved_groups,
    novelty_sentences,
    parted_groups,
    place,
    plural,
    remark,
    shorten,
    size,
    transfer,
    value,
)
from imagepack.names import visible

LIMIT = 60_000
"""Characters; GitHub takes 65,536."""
EACH = 50
"""Entries of a list."""
WORDS = 100
"""Of a sentence."""
WIDTH = 120
"""Columns of a name; of a longer one its middle is left out."""
ENDS = str.maketrans({"`": "\\x60", "|": "\\x7c"})
"""What would end a code span or a table cell, wherever it stands."""
WORD = re.compile(r"(\(?)([A-Za-z]{1,20}(?:'[a-z]{1,2})?|[0-9]{1,15}(?:\.[0-9]{1,6})?)(\)?)")
"""A word of a sentence that is nothing in Markdown, unless it begins a line and is a number of a list."""
SIGNS = {"->": "→", "<": "&lt;", "%": "%"}
"""Signs that are as harmless, alone between spaces."""
HEXADECIMAL = re.compile(r"[0-9a-fA-F]{7,}")
"""Which GitHub takes for a commit."""
NOTHING = "(empty)"
CUT = "\n_Cut here: too long for a comment. `python3 run.py compare` writes all of it with --html or --json._\n"


@dataclass(frozen=True)
class Block:
    """A part of the comment that is left out as a whole or row by row.

    Attributes:
        head: what stands before the rows.
        rows: a line each.
        count: of all rows that there are; `rows` may give fewer.
        tail: what ends it.
    """

    head: str
    rows: Iterable[str] = ()
    count: int = 0
    tail: str = "\n"


def text(summary: dict, changes: pl.DataFrame, limit: int = LIMIT) -> str:
    """Return a comparison as Markdown of fewer than `limit` characters, however much has changed.

    Args:
        summary: as imagepack/compare/schema.json has it.
        changes: a row each.
        limit: characters. Below some 1,000 little is left but the line that says that it was cut.
    """
    out, left = [], limit - 1 - len(CUT)
    for block in _blocks(summary, changes):
        lines, taken = [], len(block.head) + len(block.tail) + len(_more(block.count))
        if taken > left:
            return ("".join(out) + CUT)[: max(limit - 1, 0)]
        for row in block.rows:
            if taken + len(row) + 1 > left:
                return "".join([*out, block.head, *lines, _more(block.count - len(lines)), block.tail, CUT])
            lines.append(f"{row}\n")
            taken += len(row) + 1
        rest = _more(block.count - len(lines)) if block.count > len(lines) else ""
        part = "".join([block.head, *lines, rest, block.tail])
        out.append(part)
        left -= len(part)
    return "".join(out)


def _more(count: int) -> str:
    return f"- ... and {count} more\n"


def code(name: str | None, width: int = WIDTH) -> str:
    """Return a name as a code span that shows it and does nothing, in a table too."""
    return f"`{shorten(visible(name or NOTHING).translate(ENDS), width)}`"


def prose(sentence: str) -> str:
    """Return a sentence with names in it, in which whatever is not a plain word is a code span."""
    words = [word for word in sentence.split(" ") if word]
    shown = [_word(word, first=i == 0) for i, word in enumerate(words[:WORDS])]
    return " ".join([*shown, *["..."] * (len(words) > WORDS)])


def _word(word: str, first: bool) -> str:
    if word in SIGNS and not first:
        return SIGNS[word]
    end = word[-1] if word[-1] in ".,;:" else ""
    body = word.removesuffix(end)
    listed = first and body[:1].isdigit() and word != body.rstrip(")")  # "1." or "1)" would begin a list
    plain = WORD.fullmatch(body) and not HEXADECIMAL.search(body) and not listed
    return (body if plain else code(body, 60)) + end


def _blocks(summary: dict, changes: pl.DataFrame) -> Iterator[Block]:
    """What matters first."""
    a, b = summary["a"], summary["b"]
    verdict = sentence(judge(summary, changes))
    yield Block(
        f"### Dataset: {code(a['name'], 60)} → {code(b['name'], 60)}\n\n**{verdict[0].upper()}{verdict[1:]}**\n"
    )
    warnings = [f"- {which.upper()}: {prose(w)}" for which in "ab" for w in summary[which]["warnings"]]
    yield from _list("Warnings:", warnings)
    yield Block(_sizes(summary) + _counts(summary["counts"]), tail="")
    leakage = summary["leakage"]
    yield from _references("of val or test look like one of train, and did not", leakage["new"], opened=True)
    yield from _references(
        "of val or test were in train of A: a model trained on A has seen them", leakage["trained_on"]
    )
    in_test = pl.col("split_a").eq_missing("test") | pl.col("split_b").eq_missing("test")
    tested = changes.filter(in_test)
    rows = (f"- {KINDS[c['kind']]}: {_change(c)}" for c in tested.head(EACH).iter_rows(named=True))
    yield from _details(f"{plural(tested.height, 'change')} of images that are or were in test", rows, tested.height)
    yield from _references("rejected now", summary["status"]["newly_rejected"])
    yield from _references("no longer rejected", summary["status"]["fixed"])
    yield from _classes(summary["classes"])
    yield from _splits(summary["splits"])
    yield from _list("Not pinned:", [f"- {prose(sentence)}" for sentence in [left_test(summary)] if sentence])
    yield from _groups(summary["groups"])
    yield from _columns(summary["columns"])
    drift = [*drift_sentences(summary["drift"]), *novelty_sentences(summary["drift"])]
    yield from _list("Drift:", [f"- {prose(sentence)}" for sentence in drift])
    yield from _findings(summary)
    yield from _list("Pipeline:", [f"- {prose(sentence)}" for sentence in summary["pipeline"]["explanation"]])
    yield from _metrics(summary["metrics"])
    if summary["transfer"]["a_to_b"]["files"]:
        yield Block(f"To push: {transfer(summary['transfer']['a_to_b'])}.\n")
    for kind, words in KINDS.items():
        count = summary["counts"][kind]
        rows = (f"- {_change(change)}" for change in by_kind(changes, kind, EACH))
        yield from _details(f"{count} {words}", rows, count)
    yield from _references("resolved leaks", leakage["resolved"])


def _list(title: str, rows: list[str]) -> Iterator[Block]:
    if rows:
        yield Block(f"{title}\n\n", rows[:EACH], len(rows))


def _details(title: str, rows: Iterable[str], count: int, opened: bool = False) -> Iterator[Block]:
    """A list that opens on a click. The title is ours."""
    if count:
        head = f"<details{' open' * opened}><summary>{title}</summary>\n\n"
        yield Block(head, rows, count, "\n</details>\n\n")


def _references(words: str, images: list[dict], opened: bool = False) -> Iterator[Block]:
    rows = (f"- {code(place(image))}: {code(image['detail'])}" for image in islice(images, EACH))
    yield from _details(f"{len(images)} {words}", rows, len(images), opened)


def _change(change: dict) -> str:
    paths = [code(path) for path in dict.fromkeys((change["path_a"], change["path_b"])) if path is not None]
    note = remark(change)
    return " → ".join(paths) + (f" ({code(note)})" if note else "")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _sizes(summary: dict) -> str:
    a, b = summary["a"], summary["b"]
    rows = [[key, str(a[key]), str(b[key])] for key in ("accepted", "rejected", "classes")]
    rows += [[code(row["split"], 30), str(row["a"]), str(row["b"])] for row in summary["splits"]["table"][:10]]
    return _table(["Images", "A", "B"], [*rows, ["raw files", size(a["bytes"]), size(b["bytes"])]])


def _counts(counts: dict) -> str:
    rows = [[KINDS.get(kind, kind), str(count)] for kind, count in counts.items() if count]
    return _table(["What happened", "Images"], rows) if rows else ""


def _classes(classes: dict) -> Iterator[Block]:
    renamed = [
        f"- {code(pair['a'])} → {code(pair['b'])}: {plural(pair['images'], 'image')}" for pair in classes["renamed"]
    ]
    taken = {pair[side] for pair in classes["renamed"] for side in "ab"}
    for words, key in (("gone", "removed"), ("new", "added")):
        names = [name for name in classes[key] if name not in taken]
        yield from _details(
            f"{plural(len(names), 'class')} {words}", [f"- {code(n)}" for n in names[:EACH]], len(names)
        )
    yield from _details(f"{plural(len(renamed), 'class')} renamed", renamed[:EACH], len(renamed))
    changed = [row for row in classes["table"] if row["a"] != row["b"]]
    rows = (f"- {code(row['class'])}: {row['a']} → {row['b']}" for row in changed[:EACH])
    yield from _details(f"{plural(len(changed), 'class')} with more or fewer images", rows, len(changed))


def _splits(splits: dict) -> Iterator[Block]:
    moves = [f"- {code(m['from'], 30)} → {code(m['to'], 30)}: {plural(m['images'], 'image')}" for m in splits["moves"]]
    yield from _list("Between splits:", moves)


def _groups(groups: dict) -> Iterator[Block]:
    rows = [f"- {code(line)}" for line in parted_groups(groups)]
    yield from _details(f"{plural(len(rows), 'group')} in several splits", rows[:EACH], len(rows), opened=True)
    rows = [f"- {code(line)}" for line in moved_groups(groups)]
    yield from _details(f"{plural(len(rows), 'group')} in another split", rows[:EACH], len(rows))


def _columns(columns: list[dict]) -> Iterator[Block]:
    """Columns of tables: what happened to each, and the first images whose cells differ."""
    yield from _list("Columns of tables:", [f"- {code(line)}" for line in changed_columns(columns)])
    cells = [(column, image) for column in columns for image in column["images"][:EACH]]
    rows = (f"- {code(place(image))}: {code(column['name'], 40)} {code(image['detail'])}" for column, image in cells)
    changed = sum(column["changed"] for column in columns)
    yield from _details(f"{plural(changed, 'cell')} with another value", islice(rows, EACH), changed)


def _findings(summary: dict) -> Iterator[Block]:
    rows = [f"- {prose(finding)}" for finding in changed_findings(summary)]
    yield from _details(f"Findings of validate: {len(rows)} with other images", rows[:EACH], len(rows))


def _metrics(metrics: list[dict]) -> Iterator[Block]:
    changed = [m for m in metrics if m["a"] != m["b"]]
    rows = (
        f"- {code(m['metric'])} ({code(m['file'], 60)}): {code(value(m['a']), 40)} → {code(value(m['b']), 40)}"
        for m in changed[:EACH]
    )
    yield from _details(f"{plural(len(changed), 'metric')} changed", rows, len(changed))
