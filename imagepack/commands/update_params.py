"""Merge two edits of params.yaml that git finds too close to each other: here a value, there the comment above it."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from imagepack.dvc import git
from imagepack.dvc.git import GitError

BETWEEN = "#:\n"
"""Put between lines, it keeps edits of neighbouring lines apart."""
ABSENT = object()


def merge(old: str, here: str, new: str) -> str | None:
    """Return what params.yaml is to be; None where both have changed the same value, or the same comment.

    Args:
        old: of the template's version from which `here` and `new` were made.
        here: the user's.
        new: of the template's later version.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("here", "old", "new")]
        for file, text in zip(files, (here, old, new), strict=True):
            file.write_text("".join(f"{line}\n{BETWEEN}" for line in text.splitlines()), encoding="utf-8", newline="\n")
        try:
            printed = git.run("merge-file", "--stdout", *map(str, files)).decode("utf-8")
            text = printed.replace(BETWEEN, "")
            expected = merge_values(*(yaml.safe_load(text) for text in (old, here, new)))
            return text if yaml.safe_load(text) == expected else None
        except (GitError, ValueError, yaml.YAMLError):
            return None


def merge_values(old: Any, here: Any, new: Any) -> Any:
    """Return the values that a merge is to have.

    Raises:
        ValueError: both have changed the same one.
    """
    if here in (old, new):
        return new
    if new == old:
        return here
    if not all(isinstance(value, dict) for value in (old, here, new)):
        raise ValueError
    keys = dict.fromkeys([*new, *here])
    merged = {key: merge_values(*(values.get(key, ABSENT) for values in (old, here, new))) for key in keys}
    return {key: value for key, value in merged.items() if value is not ABSENT}
