"""What a small change of the dataset costs, beside a run from nothing and a plain script.

    python3 run.py -- python -m benchmarks.incremental [--images N] [--keep FOLDER]

In a repository where DVC knows N photographs and nothing else: every image decoded once on all cores, which no
pipeline can do without; the plain script of benchmarks.pipeline; `dvc repro` from nothing; again with nothing changed,
beside one of a pipeline that has nothing to do; and after another photograph has taken the place of every hundredth.
Each is a process, timed from start to end; files are read from a warm page cache.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks import measure, photographs
from benchmarks.pipeline import PACKAGES, PLAIN, Project, positive, require_all
from stages.toolkit import workers
from stages.toolkit.errors import InputError

COLD, SAME, NONE, CHANGED, ADD = (
    "dvc repro, cold", "nothing changed", "(empty pipeline)", "1 % changed", "(dvc add of that)"
)  # fmt: skip
DECODING = "every image decoded"
EMPTY = "stages:\n  nothing:\n    cmd: echo > nothing.txt\n    outs:\n      - nothing.txt\n"


def decode(raw: Path, paths: Sequence[str]) -> None:
    """Runs in a worker."""
    for path in paths:
        simplejpeg.decode_jpeg((raw / path).read_bytes(), "RGB")


def decode_all(raw: Path) -> float:
    """Seconds to decode every image of `raw` in full, once, on all cores."""
    paths = [path.relative_to(raw).as_posix() for path in raw.rglob("*.jpg")]
    begun = time.perf_counter()
    for _ in workers.map_in_order(partial(decode, raw), workers.groups(paths), len(paths), "decode"):
        pass
    return time.perf_counter() - begun


def replace(raw: Path, images: int) -> int:
    """Put another photograph in the place of every hundredth; how many."""
    numbers = range(0, images, 100)
    for number in numbers:
        label = list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)]
        other = photographs.photograph(photographs.original(label), np.random.default_rng(images + number))
        other.save(raw / label / f"{number:06}.jpg", quality=photographs.QUALITY)
    return len(numbers)


def nothing(project: Project, folder: Path) -> measure.Taken:
    """A `dvc repro` that finds nothing to do, of a pipeline of one stage without data."""
    folder.mkdir()
    (folder / "dvc.yaml").write_text(EMPTY, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    for command in (["dvc", "init", "--quiet"], ["dvc", "repro"]):
        measure.run(command, folder, project.environment)
    return measure.run(["dvc", "repro"], folder, project.environment)


def main(images: int, folder: Path) -> None:
    """Measure in `folder`, which is empty, and print."""
    project = Project(folder / "project", images)
    raw = project.folder / "data/raw"
    taken = {DECODING: measure.Taken(decode_all(raw), 0), PLAIN: project.run(project.plain)}
    project.reset()
    taken[COLD] = project.run(["dvc", "repro"])
    require_all(project.folder / "data/packed", images)
    taken[SAME] = project.run(["dvc", "repro"])
    taken[NONE] = nothing(project, folder / "nothing")
    changed = replace(raw, images)
    taken[ADD] = project.run(["dvc", "add", "data/raw"])
    taken[CHANGED] = project.run(["dvc", "repro"])
    require_all(project.folder / "data/packed", images)
    print(f"{f'{images} images':24}{'seconds':>10}{'peak MiB':>10}")
    for name, run in taken.items():
        peak = f"{run.peak_mib:.0f}" if run.peak_mib else ""
        print(f"{name:24}{run.seconds:10.2f}{peak:>10}".rstrip())
    for name, other in ((COLD, DECODING), (COLD, PLAIN), (CHANGED, COLD), (SAME, NONE)):
        print(f"{name} / {other}: {taken[name].seconds / taken[other].seconds:.2f}")
    print(f"{changed} images were changed", measure.machine(PACKAGES), sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=20_000, metavar="N", help="photographs (20000)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            main(arguments.images, folder)
    except InputError as error:
        sys.exit(f"benchmarks.incremental: {error}")
