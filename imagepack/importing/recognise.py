"""What a source is, by what lies in it."""

import argparse
from pathlib import Path

from imagepack.errors import InputError
from imagepack.importing import folders
from imagepack.importing.sources import Source


def read(path: Path, options: argparse.Namespace) -> Source:
    """Return the images of a source.

    Raises:
        InputError: it is of no kind that is known.
    """
    labels = options.label_column
    if path.is_dir():
        return folders.read_folder(path, labels, options.table)
    if path.suffix.lower() == ".zip":
        return folders.read_zip(path, labels, options.table)
    raise InputError(f"{path} is of no kind that can be imported (docs/import.md)")
