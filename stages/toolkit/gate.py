"""Stopping the pipeline on findings, apart from those that someone has looked at and acknowledged."""

import csv
import difflib
import io
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import polars as pl

from imagepack.names import visible
from stages.toolkit.errors import InputError

COLUMNS = ["image", "code", "note"]
SHOWN, LINES = 20, 1000
"""Findings in words, and lines to paste."""
WITHOUT_HASH = (
    "bad_name",
    "class_imbalance",
    "class_too_small",
    "empty_file",
    "name_collision",
    "no_label",
    "non_portable_name",
    "outside_link",
    "unreadable",
)
"""Codes that a class can have, or a file without content, which are acknowledged by name."""


def require_codes(fail_on: Collection[str], levels: Mapping[str, str]) -> None:
    """Refuse a code on which nothing could stop.

    Raises:
        InputError: no such code, or one whose level is ignore; all of them at once.
    """
    faults = []
    for code in fail_on:
        if code not in levels:
            near = difflib.get_close_matches(code, levels, n=1)
            faults.append(f"no code {code!r} ({f'did you mean {near[0]}?' if near else 'docs/output.md lists them'})")
        elif levels[code] == "ignore":
            faults.append(f"{code} is ignored by validate.levels: set it to info or more")
    if faults:
        raise InputError("\n  validate.fail_on: ".join(["params.yaml is not valid:", *faults]))


def read(acknowledged: Path, codes: Collection[str]) -> set[tuple[str, str]]:
    """The acknowledged findings: an image's sha256 (the name of a class or of a file without content) and a code, each.

    Args:
        acknowledged: a CSV file with the columns image, code and note; one that is not there acknowledges nothing.
        codes: those that exist.

    Raises:
        InputError: another header, no such code, neither a sha256 nor a class; all lines at once.
    """
    if not acknowledged.exists():
        return set()
    try:
        text = acknowledged.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{acknowledged} is no CSV file in UTF-8 ({error}): mend or restore it") from None
    faults = [] if rows[:1] == [(1, COLUMNS)] else [f"line 1: must be {','.join(COLUMNS)}"]
    for number, row in rows[1:]:
        if row and len(row) not in (2, 3):
            faults.append(f"line {number}: has {len(row)} fields; put a note with commas in quotes")
        elif row and row[1] not in codes:
            near = difflib.get_close_matches(row[1], codes, n=1)
            faults.append(f"line {number}: no code {row[1]!r}" + (f" (did you mean {near[0]}?)" if near else ""))
        elif row and row[1] not in WITHOUT_HASH and not re.fullmatch("[0-9a-f]{64}", row[0]):
            faults.append(f"line {number}: {row[0]!r} is no sha256 of 64 hexadecimal digits")
    if faults:
        raise InputError("\n  ".join([f"{acknowledged} is not valid:", *faults]))
    return {(row[0], row[1]) for _, row in rows[1:] if row}


def stop_on(
    fail_on: Collection[str],
    table: pl.DataFrame,
    findings: pl.DataFrame,
    known: set[tuple[str, str]],
    acknowledged: Path,
) -> None:
    """Stop if there is a finding with one of these codes that nobody has acknowledged.

    Args:
        fail_on: codes.
        table: the manifest.
        findings: path, code and seen, a row each; the path of one about a class is its name.
        known: what `read` returned.
        acknowledged: the file that was read, for the message.

    Raises:
        InputError: with the lines that would acknowledge them.
    """
    found = findings.filter(pl.col("code").is_in(list(fail_on)))
    found = found.join(table.select("path", "sha256"), on="path", how="left", maintain_order="left")
    by_content = pl.col("sha256").is_not_null() & (pl.col("sha256") != "")
    found = found.with_columns(image=pl.when(by_content).then("sha256").otherwise("path"))
    new = [
        row
        for row in found.iter_rows(named=True)
        if not known & {(row["image"], row["code"]), (visible(row["image"]), row["code"])}  # as it is printed below
    ]
    if not new:
        return
    lines = [visible(f"  {row['path']}: {row['code']} ({row['seen']})") for row in new[:SHOWN]]
    if len(new) > SHOWN:
        lines.append(f"  ... and {len(new) - SHOWN} more")
    keys = [f"  {_field(visible(row['image']))},{row['code']},{_field(visible(row['path']))}" for row in new[:LINES]]
    if len(new) > LINES:
        keys.append(f"  ... and {len(new) - LINES} more, once these are there")
    raise InputError(
        "\n".join(
            [
                f"{len(new)} findings with a code of validate.fail_on ({', '.join(fail_on)}):",
                *lines,
                f"mend the files, or acknowledge what is right by adding such lines to {acknowledged}:",
                *keys,
            ]
        )
    )


def _field(text: str) -> str:
    """As CSV."""
    return '"' + text.replace('"', '""') + '"' if re.search('[",\n\r]', text) else text
