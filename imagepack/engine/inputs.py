"""That what a stage reads stays as it is until the stage ends.

DVC hashes what a stage depends on once the stage has ended. A file that comes in, goes or changes before that would be
recorded as read, and every later `dvc repro` and `dvc status` would call the result up to date.
"""

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from imagepack.dvc.ignored import ignored_by_dvc
from imagepack.errors import InputError
from imagepack.names import visible

Input = Annotated[Path, "read"]
"""What a stage's argument is annotated with where the stage reads it: a file, or a folder with all that is below."""
SHOWN = 10
"""Changes in a message."""
_Folder = tuple[bytes, array]
"""Names of its files, with / between, and a hash of each one's size and time: 8 bytes a file and its name, no path."""


@contextmanager
def unchanged(paths: list[Path]) -> Iterator[None]:
    """Look at files and folders before and after: at names, sizes and times, and not at bytes.

    Raises:
        InputError: a file has come in, has gone or has changed; the message names it.
    """
    before = [_look(path) for path in paths]
    yield
    changes = [
        f"{name}: {what}"
        for path, seen in zip(paths, before, strict=True)
        for name, what in _differences(seen, _look(path))
    ]
    if changes:
        more = [f"... and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
        what = "this changed while the stage ran, so that some of it may not have been read: run dvc repro again"
        raise InputError("\n  ".join([what, *changes[:SHOWN], *more]))


def _look(path: Path) -> dict[str, _Folder]:
    """Every folder at and below `path`; of a file, the file alone. What cannot be looked at the stage itself names."""
    if path.is_file():
        return {str(path.parent): (os.fsencode(path.name), array("q", [_state(path.stat())]))}
    found, waiting = {}, [str(path)]
    while waiting:
        folder = waiting.pop()
        names, states = [], array("q")
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                with suppress(FileNotFoundError):
                    states.append(_state_of(entry))
                    names.append(entry.name)
        found[folder] = (os.fsencode("/".join(names)), states)
    return found


def _state_of(entry: os.DirEntry) -> int:
    try:
        return _state(entry.stat())
    except OSError:  # a link that leads nowhere
        return _state(entry.stat(follow_symlinks=False))


def _state(found: os.stat_result) -> int:
    """Its inode would tell no more that matters, and changes by itself on some network disks."""
    return hash((found.st_size, found.st_mtime_ns))


def _differences(before: dict[str, _Folder], after: dict[str, _Folder]) -> Iterator[tuple[str, str]]:
    """Names and what happened, in a fixed order, without those that DVC ignores, as editors and systems write them."""
    ignored = ignored_by_dvc()
    for folder in sorted(before.keys() | after.keys()):
        one, other = before.get(folder), after.get(folder)
        if one == other:
            continue
        then, now = _files(one), _files(other)
        for name in sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name)):
            path = Path(folder, name)
            if not ignored(path.as_posix()):
                shown = visible(str(path))
                yield shown, "is new" if name not in then else "is gone" if name not in now else "has changed"


def _files(folder: _Folder | None) -> dict[str, int]:
    names, states = folder or (b"", ())
    return dict(zip(os.fsdecode(names).split("/"), states, strict=False))
