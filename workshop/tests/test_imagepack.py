"""Reading packs: what comes out is what went in, and a pack that is not whole is refused."""

import dataclasses
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY, Workspace, add_pictures

from imagepack import PackedImages, PackError
from imagepack.reader import format as packs
from imagepack.reader import shards
from imagepack.reader.format import read_layout
from stages.pack import Pack
from stages.preprocess import Preprocess
from stages.validate import Levels, Validate

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
    assert len(packed.index.shard_names) > 2
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
        file.attrs["version"] = np.uint32(4)
    with pytest.raises(PackError, match="has version 4 of the format, this imagepack reads 1 to 3"):
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


SOUND_NAME = f"{'ab' * 32}.h5"


@pytest.mark.parametrize(
    ("field", "dataset", "change", "words"),
    [
        ("shard_names", "shard_name", lambda names: ["../../x.h5", *names[1:]], r"'../../x\.h5' is no name of a shard"),
        ("shard_names", "shard_name", lambda names: ["/etc/x.h5", *names[1:]], r"'/etc/x\.h5' is no name of a shard"),
        ("shard_names", "shard_name", lambda names: [f"a/{SOUND_NAME}", *names[1:]], "is no name of a shard"),
        ("shard_names", "shard_name", lambda names: [f"a\\{SOUND_NAME}", *names[1:]], "is no name of a shard"),
        ("shard_names", "shard_name", lambda names: [f"{SOUND_NAME}\n", *names[1:]], "is no name of a shard"),
        ("labels", "label", lambda labels: labels + 1, "a label is not within 0 to 1"),
        ("labels", "label", lambda labels: labels - 1, "a label is not within 0 to 1"),
        ("labels", "label", lambda labels: labels.astype("<i8"), "label is of type int64"),
        ("labels", "label", lambda labels: labels[:, None], r"label has the shape|split has the shape"),
        ("splits", "split", lambda splits: splits + np.uint8(4), "a split is not within 0 to 3"),
        ("splits", "split", lambda splits: splits[1:], r"split has the shape \(39,\), not \(40,\)"),
        ("ids", "id", lambda ids: ids[:, :31], r"id has the shape \(40, 31\), not \(40, 32\)"),
        ("shard_starts", "shard_start", lambda starts: starts - 1, "shard_start does not go from 0 to 40 in order"),
        ("shard_starts", "shard_start", lambda starts: starts * 2, "shard_start does not go from 0 to 40 in order"),
        ("shard_starts", "shard_start", lambda starts: starts * [1, 9, *[1] * (len(starts) - 2)], "in order"),
        ("shard_bytes", "shard_bytes", lambda sizes: -sizes, "a shard has no bytes"),
        ("shape", None, lambda shape: (*shape, 1), r"the shape \(256, 256, 3, 1\), not \(H, W, C\)"),
        ("shape", None, lambda shape: (0, *shape[1:]), r"the shape \(0, 256, 3\), not \(H, W, C\)"),
        ("mean", None, lambda mean: mean[:2], r"mean has the shape \(2,\), not \(3,\)"),
        ("encoding", None, lambda encoding: "tiff", "its encoding 'tiff' is none of raw, png, jpeg"),
    ],
)
def test_an_index_that_leads_out_of_the_pack_or_contradicts_itself_is_refused(
    copy: Path, field: str, dataset: str | None, change: Callable, words: str
):
    """Its digest is right: it was made so."""
    index, _ = packs.read_index(copy / "dataset.h5")
    value = change(getattr(index, field))
    made = dataclasses.replace(index, **{field: value})
    with h5py.File(copy / "dataset.h5", "r+") as file:
        if dataset:
            del file[dataset]
            file.create_dataset(dataset, data=np.array(value, "S") if field == "shard_names" else value)
        else:
            file.attrs[field] = np.bytes_(value) if isinstance(value, str) else np.array(value)
        file.attrs["digest"] = np.bytes_(made.digest())
    with pytest.raises(PackError, match=rf"dataset\.h5 is damaged \(.*({words}).*\): remove it, then get it again"):
        PackedImages(copy)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_shard_may_be_a_link_to_a_cache_and_to_no_other_file(copy: Path, tmp_path_factory: pytest.TempPathFactory):
    outside, shard = tmp_path_factory.mktemp("outside"), first_shard(copy)
    digest = "0123456789abcdef" * 2
    cached = outside / "files/md5" / digest[:2] / digest[2:]
    cached.parent.mkdir(parents=True)
    shard.rename(cached)
    shard.symlink_to(cached)  # as DVC does with cache.type symlink
    PackedImages(copy)[0]
    shard.unlink()
    shard.symlink_to(cached.rename(outside / "x.h5"))
    with pytest.raises(PackError, match=r"\.h5 is a link to .*x\.h5, which is in no cache: remove it, then get"):
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


