"""Many images on all cores: one function, one seam. A file that kills or hangs its decoder costs that file alone."""

import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from multiprocessing import connection
from typing import TypeVar

import psutil
from tqdm import tqdm

from imagepack.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
STARTS = 3
"""How often a worker is started that dies before it has begun to work."""


class Died(Exception):
    """A worker was killed, or its decoder crashed."""


class TookTooLong(Exception):
    """A task was not done in time, and its worker was killed."""


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
            ("decoder_crash" or "timeout"). The others of its task are computed again, each a task by itself; and so
            is the image itself before it counts as a crash, since a worker may have been killed for another reason.

    Where DASK_SCHEDULER_ADDRESS is set, the workers are those of that Dask cluster; the results are the same.

    Raises:
        InputError: a worker died or took too long, and there is no `lost`; or the cluster cannot be used.
    """
    if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
        from imagepack.engine.cluster import client

        yield from client.map_in_order(address, function, tasks, total, desc, timeout, memory_mib, lost)
        return
    workers = count()
    pool = Pool(workers, function, memory_mib, timeout)
    waiting: deque = deque()

    def results(task: Sequence[Item], future: Future, again: bool = True) -> Iterator[Result]:
        try:
            yield future.result()
            return
        except TookTooLong:
            what, again = "timeout", False
        except Died:
            what = "decoder_crash"
        if lost is None:
            raise worker_died(bar)
        if len(task) == 1 and not again:
            yield lost(task[0], what)
            return
        for item in task:
            yield from results([item], pool.schedule([item]), again=len(task) > 1)

    def next_results() -> Iterator[Result]:
        task, future = waiting.popleft()
        yield from results(task, future)
        bar.update(len(task))

    with ExitStack() as ending, progress_bar(total, desc) as bar:
        ending.callback(pool.stop)  # at once, whether all is done or an error ends it
        for task in tasks:
            waiting.append((task, pool.schedule(task)))
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


def begin() -> None:
    """Start the server from which workers are forked: it imports its modules while the stage looks at its inputs."""
    if not os.environ.get("DASK_SCHEDULER_ADDRESS"):
        _start_server(process_context())


def _start_server(context: multiprocessing.context.BaseContext) -> None:
    """That of `context`, in a main thread; Ctrl-C is for this process, and not for one that is still importing."""
    if context.get_start_method() == "forkserver" and threading.current_thread() is threading.main_thread():
        from multiprocessing import forkserver  # not on Windows

        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it inherits that
        try:
            with suppress(OSError):  # it is started again for the first worker, where that is an error
                forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, handler)


def stage_modules() -> list[str]:
    """Those of the stages' modules that this process has imported."""
    return [name for name in sys.modules if name.startswith(("stages.", "imagepack."))]


class Pool:
    """Worker processes, each with a thread here and a pipe of its own.

    Pools whose workers share a queue can lose a task, or wait for ever, where a worker is killed at the wrong moment.
    """

    def __init__(
        self,
        workers: int,
        function: Callable,
        memory_mib: int | None,
        timeout: float | None,
        modules: Iterable[str] | None = None,
    ) -> None:
        self._context = process_context(modules)
        _start_server(self._context)
        self._function, self._memory_mib, self._timeout = function, memory_mib, timeout
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._lock, self._stopped = threading.Lock(), False
        self._processes: set = set()
        self._threads = [threading.Thread(target=self._look_after_one, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def schedule(self, task: Sequence[Item]) -> Future:
        """The future of function(task); it may raise Died, TookTooLong, or what `function` raises."""
        future: Future = Future()
        self._tasks.put((task, future))
        return future

    def stop(self) -> None:
        """Kill the workers."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _look_after_one(self) -> None:
        """Give one worker a task after the other; a new one takes the place of one that has died."""
        process = pipe = None
        while (item := self._tasks.get()) is not None and not self._stopped:
            task, future = item
            try:
                if process is None:
                    process, pipe = self._start()
                pipe.send(task)
                if not pipe.poll(self._timeout):
                    raise TookTooLong
                good, value = pipe.recv()
                future.set_result(value) if good else future.set_exception(value)
            except (EOFError, OSError, TookTooLong) as error:
                self._end(process, pipe)
                process = None
                future.set_exception(error if isinstance(error, TookTooLong) else Died())
            except BaseException as error:  # noqa: BLE001  (it is raised where the result is waited for)
                future.set_exception(error)
        self._end(process, pipe)

    def _start(self) -> tuple:
        """A worker that is ready, and the pipe to it."""
        for _ in range(STARTS):
            pipe, its_end = self._context.Pipe()
            arguments = (its_end, self._function, self._memory_mib)
            process = self._context.Process(target=_work, args=arguments, daemon=True)
            with self._lock:
                if self._stopped:
                    raise Died
                process.start()
                self._processes.add(process)
            its_end.close()
            with suppress(EOFError, OSError):
                pipe.recv()
                return process, pipe
            self._end(process, pipe)
        raise InputError(f"worker processes end as soon as they start (killed, or out of memory?): {STARTS} tries")

    def _end(self, process, pipe: connection.Connection | None) -> None:
        if process is None:
            return
        pipe.close()
        process.kill()
        process.join()
        with self._lock:
            self._processes.discard(process)


def _work(pipe: connection.Connection, function: Callable, memory_mib: int | None) -> None:
    """A worker: answers each task with whether it went well, and the result or the error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_process(memory_mib)  # to receive `function` has loaded its module, before memory is short
    ready = "ready"
    while True:
        try:
            if ready:
                pipe.send(ready)
                ready = ""
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = True, function(task)
        except BaseException as error:  # noqa: BLE001  (it is raised in the main process)
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            answer = False, error
        try:
            pipe.send(answer)
        except (EOFError, OSError):
            return
        except Exception as error:  # noqa: BLE001  (no such result or error can be sent)
            pipe.send((False, RuntimeError(f"{answer[1]!r} cannot be passed on: {error!r}")))


def _end_with_parent() -> None:
    """A worker that outlives a killed stage would go on writing while the stage is run again."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


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


def say(line: str) -> None:
    """Print a line on stderr, above a bar on a terminal; elsewhere tqdm would print the bar's line anew."""
    tqdm.write(line, file=sys.stderr) if sys.stderr.isatty() else print(line, file=sys.stderr, flush=True)
