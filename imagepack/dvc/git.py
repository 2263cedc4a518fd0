"""Ask git."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

DVC_FILES = [":(glob)**/*.dvc", ":(glob)**/dvc.lock", ":(glob)**/dvc.yaml"]
"""The files, from this folder on, that say which data a version has."""


class GitError(Exception):
    """Git refuses or takes too long; the message is what it says."""


class Reference(NamedTuple):
    """A name that leads to a commit."""

    commit: str
    kind: str  # tag, branch (also of a git remote) or experiment
    name: str


def run(*arguments: str, folder: Path | None = None, stdin: bytes = b"", seconds: float | None = None) -> bytes:
    """Return what git prints, run in `folder` or here; it may take some seconds, or any time.

    Raises:
        GitError: git fails.
        OSError: git is not installed, or there is no such folder.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            timeout=seconds,
            input=stdin,
            capture_output=True,
            start_new_session=True,  # without a terminal ssh asks nothing
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except subprocess.TimeoutExpired:
        raise GitError(f"git {arguments[0]} takes longer than {seconds} seconds") from None
    if done.returncode:
        raise GitError(done.stderr.decode("utf-8", "replace").strip())
    return done.stdout


def in_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run git where it may ask for a passphrase; return its exit code and what it prints, while errors are shown."""
    done = subprocess.run(["git", *arguments], stdout=subprocess.PIPE, env=os.environ | variables)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def text(*arguments: str, folder: Path | None = None, seconds: float = 60) -> str | None:
    """Return what git prints, without the last newline; None where it fails or takes longer."""
    try:
        printed = run(*arguments, folder=folder, seconds=seconds)
    except GitError:
        return None
    return printed.decode("utf-8", "surrogateescape").replace("\r\n", "\n").removesuffix("\n")


def lines(*arguments: str, **options) -> list[str]:
    """Return the lines that git prints; none where it fails."""
    return (text(*arguments, **options) or "").splitlines()


def references(folder: Path | None = None) -> list[Reference]:
    """Return all tags, branches and DVC experiments of a repository, None for this one.

    Raises:
        GitError, OSError: it cannot be read.
    """
    found = []
    listed = run("for-each-ref", "--format=%(objectname) %(*objectname) %(refname)", folder=folder)
    for line in listed.decode("utf-8", "replace").splitlines():
        commit, tagged, ref = line.split(" ", 2)
        match ref.split("/")[1:]:
            case ["tags", *name]:
                found.append(Reference(tagged or commit, "tag", "/".join(name)))
            case ["heads", *name]:
                found.append(Reference(commit, "branch", "/".join(name)))
            case ["remotes", *name] if name[-1] != "HEAD":
                found.append(Reference(commit, "branch", "/".join(name)))
            case ["exps", first, rest, *name] if len(first) == 2 and len(rest) == 38 and name:  # others are DVC's own
                found.append(Reference(commit, "experiment", "/".join(name)))
    return found


def read_files(commits: Sequence[str], path: str, folder: Path) -> list[bytes | None]:
    """Return a file as each commit has it, None where it has none: one git process, however many commits there are.

    Args:
        commits: hashes.
        path: of the file, in `folder`.
        folder: of the repository.

    Raises:
        GitError, OSError: the repository cannot be read.
    """
    return read_objects([f"{commit}:./{path}" for commit in commits], folder)


def read_objects(names: Sequence[str], folder: Path | None = None) -> list[bytes | None]:
    """Return the content of blobs, None of one that is not there: one git process, however many there are.

    Args:
        names: hashes, or as git names them otherwise (`main:./dvc.lock`).
        folder: of the repository; None for this one.

    Raises:
        GitError, OSError: the repository cannot be read.
    """
    asked = "".join(f"{name}\n" for name in names)
    answer, found, position = run("cat-file", "--batch", folder=folder, stdin=asked.encode()), [], 0
    for _ in names:  # "HASH blob SIZE\nCONTENT\n" or "NAME missing\n"
        end = answer.index(b"\n", position)
        size = answer[position:end].rpartition(b" ")[2]
        position = end + 1
        if size == b"missing":
            found.append(None)
            continue
        found.append(answer[position : position + int(size)])
        position += int(size) + 1
    return found


def are_here(hashes: Sequence[str]) -> list[bool]:
    """Return whether this repository has each object."""
    answer = run("cat-file", "--batch-check", stdin="".join(f"{name}\n" for name in hashes).encode())
    return [not line.endswith(b" missing") for line in answer.splitlines()]


def unmerged() -> dict[str, dict[int, str]]:
    """Return the files that git could not merge: path from this folder, and blob by stage (1 base, 2 ours, 3 theirs).

    A stage is missing where that side has no such file.
    """
    found: dict[str, dict[int, str]] = {}
    for line in filter(None, (text("ls-files", "--unmerged", "-z", "--", ":/") or "").split("\0")):
        (_, blob, stage), path = line.split("\t", 1)[0].split(), line.split("\t", 1)[1]
        found.setdefault(path, {})[int(stage)] = blob
    return found


def merge_file(ours: Path, base: Path, theirs: Path) -> None:
    """Merge two texts line by line into `ours`, with marks where they are in conflict."""
    names = ("-L", "ours", "-L", "base", "-L", "theirs")
    subprocess.run(["git", "merge-file", *names, ours, base, theirs], check=False)  # it returns how many there are


def other_side() -> str | None:
    """Return the name of what git is about to merge or apply (MERGE_HEAD, ...); None while it does not."""
    names = ("MERGE_HEAD", "REBASE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
    return next((name for name in names if text("rev-parse", "--verify", "--quiet", name)), None)
