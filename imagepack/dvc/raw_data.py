"""Whether data/raw holds the images that data/raw.dvc names, and if not, whether that is the user's doing.

`dvc repro` adds data/raw again where the two differ. That is right after a change of the images. After a `git pull` or
a `git checkout` that brought another data/raw.dvc, and after a pull that was stopped, it would put the old images, or
half of the new ones, in place of the version that git has, in silence.
"""

import os
from functools import cache
from pathlib import Path

from imagepack.dvc import git
from imagepack.dvc.lock_files import RAW_DVC

RAW = "data/raw"
PULLING = Path(".dvc/tmp/run-py-is-pulling")
"""A copy of data/raw.dvc, there while a pull of that version is unfinished."""
MERGING = Path(".dvc/tmp/run-py-is-merging")
"""data/raw.dvc as it was before a merge, there until the merge has come to its data/raw.dvc."""
TOOL = "python3 run.py --"
GET, KEEP = f"to get those: {TOOL} dvc pull", f"to make what is in {RAW} the next version: {TOOL} dvc add {RAW}"


def begin_pull(content: bytes | None = None) -> None:
    """Note that data/raw is not what the user wants until `end_pull`.

    Args:
        content: of data/raw.dvc, where git has yet to write it.
    """
    PULLING.parent.mkdir(parents=True, exist_ok=True)
    PULLING.write_bytes(RAW_DVC.read_bytes() if content is None else content)


def end_pull() -> None:
    """Forget that."""
    PULLING.unlink(missing_ok=True)


def begin_merge() -> None:
    """Note what data/raw holds, before git merges."""
    MERGING.parent.mkdir(parents=True, exist_ok=True)
    MERGING.write_bytes(RAW_DVC.read_bytes() if RAW_DVC.exists() else b"")


def end_merge() -> None:
    """Note, where a merge has brought another data/raw.dvc, that its images are yet to come."""
    if MERGING.exists() and RAW_DVC.exists() and RAW_DVC.read_bytes() != MERGING.read_bytes():
        begin_pull()
    forget_merge()


def forget_merge() -> None:
    """Forget it."""
    MERGING.unlink(missing_ok=True)


def is_half_pulled() -> bool:
    """Return whether a pull of the version that data/raw.dvc names has not come to its end."""
    return PULLING.exists() and RAW_DVC.exists() and PULLING.read_bytes() == RAW_DVC.read_bytes()


def is_behind() -> bool:
    """Return whether git has brought a version whose images were never here, and an earlier one's are unchanged."""
    named_is_known, here_is_known = _are_known() or (True, False)
    return here_is_known and not named_is_known


def doubt() -> str:
    """Return why it cannot be told which images are wanted, and what to do; empty if it can."""
    named_is_known, here_is_known = _are_known() or (True, False)
    if not named_is_known:
        return f"{RAW_DVC} names images that were never here (a git pull?), and {RAW} has others.\n  {GET}\n  {KEEP}"
    if (
        here_is_known
        and git.text("diff", "--name-only", "HEAD", "--", str(RAW_DVC)) == ""
        and _is_younger_than_images()
    ):
        return (
            f"{RAW} is an earlier version, unchanged, and {RAW_DVC} names another, which git has (a git checkout?).\n"
            f"  {GET}\n  {KEEP}"
        )
    return ""


def _is_younger_than_images() -> bool:
    """Whether data/raw.dvc was written after the last file came into data/raw or left it: then nobody went back there
    to an earlier version by hand, as by `quarantine --back`."""
    return RAW_DVC.stat().st_mtime_ns > max(Path(folder).stat().st_mtime_ns for folder, *_ in os.walk(RAW))


@cache  # for it looks at each image
def _are_known() -> tuple[bool, bool] | None:
    """None if data/raw is as data/raw.dvc says, or DVC has to say what is wrong; otherwise whether DVC's cache has the
    version that is named, and the one that is here. `dvc add` puts there what it adds."""
    if not RAW_DVC.exists() or not Path(RAW).exists():
        return None
    from imagepack.dvc import repository  # it takes a second to load DVC

    return repository.compare_with_workspace(RAW)
