"""Packing: the files are a function of the images, and a small change of the images is a small change of the files."""

import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY, Workspace, add_pictures, contents, picture, save
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagepack import PackedImages
from imagepack.errors import InputError
from imagepack.images.cuts import cut
from imagepack.packing import splits
from imagepack.reader import format as packs
from stages.pack import Pack, Split, choose_split, pack
from stages.preprocess import Preprocess
from stages.validate import Levels, Validate


def some_ids(count: int, seed: int = 0) -> np.ndarray:
    """Random ids, as sha256 gives them."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def one_batch(count: int) -> pl.Series:
    return pl.Series([""] * count, dtype=pl.String)


def split_of(ids: np.ndarray, params: Split) -> np.ndarray:
    """The split of images without batch and group."""
    table = pl.DataFrame({"path": [str(i) for i in range(len(ids))], "label": "", "batch": ""})
    return choose_split(splits.choices_table(table, pl.DataFrame(), ids, "none"), params)


def shards(ids: np.ndarray, rows: int) -> Counter:
    """The shards as what they hold; two equal ones are the same file."""
    starts = cut(ids, one_batch(len(ids)), rows)
    return Counter(ids[a:b].tobytes() for a, b in itertools.pairwise(starts))


def test_the_pack_holds_what_was_processed_in_natural_order_of_names(workspace: Workspace):
    add_pictures(workspace.raw, 12, "cat")
    add_pictures(workspace.raw, 3, "dog", first=12)
    packed = workspace.run()
    assert [packed.path(i) for i in range(4)] == ["cat/img0.png", "cat/img1.png", "cat/img2.png", "cat/img3.png"]
    assert packed.path(10) == "cat/img10.png"
    assert packed.classes == ["cat", "dog"]
    for i in range(len(packed)):
        image, label = packed[i]
        raw = workspace.raw / packed.path(i)
        assert packed.classes[label] == raw.parent.name
        assert packed.ids[i].tobytes() == hashlib.sha256(raw.read_bytes()).digest()
        assert np.array_equal(image, np.asarray(Image.open(workspace.processed / f"{packed.path(i)}.png")))


def test_greyscale_images_have_one_channel(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    packed = workspace.run(preprocessed=Preprocess(size=16, mode="L"))
    assert packed.shape == (16, 16, 1)
    assert packed[0][0].shape == (16, 16, 1)


def test_two_runs_and_any_number_of_workers_give_the_same_bytes(workspace: Workspace, monkeypatch, tmp_path):
    add_pictures(workspace.raw, 90)
    small_shards = {"preprocessed": Preprocess(size=256), "packed": Pack(shard_mib=1)}
    workspace.run(**small_shards)
    first = contents(workspace.packed), contents(workspace.processed), workspace.manifest.read_bytes()
    assert len(first[0]) > 5
    monkeypatch.setenv("STAGE_WORKERS", "4")
    workspace.run(**small_shards)
    assert first == (contents(workspace.packed), contents(workspace.processed), workspace.manifest.read_bytes())


def test_other_hdf5_tools_see_one_dataset(workspace: Workspace):
    add_pictures(workspace.raw, 5)
    packed = workspace.run()
    with h5py.File(workspace.packed / "dataset.h5") as file:
        assert file["images"].is_virtual
        assert np.array_equal(file["images"][3], packed[3][0])
        assert file["class"][file["label"][3]] == b"cat"


def test_a_shard_holds_nothing_but_images_ids_and_checksums_in_plain_layout(workspace: Workspace):
    add_pictures(workspace.raw, 5)
    workspace.run()
    (path,) = (workspace.packed / "shards").iterdir()
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
    with h5py.File(path) as file:
        assert set(file) == {"image", "id", "crc32c"}
        assert not file.attrs
        for dataset in file.values():
            assert dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
            assert not dataset.attrs
        assert [crc32c(image.tobytes()) for image in file["image"]] == file["crc32c"][:].tolist()


def test_moving_images_to_another_class_changes_no_shard(workspace: Workspace):
    add_pictures(workspace.raw, 20, "cat")
    add_pictures(workspace.raw, 20, "dog", first=20)
    workspace.run()
    before = contents(workspace.packed / "shards")
    (workspace.raw / "cat/img7.png").rename(workspace.raw / "dog/img7.png")
    packed = workspace.run()
    assert contents(workspace.packed / "shards") == before
    assert packed.classes[packed.labels[7]] == "dog"


def test_duplicates_that_params_let_in_are_packed(workspace: Workspace):
    for number in range(30):
        save(workspace.raw / f"cat/same{number}.png", picture(1))
    packed = workspace.run(validated=Validate(levels=Levels(exact_duplicate="ignore")))
    assert len(packed) == 30
    assert len(set(packed.splits)) == 1


@given(st.integers(0, 5000), st.integers(1, 60), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_shards_are_within_the_cap_and_cover_every_image_once(count: int, rows: int, seed: int):
    starts = cut(some_ids(count, seed), one_batch(count), rows) if count else [0]
    assert starts[0] == 0
    assert starts[-1] == count
    sizes = np.diff(starts)
    assert (sizes > 0).all()
    assert (sizes <= 4 * rows).all()


def test_shards_have_about_the_size_asked_for():
    sizes = np.diff(cut(some_ids(100_000), one_batch(100_000), 85))
    assert 75 < sizes.mean() < 95


def test_no_shard_reaches_over_a_batch_and_batches_do_not_touch_each_other():
    ids = some_ids(3000)
    batches = pl.Series(["monday"] * 1000 + ["tuesday"] * 2000)
    starts = cut(ids, batches, 30)
    assert 1000 in starts
    alone = cut(ids[1000:], batches[1000:], 30)
    assert [start - 1000 for start in starts if start >= 1000] == alone


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_change_of_some_images_rewrites_only_the_shards_around_them(data: st.DataObject):
    """Any ten edits, insertions and deletions in 20,000 images of about 235 shards."""
    ids = some_ids(20_000, seed=1)
    new = some_ids(10, seed=data.draw(st.integers(2, 1000)))
    changed = ids
    for row in new:
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["edit", "insert", "delete"])):
            case "edit":
                changed = np.concatenate([changed[:at], row[None], changed[at + 1 :]])
            case "insert":
                changed = np.concatenate([changed[:at], row[None], changed[at:]])
            case "delete":
                changed = np.delete(changed, at, axis=0)
    written = shards(changed, 85) - shards(ids, 85)
    assert sum(written.values()) <= 30  # at most three around each change


def test_appended_images_rewrite_only_the_end():
    ids = some_ids(20_200, seed=5)
    written = shards(ids, 85) - shards(ids[:20_000], 85)
    assert sum(len(shard) // 32 for shard in written) < 200 + 4 * 85


def test_equal_ids_in_a_row_do_not_end_a_shard_each():
    ids = np.repeat(some_ids(1), 1000, axis=0)
    assert len(cut(ids, one_batch(1000), 50)) <= 1000 / 100


def test_splits_have_the_fractions_asked_for():
    split = split_of(some_ids(50_000), Split(train=0.7, val=0.2, test=0.1))
    assert np.bincount(split) / 50_000 == pytest.approx([0.7, 0.2, 0.1], abs=0.01)


def test_an_image_keeps_its_split_when_others_come_and_go():
    ids = some_ids(1000)
    assert np.array_equal(split_of(ids[::3], Split()), split_of(ids, Split())[::3])


def test_moving_the_border_of_train_and_val_leaves_test_as_it_is():
    ids = some_ids(1000)
    before = split_of(ids, Split(train=0.8, val=0.1, test=0.1))
    after = split_of(ids, Split(train=0.6, val=0.3, test=0.1))
    assert np.array_equal(before == 2, after == 2)


def test_splits_can_be_batch_folders(workspace: Workspace):
    for number, name in enumerate(("train", "val", "test")):
        add_pictures(workspace.raw / name, number + 1, first=10 * number)
    packed = workspace.run(packed=Pack(split=Split(by="folder")))
    assert {name: len(packed.split(name)) for name in packs.SPLITS} == {"train": 1, "val": 2, "test": 3, "excluded": 0}


def test_a_batch_folder_that_is_no_split_is_named(workspace: Workspace):
    add_pictures(workspace.raw / "training", 3)
    with pytest.raises(InputError, match="must be train, val, valid, validation, dev, test; found 'training'"):
        workspace.run(packed=Pack(split=Split(by="folder")))


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_folders_called_like_splits_are_not_ignored(workspace: Workspace, name: str):
    for number, folder in enumerate(("train", name, "test")):
        add_pictures(workspace.raw / folder, number + 1, first=10 * number)
    with pytest.raises(InputError, match=r"set pack\.split\.by in params\.yaml to folder"):
        workspace.run()
    packed = workspace.run(packed=Pack(split=Split(by="folder")))
    assert [len(packed.split(split)) for split in packs.SPLITS] == [1, 2, 3, 0]
    assert len(workspace.run(packed=Pack(split=Split(by="hash")))) == 6


def patients_of(packed: PackedImages) -> dict[str, set[int]]:
    """The splits in which each patient's images are."""
    found = {}
    for i, split in enumerate(packed.splits):
        found.setdefault(packed.path(i).split("-")[1], set()).add(int(split))
    return found


