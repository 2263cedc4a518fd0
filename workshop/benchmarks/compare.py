"""How long a comparison takes: of two synthetic manifests, and beside `dvc diff` on the same files.

    python3 run.py -- python -m workshop.benchmarks.compare [--rows N] [--files N] [--runs N]

Rows: two versions of which nothing exists but what a comparison reads, 1 % changed in every way there is; all outputs
are written. Files: real pictures in two versions, 1 % changed, taken in by `dvc add` and validated; `dvc diff --json`
says which files differ, `compare --json` what happened to the images. Each is a process, timed from start to end.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from PIL import Image

from imagepack.errors import InputError
from imagepack.images import manifest
from imagepack.reader import format as packs
from workshop.benchmarks import measure
from workshop.benchmarks.pipeline import copy_repository, positive

CLASSES = 100
SPLIT_SHARES = (0.8, 0.1, 0.1)
CHANGES = ("edited", "moved_edited", "relabelled", "moved", "reencoded", "added", "removed")
"""Of which each is done to an equal part of what is changed."""
PLACES = (
    "data/processed/x.png",
    "reports/rejected.csv",
    "reports/validation.html",
    "reports/preview/x.png",
    "reports/validation.json",
    "reports/pack.json",
    "reports/plots/classes.csv",
    "reports/plots/sizes.csv",
)
"""What stages write besides: here a file with nothing in it."""


class Repository:
    """A copy of this one, whose DVC has what is committed to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_repository(folder)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {"PATH": path, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
        for key, value in (("user.name", "Benchmark"), ("user.email", "benchmark@example.com")):
            self.run("git", "config", key, value)

    def run(self, *command: str) -> measure.Taken:
        return measure.run(command, self.folder, self._environment)

    def output(self, *command: str) -> str:
        return subprocess.check_output(command, cwd=self.folder, env=self._environment, text=True)

    def commit(self, tag: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", tag)
        self.run("git", "tag", tag)


def rows_of(count: int, rng: np.random.Generator) -> pl.DataFrame:
    """A manifest of images that never were, every one accepted."""
    number = pl.int_range(count)
    table = pl.select(number.alias("n")).select(
        path=pl.format("class{}/img{}.jpg", pl.col("n") % CLASSES, "n"),
        label=pl.format("class{}", pl.col("n") % CLASSES),
        batch=pl.lit(""),
        sha256=_hashes(count, 32, rng),
        bytes=pl.Series(rng.integers(20_000, 100_000, count)),
        format=pl.lit("JPEG"),
        mode=pl.lit("RGB"),
        kind=pl.lit("RGB"),
        width=pl.Series(rng.integers(300, 2000, count, dtype=np.int32)),
        height=pl.Series(rng.integers(300, 2000, count, dtype=np.int32)),
        orientation=pl.lit(1, pl.Int8),
        frame=pl.lit(1, pl.Int32),
        frames=pl.lit(1, pl.Int32),
        pixel_hash=_hashes(count, 16, rng),
        perceptual_hash=_hashes(count, 32, rng),
        **{name: pl.Series(rng.gamma(4, 30, count).astype("f4")) for name in
           ("brightness", "contrast", "saturation", "entropy", "sharpness")},
        status=pl.lit("accepted"),
        issues=pl.lit([], pl.List(pl.String)),
        seen=pl.lit([], pl.List(pl.String)),
        group=pl.lit(""),
    )  # fmt: skip
    return manifest.in_order(table)


def _hashes(count: int, size: int, rng: np.random.Generator) -> pl.Series:
    return pl.Series(np.frombuffer(rng.bytes(count * size), f"V{size}").tolist(), dtype=pl.Binary).bin.encode("hex")


def changed(table: pl.DataFrame, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """The same with `count` images changed, each kind of change done to an equal part."""
    chosen = rng.permutation(len(table))[:count]
    kind = np.full(len(table), "", object)
    for part, name in zip(np.array_split(chosen, len(CHANGES)), CHANGES, strict=True):
        kind[part] = name
    new = rows_of(len(table), rng).select(pl.col("sha256", "pixel_hash").name.prefix("new_"))
    table = pl.concat([table.with_columns(done=pl.Series(kind, dtype=pl.String)), new], how="horizontal")
    done = pl.col("done")
    other_pixels, other_place = done.is_in(["edited", "moved_edited"]), done.is_in(["moved", "moved_edited"])
    label = pl.when(done == "relabelled").then(pl.lit("class0")).otherwise("label")
    name = pl.col("path").str.split("/").list.last()
    name = pl.when(done == "relabelled").then(pl.format("was-{}", name)).otherwise(name)
    new_table = table.filter(done != "removed").with_columns(
        path=pl.when(other_place).then(pl.format("moved/{}", "path")).otherwise(pl.format("{}/{}", label, name)),
        batch=pl.when(other_place).then(pl.lit("moved")).otherwise("batch"),
        label=label,
        sha256=pl.when(other_pixels | (done == "reencoded")).then("new_sha256").otherwise("sha256"),
        pixel_hash=pl.when(other_pixels).then("new_pixel_hash").otherwise("pixel_hash"),
    )
    added = rows_of(max(1, count // len(CHANGES)), rng).with_columns(
        path=pl.format("added/{}", "path"), batch=pl.lit("added")
    )
    return manifest.in_order(pl.concat([new_table.select(added.columns), added]))


def write(folder: Path, table: pl.DataFrame) -> None:
    """What a comparison reads of a version."""
    manifest.write(table, folder / "data/validated/manifest.parquet")
    ids = np.frombuffer(bytes.fromhex("".join(table["sha256"])), "u1").reshape(-1, 32)
    classes = sorted(table["label"].unique())
    index = packs.Index(
        classes=classes,
        labels=table["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int32).to_numpy(),
        splits=np.searchsorted(np.cumsum(SPLIT_SHARES[:2]), ids[:, 0] / 256, side="right").astype("u1"),
        ids=ids,
        paths=packs.Texts.of(table["path"]),
        shard_names=[f"{ids[0].tobytes().hex()}.h5"],
        shard_starts=np.array([0, len(table)]),
        shard_bytes=np.array([len(table) * 128 * 128 * 3]),
        shape=(128, 128, 3),
        encoding="raw",
        mean=np.zeros(3),
        std=np.ones(3),
    )
    (folder / "data/packed").mkdir(exist_ok=True)
    packs.write_index(folder / "data/packed", index)


def compare_rows(folder: Path, rows: int) -> str:
    """Measure a comparison of two manifests; what it took."""
    repository, rng = Repository(folder), np.random.default_rng(0)
    for place in ("data/raw/class0/x.png", *PLACES):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"{}")
    repository.run("dvc", "add", "data/raw")
    table = rows_of(rows, rng)
    for tag in ("v1", "v2"):
        write(folder, table)
        repository.run("dvc", "commit", "--force")
        repository.commit(tag)
        table = changed(table, rows // 100, rng)
    outputs = ("--json", "c.json", "--markdown", "c.md", "--html", "c.html", "--pictures", "0")
    taken = repository.run("python", "-m", "imagepack.commands.compare", "v1", "v2", *outputs)
    counts = json.loads((folder / "c.json").read_text(encoding="utf-8"))["counts"]
    sizes = ", ".join(f"{name} {(folder / name).stat().st_size / 1e6:.1f} MB" for name in outputs[1:6:2])
    return f"{rows:,} rows: {taken.seconds:.1f} s, {taken.peak_mib:,.0f} MiB; {sizes}\n  {counts}"


def compare_files(folder: Path, files: int, runs: int) -> Iterator[str]:
    """Measure `dvc diff` and a comparison of the same two versions of real files."""
    repository, rng = Repository(folder), np.random.default_rng(0)
    changes = range(0, files, 100)
    for tag, numbers in (("v1", range(files)), ("v2", changes)):
        for number in numbers:
            path = folder / f"data/raw/class{number % 10}/img{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        repository.run("dvc", "add", "data/raw")
        repository.run("dvc", "repro", "validate")
        repository.commit(tag)
    ours, theirs = (
        ("python", "-m", "imagepack.commands.compare", "v1", "v2", "--json", "c.json", "--pictures", "0"),
        ("dvc", "diff", "--json", "v1", "v2"),
    )
    named = [
        each["path"] for each in json.loads(repository.output(*theirs))["modified"] if each["path"].endswith(".png")
    ]
    taken = {command: [] for command in (theirs, ours)}
    for _ in range(runs):
        for command, times in taken.items():
            times.append(repository.run(*command))
    counts = json.loads((folder / "c.json").read_text(encoding="utf-8"))["counts"]
    for command, times in taken.items():
        seconds = ", ".join(f"{each.seconds:.2f}" for each in times)
        yield f"{' '.join(command[:3]):20} {seconds} s, {max(each.peak_mib for each in times):,.0f} MiB"
    ratio = median(each.seconds for each in taken[theirs]) / median(each.seconds for each in taken[ours])
    yield f"{files:,} files, dvc diff / compare: {ratio:.2f}"
    yield f"  dvc diff names {len(named)} modified files, compare {counts['edited']} edited images"


def main(rows: int, files: int, runs: int) -> None:
    """Measure and print."""
    with measure.working_folder(None) as folder:
        print(compare_rows(folder / "rows", rows), flush=True)
        for line in compare_files(folder / "files", files, runs):
            print(line, flush=True)
    print(measure.machine(("dvc", "polars", "numpy", "scipy")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=positive, default=1_000_000, metavar="N", help="of each manifest (1000000)")
    parser.add_argument("--files", type=positive, default=20_000, metavar="N", help="for dvc diff (20000)")
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="of each command (3)")
    arguments = parser.parse_args()
    try:
        main(arguments.rows, arguments.files, arguments.runs)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.compare: {error}")
