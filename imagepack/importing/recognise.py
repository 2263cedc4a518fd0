"""What a source is, by what lies in it."""

import argparse
from collections import Counter
from pathlib import Path

from imagepack.errors import InputError
from imagepack.images.raw_names import is_junk, is_table
from imagepack.importing import csv_file, folders, parquet, repository, tars
from imagepack.importing.sources import Source
from imagepack.importing.tree import Tree, folder_tree, zip_tree
from imagepack.names import visible


def read(source: str, options: argparse.Namespace) -> Source:
    """Return the images of a source.

    Raises:
        InputError: it is of no kind that is known.
    """
    if options.rev or repository.is_repository(source):
        return repository.read_repository(source, options.rev or "HEAD", options.batch or "", options.trust_remote)
    path = Path(source).expanduser()
    label, as_table, name, names = options.label_column, options.table, path.name.lower(), class_names(options)
    if path.is_dir():
        return read_folder(path, options)
    if name.endswith(".zip"):
        return read_tree(zip_tree(path), options)
    if name.endswith((".csv", ".tsv")):
        return csv_file.read_csv(folder_tree(path.parent), path.name, options.path_column, label, as_table, names)
    if name.endswith(".parquet"):
        return parquet.read_parquet(path.parent, [path], label, as_table, names)
    if name.endswith(tars.ENDINGS):
        return read_tars(path.parent, [path], options)
    raise InputError(f"{path} is no folder, .csv, .zip, .parquet or .tar: docs/import.md says what can be imported")


def read_folder(folder: Path, options: argparse.Namespace) -> Source:
    """Return the images of a folder: in Parquet files, in tars, or in files, perhaps with a CSV file.

    Raises:
        InputError: it may be several things, or none.
    """
    tree = folder_tree(folder)
    files = [path for path in tree.files if not is_junk(path)]
    shards = [folder / path for path in files if path.lower().endswith(".parquet") and not is_table(path)]
    archives = [folder / path for path in files if path.lower().endswith(tars.ENDINGS)]
    kinds = {"Parquet files": shards, "tars": archives, "images": tree.images}
    if sum(map(bool, kinds.values())) > 1:
        found = ", ".join(kind for kind in kinds if kinds[kind])
        raise InputError(f"{folder} has several of {found}: name the folder of those that you mean, or one file")
    if shards:
        return parquet.read_parquet(folder, shards, options.label_column, options.table, class_names(options))
    if archives:
        return read_tars(folder, archives, options)
    if not tree.images and (folder / "dataset_info.json").exists() | (folder / "dataset_dict.json").exists():
        raise InputError(
            f"{folder} was written by save_to_disk: write it as Parquet instead, with to_parquet of datasets"
        )
    if not tree.images and (zipped := [path for path in files if path.lower().endswith(".zip")]):
        raise InputError(
            f"{folder} has zips: import them one by one, or put them into data/raw as they are: {zipped[0]}"
        )
    return read_tree(tree, options)


def read_tree(tree: Tree, options: argparse.Namespace) -> Source:
    """Return the images of a folder, zip or tar of image files, perhaps with a table.

    Raises:
        InputError: it has several tables, or one that cannot be read.
    """
    label, as_table, names = options.label_column, options.table, class_names(options)
    csvs = tree.csvs if tree.images and not tree.tables else []
    if len(csvs) > 1:
        raise InputError(
            f"{tree.source} has several tables: {', '.join(map(visible, csvs))}: "
            + ("leave the one that you mean" if tree.archived else "name the one that you mean")
        )
    if csvs:
        return csv_file.read_csv(tree, csvs[0], options.path_column, label, as_table, names)
    return folders.of_tree(tree, label, as_table, names)


def read_tars(top: Path, files: list[Path], options: argparse.Namespace) -> Source:
    """Return the images of tars: WebDataset's, or of folders, as these folders.

    Raises:
        InputError: they cannot be read.
    """
    found = tars.scan(files)
    if tars.is_webdataset(found):
        return tars.of_samples(top, found, options.label_column, options.table, class_names(options))
    return read_tree(tars.tree_of(top, files, found), options)


def class_names(options: argparse.Namespace) -> list[str]:
    """Return the names of classes 0, 1, ... that the user gave; none if there are none.

    Raises:
        InputError: the file cannot be read.
    """
    if options.class_names is None:
        return []
    file = options.class_names
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class-names {file}: {error}") from None
    faults = ["has no names"] if not names else []
    faults += [f"line {number} is empty" for number, name in enumerate(names, 1) if not name]
    faults += [f"{visible(name)} is there {n} times" for name, n in Counter(names).items() if n > 1 and name]
    if faults:
        raise InputError(f"--class-names {file}: {'; '.join(faults)}: give each class 0, 1, ... a name of its own")
    return names
