"""dvc.yaml, dvc.lock and .dvc files, read without DVC, which takes a second to import."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from imagepack.dvc import git

PIPELINE, LOCK, RAW_DVC = Path("dvc.yaml"), Path("dvc.lock"), Path("data/raw.dvc")
UNREADABLE = (ImportError, ValueError, LookupError, TypeError, AttributeError)
"""What comes of a file that is damaged, or of none."""


@dataclass(frozen=True)
class Entry:
    """A file or folder that DVC knows: an output or a dependency.

    Attributes:
        path: in the repository, with `/`.
        md5: hexadecimal, of a folder with .dir behind; empty if it is not known.
        size: bytes, in all.
        files: how many a folder has; None of a file.
        is_legacy: whether the md5 is one of DVC before 3.0, which read the ends of lines of every system as the same.
        in_cache: whether DVC keeps it in its cache; dvc.lock does not say.
    """

    path: str
    md5: str = ""
    size: int = 0
    files: int | None = None
    is_legacy: bool = False
    in_cache: bool = True


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        command: as DVC has it, a line or several.
        deps, outs: what it reads and writes, in the order of the file.
        params: those that it depends on, by file.
    """

    command: str | list[str] | None = None
    deps: tuple[Entry, ...] = ()
    outs: tuple[Entry, ...] = ()
    params: dict[str, dict] = field(default_factory=dict)

    @property
    def code(self) -> tuple[Entry, ...]:
        """Dependencies that the command does not name, and scripts: what it runs, and on what."""
        return tuple(dep for dep in self.deps if dep.path not in str(self.command) or dep.path.endswith(".py"))


def read_pipeline(content: str | None = None) -> dict[str, dict]:
    """Return the stages of a dvc.yaml, that in this folder unless given, as they are written; none if it is damaged."""
    try:
        return dict(_parse(here(PIPELINE) if content is None else content)["stages"])
    except UNREADABLE:
        return {}


def outs_in_git(stage: dict) -> list[str]:
    """Return what a stage of `read_pipeline` writes that git keeps: outs, metrics and plots with `cache: false`."""
    outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind) or () if isinstance(out, dict)]
    paths = [path for out in outs for path, options in out.items() if options and options.get("cache") is False]
    return [PurePosixPath(stage.get("wdir", ""), path).as_posix() for path in paths]


def read_lock(content: str | bytes | None) -> dict[str, Stage]:
    """Return what a dvc.lock says of each stage; nothing where it is damaged or PyYAML is not installed."""
    try:
        return {name: _stage(written) for name, written in _parse(content)["stages"].items()}
    except UNREADABLE:
        return {}


def read_outs(content: str | bytes | None) -> list[Entry]:
    """Return what a .dvc file says of its files and folders; nothing where it is damaged or PyYAML is not installed."""
    try:
        return list(map(_entry, _parse(content)["outs"]))
    except UNREADABLE:
        return []


def read_md5s(path: str, content: str | bytes) -> list[str]:
    """Return the md5s of all outputs that a dvc.lock or .dvc file names; folders' end in .dir.

    Raises:
        ValueError: it is damaged.
    """
    try:
        written = _parse(content) or {}
        stages = written.get("stages", {}).values() if path.endswith(LOCK.name) else [written]
        return [out["md5"] for stage in stages for out in stage.get("outs", ()) if out.get("md5")]
    except UNREADABLE as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def read_import(content: str | bytes | None) -> dict[str, str] | None:
    """Return {"repo": address, "revision": commit} of what a .dvc file has by `dvc import`; None if it has it not so.

    A name and password in the address are left out.
    """
    try:
        (dep,) = _parse(content)["deps"]
        repo, commit = str(dep["repo"]["url"]), str(dep["repo"]["rev_lock"])
    except UNREADABLE:
        return None
    return {"repo": re.sub("://[^/@]*@", "://", repo), "revision": commit}


def read_source(content: str | bytes | None) -> str:
    """Return the address that a .dvc file has its data from by `dvc import-url`; empty if it has not."""
    try:
        (dep,) = _parse(content)["deps"]
        return "" if "repo" in dep else str(dep["path"])
    except UNREADABLE:
        return ""


def changed_beside_bucket(content: str | bytes | None) -> str:
    """Return the address of the bucket that a .dvc file leaves all data in (`import-url --version-aware`), if the
    folder here has other files by now, by their number and bytes; DVC pushes none of them. Empty otherwise.
    """
    try:
        parsed = _parse(content)
        (dep,), (out,) = parsed["deps"], parsed["outs"]
        there = dep["files"]
        same = len(there) == out["nfiles"] and sum(file["size"] for file in there) == out["size"]
        return "" if same or out.get("push", True) else str(dep["path"])
    except UNREADABLE:
        return ""


def here(path: Path = LOCK) -> str:
    """Return the text of one of these files; empty if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def faults() -> list[str]:
    """Return what is wrong with dvc.lock and data/raw.dvc here, each with the fix.

    DVC writes them in place, and leaves them empty or cut where it is killed just then; git, with conflicts. With such
    a dvc.lock it runs nothing. An empty data/raw.dvc it takes for no data, in silence.
    """
    found, unmerged = [], git.unmerged()
    for path in (LOCK, RAW_DVC):
        if not path.is_file():
            continue
        if path.as_posix() in unmerged:
            found.append(f"{path} has a merge conflict: python3 run.py merges it, or says what is left to do")
        elif re.search("^<{7} ", here(path), re.MULTILINE):
            if git.other_side():
                fix = f"git checkout --merge -- {path}"
            else:
                fix = f"git checkout COMMIT -- {path}, of a commit before" if path == RAW_DVC else f"rm {path}"
            found.append(f"git took {path} for merged with a merge conflict in it: {fix}, then python3 run.py")
        elif not _is_whole(path, here(path)):
            has_git = _is_whole(path, git.text("show", f"HEAD:./{path.as_posix()}") or "")
            fix = f"git checkout HEAD -- {path}" if has_git else f"rm {path}"
            found.append(f"{path} is damaged, as DVC leaves it when killed while it writes: {fix}, then python3 run.py")
    return found


def _is_whole(path: Path, content: str) -> bool:
    """Whether DVC can read it. One that is cut where that leaves it valid is out of date, and the next run mends it."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    if path == RAW_DVC:
        return "outs:" in content
    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(content, str(path)))
    except (YAMLFileCorruptedError, Invalid):
        return False
    return True


def _parse(content: str | bytes | None) -> dict:
    import yaml  # not every user of the reader has it

    try:
        # libyaml's, where PyYAML was built with it: ten times as fast
        return yaml.load(content or b"", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _stage(written: dict) -> Stage:
    deps, outs = (tuple(map(_entry, written.get(key, ()))) for key in ("deps", "outs"))
    return Stage(written.get("cmd"), deps, outs, written.get("params", {}))


def _entry(written: dict) -> Entry:
    md5 = written.get("md5") or ""
    return Entry(written["path"], md5, written.get("size", 0), written.get("nfiles"), "hash" not in written)
