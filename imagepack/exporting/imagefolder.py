"""split/class/image files: what torchvision, Keras and Hugging Face's imagefolder read.

Of each image says images.csv, for people, and beside the images of each split metadata.parquet, for Hugging Face. That
would also read a metadata.csv, but find out the type of each column from the cells of a split: in one a column may be
empty that has numbers in another, and then it gives up.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from imagepack.exporting import parquet
from imagepack.exporting.file_names import safe, unique_names
from imagepack.exporting.selection import Selection

METADATA, TABLE_NAME = "metadata.parquet", "images.csv"


def write(selection: Selection, folder: Path, step: Callable[[], None]) -> None:
    """Write the images of each split into a folder of its own, below that one for each class where there are classes.

    A class without an image in a split has an empty folder there, so that its libraries count classes alike in each.

    Args:
        selection: what to write.
        folder: an empty one.
        step: called after each image.
    """
    folders = class_folders(selection.classes) if selection.of_classes else []
    features = parquet.features(selection) | {"file_name": parquet.TEXT_FEATURE}
    del features["image"]
    tables = []
    for split in selection.splits:
        part, there = selection.of_split(split), folder / split
        there.mkdir()
        for name in folders:
            (there / name).mkdir()
        names = file_names(part, folders)
        for name, content in zip(names, part.files(), strict=True):
            (there / name).write_bytes(content)
            step()
        rows = parquet.rows(part).insert_column(0, pl.Series("file_name", names))
        (there / METADATA).write_bytes(parquet.content(rows, features))
        places = [f"{split}/{name}" for name in names]
        own = pl.DataFrame({"file_name": places}).with_columns(split=pl.lit(split))
        tables.append(pl.concat([own, part.facts], how="horizontal"))
    (folder / TABLE_NAME).write_bytes(_csv(pl.concat(tables)))


def file_names(part: Selection, folders: list[str]) -> list[str]:
    """Return the path of each image below the folder of its split."""
    below = [f"{folders[label]}/" for label in part.labels] if folders else [""] * len(part)
    facts = part.facts
    names = unique_names(facts["path"].to_list(), below, facts["id"].to_list(), part.suffix)
    return [place + name for place, name in zip(below, names, strict=True)]


def class_folders(classes: list[str]) -> list[str]:
    """Return a folder name for each class; with a number where a disk might take two for one."""
    found: dict[str, str] = {}
    for name in classes:
        place, number = safe(name), 1
        while place.lower() in found:
            number += 1
            place = f"{safe(name)}~{number}"
        found[place.lower()] = place
    return list(found.values())


def _csv(facts: pl.DataFrame) -> bytes:
    """Return a table; of a list the values with ; between them."""
    lists = [name for name, dtype in facts.schema.items() if isinstance(dtype, pl.List)]
    return (
        facts.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(";") for name in lists).write_csv().encode()
    )
