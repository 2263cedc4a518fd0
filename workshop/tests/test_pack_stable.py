"""Content-stable packs: shards are a function of the images and params alone, whatever came before, whoever writes."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import contents, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagepack.images import manifest as manifests
from stages.pack import Pack, Split, pack
from workshop.benchmarks.same_bytes import known_pack

Rows = dict[tuple[str, str], tuple[str, int]]
"""Label and number of the picture of each image, by batch and name."""
KNOWN_SHARDS = """
04f620c5a3808261 268b55ef91a16940 3de59200f3d20738 41937e1d5b956af0 69e964836bbb17df
6f5352607fc8498b 8d23b0f670c5af8f 92d7b03db1811a68 f6970de7f4ebb99e
"""
"""How the names of the known pack's shards begin: the sha256 of each file."""
KNOWN_INDEX = "a4125999d2dd69e4"
"""How the sha256 of the known pack's dataset.h5 begins, in format version 1."""
PICTURES = 60
PARAMS = (Pack(shard_mib=1), Pack(shard_mib=1, split=Split(train=0.5, val=0.25, test=0.25)), Pack(shard_mib=2))
CHANGES = st.tuples(
    st.sampled_from(["put", "remove", "relabel"]),  # put is an edit where there is such an image
    st.sampled_from(["", "monday"]),
    st.integers(0, 39),  # the name
    st.sampled_from(["cat", "dog"]),
    st.integers(0, PICTURES - 1),
)
HISTORIES = st.lists(st.tuples(st.lists(CHANGES, max_size=12), st.sampled_from(PARAMS)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files 0.png, 1.png, ..., of which five fill a shard of 1 MiB; packed by one worker process, for speed."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        save(folder / f"{number}.png", Image.new("RGB", (256, 256), (number, 2 * number, 3 * number)))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STAGE_WORKERS", "1")
        yield folder


def apply(changes: list[tuple], rows: Rows) -> Rows:
    """The images after these changes."""
    rows = dict(rows)
    for change, batch, number, label, picture in changes:
        place = (batch, f"img{number}.jpg")
        match change:
            case "put":
                rows[place] = (label, picture)
            case "remove" if len(rows) > 1:
                rows.pop(place, None)
            case "relabel" if place in rows:
                rows[place] = (label, rows[place][1])
    return rows


def pack_rows(rows: Rows, pictures: Path, out: Path, params: Pack) -> dict[str, bytes]:
    """Pack them into `out` as the stage does after validate and preprocess; every file of the pack."""
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder, table = Path(temporary), []
        for (batch, name), (label, picture) in rows.items():
            path = f"{batch}/{label}/{name}" if batch else f"{label}/{name}"
            processed = folder / "processed" / f"{path}.png"
            processed.parent.mkdir(parents=True, exist_ok=True)
            os.link(pictures / f"{picture}.png", processed)
            sha256 = hashlib.sha256(str(picture).encode()).hexdigest()
            table.append({"path": path, "batch": batch, "label": label, "sha256": sha256})
        manifest = pl.DataFrame(table).with_columns(frame=1, status=pl.lit("accepted"), group=pl.lit(""))
        manifests.write(manifests.in_order(manifest), folder / "manifest.parquet")
        pack(folder / "processed", folder / "manifest.parquet", out, folder / "pack.json", params)
    return contents(out)


@pytest.mark.slow
@given(HISTORIES)
@settings(max_examples=20, deadline=None)
def test_a_pack_made_step_by_step_is_that_of_its_last_images_made_at_once(pictures: Path, history: list):
    """Adds, edits, removals, relabels and other params, in any order, packed into the same folder each time."""
    rows: Rows = {("", f"img{number}.jpg"): ("cat", number) for number in range(30)}
    with tempfile.TemporaryDirectory(dir=pictures) as temporary:
        folder = Path(temporary)
        for changes, params in history:
            rows = apply(changes, rows)
            packed = pack_rows(rows, pictures, folder / "packed", params)
        assert packed == pack_rows(dict(reversed(rows.items())), pictures, folder / "at-once", params)


def test_shards_know_neither_labels_nor_splits(pictures: Path, tmp_path: Path):
    rows: Rows = {("", f"img{number}.jpg"): ("cat", number) for number in range(30)}
    packed = pack_rows(rows, pictures, tmp_path / "packed", PARAMS[0])
    relabelled = {place: ("dog" if picture % 3 else "bird", picture) for place, (_, picture) in rows.items()}
    other = pack_rows(relabelled, pictures, tmp_path / "other", PARAMS[1])
    assert len(packed) > 5
    assert packed.pop("dataset.h5") != other.pop("dataset.h5")
    assert packed == other


def test_the_pack_of_known_images_has_known_bytes_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bytes that change here change for every user: raise format.VERSION, and say so in CHANGELOG.md.

    Shards stay as they are from version to version, since each that changes is uploaded again; dataset.h5 may change.
    """
    monkeypatch.setenv("STAGE_WORKERS", "1")
    files = contents(known_pack(tmp_path))
    index = hashlib.sha256(files.pop("dataset.h5")).hexdigest()
    assert list(files) == [f"shards/{hashlib.sha256(content).hexdigest()}.h5" for content in files.values()]
    assert sorted(name[7:23] for name in files) == KNOWN_SHARDS.split()
    assert index.startswith(KNOWN_INDEX)
