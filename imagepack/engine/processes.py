"""Worker processes, of this machine or beside a Dask worker: a file that kills or hangs its decoder costs itself alone.

Tasks, results and exceptions pass as pickled bytes. A process has a pipe of its own: pools whose workers share a queue
can lose a task, or wait for ever, where a worker is killed at the wrong moment.
"""

import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import psutil

from imagepack.errors import InputError

STARTS = 3
"""How often a process is started that dies before it has begun to work."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt (malloc.h)."""
KEPT_BYTES = 2**25
"""A worker keeps twice as much freed memory at most; a larger block goes back to the system as soon as it is freed."""
RESULT, RAISED, CRASH, TIMEOUT = "result", "raised", "decoder_crash", "timeout"
Task = tuple[bytes, int]
"""Some images, pickled, and how many they are."""
Outcome = tuple[str, bytes]
"""What came of a task or of one image: RESULT or RAISED with the pickled result or exception, or CRASH or TIMEOUT."""


class Unfit(Exception):
    """The process says why it cannot work where it is."""


class Stopped(Exception):
    """The worker was stopped while it had a task."""


class Worker:
    """A process that does one task after the other; another takes its place when it dies or takes too long.

    Args:
        start: starts a process that calls `serve`; returns it (`kill` and `join` are used), and the pipe to it.
        timeout: seconds that a task may take.
        may_lose: images may be lost. Each of a task that loses its process is then done by itself.
    """

    def __init__(
        self, start: Callable[[], tuple[BaseProcess, Connection]], timeout: float | None, may_lose: bool
    ) -> None:
        self._start, self._timeout, self._may_lose = start, timeout, may_lose
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock, self._stopped = threading.Lock(), False

    def outcomes(self, task: Task) -> list[Outcome]:
        """Return the outcome of a task as a whole or, where it loses its process and images may be lost, of each image.

        What crashes is done again before it counts: the process may have been killed for another reason.

        Raises:
            InputError: no process can be started.
            Unfit, Stopped.
        """
        data, count = task
        whole = self._outcome(data)
        if whole[0] in (CRASH, TIMEOUT) and self._may_lose and count > 1:
            return [self._again(self._outcome(data, index), data, index) for index in range(count)]
        return [self._again(whole, data)]

    def _again(self, outcome: Outcome, data: bytes, index: int | None = None) -> Outcome:
        return self._outcome(data, index) if outcome[0] == CRASH else outcome

    def _outcome(self, data: bytes, index: int | None = None) -> Outcome:
        self.begin()
        try:
            self._pipe.send((data, index))
            if self._pipe.poll(self._timeout):
                return self._pipe.recv()
            lost = TIMEOUT
        except (EOFError, OSError):
            lost = CRASH
        self._end()
        return lost, b""

    def begin(self) -> None:
        """Start the process, unless it runs; raise as `outcomes`."""
        if not self.ended():
            return
        for _ in range(STARTS):
            self._end()
            with self._lock:
                if self._stopped:
                    raise Stopped
                self._process, self._pipe = self._start()
            with suppress(EOFError, OSError):
                if fault := self._pipe.recv():
                    self._end()
                    raise Unfit(fault)
                return
        raise InputError(f"worker processes end as soon as they start (killed, or out of memory?): {STARTS} tries")

    def ended(self) -> bool:
        """Return whether there is no process."""
        try:
            return self._pipe is None or self._pipe.poll()  # it says nothing unasked: this is the end of the pipe
        except OSError:  # so is this, on Windows
            return True

    def stop(self) -> None:
        """End the process, whatever it does, and start no other."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                self._process.join()

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._pipe.close()
            self._process = self._pipe = None


class Pool:
    """Worker processes on this machine, each with a thread here.

    Args:
        workers: how many.
        function: pickled.
        memory_mib: mebibytes that a process may allocate beyond what it has at its start (Linux).
        timeout, may_lose: as of `Worker`.
    """

    def __init__(
        self, workers: int, function: bytes, timeout: float | None, memory_mib: int | None, may_lose: bool
    ) -> None:
        start_server()  # if it does not run yet
        start = partial(_start, process_context(), function, memory_mib)
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._workers = [Worker(start, timeout, may_lose) for _ in range(workers)]
        self._threads = [threading.Thread(target=self._serve, args=(each,), daemon=True) for each in self._workers]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> Future:
        """Return the future of Worker.outcomes(task)."""
        future: Future = Future()
        self._tasks.put((task, future))
        return future

    def stop(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.stop()
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: Worker) -> None:
        while (item := self._tasks.get()) is not None:
            task, future = item
            try:
                future.set_result(worker.outcomes(task))
            except BaseException as error:  # noqa: BLE001  (it is raised where the result is waited for)
                future.set_exception(error)


def process_context() -> multiprocessing.context.BaseContext:
    """Return how worker processes are started.

    Forked from a clean server that has imported the stages once (preload.py): a plain fork would copy the locks of
    polars' threads as they happen to be.
    """
    forkserver = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forkserver else "spawn")
    if forkserver:
        context.set_forkserver_preload(["imagepack.engine.preload"])
    return context


def start_server() -> None:
    """Start the server that workers are forked from; Ctrl-C is for this process alone, while that one imports."""
    context = process_context()
    if context.get_start_method() == "forkserver" and threading.current_thread() is threading.main_thread():
        from multiprocessing import forkserver  # not on Windows

        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it inherits that
        try:
            with suppress(OSError):  # it is started again for the first worker, where that is an error
                forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, handler)


def _start(
    context: multiprocessing.context.BaseContext, function: bytes, memory_mib: int | None
) -> tuple[BaseProcess, Connection]:
    pipe, its_end = context.Pipe()
    process = context.Process(target=serve, args=(its_end, function, memory_mib), daemon=True)
    process.start()
    its_end.close()
    return process, pipe


def serve(
    pipe: Connection, function: bytes, memory_mib: int | None, parent: int | None = None, idle: float | None = None
) -> None:
    """Answer tasks with outcomes, in a worker process.

    Args:
        pipe: an empty text is sent first.
        function: pickled; called with the images of a task.
        memory_mib: as of `Pool`.
        parent: is ready to be read from when the parent has ended; None if that is multiprocessing's.
        idle: seconds without a task after which it ends.
    """
    sentinel = multiprocessing.parent_process().sentinel if parent is None else parent
    threading.Thread(target=_end_with, args=(sentinel,), daemon=True).start()
    try:
        call = pickle.loads(function)  # loads its module, before memory is limited
    except Exception as error:  # noqa: BLE001  (told when it is called: here it would only end the process)
        call = partial(_raise, error)
    limit_process(memory_mib)
    with suppress(EOFError, OSError):
        pipe.send("")
        while pipe.poll(idle):
            pipe.send(_outcome(call, *pipe.recv()))


def _end_with(parent: int) -> None:
    """End at once: a worker that outlives a killed stage would go on writing while the stage is run again."""
    connection.wait([parent])
    os._exit(1)


def _outcome(function: Callable, data: bytes, index: int | None) -> Outcome:
    """Return what comes of a task, or of one image of it."""
    try:
        images = pickle.loads(data)
        return RESULT, pickle.dumps(function(images if index is None else [images[index]]))
    except BaseException as error:  # noqa: BLE001  (raised again in the main process)
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return RAISED, _portable(error)


def _portable(error: BaseException) -> bytes:
    """Pickle an exception; as text alone if it cannot be pickled and restored."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:  # noqa: BLE001  (anything may happen in foreign exceptions)
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))


def _raise(error: Exception, _: object) -> None:
    raise error


def limit_process(memory_mib: int | None) -> None:
    """Make this process one that works on images: undisturbed by Ctrl-C, and limited where there is a limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which stops the workers
    if memory_mib:  # files of other people: what libtiff prints about them names none, and their findings do
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _keep_freed_memory()
    if memory_mib and sys.platform == "linux":
        import resource

        limit = psutil.Process().memory_info().vms + memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _keep_freed_memory() -> None:
    """Let glibc hand out freed memory again, of pictures up to some megabytes, in place of new pages.

    By default it gives much of it back to the system after each picture; new pages cost as much as what is done with
    them. Other systems' allocators have no such call.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2 * KEPT_BYTES)
