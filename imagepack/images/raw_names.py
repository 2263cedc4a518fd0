"""What the names and places of files below data/raw say: label and batch, junk, and names that not every disk takes."""

import os
import re
from fnmatch import translate
from pathlib import Path

import polars as pl

from imagepack.images import zips

RawFile = str | zips.Member
"""A file by its path below data/raw, with /, or a member of a zip, whose str() that is."""
LONGEST_NAME = 255 - len(".png")
"""Bytes; file systems take 255, and preprocess adds an extension."""
JUNK = (
    *(".DS_Store", "._*", "__MACOSX", ".AppleDouble", ".Spotlight-V100", ".fseventsd", ".Trash*", ".TemporaryItems"),
    *("Thumbs.db", "Thumbs.db:*", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),
    *(".directory", ".thumbnails", "lost+found", "@eaDir", "#recycle", "@Recycle", ".@__thumb"),
    *(".git*", ".hg", ".dvc", ".ipynb_checkpoints"),
)
"""Files that macOS, Windows, Linux, network disks (Synology, QNAP) and programs leave, and folders of such files."""
_JUNK = re.compile("|".join(map(translate, JUNK)), re.IGNORECASE)
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of files that say something of the images at or below their folder (tables.py)."""
PINNED = "pinned.parquet"
"""The file directly in data/raw that says which splits images keep (pins.py)."""
FRAME = re.compile(r"#[0-9]+$")
"""How the path of a frame ends, where validate.multi_frame is split."""
NON_PORTABLE = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
"""What Windows does not take in a file's or folder's name (Microsoft, Naming Files, Paths, and Namespaces)."""


def place_of(raw: Path, file: RawFile, split: bool) -> tuple[tuple[str, str, str], list[tuple[str, str]]]:
    """Return path, label and batch, and what is wrong with them; `split`: whether frames become images."""
    path = str(file)
    readable = as_text(path)
    *folders, name = path.split("/")
    *batch, label = readable.split("/")[:-1] or ("",)
    found = []
    if any(map(is_junk, folders)):
        return (readable, "", ""), found  # its folder is no class
    if readable != path:
        found.append(("bad_name", "a name that is not valid UTF-8"))
    if (length := len(os.fsencode(name))) > LONGEST_NAME:
        found.append(("bad_name", f"a name of {length} bytes, more than {LONGEST_NAME}"))
    if readable == path and (strange := [part for part in (*folders, name) if NON_PORTABLE.search(part)]):
        found.append(("non_portable_name", f"Windows takes no name such as {strange[0]!r}"))
    loose = isinstance(file, str)
    if loose and (raw / path).is_symlink() and not (target := _real(raw / path)).is_relative_to(_real(raw)):
        found.append(("outside_link", f"leads to {as_text(str(target))}"))
    if split and FRAME.search(path):
        found.append(("bad_name", "a name that ends as those of frames do"))
    if not label:
        found.append(("no_label", f"stands directly in {raw}"))
    return (readable, label, "/".join(batch)), found


def is_table(path: str) -> bool:
    """Return whether the file so called is a table about images, and no image itself."""
    return path == PINNED or path.rpartition("/")[2].lower() in TABLES


def is_junk(path: str) -> bool:
    """Return whether a system or a program left the file there."""
    return any(map(_JUNK.match, path.split("/")))


def as_text(name: str) -> str:
    """Return a name as text, whatever bytes it consists of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _real(path: Path) -> Path:
    """Return where links lead; unlike Path.resolve it takes one that leads to itself."""
    return Path(os.path.realpath(path))


def name_collisions(table: pl.DataFrame) -> list[tuple[str, str, str, str]]:
    """Find files whose names, or class folders' names, are one on disks that ignore case or how accents are written.

    Returns:
        Findings: path, code, what was seen, the other's path; one a file. Of such folders the first is left alone.
    """
    whole = table.select("path", "frame").filter(pl.col("frame") <= 1)
    found = {}
    for column, what in (
        (pl.col("path").str.replace(r"/?[^/]*$", ""), "in the same folder as"),
        ("path", "the same file as"),
    ):
        named = whole.select("path", name=column).with_columns(
            key=pl.col("name").str.normalize("NFC").str.to_lowercase()
        )
        clashing = named.unique(("key", "name")).filter(pl.col("key").is_duplicated())["key"]
        named = named.filter(pl.col("key").is_in(clashing.implode()))  # mostly none: to sort all takes much memory
        named = named.filter(pl.Series([not is_junk(path) for path in named["path"]], dtype=pl.Boolean))
        firsts = named.sort("key", "name", "path").with_columns(
            pl.col("path", "name").first().over("key").name.suffix("_1")
        )
        others = firsts.filter(pl.col("name") != pl.col("name_1"))
        found |= {
            path: (f"{what} {name}", first) for path, name, first in others.select("path", "name_1", "path_1").rows()
        }
    return [(path, "name_collision", seen, first) for path, (seen, first) in found.items()]


def leads_out(root: Path, place: Path) -> bool:
    """Return whether a folder on the way from `root` to `place` below it is a link."""
    return Path(os.path.realpath(place.parent)) != root.resolve() / place.parent.relative_to(root)
