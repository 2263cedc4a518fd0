"""Parquet shards with an image column and Hugging Face's features: what `datasets.load_dataset` and the Hub read."""

import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import polars as pl

from imagepack.exporting.selection import Selection

SHARD_BYTES = 128 * 2**20
"""A file is made in memory."""
ROW_GROUP = 100
"""Rows: the Hub's viewer reads as many at a time of datasets of images."""
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""As the Hub calls them."""
TEXT_FEATURE = {"dtype": "string", "_type": "Value"}
ARROW_SCHEMA, NOTHING = b"ARROW:schema", b"polars_types"
DTYPES = {
    pl.Int64: "int64",
    pl.Float64: "float64",
    pl.Float32: "float32",
    pl.Boolean: "bool",
    pl.Date: "date32",
    pl.String: "string",
}


def write(selection: Selection, folder: Path, step: Callable[[], None], shard_bytes: int = SHARD_BYTES) -> None:
    """Write data/train-00000-of-00002.parquet, ..., data/validation-00000-of-00001.parquet, ....

    Args:
        selection: what to write.
        folder: an empty one.
        step: called after each image.
        shard_bytes: a file is ended once it has so many, of images.
    """
    (folder / "data").mkdir()
    for split in selection.splits:
        parts = []
        for shard in _shards(selection.of_split(split), step, shard_bytes):
            parts.append(folder / "data" / f"{len(parts)}.part")
            parts[-1].write_bytes(content(shard, features(selection)))
        for number, part in enumerate(parts):
            part.rename(part.with_name(f"{SPLIT_NAMES[split]}-{number:05}-of-{len(parts):05}.parquet"))


def content(table: pl.DataFrame, features: dict[str, dict]) -> memoryview:
    """Return a Parquet file that says Hugging Face's features of its columns.

    Beside them polars writes a schema of Arrow's, which has none and which pyarrow would take in their place: here it
    gets a name that means nothing. What is left are Parquet's own types, those that Hugging Face's features name.
    """
    metadata = {"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)}
    stream = io.BytesIO()  # polars itself does not say that a disk is full
    table.write_parquet(stream, compression="zstd", statistics=False, row_group_size=ROW_GROUP, metadata=metadata)
    written = stream.getbuffer()
    (length,) = struct.unpack("<I", written[-8:-4])
    start = len(written) - 8 - length
    place = start + bytes(written[start:]).rindex(ARROW_SCHEMA)
    written[place : place + len(ARROW_SCHEMA)] = NOTHING
    return written


def _shards(part: Selection, step: Callable[[], None], shard_bytes: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of one file after the other."""
    facts = rows(part)
    names = [image_name(path, part.suffix) for path in facts["path"]]
    files, start, size = [], 0, 0
    for file in part.files():
        files.append(file)
        size += len(file)
        step()
        if size >= shard_bytes or start + len(files) == len(part):
            taken = slice(start, start + len(files))
            images = pl.DataFrame({"bytes": files, "path": names[taken]}).to_struct("image")
            files, start, size = [], taken.stop, 0  # before the file is made: all of it is in memory
            yield facts[taken].insert_column(0, images)


def rows(part: Selection) -> pl.DataFrame:
    """Return the facts with positions in the classes in place of their names, as ClassLabel has them."""
    positions = {name: position for position, name in enumerate(part.classes)}
    facts = part.facts
    if "labels" in facts:
        lists = [[positions[name] for name in names] for names in facts["labels"]]
        return facts.with_columns(labels=pl.Series(lists, dtype=pl.List(pl.Int64)))
    return facts.with_columns(label=pl.Series(part.labels)) if part.of_classes else facts.clone()


def image_name(path: str, suffix: str | None) -> str:
    """Return what the file of an image is called."""
    name = PurePosixPath(path)
    return name.name if suffix is None else f"{name.stem}{suffix}"


def features(selection: Selection) -> dict[str, dict]:
    """Return Hugging Face's features of the columns, as JSON has them."""
    found: dict[str, dict] = {"image": {"_type": "Image"}}
    for name, dtype in selection.facts.schema.items():
        if name == "labels" or (name == "label" and selection.of_classes):
            feature = {"names": selection.classes, "_type": "ClassLabel"}
        else:
            inner = dtype.inner if isinstance(dtype, pl.List) else dtype
            feature = {"dtype": DTYPES[inner.base_type()], "_type": "Value"}
        found[name] = {"feature": feature, "_type": "List"} if isinstance(dtype, pl.List) else feature
    return found
