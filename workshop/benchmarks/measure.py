"""What the benchmarks share: run a command and say what it took, and on what machine."""

import contextlib
import datetime
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from imagepack.engine import workers
from imagepack.errors import InputError

SAMPLE_EVERY = 0.05
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: wall time, from start of the process to its end.
        peak_mib: the largest resident set of any single process of it, MiB.
        largest: which that was: a module, a program, or "worker" for one that multiprocessing started.
    """

    seconds: float
    peak_mib: float
    largest: str = ""


@contextlib.contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """An empty folder to work in: `keep`, which stays, or a temporary one.

    Raises:
        InputError: `keep` holds something.
    """
    if keep is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary).resolve()
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise InputError(f"{keep} is not empty: name a new folder")
    yield keep.resolve()


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> Taken:
    """Run `command` in `folder` to its end.

    The memory is sampled: stages' workers are children of multiprocessing's fork server, which nobody waits for, so
    the kernel leaves them out of the rusage of what was waited for. On Linux a sample is the largest that the process
    has been so far; elsewhere what it is, so that a short peak may be missed.

    Raises:
        InputError: the command failed; with its output.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        (peak, name), code = (0.0, ""), None
        while code is None:
            peak, name = max((peak, name), _largest(process))
            with contextlib.suppress(psutil.TimeoutExpired):
                code = process.wait(SAMPLE_EVERY)
        seconds = time.perf_counter() - start
        output.seek(0)
        if code:
            text = output.read().decode(errors="replace")
            raise InputError(f"{' '.join(map(str, command))} exited {code}:\n{text}")
    return Taken(seconds, peak, name)


def _largest(process: psutil.Process) -> tuple[float, str]:
    """The largest resident set that `process` or one of those now below it has had, MiB, and which has."""
    found = [(0.0, "")]
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):  # it has ended meanwhile
                found.append((_peak_mib(each), _name(each.cmdline())))
    return max(found)


def _name(words: Sequence[str]) -> str:
    """Of a process with this command line: the module or program, short."""
    if any("multiprocessing" in word for word in words):
        return "worker"
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    scripts = [word for word in words[1:] if word.endswith(".py") or "/" in word]
    return Path((scripts if "python" in words[0] and scripts else words)[0]).name if words else ""


def own_peak_mib() -> float:
    """The largest resident set that this process has had, MiB; where the system does not say, what it has now."""
    return _peak_mib(psutil.Process())


def _peak_mib(process: psutil.Process) -> float:
    """As `own_peak_mib`, of any process."""
    status = Path(f"/proc/{process.pid}/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    info = process.memory_info()
    return peaks[0] if peaks else getattr(info, "peak_wset", info.rss) / 2**20


def judged(name: str, value: float, limit: float) -> str:
    """A line that says whether what was measured is at most what was promised."""
    return f"{name}: {value:.3g}, at most {limit:g}: {'kept' if value <= limit else 'missed'}"


def machine(packages: Iterable[str]) -> str:
    """Cores, processor, Python, `packages` with their versions, and today's date, on two lines."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{workers.count()} cores, {_processor()}, {platform.system()}, {datetime.date.today()}\n"
        f"Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    """The processor's name: Linux alone says it in a file."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
