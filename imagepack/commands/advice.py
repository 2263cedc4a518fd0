"""What this repository's own numbers say would pay."""

from imagepack.dvc import lock_files
from imagepack.images.zips import TYPICAL_BYTES

RATES = 550, 400
"""Files a second that DVC pushes and pulls, however small they are: docs/scaling.md, When, 40,000 in 75 and 91 s."""
WORTH = 60
"""Seconds of a push from which zips are worth a word."""
SMALL = 2**20
"""Bytes: with larger files a zip holds only a few."""
ZIP_RAW, ZIP_PROCESSED = "python3 run.py zip for data/raw", "preprocess.layout: zip in params.yaml for data/processed"


def zips() -> str:
    """Return what zips of the loose files here would save, and how to make them; empty where that is little."""
    raw = lock_files.read_outs(lock_files.here(lock_files.RAW_DVC))
    stage = lock_files.read_lock(lock_files.here()).get("preprocess", lock_files.Stage())
    folders = {ZIP_RAW: raw, ZIP_PROCESSED: [out for out in stage.outs if out.path == "data/processed"]}
    loose = {how: out for how, outs in folders.items() for out in outs if out.files and out.size < SMALL * out.files}
    files, size = sum(out.files for out in loose.values()), sum(out.size for out in loose.values())
    if files < WORTH * RATES[0]:
        return ""
    fast, slow = (f"{files / rate:,.0f}" for rate in RATES)
    average, in_all, made = f"{size / files / 1024:,.0f} KiB", f"{size / 2**30:,.1f} GiB", max(1, size // TYPICAL_BYTES)
    return (
        f"{files:,} files of {average} on average: to push or pull all takes DVC some {fast} to {slow} s, whatever\n"
        f"the network does; some {made:,} zips take as long as their {in_all} (docs/scaling.md, When).\n"
        f"To have zips: {', '.join(loose)}"
    )
