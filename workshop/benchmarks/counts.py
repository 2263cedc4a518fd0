"""What is done to an image in a `dvc repro` from nothing, counted: decodes, encodes, hashes, files, tasks.

    python3 run.py -- python -m workshop.benchmarks.counts [--images N] [--layout folder|zip]

The stages run in this process, one task after the other, and then DVC does, with the stages in processes of their own,
which do not count. Everything is done with N and with 2 N photographs, and the difference by N is printed: what is done
once does not count either. Milliseconds are of processor time, which other programs disturb less. Files are those of
the project that Python opens: what HDF5, SQLite and polars write is not among them.
"""

import argparse
import contextlib
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import dvc_data.hashfile.hash
import dvc_data.hashfile.state
import google_crc32c
import simplejpeg
import xxhash
from PIL import ImageFile

from imagepack.engine import params, workers
from imagepack.engine.stage import run_stage
from imagepack.errors import InputError
from imagepack.images import png
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.incremental import LAYOUTS
from workshop.benchmarks.pipeline import PACKAGES, Project, positive

CALLS = {  # what is counted: where it stands, and its name there
    "JPEG decoded in full": (simplejpeg, "decode_jpeg"),
    "decoded by Pillow": (ImageFile.ImageFile, "load"),
    "encoded as PNG": (png, "encode"),
    "such a PNG decoded": (png, "decode"),
    "sha256": (hashlib, "sha256"),
    "xxh3, 128 bits": (xxhash, "xxh3_128"),
    "xxh3, 64 bits": (xxhash, "xxh3_64_digest"),
    "crc32c": (google_crc32c, "value"),
    "fsync": (os, "fsync"),
    "md5 of a file, by DVC": (dvc_data.hashfile.hash, "file_md5"),
    "found in DVC's state": (dvc_data.hashfile.state.State, "_get"),  # a hash that it took earlier
}
EVENTS = {"os.rename": "files renamed", "os.link": "files linked", "os.remove": "files removed"}
count, seconds = Counter(), Counter()
Counts = dict[tuple[str, str], tuple[int, float]]
"""By stage and what is counted: how often, and the seconds of processor time that it took."""


class Hash:
    """A hash whose updates take time."""

    def __init__(self, what: str, inside) -> None:
        self._inside, self.update = inside, timed(what, inside.update, 0)

    def __getattr__(self, name: str):
        return getattr(self._inside, name)


def timed(what: str, function: Callable, calls: int = 1) -> Callable:
    """`function`, which counts `calls` times; of an image that is loaded already, which Pillow loads often, never."""

    def counted(*args, **kwargs):
        if not (what == "decoded by Pillow" and not args[0].tile):
            count[what] += calls
        begun = time.thread_time()
        try:
            made = function(*args, **kwargs)
        finally:
            seconds[what] += time.thread_time() - begun
        return Hash(what, made) if hasattr(made, "hexdigest") else made

    return counted


def in_this_process(function: Callable, tasks: Sequence, *_, **__) -> Iterator:
    """In the place of workers.map_in_order."""
    for task in tasks:
        count["tasks"] += 1
        yield function(task)


def count_files(event: str, args: tuple) -> None:
    """An audit hook: Python calls it at every opening, and much else."""
    if event not in ("open", *EVENTS) or not isinstance(args[0], str | bytes | Path):
        return
    if not (Path.cwd() / os.fsdecode(args[0])).is_relative_to(Path.cwd()):
        return
    made = event == "open" and args[2] & os.O_CREAT
    count[EVENTS.get(event, "files made" if made else "files opened")] += 1


def watch() -> None:
    """Count from now on, under whatever name a module has these functions."""
    params.stages()  # imports them
    originals = {what: getattr(*place) for what, place in CALLS.items()}
    wrapped = {id(function): timed(what, function) for what, function in originals.items()}
    wrapped[id(workers.map_in_order)] = in_this_process
    for owner in [*sys.modules.values(), *(place[0] for place in CALLS.values())]:
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if id(value) in wrapped:
                setattr(owner, name, wrapped[id(value)])
    sys.addaudithook(count_files)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """For child processes too: the stages' lines are not what is asked for."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def counts_of(project: Project) -> Counts:
    """Of each stage, and of DVC."""
    runs = {name: partial(run_stage, command[3:]) for name, command in project.stages.items()}
    found = {}
    os.environ |= project.environment
    from dvc.cli import main as dvc  # now, since it reads the environment

    with contextlib.chdir(project.folder), stdout_to_stderr():
        for name, run in {**runs, "DVC": partial(dvc, ["repro", "--quiet"])}.items():
            if name in ("validate", "DVC"):
                project.reset()
            count.clear(), seconds.clear()
            begun = time.process_time()
            run()
            seconds["all"] = time.process_time() - begun
            found |= {(name, what): (count[what], seconds[what]) for what in {**count, **seconds}}
    return found


def report(layout: str, images: int, few: Counts, many: Counts) -> Iterator[str]:
    """A line for each of `many`, less the `few`, by `images`, which is the difference between the two."""
    yield f"{layout:24}{'calls/image':>12}{'CPU ms/image':>14}"
    for stage in dict.fromkeys(stage for stage, _ in many):
        lines = {what: taken for (name, what), taken in many.items() if name == stage}
        yield stage
        for what in ["all", *CALLS, "tasks", "files opened", "files made", *EVENTS.values()]:
            calls, took = (a - b for a, b in zip(lines.get(what, (0, 0)), few.get((stage, what), (0, 0)), strict=True))
            if what == "all" or calls > images / 1000:
                times = f"{calls / images:12.3f}" if calls else f"{'':12}"
                yield f"  {what:22}{times}" + (f"{1000 * took / images:14.3f}" if took else "")


def main(images: int, layouts: Sequence[str], folder: Path) -> None:
    """Count in `folder`, which is empty, and print."""
    photographs.generate(folder / "photographs", 2 * images)
    projects = {
        (layout, size): Project(folder / f"{layout}-{size}", size, folder / "photographs", layout)
        for layout in layouts
        for size in (images, 2 * images)
    }
    watch()
    counts_of(projects[layouts[0], images])  # once for nothing: modules are loaded
    for layout in layouts:
        few, many = (counts_of(projects[layout, size]) for size in (images, 2 * images))
        print("\n".join(report(layout, images, few, many)), flush=True)
    print(measure.machine(PACKAGES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.counts", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=300, metavar="N", help="photographs (300)")
    parser.add_argument("--layout", choices=LAYOUTS, nargs="+", default=LAYOUTS, help="folder, zip (both)")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(None) as folder:
            main(arguments.images, arguments.layout, folder)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.counts: {error}")
