"""Write a version of the dataset in a format that others read: for the Hub, for colleagues, for other tools.

    python3 run.py export imagefolder ../cats              split/class/image files, with a metadata.csv a split
    python3 run.py export parquet ../cats --rev v1         Hugging Face's parquet, of v1, without a checkout
    python3 run.py export webdataset ../cats --split train,val
    python3 run.py export imagefolder ../cats --raw        the files of data/raw as they are
    python3 run.py export hdf5 ../cats.h5                  one plain HDF5 file
    python3 run.py export csv ../findings.csv              what validate found about each image

The same version gives the same bytes, on any machine. docs/export.md says what each format holds.
"""

import argparse
import functools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imagepack.commands.compare import project
from imagepack.compare.versions import Version, read
from imagepack.engine.progress import progress_bar
from imagepack.errors import InputError
from imagepack.exporting import beside, findings, hdf5, imagefolder, parquet, webdataset
from imagepack.exporting.selection import SPLITS, Selection, select
from imagepack.names import counted, visible_lines
from imagepack.reader.format import PackError

FOLDERS = {"imagefolder": imagefolder.write, "parquet": parquet.write, "webdataset": webdataset.write}
FILES = {"hdf5": hdf5.write}
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
FORMATS = (*FOLDERS, *FILES, "csv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        print(visible_lines(export(project(), options)))
    except (InputError, PackError) as error:
        print(visible_lines(f"export: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: interrupted; nothing is left of it", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 run.py export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("dest", type=Path, metavar="DEST", help="an empty or new folder; of hdf5 and csv a new file")
    parser.add_argument("--rev", metavar="REV", help="a commit, tag, branch or DVC experiment; else what is here")
    parser.add_argument("--split", type=_splits, default=[], metavar="NAMES", help="train,val: these splits alone")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--raw", action="store_true", help="the files of data/raw, byte by byte")
    which.add_argument("--processed", action="store_true", help="the images of the pack, as in training (the default)")
    return parser


def _splits(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in SPLITS]:
        raise argparse.ArgumentTypeError(f"no split {', '.join(map(repr, unknown))}: there are {', '.join(SPLITS)}")
    return [name for name in SPLITS if name in names]


def export(folder: Path, options: argparse.Namespace) -> str:
    """Write what the options say; return what to tell.

    Args:
        folder: of the repository.
        options: of the command line.

    Raises:
        InputError, PackError: it cannot be; then nothing is left.
    """
    if options.raw and options.format not in FOLDERS:
        raise InputError(f"--raw goes with {', '.join(FOLDERS)}: {options.format} has no place for files")
    dest = options.dest.absolute()
    require_place(dest, is_folder=options.format in FOLDERS)
    if options.format == "csv":
        version = read(options.rev, folder)
        require_outside(dest, folder, version)
        _warn(version)
        with writing(dest) as place:
            place.write_bytes(findings.table(version, options.split))
        return f"Written: {options.dest}"
    selection = select(folder, options.rev, options.split or SPLITS, options.raw)
    require_outside(dest, folder, selection.version)
    _warn(selection.version)
    write = (FOLDERS | FILES)[options.format]
    with writing(dest) as place, progress_bar(len(selection), "export") as bar:
        if options.format in FOLDERS:
            place.mkdir()
        write(selection, place, functools.partial(bar.update, 1))
        if options.format in FOLDERS:
            beside.write(options.format, selection, place, folder)
    return said(selection, options.dest)


def require_place(dest: Path, is_folder: bool) -> None:
    """Refuse a place that holds something."""
    if dest.is_dir() and not is_folder:
        raise InputError(f"{dest} is a folder: name a file that is not there")
    if dest.is_dir() and (found := sorted(entry.name for entry in dest.iterdir())):
        names = ", ".join(found[:5]) + ", ..." * (len(found) > 5)
        raise InputError(f"{dest} is not empty ({names}): name a folder that is empty, or is not there")
    if not dest.is_dir() and (dest.exists() or dest.is_symlink()):
        raise InputError(f"{dest} is there: name a {'folder' if is_folder else 'file'} that is not")


def require_outside(dest: Path, folder: Path, version: Version) -> None:
    """Refuse a place among what DVC tracks, or in the folders of git and DVC."""
    tracked = {out.path for stage in version.lock.values() for out in (*stage.outs, *stage.deps)}
    for path in (*sorted(tracked), "data/raw", ".git", ".dvc"):
        place = (folder / path).resolve()
        if dest.resolve().is_relative_to(place):
            raise InputError(f"{dest} lies in {path}, which is the dataset's own: name a place elsewhere, as ../export")


@contextmanager
def writing(dest: Path, replace: bool = False) -> Iterator[Path]:
    """Give a place beside `dest` to write to, which becomes it at the end; after an error nothing is left.

    Args:
        dest: not there, or an empty folder.
        replace: whether it may be a folder with files in it, which go.

    Raises:
        InputError: it cannot be written.
    """
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", suffix=".part", dir=dest.parent))
    except OSError as error:
        raise InputError(f"{dest} cannot be written ({error.strerror or error}): name another place") from None
    try:
        yield beside / dest.name
        if dest.is_dir():
            dest.rename(beside / "before") if replace else dest.rmdir()
        (beside / dest.name).rename(dest)
    except OSError as error:
        raise InputError(f"{dest} cannot be written ({error.strerror or error}): name another place") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _warn(version: Version) -> None:
    for warning in version.warnings:
        print(visible_lines(f"export: {warning}"), file=sys.stderr)


def said(selection: Selection, dest: Path) -> str:
    """Return what was exported, and what was not."""
    images = selection.images
    splits = ", ".join(f"{images.filter(split=name).height} {name}" for name in selection.splits)
    lines = [f"Written: {dest}: {counted(len(selection), 'image')} ({splits})"]
    if left := [f"{count} {why}" for why, count in selection.left_out.items() if count]:
        lines.append(f"Not exported: {', '.join(left)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