def test_all_images_of_a_group_are_in_one_split_whatever_comes(workspace: Workspace):
    by_patient = Pack(split=Split(group="-([a-z0-9]+)-", train=0.4, val=0.3, test=0.3))
    earlier = {}
    for step in range(3):
        for patient in range(8 + 4 * step):
            label = ("sick", "well")[(patient + step) % 2]
            path = workspace.raw / f"visit{step}" / label / f"scan-p{patient}-{step}.png"
            save(path, picture(100 * step + patient))
        found = patients_of(workspace.run(Validate(levels=Levels(class_too_small="ignore")), packed=by_patient))
        assert all(len(splits - {3}) == 1 for splits in found.values())
        assert {patient: found[patient] for patient in earlier} == earlier
        earlier = found
    assert len({split for splits in earlier.values() for split in splits}) == 3


def test_batches_stay_whole_where_they_are_groups(workspace: Workspace):
    for batch in range(6):
        add_pictures(workspace.raw / f"scene{batch}", 4, first=10 * batch)
    packed = workspace.run(packed=Pack(split=Split(group="batch", train=0.4, val=0.3, test=0.3)))
    splits = {}
    for i, split in enumerate(packed.splits):
        splits.setdefault(packed.path(i).split("/")[0], set()).add(int(split))
    assert all(len(found) == 1 for found in splits.values())
    assert len({split for found in splits.values() for split in found}) > 1


