"""Write down the split that each image has in data/packed: it keeps that from now on.

    python -m imagepack.commands.pin            as data/packed says
    python -m imagepack.commands.pin v1         as the pack of v1 says (a commit, tag, branch or DVC experiment)

Without it the split is drawn by an image's content, so an image that is edited or saved again draws anew. A pinned one
is known by its content, else by its path. What was pinned before and is in the pack no more stays pinned.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl

from imagepack.errors import InputError
from imagepack.images import pins
from imagepack.images.raw_names import PINNED
from imagepack.names import visible_lines
from imagepack.reader import format as packs

RAW, PACKED = Path("data/raw"), Path("data/packed")


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 run.py pin", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "version", nargs="?", metavar="VERSION", help="whose splits: a commit, tag or branch (data/packed unless given)"
    )
    options = parser.parse_args()
    try:
        print(pin(RAW, splits_of_version(options.version) if options.version else splits_of_pack(PACKED)))
    except (InputError, packs.PackError) as error:
        sys.exit(visible_lines(f"pin: {error}"))
    return 0


def splits_of_pack(packed: Path) -> pl.DataFrame:
    """Return path, id and split of each image of a pack.

    Raises:
        PackError: there is none.
    """
    index, _ = packs.read_index(packed / packs.INDEX_NAME)
    ids = [digest.tobytes().hex() for digest in index.ids]
    split = pl.Series(np.array(packs.SPLITS)[index.splits])
    return pl.DataFrame({"path": list(index.paths), "sha256": ids, "split": split}, schema=pins.SCHEMA)


def splits_of_version(name: str) -> pl.DataFrame:
    """Return the same of a version, from git, DVC's cache or the remote.

    Raises:
        InputError: there is no such version, or it has no pack.
    """
    from imagepack.compare import versions  # imported here, since DVC would slow the start

    version = versions.read(name, Path.cwd())
    if version.pack is None:
        raise InputError(f"{name} has no pack, and so no splits")
    return version.images.filter(pl.col("split").is_not_null()).select(*pins.SCHEMA)


def pin(raw: Path, now: pl.DataFrame) -> str:
    """Pin splits; return what to say.

    Args:
        raw: the folder of images.
        now: path, id and split of each image. What is pinned of other images stays so.

    Raises:
        InputError: there is no such folder, or the pins cannot be read.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is no folder: python3 run.py brings the images in")
    before = pins.read(raw)
    now = now.filter(pl.col("split") != "excluded")  # which drew train or val, and does so again
    kept = before.join(now, on="path", how="anti").join(now, on="sha256", how="anti")
    after = pl.concat([now, kept])
    if after.sort("path", "sha256").equals(before.sort("path", "sha256")):
        return f"All {len(now)} images of the pack are pinned already."
    pins.write(raw, after)
    more = f", and {len(kept)} of earlier packs" if len(kept) else ""
    return (
        f"{len(now)} images keep their split{more}: {raw / PINNED} says which.\n\nNext\n"
        "  python3 run.py\n  git add data/raw.dvc dvc.lock reports && git commit -m 'Splits pinned'"
    )


if __name__ == "__main__":
    sys.exit(main())
