"""What one feels every day, on the sample: each command beside a `dvc repro` that has nothing to do.

    python3 run.py -- python -m workshop.benchmarks.daily [--runs N] [--keep FOLDER]

In a new clone, whose first `python3 run.py` makes the environment too. Then, in every round: `dvc repro` of a pipeline
of one stage without data, and of this one with nothing changed; `python3 run.py` with nothing to do; `dvc repro` after
one image more has come (`dvc add` before it); and `compare` of the two versions, without a page. Each is a process,
timed from its start to its end; medians. The local S3 of the clone is stopped at the end.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from PIL import Image

from imagepack.errors import InputError
from workshop.benchmarks import measure
from workshop.benchmarks.incremental import REPRO, nothing
from workshop.benchmarks.pipeline import ROOT, copy_repository, positive

RUN = ["python3", "run.py"]
FIRST, NONE, SAME = "first python3 run.py", "empty pipeline", "dvc repro, nothing new"
AGAIN, MORE, COMPARED = "python3 run.py, again", "dvc repro, one image more", "compare"
ADD = "(dvc add before)"
LIMITS = {AGAIN: 5.0, MORE: 12.0, COMPARED: 3.0}
"""Times `dvc repro` of the empty pipeline, at most."""
PACKAGES = ("dvc", "dvc-s3", "pillow", "polars", "scipy")


class Clone:
    """A clone of this repository with an environment of its own, made by its first `python3 run.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_repository(folder)
        shutil.copytree(ROOT / "data/sample", folder / "data/sample", dirs_exist_ok=True)
        path = f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
        self.commit("Template")

    def run(self, command: list[str]) -> float:
        """Run `command`; return its seconds."""
        return measure.run(command, self.folder, self.environment).seconds

    def commit(self, message: str) -> None:
        """Commit everything."""
        name = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.com"]
        for command in (["add", "--all"], [*name, "commit", "--quiet", "--message", message]):
            subprocess.run(["git", *command], cwd=self.folder, check=True)

    def add_image(self, number: int) -> None:
        """Put an image that is nowhere yet into data/raw."""
        (first, *_) = sorted((self.folder / "data/raw/birds").glob("*.jpg"))
        with Image.open(first) as picture:
            picture.convert("RGB").rotate(number + 1).save(self.folder / f"data/raw/birds/new-{number}.png")


def measured(folder: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds of each command."""
    clone, taken = Clone(folder / "clone"), defaultdict(list)
    taken[FIRST].append(clone.run(RUN))
    clone.commit("Dataset")
    try:
        for number in range(rounds):
            taken[NONE].append(nothing(folder / f"nothing-{number}", clone.environment).seconds)
            taken[SAME].append(clone.run(REPRO))
            taken[AGAIN].append(clone.run(RUN))
            clone.add_image(number)
            taken[ADD].append(clone.run(["dvc", "add", "data/raw"]))
            taken[MORE].append(clone.run(REPRO))
            clone.commit("One image more")
            taken[COMPARED].append(clone.run([*RUN, "compare", "HEAD~1", "HEAD"]))
            clone.run(RUN)  # it pushes
    finally:
        clone.run([*RUN, "s3", "stop"])
    return {name: median(seconds) for name, seconds in taken.items()}


def report(seconds: dict[str, float]) -> Iterator[str]:
    """A line for each command, and the ratios."""
    yield f"{'':28}{'seconds':>10}"
    for name, took in seconds.items():
        yield f"{name:28}{took:10.2f}"
    yield ""
    for name, limit in LIMITS.items():
        yield measure.judged(f"{name} / {NONE}", seconds[name] / seconds[NONE], limit)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.daily", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="rounds, of which the median counts (3)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            print("\n".join(report(measured(folder, arguments.runs))), "", measure.machine(PACKAGES), sep="\n")
    except InputError as error:
        sys.exit(f"workshop.benchmarks.daily: {error}")
