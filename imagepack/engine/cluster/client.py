"""workers.map_in_order on a Dask cluster: what DASK_SCHEDULER_ADDRESS is for. docs/scaling.md says how to start one.

This side cuts the work into tasks of a length that the scheduler can serve, keeps a bounded number of them in flight
and puts the results in order; worker.py is the other. Every failure of the cluster ends in words and in bounded time;
the run can then be repeated, and memo.py has what was finished.
"""

import io
import itertools
import logging
import pickle
import queue
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from imagepack.engine import progress
from imagepack.engine.cluster import worker
from imagepack.engine.cluster.bundles import FLIGHT, Bundles
from imagepack.engine.cluster.marks import Marks, marked
from imagepack.engine.processes import Outcome, Task
from imagepack.errors import InputError

UNREAD = 4
"""How many times as many tasks may be in flight or finished, behind one that takes long."""
LOOK = 2.0
"""Seconds between two looks at the size of the cluster."""
CHECK = 120.0
"""Seconds that all workers together may take to be checked."""
ALONE = 3.0
"""Seconds without any worker after which this is said."""


def outcomes(
    address: str,
    function: Callable,
    tasks: Iterable[Sequence],
    bar: tqdm,
    at_most: int | None,
    timeout: float | None,
    memory_mib: int | None,
    may_lose: bool,
) -> Iterator[tuple[Sequence, list[Outcome]]]:
    """Yield each task with its outcomes, in order, by the Dask cluster whose scheduler is at `address`.

    Args:
        function, tasks, timeout, memory_mib: as of workers.map_in_order.
        bar: knows how many images there are, and for how many the outcome is here.
        at_most: tasks of Dask that may be in flight at a time, if there is a limit.
        may_lose: images may be lost.

    Raises:
        InputError: `distributed` is missing; the scheduler is not there or was lost; a worker is unfit or a task has
            killed several.
    """
    with _connected(address, bar) as cluster:
        function_data, folders = _pickled(function)
        with marked({Path.cwd(), *(folder.absolute().parent for folder in folders)}) as marks:
            setting = worker.Setting(
                folder=str(Path.cwd()),
                marks=marks,
                seen=tuple(map(str, folders)),
                facts=worker.facts(),
                function=function_data,
                timeout=timeout,
                memory_mib=memory_mib,
                may_lose=may_lose,
            )
            cluster.begin(setting)
            for bundle, found in cluster.outcomes(Bundles(iter(tasks), bar.total), at_most):
                yield from zip(bundle, found, strict=True)


