"""Remove private metadata from the files in data/raw: where a picture was taken, by whom, with which camera.

    python -m imagepack.commands.strip [PATH ...] [--dry-run]

No picture is encoded again: a file is taken apart, its metadata left out, and the pixels of both are decoded and
compared before the new one takes its place, by one rename. A run that was killed is run again and goes on.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import os
import secrets
import stat
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imagepack.checks import metadata
from imagepack.commands.strip_file import CannotStrip, without_metadata
from imagepack.commands.zips import errors_as_messages, locked, remove_unfinished
from imagepack.engine import params, workers
from imagepack.errors import InputError
from imagepack.images import decode, raw_files, raw_names
from imagepack.images.content import Content, inspect
from imagepack.images.jpeg import with_end
from imagepack.images.raw_files import RawFile
from imagepack.images.strict import later_frames
from imagepack.names import visible

RAW, RAW_DVC, ACKNOWLEDGED = Path("data/raw"), Path("data/raw.dvc"), Path("data/acknowledged.csv")
UNFINISHED = ".stripping-"
"""How the names of unfinished files begin; .dvcignore has it too."""
CONSEQUENCES = """
Their bytes, and so their ids, are new. Where the split is drawn by content (pack.split.by: hash) an image may now be in
another split: after the next run, python3 run.py compare names those. Earlier versions still hold the metadata, in
DVC's cache and in the bucket: docs/output.md, Private metadata, says how to remove it there."""
NEXT = "\nNext\n  python3 run.py"


@dataclass(frozen=True)
class Stripped:
    """A file that has private metadata, and what became of it.

    Attributes:
        path: below data/raw.
        found: what it says, in words.
        fault: why it stays as it is; empty if the rest is there.
        unfinished: the new file, beside the old one; None of a dry run.
        old, new: sha256 of both.
        status: size and time of change of the old one, as it was read.
    """

    path: str
    found: list[str]
    fault: str = ""
    unfinished: Path | None = None
    old: str = ""
    new: str = ""
    status: tuple[int, int] = (0, 0)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py strip",
        description="Remove private metadata (GPS position, author or owner, serial number, ...) from the files in "
        "data/raw that have some. The pixels stay as they are. JPEG, PNG, WebP and TIFF.",
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", help="only these files and folders of data/raw")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    options = parser.parse_args()
    with errors_as_messages("strip", RAW):
        if not RAW.is_dir():
            raise InputError(f"{RAW} is no folder: python3 run.py brings the images in")
        files = chosen(raw_files.find(RAW)[0], options.paths)
        if options.dry_run:
            faults = strip(files, dry=True)
        else:
            require_pulled()
            with locked(RAW):
                remove_unfinished(RAW, UNFINISHED)
                faults = strip(files)
    if faults:
        print(raw_files.listing(f"\nLeft as they are: {len(faults)}", faults), file=sys.stderr)
    return 1 if faults else 0


def require_pulled() -> None:
    """Refuse to make a version of images that a pull is to replace.

    Raises:
        InputError: data/raw is not what data/raw.dvc names, and not by an edit.
    """
    if not RAW_DVC.exists():
        return
    from imagepack.dvc import raw_data

    if reason := raw_data.doubt():
        raise InputError(reason)


def chosen(files: list[RawFile], paths: list[str]) -> list[RawFile]:
    """Return those of `files` that are one of `paths` or below one; all without paths. A path may begin with data/raw.

    Raises:
        InputError: a path with nothing of data/raw.
    """
    if not paths:
        return files
    wanted, missing = set(), []
    for path in paths:
        place = Path(path).absolute()
        inside = place.relative_to(RAW.absolute()) if place.is_relative_to(RAW.absolute()) else Path(path)
        name = inside.as_posix()
        found = {str(file) for file in files if name in (".", str(file)) or str(file).startswith(f"{name}/")}
        wanted |= found
        missing += [] if found else [path]
    if missing:
        raise InputError(f"{RAW} has no {', '.join(missing)}")
    return [file for file in files if str(file) in wanted]


def strip(files: list[RawFile], dry: bool = False) -> list[str]:
    """Strip those of `files` that have private metadata, and tell DVC; return what stays and why, a line each."""
    limits = params.load(Path("params.yaml"))["validate"]
    done, faults = [], []
    results = workers.map_in_order(
        partial(strip_files, limits.max_pixels, limits.max_frames, dry),
        raw_files.groups(files),
        len(files),
        "strip",
        timeout=limits.timeout * raw_files.MOST_OF_A_GROUP,
        memory_mib=limits.memory_mib,
        lost=lost_file,
    )
    for group in results:
        ready = [each for each in group if not each.fault]
        faults += [f"{visible(each.path)}: {each.fault}" for each in group if each.fault]
        if not dry:
            acknowledge({each.old: each.new for each in ready})
            ready, late = replace(ready)
            faults += late
        done += ready
    print(summary(done, dry), flush=True)
    if done and not dry:
        tell_dvc()
        print(NEXT, flush=True)
    return faults


def tell_dvc() -> None:
    """Make the new files the next version, if DVC tracks the folder.

    Raises:
        InputError: DVC could not.
    """
    if not RAW_DVC.exists():
        return
    print(f"\n$ dvc add {RAW}", flush=True)
    if subprocess.run(["dvc", "add", "--quiet", str(RAW)]).returncode:
        raise InputError(
            "the files are stripped, but DVC could not add them (see above): mend that, then python3 run.py -- dvc "
            f"add {RAW}"
        )


def strip_files(max_pixels: int, max_frames: int, dry: bool, files: list[RawFile]) -> list[Stripped]:
    """Write a new file beside each of `files` that has private metadata; runs in a worker."""
    return [stripped for file in files if (stripped := _strip(file, max_pixels, max_frames, dry))]