def test_what_belongs_to_no_group_or_to_two_splits_is_named(workspace: Workspace):
    add_pictures(workspace.raw, 2)
    add_pictures(workspace.raw / "b1", 2, first=10)
    with pytest.raises(InputError, match=r"without a batch folder:\n  cat/img0\.png\n  cat/img1\.png$"):
        workspace.run(packed=Pack(split=Split(group="batch")))
    with pytest.raises(InputError, match=r"does not match, or has an empty group in, the paths:\n  cat/img0\.png\n"):
        workspace.run(packed=Pack(split=Split(group="^(b[0-9])/")))
    for name in ("b1", "cat"):
        shutil.rmtree(workspace.raw / name)
    for number, place in enumerate(("train/cat/scan-p1", "test/cat/scan-p1", "test/cat/scan-p2")):
        save(workspace.raw / f"{place}.png", picture(number))
    said = r"to be in one .*:\n  p1: train has train/cat/scan-p1.png; test has test/cat/scan-p1.png$"
    with pytest.raises(InputError, match=said):
        workspace.run(packed=Pack(split=Split(by="folder", group="(p[0-9])")))


@pytest.mark.parametrize(("group", "said"), [("(", "regex parse error"), ("", "with a group")])
def test_a_pattern_that_finds_no_key_is_refused(group: str, said: str):
    with pytest.raises(ValueError, match=said):
        Split(group=group)


