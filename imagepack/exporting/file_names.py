"""Names for exported files: those that the images have, unique, and such that every disk and library takes them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

LONGEST = 200
"""Bytes of a name; file systems take 255."""
UNSAFE = re.compile(r'[<>:"|?*\\/%#\[\]\x00-\x1f\x7f]|[. ]$|^\.|^__|^(?=(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))', re.I)
"""What Windows does not take in a name; what glob patterns and addresses mean something else by; and how names begin
that Hugging Face's loaders pass over as hidden."""


def safe(name: str) -> str:
    """Return a name for a file or folder, with %3A and the like for what not every disk or library takes."""
    escaped = UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()) or "%5F", name)
    return escaped or "%5F"


def unique_names(paths: Sequence[str], folders: Sequence[str], ids: Sequence[str], suffix: str | None) -> list[str]:
    """Return a file name for each image, N: no two in a folder are the same, nor differ in case or accents alone.

    The first of these that no other image has: the name of its file; that with the file's own suffix before the new
    one; its whole path, with - for /, likewise; its path and its id.

    Args:
        paths: below data/raw.
        folders: in which each is to be.
        ids: hexadecimal.
        suffix: ".png", in place of the file's own; None to keep that.
    """
    names = [""] * len(paths)
    taken: set[str] = set()
    pending = range(len(paths))
    for candidate in (_name, _name_with_its_suffix, _path, _path_with_its_suffix):
        found = [candidate(paths[i], suffix) for i in pending]
        keys = [_key(folders[i], name) for i, name in zip(pending, found, strict=True)]
        counts, left = Counter(keys), []
        for i, name, key in zip(pending, found, keys, strict=True):
            if counts[key] > 1 or key in taken or len(name.encode()) > LONGEST:
                left.append(i)
            else:
                names[i] = name
        taken.update(_key(folders[i], names[i]) for i in pending if names[i])
        if not (pending := left):
            return names
    for i in pending:
        names[i] = _name_with_id(paths[i], ids[i], suffix, folders[i], taken)
        taken.add(_key(folders[i], names[i]))
    return names


def _key(folder: str, name: str) -> str:
    """Return what two names share that a disk may take for one."""
    path = f"{folder}/{name}"
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).lower()


def _name(path: str, suffix: str | None) -> str:
    name = PurePosixPath(path)
    return safe(name.name) if suffix is None else safe(name.stem) + suffix


def _name_with_its_suffix(path: str, suffix: str | None) -> str:
    return safe(PurePosixPath(path).name) + (suffix or "")


def _path(path: str, suffix: str | None) -> str:
    return _name(path.replace("/", "-"), suffix)


def _path_with_its_suffix(path: str, suffix: str | None) -> str:
    return _name_with_its_suffix(path.replace("/", "-"), suffix)


def _name_with_id(path: str, digest: str, suffix: str | None, folder: str, taken: set[str]) -> str:
    """Return the beginning of the path, the id and, where several images have that, a number."""
    start = _path(path, "").encode()[: LONGEST // 2].decode(errors="ignore")
    end, number = suffix or safe(PurePosixPath(path).suffix[:10]), 1
    name = f"{start}-{digest[:16]}{end}"
    while _key(folder, name) in taken:
        number += 1
        name = f"{start}-{digest[:16]}-{number}{end}"
    return name
