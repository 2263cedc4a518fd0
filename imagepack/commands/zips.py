"""Put the files of a folder into zips of about 8 MiB, in place, or take them out again: python3 run.py zip [--back].

    python -m imagepack.commands.zips [FOLDER]
    python -m imagepack.commands.zips [FOLDER] --back

A file is removed once a zip that holds it is in place and has been read again, a zip once its files are: whenever this
is killed, every file is there, and the next run goes on. Only the main process removes anything, since a worker may
outlive it.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import secrets
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import polars as pl

from imagepack.commands.quarantine import remove_empty
from imagepack.dvc import git
from imagepack.engine import workers
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images import raw_files, raw_names, zips
from imagepack.images.cuts import cut
from imagepack.names import counted, visible_lines

UNFINISHED = ".zipping-"
"""How the names of unfinished files begin; .dvcignore has it too."""


class Loose(NamedTuple):
    """A file as it was when it was hashed; `path` is below the folder, `digest` a sha256, `changed` in ns."""

    path: str
    digest: str
    bytes: int
    changed: int


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py zip",
        description="Put the files of a folder into zips, which DVC adds, pushes and pulls much faster.",
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=Path("data/raw"))
    parser.add_argument("--back", action="store_true", help="take the files out of the zips that this has made")
    options = parser.parse_args()
    folder = options.folder
    with errors_as_messages("zip", folder):
        require_data(folder)
        with locked(folder):
            remove_unfinished(folder, UNFINISHED)
            print(visible_lines((unzip_all if options.back else zip_all)(folder)), flush=True)
    return 0


@contextlib.contextmanager
def errors_as_messages(command: str, folder: Path) -> Iterator[None]:
    """End the program with a message where a command that changes the files of `folder` fails or is stopped."""
    try:
        yield
    except InputError as error:
        sys.exit(visible_lines(f"{command}: {error}"))
    except OSError as error:
        where = error.filename or folder
        sys.exit(f"{command}: {where}: {error.strerror}: nothing is lost; mend that and run it again")
    except KeyboardInterrupt:
        sys.exit(f"{command}: stopped; nothing is lost; run it again to go on")


def require_data(folder: Path) -> None:
    """Refuse a folder that is not this repository's data: its files will be gone, and nobody else looks into zips."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    if Path.cwd() not in folder.resolve().parents:
        raise InputError(f"{folder} is not in this repository: name a folder that DVC tracks, such as data/raw")
    listed = (git.text("ls-files", "-z", "--", str(folder)) or "").split("\0")[:-1]
    if listed:
        name, more = listed[0], f" and {len(listed) - 1} more" if len(listed) > 1 else ""
        raise InputError(f"git tracks {name}{more}: name a folder that DVC tracks, such as data/raw")


def remove_unfinished(folder: Path, prefix: str) -> None:
    """Remove what a killed run was about to write: files whose names begin with `prefix`."""
    for path in folder.rglob(f"{prefix}*"):
        path.unlink()


def zip_all(folder: Path) -> str:
    """Zip every file that DVC would track and that is in no zip yet; return what was done, in words.

    Raises:
        InputError: files of which a zip would not give the same back, or zips that cannot be used.
    """
    paths = [path for path in raw_files.tracked(folder)[0] if not raw_files.is_zip(path)]
    require_zippable(folder, paths)
    paths = finish_killed_run(folder, paths)
    if not paths:
        return f"Every file of {folder} is in a zip."
    digested = workers.map_in_order(partial(hash_files, folder), workers.groups(paths), len(paths), "read")
    files = [file for group in digested for file in group]
    tasks = plan(files)
    made = 0
    for group in workers.map_in_order(partial(make_zip, folder), tasks, len(files), "zip"):
        made += 1
        for file in group:
            remove(folder, file)
        remove_empty_folders(folder, [file.path for file in group])
    size = sum(file.bytes for file in files) / 2**20
    return (
        f"{counted(len(files), 'file')} ({size:.1f} MiB) of {folder} now in {counted(made, 'zip')}{_next(folder)}"
        + (f"\n  python3 run.py zip {folder} --back   # undoes it")
    )


def _next(folder: Path) -> str:
    return f"\n\nNext\n  python3 run.py -- dvc add {folder}\n  python3 run.py"


