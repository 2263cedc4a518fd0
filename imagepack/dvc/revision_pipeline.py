"""The pipeline of any git revision or of the workspace, as DVC has it: stages, changes, metrics, the commit."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path, PurePosixPath

from imagepack.dvc.lock_files import Entry, Stage
from imagepack.dvc.revision_files import RevisionFiles

PIPELINE = "dvc.yaml"


class Unreadable(Exception):
    """DVC cannot read dvc.yaml or dvc.lock; the message is the first line of what it says."""


class RevisionPipeline:
    """What dvc.yaml, dvc.lock and .dvc files of a version say together.

    Attributes:
        root: the repository's folder; of the workspace, the folder of its .dvc.
    """

    def __init__(self, files: RevisionFiles) -> None:
        """Load nothing yet.

        Args:
            files: of the version.
        """
        self._repo = files.connected().repo
        self._commit = files.commit
        self.has_dvc = bool(self._repo.dvc_dir)

    @property
    def root(self) -> Path:
        if not self._commit:
            return Path(self._repo.root_dir)
        return Path(self._repo.scm.root_dir, self._repo.root_dir.strip("/"))

    @cached_property
    def _stages(self) -> dict:
        """DVC's own, by name."""
        from dvc.exceptions import DvcException

        try:
            found = self._repo.index.stages
        except DvcException as error:
            raise Unreadable(str(error).splitlines()[0]) from None
        return {stage.name: stage for stage in found if stage.path_in_repo == PIPELINE}

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Stages by name; params are left out.

        Raises:
            Unreadable: DVC cannot read them.
        """
        return {
            name: Stage(stage.cmd, tuple(map(_entry, stage.deps)), tuple(map(_entry, stage.outs)))
            for name, stage in self._stages.items()
        }

    @cached_property
    def outs(self) -> dict[str, Entry]:
        """What the version tracks, by path: outputs of stages, and what `dvc add` added."""
        return {entry.path: entry for entry in map(_entry, self._repo.index.outs)}

    def is_folder(self, entry: Entry) -> bool:
        """Return whether it is one: dvc.lock says so, else it is seen in the workspace."""
        return entry.md5.endswith(".dir") or (not self._commit and (self.root / entry.path).is_dir())

    def changed_commands(self, names: Sequence[str]) -> list[str]:
        """Return those of these stages whose command in dvc.yaml is not the one of dvc.lock."""
        return [name for name in names if self._stages[name].cmd_changed]

    def changed_files(self, names: Sequence[str]) -> list[str]:
        """Return the files, and folders of code, that have changed in the workspace since these stages ran.

        DVC remembers what it has hashed, so that only those are read that are new or newer.
        """
        deps = [(_entry(dep), dep, self.stages[name].code) for name in names for dep in self._stages[name].deps]
        own = [(entry, dep) for entry, dep, code in deps if entry in code or not self.is_folder(entry)]
        own = [(entry.path, dep) for entry, dep in own if entry.path not in self.outs]
        return list(dict.fromkeys(path for path, dep in own if dep.workspace_status()))

    def has_changed(self, path: str) -> bool:
        """Return whether something that DVC tracks is in the workspace and other than when it was added."""
        out = next((out for out in self._repo.index.outs if _path(out) == path), None)
        return bool(out and out.exists and out.workspace_status())

    def metrics(self) -> tuple[dict[str, dict[str, float]], list[str]]:
        """Return all that DVC knows as metrics, without files that are not there; and what is wrong, a sentence each.

        By file: number by dotted name.
        """
        found, faults = {}, []
        for result in self._repo.metrics.show(hide_workspace=False).values():
            if "error" in result:
                faults.append(f"DVC cannot read the metrics ({result['error']}): mend their files")
            for path, content in result.get("data", {}).items():
                if numbers := dict(_numbers(content.get("data", {}))):
                    found[Path(path).as_posix()] = numbers
                elif "error" in content and not isinstance(content["error"], FileNotFoundError):
                    reason = next(iter(str(content["error"]).splitlines()), "") or type(content["error"]).__name__
                    faults.append(f"the metrics in {Path(path).as_posix()} cannot be read ({reason}): mend the file")
        return dict(sorted(found.items())), faults

    def commit(self) -> tuple[str | None, str | None, str | None]:
        """Return its hash, date (YYYY-MM-DD) and subject; None each of the workspace."""
        if not self._commit:
            return None, None, None
        commit = self._repo.scm.resolve_commit(self._commit)
        zone = timezone(timedelta(seconds=commit.commit_time_offset))
        date = datetime.fromtimestamp(commit.commit_time, UTC).astimezone(zone).date()
        return self._commit, date.isoformat(), next(iter(commit.message.strip().splitlines()), "")


def _entry(out) -> Entry:
    """From an output or dependency of DVC's."""
    info, meta = out.hash_info, out.meta
    md5 = info.value if info and isinstance(info.value, str) else ""
    is_legacy = bool(info and info.name and info.name.endswith("dos2unix"))
    return Entry(_path(out), md5, meta.size or 0, meta.nfiles, is_legacy, bool(out.use_cache))


def _path(out) -> str:
    """In the repository, with `/`."""
    return PurePosixPath(*out.fs.relparts(out.fs_path, out.repo.root_dir)).as_posix()


def _numbers(content, name: str = "") -> Iterator[tuple[str, float]]:
    """Dotted name and value; what JSON has no number for is left out."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content):
        yield name or "value", content
