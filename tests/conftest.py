"""What the tests share. A test gets a fixture by naming it as an argument; pytest calls the function of that name.

To add one: write a function that returns what several tests need, and decorate it as these are.
"""

from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from imagepack.engine import params as sections
from imagepack.images import raw_files

ROOT = Path(__file__).parents[1]
RAW, SAMPLE = ROOT / "data/raw", ROOT / "data/sample/images"
FOLDERS, IMAGES = 6, 6
"""How many class folders the handful is from, and how many images it has of each."""


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def params() -> dict[str, sections.Section]:
    """The sections of params.yaml: `params["preprocess"].size` and so on."""
    return dict(sections.load(ROOT / "params.yaml"))


@pytest.fixture(scope="session")
def pipeline() -> dict[str, dict]:
    """The stages of dvc.yaml: name, and what is written below it."""
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.fixture(scope="session")
def handful() -> dict[str, bytes]:
    """Some images of data/raw or, where there are none, of the sample: path below data/raw, and the file's bytes."""
    for source in (RAW, SAMPLE):
        files = raw_files.find(source)[0] if source.is_dir() else []
        if files:
            return {str(file): raw_files.read(source, file) for file in choose(files)}
    pytest.skip("no images: neither in data/raw nor in data/sample/images")


@pytest.fixture(scope="session")
def tables() -> dict[str, bytes]:
    """The tables of data/raw (docs/tables.md), likewise; mostly there are none."""
    found = raw_files.find_all(RAW).tables if RAW.is_dir() else []
    return {str(file): raw_files.read(RAW, file) for file in found}


def choose(files: list[raw_files.RawFile]) -> list[raw_files.RawFile]:
    """Up to IMAGES files of each of up to FOLDERS class folders, both taken at even distances."""
    by_folder = defaultdict(list)
    for file in files:
        by_folder[str(Path(str(file)).parent)].append(file)
    folders = evenly(list(by_folder.values()), FOLDERS)
    return [file for folder in folders for file in evenly(folder, IMAGES)]


def evenly(items: list, count: int) -> list:
    """Up to `count` of the items, at even distances."""
    return items[:: -(-len(items) // count)]
