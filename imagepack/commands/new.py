"""Make a dataset's repository: the template without its workshop, the first commit made, ready for your images."""

import argparse
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from imagepack.dvc import git, template
from imagepack.dvc.git import GitError
from imagepack.dvc.template import ANSWERS, RULES, Origin
from imagepack.errors import InputError
from imagepack.names import visible_lines

ROOT = Path(__file__).resolve().parents[2]
RAW, SAMPLE = "data/raw", "/data/sample"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 run.py new", description=__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="where; it must be empty, or not be there")
    parser.add_argument("--sample", action="store_true", help="with the sample images, to try it")
    options = parser.parse_args(arguments)
    try:
        print(make(ROOT, options.folder.absolute(), options.sample))
    except InputError as error:
        print(visible_lines(f"run.py new: {error}"), file=sys.stderr)
        return 1
    return 0


def make(root: Path, folder: Path, sample: bool) -> str:
    """Make a repository in `folder` from the last commit of the template in `root`; return what to do next.

    Raises:
        InputError: it cannot be, and nothing was made.
    """
    require_template(root)
    require_place(folder)
    require_name(root)
    origin = origin_of(root)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}") from None
    try:
        copy(root, beside, sample)
        origin.write(beside / ANSWERS)
        commit(beside, origin.version)
        folder.mkdir(exist_ok=True)
        for entry in beside.iterdir():
            entry.rename(folder / entry.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return words(root, folder, origin, sample)


def require_template(root: Path) -> None:
    """Refuse to copy a dataset's repository."""
    tracked = template.files(root) if git.text("rev-parse", "--verify", "HEAD", folder=root) else {}
    if RULES not in tracked or f"{RAW}.dvc" in tracked:
        address = Origin.read(root).address or "ADDRESS"
        raise InputError(
            "this is a dataset's repository, not the template: in a clone of that (git clone "
            f"{address}), run python3 run.py new DIR"
        )


def require_place(folder: Path) -> None:
    """Refuse a folder that holds something, or lies in another repository."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder that is empty, or is not there")
    if folder.is_dir() and (found := sorted(entry.name for entry in folder.iterdir())):
        names = ", ".join(found[:5]) + ", ..." * (len(found) > 5)
        raise InputError(f"{folder} is not empty ({names}): name a folder that is empty, or is not there")
    above = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    if top := git.text("rev-parse", "--show-toplevel", folder=above):
        raise InputError(f"{folder} lies in the git repository {top}: name a folder outside of it")


def require_name(root: Path) -> None:
    """Refuse where git would not know who commits."""
    if git.text("var", "GIT_COMMITTER_IDENT", folder=root.parent) is None:
        raise InputError(
            "git does not know who you are, and makes no commit: git config --global user.name NAME, and "
            "git config --global user.email ADDRESS"
        )


def origin_of(root: Path) -> Origin:
    """Return which version `root` has checked out, and from where: its origin or, without one, that folder."""
    version = git.text("describe", "--tags", "--exact-match", "--match=v*", folder=root)
    return Origin(
        version if version and template.VERSION.fullmatch(version) else git.text("rev-parse", "HEAD", folder=root),
        git.text("remote", "get-url", "origin", folder=root) or str(root),
    )


def copy(root: Path, folder: Path, sample: bool) -> None:
    """Let Copier copy what copier.yml does not exclude."""
    import copier  # half a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a shallow clone will do
        copier.run_copy(
            str(root),
            folder,
            vcs_ref=git.text("rev-parse", "HEAD", folder=root),
            exclude=[] if sample else [SAMPLE],
            defaults=True,
            quiet=True,
            skip_tasks=True,
        )
    (folder / RAW).mkdir(parents=True) if not sample else None


def commit(folder: Path, version: str) -> None:
    """Make it a repository with one commit."""
    try:
        git.run("init", "--quiet", "--initial-branch=main", folder=folder)
        git.run("add", "--all", folder=folder)
        git.run("commit", "--quiet", f"--message=Made from the image dataset template, {version}", folder=folder)
    except GitError as error:
        raise InputError(f"git makes no commit: {error}") from None


def words(root: Path, folder: Path, origin: Origin, sample: bool) -> str:
    """Say what was made and what to do next."""
    left_out = git.lines("status", "--porcelain", folder=root)
    note = "\nWhat is not committed in the template was left out." if left_out else ""
    images = "" if sample else f"  put your images into {RAW}/CLASS/    # a folder for each class\n"
    return (
        f"Made {folder} from the template, {origin.version}: {len(template.files(folder))} files, one commit.{note}\n\n"
        f"Next\n  cd {folder}\n{images}"
        "  python3 run.py                          # checks, packs and stores them\n"
        "  python3 run.py test                     # does your pipeline do what you think?\n"
        "README.md and LICENSE, CITATION.cff and SECURITY.md speak of the template: let them speak of your dataset."
    )


if __name__ == "__main__":
    sys.exit(main())
