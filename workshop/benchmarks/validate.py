"""How long validate takes, beside the two tools that users know for finding bad and duplicate images.

    python3 run.py -- python -m workshop.benchmarks.validate --peers PYTHON [--images N] [--runs N] [--keep FOLDER]
    python3 run.py -- python -m workshop.benchmarks.validate --memory [--images N] [--runs N] [--keep FOLDER]

In every round: the stage as dvc.yaml has it; cleanvision with its default issues; imagededup's PHash with its default
threshold. Each is a process, timed from its start to its end, on the same photographs and a few with planted problems,
all of which decode (cleanvision stops at the first file that does not); files are read from a warm page cache. With
--memory it is the stage alone, on N images and on 4 N.

PYTHON is one that has the tools. They want other packages than we do, so make them an environment of their own:

    python3 -m venv peers
    peers/bin/pip install cleanvision==0.3.7 scikit-learn
    peers/bin/pip install --no-deps imagededup==0.3.3.post2

and say `--peers peers/bin/python`. (Without --no-deps pip adds torch and torchvision, gigabytes that PHash does not
use. Where they are installed they are imported, as imagededup wants it, and take their time.)
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import polars as pl
import yaml
from PIL import Image, ImageFilter

from imagepack.engine import memo
from imagepack.errors import InputError
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.pipeline import ROOT, copy_repository, positive

VALIDATE, PEERS = "validate", ("cleanvision", "imagededup")
RAW, MANIFEST = "data/raw", "data/validated/manifest.parquet"
SCRIPT = ROOT / "workshop/benchmarks/peers_of_validate.py"
INSTALL = """\
  make an environment for them:
    python3 -m venv peers
    peers/bin/pip install cleanvision==0.3.7 scikit-learn
    peers/bin/pip install --no-deps imagededup==0.3.3.post2
  and run again with --peers peers/bin/python; or measure validate alone with --memory"""
PACKAGES = ("pillow", "numpy", "polars", "simplejpeg", "scikit-image")
GROWTH = 4
"""How many times the images --memory has the second time."""
PROBLEMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "dark": lambda image: image.point(lambda value: value // 16),
    "bright": lambda image: image.point(lambda value: 255 - (255 - value) // 16),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(8)),
    "grey": lambda image: image.convert("L"),
    "one-colour": lambda image: Image.new("RGB", image.size, (90, 120, 60)),
    "narrow": lambda image: image.crop((0, 0, image.width, image.height // 12)),
    "small": lambda image: image.resize((32, 24)),
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
}
"""What is made of one photograph, by the name of the file."""
COPIES = ("copy-1", "copy-2")
"""The same photograph again, byte for byte."""


class Project:
    """A copy of this repository, with photographs and planted problems in data/raw.

    Attributes:
        images: files in data/raw.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder = folder
        copy_repository(folder)
        photographs.generate(folder / RAW, photos)
        self._photos, self._planted = photos, plant(folder / RAW)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {"PATH": path}
        stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self._command = shlex.split(stages[VALIDATE]["cmd"])

    @property
    def images(self) -> int:
        return self._photos + self._planted

    def grow(self, times: int) -> None:
        """Add photographs until there are `times` as many."""
        photographs.generate(self.folder / RAW, (times - 1) * self._photos, first=self._photos)
        self._photos *= times

    def validate(self) -> measure.Taken:
        """Run the stage, which remembers nothing of earlier runs.

        Raises:
            InputError: it failed, or its manifest has not all images.
        """
        (self.folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder / memo.FOLDER, ignore_errors=True)
        taken = self.run(self._command)
        seen = pl.scan_parquet(self.folder / MANIFEST).select(pl.len()).collect().item()
        if seen != self.images:
            raise InputError(f"validate saw {seen} of {self.images} images")
        return taken

    def run(self, command: Sequence[str | Path]) -> measure.Taken:
        """Run `command` in the copy and measure it."""
        return measure.run(command, self.folder, self._environment)


def plant(raw: Path) -> int:
    """Add images with a problem each, made of photograph number 0; return how many."""
    source = raw / next(iter(photographs.PHOTOGRAPHS)) / f"{0:06}.jpg"
    with Image.open(source) as image:
        for name, change in PROBLEMS.items():
            change(image).save(source.with_stem(name), quality=photographs.QUALITY)
    for name in COPIES:
        shutil.copyfile(source, source.with_stem(name))
    return len(PROBLEMS) + len(COPIES)


