"""How fast shuffled batches are read from a pack, beside the fastest way there is and the libraries that users know.

    python3 run.py -- python -m workshop.benchmarks.reader --peers PYTHON [--images N] [--runs N] [--keep FOLDER]
    python3 run.py -- python -m workshop.benchmarks.reader --alone [--images N] [--runs N] [--keep FOLDER]
    python3 run.py -- python -m workshop.benchmarks.reader --encodings [--images N] [--runs N] [--keep FOLDER]

Photographs go through the stages that dvc.yaml has, to 128 x 128 pixels, and the same pixels into the format of each
library. In every round each reads a few epochs of shuffled batches of 256, in a process of its own, from a warm page
cache: peers_of_reader.py has how. Who leaves an image out, or gives one twice, ends the benchmark. With
--alone it is the reader and the bound; with --encodings the reader, on packs of arrays, PNGs and JPEGs.

Exits with 1 where the reader is below 0.9 of the bound, `np.load(mmap)[ids]`, or below three times the best peer
(not counting Arrow's buffer taken by hand, which is the bound in other clothes).

PYTHON is one that has the peers. They want other packages than we do, so make them an environment of their own:

    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 datasets==5.0.1 litdata==0.2.76 webdataset==1.0.2 h5py==3.16.0 "numpy<2.2"
    peers/bin/pip install brotli catalogue python-snappy "transformers<5" "xxhash<4" zstd
    peers/bin/pip install --no-deps mosaicml-streaming==0.13.0
    peers/bin/pip uninstall --yes torchvision

and say `--peers peers/bin/python`. (Without --no-deps pip adds the clients of six clouds. torchvision, which litdata
brings, has no build for every torch, and nothing here needs it: a loop does what its ImageFolder does.)
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from PIL import Image

from imagepack.errors import InputError
from workshop.benchmarks import measure, photographs
from workshop.benchmarks import peers_of_reader as readers
from workshop.benchmarks.peers_of_reader import BATCH, BOUND, BY_HAND, OURS, PEERS, VARIANTS
from workshop.benchmarks.pipeline import ROOT, copy_repository, positive, require_all
from workshop.benchmarks.validate import executable

SIZE = 128
"""Pixels."""
OF_BOUND, OF_PEERS = 0.9, 3
"""What the reader promises: at least this share of the bound, and this many times the best peer."""
ENCODINGS = ("raw", "png", "jpeg")
PACKAGES = ("pillow", "numpy", "h5py", "scikit-image")
SCRIPT = ROOT / "workshop/benchmarks/peers_of_reader.py"
INSTALL = """\
  make an environment for them:
    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 datasets==5.0.1 litdata==0.2.76 webdataset==1.0.2 h5py==3.16.0 "numpy<2.2"
    peers/bin/pip install brotli catalogue python-snappy "transformers<5" "xxhash<4" zstd
    peers/bin/pip install --no-deps mosaicml-streaming==0.13.0
    peers/bin/pip uninstall --yes torchvision
  and run again with --peers peers/bin/python; or measure the reader and the bound with --alone"""


@dataclass(frozen=True)
class Speed:
    """What one way of reading took, over all rounds.

    Attributes:
        rate: images a second, median of the epochs.
        cpu: microseconds an image of all threads together, median of the epochs; hardly more on a busy machine.
        peak_mib: the largest resident set of its process, MiB.
        mapped_mib: what of that belongs to mapped files, which the system takes back when it needs memory.
    """

    rate: float
    cpu: float
    peak_mib: float
    mapped_mib: float


class Data:
    """A copy of this repository with a pack of photographs, and the same pixels as arrays.

    Attributes:
        images: how many.
        folder: with packed/, processed/, images.npy and labels.npy: what workshop/benchmarks/peers_of_reader.py reads.
    """

    def __init__(self, folder: Path, images: int, seconds: float) -> None:
        self.images, self.folder, self._seconds = images, folder / "data", seconds
        self._repository = folder
        copy_repository(folder)
        stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self._commands = {name: shlex.split(stage["cmd"]) for name, stage in stages.items()}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        caches = {"HF_HOME": str(folder / "caches/hf"), "LITDATA_CACHE_DIR": str(folder / "caches/litdata")}
        quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        self._environment = os.environ | {"PATH": path} | caches | quiet
        photographs.generate(self.folder / "raw", images)
        self._set("preprocess", size=SIZE, mode="RGB")
        self._run("validate")
        self._run("preprocess")
        self.pack("raw")
        self._write_arrays()
        self._whole, self._part = readers.expected(self.folder)

    def pack(self, encoding: str) -> int:
        """Make the pack, in place of the one there is; bytes of its shards."""
        self._set("pack", encoding=encoding)
        self._run("pack")
        require_all(self.folder / "packed", self.images)
        return sum(path.stat().st_size for path in (self.folder / "packed/shards").iterdir())

    def write_for_peers(self, python: Path) -> None:
        """The same pixels in the format of each."""
        measure.run([python, SCRIPT, "write", self.folder], ROOT, self._environment)

    def read(self, name: str, python: Path | None = None, lossy: bool = False) -> dict:
        """Read epochs in a process of its own: of us, or of `python`; what peers_of_reader.measure returns.

        Raises:
            InputError: it failed, or did not give every image once an epoch, in batches of 256, in a new order.
        """
        program = [python, SCRIPT] if python else [sys.executable, "-m", "workshop.benchmarks.peers_of_reader"]
        command = [*program, "read", name, self.folder, str(self._seconds)]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{name} exited {done.returncode}:\n{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        full, rest = divmod(self.images, BATCH)
        if result["sizes"] != [BATCH] * full + [rest] * bool(rest):
            raise InputError(f"{name} gave batches of {result['sizes']} images")
        if len(set(result["parts"])) > 1:
            raise InputError(f"{name} did not give the same images in each epoch")
        if result["orders"] < len(result["parts"]) and self.images > BATCH:  # a peer sorts each batch
            raise InputError(f"{name} did not shuffle anew in each epoch")
        if not lossy and (result["whole"], result["parts"][0]) != (self._whole, self._part):
            raise InputError(f"{name} did not give every image once, as it was written")
        return result

    def _set(self, section: str, **values: int | str) -> None:
        """Change params.yaml of the copy."""
        path = self._repository / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        params[section] |= values
        path.write_text(yaml.safe_dump(params), encoding="utf-8")

    def _run(self, stage: str) -> None:
        measure.run(self._commands[stage], self._repository, self._environment)

    def _write_arrays(self) -> None:
        files = sorted((self.folder / "processed").rglob("*.png"))
        classes = sorted({file.parent.name for file in files})
        shape = (len(files), SIZE, SIZE, 3)
        images = np.lib.format.open_memmap(self.folder / "images.npy", "w+", np.uint8, shape)
        for row, file in enumerate(files):
            with Image.open(file) as image:
                images[row] = np.asarray(image)
        np.save(self.folder / "labels.npy", np.array([classes.index(file.parent.name) for file in files]))


def versions_of_peers(python: Path) -> str:
    """Versions of the libraries that `python` has.

    Raises:
        InputError: `python` cannot be run, or lacks one.
    """
    try:
        done = subprocess.run([python, SCRIPT, "check"], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"--peers {python} cannot be run ({error.strerror})\n{INSTALL}") from None
    if done.returncode:
        raise InputError(f"{python} lacks what the reader is compared with:\n{done.stderr.rstrip()}\n{INSTALL}")
    return done.stdout.rstrip()


def compare(data: Data, python: Path | None, rounds: int) -> dict[str, Speed]:
    """Read with each in every round: with us and the bound, and with the peers that `python` has."""
    runs = defaultdict(list)
    for number in range(1, rounds + 1):
        for name in [*VARIANTS, *(PEERS if python else ())]:
            runs[name].append(data.read(name, python if name in PEERS else None))
            rate = data.images / median(runs[name][-1]["seconds"])
            print(f"round {number} of {rounds}: {name} {rate:.0f} images/s", file=sys.stderr, flush=True)
    return {name: over_rounds(data.images, results) for name, results in runs.items()}


def over_rounds(images: int, results: Sequence[dict]) -> Speed:
    """Median of all epochs, highest memory."""
    seconds, cpu = (
        median(each for result in results for each in result[key]) / images for key in ("seconds", "cpu_seconds")
    )
    peak = max(results, key=lambda result: result["peak_mib"])
    return Speed(1 / seconds, 1e6 * cpu, peak["peak_mib"], peak["mapped_mib"])


def report(images: int, speeds: dict[str, Speed]) -> str:
    """A line for each, beside the bound and our own speed."""

    def row(name: str, speed: Speed) -> str:
        ratios = f"{speed.rate / speeds[BOUND].rate:10.2f}{speeds[OURS].rate / speed.rate:10.2f}"
        return f"{name:26}{speed.rate:10.0f}{ratios}{speed.cpu:10.1f}{speed.peak_mib:10.0f}{speed.mapped_mib:10.0f}"

    columns = ("images/s", "of bound", "ours / it", "CPU us", "peak MiB", "mapped")
    head = f"{f'{images} images':26}" + "".join(f"{column:>10}" for column in columns)
    return "\n".join([head, *(row(name, speed) for name, speed in speeds.items())])


def judge(speeds: dict[str, Speed]) -> dict[str, bool]:
    """What is promised, in words with what was measured, and whether it was kept."""
    ours = speeds[OURS].rate
    promises = [(f"at least {OF_BOUND}x of the bound", ours / speeds[BOUND].rate, OF_BOUND)]
    if peers := {name: speed.rate for name, speed in speeds.items() if name in PEERS and name != BY_HAND}:
        best = max(peers, key=peers.get)
        promises.append((f"at least {OF_PEERS}x the best peer ({best})", ours / peers[best], OF_PEERS))
    return {f"{words}: {ratio:.2f}x": ratio >= least for words, ratio, least in promises}


def report_encodings(data: Data, rounds: int) -> str:
    """Read packs of each encoding; a line each."""
    rows = [f"{f'{data.images} images':20}{'bytes an image':>16}{'images/s':>10}{'peak MiB':>10}"]
    for encoding in ENCODINGS:
        size = data.pack(encoding)
        speed = over_rounds(data.images, [data.read(OURS, lossy=encoding == "jpeg") for _ in range(rounds)])
        rows.append(f"{encoding:20}{size / data.images:16.0f}{speed.rate:10.0f}{speed.peak_mib:10.0f}")
    return "\n".join(rows)


def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Measure in `folder`, which is empty, and print; whether what is promised was kept."""
    python = None if arguments.alone or arguments.encodings else arguments.peers
    versions = [f"peers: {versions_of_peers(python)}"] if python else []
    data = Data(folder, arguments.images, arguments.seconds)
    if arguments.encodings:
        print(report_encodings(data, arguments.runs), measure.machine(PACKAGES), sep="\n\n")
        return True
    if python:
        data.write_for_peers(python)
    speeds = compare(data, python, arguments.runs)
    verdicts = judge(speeds)
    print(report(data.images, speeds), end="\n\n")
    print(*(f"{words}, {'kept' if kept else 'missed'}" for words, kept in verdicts.items()), sep="\n", end="\n\n")
    print(measure.machine(PACKAGES), *versions, sep="\n")
    return all(verdicts.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.reader", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=6000, metavar="N", help="photographs (6000)")
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="rounds, of which the median counts (3)")
    parser.add_argument(
        "--seconds", type=float, default=readers.SECONDS, metavar="N", help="of reading, at least, each time (2)"
    )
    parser.add_argument(
        "--peers",
        type=executable,
        default=sys.executable,
        metavar="PYTHON",
        help="the Python that has the peers (this)",
    )
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--alone", action="store_true", help="the reader and the bound, without the peers")
    alone.add_argument("--encodings", action="store_true", help="the reader, on packs of arrays, PNGs and JPEGs")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            kept = main(folder, arguments)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.reader: {error}")
    sys.exit(0 if kept else 1)
