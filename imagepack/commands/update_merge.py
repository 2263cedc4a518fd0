"""Change a repository's files to those of a later version of the template, by Copier; or none of them."""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagepack.commands import update_params
from imagepack.commands.update_plan import Plan
from imagepack.commands.update_step import Step
from imagepack.dvc import git
from imagepack.dvc.git import GitError
from imagepack.dvc.template import ANSWERS, Origin
from imagepack.errors import InputError

SAMPLE, PARAMS = "/data/sample", "params.yaml"
MARKS = ("before updating", "after updating")
"""What Copier too calls the user's and the new version's lines of a conflict."""
COPIERS_ANSWERS = Path(".dvc/tmp/template.yml")
"""What Copier is told of the template; git ignores it, so that the tree stays clean until Copier has looked."""
NO_HOOKS = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": os.devnull}
"""For git: no hook of the user's runs in the folders that Copier makes."""


@contextmanager
def undone_if_stopped(root: Path, plan: Plan) -> Iterator[None]:
    """Give the files back as they were if what is done here ends before its end.

    Raises:
        InputError: git or Copier cannot do it; what they say.
    """
    try:
        yield
    except BaseException as error:
        for path in plan.new.keys() - plan.here.keys():
            (root / path).unlink(missing_ok=True)
            (root / f"{path}.rej").unlink(missing_ok=True)
        git.run("reset", "--quiet", "--hard", "HEAD", folder=root)
        if isinstance(error, Exception):
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"the versions could not be merged ({said[-1]}); all is as it was") from error
        print("\nrun.py update: stopped; all is as it was", file=sys.stderr)
        raise


def merge(root: Path, step: Step, plan: Plan, replace: bool) -> list[str]:
    """Change the files here, by Copier; return those in which the user has to choose."""
    run_copier(root, step, plan)
    conflicts = [path for path in plan.mergeable if not merge_text(root, step, path)]
    whole = [path for path in conflicts if plan.rules.whole.match_file(path)]
    # Copier removes what the template removes, edited or not, and overwrites what is no text
    if mine := [*plan.orphaned, *plan.unchanged, *plan.opaque, *whole]:
        git.run("checkout", "--quiet", "HEAD", "--", *mine, folder=root)
    replaced = plan.edited if replace else []
    for path in replaced:
        if path in plan.new:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(step.source.read(step.new, path))
        else:
            (root / path).unlink()
    for path in plan.dropped:
        (root / path).unlink()
    remove_empty_folders(root, plan.dropped)
    settled = {*whole, *replaced, *([PARAMS] if PARAMS in conflicts and merge_params(root, step) else [])}
    return [path for path in conflicts if path not in settled]


def merge_text(root: Path, step: Step, path: str) -> bool:
    """Merge the three versions of a text as git does; whether there are no conflicts.

    Copier applies the user's edits as a patch, which drops bytes that are not UTF-8, and which may fit in two places.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder, name)) for name in ("old", "new", "here")]
        for name, (commit, repository) in zip(names, step.places(root), strict=True):
            Path(name).write_bytes(git.read_files([commit], path, repository)[0] or b"")
        old, new, here = names
        try:
            git.run("merge-file", "-L", MARKS[0], "-L", "last update", "-L", MARKS[1], here, old, new)
            clean = True
        except GitError:  # so many conflicts, all of which are in the file
            clean = False
        merged = Path(here).read_bytes()
    if not clean and MARKS[0].encode() not in merged:
        raise InputError(f"git cannot merge {path}")
    (root / path).write_bytes(merged)
    return clean


def merge_params(root: Path, step: Step) -> bool:
    """Write a params.yaml in which git has found conflicts, if there are none; whether that was so."""
    texts = step.source.read(step.old, PARAMS), git.run("show", f"HEAD:./{PARAMS}", folder=root)
    merged = update_params.merge(*(text.decode() for text in (*texts, step.source.read(step.new, PARAMS))))
    if merged is not None:
        (root / PARAMS).write_text(merged, encoding="utf-8", newline="\n")
    return merged is not None


def run_copier(root: Path, step: Step, plan: Plan) -> None:
    """Let Copier merge the two versions of the template and what is here."""
    import copier  # half a second

    answers = root / COPIERS_ANSWERS
    answers.parent.mkdir(parents=True, exist_ok=True)
    Origin(step.old, str(step.source.folder)).write(answers)
    has_sample, before = any(path.startswith("data/sample/") for path in plan.here), dict(os.environ)
    os.environ.update(NO_HOOKS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copier.run_update(
                dst_path=root,
                answers_file=COPIERS_ANSWERS,
                vcs_ref=step.new,
                exclude=[f"/{ANSWERS}", *([] if has_sample else [SAMPLE])],
                overwrite=True,
                defaults=True,
                quiet=True,
                skip_tasks=True,
            )
    finally:
        os.environ.clear()
        os.environ.update(before)
        answers.unlink(missing_ok=True)


def write_schema(root: Path) -> None:
    """Make params.schema.json of the merged stages, if they can be run by what is installed; else the next run does."""
    subprocess.run([sys.executable, "-m", "imagepack.commands.schema"], cwd=root, capture_output=True)


def stage(root: Path, conflicts: list[str]) -> None:
    """Put all but the conflicts into git's index, so that `git reset --hard` takes new files away too."""
    git.run("add", "--all", "--", ".", *(f":(exclude,literal){path}" for path in conflicts), folder=root)


def remove_empty_folders(root: Path, paths: list[str]) -> None:
    """Remove the folders that those files were in, where nothing is left in them."""
    folders = {folder for path in paths for folder in Path(path).parents if folder.name}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):  # it holds something
            (root / folder).rmdir()
