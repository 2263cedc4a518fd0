"""workers.map_in_order on a Dask cluster: what DASK_SCHEDULER_ADDRESS is for. docs/scaling.md says how to start one.

This side cuts the work into tasks of a length that the scheduler can serve, keeps a bounded number of them in flight
and puts the results in order; cluster_worker.py is the other. Every failure of the cluster ends in words and in
bounded time; the run can then be repeated, and memo.py has what was finished.
"""

import io
import itertools
import logging
import os
import pickle
import queue
import re
import secrets
import stat
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import spawn
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from imagepack.engine import workers
from imagepack.engine.cluster import worker
from imagepack.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

OVERHEAD = 0.002
"""Seconds that a task costs the scheduler, generously: workshop/benchmarks/cluster.py measures it."""
SCHEDULER_SHARE = 0.1
"""How busy the scheduler may become."""
SHORTEST, LONGEST = 1.0, 60.0
"""Seconds that a task should take, at least and at most."""
FLIGHT = 2
"""Tasks in flight for each thread of the cluster: one at work, one at hand."""
UNREAD = 4
"""How many times as many may be in flight or finished, behind one that takes long."""
LOOK = 2.0
"""Seconds between two looks at the size of the cluster."""
RETRIES = 3
"""How often a task is begun anew that lost the process beside its Dask worker."""
CHECK = 120.0
"""Seconds that all workers together may take to be checked."""
ALONE = 3.0
"""Seconds without any worker after which this is said."""
FORGOTTEN = 7 * 24 * 3600.0
"""Seconds since it was renewed after which a mark is one that a killed run has left. A run at work renews its marks
every few seconds; a week, because it may be stopped (Ctrl-Z) or cut off from its files while its workers go on."""


def map_in_order(
    address: str,
    function: Callable[[Sequence[Item]], Result],
    tasks: Iterable[Sequence[Item]],
    total: int,
    desc: str,
    timeout: float | None,
    memory_mib: int | None,
    lost: Callable[[Item, str], Result] | None,
) -> Iterator[Result]:
    """As workers.map_in_order, by the Dask cluster whose scheduler is at `address`.

    Raises:
        InputError: `distributed` is missing; the scheduler is not there or was lost; a worker is unfit or a task has
            killed several; a worker process died and there is no `lost`.
    """
    with ExitStack() as ending:
        bar = ending.enter_context(workers.progress_bar(total, desc))
        run = secrets.token_hex(16)
        cluster = ending.enter_context(_connected(address, run, bar))
        function_data, folders = _pickled(function)
        setting = worker.Setting(
            run=run,
            folder=str(Path.cwd()),
            marks=_marks({Path.cwd(), *(folder.absolute().parent for folder in folders)}, run, ending),
            seen=tuple(map(str, folders)),
            facts=worker.facts(),
            main=_main(),
            modules=workers.stage_modules(),
            function=function_data,
            timeout=timeout,
            memory_mib=memory_mib,
            may_lose=lost is not None,
        )
        cluster.setting, cluster.marks = pickle.dumps(setting), setting.marks
        cluster.check()
        for bundle, outcomes in cluster.outcomes(_Bundles(iter(tasks), total)):
            for task, its_outcomes in zip(bundle, outcomes, strict=True):
                for number, (what, data) in enumerate(its_outcomes):
                    if what == "result":
                        yield pickle.loads(data)
                    elif what == "raised":
                        raise pickle.loads(data)
                    elif lost is None:
                        raise workers.worker_died(bar)
                    else:
                        yield lost(task[number], what)
                bar.update(len(task))


class _Bundles:
    """Cuts tasks into bundles, each of which is one task of Dask.

    Args:
        tasks: all.
        total: images in them.
    """

    def __init__(self, tasks: Iterator[Sequence], total: int) -> None:
        self._tasks, self._left = tasks, total
        self._images, self._seconds = 0, 0.0

    def learn(self, images: int, seconds: float) -> None:
        """A bundle of `images` took so long."""
        self._images, self._seconds = self._images / 2 + images, self._seconds / 2 + seconds  # the latest count most

    def next(self, threads: int) -> list[Sequence]:
        """The next tasks, for a cluster of `threads`; empty at the end.

        So many that the scheduler is not too busy, but at the end fewer: nobody should wait for a last long one.
        """
        wanted = 1.0
        if self._seconds:
            seconds = min(max(threads * OVERHEAD / SCHEDULER_SHARE, SHORTEST), LONGEST)
            wanted = min(seconds * self._images / self._seconds, self._left / (2 * FLIGHT * max(1, threads)))
            wanted = max(wanted, 1.0)
        bundle, images = [], 0
        while images < wanted and (task := next(self._tasks, None)) is not None:
            bundle.append(task)
            images += len(task)
        self._left -= images
        return bundle


