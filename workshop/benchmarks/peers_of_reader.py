"""The reader, its bound, and the libraries that it is compared with: each reads shuffled batches in its own process.

    PYTHON workshop/benchmarks/peers_of_reader.py check
    PYTHON workshop/benchmarks/peers_of_reader.py write FOLDER
    PYTHON workshop/benchmarks/peers_of_reader.py read NAME FOLDER

The first prints the peers' versions, or says what is missing; the second writes FOLDER/images.npy and labels.npy again
in the format of each peer; the third reads epochs of batches with NAME and prints what was measured, as JSON. PYTHON is
one that has the peers. It need not have our packages: of this repository only `imagepack` is imported here, and only by
who reads with it.

Everybody gives the same: every image once an epoch, in an order that is new each epoch, as uint8 (n, H, W, C) of its
own and labels (n,), with n = 256 but at the end; in one process, in which a library may have threads. Arrays can be
stored as such by most libraries, and then they are: none of them has to decode an image, unless its name says PNG.
"""

import hashlib
import importlib.util
import io
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

try:
    import numpy as np
except ImportError:  # all of them need it
    sys.exit("numpy is not installed")

BATCH = 256
"""Images."""
EPOCHS, SECONDS = 3, 2
"""At least so many epochs are timed, and so many more that they take that long."""
EVERY = 32
"""Pixels across and down between those that are compared in timed epochs."""
SHARD_BYTES, SHARD_IMAGES = 2**26, 600
"""Of the peers that cut shards: 64 MiB, the default of several; images of a tar file."""
PACKAGES = ("datasets", "h5py", "litdata", "mosaicml-streaming", "webdataset", "pillow", "numpy", "pyarrow", "torch")
Batch = tuple[np.ndarray, np.ndarray]
Epoch = Callable[[int], Iterable[Batch]]
"""From an epoch's number to its batches."""


class Arrays:
    """FOLDER/images.npy, uint8 (N, H, W, C), mapped into memory, and FOLDER/labels.npy, int64 (N,)."""

    def __init__(self, folder: Path) -> None:
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")
        self.shape = self.images.shape[1:]

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Image by image, each in memory."""
        return ((np.array(image), int(label)) for image, label in zip(self.images, self.labels, strict=True))

    def permuted(self, epoch: int) -> Iterator[np.ndarray]:
        """The numbers of all images in random order, a batch at a time."""
        order = np.random.default_rng(epoch).permutation(len(self.labels))
        return (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def batches(samples: Iterable[tuple[bytes | np.ndarray, int]], shape: tuple[int, ...]) -> Iterator[Batch]:
    """Put single samples, arrays or their bytes, together."""
    samples = (sample for sample in samples)  # LitData's iterator begins anew when asked beyond its end
    while some := list(itertools.islice(samples, BATCH)):
        images, labels = zip(*some, strict=True)
        if isinstance(images[0], bytes):
            yield np.frombuffer(bytearray().join(images), np.uint8).reshape(-1, *shape), np.array(labels)
        else:
            yield np.stack(images), np.array(labels)


def read_npy(folder: Path) -> Epoch:
    """The bound: one file, one array, one copy by NumPy."""
    arrays = Arrays(folder)

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            yield arrays.images[ids], arrays.labels[ids]

    return epoch


def read_imagepack(folder: Path, verify: str = "never", **options: int) -> Epoch:
    """Our batches: each iteration over them is an epoch."""
    from imagepack import PackedImages

    batches = PackedImages(folder / "packed", verify=verify).batches(BATCH, shuffle=True, **options)
    return lambda _: batches


def read_imagepack_take(folder: Path) -> Epoch:
    """Our `take`, into the same array each time."""
    from imagepack import PackedImages

    packed, arrays = PackedImages(folder / "packed"), Arrays(folder)
    out = np.empty((BATCH, *packed.shape), np.uint8)

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            yield packed.take(ids, out=out[: len(ids)]), packed.labels[ids]

    return epoch


def write_datasets(arrays: Arrays, out: Path) -> None:
    """Images as arrays, and as bytes."""
    from datasets import Array3D, Dataset, Features, Value

    def rows(as_bytes: bool) -> Iterator[dict]:
        for image, label in arrays:
            yield {"image": image.tobytes() if as_bytes else image, "label": label}

    for name, kind in (("arrays", Array3D(arrays.shape, "uint8")), ("bytes", Value("binary"))):
        dataset = Dataset.from_generator(
            rows,
            features=Features({"image": kind, "label": Value("int64")}),
            gen_kwargs={"as_bytes": name == "bytes"},
            cache_dir=str(out / "cache"),
        )
        dataset.save_to_disk(out / name)


def read_datasets(folder: Path) -> Epoch:
    """Arrays by their numbers, as its documentation has it."""
    from datasets import load_from_disk

    dataset = load_from_disk(folder / "HF datasets/arrays").with_format("numpy", dtype=np.uint8)
    arrays = Arrays(folder)

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            rows = dataset[ids]
            yield rows["image"], rows["label"]

    return epoch


def read_datasets_bytes(folder: Path) -> Epoch:
    """Bytes by their numbers, put together here."""
    from datasets import load_from_disk

    arrays, dataset = Arrays(folder), load_from_disk(folder / "HF datasets/bytes")

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            rows = dataset[ids]
            yield from batches(zip(rows["image"], rows["label"], strict=True), arrays.shape)

    return epoch


def read_datasets_buffer(folder: Path) -> Epoch:
    """Bytes by their numbers, left in Arrow's buffer, where they lie as an array would: one copy, as in the bound."""
    from datasets import load_from_disk

    arrays, dataset = Arrays(folder), load_from_disk(folder / "HF datasets/bytes").with_format("arrow")

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            rows = dataset[ids]
            images = rows["image"].combine_chunks()
            pixels = np.frombuffer(images.buffers()[2], np.uint8, len(ids) * arrays.images[0].size)
            yield pixels.reshape(-1, *arrays.shape), rows["label"].to_numpy()

    return epoch


