"""What a task costs on a Dask cluster, and how fast the stages are there, beside the same cores without Dask.

    python3 run.py -- python -m workshop.benchmarks.cluster [--images N] [--tasks N] [--runs N] [--keep FOLDER]

A scheduler and two workers of one thread each are started on this machine. First groups of 32 paths are sent, a task
each, to a function that does nothing and returns as much as validate does: processor time of the scheduler, of the
client and of a worker, a task. Then validate, preprocess and pack on photographs, with two local processes and with the
two Dask workers, turn by turn; what they write is compared.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import psutil
import yaml

from imagepack.engine import memo, workers
from imagepack.engine.cluster import bundles
from imagepack.errors import InputError
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.pipeline import ROOT, copy_repository, positive

STAGES = ("validate", "preprocess", "pack")
OUTS = ("data/validated", "data/processed", "data/packed", "reports")
PACKAGES = ("distributed", "pillow", "numpy", "polars", "scikit-image")
FACTS = ("cat/photograph-0000001.jpg", *("0123456789abcdef" * 4,) * 3, *(1.5,) * 10, bytes(300))
"""About as much as validate returns of an image."""
WORKERS = 2
START = 60
"""Seconds that a scheduler or a worker may take to start."""


class LocalCluster:
    """A Dask scheduler on a free port of this machine, and worker processes, which do not start in the repository.

    Attributes:
        scheduler: the process.
        workers: the processes, each a nanny with its worker below it.
        address: of the scheduler.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.workers = folder, []
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(file), cwd=folder)
        until = time.monotonic() + START
        while not (file.exists() and file.stat().st_size):
            if self.scheduler.poll() is not None or time.monotonic() > until:
                raise InputError(f"the Dask scheduler does not start: see {folder / 'scheduler.log'}")
            time.sleep(0.05)
        self.address = json.loads(file.read_text(encoding="utf-8"))["address"]

    def start_worker(
        self, path: Sequence[Path] = (ROOT,), cwd: Path | None = None, before: Sequence[str] = (), **environment: str
    ) -> psutil.Popen:
        """Start one that imports from `path`; `require` waits for it.

        Args:
            path: of modules.
            cwd: where it starts; the cluster's folder if not given.
            before: a command that runs the worker's.
            environment: more variables.
        """
        environment = {"PYTHONPATH": os.pathsep.join(map(str, path))} | environment
        name = ("--name", f"worker-{len(self.workers)}", "--local-directory", str(self.folder))
        options = (self.address, "--nthreads", "1", *name)
        worker = self._start("worker", *options, cwd=cwd or self.folder, before=before, **environment)
        self.workers.append(worker)
        return worker

    def require(self, count: int) -> None:
        """Wait until there are `count` workers.

        Raises:
            InputError: they do not come.
        """
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            try:
                client.wait_for_workers(count, timeout=START)
            except TimeoutError:
                raise InputError(f"the Dask workers do not start: see the logs in {self.folder}") from None

    def stop(self) -> None:
        """End all processes."""
        for process in [*self.workers, self.scheduler]:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in [process, *process.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.wait()

    def _start(
        self, what: str, *options: str, cwd: Path, before: Sequence[str] = (), **environment: str
    ) -> psutil.Popen:
        number = f"-{len(self.workers)}" if what == "worker" else ""
        with (self.folder / f"{what}{number}.log").open("wb") as log:
            return psutil.Popen(
                [*before, sys.executable, "-m", "dask", what, "--host", "127.0.0.1", "--no-dashboard", *options],
                cwd=cwd,
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@contextlib.contextmanager
def running(folder: Path, count: int = WORKERS, **options) -> Iterator[LocalCluster]:
    """A cluster of `count` workers."""
    local = LocalCluster(folder)
    try:
        for _ in range(count):
            local.start_worker(**options)
        if count:
            local.require(count)
        yield local
    finally:
        local.stop()


def nothing(group: Sequence[str]) -> list[tuple]:
    """As much as validate returns, without the work."""
    return [FACTS] * len(group)


def overhead(local: LocalCluster, count: int) -> str:
    """Processor time of a task of a group of 32 images, and what follows from it for a large cluster."""
    groups = list(workers.groups([f"cat/photograph-{number:07}.jpg" for number in range(32 * count)]))
    bundles.SHORTEST = bundles.LONGEST = 0.0  # a group a task
    os.environ["DASK_SCHEDULER_ADDRESS"] = local.address

    def run(groups: list) -> int:
        return sum(1 for _ in workers.map_in_order(nothing, groups, 32 * len(groups), "overhead"))

    run(groups[: count // 10])  # starts what has to be started
    processes = {"scheduler": local.scheduler, "client": psutil.Process(), "workers": None}
    before, begun = {name: _cpu(process, local) for name, process in processes.items()}, time.perf_counter()
    if run(groups) != count:
        raise InputError("results are missing")
    seconds = time.perf_counter() - begun
    spent = {name: (_cpu(process, local) - before[name]) / count for name, process in processes.items()}
    lines = [f"{count} tasks of 32 images that do nothing: {seconds / count * 1e3:.2f} ms a task"]
    lines += [f"  {name:10}{each * 1e3:6.2f} ms of processor time a task" for name, each in spent.items()]
    needed = 1000 * spent["scheduler"] / bundles.SCHEDULER_SHARE
    lines.append(f"1,000 threads keep the scheduler less than 10 % busy if a task takes {needed:.1f} s or more")
    return "\n".join(lines)


def _cpu(process: psutil.Process | None, local: LocalCluster) -> float:
    """Seconds of processor time so far; None: of the workers and those below them."""
    many = [process]
    if process is None:
        many = [each for worker in local.workers for each in [worker, *worker.children(recursive=True)]]
    return sum(sum(each.cpu_times()[:2]) for each in many)


def throughput(local: LocalCluster, folder: Path, images: int, rounds: int) -> str:
    """Seconds of each stage, here and on the cluster.

    Raises:
        InputError: they do not write the same.
    """
    copy_repository(folder)
    photographs.generate(folder / "data/raw", images)
    commands = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plain = {name: value for name, value in os.environ.items() if name != "DASK_SCHEDULER_ADDRESS"} | {"PATH": path}
    places = {
        "local": plain | {"STAGE_WORKERS": str(WORKERS)},
        "Dask": plain | {"DASK_SCHEDULER_ADDRESS": local.address},
    }
    seconds, written = defaultdict(list), {}
    for _ in range(rounds):
        for place, environment in places.items():
            for out in (*OUTS, memo.FOLDER):
                shutil.rmtree(folder / out, ignore_errors=True)
            for stage in STAGES:
                command = shlex.split(commands[stage]["cmd"])
                seconds[place, stage].append(measure.run(command, folder, environment).seconds)
            files = [path for out in OUTS for path in sorted((folder / out).rglob("*")) if path.is_file()]
            written[place] = {path: path.read_bytes() for path in files}
    if written["local"] != written["Dask"]:
        raise InputError("the cluster does not write the same bytes")
    lines = [f"{f'{images} images, seconds':24}" + "".join(f"{name:>12}" for name in (*STAGES, "all"))]
    totals = {}
    for place in places:
        taken = [median(seconds[place, stage]) for stage in STAGES]
        totals[place] = sum(taken)
        lines.append(f"{place:24}" + "".join(f"{each:12.2f}" for each in (*taken, totals[place])))
    lines.append(f"two Dask workers / two local processes: {totals['Dask'] / totals['local']:.2f} of the time")
    return "\n".join(lines)


def main(images: int, tasks: int, rounds: int, folder: Path) -> None:
    """Measure in `folder`, which is empty, and print."""
    with running(folder / "cluster") as local:
        print(overhead(local, tasks), flush=True)
    os.environ.pop("DASK_SCHEDULER_ADDRESS", None)
    with running(folder / "cluster-2") as local:
        print(throughput(local, folder / "project", images, rounds))
    print(measure.machine(PACKAGES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=2000, metavar="N", help="photographs (2000)")
    parser.add_argument("--tasks", type=positive, default=3000, metavar="N", help="tasks that do nothing (3000)")
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="rounds, of which the median counts (3)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            main(arguments.images, arguments.tasks, arguments.runs, folder)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.cluster: {error}")
