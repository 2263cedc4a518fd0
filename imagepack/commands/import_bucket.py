"""A bucket that is full already: DVC's own `import-url` brings it in, and remembers what it saw there (ETags)."""

from pathlib import Path

from imagepack.commands import dvc
from imagepack.dvc import lock_files
from imagepack.dvc.lock_files import RAW_DVC
from imagepack.errors import InputError
from imagepack.names import visible

SCHEMES = ("s3://", "gs://", "azure://")
UPDATE = f"python3 run.py -- dvc update {RAW_DVC}"


def bring_in(url: str, raw: Path, batch: str | None, dry_run: bool, version_aware: bool) -> str:
    """Run `dvc import-url`; return what is to be said.

    Raises:
        InputError: data/raw is not empty, or DVC cannot do it.
    """
    before = lock_files.read_source(lock_files.here(RAW_DVC))
    if before == url.rstrip("/"):
        return f"{RAW_DVC} comes from {url} already: nothing was copied. What is new there:\n  {UPDATE}"
    faults = []
    if RAW_DVC.exists():
        faults.append(f"{RAW_DVC} is there, with other images: begin with a repository without (python3 run.py new)")
    elif raw.exists() and any(raw.iterdir()):
        faults.append(f"{raw} is not empty: DVC imports a bucket as a whole")
    if batch:
        faults.append("--batch cannot be: DVC imports a bucket as the whole of data/raw")
    if faults:
        raise InputError("\n  ".join([f"{visible(url)} cannot be imported; nothing was copied:", *faults]))
    command = ["import-url", *(["--version-aware"] if version_aware else []), url, str(raw)]
    said = f"$ dvc {' '.join(command)}"
    if dry_run:
        return f"Would run\n  {said}\nnothing was copied."
    print(said, flush=True)
    if raw.exists():
        raw.rmdir()  # else DVC would make a folder in it
    if code := dvc.run(command):
        raise InputError(f"DVC stopped with exit code {code} (see above); run it again to go on")
    pushed = f"none of it: change images in the bucket, never in {raw}" if version_aware else "it to your remote"
    steps = f"Next\n  python3 run.py\n  {UPDATE}   # brings what is new in the bucket"
    return f"{url} is in {raw}; dvc push copies {pushed}.\n\n{steps}"
