"""Reading packs: what comes out is what went in, and a pack that is not whole is refused."""

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY, Workspace, add_pictures

from imagepack import PackedImages, PackError
from stages.params import Pack, Preprocess

COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of two classes in several shards; not to be changed."""
    workspace = Workspace(tmp_path_factory.mktemp("pack"))
    add_pictures(workspace.raw, COUNT // 2, "cat")
    add_pictures(workspace.raw, COUNT // 2, "dog", first=100)
    workspace.run(preprocessed=Preprocess(size=256), packed=Pack(shard_mib=1))
    return workspace.packed


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The same pack, to be damaged."""
    (tmp_path / "shards").mkdir()
    for path in [*folder.glob("*.h5"), *folder.glob("shards/*.h5")]:
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    return tmp_path


def first_shard(folder: Path) -> Path:
    with h5py.File(folder / "dataset.h5") as file:
        return folder / "shards" / file["shard_name"][0].decode()


def test_batches_hold_every_image_once_with_its_label(folder: Path):
    packed = PackedImages(folder)
    assert len(packed._index.shard_names) > 2
    seen = []
    for images, labels in packed.batches(16):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (256, 256, 3)
        assert labels.dtype == np.int64
        seen += zip(images, labels, strict=True)
    assert len(seen) == len(packed) == COUNT
    for i, (image, label) in enumerate(seen):
        expected, its_label = packed[i]
        assert np.array_equal(image, expected)
        assert label == its_label


def test_splits_part_the_images(folder: Path):
    packed = PackedImages(folder)
    parts = [packed.split(name) for name in ("train", "val", "test")]
    paths = [part.path(i) for part in parts for i in range(len(part))]
    assert sorted(paths) == sorted(packed.path(i) for i in range(COUNT))
    assert len(parts[0]) > COUNT / 2
    with pytest.raises(ValueError, match="there are train, val, test"):
        packed.split("training")


def test_indices_work_as_in_a_list(folder: Path):
    packed = PackedImages(folder)
    assert np.array_equal(packed[-1][0], packed[COUNT - 1][0])
    with pytest.raises(IndexError):
        packed[COUNT]


def test_what_is_returned_may_be_changed_without_changing_the_pack(folder: Path):
    packed = PackedImages(folder)
    before = packed[0][0].copy()
    packed[0][0][:] = 0
    assert np.array_equal(packed[0][0], before)


def test_it_survives_pickling_after_use(folder: Path):
    train = PackedImages(folder).split("train")
    image, label = train[3]
    data = pickle.dumps(train)
    assert len(data) < 20_000  # no pixels in it
    again = pickle.loads(data)
    assert np.array_equal(again[3][0], image)
    assert again[3][1] == label


def test_training_needs_neither_dvc_nor_polars(folder: Path):
    code = (
        f"import sys, imagepack; imagepack.PackedImages({str(folder)!r})[0]; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'dvc', 'polars', 'pydantic', 'yaml', 'stages'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True).strip() == "[]"


def test_no_pack_is_said_so(tmp_path: Path):
    with pytest.raises(PackError, match=r"dataset\.h5 does not exist: make the pack with `dvc repro`"):
        PackedImages(tmp_path)


def test_a_missing_shard_is_refused_and_not_read_as_zeros(copy: Path):
    first_shard(copy).unlink()
    with pytest.raises(PackError, match=r"shards/.*\.h5 is missing: get it with `dvc checkout`"):
        PackedImages(copy)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_shard_of_the_wrong_size_is_refused(copy: Path, size: int):
    path = first_shard(copy)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(PackError, match=r"has \d+ bytes instead of"):
        PackedImages(copy)


def test_a_version_from_the_future_is_refused(copy: Path):
    with h5py.File(copy / "dataset.h5", "r+") as file:
        file.attrs["version"] = np.uint32(2)
    with pytest.raises(PackError, match="has version 2 of the format, this imagepack reads 1"):
        PackedImages(copy)


def test_other_hdf5_is_refused(copy: Path):
    with h5py.File(copy / "dataset.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(PackError, match="is HDF5, but no imagepack dataset"):
        PackedImages(copy)


def test_an_index_that_is_not_hdf5_is_refused(copy: Path):
    (copy / "dataset.h5").write_bytes(b"not HDF5")
    with pytest.raises(PackError, match="is damaged"):
        PackedImages(copy)


def replace_image_dataset(path: Path, replace) -> None:
    """Put something else in place of the shard's images, in a file of the same size."""
    size = path.stat().st_size
    with h5py.File(path, "r") as file:
        images, others = file["image"][:], {name: file[name][:] for name in ("id", "crc32c")}
    with h5py.File(path, "w") as file:
        for name, array in others.items():
            file[name] = array
        replace(file, images)
    content = path.read_bytes()
    assert len(content) <= size
    path.write_bytes(content + bytes(size - len(content)))


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (
            lambda file, images: file.create_dataset("image", data=images, chunks=True, compression="gzip"),
            "plain array",
        ),
        (lambda file, images: file.create_dataset("image", data=images[:1]), "index says"),
        (lambda file, images: file.create_dataset("image", images.shape, "u1", external="elsewhere"), "plain array"),
        (lambda file, images: file.__setitem__("image", h5py.ExternalLink("other.h5", "image")), "itself"),
        (lambda file, images: file.__setitem__("image", h5py.SoftLink("/other")), "itself"),
        (lambda file, images: file.__setitem__("other", images[:1]), "itself"),
        (lambda file, images: file.create_dataset("image", images.shape, "u1"), "beyond its end"),
        (lambda file, images: file.create_group("image"), "itself"),
    ],
    ids=["compressed", "fewer", "external", "external link", "soft link", "absent", "never written", "group"],
)
def test_a_shard_that_is_no_plain_array_is_refused(copy: Path, replace, words: str):
    replace_image_dataset(first_shard(copy), replace)
    packed = PackedImages(copy)
    with pytest.raises(PackError, match=words):
        packed[0]