class _Cluster:
    """A client of the cluster for one run. Every method raises InputError where the cluster fails.

    Attributes:
        setting: a pickled cluster_worker.Setting.
        marks: its files.
    """

    def __init__(self, client, address: str, run: str, bar: tqdm) -> None:
        self._client, self._address, self._run, self._bar = client, address, run, bar
        self._work, self._call = _far_functions(worker.LOADED)
        self._patience, self._without_workers = _times()
        self._threads, self._looked = 0, -LOOK
        self._had_workers, self._told = time.monotonic(), False
        self._direct = True
        self.setting, self.marks = b"", ()

    def check(self) -> None:
        """Look whether every worker that is there now is fit for the run. Later ones look themselves."""
        self._look()
        found = self._sync(self._on_each, "check", self.setting, within=CHECK, doing="check its workers")
        faults: dict[str, list[str]] = {}
        for name, fault in found.items():
            if fault:
                faults.setdefault(str(fault), []).append(name)
        if faults:
            raise InputError(
                f"the Dask cluster at {self._address} cannot be used as it is:\n"
                + "\n".join(f"  {_few(at)}: {fault}" for fault, at in faults.items())
            )

    def outcomes(self, bundles: _Bundles) -> Iterator[tuple[list[Sequence], list]]:
        """Each bundle with its outcomes (cluster_worker.run), in order."""
        waiting: deque = deque()
        finished: queue.SimpleQueue = queue.SimpleQueue()
        running, more = 0, True
        try:
            while more or waiting:
                limit = self._limit()
                wanted = min(limit - running, UNREAD * limit - len(waiting))
                fresh = list(itertools.takewhile(bool, (bundles.next(self._threads) for _ in range(wanted))))
                more = len(fresh) == max(0, wanted)
                waiting += zip(fresh, self._submit(fresh, finished), strict=True)
                running += len(fresh)
                ready = [future for _, future in itertools.takewhile(lambda each: each[1].done(), waiting)]
                if waiting or running:
                    running -= _taken(finished, 0 if ready else LOOK)
                self._look()
                for name, fault, seconds, outcomes in self._gather(ready):
                    bundle, _ = waiting.popleft()
                    if fault:
                        raise InputError(
                            f"the Dask cluster at {self._address} cannot be used as it is:\n  {name}: {fault}"
                        )
                    bundles.learn(sum(map(len, bundle)), seconds)
                    yield bundle, outcomes
        finally:
            self._cancel([future for _, future in waiting])

    def _limit(self) -> int:
        """Tasks that may be in flight."""
        limit = FLIGHT * max(1, self._threads)
        return min(limit, workers.count()) if os.environ.get("STAGE_WORKERS") else limit

    def _submit(self, bundles: list[list[Sequence]], finished: queue.SimpleQueue) -> list:
        """Their futures, which come into `finished` when they are."""
        if not bundles:
            return []
        data = [[(len(task), pickle.dumps(task)) for task in bundle] for bundle in bundles]
        futures = self._client.map(self._work, data, setting=self.setting, key="images", pure=False, retries=RETRIES)
        for future in futures:
            future.add_done_callback(finished.put)
        return futures

    def _gather(self, futures: list) -> list:
        """Results of `futures`, which are finished."""
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
        for mark in self.marks:
            _renew(Path(mark), self._run)
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
            workers.say(
                f"{self._bar.desc}: the cluster at {self._address} has no workers: waiting for one "
                "(docs/scaling.md says how to start them)"
            )

    async def _on_each(self, name: str, argument) -> dict:
        return await self._client.run(self._call, name, argument, on_error="return", asynchronous=True)

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

    def _failure(self, error: Exception) -> Exception:
        """What to raise where Dask has raised `error`."""
        import distributed

        here = f"when the results of {self._bar.n} of {self._bar.total} images were here"
        if isinstance(error, distributed.KilledWorker):
            return InputError(
                f"images behind the first {self._bar.n} of {self._bar.total} have killed several Dask workers, "
                "one after the other: see their logs (was memory short?), and run again"
            )
        if isinstance(error, worker.KeeperLost):
            return InputError(f"{error} again and again, {here}: see its log (was memory short?), and run again")
        if (
            isinstance(error, OSError | RuntimeError)
            or self._client.status != "running"
            or isinstance(error, CancelledError)
        ):
            return InputError(
                f"the Dask scheduler at {self._address} was lost {here}: start it again, and the workers if they "
                "ended with it, and run again"
            )
        return error

    def _cancel(self, futures: list) -> None:
        """Take back what is not done."""
        if futures and self._client.status == "running":
            with suppress(Exception):
                self._client.sync(self._cancelled, futures, callback_timeout=self._patience)

    async def _cancelled(self, futures: list) -> None:
        await self._client.cancel(futures, asynchronous=True, force=True)

    def release(self) -> None:
        """End what this run has left on the workers, whatever it does there."""
        if self._client.status == "running":
            with suppress(InputError):
                self._sync(self._on_each, "release", self._run, within=self._patience, doing="answer")