class _Cluster:
    """A client of the cluster for one run. Every method raises InputError where the cluster fails."""

    def __init__(self, client, address: str, bar: tqdm) -> None:
        self._client, self._address, self._bar = client, address, bar
        self._work, self._call = _far_functions(worker.loaded())
        self._patience, self._without_workers = _times()
        self._threads, self._looked = 0, -LOOK
        self._had_workers, self._told = time.monotonic(), False
        self._direct = True
        self._setting, self._marks = b"", Marks("", ())

    def begin(self, setting: worker.Setting) -> None:
        """Look whether every worker that is there now is fit for the run. Later ones look themselves."""
        self._setting, self._marks = pickle.dumps(setting), setting.marks
        self._look()
        found = self._sync(self._on_each, "check", within=CHECK, doing="check its workers")
        faults: dict[str, list[str]] = {}
        for name, fault in found.items():
            if fault:
                faults.setdefault(str(fault), []).append(name)
        if faults:
            raise self._unfit(*(f"{_few(at)}: {fault}" for fault, at in faults.items()))

    def outcomes(self, bundles: Bundles, at_most: int | None) -> Iterator[tuple[list[Sequence], list[list[Outcome]]]]:
        """Yield each bundle with the outcomes of its tasks, in order."""
        waiting: deque = deque()
        finished: queue.SimpleQueue = queue.SimpleQueue()
        running, more = 0, True
        try:
            while more or waiting:
                limit = FLIGHT * max(1, self._threads)
                limit = min(limit, at_most) if at_most else limit
                wanted = min(limit - running, UNREAD * limit - len(waiting))
                fresh = list(itertools.takewhile(bool, (bundles.next(self._threads) for _ in range(wanted))))
                more = len(fresh) == max(0, wanted)
                waiting += zip(fresh, self._submit(fresh, finished), strict=True)
                running += len(fresh)
                ready = [future for _, future in itertools.takewhile(lambda each: each[1].done(), waiting)]
                if waiting or running:
                    running -= _drain(finished, 0 if ready else LOOK)
                self._look()
                for name, fault, seconds, found in self._gather(ready):
                    bundle, _ = waiting.popleft()
                    if fault:
                        raise self._unfit(f"{name}: {fault}")
                    bundles.learn(sum(map(len, bundle)), seconds)
                    yield bundle, found
        finally:
            self._cancel([future for _, future in waiting])

    def _submit(self, bundles: list[list[Sequence]], finished: queue.SimpleQueue) -> list:
        """Return their futures, which come into `finished` when they are."""
        if not bundles:
            return []
        data = [[(pickle.dumps(task), len(task)) for task in bundle] for bundle in bundles]
        futures = self._client.map(self._work, data, setting=self._setting, key="images", pure=False)
        for future in futures:
            future.add_done_callback(finished.put)
        return futures

    def _gather(self, futures: list) -> list:
        """Return the results of `futures`, which are finished."""
        if not futures:
            return []

        async def gather():
            return await self._client.gather(futures, direct=self._direct, asynchronous=True)

        while True:
            try:
                return self._client.sync(gather, callback_timeout=2 * self._patience)
            except TimeoutError:
                self._direct = False  # through the scheduler: this machine may not reach the workers
                self._look()
            except Exception as error:  # noqa: BLE001  (whatever it is, it is told)
                raise self._failure(error) from None

    def _look(self) -> None:
        """See, every few seconds, that the scheduler is there, and how large the cluster is; renew the marks."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._marks.renew()
        threads = self._sync(self._client.scheduler.ncores, within=self._patience, doing="answer")
        self._threads, self._looked = sum(threads.values()), time.monotonic()
        if self._threads:
            self._had_workers = self._looked
        elif self._looked - self._had_workers > self._without_workers:
            raise InputError(
                f"the Dask cluster at {self._address} has had no workers for {self._without_workers:.0f} s: "
                "start some and run again"
            )
        elif self._looked - self._had_workers > ALONE and not self._told:
            self._told = True
            progress.say(
                f"{self._bar.desc}: the cluster at {self._address} has no workers: waiting for one "
                "(docs/scaling.md says how to start them)"
            )

    async def _on_each(self, name: str) -> dict:
        """Call worker.`name` with the setting on every worker."""
        return await self._client.run(self._call, name, self._setting, on_error="return", asynchronous=True)

    def _sync(self, function: Callable, *arguments, within: float, doing: str) -> Any:
        """Await function(*arguments)."""
        try:
            return self._client.sync(function, *arguments, callback_timeout=within)
        except TimeoutError:
            raise InputError(
                f"the Dask scheduler at {self._address} did not {doing} within {within:.0f} s: "
                "see that it and its workers run, and run again"
            ) from None
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told)
            raise self._failure(error) from None

    def _unfit(self, *faults: str) -> InputError:
        lines = "".join(f"\n  {fault}" for fault in faults)
        return InputError(f"the Dask cluster at {self._address} cannot be used as it is:{lines}")

    def _failure(self, error: Exception) -> Exception:
        """Return what to raise where Dask has raised `error`."""
        import distributed

        if isinstance(error, distributed.KilledWorker):
            return InputError(
                f"images behind the first {self._bar.n} of {self._bar.total} have killed several Dask workers, "
                "one after the other: see their logs (was memory short?), and run again"
            )
        if isinstance(error, OSError | RuntimeError | CancelledError) or self._client.status != "running":
            return InputError(
                f"the Dask scheduler at {self._address} was lost when the results of {self._bar.n} of "
                f"{self._bar.total} images were here: start it again, and the workers if they ended with it, "
                "and run again"
            )
        return error

    def _cancel(self, futures: list) -> None:
        """Take back what is not done."""

        async def cancel() -> None:
            await self._client.cancel(futures, asynchronous=True, force=True)

        if futures and self._client.status == "running":
            with suppress(Exception):
                self._client.sync(cancel, callback_timeout=self._patience)

    def release(self) -> None:
        """End what this run has left on the workers, whatever it does there."""
        if self._client.status == "running":
            with suppress(InputError):
                self._sync(self._on_each, "release", within=self._patience, doing="answer")


@contextmanager
def _connected(address: str, bar: tqdm) -> Iterator[_Cluster]:
    """Connect to the scheduler at `address`; at the end, end what the run has left on the workers."""
    distributed = _library()
    patience, _ = _times()
    try:
        distributed.comm.get_address_host(address)  # a client of no address complains once more when it goes
        with warnings.catch_warnings():  # of other versions of Dask's own parts: those that decide pixels are checked
            warnings.simplefilter("ignore")
            client = distributed.Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"DASK_SCHEDULER_ADDRESS is {address}, where no Dask scheduler answers ({error}): "
            "start one (docs/scaling.md), or unset the variable to work on this machine"
        ) from None
    cluster = _Cluster(client, address, bar)
    try:
        yield cluster
    finally:
        cluster.release()
        with suppress(Exception):  # a lost scheduler has nothing to be told
            client.close(timeout=patience)


def _library():
    """Import `distributed`, only where a cluster is asked for."""
    try:
        import dask
        import distributed
    except ImportError:  # dask comes with distributed
        raise InputError(
            "DASK_SCHEDULER_ADDRESS is set, and distributed is missing: python3 run.py -- pip install distributed, "
            "or unset the variable to work on this machine"
        ) from None
    for name in ("distributed", "distributed.client"):  # what it says in several lines, this module says in one
        logging.getLogger(name).setLevel(logging.CRITICAL)
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"})  # a shard of very small images
    return distributed


def _times() -> tuple[float, float]:
    """Return for how many seconds to wait for the scheduler, and for workers, as Dask's own configuration has them."""
    import dask

    connect = dask.utils.parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    workers = dask.config.get("distributed.scheduler.no-workers-timeout")
    return connect, dask.utils.parse_timedelta(workers) if workers else 10 * connect


