"""Tables beside the images: metadata.csv, .jsonl or .parquet, anywhere below data/raw; docs/tables.md is for users.

As in Hugging Face's imagefolder, a table is about images at or below its folder: its column `file_name` says which, the
others are the user's. All tables together become one, a row an image.
"""

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from imagepack.errors import InputError
from imagepack.images import raw_files
from imagepack.images.faults import Fault
from imagepack.images.raw_names import RawFile
from imagepack.names import visible

FILE_NAME = "file_name"
TYPES = {"integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean, "date": pl.Date, "text": pl.String}
"""What a column may hold, in the order in which that is found out."""
PATTERNS = {
    "integer": r"[+-]?(0|[1-9][0-9]{0,17})",  # not 007, which is a text
    "number": r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "boolean": r"(?i)true|false",
    "date": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
}
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
"""Texts, in small letters."""
LEADING_ZERO = r"[+-]?0[0-9]+"
"""Of a text that looks like a number: a postcode, an article."""
NONE = ";"
"""The cell of a list without texts, which says more than an empty one: none of them, and not that nobody knows."""
LONGEST_CELL = 2**20
"""Bytes."""
MOST_BYTES = 4 * 2**30
"""Of a table."""
ROWS_A_STEP = 4096
"""Rows that are taken together: as texts they need several times the memory of a frame."""

Lines = list[tuple[str, pl.DataFrame, list[str]]]
"""By table, with a name for messages: path and line of each row, and its columns, without cells."""


@dataclass(frozen=True)
class Table:
    """What all tables say.

    Attributes:
        rows: `path` below the folder of images, and the tables' columns, typed; a row an image file that is there.
        covered: whether there is a table at or above a path: its images are to have a row.
        without_image: table and line of each row whose image is not there, and its `file_name`.
        lines: where their rows stand.
    """

    rows: pl.DataFrame
    covered: Callable[[str], bool] = lambda path: False
    without_image: list[tuple[str, int, str]] = field(default_factory=list)
    lines: Lines = field(default_factory=list)

    def place(self, path: str, column: str) -> str:
        """Return table and line of an image's cell, in words; of several that agree the first."""
        for table, lines, columns in self.lines:
            if column in columns and len(found := lines.filter(pl.col("path") == path)):
                return f"{table} line {found['line'][0]}"
        return visible(path)


def read(raw: Path, tables: Sequence[RawFile], paths: Iterable[str], types: Mapping[str, str]) -> Table:
    """Read all tables, and join them to the images.

    Args:
        raw: the folder of images.
        tables: files below it.
        paths: of the image files that are there.
        types: of columns, a key of TYPES each; those of others are found out.

    Raises:
        InputError: tables that cannot be read, rows or tables that disagree, cells that do not fit: all at once.
    """
    here = _Here(paths)
    faults: list[str] = []
    frames, without_image, lines = [], [], []
    for table in tables:
        try:
            rows = _rows(raw, table)
        except _Unusable as error:
            faults += [f"{visible(str(raw / str(table)))}{where}: {why}" for where, why in error.args[0]]
            continue
        frame, lost = _placed(raw, str(table), rows, here, faults)
        lines.append((visible(str(raw / str(table))), frame.select("path", "line"), frame.columns))
        frames.append(frame.drop("line"))
        without_image += lost
    rows = _joined(frames, lines, faults)
    rows = _typed(rows, types, lines, faults)
    if faults:
        raise InputError(raw_files.listing(f"{raw} has tables that cannot be used (docs/tables.md):", faults))
    folders = {posixpath.dirname(str(table)) for table in tables}
    return Table(rows, lambda path: _is_covered(path, folders), without_image, lines)


class _Unusable(Exception):
    """A table that cannot be read; a list of places in it and what is wrong there."""


class _Here:
    """The image files that are there, found by their path, also where that is written in another normal form."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = set(paths)
        self._by_form = {_form(path): path for path in self._paths if not path.isascii()}

    def find(self, path: str) -> str | None:
        return path if path in self._paths else self._by_form.get(_form(path))


def _form(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _is_covered(path: str, folders: set[str]) -> bool:
    folder = posixpath.dirname(path)
    while folder and folder not in folders:
        folder = posixpath.dirname(folder)
    return folder in folders


def _rows(raw: Path, table: RawFile) -> pl.DataFrame:
    """Return a table as it stands, with `line` before its columns; what is text stays text."""
    try:
        data = raw_files.read(raw, table, MOST_BYTES)
    except Fault as fault:
        raise _Unusable([("", fault.seen)]) from None
    except MemoryError:
        raise _Unusable([("", f"has more than {MOST_BYTES} bytes: cut it into several, a folder each")]) from None
    reader = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[posixpath.splitext(str(table).lower())[1]]
    rows = reader(data)
    names = rows.columns[1:]
    if FILE_NAME not in names:
        found = ", ".join(map(visible, names[:10])) or "none"
        raise _Unusable([("", f"has no column {FILE_NAME}, which says whose row it is; its columns: {found}")])
    wrong = [name for name in names if not name.strip() or name in ("path", "line") or not name.isprintable()]
    if wrong:
        raise _Unusable([("", f"a column cannot be called {visible(repr(name))}: rename it") for name in wrong])
    return rows


def _csv(data: bytes) -> pl.DataFrame:
    if (plain := _plain_csv(data)) is not None:
        return plain
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable([(_line_of(data, error.start), "is not UTF-8: save it as CSV UTF-8")]) from None
    if (zero := data.find(b"\0")) >= 0:
        raise _Unusable([(_line_of(data, zero), "has a zero byte")])
    head = data.partition(b"\n")[0]
    if b"," not in head and (b";" in head or b"\t" in head):
        raise _Unusable([(" line 1", "is separated by semicolons or tabs: save it with commas")])
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
    frames, rows, lines, faults = [], [], [], []
    try:
        header = next(reader, [])
        schema = dict.fromkeys(header, pl.String)
        begin = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                lines.append(begin)
            elif row:
                faults.append((f" line {begin}", f"has {len(row)} cells, line 1 has {len(header)}"))
            begin = reader.line_num + 1
            if len(rows) == ROWS_A_STEP:
                frames.append(pl.DataFrame(rows, schema=schema, orient="row"))
                rows = []
    except csv.Error as error:
        long = f"a cell has more than {LONGEST_CELL} characters"
        why = long if "field larger" in str(error) else str(error)
        raise _Unusable([*faults, (f" line {reader.line_num}", f"{why}: is a quotation mark missing?")]) from None
    if twice := sorted({name for name in header if header.count(name) > 1}):
        faults.append((" line 1", f"has a column twice: {', '.join(map(visible, twice))}"))
    if faults:
        raise _Unusable(faults)
    whole = pl.concat([*frames, pl.DataFrame(rows, schema=schema, orient="row")])
    return whole.with_columns(pl.all().replace("", None)).insert_column(0, pl.Series("line", lines, dtype=pl.Int64))


def _line_of(data: bytes, position: int) -> str:
    return f" line {data.count(10, 0, position) + 1}"


def _plain_csv(data: bytes) -> pl.DataFrame | None:
    """Return the rows of a table without quotes, several times as fast; None where that may be wrong.

    Polars refuses a row with more cells than the header and fills one with fewer: the number of commas tells.
    """
    head = data.partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r").split(",")
    if b'"' in data or b"\0" in data or data.count(b"\r") != data.count(b"\r\n") or len(set(head)) != len(head):
        return None
    if len(head) == 1 and head != [FILE_NAME]:
        return None
    try:
        rows = pl.read_csv(data, infer_schema=False, quote_char=None)
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        return None
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    whole = lines == len(rows) + 1 and data.count(b",") == lines * (len(head) - 1) and rows.columns == head
    if not whole or rows.select(pl.all().str.len_bytes().max() > LONGEST_CELL).transpose().to_series().any():
        return None
    return rows.insert_column(0, pl.Series("line", range(2, len(rows) + 2), dtype=pl.Int64))


def _jsonl(data: bytes) -> pl.DataFrame:
    faults, rows, lines = [], [], []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable([(f" line {data[: error.start].count(10) + 1}", "is not UTF-8")]) from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            faults.append((f" line {number}", f"is not JSON: {error}"))
            continue
        if not isinstance(row, dict):
            faults.append((f" line {number}", "is no object such as {" + f'"{FILE_NAME}": "1.jpg"' + "}"))
            continue
        rows.append(row)
        lines.append(number)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        cells = [row.get(name) for row in rows]
        columns.append(_native(name, cells, [f" line {line}" for line in lines], faults))
    if faults:
        raise _Unusable(faults)
    return pl.DataFrame({"line": pl.Series(lines, dtype=pl.Int64)}).hstack(columns)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key is there twice")
    return row


def _native(name: str, cells: list, places: list[str], faults: list[tuple[str, str]]) -> pl.Series:
    """Return a column of JSON values: of one type; or as text where they are of several."""
    for place, cell in zip(places, cells, strict=True):
        if isinstance(cell, dict) or (isinstance(cell, list) and not all(isinstance(each, str) for each in cell)):
            faults.append((place, f"{visible(name)} is neither a text, a number, true, false nor a list of texts"))
    if faults:
        return pl.Series(name, [], dtype=pl.String)
    cells = [";".join(cell) or NONE if isinstance(cell, list) else cell for cell in cells]
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {bool}:
        return pl.Series(name, cells, dtype=pl.Boolean)
    if kinds == {int} and all(-(2**63) <= cell < 2**63 for cell in cells if cell is not None):
        return pl.Series(name, cells, dtype=pl.Int64)
    if kinds and kinds <= {int, float}:
        return pl.Series(name, [None if cell is None else float(cell) for cell in cells], dtype=pl.Float64)
    texts = [cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells]
    return pl.Series(name, texts, dtype=pl.String).replace("", None)


def _parquet(data: bytes) -> pl.DataFrame:
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except Exception as error:  # noqa: BLE001  (polars' errors have several bases, and a panic is one)
        raise _Unusable([("", f"is no Parquet file that can be read: {str(error).splitlines()[0]}")]) from None
    columns, faults = [], []
    for column in rows:
        kind = column.dtype
        if kind == pl.List(pl.String):
            columns.append(column.list.join(";").replace("", NONE))
        elif kind in (pl.String, pl.Categorical, pl.Enum):
            columns.append(column.cast(pl.String).replace("", None))
        elif kind.is_integer() and kind != pl.UInt64:
            columns.append(column.cast(pl.Int64))
        elif kind.is_numeric():
            columns.append(column.cast(pl.Float64))
        elif kind in (pl.Boolean, pl.Date):
            columns.append(column)
        elif kind == pl.Null:
            columns.append(column.cast(pl.String))
        else:
            faults.append(
                ("", f"the column {visible(column.name)} is of type {kind}: make it text, number, true/false or date")
            )
    if faults:
        raise _Unusable(faults)
    return pl.DataFrame({"line": pl.Series(range(1, len(rows) + 1), dtype=pl.Int64)}).hstack(columns)


def _placed(
    raw: Path, table: str, rows: pl.DataFrame, here: _Here, faults: list[str]
) -> tuple[pl.DataFrame, list[tuple[str, int, str]]]:
    """Return a table with `path` in place of `file_name`, and `line`; and the rows without an image, in words."""
    folder, kept, paths, lost, seen = posixpath.dirname(table), [], [], [], {}
    shown = visible(str(raw / table))
    for number, (line, name) in enumerate(rows.select("line", pl.col(FILE_NAME).cast(pl.String)).iter_rows()):
        place = f"{shown} line {line}"
        if not name:
            faults.append(f"{place}: {FILE_NAME} is empty")
            continue
        path = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
        inside = (
            not name.startswith("/") and not path.startswith("../") and (not folder or path.startswith(f"{folder}/"))
        )
        if not inside:
            faults.append(f"{place}: {visible(name)} leads out of the table's folder")
        elif not (found := here.find(path)):
            lost.append((table, line, name))
        elif found in seen:
            faults.append(f"{place}: a second row of {visible(name)}, whose first is in line {seen[found]}")
        else:
            seen[found] = line
            kept.append(number)
            paths.append(found)
    placed = rows[kept].drop(FILE_NAME).insert_column(0, pl.Series("path", paths, dtype=pl.String))
    return placed, lost


def _places(lines: Lines, column: str, paths: pl.Series) -> list[str]:
    """Return, for each image, the tables and lines that have a cell of `column`, in words."""
    places = pl.DataFrame({"path": paths})
    for number, (table, of_table, columns) in enumerate(lines):
        if column in columns:
            words = pl.format("{} line {}", pl.lit(table), "line").alias(str(number))
            places = places.join(of_table.select("path", words), on="path", how="left", maintain_order="left")
    said = pl.concat_str(pl.exclude("path"), separator=" and ", ignore_nulls=True)
    return places.select(said).to_series().to_list() if places.width > 1 else [visible(path) for path in paths]


def _joined(frames: list[pl.DataFrame], lines: Lines, faults: list[str]) -> pl.DataFrame:
    """Return all tables as one: their columns add up, and where two have the same, one of them has a cell."""
    whole = pl.DataFrame({"path": pl.Series([], dtype=pl.String)})
    for frame in frames:
        if whole.width == 1 and whole.is_empty():
            whole = frame
            continue
        both = [name for name in frame.columns[1:] if name in whole.columns]
        for name in both:  # "1" in a CSV file and 1 in Parquet are the same cell
            if whole[name].dtype != frame[name].dtype:
                whole, frame = (each.with_columns(pl.col(name).cast(pl.String)) for each in (whole, frame))
        whole = whole.join(frame, on="path", how="full", coalesce=True, suffix=" of another table")
        for name in both:
            other = f"{name} of another table"
            differing = whole.filter(pl.col(name) != pl.col(other)).select("path", name, other)
            differing = differing.sort("path")
            for (path, *cells), place in zip(differing.rows(), _places(lines, name, differing["path"]), strict=True):
                one, two = (visible(repr(cell)[:50]) for cell in cells)
                faults.append(f"{place}: two tables disagree about {visible(name)} of {visible(path)}: {one}, {two}")
            whole = whole.with_columns(pl.coalesce(name, other).alias(name)).drop(other)
    return whole.sort("path").select("path", *sorted(whole.columns[1:]))


def _typed(rows: pl.DataFrame, types: Mapping[str, str], lines: Lines, faults: list[str]) -> pl.DataFrame:
    """Return the columns with the types that are asked for, or that all their texts have."""
    if unknown := sorted(types.keys() - set(rows.columns[1:])) if rows.width > 1 else []:
        faults.append(f"labels.types in params.yaml: no table has the columns {', '.join(map(visible, unknown))}")
    columns = [rows["path"]]
    for column in rows.iter_columns():
        if column.name == "path":
            continue
        kind = types.get(column.name) or (_kind_of(column) if column.dtype == pl.String else "")
        made = _cast(column, kind) if kind else column
        wrong = column.is_not_null() & made.is_null()
        paths = rows["path"].filter(wrong)
        for place, path, cell in zip(_places(lines, column.name, paths), paths, column.filter(wrong), strict=True):
            said = f"{visible(repr(cell)[:50])} is no {kind}, as labels.types says"
            faults.append(f"{place}: {visible(column.name)} of {visible(path)}: {said}")
        columns.append(made)
    return pl.DataFrame(columns)


def _kind_of(column: pl.Series) -> str:
    """Return the type that all texts of a column have."""
    cells = column.drop_nulls()
    for kind, pattern in PATTERNS.items():
        whole = f"^(?:{pattern})$"
        if len(cells) and cells.head(1000).str.contains(whole).all() and cells.str.contains(whole).all():
            if kind == "number" and cells.str.contains(f"^(?:{LEADING_ZERO})$").any():
                continue
            if _cast(cells, kind).null_count() == 0:
                return kind
    return "text"


def _cast(column: pl.Series, kind: str) -> pl.Series:
    """Return the column with this type; null where a cell does not fit."""
    if column.dtype == pl.String and kind == "boolean":
        return column.str.to_lowercase().replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
    if column.dtype == pl.String and kind == "date":
        return column.str.to_date("%Y-%m-%d", strict=False)
    return column.cast(TYPES[kind], strict=False)
