"""A stage as a command: `python -m stages.NAME PATH ...`, the paths as dvc.yaml gives them."""

import argparse
import errno
import hashlib
import inspect
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagepack.engine import inputs, params
from imagepack.errors import InputError
from imagepack.names import visible_lines
from stages import STARTED_BY, started_by

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCKS = Path(".dvc/tmp")
"""Where DVC too keeps what tells one process of another; not in git."""


def run_stage(stage: Callable[..., str]) -> None:
    """Call `stage` with the command line's paths and its sections of params.yaml; print its summary line.

    An argument of `stage` annotated `Path` or `Input` comes from the command line, in order; one annotated with a class
    of imagepack.engine.params is that section; one with a class that has `for_stage`, such as Memo, is what that makes.
    What a user can mend ends in a message and exit code 1, without traceback; so does an `Input` that has changed when
    the stage ends.
    """
    try:
        wanted = inspect.signature(stage).parameters.values()
        parser = argparse.ArgumentParser(prog=f"python -m stages.{stage.__name__}", description=stage.__doc__)
        for path in (p for p in wanted if p.annotation in (Path, inputs.Input)):
            parser.add_argument(path.name, type=Path)
        arguments = vars(parser.parse_args())
        _end_with_dvc()
        read = [arguments[p.name] for p in wanted if p.annotation == inputs.Input]
        libraries = getattr(sys.modules[stage.__module__], "LIBRARIES", ())
        loaded = params.load(Path("params.yaml"))
        sections = {type(section): section for _, section in loaded}
        arguments |= {p.name: sections[p.annotation] for p in wanted if p.annotation in sections}
        beside = {p.name: p.annotation for p in wanted if hasattr(p.annotation, "for_stage")}
        with _alone(stage.__name__, [value for value in arguments.values() if isinstance(value, Path)]):
            arguments |= {
                name: kind.for_stage(stage.__name__, loaded.memo.max_gib, libraries) for name, kind in beside.items()
            }
            with inputs.unchanged(read):
                summary = stage(**arguments)
            print(visible_lines(f"{stage.__name__}: {summary}"))
    except KeyboardInterrupt:
        sys.exit(f"{stage.__name__}: stopped")
    except InputError as error:
        sys.exit(visible_lines(f"{stage.__name__}: {error}"))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fullest = min((p for p in arguments.values() if isinstance(p, Path)), key=_free_bytes)
        sys.exit(f"{stage.__name__}: the disk of {fullest} is full: free some space and run again")


def empty_folder(path: Path) -> None:
    """Make `path` a folder with nothing in it, so that what was there before cannot show in the result."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)


@contextmanager
def _alone(stage: str, paths: list[Path]) -> Iterator[None]:
    """Wait until no other process runs this stage on these paths: two would remove each other's results.

    DVC's lock does not do: it is gone once DVC was killed, while its stage may go on for a moment.
    """
    if fcntl is None or not LOCKS.parent.is_dir():
        yield
        return
    LOCKS.mkdir(exist_ok=True)
    name = hashlib.sha256("\0".join(str(path) for path in paths).encode()).hexdigest()[:8]
    with (LOCKS / f"{stage}-{name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"{stage}: process {lock.read()} is at work on {paths[-1]}: waits until it ends", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _end_with_dvc() -> None:
    """A stage whose DVC was killed ends too, as does one whose shell was: nobody would record what it makes."""

    def watch() -> None:
        while started_by() == STARTED_BY:
            time.sleep(0.2)
        os._exit(1)

    if "DVC_STAGE" in os.environ and os.name != "nt":
        threading.Thread(target=watch, daemon=True).start()


def _free_bytes(path: Path) -> int:
    """On the disk where `path` is, or would be."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free
