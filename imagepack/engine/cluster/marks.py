"""Files by which the workers of a cluster know that they see the same folders as the stage."""

import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FORGOTTEN = 7 * 24 * 3600.0
"""Seconds since it was renewed after which a mark is one that a killed run has left. A run at work renews its marks
every few seconds; a week, because it may be stopped (Ctrl-Z) or cut off from its files while its workers go on."""
PATIENCE = 3
"""Seconds that a shared file system may take to show a new file."""


@dataclass(frozen=True)
class Marks:
    """Files of a run, whose content is `run`, a random text."""

    run: str
    paths: tuple[str, ...]

    def renew(self) -> None:
        """Show that the run is at work; put back what another's sweep took from a stage that was stopped for long."""
        for path in map(Path, self.paths):
            with suppress(OSError):  # a worker that misses it says so
                os.utime(path) if path.exists() else path.write_text(self.run, encoding="utf-8")

    def fault(self) -> str:
        """Return which folder is another one here; an empty text if none is."""
        for path in map(Path, self.paths):
            until = time.monotonic() + PATIENCE
            while not self._holds(path):
                if time.monotonic() > until:
                    return f"sees another folder {path.parent} than the stage: it has to be on a shared file system"
                time.sleep(0.2)
        return ""

    def _holds(self, path: Path) -> bool:
        try:
            return path.read_text(encoding="utf-8") == self.run
        except (OSError, ValueError):
            return False


@contextmanager
def marked(folders: Iterable[Path]) -> Iterator[Marks]:
    """Mark those of `folders` that can be written to, until the run ends."""
    run = secrets.token_hex(16)
    paths = [folder / f".cluster-{run[:12]}" for folder in folders if os.access(folder, os.W_OK)]
    with ExitStack() as ending:
        for path in paths:
            ending.callback(path.unlink, missing_ok=True)
            path.write_text(run, encoding="utf-8")
            _sweep(path)
        yield Marks(run, tuple(map(str, paths)))


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
