"""What a small change of the dataset costs, beside a run from nothing and a plain script.

    python3 run.py -- python -m benchmarks.incremental [--images N] [--layout folder|zip] [--keep FOLDER]
    python3 run.py -- python -m benchmarks.incremental --growth N N N [--layout folder|zip] [--plot FILE.png]

In a repository where DVC knows N photographs and nothing else: every image decoded once on all cores, which no
pipeline can do without; the plain script of benchmarks.pipeline; and for each layout `dvc repro` from nothing; again
with nothing changed, beside one of a pipeline that has nothing to do; after another photograph has taken the place of
every hundredth; and after as many more have come in a batch of their own. In the layout zip the raw images are in zips
too, and are taken out and put back for the change, which does not count.

With --growth: `dvc repro` from nothing for datasets of these sizes.
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
from benchmarks.growth_plot import draw
from benchmarks.pipeline import PACKAGES, PLAIN, Project, positive, require_all
from stages.toolkit import workers
from stages.toolkit.errors import InputError

LAYOUTS = ("folder", "zip")
DECODING, EMPTY_REPRO = "every image decoded", "(empty pipeline)"
COLD, SAME, CHANGED, ADDED = "dvc repro, cold", "nothing changed", "1 % changed", "1 % added"
EMPTY = "stages:\n  nothing:\n    cmd: echo > nothing.txt\n    outs:\n      - nothing.txt\n"
ZIP = ["python", "-m", "quickstart.zips"]


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


def replace(raw: Path, images: int) -> None:
    """Put another photograph in the place of every hundredth."""
    for number in range(0, images, 100):
        label = list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)]
        other = photographs.photograph(photographs.original(label), np.random.default_rng(2 * images + number))
        path = raw / label / f"{number:06}.jpg"
        path.unlink()  # it may be a hard link
        other.save(path, quality=photographs.QUALITY)


def nothing(project: Project, folder: Path) -> measure.Taken:
    """A `dvc repro` that finds nothing to do, of a pipeline of one stage without data."""
    folder.mkdir()
    (folder / "dvc.yaml").write_text(EMPTY, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    for command in (["dvc", "init", "--quiet"], ["dvc", "repro"]):
        measure.run(command, folder, project.environment)
    return measure.run(["dvc", "repro"], folder, project.environment)


def set_layout(project: Project, layout: str) -> None:
    """From here on the project has raw and processed images in this layout, and has not run."""
    project.reset()
    if layout == "zip":
        params = project.folder / "params.yaml"
        text = params.read_text(encoding="utf-8")
        params.write_text(text.replace("layout: folder", "layout: zip"), encoding="utf-8")
        project.run(ZIP)
        project.add()


def small_changes(project: Project, layout: str, images: int) -> dict[str, measure.Taken]:
    """What `dvc repro` takes from nothing, and after each small change."""
    raw, share = project.folder / "data/raw", max(1, images // 100)
    taken = {COLD: project.run(["dvc", "repro"])}
    require_all(project.folder / "data/packed", images)
    taken[SAME] = project.run(["dvc", "repro"])
    for what in (CHANGED, ADDED):
        if what == ADDED:
            photographs.generate(raw / "more", share, first=images)
        elif layout == "zip":
            project.run([*ZIP, "--back"])
        if what == CHANGED:
            replace(raw, images)
        if layout == "zip":
            project.run(ZIP)
        project.run(["dvc", "add", "data/raw"])
        taken[what] = project.run(["dvc", "repro"])
    require_all(project.folder / "data/packed", images + share)
    return taken


def main(images: int, layouts: Sequence[str], folder: Path, photos: Path | None) -> None:
    """Measure in `folder`, which is empty, and print."""
    project = Project(folder / "project", images, photos)
    raw = project.folder / "data/raw"
    common = {
        DECODING: measure.Taken(decode_all(raw), 0),
        PLAIN: project.run(project.plain),
        EMPTY_REPRO: nothing(project, folder / "nothing"),
    }
    print(f"{f'{images} images':28}{'seconds':>10}{'peak MiB':>10}")
    print_rows(common)
    for layout in layouts:
        set_layout(project, layout)
        taken = small_changes(project, layout, images)
        print_rows({f"{layout}: {name}": run for name, run in taken.items()})
        taken |= common
        for name, other in (
            (COLD, DECODING),
            (COLD, PLAIN),
            (CHANGED, COLD),
            (ADDED, COLD),
            (SAME, EMPTY_REPRO),
        ):
            print(f"{layout}: {name} / {other}: {taken[name].seconds / taken[other].seconds:.2f}")
    print(measure.machine(PACKAGES))


def print_rows(taken: dict[str, measure.Taken]) -> None:
    """A line for each, as soon as it is known."""
    for name, run in taken.items():
        peak = f"{run.peak_mib:.0f}" if run.peak_mib else ""
        print(f"{name:28}{run.seconds:10.2f}{peak:>10}".rstrip(), flush=True)


def growth(sizes: Sequence[int], layout: str, folder: Path, photos: Path | None, plot: Path | None) -> None:
    """Measure `dvc repro` from nothing at each size and print; draw it to `plot`."""
    print(f"{'images':>10}{'seconds':>10}{'ms/image':>10}{'peak MiB':>10}")
    taken = {}
    for size in sorted(sizes):
        project = Project(folder / str(size), size, photos)
        set_layout(project, layout)
        taken[size] = project.run(["dvc", "repro"])
        require_all(project.folder / "data/packed", size)
        each = 1000 * taken[size].seconds / size
        print(f"{size:10}{taken[size].seconds:10.2f}{each:10.2f}{taken[size].peak_mib:10.0f}", flush=True)
    least, most = min(taken), max(taken)
    if least < most:
        kib = 1024 * (taken[most].peak_mib - taken[least].peak_mib) / (most - least)
        print(f"each further image: {kib:.2f} KiB of the largest process")
        dear = [run.seconds / size for size, run in taken.items()]
        print(f"time per image, most / least: {max(dear) / min(dear):.2f}")
    machine = measure.machine(PACKAGES)
    print(f"layout: {layout}", machine, sep="\n")
    if plot:
        draw({size: (run.seconds, run.peak_mib) for size, run in taken.items()}, f"layout: {layout}; {machine}", plot)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=20_000, metavar="N", help="photographs (20000)")
    parser.add_argument("--layout", choices=LAYOUTS, help="one alone (both; for --growth: folder)")
    parser.add_argument("--growth", type=positive, nargs="+", metavar="N", help="sizes of datasets to run from nothing")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="where to draw the growth")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="take those of benchmarks.photographs there")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    options = parser.parse_args()
    try:
        with measure.working_folder(options.keep) as folder:
            if options.growth:
                growth(options.growth, options.layout or "folder", folder, options.photographs, options.plot)
            else:
                main(options.images, [options.layout] if options.layout else LAYOUTS, folder, options.photographs)
    except InputError as error:
        sys.exit(f"benchmarks.incremental: {error}")
