"""A table for people and spreadsheets: every image, whether it was accepted, and what validate found about it."""

import polars as pl

from imagepack.checks.validation_reports import without_formulas
from imagepack.compare.versions import Version
from imagepack.errors import InputError
from imagepack.exporting.selection import exported_names
from imagepack.images.manifest import COLUMN

FACTS = ("path", "label", "batch", "split", "status", "findings", "seen", "id", "format", "width", "height", "bytes")
MEASURES = ("brightness", "contrast", "saturation", "entropy", "sharpness")


def table(version: Version, splits: list[str]) -> bytes:
    """Return a CSV of the images of a version, also of those that were rejected or excluded.

    Args:
        version: of the dataset.
        splits: images of these alone; of all, and those that have none, if empty.

    Raises:
        InputError: there is no such image.
    """
    images = version.images.filter(pl.col("split").is_in(splits)) if splits else version.images
    if not len(images):
        raise InputError(f"{version.name} has no image in {' and '.join(splits)}")
    theirs = [name for name in images.columns if name.startswith(COLUMN)]
    names = exported_names([name.removeprefix(COLUMN) for name in theirs], (*FACTS, *MEASURES))
    rows = images.with_columns(
        findings=pl.col("issues").list.join(";"), seen=pl.col("seen").list.join("; "), id=pl.col("sha256")
    )
    columns = [pl.col(old).alias(new) for old, new in zip(theirs, names, strict=True)]
    return without_formulas(rows.select(*FACTS, *MEASURES, *columns)).write_csv().encode()
