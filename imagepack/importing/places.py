"""Where the images of a source go below data/raw: one place each, which any system can have, and none outside."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from imagepack.images import zips
from imagepack.images.raw_names import LONGEST_NAME, as_text, is_junk, is_table
from imagepack.importing.sources import Image
from imagepack.names import visible


def place_all(images: Iterable[Image]) -> tuple[dict[str, Image], list[str]]:
    """Return the images by their paths below the batch, and why others have none, a line each.

    Where two would have one path, the later one's name begins with the folders that it came from: valid-1.png. Where
    that is taken too, it ends in a number.
    """
    placed, faults, lower, counts = {}, [], set(), Counter()
    for image in images:
        name = image.origin.rpartition("/")[2]
        path = f"{image.folder}/{name}"
        if path.lower() in lower:
            path = longer = f"{image.folder}/{longer_name(image)}"
            while path.lower() in lower:
                counts[longer] += 1
                path = f"{longer.rpartition('.')[0]}-{counts[longer] + 1}.{longer.rpartition('.')[2]}"
        if fault := fault_of(path):
            faults.append(f"{visible(as_text(image.origin))}: {fault}")
        else:
            placed[path] = image
            lower.add(path.lower())
    return placed, faults


def as_they_are(images: Iterable[Image]) -> tuple[dict[str, Image], list[str]]:
    """Return the files of another data/raw by their paths, which are those there."""
    placed = {image.origin: image for image in images}
    faults = [f"{visible(path)}: {fault}" for path in placed if (fault := zips.fault_of_name(path))]
    return placed, faults


def longer_name(image: Image) -> str:
    """Return a name with the folders that the image came from, but those that it goes to."""
    *folders, name = image.origin.split("/")
    here = image.folder.split("/")
    came_from = folders[: -len(here)] if folders[-len(here) :] == here else folders
    return "-".join([*came_from, name])


def fault_of(path: str) -> str:
    """Return why no file of data/raw may be called so; empty if it may."""
    parts = path.split("/")
    if as_text(path) != path:
        return "has a name that is not valid UTF-8: rename it"
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path or "\\" in path:
        return f"would lie in {path!r}, which is no place below data/raw"
    if any(not part.isprintable() for part in parts):
        return "has a name that no terminal shows: rename it"
    if is_junk(path) or is_table(path):
        return f"would lie in {path!r}, which is no place of an image: rename it"
    if max(len(os.fsencode(part)) for part in PurePosixPath(path).parts) > LONGEST_NAME:
        return f"would have a name of more than {LONGEST_NAME} bytes: rename it"
    return ""
