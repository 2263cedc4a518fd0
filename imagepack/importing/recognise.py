"""What a source is, by what lies in it."""

import argparse
from pathlib import Path

from imagepack.errors import InputError
from imagepack.images.raw_names import is_junk, is_table
from imagepack.importing import csv_file, folders, parquet, repository, tars
from imagepack.importing.sources import Source, is_image


def read(source: str, options: argparse.Namespace) -> Source:
    """Return the images of a source.

    Raises:
        InputError: it is of no kind that is known.
    """
    if options.rev or repository.is_repository(source):
        return repository.read_repository(source, options.rev or "HEAD", options.batch or "", options.trust_remote)
    path = Path(source).expanduser()
    label, as_table, name = options.label_column, options.table, path.name.lower()
    if path.is_dir():
        return read_folder(path, options)
    if name.endswith(".zip"):
        return folders.read_zip(path, label, as_table)
    if name.endswith((".csv", ".tsv")):
        return csv_file.read_csv(path, options.path_column, label, as_table)
    if name.endswith(".parquet"):
        return parquet.read_parquet(path.parent, [path], label, as_table, class_names(options))
    if name.endswith(tars.ENDINGS):
        return tars.read_tars(path.parent, [path], label, as_table, class_names(options))
    raise InputError(f"{path} is no folder, .csv, .zip, .parquet or .tar: docs/import.md says what can be imported")


def read_folder(folder: Path, options: argparse.Namespace) -> Source:
    """Return the images of a folder: in Parquet files, in tars, or in files, perhaps with a CSV file.

    Raises:
        InputError: it may be several things, or none.
    """
    label, as_table = options.label_column, options.table
    files = [path for path in folders.walk(folder)[0] if not is_junk(path)]
    shards = [folder / path for path in files if path.lower().endswith(".parquet") and not is_table(path)]
    archives = [folder / path for path in files if path.lower().endswith(tars.ENDINGS)]
    csvs = [path for path in files if path.lower().endswith((".csv", ".tsv")) and "/" not in path]
    images = any(map(is_image, files))
    kinds = {"Parquet files": shards, "tars": archives, "images": images}
    if sum(map(bool, kinds.values())) > 1:
        found = ", ".join(kind for kind in kinds if kinds[kind])
        raise InputError(f"{folder} has several of {found}: name the folder of those that you mean, or one file")
    if shards:
        return parquet.read_parquet(folder, shards, label, as_table, class_names(options))
    if archives:
        return tars.read_tars(folder, archives, label, as_table, class_names(options))
    if images and csvs and not any(map(is_table, files)):
        if len(csvs) > 1:
            raise InputError(f"{folder} has several tables: name the one that you mean: {', '.join(csvs)}")
        return csv_file.read_csv(folder / csvs[0], options.path_column, label, as_table)
    if not images and (folder / "dataset_info.json").exists() | (folder / "dataset_dict.json").exists():
        raise InputError(
            f"{folder} was written by save_to_disk: write it as Parquet instead, with to_parquet of datasets"
        )
    if not images and (zipped := [path for path in files if path.lower().endswith(".zip")]):
        raise InputError(
            f"{folder} has zips: import them one by one, or put them into data/raw as they are: {zipped[0]}"
        )
    return folders.read_folder(folder, label, as_table)


def class_names(options: argparse.Namespace) -> list[str]:
    """Return the names of classes 0, 1, ... that the user gave; none if there are none.

    Raises:
        InputError: the file cannot be read.
    """
    if options.class_names is None:
        return []
    try:
        return [line.strip() for line in options.class_names.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class-names {options.class_names}: {error}") from None