def write_litdata(arrays: Arrays, out: Path) -> None:
    """What `litdata.optimize` writes, without its worker processes."""
    from litdata.streaming import Cache

    cache = Cache(str(out), chunk_bytes=SHARD_BYTES)
    for i, (image, label) in enumerate(arrays):
        cache[i] = {"image": image, "label": label}
    cache.done()
    cache.merge()


def read_litdata(folder: Path) -> Epoch:
    """Its own shuffle."""
    from litdata import StreamingDataset

    arrays, dataset = Arrays(folder), StreamingDataset(str(folder / "LitData"), shuffle=True)
    return lambda _: batches(((sample["image"], sample["label"]) for sample in dataset), arrays.shape)


def write_streaming(arrays: Arrays, out: Path) -> None:
    """MDS, not compressed, images as bytes: its column of arrays was slower."""
    with import_streaming().MDSWriter(out=str(out), columns={"image": "bytes", "label": "int"}) as writer:
        for image, label in arrays:
            writer.write({"image": image.tobytes(), "label": label})


def read_streaming(folder: Path) -> Epoch:
    """StreamingDataset, with its own shuffle."""
    streaming, arrays = import_streaming(), Arrays(folder)
    dataset = streaming.StreamingDataset(local=str(folder / "MosaicML Streaming"), shuffle=True, batch_size=BATCH)
    return lambda _: batches(((sample["image"], sample["label"]) for sample in dataset), arrays.shape)


def read_streaming_local(folder: Path) -> Epoch:
    """LocalDataset, which reads the same files by their numbers."""
    arrays, dataset = Arrays(folder), import_streaming().LocalDataset(str(folder / "MosaicML Streaming"))

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            samples = (dataset[i] for i in ids.tolist())
            yield from batches(((sample["image"], sample["label"]) for sample in samples), arrays.shape)

    return epoch


def import_streaming() -> ModuleType:
    """MosaicML Streaming imports two names of torchvision that it uses for data sets of its own alone.

    torchvision has no build for every torch: where it is missing, an empty stand-in takes its place.
    """
    if importlib.util.find_spec("torchvision") is None:
        for name, attribute in (
            ("torchvision", "__version__"),
            ("torchvision.datasets", "VisionDataset"),
            ("torchvision.transforms", "functional"),
            ("torchvision.transforms.functional", "to_tensor"),
        ):
            module = sys.modules[name] = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None)
            setattr(module, attribute, type(attribute, (), {}))
    import streaming

    return streaming


