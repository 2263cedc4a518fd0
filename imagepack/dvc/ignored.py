"""What DVC passes over when it walks a folder."""

from collections.abc import Callable
from pathlib import Path

from pathspec import GitIgnoreSpec

RULES = Path(".dvcignore")
WITHOUT_RULE = (".hg/", ".git/", ".git")
"""What DVC passes over without a rule; raw_files refuses what it makes of a .dvc."""


def ignored_by_dvc() -> Callable[[str], bool]:
    """Return a function that says whether DVC passes over a path, by itself or because .dvcignore says so."""
    lines = RULES.read_text(encoding="utf-8").splitlines() if RULES.exists() else []
    return GitIgnoreSpec.from_lines([*WITHOUT_RULE, *lines]).match_file
