"""Many images on all cores: one function, one seam (`concurrent.futures`)."""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from stages.toolkit.errors import InputError

Task = TypeVar("Task", bound=Sized)
Result = TypeVar("Result")
Item = TypeVar("Item")


def count() -> int:
    """Worker processes: STAGE_WORKERS, else the cores this process may use. Never a param: see README."""
    wanted = os.environ.get("STAGE_WORKERS", "")
    if wanted and not (wanted.isdigit() and int(wanted) > 0):
        raise InputError(f"STAGE_WORKERS must be a number of processes such as 4, is {wanted!r}")
    if wanted:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(items: Sequence[Item], size: int = 32) -> Iterator[Sequence[Item]]:
    """Cut `items` into groups of `size`, large enough that a round trip between processes does not count."""
    return (items[start : start + size] for start in range(0, len(items), size))


def map_in_order(function: Callable[[Task], Result], tasks: Iterable[Task], total: int, desc: str) -> Iterator[Result]:
    """Yield function(task) for each task, in order, computed by worker processes.

    Args:
        function: importable by name; runs in the workers.
        tasks: groups of images.
        total: images in all tasks, for the progress bar; a task counts as len(task).
        desc: what the progress bar is called.

    Raises:
        InputError: a worker died (killed, or out of memory).
    """
    workers = count()
    # Forked from a clean server that has imported the libraries once: a plain fork would copy the locks of
    # polars' threads as they happen to be.
    forkserver = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forkserver else "spawn")
    if forkserver:
        context.set_forkserver_preload([name for name in sys.modules if name.startswith("stages.")])
    waiting: deque = deque()
    with (
        ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool,
        tqdm(total=total, desc=desc, unit="img", **_bar_style()) as bar,
    ):
        try:
            for task in tasks:
                waiting.append((len(task), pool.submit(function, task)))
                if len(waiting) > 2 * workers:  # enough to keep all busy, few enough to keep memory flat
                    yield _next(waiting, bar)
            while waiting:
                yield _next(waiting, bar)
        except BrokenProcessPool:
            raise InputError(
                f"a worker process died after {bar.n} of {total} images (killed, or out of memory?): run again, "
                "with fewer workers (STAGE_WORKERS=1) if memory was short"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _next(waiting: deque, bar: tqdm):
    images, future = waiting.popleft()
    result = future.result()
    bar.update(images)
    return result


def _bar_style() -> dict:
    """A bar on a terminal; elsewhere a line every half minute."""
    if sys.stderr.isatty():
        return {}
    return {"bar_format": "{desc}: {n_fmt} of {total_fmt} images, {rate_fmt}\n", "mininterval": 30, "delay": 30}