@contextmanager
def _connected(address: str, run: str, bar: tqdm) -> Iterator[_Cluster]:
    """A client of the scheduler at `address`, closed at the end, with what the run has left on the workers."""
    distributed = _library()
    patience, _ = _times()
    try:
        distributed.comm.get_address_host(address)  # a client of no address complains once more when it goes
        with _quiet():
            client = distributed.Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"DASK_SCHEDULER_ADDRESS is {address}, where no Dask scheduler answers ({error}): "
            "start one (docs/scaling.md), or unset the variable to work on this machine"
        ) from None
    cluster = _Cluster(client, address, run, bar)
    try:
        yield cluster
    finally:
        cluster.release()
        with suppress(Exception):  # a lost scheduler has nothing to be told
            client.close(timeout=patience)


def _library():
    """The package `distributed`, imported only where a cluster is asked for."""
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of other versions of Dask's own parts: those that decide pixels are checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _times() -> tuple[float, float]:
    """Seconds for which to wait for the scheduler, and for workers, as Dask's own configuration has them."""
    import dask

    connect = dask.utils.parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    workers = dask.config.get("distributed.scheduler.no-workers-timeout")
    return connect, dask.utils.parse_timedelta(workers) if workers else 10 * connect


def _far_functions(loaded: str) -> tuple[Callable, Callable]:
    """What Dask's workers are given to run, one as a task, one at once.

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
        if loaded != worker.LOADED:
            return "has loaded another imagepack/engine/cluster/worker.py: update the repository and restart the worker"
        return ""

    def work(tasks: list[tuple[int, bytes]], setting: bytes) -> tuple[str, str, float, list]:
        import distributed

        address = distributed.get_worker().address
        if fault := unfit():
            return address, fault, 0.0, []
        from imagepack.engine.cluster import worker

        return address, *worker.run(setting, tasks)

    async def call(name: str, argument) -> str | None:
        import asyncio

        if fault := unfit():
            return fault
        from imagepack.engine.cluster import worker

        return await asyncio.to_thread(getattr(worker, name), argument)

    return work, call


def _pickled(function: Callable) -> tuple[bytes, set[Path]]:
    """`function` for another process, and the folders whose paths it holds."""
    folders: set[Path] = set()

    class Pickler(pickle.Pickler):
        def reducer_override(self, thing):
            if isinstance(thing, Path) and thing.is_dir():
                folders.add(thing)
            return NotImplemented

    file = io.BytesIO()
    Pickler(file).dump(function)
    return file.getvalue(), folders


def _main() -> dict[str, str]:
    """What another process needs to find what this one calls `__main__`, as multiprocessing tells it."""
    data = spawn.get_preparation_data("cluster")
    return {name: data[name] for name in ("init_main_from_name", "init_main_from_path") if name in data}


def _marks(folders: set[Path], run: str, ending: ExitStack) -> tuple[str, ...]:
    """Files that hold `run`, by which workers know that they see the same folders; `ending` removes them."""
    marks = [folder / f".cluster-{run[:12]}" for folder in folders if os.access(folder, os.W_OK)]
    for mark in marks:
        ending.callback(mark.unlink, missing_ok=True)
        mark.write_text(run, encoding="utf-8")
        _sweep(mark)
    return tuple(map(str, marks))


def _renew(mark: Path, run: str) -> None:
    """Show that `run` is at work; and put back what another's sweep took from a stage that was stopped for long."""
    with suppress(OSError):  # a worker that misses it says so
        os.utime(mark) if mark.exists() else mark.write_text(run, encoding="utf-8")


def _sweep(new: Path) -> None:
    """Remove the marks that killed runs have left beside a new one.

    How old they are is told from the time of the new one, which is by the same clock: the file server's.
    """
    here = new.stat()
    for mark in new.parent.glob(".cluster-*"):
        with suppress(OSError):  # another run sweeps too, or it is another user's
            found = mark.lstat()
            is_mark = re.fullmatch(r"\.cluster-[0-9a-f]{12}", mark.name) and stat.S_ISREG(found.st_mode)
            if is_mark and found.st_size <= here.st_size and here.st_mtime - found.st_mtime > FORGOTTEN:
                mark.unlink()


def _taken(finished: queue.SimpleQueue, seconds: float) -> int:
    """Wait until something is in the queue, or `seconds` have gone by; empty it, and say how much was in it."""
    count = 0
    with suppress(queue.Empty):
        while True:
            finished.get(timeout=0 if count else seconds)
            count += 1
    return count


def _few(names: list[str], count: int = 5) -> str:
    """The first of `names`, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(sorted(names)[:count]) + more
