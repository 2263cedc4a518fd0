"""data/acknowledged.csv: findings that someone has looked at, which stop the pipeline no more, and images kept in spite
of one."""

import csv
import difflib
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from imagepack.checks.codes import Checks, keepable
from imagepack.errors import InputError
from imagepack.names import visible

COLUMNS = ["image", "code", "note", "keep"]
"""Of which the last may be missing."""
KEPT = " (kept by acknowledged.csv)"
"""Behind what was seen, of an error in spite of which the image is kept; the finding becomes a warning."""
SHOWN, LINES = 20, 1000
"""Findings in words, and lines to paste."""


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


@dataclass(frozen=True)
class Acknowledged:
    """What data/acknowledged.csv says.

    Attributes:
        known: an image's sha256 (the name of a class or of a file without content) and a code, each.
        keep: of the lines with `keep`: an image's sha256, or a path below data/raw, and a code; and the line's number.
    """

    known: set[tuple[str, str]] = field(default_factory=set)
    keep: dict[tuple[str, str], int] = field(default_factory=dict)

    def kept(self, table: pl.DataFrame) -> dict[tuple[str, str], int]:
        """Path and code of the images of the manifest that lines with `keep` name, and the line's number."""
        names = {image for image, _ in self.keep}
        named = table.select("path", "sha256").filter(pl.col("path").is_in(names) | pl.col("sha256").is_in(names))
        paths = list(named.iter_rows())
        return {
            (path, code): number
            for (image, code), number in self.keep.items()
            for path, digest in paths
            if image in (path, digest)
        }

    def useless(self, kept: Mapping[tuple[str, str], int], findings: pl.DataFrame) -> list[str]:
        """The lines with `keep` whose image or finding does not occur, in words.

        Args:
            kept: what `kept` returned.
            findings: path and code, a row each.
        """
        found = set(findings.select("path", "code").iter_rows())
        used = {number for finding, number in kept.items() if finding in found}
        return [f"line {n} ({image}, {code})" for (image, code), n in self.keep.items() if n not in used]


def read(acknowledged: Path, checks: Checks) -> Acknowledged:
    """Read the acknowledged findings, and the images to keep.

    Args:
        acknowledged: a CSV file with the columns image, code, note and, where it is wanted, keep (`keep` or empty); one
            that is not there acknowledges nothing.
        checks: by code.

    Raises:
        InputError: another header, no such code, neither a sha256 nor a class, a code in spite of which nothing can be
            kept; all lines at once.
    """
    if not acknowledged.exists():
        return Acknowledged()
    try:
        text = acknowledged.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{acknowledged} is no CSV file in UTF-8 ({error}): mend or restore it") from None
    header = rows[0][1] if rows[:1] and rows[0][0] == 1 else []
    faults = [] if header in (COLUMNS, COLUMNS[:3]) else [f"line 1: must be {','.join(COLUMNS)}"]
    lines = [(number, row) for number, row in rows[1:] if row]
    whys = ((number, _fault(row, header, checks)) for number, row in lines)
    faults += [f"line {number}: {why}" for number, why in whys if why]
    if faults:
        raise InputError("\n  ".join([f"{acknowledged} is not valid:", *faults]))
    keep = {(row[0], row[1]): number for number, row in lines if row[3:] == ["keep"]}
    return Acknowledged({(row[0], row[1]) for _, row in lines}, keep)


def _fault(row: list[str], header: list[str], checks: Checks) -> str:
    """What is wrong with a line; empty if nothing is."""
    keep = row[3:] == ["keep"]
    if keep and header == COLUMNS[:3]:
        return f"says keep, and there is no such column: line 1 must be {','.join(COLUMNS)}"
    if not 2 <= len(row) <= max(3, len(header)):
        return f"has {len(row)} fields; put a note with commas in quotes"
    if row[1] not in checks:
        near = difflib.get_close_matches(row[1], checks, n=1)
        return f"no code {row[1]!r}" + (f" (did you mean {near[0]}?)" if near else "")
    if row[3:] not in ([], [""], ["keep"]):
        return f"the column keep has {row[3]!r}: it must be keep, or empty; put a note with commas in quotes"
    if keep and checks[row[1]].subject != "file":
        return f"{row[1]} rejects no image: take `keep` away"
    if keep and row[1] == "jpeg_damage":  # whose level decides for all JPEGs how they are decoded
        fix = f"lower validate.levels.jpeg_damage, or {checks[row[1]].fix}"
        return f"no image can be kept in spite of {row[1]} alone; take `keep` away, and {fix}"
    if keep and row[1] not in keepable(checks):
        return f"no image can be kept in spite of {row[1]}; take `keep` away, and {checks[row[1]].fix}"
    if (
        not keep
        and not (checks[row[1]].by_name or checks[row[1]].subject != "file")
        and not re.fullmatch("[0-9a-f]{64}", row[0])
    ):
        return f"{row[0]!r} is no sha256 of 64 hexadecimal digits"
    return "" if row[0] else "names no image"


def stop_on(
    fail_on: Collection[str],
    table: pl.DataFrame,
    findings: pl.DataFrame,
    said: Acknowledged,
    acknowledged: Path,
) -> None:
    """Stop if there is a finding with one of these codes that nobody has acknowledged.

    Args:
        fail_on: codes.
        table: the manifest.
        findings: path, code and seen, a row each; the path of one about a class is its name.
        said: what `read` returned.
        acknowledged: the file that was read, for the message.

    Raises:
        InputError: with the lines that would acknowledge them.
    """
    found = findings.filter(pl.col("code").is_in(list(fail_on)))
    found = found.join(table.select("path", "sha256"), on="path", how="left", maintain_order="left")
    by_content = pl.col("sha256").is_not_null() & (pl.col("sha256") != "")
    found = found.with_columns(image=pl.when(by_content).then("sha256").otherwise("path"))
    kept = said.kept(table)
    new = [
        row
        for row in found.iter_rows(named=True)
        if not said.known & {(row["image"], row["code"]), (visible(row["image"]), row["code"])}  # or as it is printed
        and (row["path"], row["code"]) not in kept
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
