"""Write down the split that each image has in data/packed: it keeps that from now on.

    python -m imagepack.commands.pin

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
    argparse.ArgumentParser(prog="python3 run.py pin", description=__doc__.split("\n\n")[0]).parse_args()
    try:
        print(pin(RAW, PACKED))
    except (InputError, packs.PackError) as error:
        sys.exit(visible_lines(f"pin: {error}"))
    return 0


def pin(raw: Path, packed: Path) -> str:
    """Pin the splits of a pack; return what to say.

    Raises:
        InputError, PackError: there is no pack, or the pins cannot be read.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is no folder: python3 run.py brings the images in")
    index, _ = packs.read_index(packed / packs.INDEX_NAME)
    before = pins.read(raw)
    ids = [digest.tobytes().hex() for digest in index.ids]
    split = pl.Series(np.array(packs.SPLITS)[index.splits])
    now = pl.DataFrame({"path": list(index.paths), "sha256": ids, "split": split}, schema=pins.SCHEMA)
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