def _far_functions(loaded: str) -> tuple[Callable, Callable]:
    """Return what Dask's workers are given to run, one as a task, one at once.

    Made here, so that cloudpickle sends their code: a worker that cannot import the repository can say so.
    """

    def unfit() -> str:
        try:
            from imagepack.engine.cluster import worker
        except ImportError as error:
            return (
                f"cannot import the repository ({error}): start workers with PYTHONPATH set to its folder, "
                "in an environment that has its packages"
            )
        if loaded != worker.loaded():
            return "has loaded another imagepack/engine/cluster/worker.py: update the repository and restart the worker"
        return ""

    def work(tasks: list[Task], setting: bytes) -> tuple[str, str, float, list[list[Outcome]]]:
        import distributed

        address = distributed.get_worker().address
        if fault := unfit():
            return address, fault, 0.0, []
        from imagepack.engine.cluster import worker

        return address, *worker.run(setting, tasks)

    async def call(name: str, setting: bytes) -> str | None:
        import asyncio

        if fault := unfit():
            return fault
        from imagepack.engine.cluster import worker

        return await asyncio.to_thread(getattr(worker, name), setting)

    return work, call


def _pickled(function: Callable) -> tuple[bytes, set[Path]]:
    """Pickle `function` for another process; return it, and the folders whose paths it holds."""
    folders: set[Path] = set()

    class Pickler(pickle.Pickler):
        def reducer_override(self, thing):
            if isinstance(thing, Path) and thing.is_dir():
                folders.add(thing)
            return NotImplemented

    file = io.BytesIO()
    Pickler(file).dump(function)
    return file.getvalue(), folders


def _drain(finished: queue.SimpleQueue, seconds: float) -> int:
    """Wait until something is in the queue, or `seconds` have gone by; empty it, and return how much was in it."""
    count = 0
    with suppress(queue.Empty):
        while True:
            finished.get(timeout=0 if count else seconds)
            count += 1
    return count


def _few(names: list[str], count: int = 5) -> str:
    """Return the first of `names`, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(sorted(names)[:count]) + more