def write_webdataset(arrays: Arrays, out: Path) -> None:
    """Tar files, of raw bytes and of PNGs."""
    import webdataset
    from PIL import Image

    out.mkdir()
    options = {"maxcount": SHARD_IMAGES, "verbose": 0}
    with (
        webdataset.ShardWriter(str(out / "bytes-%04d.tar"), **options) as raw,
        webdataset.ShardWriter(str(out / "png-%04d.tar"), **options) as encoded,
    ):
        for i, (image, label) in enumerate(arrays):
            file = io.BytesIO()
            Image.fromarray(image.squeeze()).save(file, "PNG")
            raw.write({"__key__": f"{i:06}", "bin": image.tobytes(), "cls": label})
            encoded.write({"__key__": f"{i:06}", "png": file.getvalue(), "cls": label})


def read_webdataset(folder: Path, kind: str, extension: str) -> Epoch:
    """Its own shuffle: tar files in random order, and then a buffer of 1,000 images."""
    import webdataset

    arrays, files = Arrays(folder), sorted(map(str, (folder / "WebDataset").glob(f"{kind}-*.tar")))
    dataset = webdataset.WebDataset(files, shardshuffle=len(files)).shuffle(1000)
    samples = dataset.decode("rgb8").to_tuple(extension, "cls")
    return lambda _: batches(samples, arrays.shape)


def write_hdf5(arrays: Arrays, out: Path) -> None:
    """One file with the images twice: contiguous, and in chunks of one image."""
    import h5py

    out.mkdir()
    with h5py.File(out / "images.h5", "w") as file:
        file["contiguous"] = arrays.images
        file.create_dataset("chunks", data=arrays.images, chunks=(1, *arrays.shape))


def read_hdf5_fancy(folder: Path) -> Epoch:
    """Sorted numbers as the index, contiguous. In chunks of one image this gives 120 images a second."""
    import h5py

    arrays, images = Arrays(folder), h5py.File(folder / "h5py/images.h5")["contiguous"]

    def epoch(number: int) -> Iterator[Batch]:
        for ids in map(np.sort, arrays.permuted(number)):
            yield images[ids], arrays.labels[ids]

    return epoch


def read_hdf5_loop(folder: Path, name: str) -> Epoch:
    """One read an image, into the batch."""
    import h5py

    arrays, images = Arrays(folder), h5py.File(folder / "h5py/images.h5")[name]

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            batch = np.empty((len(ids), *arrays.shape), np.uint8)
            for row, i in enumerate(ids.tolist()):
                images.read_direct(batch, np.s_[i], np.s_[row])
            yield batch, arrays.labels[ids]

    return epoch


def read_image_folder(folder: Path) -> Epoch:
    """PNGs in class folders, opened as torchvision's ImageFolder does: with Pillow, one after the other."""
    from PIL import Image

    arrays, files = Arrays(folder), sorted((folder / "processed").rglob("*.png"))
    classes = sorted({file.parent.name for file in files})

    def load(file: Path) -> tuple[np.ndarray, int]:
        with Image.open(file) as image:
            return np.asarray(image).reshape(arrays.shape), classes.index(file.parent.name)

    def epoch(number: int) -> Iterator[Batch]:
        for ids in arrays.permuted(number):
            yield from batches((load(files[i]) for i in ids), arrays.shape)

    return epoch


