"""What a later version of the template changes in a repository, file by file, and which stages that reruns."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import yaml

from imagepack.dvc.template import ANSWERS, Rules

CHANGELOG = "CHANGELOG.md"
SHOWN = 12
"""How many files of a kind are named."""


@dataclass(frozen=True)
class Plan:
    """Three versions of every file, by path: the hash of its content.

    Attributes:
        old, new: the template's, of the version that the repository has and of the one it gets, without the workshop.
        here: the repository's.
        workshop: the template's that a dataset's repository does not need, of the old version.
        rules: whose a file is.
        opaque: files that both have changed, and that are no text, so that they cannot be merged.
    """

    old: dict[str, str]
    new: dict[str, str]
    here: dict[str, str]
    workshop: dict[str, str]
    rules: Rules
    opaque: frozenset[str] = frozenset()

    @property
    def changed(self) -> list[str]:
        """Files that the version adds, changes or removes."""
        return sorted(path for path in self.old.keys() | self.new.keys() if self._changes(path))

    @property
    def edited(self) -> list[str]:
        """The template's own files that somebody has edited, or put where the version puts one."""
        ours = (path for path in self.old.keys() | self.new.keys() if not self.rules.is_yours(path))
        return sorted(path for path in ours if self._differs(path))

    @property
    def at_stake(self) -> list[str]:
        """Those of them that the version changes as well."""
        return [path for path in self.edited if path in self.in_both]

    @property
    def in_both(self) -> list[str]:
        """Files that both have changed, each in another way."""
        return [path for path in self.changed if self._differs(path) and self.here[path] != self.new.get(path)]

    @property
    def mergeable(self) -> list[str]:
        """Those that can be merged."""
        return [path for path in self.in_both if path in self.new and path not in self.opaque]

    @property
    def orphaned(self) -> list[str]:
        """Those that the version no longer has."""
        return [path for path in self.in_both if path not in self.new]

    @property
    def unchanged(self) -> list[str]:
        """Files that were edited, and that the version does not change."""
        paths = self.old.keys() & self.new.keys() & self.here.keys()
        return sorted(path for path in paths if self._differs(path) and not self._changes(path))

    @property
    def gone(self) -> list[str]:
        """Files that the version changes and that somebody has removed or renamed."""
        return [path for path in self.changed if path in self.old and path in self.new and path not in self.here]

    @property
    def dropped(self) -> list[str]:
        """Files of the workshop that are here, as the template has them."""
        return sorted(path for path, content in self.workshop.items() if self.here.get(path) == content)

    def _changes(self, path: str) -> bool:
        return self.old.get(path) != self.new.get(path) and path != ANSWERS

    def _differs(self, path: str) -> bool:
        """Whether it is here, and is not the old version's."""
        return path in self.here and self.here[path] != self.old.get(path)

    def words(self) -> str:
        """What will change, a line for each kind of change."""
        plain = [path for path in self.changed if not self._differs(path)]
        both = [path for path in plain if path in self.old and path in self.new and path in self.here]
        rows = {
            "replaced": [path for path in both if not self.rules.is_yours(path)],
            "yours, unedited, replaced": [path for path in both if self.rules.is_yours(path)],
            "yours, merged": [path for path in self.mergeable if self.rules.is_yours(path)],
            "yours, no text, kept as they are": sorted(filter(self.rules.is_yours, self.opaque)),
            "new": [path for path in plain if path not in self.old and path not in self.here],
            "removed": [path for path in plain if path not in self.new and path in self.here],
            "removed or renamed here, so not brought": self.gone,
            "the template's, removed": self.dropped,
        }
        lines = [f"  {kind}: {listed(paths)}" for kind, paths in rows.items() if paths]
        return "\n".join(["What will change", *(lines or ["  no file of yours or of the template's"])])


def listed(paths: list[str]) -> str:
    """Name a few files one by one, many by their folders."""
    if len(paths) <= SHOWN:
        return ", ".join(paths)
    folders = Counter(f"{path.split('/')[0]}/" if "/" in path else path for path in paths)
    return ", ".join(f"{name} ({count} files)" if name.endswith("/") else name for name, count in folders.items())


def news(changelog: str, since: tuple[int, ...], until: tuple[int, ...]) -> list[str]:
    """Return what the changelog says of each version after `since`: its heading, and what it reruns and changes.

    Args:
        changelog: with a heading `## X.Y.Z - date` for each version, and in each an entry `- **Reruns**: ...`.
        since, until: numbers of two versions.
    """
    found = []
    for heading, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE):
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", heading)
        if numbers and since < tuple(map(int, numbers.groups())) <= until:
            entries = re.findall(r"^- \*\*Reruns\*\*: (.+(?:\n  .+)*)", body, re.MULTILINE)
            found.append(f"{heading}: " + " ".join(" ".join(entries).split() or ["see CHANGELOG.md there"]))
    return found


@dataclass(frozen=True)
class Pipeline:
    """dvc.yaml and params.yaml of a version."""

    stages: dict[str, dict]
    params: dict

    @classmethod
    def parse(cls, pipeline: bytes, params: bytes) -> "Pipeline":
        """Return that of two files.

        Raises:
            ValueError: they cannot be read, as after a conflict.
        """
        try:
            return cls(dict(yaml.safe_load(pipeline)["stages"]), dict(yaml.safe_load(params)))
        except (yaml.YAMLError, TypeError, KeyError) as error:
            raise ValueError(str(error)) from None


def reruns(before: Pipeline, after: Pipeline, changed: Iterable[str]) -> dict[str, list[str]]:
    """Return the stages that `dvc repro` will run, each with the reasons.

    Args:
        before, after: the update.
        changed: files that it changes.
    """
    changed, found = list(changed), {}
    for name, stage in after.stages.items():
        was = before.stages.get(name)
        if was is None:
            found[name] = ["it is new"]
            continue
        deps = [dep for dep in stage.get("deps", ()) if any(is_in(path, dep) for path in changed)]
        given = [dep for dep in stage.get("deps", ()) if dep not in was.get("deps", ())]
        keys = [key for key in stage.get("params", ()) if value(after.params, key) != value(before.params, key)]
        command = ["its command"] * (stage.get("cmd") != was.get("cmd"))
        if reasons := [*dict.fromkeys([*command, *deps, *given, *keys])]:
            found[name] = reasons
    for name, stage in after.stages.items():  # in the order of the file, in which one follows what it reads
        first = [other for other in found if set(stage.get("deps", ())) & outs(after.stages[other]) and other != name]
        if first and name not in found:
            found[name] = [f"if the result of {' or '.join(first)} changes"]
    return found


def outs(stage: dict) -> set[str]:
    """Return the paths that a stage of dvc.yaml writes."""
    listed = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())]
    return {next(iter(out)) if isinstance(out, dict) else out for out in listed}


def value(params: dict, key: str):
    """Return what params.yaml has at a key such as `preprocess.size`; None without it."""
    found = params
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def is_in(path: str, dep: str) -> bool:
    """Whether a file is a dep, or lies in it."""
    return PurePosixPath(path).is_relative_to(dep)
