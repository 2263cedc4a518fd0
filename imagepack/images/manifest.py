"""data/validated/manifest.parquet: a row an image file, in the order in which packs hold them."""

import hashlib
import io
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

FACTS = {
    "path": pl.String,  # below data/raw, with /; of a frame after the first, # and its number behind
    "label": pl.String,  # the parent folder; empty without one
    "batch": pl.String,  # what stands above the label; mostly empty
    "sha256": pl.String,  # of the file's bytes, hexadecimal: the image's id; empty if it could not be read
    "bytes": pl.Int64,
    "format": pl.String,  # JPEG, PNG, ... by content; empty if it is no image
    "mode": pl.String,  # Pillow's name for the kind of pixels: RGB, L, P, ...
    "kind": pl.String,  # the mode and what else decides how it is read: "P with transparency"
    "width": pl.Int32,  # pixels, as stored; 0 if unknown
    "height": pl.Int32,
    "orientation": pl.Int8,  # EXIF, 1 to 8; 1 is upright
    "frame": pl.Int32,  # 1 is the first; others have a row of their own where validate.multi_frame is split
    "frames": pl.Int32,  # of the file; 0 if unknown, as is frame
    "pixel_hash": pl.String,  # equal where the same pixels are seen
    "perceptual_hash": pl.String,  # 256 bits, hexadecimal; nearly equal where images look alike
    "brightness": pl.Float32,  # as in appearance.Appearance, and so are the next four; null if unknown
    "contrast": pl.Float32,
    "saturation": pl.Float32,
    "entropy": pl.Float32,
    "sharpness": pl.Float32,
    "signature": pl.UInt32,  # where among the signatures, which are apart, its is; left out of the file
}
"""What validate finds out about each file by itself. The manifest also has `status` (accepted or rejected), `issues`
(a list of codes), `seen` (what was seen, for each) and `group` (a name that images which look alike share; else empty).
"""

COLUMN = "column:"
"""How the name of a column begins that comes from a table beside the images; the table's own name for it follows."""
LABEL, NUMBER = "label:", "number:"
"""How the names of columns begin that hold what is predicted, where it is several labels or numbers: a label's name
follows (cells are true or false), or a number's (float32). `label` then has them all in a text."""
SEPARATOR, NO_LABELS = ";", ";"
"""Between the labels of an image, as in a table's cell; and what stands for none of the labels."""
FILE = pl.when(pl.col("frame") > 1).then(pl.col("path").str.replace(r"#[0-9]+$", "")).otherwise("path")
"""The file in which the image of a row is stored."""
ROWS_A_STEP = 4096
"""Rows that are put into a table in one step: tuples take more memory than a table, and so do very small tables."""


def of_rows(rows: Iterable[tuple]) -> pl.DataFrame:
    """Return rows of facts, a tuple each in the order of FACTS, as a table; there must be one at least."""
    rows, frames = iter(rows), []
    while some := list(islice(rows, ROWS_A_STEP)):
        frames.append(pl.DataFrame(some, schema=FACTS, orient="row"))
    return pl.concat(frames)


def file_of(path: str, frame: int) -> str:
    """Return the file in which the image with this path is stored: the path of a later frame ends in its number."""
    return path.removesuffix(f"#{frame}") if frame > 1 else path


def frame_id(digest: str, number: int) -> str:
    """Return the id of a frame of the file with this sha256: of the first frame that itself.

    A later one has 64 digits that begin with the same 16, which decide the split.
    """
    return digest if number == 1 else digest[:16] + hashlib.sha256(f"{digest}#{number}".encode()).hexdigest()[16:]


def in_order(manifest: pl.DataFrame) -> pl.DataFrame:
    """Sort, in place, by batch, file name and label, numbers in names by their value: img2 before img10.

    By name before label, so that an image moved to another class keeps its neighbours in the pack.
    """
    name = FILE.str.split("/").list.last()
    stem = name.str.replace(r"\.[^.]*$", "")  # so that harp.jpg comes before harp-copy.jpg
    keys = (_natural(pl.col("batch")), "batch", _natural(stem), name, "label", "frame", "path")
    order = manifest.select(pl.arg_sort_by(*keys)).to_series()
    for number, column in enumerate(manifest.columns):  # one after the other: never is the whole table there twice
        manifest.replace_column(number, manifest[column].gather(order))
    return manifest


