"""Which data was this? From a pack to the git revision and the params that made it, and from a digest to revisions."""

import json
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from imagepack.reader.format import PackError

REPORT, LOCK = "reports/pack.json", "dvc.lock"
STAGES = ("validate", "preprocess", "pack")
"""Whose params decide what is in a pack."""


@dataclass(frozen=True)
class Commit:
    """A git revision that has a pack.

    Attributes:
        commit: its hash, hexadecimal.
        date: YYYY-MM-DD, of the commit.
        subject: first line of its message.
        names: tags, branches and experiments that point to it: "tag v1", "branch main", "experiment small".
        digest: of its pack.
    """

    commit: str
    date: str
    subject: str
    names: list[str]
    digest: str


def of_folder(folder: Path, digest: str) -> dict:
    """{"revision": ..., "params": ...} of the commit that is checked out, if its pack has this digest; else None each.

    None too where there is no git or no repository.
    """
    project = _project(folder)
    try:
        commit = _git(project, "rev-parse", "HEAD").decode().strip()
        if _digest(_git(project, "show", f"{commit}:./{REPORT}")) == digest:
            return {"revision": commit, "params": params_of(_git(project, "show", f"{commit}:./{LOCK}"))}
    except (OSError, subprocess.CalledProcessError):
        pass
    return {"revision": None, "params": None}


def params_of(lock: bytes) -> dict | None:
    """The params that a dvc.lock says a pack was made with, by stage; None if it does not, or without PyYAML."""
    try:
        import yaml
    except ImportError:
        return None
    try:
        stages = yaml.safe_load(lock)["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        return None
    recorded = {name: stages.get(name, {}).get("params", {}).get("params.yaml", {}).get(name) for name in STAGES}
    return {name: params for name, params in recorded.items() if params is not None} or None


def whence(digest: str, repo: Path) -> list[Commit]:
    """The commits whose pack has a digest, newest first, among all that any branch, tag or experiment leads to.

    Four git processes, however many commits there are.

    Args:
        digest: hexadecimal, or how it begins.
        repo: of which reports/pack.json says what its pack is, in each commit.

    Raises:
        PackError: no git, or no git repository.
    """
    project = _project(repo)
    try:
        prefix = _git(project, "rev-parse", "--show-prefix").decode().strip()
        log = _git(project, "log", "--all", "--no-show-signature", "--format=%H%x09%cs%x09%s")
        commits = [line.split("\t", 2) for line in log.decode("utf-8", "replace").splitlines()]
        places = "".join(f"{commit}:{prefix}{REPORT}\n" for commit, *_ in commits)
        blobs = _git(project, "cat-file", "--batch-check=%(objectname)", input=places.encode()).decode().splitlines()
        digests = _digests(project, {blob for blob in blobs if not blob.endswith(" missing")})
        names = _names(project)
    except FileNotFoundError:
        raise PackError(f"there is no folder {repo}, or git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise PackError(f"{repo} cannot be read by git: {error.stderr.decode('utf-8', 'replace').strip()}") from None
    return [
        Commit(commit, date, subject, names[commit], found)
        for (commit, date, subject), blob in zip(commits, blobs, strict=True)
        if (found := digests.get(blob, "")).startswith(digest.lower()) and found
    ]


def _digests(project: Path, blobs: set[str]) -> dict[str, str]:
    """What each reports/pack.json says its pack's digest is."""
    answer, found = _git(project, "cat-file", "--batch", input="\n".join(blobs).encode()), {}
    position = 0
    while position < len(answer):  # "<hash> blob <size>\n<content>\n"
        line = answer.index(b"\n", position)
        blob, _, size = answer[position:line].decode().split(" ")
        position = line + 1 + int(size)
        found[blob] = _digest(answer[line + 1 : position]) or ""
        position += 1
    return found


def _digest(report: bytes) -> str | None:
    try:
        return json.loads(report)["digest"]
    except (ValueError, KeyError, TypeError):  # of a time when it had none, or not by the pack stage
        return None


def _names(project: Path) -> dict[str, list[str]]:
    """By commit: what points to it."""
    names = defaultdict(list)
    for line in _git(project, "for-each-ref", "--format=%(objectname) %(*objectname) %(refname)").decode().splitlines():
        commit, peeled, ref = line.split(" ", 2)
        match ref.split("/")[1:]:
            case ["tags", *name]:
                names[peeled or commit].append(f"tag {'/'.join(name)}")
            case ["heads", *name]:
                names[commit].append(f"branch {'/'.join(name)}")
            case ["remotes", *name] if name[-1] != "HEAD":
                names[commit].append(f"branch {'/'.join(name)}")
            case ["exps", first, rest, *name] if len(first) == 2 and len(rest) == 38:  # others are DVC's own
                names[commit].append(f"experiment {'/'.join(name)}")
    return names


def _project(folder: Path) -> Path:
    """The folder above (or this one) that has dvc.yaml; else `folder`."""
    folder = folder.absolute()
    return next((above for above in (folder, *folder.parents) if (above / "dvc.yaml").is_file()), folder)


def _git(folder: Path, *arguments: str, input: bytes | None = None) -> bytes:
    return subprocess.run(["git", "-C", folder, *arguments], input=input, capture_output=True, check=True).stdout
