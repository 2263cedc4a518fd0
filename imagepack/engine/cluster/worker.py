"""The far side of client.py: what a Dask worker does with the tasks that it is given.

For each of its threads it has a process beside it, which does the work: a decoder that crashes, hangs or swallows
memory costs one file and never the Dask worker. The Dask worker may be a daemon, to which multiprocessing gives no
children, so these are started as programs. They are started anew for each run, so they have the code as it is on disk
then, and they work in the folder where the stage was started.
"""

import hashlib
import importlib.util
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import features

from imagepack.engine import processes
from imagepack.engine.cluster.marks import Marks
from imagepack.engine.processes import RAISED, Outcome, Task, Unfit

IDLE = 300
"""Seconds without work after which a process ends, should nobody have told it to."""
LIBRARIES = ("pillow", "numpy", "simplejpeg", "h5py", "xxhash", "zlib-ng", "pillow-heif", "pillow-jxl-plugin")
"""Those that decide what is written."""
CODECS = ("libjpeg_turbo", "jpg", "zlib", "zlib_ng", "libtiff", "webp", "avif", "littlecms2")
"""What a Pillow is built with may differ between two of the same version."""


@dataclass(frozen=True)
class Setting:
    """What the tasks of a run have in common.

    Attributes:
        folder: where the stage was started.
        marks: files that it has written.
        seen: other files and folders that are there.
        facts: as `facts` returns them.
        function: pickled.
        timeout: seconds that a task may take, or None.
        memory_mib: as of workers.map_in_order.
        may_lose: images may be lost, so the others of their task are computed again.
    """

    folder: str
    marks: Marks
    seen: tuple[str, ...]
    facts: dict[str, str]
    function: bytes
    timeout: float | None
    memory_mib: int | None
    may_lose: bool


def facts() -> dict[str, str]:
    """Return what has to be the same wherever images are worked on: the code, and versions of what decides pixels."""
    versions = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    codecs = {f"Pillow's {name}": str(features.version(name)) for name in CODECS if name in features.get_supported()}
    return versions | codecs | {"the code": code_digest()}


def code_digest() -> str:
    """Digest the modules in stages/ and imagepack/, as they are on disk where this process would import them from."""
    digest = hashlib.sha256()
    for package in ("stages", "imagepack"):
        for folder in importlib.util.find_spec(package).submodule_search_locations:
            for path in sorted(Path(folder).rglob("*.py")):
                name = path.relative_to(folder).as_posix()
                digest.update(f"{package}/{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def loaded() -> str:
    """Return a digest of the modules that a Dask worker loads: it lives longer than its files.

    A Dask worker calls this as soon as it has imported this module, and keeps the answer.
    """
    files = Path(__file__), Path(processes.__file__)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


# In the Dask worker.

_workers: list["RunWorker"] = []
_lock = threading.Lock()


class RunWorker(processes.Worker):
    """A process for one thread of the Dask worker, for one run."""

    def __init__(self, setting: bytes) -> None:
        known = pickle.loads(setting)
        super().__init__(partial(_start, setting), known.timeout, known.may_lose)
        self.setting, self.at_work = setting, True


def check(setting: bytes) -> str:
    """Return why this Dask worker cannot take part; an empty text if it can."""
    return run(setting, [])[0]


def run(setting: bytes, tasks: list[Task]) -> tuple[str, float, list[list[Outcome]]]:
    """Work on tasks.

    Returns:
        Why it cannot be done here, or an empty text; seconds; for each task what Worker.outcomes returns. Nothing
            follows an exception.
    """
    with _claimed(setting) as worker:
        found = []
        try:
            worker.begin()
            begun = time.monotonic()
            for task in tasks:
                found.append(worker.outcomes(task))
                if any(what == RAISED for what, _ in found[-1]):
                    break
        except Unfit as fault:
            return str(fault), 0.0, []
        return "", time.monotonic() - begun, found


def release(setting: bytes) -> None:
    """End the processes of a run, at work or not."""
    with _lock:
        ending = [worker for worker in _workers if worker.setting == setting]
        _workers[:] = [worker for worker in _workers if worker not in ending]
    for worker in ending:
        worker.stop()


@contextmanager
def _claimed(setting: bytes) -> Iterator[RunWorker]:
    """Claim a worker of the run that is not at work, or a new one, for as long as this lasts."""
    with _lock:
        for worker in [each for each in _workers if not each.at_work and each.ended()]:
            worker.stop()
            _workers.remove(worker)
        idle = (each for each in _workers if each.setting == setting and not each.at_work)
        if (worker := next(idle, None)) is None:
            worker = RunWorker(setting)
            _workers.append(worker)
        worker.at_work = True
    try:
        yield worker
    finally:
        worker.at_work = False


class _Program(subprocess.Popen):
    """With the name that multiprocessing has for `wait`."""

    join = subprocess.Popen.wait


def _start(setting: bytes) -> tuple[_Program, Connection]:
    pipe, its_end = multiprocessing.Pipe()
    process = _Program(
        [sys.executable, "-P", "-c", f"from {__name__} import work; work({its_end.fileno()})"],
        pass_fds=[its_end.fileno()],
        stdin=subprocess.PIPE,  # ends with the Dask worker
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)},
    )
    its_end.close()
    with suppress(OSError):  # it has ended already
        pipe.send_bytes(setting)
    return process, pipe


# In the process beside it.


def work(descriptor: int) -> None:
    """Work on the tasks of a run that come through a pipe, until there are none for long or the Dask worker ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the Dask worker
    pipe = Connection(descriptor)
    setting = pickle.loads(pipe.recv_bytes())
    if fault := _fault(setting):
        pipe.send(fault)
        return
    processes.serve(pipe, setting.function, setting.memory_mib, sys.stdin.fileno(), IDLE)


def _fault(setting: Setting) -> str:
    """Go where the stage was started and look whether this is a place like that one."""
    try:
        os.chdir(setting.folder)
    except OSError:
        return f"does not see the folder {setting.folder}: it has to be on a file system that all machines share"
    if fault := setting.marks.fault():
        return fault
    for path in setting.seen:
        if not Path(path).exists():
            return f"does not see {path}: it has to be on a file system that all machines share"
    here = facts()
    names = setting.facts.keys() | here.keys()
    differ = sorted(name for name in names if here.get(name) != setting.facts.get(name))
    if differ:
        found = (f"{name} is {here.get(name, 'missing')}, not {setting.facts.get(name, 'missing')}" for name in differ)
        return f"differs from the machine of the stage: {'; '.join(found)}"
    return ""
