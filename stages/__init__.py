"""The pipeline's stages, a module each: validate, preprocess, pack, preview. dvc.yaml runs them."""

import os
from contextlib import suppress

import psutil

# Polars, which has yet to be imported, gives freed memory back at once: else a stage holds on to what it used once.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")

SHELLS = ("sh", "dash", "ash", "bash", "zsh", "ksh", "fish")


def started_by() -> list[int]:
    """The process that started this one; where that is a shell that waits, as dash does for DVC, the shell's too."""
    found = []
    with suppress(psutil.Error):
        process = psutil.Process()
        while process := process.parent():
            found.append(process.pid)
            if process.name() not in SHELLS:
                break
    return found


STARTED_BY = started_by()
"""Noted before the other imports take their time, while which DVC may be killed."""
