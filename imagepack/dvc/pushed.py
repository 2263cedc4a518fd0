"""Whether the default remote has the data of this version, as far as run.py has seen: it asks no server."""

import hashlib
from pathlib import Path

from imagepack.dvc import config, lock_files

NOTE = Path(".dvc/tmp/run-py-has-pushed")


def note() -> None:
    """Note that the remote has the data of this version: all of it has just been pushed there, or pulled."""
    NOTE.parent.mkdir(parents=True, exist_ok=True)
    NOTE.write_text(_version(), encoding="utf-8")


def is_noted() -> bool:
    """Return whether that was noted of the version that is here now, and of the remote that is set."""
    return NOTE.exists() and NOTE.read_text(encoding="utf-8") == _version()


def _version() -> str:
    """A digest of what DVC's files say of the data, and of the remote's address."""
    parts = [lock_files.here(), lock_files.here(lock_files.RAW_DVC), str(config.default_remote().get("url"))]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
