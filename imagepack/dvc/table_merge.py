"""Merge tables beside the images (metadata.csv) that both sides of a merge edited, cell by cell.

Of a cell, a row or a column that one side alone changed, that side's is taken. Rows are known by `file_name`.
"""

import csv
import hashlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from imagepack.dvc import objects
from imagepack.dvc.list_merge import Conflict, Merge
from imagepack.dvc.repository import Repo
from imagepack.names import visible

FILE_NAME, NAME = "file_name", "metadata.csv"
MOST_BYTES = 2**28
"""Of a version of a table; a larger one is merged as a file."""
LONGEST = 40
"""Characters of a cell in a message."""
BOM = b"\xef\xbb\xbf"


class _NoTable(Exception):
    """What cannot be merged by cell."""


@dataclass(frozen=True)
class _Table:
    """A version of a table.

    Attributes:
        columns: without file_name.
        rows: cells by column, by file_name.
        header: the first line, in its order.
        end: of a line.
    """

    columns: list[str]
    rows: dict[str, dict[str, str]]
    header: list[str] = field(default_factory=list)
    end: str = "\n"
    has_bom: bool = False


def settle(repo: Repo, merge: Merge, remote: str | None) -> None:
    """Merge those tables that both sides edited, and put them into DVC's cache; of a choice, cells in conflict have it.

    What is left in `merge.conflicts` has its cells in `merge.cells`.

    Args:
        repo: DVC's.
        merge: of the folder; changed.
        remote: the name of the folder's, or None for the default one.
    """
    for path in sorted(path for path in merge.ours.keys() & merge.theirs if PurePosixPath(path).name.lower() == NAME):
        versions = Conflict(path, *(side.get(path) for side in (merge.base, merge.ours, merge.theirs)))
        is_folder = any(other.startswith(f"{path}/") for side in (merge.ours, merge.theirs) for other in side)
        if len({*versions[1:]}) == len(versions[1:]) and not is_folder:
            _settle_one(repo, merge, versions, remote)


def _settle_one(repo: Repo, merge: Merge, versions: Conflict, remote: str | None) -> None:
    md5s = [md5 for md5 in versions[1:] if md5]
    if objects.download(repo, remote, md5s):
        return
    files = [Path(repo.cache.local.oid_to_path(md5)) for md5 in md5s]
    if any(file.stat().st_size > MOST_BYTES for file in files):
        return
    side = merge.choice(versions.path)
    try:
        *base, ours, theirs = (file.read_bytes() for file in files)
        data, conflicts = merged(base[0] if base else None, ours, theirs, side or "ours")
    except _NoTable:
        return
    if conflicts and not side:
        merge.cells[versions.path] = conflicts
        return
    merge.files[versions.path] = _put(repo, data)
    merge.conflicts = [conflict for conflict in merge.conflicts if conflict.path != versions.path]


def _put(repo: Repo, data: bytes) -> str:
    """Put a file into DVC's cache; return its md5."""
    from dvc.fs import localfs

    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(data)
        repo.cache.local.add(str(Path(folder) / NAME), localfs, md5)
    return md5


def merged(base: bytes | None, ours: bytes, theirs: bytes, side: str) -> tuple[bytes, list[str]]:
    """Merge three versions of a table; return the outcome, and a line for each conflict.

    Args:
        base: None where there was none.
        ours, theirs: what became of it.
        side: whose cells are taken in a conflict, ours or theirs.

    Raises:
        _NoTable: one of them is no table that can be merged.
    """
    tables = [_Table([], {}) if base is None else _read(base), _read(ours), _read(theirs)]
    conflicts: list[str] = []
    columns = _columns(*tables, side, conflicts)
    rows = _rows(*tables, columns, side, conflicts)
    return _write(tables[1], columns, rows), conflicts


def _read(data: bytes) -> _Table:
    try:
        text = data.decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _NoTable(str(error)) from None
    header = lines[0] if lines else []
    if len({*header}) != len(header) or FILE_NAME not in header or any(len(line) != len(header) for line in lines):
        raise _NoTable("it has lines or a header that do not fit")
    rows = {}
    for line in lines[1:]:
        row = dict(zip(header, line, strict=True))
        if (name := row.pop(FILE_NAME)) in rows:
            raise _NoTable("it has a row twice")
        rows[name] = row
    columns = [name for name in header if name != FILE_NAME]
    return _Table(columns, rows, header, "\r\n" if "\r\n" in text else "\n", data.startswith(BOM))


def _columns(base: _Table, ours: _Table, theirs: _Table, side: str, conflicts: list[str]) -> list[str]:
    """Return the columns of the outcome: ours, then those that came by theirs."""
    found = []
    for name in dict.fromkeys([*ours.columns, *theirs.columns]):
        without = [who for who, table in (("ours", ours), ("theirs", theirs)) if name not in table.columns]
        if not without or name not in base.columns:
            found.append(name)
            continue
        other = "theirs" if without == ["ours"] else "ours"
        rows = (theirs if other == "theirs" else ours).rows
        if any(row[name] != base.rows.get(file, {}).get(name, "") for file, row in rows.items()):
            conflicts.append(f"column {visible(name)}: removed by {without[0]}, edited by {other}")
            found += [name] if side == other else []
    return found


def _rows(
    base: _Table, ours: _Table, theirs: _Table, columns: list[str], side: str, conflicts: list[str]
) -> dict[str, dict[str, str]]:
    """Return the rows of the outcome: ours, then those that came by theirs."""
    found = {}
    for file in dict.fromkeys([*ours.rows, *theirs.rows]):
        before, one, other = (table.rows.get(file) for table in (base, ours, theirs))
        if one is not None and other is not None:
            found[file] = _cells(file, before or {}, one, other, columns, side, conflicts)
        elif before is None:  # it came
            found[file] = one if one is not None else other
        elif any(cell != before.get(name, cell) for name, cell in (one if one is not None else other).items()):
            gone, edited = ("theirs", "ours") if other is None else ("ours", "theirs")
            conflicts.append(f"row {visible(file)}: removed by {gone}, edited by {edited}")
            if side == edited:
                found[file] = one if one is not None else other
    return found


def _cells(
    file: str, base: dict, ours: dict, theirs: dict, columns: list[str], side: str, conflicts: list[str]
) -> dict[str, str]:
    """Return a row that both sides have. Who lacks a column has not changed its cell."""
    found = {}
    for name in columns:
        before = base.get(name, "")
        one, other = ours.get(name, before), theirs.get(name, before)
        if one in (before, other):
            found[name] = other
        elif other == before:
            found[name] = one
        else:
            shown: Callable[[str], str] = lambda cell: visible(cell[:LONGEST]) if cell else "empty"  # noqa: E731
            conflicts.append(
                f"row {visible(file)}, column {visible(name)}: {shown(one)} by ours, {shown(other)} by theirs"
            )
            found[name] = one if side == "ours" else other
    return found


def _write(like: _Table, columns: list[str], rows: dict[str, dict[str, str]]) -> bytes:
    """Return the table as CSV, file_name where our side has it."""
    header = list(columns)
    header.insert(min(like.header.index(FILE_NAME), len(header)), FILE_NAME)
    file = io.StringIO(newline="")
    lines = [header, *([(row | {FILE_NAME: name}).get(column, "") for column in header] for name, row in rows.items())]
    broken = any("\n" in cell or "\r" in cell for line in lines for cell in line)  # Python 3.11 quotes not all of them
    quoting = csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL
    csv.writer(file, lineterminator=like.end, quoting=quoting).writerows(lines)
    return BOM * like.has_bom + file.getvalue().encode()
