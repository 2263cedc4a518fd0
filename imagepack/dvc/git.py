"""Ask git."""

import os
import subprocess
from pathlib import Path

DVC_FILES = [":(top,glob)**/*.dvc", ":(top,glob)**/dvc.lock", ":(top,glob)**/dvc.yaml"]
"""What says which data a version has."""


def git(*arguments: str, folder: Path | None = None, seconds: float = 60) -> str | None:
    """What git prints, without the last newline; None where it fails or takes longer."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            timeout=seconds,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # without a terminal ssh asks nothing
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None


def lines(*arguments: str, **options) -> list[str]:
    """The lines that git prints; none where it fails."""
    return (git(*arguments, **options) or "").splitlines()