def _natural(text: pl.Expr) -> pl.Expr:
    """Pad each number to 20 digits: then text order is natural order."""
    padded = text.str.replace_all(r"[0-9]+", "0" * 20 + "${0}")
    return padded.str.replace_all(r"[0-9]*([0-9]{20})", "${1}")


def write(manifest: pl.DataFrame, path: Path) -> None:
    """Write `manifest`, making the folder; the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()  # polars itself does not say that a disk is full
    manifest.write_parquet(file, compression="zstd", statistics=False)
    path.write_bytes(file.getbuffer())


def read_accepted(path: Path, *columns: str) -> pl.DataFrame:
    """Read the rows of the images that the later stages use; these columns of them, or all where none is named."""
    return accepted(pl.read_parquet(path, columns=["status", *columns] if columns else None))


def accepted(manifest: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the images that are used."""
    return manifest.filter(pl.col("status") == "accepted")


def read_columns(path: Path) -> pl.DataFrame:
    """Return what tables say of the images that `read_accepted` returns, by the tables' names of their columns."""
    names = [name for name in pl.read_parquet_schema(path) if name.startswith(COLUMN)]
    return read_accepted(path, *names).select(pl.col(name).alias(name.removeprefix(COLUMN)) for name in names)


def label_kind(columns: Iterable[str]) -> str:
    """Return what a manifest with these columns says is predicted: class, multilabel or numbers."""
    found = predicted(columns)
    return "class" if not found else "multilabel" if found[0].startswith(LABEL) else "numbers"


def predicted(columns: Iterable[str]) -> list[str]:
    """Return those of these columns of a manifest that hold several labels or numbers."""
    return [name for name in columns if name.startswith((LABEL, NUMBER))]


def read_predicted(path: Path) -> pl.DataFrame:
    """Return several labels or numbers of the images that `read_accepted` returns; no columns where classes are."""
    names = predicted(pl.read_parquet_schema(path))
    return read_accepted(path, *names).select(names) if names else pl.DataFrame()


def by_label(images: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each image and label it has: `images` itself where it has one class, nothing of numbers.

    Args:
        images: label, and the columns that say what is predicted (`predicted`), of a manifest.
    """
    kind = label_kind(images.columns)
    if kind == "class":
        return images
    if kind == "numbers":
        return images.clear()
    several = images.filter(pl.col("label") != NO_LABELS).with_columns(pl.col("label").str.split(SEPARATOR))
    return several.explode("label")


def images_by_label(images: pl.DataFrame) -> pl.DataFrame:
    """Return label and images, how many have it, by label; of several labels also those that no image has."""
    counts = by_label(images)["label"].value_counts(name="images")
    names = [name.removeprefix(LABEL) for name in predicted(images.columns)]
    if label_kind(images.columns) == "multilabel":
        every = pl.DataFrame({"label": names}, schema={"label": pl.String})
        counts = every.join(counts, on="label", how="left").with_columns(pl.col("images").fill_null(0))
    return counts.sort("label")


def compare_files(path: Path, here: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return which of the files `here` the manifest does not have, and which it has that are not here."""
    rows = pl.read_parquet(path, columns=["path", "frame"])
    validated = rows.filter(pl.col("frame") <= 1).select("path")
    found = pl.DataFrame({"path": list(here)}, schema={"path": pl.String})
    pairs = ((found, validated), (validated, found))
    return tuple(one.join(other, "path", "anti")["path"].sort().to_list() for one, other in pairs)


def hashes(column: pl.Series) -> np.ndarray:
    """Return a column of hexadecimal digits as uint8, (N, 32); zeros where it is empty."""
    return np.fromiter(column.str.decode("hex"), "S32", len(column)).view("u1").reshape(-1, 32)