def test_classes_that_lack_a_split_are_named(workspace: Workspace):
    add_pictures(workspace.raw, 30)
    add_pictures(workspace.raw, 1, "dog", first=40)
    workspace.validate(Validate(levels=Levels(class_too_small="ignore")))
    workspace.run()
    report = workspace.reports / "pack.json"
    said = pack(workspace.processed, workspace.manifest, workspace.packed, report, Pack())
    assert said.splitlines()[-2:] == ["classes without an image in some split:", "  dog: 1 train, 0 val, 0 test"]


def test_an_image_lost_after_preprocessing_is_named(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    workspace.run()
    (workspace.processed / "cat/img1.png.png").unlink()
    with pytest.raises(InputError, match=r"img1\.png\.png is missing or damaged"):
        pack(workspace.processed, workspace.manifest, workspace.packed, workspace.reports / "pack.json", Pack())


def test_the_index_is_the_same_whenever_it_is_written(tmp_path: Path):
    index = packs.Index(
        classes=["a", "ü"],
        labels=np.array([0, 1]),
        splits=np.array([0, 2], "u1"),
        ids=some_ids(2),
        paths=packs.Texts.of(["a/1.png", "ü/2.png"]),
        shard_names=[f"{'ab' * 32}.h5"],
        shard_starts=np.array([0, 2]),
        shard_bytes=np.array([123]),
        shape=(8, 8, 3),
        encoding="raw",
        mean=np.array([0.5, 0.25, 0.125]),
        std=np.array([0.1, 0.2, 0.3]),
    )
    packs.write_index(tmp_path, index)
    first = (tmp_path / "dataset.h5").read_bytes()
    packs.write_index(tmp_path, index)
    assert (tmp_path / "dataset.h5").read_bytes() == first
    again, digest = packs.read_index(tmp_path / packs.INDEX_NAME)
    assert digest == index.digest()
    assert list(again.paths) == ["a/1.png", "ü/2.png"]
    assert again.classes == index.classes


def test_the_pack_of_known_images_has_known_bytes(workspace: Workspace):
    """Bytes that change here change for every user: raise format.VERSION, and say so in CHANGELOG.md."""
    folder = workspace.folder / "shards"
    folder.mkdir()
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    name, size = packs.write_shard(folder, images, np.arange(64, dtype=np.uint8).reshape(2, 32))
    assert (name[:16], size) == ("0f64568cec475a4b", 2504)


def test_a_pack_is_refused_by_its_digest_if_the_index_was_edited(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    workspace.run()
    with h5py.File(workspace.packed / "dataset.h5", "r+") as file:
        file["split"][0] = (file["split"][0] + 1) % 3
    with pytest.raises(packs.PackError, match="digest differs"):
        PackedImages(workspace.packed)


def test_a_full_disk_is_said_so_and_nothing_else_is_lost(workspace: Workspace, small_disk):
    out = small_disk(2048) / "packed"
    add_pictures(workspace.raw, 40)
    workspace.run(preprocessed=Preprocess(size=256))
    processed = contents(workspace.processed)
    (workspace.folder / "params.yaml").write_text("pack: {shard_mib: 1}")
    paths = ["processed", "manifest.parquet", str(out), "report.json"]
    done = subprocess.run(
        [sys.executable, "-m", "imagepack.engine", "pack", *paths],
        cwd=workspace.folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"pack: the disk of {out} is full: free some space and run again\n"
    assert contents(workspace.processed) == processed
