"""What a small change of the dataset costs, beside a run from nothing and a plain script; and how that grows.

    python3 run.py -- python -m workshop.benchmarks.incremental [--images N] [--growth N ...] [--plot FILE.svg]
        [--counts] [--times N]

N photographs once. Every image decoded in full on all cores, which no pipeline can do without; the plain script of
workshop.benchmarks.pipeline; `dvc repro` of a pipeline that has nothing to do. Then, with images in files and in zips
(data/raw and data/processed), each in a repository where DVC knows the photographs and nothing else: validate by
itself; `dvc repro` from nothing; again with nothing changed; after another photograph has taken the place of every
hundredth, which is as far apart as a change can be; and after as many new ones have come behind the others. In zips
as docs/scaling.md has it: take the files out, change them, zip them again. Each is a process, timed from start to
end; what takes no work is the median of three; files are read from a warm page cache as far as memory goes.

--growth: `dvc repro` from nothing at each of these sizes too, of the first photographs. --images 0: that alone.
--times: photographs so many times as wide and as high as 500 x 375; with 8 they have 12 megapixels.
--counts: what workshop.benchmarks.counts prints, behind it. --photographs FOLDER: take them from there, and leave
there what had to be made, on the file system of the temporary folder or of --keep, since they are linked.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from imagepack.engine import params, workers
from imagepack.errors import InputError
from workshop.benchmarks import growth, measure, photographs
from workshop.benchmarks.pipeline import PACKAGES, PLAIN, ROOT, ZIP, Project, positive, require_all

LAYOUTS = ("folder", "zip")
REPRO = ["dvc", "repro"]
COLD, SAME, CHANGED, ADDED = "dvc repro, cold", "nothing changed", "1 % changed", "1 % added"
BACK, AGAIN, ADD = "(zip --back before)", "(zip after)", "(dvc add of that)"
VALIDATE = "validate, cold"
DECODING, NONE = "every image decoded", "empty pipeline"
LIMITS = {  # ratios that are wanted, at most
    (VALIDATE, DECODING): {"folder": 2.2, "zip": 2.2},
    (COLD, PLAIN): {"folder": 1.0, "zip": 0.75},
    (CHANGED, COLD): {"folder": 0.25, "zip": 0.15},
    (ADDED, COLD): {"folder": 0.25, "zip": 0.15},
    (SAME, NONE): {"folder": 3.0, "zip": 3.0},
}
LARGE = 8
"""Times as wide and as high: 12 megapixels."""
OF_LARGE = {(VALIDATE, DECODING): {"folder": 1.25, "zip": 1.25}, (COLD, PLAIN): {"folder": 0.4, "zip": 0.4}}
"""LIMITS of photographs that are so large, where they differ."""
EMPTY = "stages:\n  nothing:\n    cmd: echo > nothing.txt\n    outs:\n      - nothing.txt\n"
Took = dict[str, measure.Taken]


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


def put(raw: Path, images: int, numbers: Sequence[int], times: int = 1) -> None:
    """Put a photograph that is nowhere yet in the place of each with these numbers."""
    for number in numbers:
        label = list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)]
        other = photographs.photograph(photographs.original(label), np.random.default_rng(2 * images + number), times)
        place = raw / label / f"{number:06}.jpg"
        place.unlink(missing_ok=True)  # a hard link
        other.save(place, quality=photographs.QUALITY)


def median_of_three(run) -> measure.Taken:
    """Of `run`, by its seconds."""
    return sorted((run() for _ in range(3)), key=lambda taken: taken.seconds)[1]


def nothing(folder: Path, environment: dict[str, str]) -> measure.Taken:
    """A `dvc repro` that finds nothing to do, of a pipeline of one stage without data."""
    folder.mkdir()
    (folder / "dvc.yaml").write_text(EMPTY, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    for command in (["dvc", "init", "--quiet"], REPRO):
        measure.run(command, folder, environment)
    return median_of_three(lambda: measure.run(REPRO, folder, environment))


def change(project: Project, images: int, layout: str, times: int) -> Took:
    """What each step takes."""
    taken = {VALIDATE: project.run(project.stages["validate"])}
    project.reset()
    taken[COLD] = project.run(REPRO)
    require_all(project.folder / "data/packed", images)
    taken[SAME] = median_of_three(lambda: project.run(REPRO))
    few = max(1, images // 100)
    for name, numbers in ((CHANGED, range(0, images, 100)), (ADDED, range(images, images + few))):
        put_in(project, images, numbers, layout, taken, times)
        taken[name] = project.run(REPRO)
        images = max(images, numbers[-1] + 1)
        require_all(project.folder / "data/packed", images)
    return taken


def put_in(project: Project, images: int, numbers: Sequence[int], layout: str, taken: Took, times: int = 1) -> None:
    """`put` and `dvc add`; what that takes comes into `taken`."""
    if layout == "zip":
        taken[BACK] = project.run([*ZIP, "--back"])
    put(project.folder / "data/raw", images, numbers, times)
    if layout == "zip":
        taken[AGAIN] = project.run(ZIP)
    taken[ADD] = project.run(["dvc", "add", "data/raw"])


def compare(folder: Path, made: Path, images: int, layouts: Sequence[str], times: int) -> tuple[Took, dict[str, Took]]:
    """What is measured once, and what is of each layout; `made` holds the photographs and nothing else."""
    size = params.load(ROOT / "params.yaml")["preprocess"].size
    plain = [sys.executable, ROOT / "workshop/benchmarks/plain_script.py", made, folder / "plain.h5", str(size)]
    projects = {layout: Project(folder / layout, images, made, layout) for layout in layouts}
    environment = projects[layouts[0]].environment
    once = {DECODING: measure.Taken(decode_all(made), 0), PLAIN: measure.run(plain, folder, environment)}
    once[NONE] = nothing(folder / "nothing", environment)
    return once, {layout: change(project, images, layout, times) for layout, project in projects.items()}


def report(images: int, once: Took, found: dict[str, Took], times: int) -> Iterator[str]:
    """A line for each step, and the ratios."""
    yield f"{f'{images} images':24}{'seconds':>10}{'peak MiB':>10}  of"
    for title, taken in {"": once, **found}.items():
        yield from [title] * bool(title)
        for name, run in taken.items():
            peak = f"{run.peak_mib:10.0f}  {run.largest}" if run.peak_mib else ""
            yield f"{name:24}{run.seconds:10.2f}{peak}"
    yield ""
    for layout, taken in found.items():
        seconds = {name: run.seconds for name, run in (once | taken).items()}
        yield f"{layout}: {COLD} / {DECODING}: {seconds[COLD] / seconds[DECODING]:.2f}"
        for (name, other), limits in (LIMITS | (OF_LARGE if times >= LARGE else {})).items():
            yield measure.judged(f"{layout}: {name} / {other}", seconds[name] / seconds[other], limits[layout])
    yield f"{len(range(0, images, 100))} images were changed, and {max(1, images // 100)} added"


def main(options: argparse.Namespace, folder: Path) -> None:
    """Measure in `folder`, which is empty, and print."""
    made = options.photographs.resolve() if options.photographs else folder / "photographs"
    if options.images:
        photographs.generate(made, options.images, times=options.times)
        photographs.link(made, folder / "first", options.images)
        found = compare(folder, folder / "first", options.images, options.layout, options.times)
        print("\n".join(report(options.images, *found, options.times)), flush=True)
    for layout in options.layout if options.images and not options.keep else []:
        shutil.rmtree(folder / layout)  # room for those of growth
    if options.growth:
        photographs.generate(made, max(options.growth), times=options.times)
        points = {layout: list(growth.grow(folder, made, options.growth, layout)) for layout in options.layout}
        for layout in options.layout:
            print("", *growth.table(layout, points[layout]), sep="\n", flush=True)
        if options.plot:
            growth.draw(points, options.plot)
    print("", measure.machine(PACKAGES), sep="\n", flush=True)
    if options.counts:
        command = [sys.executable, "-m", "workshop.benchmarks.counts", "--layout", *options.layout]
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m workshop.benchmarks.incremental", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--images", type=int, default=20_000, metavar="N", help="photographs (20000); 0: growth alone")
    parser.add_argument("--layout", choices=LAYOUTS, nargs="+", default=LAYOUTS, help="folder, zip (both)")
    parser.add_argument("--growth", type=positive, nargs="+", metavar="N", help="a cold run at each of these sizes too")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the growth")
    parser.add_argument("--times", type=positive, default=1, metavar="N", help="as wide and as high as 500 x 375 (1)")
    parser.add_argument("--counts", action="store_true", help="count what is done to an image too")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="use those there; make what is missing")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    if arguments.images < 0 or not (arguments.images or arguments.growth) or (arguments.plot and not arguments.growth):
        parser.error("--images must be a number from 1, or 0 with --growth; --plot needs --growth")
    try:
        with measure.working_folder(arguments.keep) as folder:
            main(arguments, folder)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.incremental: {error}")
