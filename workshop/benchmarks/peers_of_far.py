"""The reader of packs far away and the libraries it is compared with: each reads one epoch from a bucket.

    PYTHON -m workshop.benchmarks.peers_of_far write FOLDER
    PYTHON -m workshop.benchmarks.peers_of_far read NAME KIND FOLDER CACHE

The first writes FOLDER/images.npy and labels.npy in the format of each peer to FOLDER/bucket; the second reads an epoch
of shuffled batches, CACHE being a new folder, and prints what it took, as JSON. The usual AWS variables say where the
bucket is. PYTHON need not have our packages: of this repository only `imagepack` is imported, and only to read with it.
"""

import functools
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from workshop.benchmarks.peers_of_reader import BATCH, Arrays, Batch, digest, import_streaming, pixels_of, rows_of

BUCKET, OURS, KINDS = "far", "imagepack", ("raw", "png", "jpeg")
FILE_BYTES, FILE_IMAGES = 2**24, {"raw": 340, "png": 500, "jpeg": 2500}
"""Of the peers: 16 MiB; with the 64 MiB that some have as default the first batch came later."""
Samples = Iterator[tuple[bytes, int]]


def encode(image: np.ndarray, kind: str) -> bytes:
    """The same bytes as the packs have."""
    if kind == "raw":
        return image.tobytes()
    file, options = io.BytesIO(), {"png": {"compress_level": 1}, "jpeg": {"quality": 90}}
    Image.fromarray(image).save(file, kind, **options[kind])
    return file.getvalue()


def collate(kind: str, shape: tuple[int, ...], samples: list[dict]) -> tuple:
    """A batch as tensors, which go from a worker by shared memory; runs there."""
    import torch

    images = np.empty((len(samples), *shape), np.uint8)
    for image, sample in zip(images, samples, strict=True):
        data = sample["image"]
        image[:] = np.frombuffer(data, "u1").reshape(shape) if kind == "raw" else Image.open(io.BytesIO(data))
    return torch.from_numpy(images), torch.tensor([int(sample["label"]) for sample in samples])


def write_streaming(samples: Samples, out: Path, kind: str) -> None:
    """MDS, images as bytes."""
    columns = {"image": "bytes", "label": "int"}
    with import_streaming().MDSWriter(out=str(out), columns=columns, size_limit=FILE_BYTES) as writer:
        for image, label in samples:
            writer.write({"image": image, "label": label})


def read_streaming(place: str, cache: Path) -> Iterable[dict]:
    """Its own shuffle, of 4,096 images: with the default 262,144 the first batch waited for nearly all files."""
    options = {"shuffle": True, "shuffle_block_size": 4096, "predownload": 4096, "batch_size": BATCH}
    return import_streaming().StreamingDataset(remote=f"s3://{place}", local=str(cache), **options)


def write_litdata(samples: Samples, out: Path, kind: str) -> None:
    """What `litdata.optimize` writes, without its worker processes."""
    from litdata.streaming import Cache

    cache = Cache(str(out), chunk_bytes=FILE_BYTES)
    for i, (image, label) in enumerate(samples):
        cache[i] = {"image": image, "label": label}
    cache.done()
    cache.merge()


def read_litdata(place: str, cache: Path) -> Iterable[dict]:
    """Its own shuffle."""
    from litdata.streaming import StreamingDataset, downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no option for a server without TLS
    options = {"storage_options": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}, "max_pre_download": 8}
    return StreamingDataset(f"s3://{place}", cache_dir=str(cache), shuffle=True, **options)


def write_webdataset(samples: Samples, out: Path, kind: str) -> None:
    """Tar files."""
    import webdataset

    with webdataset.ShardWriter(str(out / "%04d.tar"), maxcount=FILE_IMAGES[kind], verbose=0) as writer:
        for i, (image, label) in enumerate(samples):
            writer.write({"__key__": f"{i:06}", "image": image, "label": str(label).encode()})


def read_webdataset(place: str, cache: Path) -> Iterable[dict]:
    """Tar files in random order, by curl, and a buffer of 1,000 images: its own shuffle."""
    import boto3
    import webdataset

    client, (bucket, _, prefix) = boto3.client("s3"), place.partition("/")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]]
    urls = [client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}) for key in keys]
    files = [f"pipe:curl --silent --fail '{url}'" for url in urls]
    return webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False).shuffle(1000)


def write_datasets(samples: Samples, out: Path, kind: str) -> None:
    """Parquet, in row groups of 100 images, as the library itself writes images."""
    import pyarrow
    import pyarrow.parquet

    for number, some in enumerate(iter(lambda: list(itertools.islice(samples, FILE_IMAGES[kind])), [])):
        images, labels = zip(*some, strict=True)
        table = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "label": labels})
        pyarrow.parquet.write_table(table, out / f"{number:04}.parquet", row_group_size=100, compression="none")


def read_datasets(place: str, cache: Path) -> Iterable[dict]:
    """Files in random order and a buffer of 1,000 images: its own shuffle."""
    from datasets import load_dataset

    dataset = load_dataset("parquet", data_files=f"s3://{place}/*.parquet", split="train", streaming=True)
    return dataset.shuffle(seed=0, buffer_size=1000)


PEERS = {
    "MosaicML": (write_streaming, read_streaming, 0),
    "LitData": (write_litdata, read_litdata, 0),
    "WebDataset": (write_webdataset, read_webdataset, 2),
    "HF datasets": (write_datasets, read_datasets, 2),
}
"""How each writes and reads, and the worker processes of a DataLoader with which it was fastest on two cores."""


def batches_of(name: str, kind: str, folder: Path, cache: Path) -> Iterator[Batch]:
    """One epoch."""
    if name == OURS:
        from imagepack import PackedImages

        packed = PackedImages.at("HEAD", repo=folder / "repository", path=kind, cache=cache)
        yield from packed.batches(BATCH, shuffle=True)
        return
    dataset, shape = PEERS[name][1](f"{BUCKET}/{name}/{kind}", cache), Arrays(folder).shape
    loader = getattr(sys.modules.get(type(dataset).__module__.partition(".")[0]), "StreamingDataLoader", None)
    from torch.utils.data import DataLoader

    workers = int(os.environ.get("FAR_WORKERS", PEERS[name][2]))
    collate_fn = functools.partial(collate, kind, shape)
    for images, labels in (loader or DataLoader)(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate_fn):
        yield images.numpy(), labels.numpy()


def read(name: str, kind: str, folder: Path, cache: Path) -> dict[str, float | str]:
    """Read an epoch; seconds to the first batch and to the end, from before the library is imported, and a digest."""
    begun, seen, first = time.perf_counter(), [], 0.0
    for images, labels in batches_of(name, kind, folder, cache):
        first = first or time.perf_counter() - begun
        seen.append((pixels_of(images), np.array(labels)))
    seconds = time.perf_counter() - begun
    rows = [row for images, labels in seen for row in rows_of(images, labels)]
    return {"first": first, "seconds": seconds, "part": digest(rows), "count": len(rows)}


def write(folder: Path) -> None:
    """Each kind in the format of each peer."""
    for kind in KINDS:
        samples = [(encode(image, kind), label) for image, label in Arrays(folder)]
        for name, (writer, _, _) in PEERS.items():
            (folder / "bucket" / name / kind).mkdir(parents=True)
            writer(iter(samples), folder / "bucket" / name / kind, kind)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        _, _, name, kind, folder, cache = sys.argv
        print(json.dumps(read(name, kind, Path(folder), Path(cache))), flush=True)
