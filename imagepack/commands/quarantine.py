"""Move the files that validate rejected out of data/raw to data/quarantine, or put them back.

    python -m imagepack.commands.quarantine [CODE ...]
    python -m imagepack.commands.quarantine --back

A file moves by one rename, so there is no moment at which it is lost: a run that was killed is run again and goes on.
"""

import argparse
import errno
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import polars as pl
from tqdm import tqdm

from imagepack.checks import validation_reports
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images import raw_files
from imagepack.images.raw_names import leads_out
from imagepack.names import visible, visible_lines

RAW, QUARANTINE = Path("data/raw"), Path("data/quarantine")
MANIFEST, REJECTED = Path("data/validated/manifest.parquet"), Path("reports/rejected.csv")
PRIVATE = f"{QUARANTINE} is on this machine alone: git and DVC leave it out, and teammates do not get it"
NEXT = "\n\nNext\n  python3 run.py -- dvc add data/raw\n  python3 run.py"
progress = partial(tqdm, desc="quarantine", unit="img", delay=1, disable=None)  # None: on a terminal only


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py quarantine",
        description="Move the files that validate rejected from data/raw to the same place in data/quarantine.",
    )
    parser.add_argument("codes", metavar="CODE", nargs="*", help="only files with this code (see reports/rejected.csv)")
    parser.add_argument("--back", action="store_true", help="put everything in data/quarantine back to data/raw")
    options = parser.parse_args()
    if options.back and options.codes:
        parser.error("--back takes no CODE: it puts every file back")
    try:
        if not RAW.is_dir():
            raise InputError(f"{RAW} is no folder: python3 run.py brings the images in")
        faults = put_back() if options.back else quarantine(options.codes)
    except InputError as error:
        sys.exit(visible_lines(f"quarantine: {error}"))
    except KeyboardInterrupt:
        sys.exit("quarantine: stopped; run it again to go on")
    if faults:
        print(f"\nLeft where they are: {len(faults)}", *faults, sep="\n  ", file=sys.stderr)
    return 1 if faults else 0


def quarantine(codes: list[str]) -> list[str]:
    """Move the rejected files that have one of `codes`, or all; return what stays and why, a line each."""
    moved, there, faults = {}, [], []
    zipped = raw_files.members(RAW)
    for path, digest, issues in progress(rejected_files(codes)):
        try:
            require_below(path)
            if path in zipped:
                raise InputError(
                    f"is in {zipped[path].archive.file}, and no file moves out of a zip: unpack that beside it and "
                    "remove it, or, if it was made so, python3 run.py zip --back"
                )
            if not os.path.lexists(RAW / path) and os.path.lexists(QUARANTINE / path):  # an earlier run moved it
                there.append(path)
                continue
            require_unchanged(path, digest, issues)
            move(path, RAW, QUARANTINE)
            moved[path] = issues
        except InputError as fault:
            faults.append(f"{visible(path)}: {fault}")
    parents = {parent for path in [*moved, *there] for parent in Path(path).parents}
    remove_empty(RAW / parent for parent in parents - {Path()})
    print(summary(moved, len(there)), flush=True)
    return faults


def summary(moved: dict[str, list[str]], there: int) -> str:
    """Return what was moved, by code (a file counts under each of its own), and what to do next."""
    earlier = f", {there} there already" if there else ""
    lines = [f"{len(moved)} rejected file{'s' * (len(moved) != 1)} moved from {RAW} to {QUARANTINE}{earlier}"]
    counts = Counter(code for issues in moved.values() for code in issues)
    lines += [f"  {code}: {count}" for code, count in sorted(counts.items())]
    if moved or there:
        lines.append(PRIVATE)
    after = f"{NEXT}\n  python3 run.py quarantine --back   # undoes it" if moved or there else ""
    return "\n".join(lines) + after


