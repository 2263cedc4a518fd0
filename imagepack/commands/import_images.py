"""Bring a dataset of another shape into data/raw: folders of splits, a CSV file, Parquet, WebDataset, zips, S3, ...

    python -m imagepack.commands.import_images SOURCE [--batch NAME] [--dry-run]

Nothing in SOURCE is touched. A file is written beside its place and renamed: after a kill, the next run goes on, and a
run that finds everything there copies nothing.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from imagepack.commands import import_bucket as bucket
from imagepack.commands.zips import errors_as_messages, locked, remove_unfinished
from imagepack.dvc import raw_data
from imagepack.dvc.lock_files import RAW_DVC
from imagepack.errors import InputError
from imagepack.images.raw_files import listing
from imagepack.importing import copying, places, recognise, repository, table
from imagepack.importing.sources import SPLIT, Image, Source
from imagepack.names import counted, visible, visible_lines

RAW = Path("data/raw")
SHOWN = 3
NEXT = "\n\nNext\n  python3 run.py -- dvc add data/raw\n  python3 run.py"


def main() -> int:
    """Run the command line; return the exit code."""
    options = parse()
    stand_at_root(options)
    with errors_as_messages("import", RAW):
        run(options)
    return 0


def run(options: argparse.Namespace) -> None:
    """Bring in what the options say.

    Raises:
        InputError: it cannot be.
    """
    require_places(options)
    if options.source.startswith(bucket.SCHEMES):
        print(bucket.bring_in(options.source, RAW, options.batch, options.dry_run, options.version_aware))
        return
    if options.link:
        copying.require_safe_links()
    RAW.mkdir(parents=True, exist_ok=True)
    with locked(RAW):
        remove_unfinished(RAW, copying.UNFINISHED)
        print(visible_lines(bring_in(RAW / (options.batch or ""), options)), flush=True)


def stand_at_root(options: argparse.Namespace) -> None:
    """Go to the root of the repository; what the options name is relative to where the user stands."""
    here, root = Path.cwd(), Path(__file__).absolute().parents[2]
    if here == root:
        return
    if Path(options.source).expanduser().exists():
        options.source = str(here / Path(options.source).expanduser())
    if options.class_names:
        options.class_names = here / options.class_names
    os.chdir(root)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py import",
        description="Bring the images of SOURCE into data/raw, with their classes, splits and columns. docs/import.md",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder, CSV file, zip, tar or Parquet file; a bucket; a repository"
    )
    parser.add_argument("--batch", metavar="NAME", help="a folder of its own below data/raw")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, and copy nothing")
    parser.add_argument("--link", action="store_true", help="hard links in place of copies, where that is safe")
    parser.add_argument("--path-column", metavar="NAME", help="of a CSV file: which image")
    parser.add_argument("--label-column", metavar="NAME", help="which class; '' if the folders say it")
    parser.add_argument("--table", action="store_true", help="leave images in their folders, classes in metadata.csv")
    parser.add_argument("--class-names", metavar="FILE", type=Path, help="names of classes 0, 1, ..., a line each")
    parser.add_argument("--rev", metavar="NAME", help="of a repository of this template: a tag, branch or commit")
    parser.add_argument("--trust-remote", action="store_true", help="send keys to the address that it names")
    parser.add_argument("--version-aware", action="store_true", help="of a bucket with versions: leave it all there")
    return parser.parse_args()


def require_places(options: argparse.Namespace) -> None:
    """Refuse a source or a batch that cannot be meant."""
    source, batch, faults = Path(options.source).expanduser(), options.batch, []
    if options.source.startswith(bucket.SCHEMES) or (options.rev or repository.is_repository(options.source)):
        pass
    elif not source.exists():
        faults.append(f"{source} is not there")
    elif source.resolve().is_relative_to(RAW.resolve()) or RAW.resolve().is_relative_to(source.resolve()):
        faults.append(f"{source} and {RAW} lie in each other: name a folder outside of it")
    if batch is not None and (fault := places.fault_of(batch)):
        faults.append(f"--batch {batch}: {fault}")
    if (RAW_DVC.exists() and not RAW.exists()) or raw_data.is_half_pulled():
        faults.append(f"{RAW_DVC} names images that are not here, which would be lost: python3 run.py fetches them")
    if RAW.is_symlink():
        faults.append(f"{RAW} is a link, which DVC does not track: move the folder itself here")
    if faults:
        raise InputError("\n  ".join(["nothing was copied:", *faults]))


def bring_in(folder: Path, options: argparse.Namespace) -> str:
    """Copy what is missing of a source; return what was done, and what to do next.

    Raises:
        InputError: everything that is wrong with the source; nothing was copied.
    """
    path, source = options.source, recognise.read(options.source, options)
    if not source.verbatim:
        table.leave_own_out(source)
        table.name_splits(source)
        table.rename_reserved(source)
    placed, faults = places.as_they_are(source.images) if source.verbatim else places.place_all(source.images)
    if faults := source.faults + faults:
        raise InputError(listing(f"{path} ({source.kind}) cannot be imported; nothing was copied:", faults))
    if not placed:
        raise InputError(f"{path} ({source.kind}) has no images")
    print(visible_lines(description(path, source, placed, folder)), flush=True)
    noun = "file" if source.verbatim else "image"
    wanted = copying.missing(source, placed, folder)
    rows = table.write(placed, folder, options.dry_run)
    if options.dry_run:
        return f"\nWould copy {counted(len(wanted), noun)} to {folder}{also(rows)}; nothing was copied."
    copying.copy(source, wanted, folder, options.link)
    if not wanted and not rows:
        return f"\nAll {counted(len(placed), noun)} are in {folder} already: nothing was copied."
    there = f" ({len(placed) - len(wanted)} were there already)" if len(wanted) < len(placed) else ""
    return f"\n{counted(len(wanted), noun)} copied to {folder}{there}{also(rows)}.{next_step(source)}"


def also(rows: int) -> str:
    """Return what is said of the table."""
    return f", {counted(rows, 'row')} in {table.NAME}" if rows else ""


def next_step(source: Source) -> str:
    """Return what to do next."""
    if source.labels_column:
        kind = f"kind: {source.labels_kind}, " if source.labels_kind != "class" else ""
        labels = f"\n  # params.yaml, under labels: {kind}column: {source.labels_column}"
        return NEXT.replace("\n\nNext", f"\n\nNext{labels}")
    return NEXT


def description(path: str, source: Source, placed: dict[str, Image], folder: Path) -> str:
    """Return what was found, what becomes of it, and the first images as an example."""
    classes = Counter(name.rpartition("/")[0].rpartition("/")[2] for name in placed)
    lines = [f"{path}: {source.kind}: {counted(len(placed), 'file' if source.verbatim else 'image')}"]
    if not source.labels_column:
        shown = ", ".join(f"{visible(name)} {count}" for name, count in classes.most_common(10))
        lines[0] += f" in {counted(len(classes), 'class')}: {shown}{', ...' * (len(classes) > 10)}"
    columns = list(dict.fromkeys(name for image in placed.values() for name in image.cells))
    if SPLIT in columns:
        splits = Counter(str(image.cells.get(SPLIT) or "none") for image in placed.values())
        lines.append("  splits: " + ", ".join(f"{name} {count}" for name, count in splits.items()))
    if others := [name for name in columns if name != SPLIT]:
        lines.append(f"  columns of {table.NAME}: {', '.join(map(visible, others))}")
    lines += [f"  {note}" for note in [*source.notes, *beside(placed, folder)]]
    for target, image in list(placed.items())[:SHOWN]:
        cells = ", ".join(f"{name}: {table.text(cell)[:40]}" for name, cell in list(image.cells.items())[:5])
        lines.append(f"  {image.origin} -> {folder / target}{f' ({cells})' if cells else ''}")
    if len(placed) > SHOWN:
        lines.append(f"  ... and {len(placed) - SHOWN} more")
    return "\n".join(lines)


def beside(placed: dict[str, Image], folder: Path) -> list[str]:
    """Return a note of what else is in `folder`, such as the sample."""
    tops = {path.partition("/")[0] for path in placed}
    others = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    others = [visible(name) for name in others if name not in tops]
    shown = ", ".join(others[:8]) + ", ..." * (len(others) > 8)
    return [f"{folder} has other folders, which stay: {shown}"] if others else []


if __name__ == "__main__":
    sys.exit(main())
