"""From which version of the template to which a repository goes, and what that changes in it."""

from dataclasses import dataclass, replace
from pathlib import Path

from imagepack.commands.update_plan import Plan
from imagepack.dvc import git, template
from imagepack.dvc.template import ANSWERS, RULES, Origin, Rules, Template
from imagepack.errors import InputError


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

    def places(self, root: Path) -> list[tuple[str, Path]]:
        """Return where the three versions of a file are: a commit and a repository each."""
        return [(self.old, self.source.folder), (self.new, self.source.folder), ("HEAD", root)]


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

    plan = Plan(
        old={path: content for path, content in old.items() if is_copied(path)},
        new={path: content for path, content in new.items() if is_copied(path)},
        here=here,
        workshop={path: content for path, content in old.items() if rules.excluded.match_file(path)},
        rules=rules,
    )
    return replace(plan, opaque=frozenset(path for path in plan.in_both if not is_text(root, step, path)))


def is_text(root: Path, step: Step, path: str) -> bool:
    """Whether git can merge a file by its lines: in no version has it a zero byte."""
    contents = (git.read_files([commit], path, folder)[0] or b"" for commit, folder in step.places(root))
    return not any(b"\0" in content for content in contents)
