"""How long the pipeline takes, beside a plain script that makes one HDF5 file of the same images.

    python3 run.py -- python -m workshop.benchmarks.pipeline [--images N] [--runs N] [--keep FOLDER]

In every round: the plain script; each stage by itself; and a whole `dvc repro` in a repository where DVC knows the raw
images and nothing else. Each is a process, timed from its start to its end; files are read from a warm page cache.
"""

import argparse
import compileall
import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import yaml

from imagepack import PackedImages
from imagepack.engine import memo, params
from imagepack.errors import InputError
from workshop.benchmarks import measure, photographs

ROOT = Path(__file__).parents[2]
PLAIN, REPRO, ADD = "plain script", "dvc repro", "(dvc add before)"
ZIP = ["python", "-m", "imagepack.commands.zips", "data/raw"]
"""What python3 run.py zip does."""
PACKAGES = ("dvc", "pillow", "numpy", "h5py", "polars", "scikit-image")
PER_IMAGE = """\
Per image: validate reads it, takes one sha256 and decodes it in full; preprocess reads it again, decodes it at the
scale that it needs and writes a PNG; pack decodes the PNG; DVC takes the md5 of the PNG and copies it into the cache
(a clone where the file system has them). The raw image itself DVC hashes and copies in `dvc add`, and not again. The
plain script reads and decodes it once."""


class Project:
    """A copy of this repository, with photographs in data/raw that `dvc add` has taken in.

    Args:
        folder: new.
        images: how many photographs.
        made: a folder that `photographs.generate` has filled, with as many or more; the first of them get hard links
            in data/raw, so replace a file there and never write into it. None: they are made.
        layout: zip: data/raw is zipped, and preprocess.layout is zip.

    Attributes:
        stages: the commands of dvc.yaml, by stage, in its order.
        plain: the command of the plain script, for images of the same size.
        added: what `dvc add` took.
        environment: of every command.
    """

    def __init__(self, folder: Path, images: int, made: Path | None = None, layout: str = "folder") -> None:
        self.folder = folder
        copy_repository(folder)
        if made:
            photographs.link(made, folder / "data/raw", images)
        else:
            photographs.generate(folder / "data/raw", images)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}
        stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self.stages = {name: shlex.split(stage["cmd"]) for name, stage in stages.items()}
        self._outs = [folder / out for stage in stages.values() for out in outs_of(stage)]
        size = params.load(folder / "params.yaml")["preprocess"].size
        self.plain = ["python", str(ROOT / "workshop/benchmarks/plain_script.py"), "data/raw", "plain.h5", str(size)]
        if layout == "zip":
            text = (folder / "params.yaml").read_text(encoding="utf-8")
            (folder / "params.yaml").write_text(text.replace("layout: folder", "layout: zip"), encoding="utf-8")
            self.run(ZIP)
        self.added = self.run(["dvc", "add", "data/raw"])
        self._raw_in_cache = set(self._cache())

    def run(self, command: Sequence[str]) -> measure.Taken:
        """Run `command` in the copy and measure it."""
        return measure.run(command, self.folder, self.environment)

    def reset(self) -> None:
        """Remove all that was made since `dvc add`: outs, what the cache holds of them, run cache, dvc.lock, memo."""
        made = [self.folder / "dvc.lock", *self._outs, *(set(self._cache()) - self._raw_in_cache)]
        for path in [self.folder / ".dvc/cache/runs", self.folder / memo.FOLDER, *made]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _cache(self) -> Iterator[Path]:
        return (path for path in (self.folder / ".dvc/cache/files").rglob("*") if path.is_file())


def copy_repository(folder: Path) -> None:
    """Copy the files that git tracks, as they stand, into a new git repository in `folder`; no images, no results."""
    made = [":!dvc.lock", ":!*.dvc", ":!reports/*.json", ":!reports/plots"]
    listed = ["git", "ls-files", "-z", "--", ".", ":!data/sample", *made]
    names = subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for package in ("imagepack", "stages"):  # as it is from the second command on
        compileall.compile_dir(folder / package, quiet=1)
    subprocess.run(["git", "init", "--quiet", folder], check=True)


def outs_of(stage: dict) -> Iterator[str]:
    """The paths that a stage of dvc.yaml writes."""
    for section in ("outs", "metrics", "plots"):
        for out in stage.get(section, []):
            yield out if isinstance(out, str) else next(iter(out))


def compare(project: Project, rounds: int) -> dict[str, measure.Taken]:
    """Median seconds and highest memory over the rounds: of the plain script, each stage and dvc repro."""
    taken = defaultdict(list)
    for number in range(1, rounds + 1):
        taken[PLAIN].append(project.run(project.plain))
        project.reset()
        for name, command in project.stages.items():
            taken[name].append(project.run(command))
        project.reset()
        taken[REPRO].append(project.run(["dvc", "repro"]))
        seconds = ", ".join(f"{name} {runs[-1].seconds:.1f}" for name, runs in taken.items())
        print(f"round {number} of {rounds}, seconds: {seconds}", file=sys.stderr, flush=True)
    return {
        name: measure.Taken(median(run.seconds for run in runs), max(run.peak_mib for run in runs))
        for name, runs in taken.items()
    }


def require_all(packed: Path, images: int) -> None:
    """Refuse to report on a run that left images out.

    Raises:
        InputError: the pack does not hold `images` images.
    """
    found = len(PackedImages(packed))
    if found != images:
        raise InputError(f"{found} of {images} photographs were packed: run with --keep and see reports/rejected.csv")


def report(images: int, added: measure.Taken, taken: dict[str, measure.Taken]) -> str:
    """What was measured, a line each, and how the pipeline compares with the plain script."""
    plain, repro = taken[PLAIN].seconds, taken[REPRO].seconds
    together = sum(run.seconds for name, run in taken.items() if name not in (PLAIN, REPRO))

    def row(name: str, seconds: float, peak_mib: float | None = None) -> str:
        share = "" if name in (PLAIN, ADD) else f"{seconds / repro:.0%}"
        memory = f"{peak_mib:.0f}" if peak_mib else ""
        return f"{name:20}{seconds:10.2f}{images / seconds:10.0f}{memory:>10}{share:>10}".rstrip()

    rows = [row(name, run.seconds, run.peak_mib) for name, run in taken.items()]
    rows.insert(-1, row("DVC itself", repro - together))
    rows.append(row(ADD, added.seconds, added.peak_mib))
    return "\n".join(
        [
            f"{f'{images} images':20}{'seconds':>10}{'images/s':>10}{'peak MiB':>10}{'share':>10}",
            *rows,
            "",
            f"{REPRO} / {PLAIN}: {repro / plain:.2f}   stages without DVC / {PLAIN}: {together / plain:.2f}",
        ]
    )


def main(images: int, rounds: int, folder: Path) -> None:
    """Measure in `folder`, which is empty, and print the report."""
    project = Project(folder, images)
    taken = compare(project, rounds)
    require_all(folder / "data/packed", images)
    print(report(images, project.added, taken), PER_IMAGE, measure.machine(PACKAGES), sep="\n")


def positive(text: str) -> int:
    """A number from 1, for argparse."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a number from 1, is {text!r}")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=2000, metavar="N", help="photographs (2000)")
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="rounds, of which the median counts (3)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            main(arguments.images, arguments.runs, folder)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.pipeline: {error}")
