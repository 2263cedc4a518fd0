"""How many damaged JPEGs validate finds, how many Pillow does, and how many good ones are rejected.

    python3 run.py -- python -m benchmarks.jpeg_damage [--images N] [FOLDER ...]

Of each JPEG of the folders (of N generated photographs without any) that has a scan of 8 KiB or more, a copy gets 4 KiB
of zeros somewhere inside its scan. Found is what validate gives an error, and what Pillow cannot decode.
"""

import argparse
import io
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import measure, photographs
from benchmarks.pipeline import positive
from stages.toolkit import endings, images, workers
from stages.toolkit.errors import InputError

HOLE = 4096
"""Bytes."""


def damaged(data: bytes, rng: np.random.Generator) -> bytes | None:
    """`data` with a hole in its longest scan; None where that is too short for one."""
    starts = [end for kind, _, end in endings.jpeg_markers(data) if kind == endings.JPEG_SCAN]
    scans = [(start, endings.JPEG_MARKER.search(data, start)) for start in starts]
    start, end = max(((a, b.start()) for a, b in scans if b), key=lambda scan: scan[1] - scan[0], default=(0, 0))
    if end - start < 2 * HOLE:
        return None
    at = int(rng.integers(start, end - HOLE))
    return data[:at] + bytes(HOLE) + data[at + HOLE :]


def fault(data: bytes) -> str:
    """The code that validate gives a file's pixels, or an empty text."""
    try:
        images.decode_strictly(images.open_image(data), data)
    except images.Fault as found:
        return found.code
    return ""


def pillow_notices(data: bytes) -> bool:
    """Whether Pillow cannot decode it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:  # noqa: BLE001  (whatever Pillow raises)
        return True
    return False


def count(paths: Sequence[Path]) -> tuple[Counter, list[str]]:
    """Counts, and what is wrong with files as they are; runs in a worker."""
    counts, rejected = Counter(), []
    for path in paths:
        data = path.read_bytes()
        if not data.startswith(b"\xff\xd8"):
            continue
        counts["files"] += 1
        if code := fault(data):
            rejected.append(f"{path}: {code}")
        hole = damaged(data, np.random.default_rng(len(data)))
        if hole and hole != data:
            counts.update(damaged=1, found=bool(fault(hole)), pillow=pillow_notices(hole))
    return counts, rejected


def main(folders: Sequence[Path], number: int) -> tuple[Counter, list[str]]:
    """Measure and print; the counts and what was rejected."""
    with tempfile.TemporaryDirectory() as temporary:
        if not folders:
            photographs.generate(Path(temporary), number)
        paths = [
            path for folder in folders or [Path(temporary)] for path in sorted(folder.rglob("*")) if path.is_file()
        ]
        total, rejected = Counter(), []
        for counts, bad in workers.map_in_order(count, workers.groups(paths), len(paths), "JPEGs"):
            total += counts
            rejected += bad
    if not total["damaged"]:
        raise InputError("no JPEG with a scan of 8 KiB or more in these folders")
    print(f"undamaged: {len(rejected)} of {total['files']} rejected", *rejected, sep="\n  ")
    share = {
        name: f"{total[name]} of {total['damaged']} ({total[name] / total['damaged']:.1%})"
        for name in ("found", "pillow")
    }
    print(f"with 4 KiB of zeros in the scan: {share['found']} found by validate, {share['pillow']} by Pillow")
    print(measure.machine(("pillow", "simplejpeg")))
    return total, rejected


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jpeg_damage", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="JPEGs, at any depth")
    parser.add_argument("--images", type=positive, default=1000, metavar="N", help="photographs without FOLDER (1000)")
    arguments = parser.parse_args()
    try:
        main(arguments.folders, arguments.images)
    except InputError as error:
        sys.exit(f"benchmarks.jpeg_damage: {error}")
