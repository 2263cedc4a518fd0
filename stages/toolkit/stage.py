"""A stage as a command: `python -m stages.NAME PATH ...`, the paths as dvc.yaml gives them."""

import argparse
import errno
import inspect
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from stages import params
from stages.toolkit.errors import InputError


def run_stage(stage: Callable[..., str]) -> None:
    """Call `stage` with the command line's paths and its sections of params.yaml; print its summary line.

    An argument of `stage` annotated `Path` comes from the command line, in order; one annotated with a class
    of stages.params is that section; one with a class that has `for_stage`, such as Memo, is what that makes.
    What a user can mend ends in a message and exit code 1, without traceback.
    """
    try:
        wanted = inspect.signature(stage).parameters.values()
        parser = argparse.ArgumentParser(prog=f"python -m stages.{stage.__name__}", description=stage.__doc__)
        for path in (p for p in wanted if p.annotation is Path):
            parser.add_argument(path.name, type=Path)
        arguments = vars(parser.parse_args())
        loaded = params.load(Path("params.yaml"))
        sections = {type(section): section for _, section in loaded}
        arguments |= {p.name: sections[p.annotation] for p in wanted if p.annotation in sections}
        beside = {p.name: p.annotation for p in wanted if hasattr(p.annotation, "for_stage")}
        arguments |= {name: kind.for_stage(stage.__name__, loaded.memo.max_gib) for name, kind in beside.items()}
        print(f"{stage.__name__}: {stage(**arguments)}")
    except KeyboardInterrupt:
        sys.exit(f"{stage.__name__}: stopped")
    except InputError as error:
        sys.exit(f"{stage.__name__}: {error}")
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


def _free_bytes(path: Path) -> int:
    """On the disk where `path` is, or would be."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free