WRITE = {
    "HF datasets": write_datasets,
    "LitData": write_litdata,
    "MosaicML Streaming": write_streaming,
    "WebDataset": write_webdataset,
    "h5py": write_hdf5,
}
BOUND, OURS = "np.load(mmap)[ids]", "imagepack"
VARIANTS: dict[str, Callable[[Path], Epoch]] = {
    BOUND: read_npy,
    OURS: read_imagepack,
    "imagepack, prefetch=0": lambda folder: read_imagepack(folder, prefetch=0),
    "imagepack, verify=always": lambda folder: read_imagepack(folder, verify="always"),
    "imagepack, take(out=...)": read_imagepack_take,
}
"""What runs in our own Python."""
BY_HAND = "HF datasets, Arrow buffer"
"""What no documentation has: the bytes under the library, taken as an array. Shown, but no peer of the promise,
as it is the bound in other clothes."""
PEERS: dict[str, Callable[[Path], Epoch]] = {
    "HF datasets, NumPy": read_datasets,
    "HF datasets, bytes": read_datasets_bytes,
    BY_HAND: read_datasets_buffer,
    "LitData": read_litdata,
    "MosaicML LocalDataset": read_streaming_local,
    "MosaicML Streaming": read_streaming,
    "h5py, sorted fancy": read_hdf5_fancy,
    "h5py, a read an image": lambda folder: read_hdf5_loop(folder, "contiguous"),
    "h5py chunks, likewise": lambda folder: read_hdf5_loop(folder, "chunks"),
    "WebDataset, bytes": lambda folder: read_webdataset(folder, "bytes", "bin"),
    "WebDataset, PNG": lambda folder: read_webdataset(folder, "png", "png"),
    "ImageFolder, PNG": read_image_folder,
}


def measure(epoch: Epoch, at_least: float = SECONDS) -> dict[str, list[float] | list[int] | list[str] | str | float]:
    """Read epochs: one to warm up, all of which is compared, and timed ones, a few pixels of which are.

    Args:
        epoch: what to read.
        at_least: seconds that the timed epochs take together.

    Returns:
        seconds: of each timed epoch.
        cpu_seconds: of each timed epoch, all threads together.
        sizes: of the batches of the first epoch.
        whole: digest of all images and labels of the first epoch, whatever their order.
        parts: of each timed epoch, likewise, of every `EVERY`th pixel.
        orders: how many different ones the timed epochs had.
        peak_mib: the largest resident set that the process has had, MiB.
        mapped_mib: what of it belongs to mapped files, at the end.
    """
    sizes, whole, seconds, cpu_seconds, parts, orders = [], [], [], [], [], set()
    for images, labels in epoch(0):
        if images.dtype != np.uint8 or not images.flags.c_contiguous or len(images) != len(labels):
            sys.exit(f"a batch must be contiguous uint8 (n, H, W, C), with n labels: {images.dtype} {images.shape}")
        sizes.append(len(images))
        whole += rows_of(images, labels)
    while len(seconds) < EPOCHS or sum(seconds) < at_least:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        seen = [(pixels_of(images), np.array(labels)) for images, labels in epoch(len(seconds) + 1)]
        seconds.append(time.perf_counter() - begun)
        cpu_seconds.append(time.process_time() - cpu_begun)
        rows = [row for images, labels in seen for row in rows_of(images, labels)]
        parts.append(digest(rows))
        orders.add(hashlib.sha256(b"".join(rows)).digest())
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "sizes": sizes,
        "whole": digest(whole),
        "parts": parts,
        "orders": len(orders),
        "peak_mib": resident_mib("VmHWM"),
        "mapped_mib": resident_mib("RssFile"),
    }


def pixels_of(images: np.ndarray) -> np.ndarray:
    """Every `EVERY`th pixel, copied: in timed epochs, so that nobody hands out pixels that it has not read."""
    return images[:, ::EVERY, ::EVERY].copy()


def rows_of(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """A hash of each image and its label."""
    return [
        hashlib.sha256(image.tobytes() + b"%d" % label).digest() for image, label in zip(images, labels, strict=True)
    ]


def digest(rows: Iterable[bytes]) -> str:
    """Of rows in any order."""
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def expected(folder: Path) -> tuple[str, str]:
    """What `whole` and each of `parts` must be."""
    arrays = Arrays(folder)
    return digest(rows_of(arrays.images, arrays.labels)), digest(rows_of(pixels_of(arrays.images), arrays.labels))


def resident_mib(field: str) -> float:
    """A line of /proc/self/status, MiB; 0 where the system has no such file."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def check() -> str:
    """Versions of the peers and of what they stand on; exits where one is not installed."""
    versions, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(f"{name} is not installed")
    if missing:
        sys.exit("\n".join(missing))
    return ", ".join(versions)


def write(folder: Path) -> None:
    """The format of each peer."""
    for name, writer in WRITE.items():
        writer(Arrays(folder), folder / name)


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(check())
    elif sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        _, _, name, folder, seconds = sys.argv
        print(json.dumps(measure((VARIANTS | PEERS)[name](Path(folder)), float(seconds))))
