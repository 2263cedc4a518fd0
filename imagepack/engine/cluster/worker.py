"""The far side of cluster.py: what a Dask worker does with the work it is given.

It starts a keeper, a process beside it for each of its threads, which has a pool of one process, which does the work:
a decoder that crashes, hangs or swallows memory costs one file and never the Dask worker, which may be a daemon
without children of its own. A keeper is started anew for each run, so it has the code as it is on disk then; it works
in the folder where the stage was started.
"""

import dataclasses
import hashlib
import importlib.util
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata
from multiprocessing import spawn
from pathlib import Path

import psutil
from PIL import features

from imagepack.engine.workers import Died, Pool, TookTooLong

IDLE = 300
"""Seconds without work after which a keeper ends, should nobody have told it to."""
LIBRARIES = ("pillow", "numpy", "simplejpeg", "h5py", "xxhash", "zlib-ng", "pillow-heif", "pillow-jxl-plugin")
"""Those that decide what is written."""
CODECS = ("libjpeg_turbo", "jpg", "zlib", "zlib_ng", "libtiff", "webp", "avif", "littlecms2")
"""What a Pillow is built with may differ between two of the same version."""
PATIENCE = 3
"""Seconds that a shared file system may take to show a new file."""

LOADED = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
"""This module as it is loaded: a Dask worker lives longer than its files."""


class KeeperLost(Exception):
    """A keeper was killed; what it did is done again."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the tasks of a run have in common.

    Attributes:
        run: a random text.
        folder: where the stage was started.
        marks: files that hold `run`.
        seen: other files and folders that are there.
        facts: as `facts` returns them.
        main: of the client, for multiprocessing.spawn.prepare.
        modules: to be imported before processes are forked.
        function: pickled.
        timeout: seconds that a task may take, or None.
        memory_mib: as of workers.map_in_order.
        may_lose: images may be lost, so the others of their task are computed again.
    """

    run: str
    folder: str
    marks: tuple[str, ...]
    seen: tuple[str, ...]
    facts: dict[str, str]
    main: dict[str, str]
    modules: list[str]
    function: bytes
    timeout: float | None
    memory_mib: int | None
    may_lose: bool


def facts() -> dict[str, str]:
    """What has to be the same wherever images are worked on: the code and the versions of what decides pixels."""
    versions = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    codecs = {f"Pillow's {name}": str(features.version(name)) for name in CODECS if name in features.get_supported()}
    return versions | codecs | {"the code": code_digest()}


def code_digest() -> str:
    """Of the modules in stages/ and imagepack/, as they are on disk where this process would import them from."""
    digest = hashlib.sha256()
    for package in ("stages", "imagepack"):
        for folder in importlib.util.find_spec(package).submodule_search_locations:
            for path in sorted(Path(folder).rglob("*.py")):
                name = path.relative_to(folder).as_posix()
                digest.update(f"{package}/{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


# In the Dask worker.

_keepers: dict["Keeper", bool] = {}
"""Those that live, and whether each is at work."""
_lock = threading.Lock()


class Keeper:
    """A process that does the work of one thread of a Dask worker.

    Attributes:
        fault: why no work can be done here; empty if it can.
    """

    def __init__(self, setting: bytes) -> None:
        self.setting = setting
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import keep; keep()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.fault = self.ask(setting)

    def ask(self, message: object) -> object:
        """Send `message`; the answer.

        Raises:
            KeeperLost: the process died.
        """
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self.stop()
            raise KeeperLost(f"the process beside the Dask worker {os.getpid()} died") from None

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process and those below it, whatever they do."""
        with _lock:
            _keepers.pop(self, None)
        for process in _below(self._process.pid):
            process.kill()
        self._process.kill()
        self._process.wait()


def check(setting: bytes) -> str:
    """Why this worker cannot take part; empty if it can."""
    try:
        keeper = _take(setting)
    except KeeperLost as error:
        return str(error)
    _give_back(keeper)
    return keeper.fault


def run(setting: bytes, tasks: list[tuple[int, bytes]]) -> tuple[str, float, list]:
    """Work on pickled `tasks`, each with the number of its images.

    Returns:
        Why it cannot be done here, or an empty text; seconds; for each task, a list of outcomes: of it as a whole or,
            where an image was lost, of each image. An outcome is "result" and the pickled result, "raised" and the
            pickled exception, or "decoder_crash" or "timeout" and nothing. Nothing follows an exception.
    """
    keeper = _take(setting)
    if keeper.fault:
        _give_back(keeper)
        return keeper.fault, 0.0, []
    seconds, outcomes = keeper.ask(tasks)
    _give_back(keeper)
    return "", seconds, outcomes


def release(run: str) -> None:
    """End what is left of a run, at work or not."""
    with _lock:
        ending = [keeper for keeper in _keepers if pickle.loads(keeper.setting).run == run]
    for keeper in ending:
        keeper.stop()


def _take(setting: bytes) -> Keeper:
    """A keeper for this run, from now on at work."""
    with _lock:
        for keeper in [keeper for keeper in _keepers if not keeper.alive()]:
            del _keepers[keeper]
        for keeper, at_work in _keepers.items():
            if keeper.setting == setting and not at_work:
                _keepers[keeper] = True
                return keeper
    keeper = Keeper(setting)
    with _lock:
        _keepers[keeper] = True
    return keeper


def _give_back(keeper: Keeper) -> None:
    if keeper.fault:
        keeper.stop()
    with _lock:
        if keeper in _keepers:
            _keepers[keeper] = False


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


# In the keeper.


def keep() -> None:
    """Serve the Dask worker that started this process, until it ends or says nothing for long."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the Dask worker
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    messages: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(os.fdopen(os.dup(0), "rb"), messages), daemon=True).start()

    def answer(reply: object) -> None:
        pickle.dump(reply, answers)
        answers.flush()

    setting = pickle.loads(messages.get())
    fault = _fault(setting)
    answer(fault)
    if fault:
        return
    function = _Function(setting.main, setting.function)
    pool = Pool(1, function, setting.memory_mib, setting.timeout, setting.modules)
    try:
        while True:
            answer(_work(pool, setting, messages.get(timeout=IDLE)))
    except queue.Empty:
        _end()


