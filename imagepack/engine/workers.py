"""Many images on all cores, of this machine or of a Dask cluster: one function, one seam."""

import itertools
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

from tqdm import tqdm

from imagepack.engine import processes
from imagepack.engine.processes import RAISED, RESULT, Outcome
from imagepack.engine.progress import progress_bar
from imagepack.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def count() -> int:
    """Return how many worker processes: STAGE_WORKERS, else the cores this process may use. Never a param: see README.

    Raises:
        InputError: STAGE_WORKERS is no number.
    """
    if wanted := os.environ.get("STAGE_WORKERS", ""):
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
            raise InputError(f"STAGE_WORKERS must be a number of processes such as 4, is {wanted!r}")
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
            ("decoder_crash" or "timeout"). The others of its task are computed again, each by itself; and so is the
            image itself before it counts as a crash, since a worker may have been killed for another reason.

    Where DASK_SCHEDULER_ADDRESS is set, the workers are those of that Dask cluster; the results are the same. Otherwise
    one task alone, without limits, is done in this process: to start another takes longer than most such tasks.

    Raises:
        InputError: a worker died or took too long, and there is no `lost`; or the cluster cannot be used.
    """
    limits = timeout, memory_mib, lost is not None
    with ExitStack() as ending:
        bar = ending.enter_context(progress_bar(total, desc))
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        tasks = iter(tasks)
        first = [] if address or any(limits) else list(itertools.islice(tasks, 2))
        if len(first) == 1:
            yield function(*first)
            bar.update(len(*first))
            return
        tasks = itertools.chain(first, tasks)
        if address:
            from imagepack.engine.cluster import client

            at_most = count() if os.environ.get("STAGE_WORKERS") else None
            found = client.outcomes(address, function, tasks, bar, at_most, *limits)
        else:
            found = _outcomes(function, tasks, *limits)
        for task, outcomes in ending.enter_context(closing(found)):
            for number, (what, data) in enumerate(outcomes):
                if what == RESULT:
                    yield pickle.loads(data)
                elif what == RAISED:
                    raise pickle.loads(data)
                elif lost is None:
                    raise _worker_died(bar)
                else:
                    yield lost(task[number], what)
            bar.update(len(task))


def _outcomes(
    function: Callable, tasks: Iterable[Sequence], timeout: float | None, memory_mib: int | None, may_lose: bool
) -> Iterator[tuple[Sequence, list[Outcome]]]:
    """Yield each task with its outcomes, in order, by processes of this machine."""
    workers = count()
    pool = processes.Pool(workers, pickle.dumps(function), timeout, memory_mib, may_lose)
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append((task, pool.submit((pickle.dumps(task), len(task)))))
            if len(waiting) > 2 * workers:  # enough to keep all busy, few enough to keep memory flat
                task, future = waiting.popleft()
                yield task, future.result()
        for task, future in waiting:
            yield task, future.result()
    finally:
        pool.stop()  # at once, whether all is done or an error ends it


def _worker_died(bar: tqdm) -> InputError:
    """Return what to raise where a process has died and no image may be lost."""
    return InputError(
        f"a worker process died after {bar.n} of {bar.total} images (killed, or out of memory?): run again, "
        "with fewer workers (STAGE_WORKERS=1) if memory was short"
    )