def require_zippable(folder: Path, paths: list[str]) -> None:
    """Refuse what would come back as something else, all at once."""
    faults = []
    for path in paths:
        shown, place = raw_names.as_text(path), folder / path
        if place.is_symlink():
            faults.append(f"{shown}: is a link: put the file itself there")
        elif not place.is_file():
            faults.append(f"{shown}: is no file: remove it")
        elif shown != path:
            faults.append(f"{shown}: its name is not valid UTF-8: rename it")
        elif fault := zips.fault_of_name(_name_in_zip(path)):
            faults.append(f"{shown}: {fault}, which no zip should have: rename it")
    if faults:
        raise InputError(raw_files.listing(f"{folder} cannot be zipped, and is as it was:", faults))


def finish_killed_run(folder: Path, paths: list[str]) -> list[str]:
    """Remove files that a killed run left beside the zip that holds them; return the others.

    Raises:
        InputError: one differs from that in the zip.
    """
    zipped = raw_files.members(folder)
    faults = []
    for path in (path for path in paths if path in zipped):
        try:
            same = zips.read(zipped[path]) == (folder / path).read_bytes()
        except zips.Unreadable:
            same = False
        if same:
            (folder / path).unlink()
        else:
            faults.append(f"{path}: differs from that in {zipped[path].archive.file}: remove one of the two")
    remove_empty_folders(folder, [path for path in paths if path in zipped])
    if faults:
        raise InputError(raw_files.listing(f"{folder} has files that are in a zip too:", faults))
    return [path for path in paths if path not in zipped]


def hash_files(folder: Path, paths: list[str]) -> list[Loose]:
    """Hash these files; runs in a worker."""
    found = []
    for path in paths:
        with (folder / path).open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(Loose(path, digest, status.st_size, status.st_mtime_ns))
    return found


