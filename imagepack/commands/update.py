"""Bring this repository a later version of the template: yours is merged, the template's own is replaced.

It prints what will change, changes it, and says which stages that reruns. Nothing is committed and nothing is run; your
data, dvc.lock and reports stay as they are. `git reset --hard` undoes all of it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagepack.commands import update_params
from imagepack.commands.update_plan import CHANGELOG, Pipeline, Plan, listed, news, reruns
from imagepack.dvc import git, template
from imagepack.dvc.git import GitError
from imagepack.dvc.template import ANSWERS, RULES, Origin, Rules, Template
from imagepack.errors import InputError
from imagepack.names import visible_lines

SAMPLE, PARAMS = "/data/sample", "params.yaml"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
COPIERS_ANSWERS = Path(".dvc/tmp/template.yml")
"""What Copier is told of the template; git ignores it, so that the tree stays clean until Copier has looked."""


@dataclass(frozen=True)
class Step:
    """From one version of the template to another.

    Attributes:
        source: a clone of the template.
        old, new: commits of it.
        version: the new one's tag.
    """

    source: Template
    old: str
    new: str
    version: str


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


def find_step(root: Path, origin: Origin, source: Template, wanted: str | None) -> Step:
    """Return from where to where.

    Raises:
        InputError: there is no such version, it is an older one, or this is the template itself.
    """
    if not source.versions:
        raise InputError("there is no version of the template at that address: no tag such as v0.1.0")
    version = wanted or source.versions[-1]
    if version not in source.versions:
        raise InputError(f"the template has no version {version}; it has {', '.join(source.versions[-10:])}")
    first = git.lines("rev-list", "--max-parents=0", "HEAD", folder=root)
    if any(source.commit(commit) for commit in first):
        raise InputError("this is a clone of the template, with its history: git pull brings later versions")
    old, new = find_old(root, origin, source, first), source.commit(version)
    if old != new and source.is_older(new, old):
        raise InputError(f"this repository has {source.describe(old)} of the template, which is later than {version}")
    return Step(source, old, new, version)


def find_old(root: Path, origin: Origin, source: Template, first: list[str]) -> str:
    """Return the template's commit that this repository has.

    One that was made by "Use this template" began with just the files of a commit, which need not be a version.
    """
    for commit in first:
        said = git.read_files([commit, "HEAD"], ANSWERS, root)
        tree = git.text("rev-parse", f"{commit}:./", folder=root)
        if said[0] == said[1] and (same := source.commit_of_tree(tree)):  # and no update has been
            return same
    if found := source.commit(origin.version):
        return found
    raise InputError(
        f"the template has no {origin.version}, which {ANSWERS} says this repository has; it has "
        f"{', '.join(source.versions[-10:])}: write there the one that it was made from (_commit), and commit that"
    )


def make_plan(root: Path, step: Step) -> Plan:
    """Return what the step changes here."""
    rules, here = Rules.parse(step.source.read(step.new, RULES)), template.files(root)
    old, new = step.source.files(step.old), step.source.files(step.new)
    has_sample = any(path.startswith("data/sample/") for path in here)

    def is_copied(path: str) -> bool:
        return not rules.excluded.match_file(path) and (has_sample or not path.startswith("data/sample/"))

    return Plan(
        old={path: content for path, content in old.items() if is_copied(path)},
        new={path: content for path, content in new.items() if is_copied(path)},
        here=here,
        workshop={path: content for path, content in old.items() if rules.excluded.match_file(path)},
        rules=rules,
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
    lost = [path for path in plan.kept if not replace or plan.rules.is_yours(path)]
    conflicts = sorted({line.split("\t", 1)[1] for line in git.lines("ls-files", "--unmerged", folder=root)})
    whole = [path for path in conflicts if plan.rules.whole.match_file(path)]
    if lost or whole:  # Copier removes what the template removes, edited or not
        git.run("checkout", "--quiet", "HEAD", "--", *lost, *whole, folder=root)
    replaced = [path for path in plan.edited if replace and path in plan.new]
    for path in replaced:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(step.source.read(step.new, path))
    for path in plan.dropped:
        (root / path).unlink()
    remove_empty_folders(root, plan.dropped)
    settled = {*whole, *replaced, *([PARAMS] if PARAMS in conflicts and merge_params(root, step) else [])}
    return [path for path in conflicts if path not in settled]


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
    # no hook of the user's runs in the folders that Copier makes
    os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": os.devnull}
    has_sample = any(path.startswith("data/sample/") for path in plan.here)
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
        if (root / folder).is_dir() and not any((root / folder).iterdir()):
            (root / folder).rmdir()


def report(root: Path, plan: Plan, version: str, conflicts: list[str]) -> None:
    """Say what became of it, what reruns, and how to go on or back."""
    if kept := [path for path in plan.kept if (root / path).exists()]:
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