def test_subsets_are_of_the_images_asked_for_in_their_order(folder: Path):
    packed = PackedImages(folder)
    some = packed.subset([7, 3, -1])
    assert [some.path(i) for i in range(3)] == [packed.path(i) for i in (7, 3, COUNT - 1)]
    assert np.array_equal(some[1][0], packed[3][0])
    dogs = packed.of_classes("dog")
    assert set(dogs.labels) == {packed.classes.index("dog")}
    assert len(dogs) == COUNT // 2
    mask = packed.labels == 0
    assert np.array_equal(packed.subset(mask).ids, packed.ids[mask])
    assert len(dogs.subset(dogs.labels == 0)) == 0
    with pytest.raises(ValueError, match="no class 'wolf': there are cat, dog"):
        packed.of_classes("wolf")
    with pytest.raises(IndexError, match="a mask must have 40 values"):
        packed.subset([True])
    with pytest.raises(IndexError, match="indices 40 to 40 of a dataset of 40 images"):
        packed.subset([COUNT])


def test_a_larger_fraction_has_all_of_a_smaller_one(folder: Path):
    packed = PackedImages(folder)
    ids = [{image_id.tobytes() for image_id in packed.fraction(share).ids} for share in (0, 0.2, 0.7, 1)]
    assert ids[0] == set()
    assert ids[1] < ids[2] < ids[3]
    assert len(ids[3]) == COUNT
    assert ids[2] != {image_id.tobytes() for image_id in packed.fraction(0.7, seed=1).ids}
    assert {image_id.tobytes() for image_id in packed.of_classes("cat").fraction(0.7).ids} <= ids[2]


def test_images_are_read_into_a_buffer_of_the_callers(folder: Path):
    packed = PackedImages(folder)
    buffer = np.zeros((3, *packed.shape), np.uint8)
    assert packed.take([5, 0, 5], out=buffer) is buffer
    assert np.array_equal(buffer, [packed[i][0] for i in (5, 0, 5)])
    for wrong in (buffer[:2], buffer.astype(np.int16), np.zeros((3, 256, 3, 256), np.uint8).swapaxes(2, 3)):
        with pytest.raises(ValueError, match=r"out must be writeable, contiguous uint8 \(3, 256, 256, 3\)"):
            packed.take([5, 0, 5], out=wrong)
    assert packed.take([]).shape == (0, *packed.shape)


def test_a_subset_opens_nothing_anew(copy: Path):
    packed = PackedImages(copy)
    (copy / "dataset.h5").unlink()
    train = packed.split("train").fraction(0.5)
    assert train.index is packed.index
    assert len(train) < len(packed.labels)
    assert len(train.labels) == len(train)


def test_positions_that_are_none_are_refused(folder: Path):
    packed = PackedImages(folder)
    mask = packed.labels == 1
    assert np.array_equal(packed.take(mask), packed.take(np.flatnonzero(mask)))
    for wrong in ([0.5], ["3"], [[1, 2]], np.array([True] * COUNT, dtype=object)):
        with pytest.raises(TypeError, match="positions must be a row of whole numbers"):
            packed.take(wrong)
    for wrong in (1.7, "3", [5, 3], slice(1, 3), (5, 3)):
        with pytest.raises(TypeError, match=r"an index is a whole number, not .*: take and subset have several"):
            packed[wrong]
    with pytest.raises(IndexError):
        packed.take(np.array([2**64 - 1], np.uint64))
    read_only = np.frombuffer(bytes(packed[0][0].nbytes), np.uint8).reshape(1, *packed.shape)
    with pytest.raises(ValueError, match="out must be writeable"):
        packed.take([0], out=read_only)


@pytest.mark.slow
def test_more_shards_than_files_may_be_open(workspace: Workspace):
    """In a process that may open few, each image in a shard of its own."""
    resource = pytest.importorskip("resource")
    add_pictures(workspace.raw, 300)
    packed = workspace.run(Validate(levels=Levels(near_duplicate="ignore")), Preprocess(size=600), Pack(shard_mib=1))
    assert len(packed.index.shard_names) == 300
    code = (
        "import imagepack, resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}))\n"
        f"packed = imagepack.PackedImages({str(workspace.packed)!r})\n"
        "print(sum(len(labels) for part in (packed, packed.split('train')) for _, labels in part.batches(300)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == str(300 + len(packed.split("train"))), done.stderr


def test_several_at_once_are_the_same_as_one_by_one(folder: Path):
    packed = PackedImages(folder)
    for (image, label), i in zip(packed.__getitems__([9, 2, 31]), (9, 2, 31), strict=True):
        assert np.array_equal(image, packed[i][0])
        assert (type(label), label) == (int, packed[i][1])


def read_all(packed: PackedImages) -> bytes:
    """Runs in another process."""
    return packed.take(range(len(packed))).tobytes()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_other_processes_read_the_same_however_they_are_started(folder: Path, method: str):
    packed = PackedImages(folder).split("train")
    expected = read_all(packed)  # so that files are open
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_all, [packed] * 4) == [expected] * 4


