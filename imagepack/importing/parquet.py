"""Parquet files with an image column, as Hugging Face's `datasets` and its Hub have them, read a few rows at a time."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import polars as pl

from imagepack.errors import InputError
from imagepack.importing.features import class_names as class_names_of
from imagepack.importing.features import features_of, has_numbers, is_cell, is_text, named
from imagepack.importing.labels import NUMBERS, SEVERAL, choose_label_column, settle
from imagepack.importing.sources import NO_CLASS, SPLIT, Image, Source, split_of
from imagepack.names import counted, visible

BYTES_AT_A_TIME = 32 * 2**20
"""Of a file, that are read together."""
SIGNATURES = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
"""How files begin, for rows that have no name."""


def read_parquet(
    top: Path, files: list[Path], label_column: str | None, as_table: bool, class_names: list[str]
) -> Source:
    """Return the images of Parquet files.

    Args:
        top: the folder of the files, whose names and folders say the split.
        files: that belong together.
        label_column: None to take the ClassLabel, or find it by its name.
        as_table: leave all images in one folder, and all columns in the table.
        class_names: of integers, where the files do not say them.
    """
    schema = schema_of(files[0])
    image_column = image_column_of(files[0], schema)
    names = class_names_of(features_of(files[0]))
    notes, faults = [f"column {visible(image_column)} has the images"], []
    faults += [f"{file}: has other columns than {files[0].name}" for file in files if schema_of(file) != schema]
    faults += [
        f"{file}: has other names of classes than {files[0].name}: import them one by one"
        for file in files[1:]
        if class_names_of(features_of(file)) != names
    ]
    columns = [name for name, kind in schema.items() if name != image_column and (is_cell(kind) or has_numbers(kind))]
    if label_column is None and len(names) == 1:
        (label,) = names
        notes.append(f"column {visible(label)} is the class: {', '.join(map(visible, names[label][:10]))}")
    else:
        label = choose_label_column(label_column, columns, notes, faults)
    left = [name for name in schema if name != image_column and (name != label or name not in columns)]
    left = [name for name in left if not is_cell(schema[name])]
    if left:
        notes.append(f"left out, no texts, numbers or dates: {', '.join(f'column {visible(name)}' for name in left)}")
    source = Source("Parquet files", [], lambda wanted: iter(()), notes, faults)
    if faults:
        return source
    columns = [name for name in columns if name not in left]
    taken = {name: kind for name, kind in schema.items() if name in columns}
    if class_names:
        names.pop(label, None)
    without = []
    for file in files:
        split = split_of(file.relative_to(top).as_posix())
        for row, (name, cells) in enumerate(rows_of(file, image_column, taken)):
            cells |= {column: named(cells[column], names[column]) for column in names if column in cells}
            if split:
                cells[SPLIT] = cells.get(SPLIT) or split
            if name is None:
                without.append(f"{file} row {row}")
            else:
                source.images.append(Image((file, row), f"{file.stem}/{name}", NO_CLASS, cells))
    if without:
        more = f" (and {counted(len(without) - 1, 'row')} more)" if len(without) > 1 else ""
        faults.append(f"{without[0]}: no image in column {visible(image_column)}{more}")
    source = Source("Parquet files with images", source.images, partial(read, image_column), notes, faults)
    cells = [image.cells.get(label) for image in source.images] if label in names else []
    used = {name for cell in cells for name in (cell if isinstance(cell, list) else [cell])}
    if unused := [name for name in names.get(label, ()) if name not in used]:
        shown = ", ".join(map(visible, unused[:10])) + ", ..." * (len(unused) > 10)
        notes.append(f"left out, classes that no image has: {shown}")
    source.where = lambda image: f"{image.key[0]} row {image.key[1]}"
    kind = kind_of_type(schema[label]) if label else ""
    settle(source, label, as_table, class_names, kind)
    return source


def kind_of_type(dtype: pl.DataType) -> str:
    """Return what the cells of a label column are, where their type says it; else nothing."""
    if has_numbers(dtype) or dtype.is_float():
        return NUMBERS
    return SEVERAL if isinstance(dtype, pl.List) else ""


def schema_of(file: Path) -> dict[str, pl.DataType]:
    """Return the columns of a file.

    Raises:
        InputError: it is no Parquet file.
    """
    try:
        return dict(pl.read_parquet_schema(file))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{file} is no Parquet file: {str(error).splitlines()[0]}") from None


def image_column_of(file: Path, schema: dict[str, pl.DataType]) -> str:
    """Return the first column of images: a struct of bytes and path, or bytes.

    Raises:
        InputError: there is none.
    """
    for name, kind in schema.items():
        fields = {field.name: field.dtype for field in kind.fields} if isinstance(kind, pl.Struct) else {}
        if kind == pl.Binary or fields.get("bytes") == pl.Binary:
            return name
    found = ", ".join(f"{visible(name)}: {kind}" for name, kind in schema.items())
    raise InputError(f"{file}: no column holds images (a struct of bytes and path, or bytes): {found}")


def rows_of(file: Path, image_column: str, columns: dict[str, pl.DataType]) -> Iterator[tuple[str | None, dict]]:
    """Yield the name of each row's image, None where it has none, and its cells; a few images at a time."""
    image = pl.col(image_column)
    has_names = isinstance(schema_of(file)[image_column], pl.Struct)
    data = image.struct.field("bytes") if has_names else image
    path = image.struct.field("path") if has_names and "path" in path_fields(file, image_column) else pl.lit(None)
    begins = data.bin.head(4).alias("//begins")
    cells = [pl.col(name).cast(pl.String) if is_text(kind) else pl.col(name) for name, kind in columns.items()]
    query = pl.scan_parquet(file, glob=False).select(begins, path.cast(pl.String).alias("//path"), *cells)
    row = 0
    for part in parts(file, query):
        for cells in part.iter_rows(named=True):
            begin, name = cells.pop("//begins"), cells.pop("//path")
            name = (name or "").replace("\\", "/").rpartition("/")[2]
            yield (name or f"{file.stem}-{row:06d}{ending(begin)}") if begin else None, cells
            row += 1


def parts(file: Path, query: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file, a few at a time: `collect_batches` reads so far ahead that it holds all of a file."""
    count = query.select(pl.len()).collect().item()
    rows = max(1, count * BYTES_AT_A_TIME // file.stat().st_size)
    for start in range(0, count, rows):
        yield query.slice(start, rows).collect()


def path_fields(file: Path, image_column: str) -> set[str]:
    """Return the fields of the image column."""
    return {field.name for field in schema_of(file)[image_column].fields}


def ending(begin: bytes) -> str:
    """Return how a file with such first bytes is called."""
    return next((end for signature, end in SIGNATURES.items() if begin.startswith(signature)), ".img")


def read(image_column: str, images: Iterable[Image]) -> Iterator[tuple[Image, bytes]]:
    """Yield the bytes of images, in the order of their rows."""
    by_file: dict[Path, dict[int, Image]] = {}
    for image in images:
        file, row = image.key
        by_file.setdefault(file, {})[row] = image
    for file, wanted in by_file.items():
        data = pl.col(image_column)
        if isinstance(schema_of(file)[image_column], pl.Struct):
            data = data.struct.field("bytes")
        row = 0
        query = pl.scan_parquet(file, glob=False).select(data.alias("bytes"))
        for part in parts(file, query):
            for number in range(len(part)):
                if image := wanted.get(row + number):
                    yield image, part["bytes"][number]
            row += len(part)