def _listen(stream, messages: queue.SimpleQueue) -> None:
    """Receive messages; when nobody is there to send any, end everything at once."""
    try:
        while True:
            messages.put(pickle.load(stream))
    except (EOFError, OSError, pickle.UnpicklingError):
        _end()


def _end() -> None:
    for process in _below(os.getpid()):
        process.kill()
    os._exit(0)


def _fault(setting: Setting) -> str:
    """Go where the stage was started and look whether this is a place like that one."""
    try:
        os.chdir(setting.folder)
    except OSError:
        return f"does not see the folder {setting.folder}: it has to be on a file system that all machines share"
    for mark in setting.marks:
        until = time.monotonic() + PATIENCE
        while not _holds(mark, setting.run):
            if time.monotonic() > until:
                return f"sees another folder {Path(mark).parent} than the stage: it has to be on a shared file system"
            time.sleep(0.2)
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


def _holds(mark: str, run: str) -> bool:
    try:
        return Path(mark).read_text(encoding="utf-8") == run
    except (OSError, ValueError):
        return False


def _work(pool: Pool, setting: Setting, tasks: list[tuple[int, bytes]]) -> tuple[float, list]:
    begun, outcomes = time.monotonic(), []
    for count, data in tasks:
        whole = _outcome(pool, data, None)
        if whole[0] in ("timeout", "decoder_crash") and setting.may_lose and count > 1:
            outcomes.append([_outcome(pool, data, index) for index in range(count)])
        else:
            outcomes.append([whole])
        if any(what == "raised" for what, _ in outcomes[-1]):
            break
    return time.monotonic() - begun, outcomes


def _outcome(pool: Pool, data: bytes, index: int | None) -> tuple[str, bytes]:
    try:
        return pool.schedule((data, index)).result()
    except TookTooLong:
        return "timeout", b""
    except Died:
        return "decoder_crash", b""


# In the process of the keeper's pool.


class _Function:
    """What the process is to call. On its way there it becomes what `_begin` returns, before memory is limited."""

    def __init__(self, main: dict[str, str], function: bytes) -> None:
        self._arguments = main, function

    def __reduce__(self) -> tuple:
        return _begin, self._arguments


def _begin(main: dict[str, str], function: bytes) -> Callable[[tuple], tuple[str, bytes]]:
    """`_call` with the function of the run, or with why it cannot be had."""
    try:
        spawn.prepare(main)  # a stage is run by `python -m`, so its functions are called __main__.NAME
        return partial(_call, pickle.loads(function))
    except Exception as error:  # noqa: BLE001  (told when it is called: here it would only end the process)
        return partial(_call, error)


def _call(function: Callable | Exception, task: tuple[bytes, int | None]) -> tuple[str, bytes]:
    """The outcome of a task, or of one image of it."""
    data, index = task
    try:
        if isinstance(function, Exception):
            raise function
        images = pickle.loads(data)
        return "result", pickle.dumps(function(images if index is None else [images[index]]))
    except Exception as error:  # noqa: BLE001  (raised again where the stage runs)
        return "raised", _portable(error)


def _portable(error: Exception) -> bytes:
    """Pickled, with where it was raised; as text alone if it cannot be pickled and restored."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:  # noqa: BLE001  (anything may happen in foreign exceptions)
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