def test_a_forked_process_may_use_what_it_was_forked_with(folder: Path):
    """Also where threads were reading: it inherits open files, and locks that nobody will open."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    code = (
        "import os, sys, imagepack\n"
        f"packed = imagepack.PackedImages({str(folder)!r})\n"
        "batches = iter(packed.batches(1, prefetch=4))\n"
        "first = next(batches)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    total = sum(len(labels) for _, labels in packed.batches(4, shuffle=True))\n"
        "    os._exit(0 if total == len(packed) else 1)\n"
        "assert sum(1 for _ in batches) == len(packed) - 1\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)


@pytest.mark.parametrize("of_a_thread", [1, 64])
def test_threads_read_at_the_same_time(folder: Path, of_a_thread: int, monkeypatch: pytest.MonkeyPatch):
    """With more shards than files that may be open, in all and by a thread."""
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    monkeypatch.setattr(shards, "OPEN_A_THREAD", of_a_thread)
    packed = PackedImages(folder, verify="always")
    expected = [packed[i][0] for i in range(COUNT)]
    chosen = np.random.default_rng(0).integers(0, COUNT, (200, 8))
    with ThreadPoolExecutor(8) as pool:
        for indices, images in zip(chosen, pool.map(packed.take, chosen), strict=True):
            assert np.array_equal(images, [expected[i] for i in indices])


def test_open_files_are_closed_when_the_dataset_goes(folder: Path):
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list open files")

    def opened() -> int:
        return sum(str(folder) in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    before = opened()
    packed = PackedImages(folder)
    packed.take(range(COUNT))
    assert opened() > before
    del packed
    assert opened() == before


def flip_a_pixel(folder: Path, image: int) -> None:
    """Change one bit of an image in its shard, where HDF5 does not look."""
    index = PackedImages(folder).index
    shard = int(np.searchsorted(index.shard_starts, image, "right")) - 1
    path = folder / "shards" / index.shard_names[shard]
    offset = int(read_layout(path, index, shard).offsets[image - index.shard_starts[shard]])
    data = bytearray(path.read_bytes())
    data[offset + 100] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_where_that_is_asked_for(copy: Path):
    flip_a_pixel(copy, 17)
    assert PackedImages(copy)[17]
    for verify in ("first-read", "always"):
        packed = PackedImages(copy, verify=verify)
        packed.take([16, 18])
        with pytest.raises(PackError, match=r"image \d+ of shard \w+\.h5 does not match its checksum: remove it"):
            packed.take([16, 17])
    with pytest.raises(ValueError, match="verify must be never, first-read or always, not 'sometimes'"):
        PackedImages(copy, verify="sometimes")


def test_an_image_that_changes_later_is_found_only_if_it_is_always_verified(copy: Path):
    once, always = (PackedImages(copy, verify=verify) for verify in ("first-read", "always"))
    once[17], always[17]
    flip_a_pixel(copy, 17)
    assert once[17]
    with pytest.raises(PackError, match="does not match its checksum"):
        always[17]


def test_shards_that_were_swapped_are_refused(copy: Path):
    by_size = defaultdict(list)
    for path in copy.glob("shards/*"):
        by_size[path.stat().st_size].append(path)
    one, other = next(paths for paths in by_size.values() if len(paths) > 1)[:2]
    one.rename(copy / "other")
    other.rename(one)
    (copy / "other").rename(other)
    with pytest.raises(PackError, match="it holds other images than the index says"):
        read_all(PackedImages(copy))


@pytest.mark.parametrize("closed", [False, True])
def test_a_shard_that_is_cut_while_it_is_read_is_told_so(copy: Path, closed: bool, monkeypatch: pytest.MonkeyPatch):
    """Also where it was put out of the list of open files, and is opened again."""
    monkeypatch.setattr(shards, "OPEN_FILES", 0 if closed else 128)
    packed = PackedImages(copy)
    packed[0]
    path = first_shard(copy)
    os.truncate(path, 5000)
    with pytest.raises(PackError, match="has become shorter while it was read"):
        packed[0]


def test_a_pack_that_has_changed_is_not_taken_for_the_pickled_one(workspace: Workspace):
    add_pictures(workspace.raw, 5)
    data = pickle.dumps(workspace.run())
    add_pictures(workspace.raw, 6)
    workspace.run()
    with pytest.raises(PackError, match="has changed since this dataset was made: open it again"):
        pickle.loads(data)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_encoded_packs_hold_the_same_images(workspace: Workspace, encoding: str, mode: str):
    add_pictures(workspace.raw, 12)
    small = {"preprocessed": Preprocess(size=64, mode=mode)}
    raw = workspace.run(**small)
    expected = raw.take(range(12)).astype(int)
    packed = workspace.run(**small, packed=Pack(encoding=encoding))
    assert packed.shape == raw.shape == (64, 64, 3 if mode == "RGB" else 1)
    assert np.array_equal(packed.ids, raw.ids)
    difference = np.abs(packed.take(range(12)) - expected)
    assert difference.max() == 0 if encoding == "png" else 0 < difference.mean() < 3
    assert packed.index.shard_bytes.sum() < raw.index.shard_bytes.sum()
    batched = [image for images, _ in packed.batches(5, shuffle=True) for image in images]
    assert sorted(map(bytes, batched)) == sorted(map(bytes, packed.take(range(12))))
    assert np.array_equal(packed.mean, raw.mean)
    assert packed.digest != raw.digest


def test_a_damaged_image_of_an_encoded_pack_is_named(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    packed = workspace.run(packed=Pack(encoding="png"))
    (path,) = workspace.packed.glob("shards/*")
    offset = int(read_layout(path, packed.index, 0).offsets[1])
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    assert packed[0]
    with pytest.raises(PackError, match=r"image 1 is damaged \(cannot identify image file"):
        packed[1]
    with pytest.raises(PackError, match="does not match its checksum"):
        PackedImages(workspace.packed, verify="always")[1]


def test_mean_and_std_are_those_of_the_train_split(workspace: Workspace):
    add_pictures(workspace.raw, 30)
    packed = workspace.run()
    train = packed.split("train")
    pixels = train.take(range(len(train))).reshape(-1, 3) / 255
    assert np.allclose(packed.mean, pixels.mean(0), atol=1e-6)
    assert np.allclose(packed.std, pixels.std(0), atol=1e-6)
    assert packed.mean.dtype == packed.std.dtype == np.float32


def test_a_notebook_shows_a_pack_with_its_names_escaped(workspace: Workspace):
    add_pictures(workspace.raw, 3, "<b>cat & dog")
    page = workspace.run()._repr_html_()
    assert "&lt;b&gt;cat &amp; dog" in page
    assert "<b>" not in page
    assert page.count('src="data:image/jpeg;base64,') == 3


def command(*arguments: str | Path, ok: bool = True) -> str:
    """`python -m imagepack ...`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "imagepack", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_info_says_what_is_in_a_pack(folder: Path):
    said = command("info", folder)
    packed = PackedImages(folder)
    assert packed.digest in said
    assert f"40 of 256 x 256 pixels, RGB, raw\nclasses    2\npack       40 images, {7.5} MiB in" in said
    train = (packed.split("train").labels == 0).sum()
    assert re.search(rf"^cat +{train} +\d+ +\d+ +0$", said, flags=re.MULTILINE)
    assert "dataset.h5 does not exist: make the pack with" in command("info", folder / "nothing", ok=False)


