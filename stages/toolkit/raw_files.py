"""The files below data/raw before anything is decoded: which there are, what their names and places say."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import polars as pl
from pathspec import GitIgnoreSpec

from stages.toolkit.errors import InputError
from stages.toolkit.images import Fault

LONGEST_NAME = 255 - len(".png")
"""Bytes; file systems take 255, and preprocess adds an extension."""
JUNK = (".DS_Store", "._*", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".git*", "__MACOSX")
"""What macOS, Windows, KDE and git leave in folders; a file below a folder so called is junk too."""
FRAME = re.compile(r"#[0-9]+$")
"""How validate.multi_frame: split calls the frames of a file."""
NON_PORTABLE = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
"""Of a file's or folder's name, what Windows does not take (Microsoft, Naming Files, Paths, and Namespaces)."""


def find(raw: Path) -> tuple[list[str], int]:
    """Every file under `raw` that DVC tracks, relative to it, with `/`, in a fixed order; and how many it ignores.

    A folder that is a link counts as a file.
    """
    rules = Path(".dvcignore")
    ignore = GitIgnoreSpec.from_lines(rules.read_text(encoding="utf-8").splitlines() if rules.exists() else [])
    found, ignored = [], 0
    for folder, folders, names in os.walk(raw, onerror=_refuse):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted(names + links):
            path = Path(folder, name)
            if ignore.match_file(path.as_posix()):
                ignored += 1
            else:
                found.append(path.relative_to(raw).as_posix())
    return found, ignored


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed would otherwise be passed over in silence."""
    if not isinstance(error, FileNotFoundError):
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): check its permissions")


def place(raw: Path, path: str, split: bool) -> tuple[tuple[str, str, str], list[tuple[str, str]]]:
    """Path, label and batch, and what is wrong with them; `split`: whether frames become images."""
    readable = os.fsencode(path).decode("utf-8", "backslashreplace")
    *batch, label = PurePosixPath(readable).parts[:-1] or ("",)
    found = []
    if readable != path:
        found.append(("bad_name", "a name that is not valid UTF-8"))
    if (length := len(os.fsencode(PurePosixPath(path).name))) > LONGEST_NAME:
        found.append(("bad_name", f"a name of {length} bytes, more than {LONGEST_NAME}"))
    if readable == path and (strange := [part for part in PurePosixPath(path).parts if NON_PORTABLE.search(part)]):
        found.append(("non_portable_name", f"Windows takes no name such as {strange[0]!r}"))
    if (raw / path).is_symlink() and not (target := _real(raw / path)).is_relative_to(_real(raw)):
        found.append(("outside_link", f"leads to {os.fsencode(target).decode('utf-8', 'backslashreplace')}"))
    if split and FRAME.search(path):
        found.append(("bad_name", "a name that ends as those of frames do"))
    if not label:
        found.append(("no_label", f"stands directly in {raw}"))
    return (readable, label, "/".join(batch)), found


def untrackable(folder: Path | str) -> list[str]:
    """What DVC stops at below `folder`, in words that do not say where: a line a file."""
    faults = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        if shown != entry.path:
            faults.append(f"{shown}: its name is not valid UTF-8: rename it")
        elif entry.is_symlink() and not Path(entry.path).exists():
            faults.append(f"{shown}: a link that leads nowhere: remove it, or put the image there")
        elif entry.is_dir(follow_symlinks=False):
            faults += untrackable(entry.path)
    return faults


def _real(path: Path) -> Path:
    """Where links lead; unlike Path.resolve it takes one that leads to itself."""
    return Path(os.path.realpath(path))


def is_junk(path: str) -> bool:
    """Whether a system or a program left the file there."""
    return any(fnmatch(part, pattern) for part in PurePosixPath(path).parts for pattern in JUNK)


def read(path: Path) -> bytes:
    """The whole file.

    Raises:
        Fault: unreadable or empty_file.
    """
    try:
        if path.exists() and not path.is_file():  # to read a pipe or a device would never end
            raise Fault("unreadable", "is not a file")
        data = path.read_bytes()
    except OSError as error:
        raise Fault("unreadable", error.strerror or str(error)) from None
    if not data:
        raise Fault("empty_file", "0 bytes")
    return data


def name_collisions(table: pl.DataFrame) -> list[tuple[str, str, str, str]]:
    """Files whose names, or whose class folders', are one on disks that ignore case or the way accents are written.

    Returns:
        Findings: path, code, what was seen, the other's path; one a file. Of such folders the first is left alone.
    """
    whole = table.filter(pl.col("frame") <= 1)
    found = {}
    for column, what in (
        (pl.col("path").str.replace(r"/?[^/]*$", ""), "in the same folder as"),
        ("path", "the same file as"),
    ):
        named = whole.select("path", name=column).with_columns(
            key=pl.col("name").str.normalize("NFC").str.to_lowercase()
        )
        firsts = named.sort("key", "name", "path").with_columns(
            pl.col("path", "name").first().over("key").name.suffix("_1")
        )
        others = firsts.filter(pl.col("name") != pl.col("name_1"))
        found |= {
            path: (f"{what} {name}", first) for path, name, first in others.select("path", "name_1", "path_1").rows()
        }
    return [(path, "name_collision", seen, first) for path, (seen, first) in found.items()]