def rejected_files(codes: list[str]) -> list[tuple[str, str, list[str]]]:
    """Return path, sha256 and errors of the rejected files with one of `codes`; of all if that is empty.

    Raises:
        InputError: no reports, or none that validate wrote; a code that no file is rejected for.
    """
    if missing := [str(path) for path in (MANIFEST, REJECTED) if not path.exists()]:
        raise InputError(f"{missing[0]} is not there: run python3 run.py -- dvc repro first")
    try:
        table = pl.read_parquet(MANIFEST, columns=["path", "sha256", "status", "frame"])
        whole = (
            (pl.col("status") == "rejected").all().over(manifests.FILE)
        )  # of a file of several frames none is accepted
        rejected = table.filter(whole, pl.col("frame").fill_null(1) <= 1).drop("frame")
        reasons = validation_reports.read_rejected(REJECTED).select("path", "code")
        reasons = reasons.group_by("path").agg(pl.col("code").unique(maintain_order=True))
        rows = rejected.drop("status").join(reasons, on="path", how="left", maintain_order="left")
        rows = rows.with_columns(pl.col("code").fill_null([])).rows()
    except pl.exceptions.PolarsError:
        raise InputError(
            f"{MANIFEST} or {REJECTED} is not what validate writes: make them anew, "
            "python3 run.py -- dvc repro --force validate"
        ) from None
    present = {code for _, _, issues in rows for code in issues}
    if unknown := sorted(set(codes) - present):
        raise InputError(f"no rejected file is {', '.join(unknown)}; they are: {', '.join(sorted(present)) or 'none'}")
    return [row for row in rows if not codes or set(codes) & set(row[2])]


def require_unchanged(path: str, digest: str, issues: list[str]) -> None:
    """Refuse a file that is no longer the one that validate rejected.

    Where the manifest has no digest the file was empty or unreadable, and must still be so; what else keeps
    validate from reading a file, such as a lack of memory, is not looked at again.
    """
    place = RAW / path
    if not os.path.lexists(place):
        if "bad_name" in issues and "\\x" in path:
            raise InputError("has a name that is not valid UTF-8, written here with \\x: rename the file")
        raise InputError("is gone since it was validated: python3 run.py validates anew")
    is_folder = place.is_dir() and not place.is_symlink()
    can_tell = digest or {"empty_file", "unreadable"} & set(issues)
    if is_folder or (can_tell and _digest(place) != digest):
        raise InputError("has changed since it was validated: python3 run.py validates it anew")


def _digest(place: Path) -> str:
    """Return the sha256, hexadecimal; as in the manifest, empty if the file is empty or cannot be read."""
    try:
        if not place.is_file() or not place.stat().st_size:
            return ""
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def put_back() -> list[str]:
    """Move every file of the quarantine to its place; return what stays and why, a line each."""
    paths, folders = list_files(QUARANTINE)
    moved, faults = 0, []
    for path in progress(paths):
        try:
            require_below(path)
            move(path, QUARANTINE, RAW)
            moved += 1
        except InputError as fault:
            faults.append(f"{path}: {fault}")
    remove_empty(folders)
    print(f"{moved} file{'s' * (moved != 1)} put back from {QUARANTINE} to {RAW}{NEXT if moved else ''}", flush=True)
    return faults


def list_files(root: Path) -> tuple[list[str], list[Path]]:
    """Return every file under `root`, relative to it, in order, with links to folders; and every folder."""
    files, found = [], []
    for folder, folders, names in os.walk(root, onerror=raw_files.refuse_unlisted):
        found.append(Path(folder))
        links = [name for name in folders if Path(folder, name).is_symlink()]
        files += [Path(folder, name).relative_to(root).as_posix() for name in names + links]
    return sorted(files), found


def require_below(path: str) -> None:
    """Refuse a path that leads out of a folder by `..` or by a link on its way; it may be a link itself."""
    for root in (RAW, QUARANTINE):
        place = root / path
        inside = place != root and place.is_relative_to(root) and ".." not in place.parts
        if not inside or leads_out(root, place):
            raise InputError(f"would lead out of {root}, by .. or a link: move it by hand")


def move(path: str, source: Path, target: Path) -> None:
    """Rename `path` below `source` to the same below `target`; of a link, the link itself. Overwrite nothing.

    Raises:
        InputError: it cannot be done; the message says why and what to do, without the path.
    """
    if os.path.lexists(target / path):
        raise InputError(f"is in {target} too: remove one of the two")
    try:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).rename(target / path)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise InputError(f"lies on another disk or mount than {target}: move it by hand") from None
        raise InputError(f"cannot be moved ({error.strerror}): mend that and run again") from None


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those that hold nothing, or nothing but such."""
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):  # it holds something
            folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