def plan(files: list[Loose]) -> Iterator[list[Loose]]:
    """Yield the files of each zip: cut as shards are, in their order, so that a small change leaves most as they were.

    How many make a zip depends on their median size, of which only the power of two counts.
    """
    parts = [PurePosixPath(file.path).parts for file in files]
    table = pl.DataFrame(
        {
            "row": range(len(files)),
            "path": [file.path for file in files],
            "label": ["".join(part[-2:-1]) for part in parts],
            "batch": ["/".join(_batch(file.path)) for file in files],
            "frame": 1,
        }
    )
    table = manifests.in_order(table)
    ordered = [files[row] for row in table["row"]]
    ids = np.frombuffer(bytes.fromhex("".join(file.digest for file in ordered)), "u1").reshape(-1, 32)
    typical = 2 ** round(np.log2(max(1, np.median([file.bytes for file in files]))))
    starts = cut(ids, table["batch"], max(1, zips.TYPICAL_BYTES // typical))
    return (ordered[a:b] for a, b in itertools.pairwise(starts))


def _batch(path: str) -> list[str]:
    """Return the folders above that of the label; none below one that a system left there, where no zip is opened."""
    folders = PurePosixPath(path).parts[:-2]
    return list(itertools.takewhile(lambda name: not raw_names.is_junk(name), folders))


def make_zip(folder: Path, files: list[Loose]) -> list[Loose]:
    """Put one zip in place, read again; return what it holds. Runs in a worker.

    Raises:
        InputError: a file is not what it was.
    """
    batch = folder.joinpath(*_batch(files[0].path))
    unfinished = batch / f"{UNFINISHED}{secrets.token_hex(8)}"
    try:
        with unfinished.open("xb") as stream:
            zips.write(stream, ((_name_in_zip(file.path), (folder / file.path).read_bytes()) for file in files))
            stream.flush()
            os.fsync(stream.fileno())
        require_whole(folder, batch, unfinished, files)
        with unfinished.open("rb") as stream:
            name = zips.name_of(hashlib.file_digest(stream, "sha256").hexdigest())
        unfinished.replace(batch / name)
    finally:
        unfinished.unlink(missing_ok=True)
    _flush(batch)
    return files


def require_whole(folder: Path, batch: Path, archive: Path, files: list[Loose]) -> None:
    """Read a zip as stages do, and refuse one that does not hold just these files.

    Raises:
        InputError: it does not.
    """
    try:
        members, faults = zips.list_members(archive)
        for file, member in zip(files, members, strict=True):
            if hashlib.sha256(zips.read(member)).hexdigest() != file.digest:
                raise InputError(f"{folder / file.path} changed while it was read: it stays; run it again")
        if faults or [str(member) for member in members] != [_name_in_zip(file.path) for file in files]:
            raise zips.Damaged("has other names in it")
    except (ValueError, zips.Damaged, zips.Unreadable) as error:
        raise InputError(f"a zip in {batch} is not what was written ({error}): is the disk damaged?") from None
    finally:
        zips.close()


def _name_in_zip(path: str) -> str:
    """Return what a file is called in the zip of its batch."""
    return "/".join(PurePosixPath(path).parts[len(_batch(path)) :])


def _flush(folder: Path) -> None:
    """Wait until a power cut cannot undo what was renamed in `folder`; Windows has no such call."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _flush_all() -> None:
    """Wait until a power cut cannot undo anything that was written."""
    if os.name != "nt":
        os.sync()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` against other such commands; on Windows nothing does.

    Raises:
        InputError: another one runs.
    """
    if os.name == "nt":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"another run.py zip or strip works on {folder}: wait until it has ended") from None
    finally:
        os.close(handle)


def remove(folder: Path, file: Loose) -> None:
    """Remove a file that is in a zip.

    Raises:
        InputError: it is another than the one that was zipped.
    """
    status = (folder / file.path).stat()
    if (status.st_size, status.st_mtime_ns) != (file.bytes, file.changed):
        raise InputError(f"{folder / file.path} was changed while it was zipped: it stays, and its zip has the old one")
    (folder / file.path).unlink()


def remove_empty_folders(folder: Path, paths: list[str]) -> None:
    """Remove the empty ones of the folders in which the files were, below their batches."""
    places = {PurePosixPath(path).parent for path in paths}
    remove_empty(
        folder / parent
        for place in places
        for parent in (place, *place.parents)
        if len(parent.parts) > len(_batch(f"{place}/x"))
    )


def unzip_all(folder: Path) -> str:
    """Take all files out of the zips that were made here; return what was done, in words.

    Raises:
        InputError: a file is there already and is another, or a zip cannot be used; that zip stays.
    """
    archives = [path for path in raw_files.tracked(folder)[0] if raw_files.is_zip(path)]
    own = [path for path in archives if zips.is_own(folder / path)]
    left = f"; {counted(len(archives) - len(own), 'zip')} not made so: left there" if len(own) < len(archives) else ""
    if not own:
        return f"No zip in {folder} was made by python3 run.py zip{left}."
    files, faults = 0, []
    tasks = ([path] for path in own)
    for path, count, wrong in workers.map_in_order(partial(unzip, folder), tasks, len(own), "unzip"):
        files += count
        faults += wrong
        if not wrong:
            _flush_all()
            (folder / path).unlink()
    if faults:
        raise InputError(raw_files.listing(f"{folder} has zips that could not be unpacked, and stay:", faults))
    return f"{counted(files, 'file')} of {folder} back, from {counted(len(own), 'zip')}{left}{_next(folder)}"


def unzip(folder: Path, paths: list[str]) -> tuple[str, int, list[str]]:
    """Write the files of one zip; return its path, how many, and what was wrong. Runs in a worker."""
    archive = folder / paths[0]
    try:
        members, faults = zips.list_members(archive, paths[0].rpartition("/")[0])
        faults += [fault for member in members if (fault := unpack(folder, member))]
    except (zips.Damaged, zips.Unreadable) as error:
        members, faults = [], [str(error)]
    finally:
        zips.close()
    return paths[0], len(members), [f"{archive}: {fault}" for fault in faults]


def unpack(folder: Path, member: zips.Member) -> str:
    """Write one file; return what is in its way, or an empty text."""
    place = folder / member.path
    data = zips.read(member)
    if raw_names.leads_out(folder, place):
        return f"{member.path}: would lead out of {folder} by a link: remove the link"
    if os.path.lexists(place):  # a killed run has written it
        same = place.is_file() and place.read_bytes() == data
        return "" if same else f"{member.path}: is there already, and is another: remove one of the two"
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    unfinished.write_bytes(data)
    unfinished.replace(place)
    return "" if place.read_bytes() == data else f"{member.path}: is not what was written: is the disk damaged?"


if __name__ == "__main__":
    sys.exit(main())