def versions_of_peers(python: Path) -> str:
    """Versions of the tools that `python` has.

    Raises:
        InputError: `python` cannot be run, or lacks a tool.
    """
    try:
        done = subprocess.run([python, SCRIPT, "check"], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"--peers {python} cannot be run ({error.strerror})\n{INSTALL}") from None
    if done.returncode:
        raise InputError(f"{python} lacks what validate is compared with:\n{done.stderr.rstrip()}\n{INSTALL}")
    return done.stdout.rstrip()


def compare(project: Project, python: Path, rounds: int) -> dict[str, measure.Taken]:
    """Median seconds and highest memory over the rounds: of validate and each peer."""
    taken = defaultdict(list)
    for number in range(1, rounds + 1):
        taken[VALIDATE].append(project.validate())
        for name in PEERS:
            taken[name].append(project.run([python, SCRIPT, name, RAW, str(project.images)]))
        seconds = ", ".join(f"{name} {runs[-1].seconds:.1f}" for name, runs in taken.items())
        print(f"round {number} of {rounds}, seconds: {seconds}", file=sys.stderr, flush=True)
    return {name: over_rounds(runs) for name, runs in taken.items()}


def over_rounds(runs: Sequence[measure.Taken]) -> measure.Taken:
    """Median seconds, highest memory."""
    return measure.Taken(median(run.seconds for run in runs), max(run.peak_mib for run in runs))


def report(images: int, taken: dict[str, measure.Taken]) -> str:
    """What was measured, a line each, and how the peers compare with validate."""
    ratios = (f"{name} / {VALIDATE}: {taken[name].seconds / taken[VALIDATE].seconds:.2f}" for name in PEERS)
    return "\n".join(
        [
            f"{f'{images} images':20}{'seconds':>10}{'images/s':>10}{'peak MiB':>10}",
            *(row(name, images, run) for name, run in taken.items()),
            "",
            "   ".join(ratios),
        ]
    )


def row(name: str, images: int, run: measure.Taken) -> str:
    """One line of a table."""
    return f"{name:20}{run.seconds:10.2f}{images / run.seconds:10.0f}{run.peak_mib:10.0f}"


def report_memory(project: Project, rounds: int) -> str:
    """Run the stage on the images there are, then on `GROWTH` times as many; a line each, and the growth."""
    taken = {}
    for times in (1, GROWTH):
        project.grow(times)
        taken[project.images] = over_rounds([project.validate() for _ in range(rounds)])
    (few, small), (many, large) = taken.items()
    more = large.peak_mib - small.peak_mib
    return "\n".join(
        [
            f"{VALIDATE:20}{'seconds':>10}{'images/s':>10}{'peak MiB':>10}",
            *(row(f"{images} images", images, run) for images, run in taken.items()),
            "",
            f"{more:.1f} MiB for {many - few} images more: {more * 2**10 / (many - few):.2f} KiB an image",
        ]
    )


def executable(text: str) -> Path:
    """A program, by name or path, for argparse.

    Made absolute, since it is run in another folder; links are kept, since one makes a virtual environment's Python.
    """
    return Path(shutil.which(text) or text).absolute()


def main(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure in `folder`, which is empty, and print the report."""
    if arguments.memory:
        print(report_memory(Project(folder, arguments.images), arguments.runs), measure.machine(PACKAGES), sep="\n\n")
        return
    versions = versions_of_peers(arguments.peers)
    project = Project(folder, arguments.images)
    taken = compare(project, arguments.peers, arguments.runs)
    print(f"{report(project.images, taken)}\n\n{measure.machine(PACKAGES)}\npeers: {versions}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.validate", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=2000, metavar="N", help="photographs (2000)")
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="rounds, of which the median counts (3)")
    parser.add_argument(
        "--peers",
        type=executable,
        default=sys.executable,
        metavar="PYTHON",
        help="the Python that has the peers (this)",
    )
    parser.add_argument("--memory", action="store_true", help="validate alone, on N images and on 4 N")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            main(folder, arguments)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.validate: {error}")
