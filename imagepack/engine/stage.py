"""Run a stage: read its command line and params, call its function, say how it ended."""

import argparse
import errno
import hashlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagepack.engine import inputs, params
from imagepack.engine.memo import Memo
from imagepack.errors import InputError
from imagepack.names import visible_lines

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCKS = Path(".dvc/tmp")
"""Where DVC too keeps what tells one process of another; not in git."""


def run_stage(words: list[str]) -> None:
    """Run the stage that a command line names, and print its summary line.

    What a user can mend ends in a message and exit code 1, without traceback; so does an `Input` that has changed when
    the stage ends.

    Args:
        words: the stage's name, and a path for each argument of its function that is annotated `Path` or `Input`. An
            argument annotated with a class of params is that section of params.yaml; one annotated `Memo` is the
            stage's memo.
    """
    name = words[0] if words else ""
    if name not in params.stages():
        sys.exit(f"no stage {name!r}: stages/ has {', '.join(params.stages())}")
    stage = params.stages()[name]
    paths = _paths(stage, words[1:])
    try:
        sections = params.load(Path("params.yaml"))
        with _alone(name, list(paths.values())):
            summary = _call(name, stage, paths, sections)
        print(visible_lines(f"{name}: {summary}"))
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped")
    except InputError as error:
        sys.exit(visible_lines(f"{name}: {error}"))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fullest = min(paths.values(), key=_free_bytes)
        sys.exit(f"{name}: the disk of {fullest} is full: free some space and run again")


def _paths(stage: Callable[..., str], words: list[str]) -> dict[str, Path]:
    """Read the paths from the command line, by the names of the function's arguments."""
    parser = argparse.ArgumentParser(prog=f"python -m imagepack.engine {stage.__name__}", description=stage.__doc__)
    for argument in inspect.signature(stage).parameters.values():
        if argument.annotation in (Path, inputs.Input):
            parser.add_argument(argument.name, type=Path)
    return vars(parser.parse_args(words))


def _call(name: str, stage: Callable[..., str], paths: dict[str, Path], sections: dict[str, params.Section]) -> str:
    """Call `stage` with all that its arguments are annotated with, while no `Input` changes; return its summary."""
    wanted = inspect.signature(stage).parameters.values()
    by_class = {type(section): section for section in sections.values()}
    arguments = paths | {a.name: by_class[a.annotation] for a in wanted if a.annotation in by_class}
    for argument in wanted:
        if argument.annotation is Memo:
            libraries = getattr(sys.modules[stage.__module__], "LIBRARIES", ())
            arguments[argument.name] = Memo.for_stage(name, sections["memo"].max_gib, libraries)
    with inputs.unchanged([paths[a.name] for a in wanted if a.annotation == inputs.Input]):
        return stage(**arguments)


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


def _free_bytes(path: Path) -> int:
    """On the disk where `path` is, or would be."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free
