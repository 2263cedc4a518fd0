"""Whether data/raw holds the images that data/raw.dvc names, and if not, whether that is the user's doing.

`dvc repro` adds data/raw again where the two differ. That is right after a change of the images. After a `git pull` or
a `git checkout` that brought another data/raw.dvc, and after a pull that was stopped, it would put the old images, or
half of the new ones, in place of the version that git has, in silence.
"""

import os
from contextlib import closing
from functools import cache
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from imagepack.dvc.git import git
from imagepack.images import manifest as manifests
from imagepack.images import raw_files

RAW, RAW_DVC, MANIFEST = "data/raw", Path("data/raw.dvc"), Path("data/validated/manifest.parquet")
PULLING = Path(".dvc/tmp/run-py-is-pulling")
"""There while a pull is unfinished; holds the data/raw.dvc that it is for. run.py makes one too."""
TOOL = "python3 run.py --"
GET, KEEP = f"to get those: {TOOL} dvc pull", f"to make what is in {RAW} the next version: {TOOL} dvc add {RAW}"


def begin_pull() -> None:
    """Note that data/raw is not what the user wants until `end_pull`."""
    PULLING.parent.mkdir(parents=True, exist_ok=True)
    PULLING.write_bytes(RAW_DVC.read_bytes())


def end_pull() -> None:
    """Forget that."""
    PULLING.unlink(missing_ok=True)


def is_half_pulled() -> bool:
    """Whether a pull of the version that data/raw.dvc names has not come to its end."""
    return PULLING.exists() and RAW_DVC.exists() and PULLING.read_bytes() == RAW_DVC.read_bytes()


def is_behind() -> bool:
    """Whether git has brought a version whose images were never here, and those of an earlier one are unchanged."""
    found = _compare()
    return found is not None and not found[0] and found[1]


def doubt() -> str:
    """Why it cannot be told which images are wanted, and what to do; empty if it can."""
    found = _compare()
    if found is None:
        return ""
    named_is_known, here_is_known = found
    if not named_is_known:
        return f"{RAW_DVC} names images that were never here (a git pull?), and {RAW} has others.\n  {GET}\n  {KEEP}"
    by_git = git("diff", "--name-only", "HEAD", "--", str(RAW_DVC)) == ""
    if here_is_known and by_git and _is_younger_than_images():
        return (
            f"{RAW} is an earlier version, unchanged, and {RAW_DVC} names another, which git has (a git checkout?).\n"
            f"  {GET}\n  {KEEP}"
        )
    return ""


def unvalidated() -> str:
    """Where the manifest is of other files than are in data/raw: that, and the fix; empty where they agree.

    To be asked where DVC holds validate for up to date: then `dvc repro` changes nothing.
    """
    if not MANIFEST.exists() or not Path(RAW).is_dir():
        return ""
    files, _ = raw_files.find(Path(RAW))
    new, gone = manifests.compare_files(MANIFEST, (raw_files.as_text(str(file)) for file in files))
    fix = f"{TOOL} dvc repro --force validate"
    for paths, what in ((new, f"of {RAW} is not in {MANIFEST}"), (gone, f"of {MANIFEST} is not in {RAW}")):
        if paths:
            return f"{len(paths)} file{'s' * (len(paths) != 1)} {what} ({', '.join(paths[:3])}): {fix}"
    return ""


def _is_younger_than_images() -> bool:
    """Whether data/raw.dvc was written after the last file came into data/raw or left it: then nobody went back there
    to an earlier version by hand, as by `quarantine --back`."""
    return RAW_DVC.stat().st_mtime_ns > max(Path(folder).stat().st_mtime_ns for folder, *_ in os.walk(RAW))


@cache  # for it looks at each image
def _compare() -> tuple[bool, bool] | None:
    """None if they agree, or DVC has to say what is wrong; otherwise whether DVC's cache has the version that is named,
    and the one that is here. `dvc add` puts there what it adds."""
    if not RAW_DVC.exists() or not Path(RAW).exists():
        return None
    try:
        with closing(Repo()) as repo:
            (out,) = repo.find_outs_by_path(RAW)
            here = out.get_hash()
            if not out.hash_info or here == out.hash_info:
                return None
            return repo.cache.local.exists(out.hash_info.value), repo.cache.local.exists(here.value)
    except (DvcException, OSError):
        return None