def test_verify_names_every_bad_row_and_shard(copy: Path):
    assert command("verify", copy) == "40 images, all of them sound\n"
    for image in (3, 17, 30):
        flip_a_pixel(copy, image)
    index = PackedImages(copy).index
    lost = next(s for s in range(len(index.shard_names)) if not index.shard_starts[s] <= 30 < index.shard_starts[s + 1])
    rows = [i for i in (3, 17, 30) if not index.shard_starts[lost] <= i < index.shard_starts[lost + 1]]
    (copy / "shards" / index.shard_names[lost]).unlink()
    said = command("verify", copy, ok=False)
    for row in rows:
        assert f"\n  row {row}, {index.paths[row]}: damaged in " in said
    assert f"{index.shard_names[lost]} is missing" in said
    assert said.count("\n") == len(rows) + 3


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_no_damage_to_the_files_crashes_or_hangs_the_reader(workspace: Workspace, encoding: str):
    """In a process of its own, which a crash would end: the images come out as they were, or a PackError."""
    add_pictures(workspace.raw, 6)
    workspace.run(preprocessed=Preprocess(size=8), packed=Pack(encoding=encoding))
    damage = [sys.executable, Path(__file__).with_name("damage_packs.py"), workspace.packed, "1500"]
    done = subprocess.run(damage, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == 1500
    assert refused > 400


def test_stages_that_read_no_pack_load_no_reader():
    """To import h5py takes a tenth of a second of each stage's start."""
    code = "import sys, stages.validate, stages.preprocess; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