def lost_file(file: RawFile, what: str) -> list[Stripped]:
    """Return what becomes of a file that killed or outlasted its worker."""
    why = {"decoder_crash": "its decoder crashed", "timeout": "took too long to decode"}[what]
    return [Stripped(str(file), [], f"{why}: nothing could be checked; remove it, or move it out of {RAW}")]


def _strip(file: RawFile, max_pixels: int, max_frames: int, dry: bool) -> Stripped | None:
    path, loose = str(file), isinstance(file, str)
    if raw_names.is_junk(path) or (loose and _leads_inside(RAW / path)):
        return None  # what it leads to is a file of its own
    try:
        status = (RAW / path).stat() if loose else None
        data = raw_files.read(RAW, file)
    except (decode.Fault, OSError, MemoryError):
        return None  # validate names it
    if not (found := metadata.private(data)):
        return None
    if not loose:
        return Stripped(
            path,
            found,
            f"is in {file.archive.file}, and nothing is taken out of a zip: unpack that beside it and remove it, or, "
            "if it was made so, python3 run.py zip --back; then strip again",
        )
    try:
        new = strip_one(data, max_pixels, max_frames)
    except CannotStrip as error:
        return Stripped(path, found, str(error))
    unfinished = None if dry else _write_beside(RAW / path, new, status)
    digests = (hashlib.sha256(each).hexdigest() for each in (data, new))
    return Stripped(path, found, "", unfinished, *digests, (status.st_size, status.st_mtime_ns))


def _leads_inside(place: Path) -> bool:
    """Return whether it is a link within data/raw. One that leads out, as to DVC's cache, gives way to a file."""
    return place.is_symlink() and Path(os.path.realpath(place)).is_relative_to(RAW.resolve())


def strip_one(data: bytes, max_pixels: int, max_frames: int) -> bytes:
    """Return the file without its metadata, once that shows the same, pixel by pixel, in all its frames.

    Raises:
        CannotStrip: that could not be done, or not be checked.
    """
    try:
        before = frame_contents(data, max_pixels, max_frames)
    except decode.Fault as fault:
        raise CannotStrip(
            f"does not decode ({fault.seen}), so that nothing could be checked: mend it or move it out "
            "(python3 run.py quarantine)"
        ) from None
    new = without_metadata(data, before[0].orientation)
    try:
        same = frame_contents(new, max_pixels, max_frames) == before
    except decode.Fault:
        same = False
    if not same or metadata.private(new):
        raise CannotStrip("would not be the same picture without its metadata: save it again by another program")
    return new


def frame_contents(data: bytes, max_pixels: int, max_frames: int) -> list[Content]:
    """Return size, mode, colour profile, orientation and hash of the pixels of each frame.

    Raises:
        Fault: it does not decode.
    """
    data = with_end(data)
    image = decode.open_image(data, max_pixels)
    decode.decode(image)
    later = later_frames(image, data, max_frames, max_pixels)
    return [inspect(image, None)[0], *(inspect(frame, None)[0] for frame in later)]


def _write_beside(place: Path, data: bytes, status: os.stat_result) -> Path:
    """Write a file that is to take the place of another, with its mode."""
    unfinished = place.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    with unfinished.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.chmod(stat.S_IMODE(status.st_mode))
    return unfinished


def replace(stripped: list[Stripped]) -> tuple[list[Stripped], list[str]]:
    """Put the new files in place; return those that are, and what stays as it is and why."""
    done, faults = [], []
    for each in stripped:
        place = RAW / each.path
        with contextlib.suppress(FileNotFoundError):
            status = place.stat()
            if (status.st_size, status.st_mtime_ns) == each.status:
                each.unfinished.replace(place)
                done.append(each)
                continue
        each.unfinished.unlink()
        faults.append(f"{visible(each.path)}: has changed while it was read: run it again")
    return done, faults


def acknowledge(renamed: dict[str, str]) -> None:
    """Repeat the lines of data/acknowledged.csv about these images for their new ids, before the files are in place.

    The old lines stay: earlier versions have these images.
    """
    if not renamed or not ACKNOWLEDGED.exists():
        return
    text = ACKNOWLEDGED.read_text(encoding="utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    about = [row for row in rows if row and row[0] in renamed and row[1:2] != ["private_metadata"]]
    more = [row for row in ([renamed[row[0]], *row[1:]] for row in about) if row not in rows]
    if not more:
        return
    added = io.StringIO(newline="")
    csv.writer(added, lineterminator="\n").writerows(more)
    unfinished = ACKNOWLEDGED.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    unfinished.write_text(text.rstrip("\r\n") + "\n" + added.getvalue(), encoding="utf-8", newline="")
    unfinished.replace(ACKNOWLEDGED)


def summary(done: list[Stripped], dry: bool) -> str:
    """Return how many files were stripped of what, and what follows from that."""
    if not done:
        return f"0 files of {RAW} have private metadata that can be removed"
    verb = "would be stripped" if dry else "stripped"
    counts = Counter(kind for each in done for kind in each.found)
    lines = [f"{len(done)} file{'s' * (len(done) != 1)} of {RAW} {verb} of private metadata; the pixels are the same"]
    lines += [f"  {kind}: {counts[kind]}" for kind in metadata.KINDS if counts[kind]]
    if dry:
        each_file = [f"{visible(each.path)}: {', '.join(each.found)}" for each in done]
        return raw_files.listing("\n".join([*lines, ""]), each_file)
    return "\n".join([*lines, CONSEQUENCES])


if __name__ == "__main__":
    sys.exit(main())
