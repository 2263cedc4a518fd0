"""Bring this repository a later version of the template: yours is merged, the template's own is replaced.

It prints what will change, changes it, and says which stages that reruns. Nothing is committed and nothing is run; your
data, dvc.lock and reports stay as they are. `git reset --hard` undoes all of it.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from imagepack.commands.update_merge import PARAMS, merge, stage, undone_if_stopped, write_schema
from imagepack.commands.update_plan import CHANGELOG, Pipeline, Plan, listed, news, reruns
from imagepack.commands.update_step import Step, find_step, make_plan
from imagepack.dvc import git, template
from imagepack.dvc.git import GitError
from imagepack.dvc.template import ANSWERS, Origin, Template
from imagepack.errors import InputError
from imagepack.names import visible_lines

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, in this folder; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        return update(Path.cwd(), options)
    except InputError as error:
        print(visible_lines(f"run.py update: {error}"), file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return that of the command line."""
    found = argparse.ArgumentParser(prog="python3 run.py update", description=__doc__)
    add = found.add_argument
    add(
        "--from",
        dest="address",
        help="where git finds the template; remembered in .copier-answers.yml",
        metavar="ADDRESS",
    )
    add("--to", dest="version", help="the version, v1.2.3; without it the newest", metavar="VERSION")
    add("--dry-run", action="store_true", help="only say what will change")
    edited = found.add_mutually_exclusive_group()
    edited.add_argument("--keep", action="store_true", help="merge your edits of the template's own files, too")
    edited.add_argument("--replace", action="store_true", help="drop them")
    return found


def update(root: Path, options: argparse.Namespace) -> int:
    """Update the repository in `root`; return the exit code.

    Raises:
        InputError: it cannot be, and nothing was changed.
    """
    require_clean(root)
    origin = Origin.read(root)
    address = options.address or origin.address
    if not address:
        raise InputError(
            f"{ANSWERS} does not say where the template is: once, python3 run.py update --from ADDRESS "
            "(what one would git clone)"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        step = find_step(root, origin, Template.fetch(address, Path(folder, "template")), options.version)
        remembered = Origin(step.version, template.without_password(address))
        if step.old == step.new:
            print(f"This repository has {step.version} of the template already.")
            return 0
        plan = make_plan(root, step)
        announce(root, step, plan, remembered.address)
        if plan.at_stake and not options.keep and not options.replace:
            raise InputError(edited_words(plan))
        require_room(root, plan)
        if options.dry_run:
            return 0
        with undone_if_stopped(root, plan):
            conflicts = merge(root, step, plan, options.replace)
            remembered.write(root / ANSWERS)
            write_schema(root)
            stage(root, conflicts)
    report(root, plan, step.version, conflicts)
    return 1 if conflicts else 0


def require_clean(root: Path) -> None:
    """Refuse a folder with changes that are not committed: to go back would lose them."""
    try:
        changed = git.run("status", "--porcelain", folder=root).decode("utf-8", "replace").splitlines()
    except GitError as error:
        raise InputError(f"this is no git repository: {error}") from None
    if not git.text("rev-parse", "--verify", "--quiet", "HEAD", folder=root):
        raise InputError("this repository has no commit yet: git add --all, git commit, then update")
    if changed:
        raise InputError(
            "there are changes that are not committed; commit them or put them aside (git stash -u), then update:\n  "
            + "\n  ".join(changed[:10] + [f"... and {len(changed) - 10} more"] * (len(changed) > 10))
        )


def announce(root: Path, step: Step, plan: Plan, address: str) -> None:
    """Say what will change."""
    source = step.source
    print(f"From {source.describe(step.old)} of the template to {step.version}, from {address}\n")
    before = Origin.parse(source.read(step.old, ANSWERS).decode()).version if ANSWERS in plan.old else ""
    since = template.number(before) if template.VERSION.fullmatch(before) else (0, 0, 0)
    for line in news(source.read(step.new, CHANGELOG).decode(), since, template.number(step.version)):
        print(line)
    print(f"\n{plan.words()}")
    if unchanged := [path for path in plan.edited if path not in plan.at_stake]:
        print(f"  the template's, edited here, not changed by the version: {listed(unchanged)}")


def edited_words(plan: Plan) -> str:
    """Say which edits would be lost, and how not to lose them."""
    return (
        "files that are the template's were edited here, and the version changes them too:\n  "
        + "\n  ".join(plan.at_stake)
        + "\nNothing was changed. python3 run.py update --keep merges your edits, --replace drops them (git has them "
        "in its history)"
    )


def require_room(root: Path, plan: Plan) -> None:
    """Refuse to put a file where one is that git does not have, and so could not give back."""
    taken = sorted(path for path in plan.new.keys() - plan.here.keys() if os.path.lexists(root / path))
    if taken:
        raise InputError(
            "the version brings files where some are that git ignores; move these away, then update:\n  "
            + "\n  ".join(taken)
        )


def report(root: Path, plan: Plan, version: str, conflicts: list[str]) -> None:
    """Say what became of it, what reruns, and how to go on or back."""
    if kept := [path for path in plan.orphaned if (root / path).exists()]:
        print(f"\nThe template has no longer {', '.join(kept)}: yours is kept.")
    if conflicts:
        print("\nYou and the template changed the same lines; choose in each of these, between <<<<<<< and >>>>>>>:")
        print("\n".join(f"  {path}" for path in conflicts))
        print(f"Then: git add {' '.join(conflicts)}")
    print(f"\n{reruns_words(root)}")
    print(
        "\nNext\n"
        "  git diff --cached                        # what has changed here\n"
        f'  git commit -m "Template {version}"          # to keep it; then python3 run.py\n'
        "  git reset --hard                         # to go back"
    )
    hooks = git.text("rev-parse", "--git-path", "hooks/pre-push", folder=root)
    if hooks and (root / hooks).exists():
        print("  python3 run.py hooks                     # git's hooks run a copy of the code: make a new one")


def reruns_words(root: Path) -> str:
    """Say which stages will run, and why."""
    names = ("dvc.yaml", PARAMS)
    try:
        before = Pipeline.parse(*(git.read_files(["HEAD"], name, root)[0] or b"" for name in names))
        after = Pipeline.parse(*((root / name).read_bytes() for name in names))
    except (OSError, ValueError):  # a conflict, or a file that the user has removed
        return "What reruns, and why: python3 run.py -- dvc status"
    found = reruns(before, after, git.lines("diff", "--cached", "--name-only", "--relative", folder=root))
    if not found:
        return "No stage reruns."
    return "What reruns, and why\n" + "\n".join(f"  {name}: {', '.join(reasons)}" for name, reasons in found.items())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
