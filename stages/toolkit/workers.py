"""Many images on all cores: one function, one seam. A file that kills or hangs its decoder costs that file alone."""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import ExitStack
from typing import TypeVar

import psutil
from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from stages.toolkit.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def count() -> int:
    """Worker processes: STAGE_WORKERS, else the cores this process may use. Never a param: see README."""
    wanted = os.environ.get("STAGE_WORKERS", "")
    if wanted and not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
        raise InputError(f"STAGE_WORKERS must be a number of processes such as 4, is {wanted!r}")
    if wanted:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(items: Sequence[Item], size: int = 32) -> Iterator[Sequence[Item]]:
    """Cut `items` into groups of `size`, large enough that a round trip between processes does not count."""
    return (items[start : start + size] for start in range(0, len(items), size))


def map_in_order(
    function: Callable[[Sequence[Item]], Result],
    tasks: Iterable[Sequence[Item]],
    total: int,
    desc: str,
    timeout: float | None = None,
    memory_mib: int | None = None,
    lost: Callable[[Item, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield function(task) for each task, in order, computed by worker processes.

    Args:
        function: importable by name; runs in the workers.
        tasks: groups of images.
        total: images in all tasks, for the progress bar; a task counts as len(task).
        desc: what the progress bar is called.
        timeout: seconds that a task may take.
        memory_mib: mebibytes that a worker may allocate beyond what it has at its start (Linux).
        lost: what to yield for an image whose worker died or took too long, from the image and what happened
            ("decoder_crash" or "timeout"). The others of its task are computed again, each a task by itself.

    Where DASK_SCHEDULER_ADDRESS is set, the workers are those of that Dask cluster; the results are the same.

    Raises:
        InputError: a worker died or took too long, and there is no `lost`; or the cluster cannot be used.
    """
    if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
        from stages.toolkit import cluster

        yield from cluster.map_in_order(address, function, tasks, total, desc, timeout, memory_mib, lost)
        return
    workers = count()
    pool = ProcessPool(workers, context=process_context(), initializer=_prepare, initargs=(memory_mib, function))
    waiting: deque = deque()

    def results(task: Sequence[Item], future) -> Iterator[Result]:
        try:
            yield future.result()
            return
        except TookTooLong:
            what = "timeout"
        except ProcessExpired:
            what = "decoder_crash"
        if lost is None:
            raise worker_died(bar)
        if len(task) == 1:
            yield lost(task[0], what)
            return
        for item in task:
            yield from results([item], pool.schedule(function, ([item],), timeout=timeout))

    def next_results() -> Iterator[Result]:
        task, future = waiting.popleft()
        yield from results(task, future)
        bar.update(len(task))

    with ExitStack() as ending, progress_bar(total, desc) as bar:
        ending.callback(pool.join)
        ending.callback(pool.stop)  # at once, whether all is done or an error ends it
        for task in tasks:
            waiting.append((task, pool.schedule(function, (task,), timeout=timeout)))
            if len(waiting) > 2 * workers:  # enough to keep all busy, few enough to keep memory flat
                yield from next_results()
        while waiting:
            yield from next_results()


def process_context(modules: Iterable[str] | None = None) -> multiprocessing.context.BaseContext:
    """How worker processes are started; `modules` are imported once for all of them, None: the stages' that are here.

    Forked from a clean server that has imported the libraries once: a plain fork would copy the locks of polars'
    threads as they happen to be.
    """
    forkserver = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forkserver else "spawn")
    if forkserver:
        context.set_forkserver_preload(list(stage_modules() if modules is None else modules))
    return context


def stage_modules() -> list[str]:
    """Those of the stages' modules that this process has imported."""
    return [name for name in sys.modules if name.startswith("stages.")]


def _prepare(memory_mib: int | None, function: Callable) -> None:
    """Runs in each worker at its start; to receive `function` has loaded its module, before memory is short."""
    limit_process(memory_mib)


def limit_process(memory_mib: int | None) -> None:
    """Make this process one that works on images: undisturbed by Ctrl-C, and limited where there is a limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which stops the workers
    if memory_mib:  # files of other people: what libtiff prints about them names none, and their findings do
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if memory_mib and sys.platform == "linux":
        import resource

        limit = psutil.Process().memory_info().vms + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def worker_died(bar: tqdm) -> InputError:
    """What to raise where a process has died and no image may be lost."""
    return InputError(
        f"a worker process died after {bar.n} of {bar.total} images (killed, or out of memory?): run again, "
        "with fewer workers (STAGE_WORKERS=1) if memory was short"
    )


def progress_bar(total: int, desc: str) -> tqdm:
    """A bar on a terminal; elsewhere a line every half minute."""
    style = {"bar_format": "{desc}: {n_fmt} of {total_fmt} images, {rate_fmt}\n", "mininterval": 30, "delay": 30}
    return tqdm(total=total, desc=desc, unit="img", **({} if sys.stderr.isatty() else style))
