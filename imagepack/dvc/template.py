"""The template that a repository was made from: its versions, their files, and which of these are whose.

A version is a git tag, vX.Y.Z. `.copier-answers.yml` says which one a repository has, copier.yml whose a file is.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import yaml
from pathspec import GitIgnoreSpec

from imagepack.dvc import git
from imagepack.dvc.git import GitError
from imagepack.errors import InputError

ANSWERS, RULES = ".copier-answers.yml", "copier.yml"
HEADER = """\
# Which version of the template this is, and where later ones come from: `python3 run.py update` reads and writes it.
"""
VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
SECONDS = 600
"""How long a template may take to come."""


@dataclass(frozen=True)
class Origin:
    """What `.copier-answers.yml` says.

    Attributes:
        version: a tag or commit of the template.
        address: where git finds the template; empty if it is not known.
    """

    version: str
    address: str = ""

    @classmethod
    def read(cls, folder: Path) -> "Origin":
        """Read that of the repository in `folder`.

        Raises:
            InputError: there is none, or it names no version.
        """
        path = folder / ANSWERS
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{ANSWERS} must say which version of the template this repository has (_commit: v0.1.0): {error}"
            ) from None

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """Return what a file of this text says.

        Raises:
            ValueError: it is no such file.
        """
        try:
            said = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"it is not YAML: {error}") from None
        if not isinstance(said, dict) or not said.get("_commit"):
            raise ValueError("it has no _commit")
        return cls(str(said["_commit"]), str(said.get("_src_path") or ""))

    def write(self, path: Path) -> None:
        """Write the file, without a password that the address may have: it is committed."""
        said = {"_commit": self.version} | ({"_src_path": without_password(self.address)} if self.address else {})
        path.write_text(HEADER + yaml.safe_dump(said), encoding="utf-8", newline="\n")


def without_password(address: str) -> str:
    """Return an address as anybody may see it."""
    parts = urlsplit(address)
    if not parts.scheme.startswith("http") or "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@dataclass(frozen=True)
class Rules:
    """Whose a file is, by its path, as copier.yml says."""

    excluded: GitIgnoreSpec
    yours: GitIgnoreSpec
    whole: GitIgnoreSpec

    @classmethod
    def parse(cls, text: bytes) -> "Rules":
        """Return those of a copier.yml."""
        said = yaml.safe_load(text) or {}
        keys = ("_exclude", "_yours", "_yours_as_a_whole")
        return cls(*(GitIgnoreSpec.from_lines(said.get(key, ())) for key in keys))

    def is_yours(self, path: str) -> bool:
        """Whether it is the user's, and an update merges it."""
        return self.yours.match_file(path) or self.whole.match_file(path)


@dataclass(frozen=True)
class Template:
    """A clone of the template that has its history and tags.

    Attributes:
        folder: of the clone.
    """

    folder: Path

    @classmethod
    def fetch(cls, address: str, folder: Path) -> "Template":
        """Clone it to `folder`.

        Raises:
            InputError: git cannot, with what git says.
        """
        try:
            git.run("clone", "--quiet", "--no-checkout", "--no-local", "--", address, str(folder), seconds=SECONDS)
        except GitError as error:
            said = str(error).strip().splitlines()[:1]
            raise InputError(
                f"the template cannot be fetched from {without_password(address)} ({''.join(said)}): check the network "
                "and the address; another one: python3 run.py update --from ADDRESS"
            ) from None
        return cls(folder)

    @cached_property
    def versions(self) -> list[str]:
        """Return the tags that are versions, the newest last."""
        tags = [tag for tag in git.lines("tag", folder=self.folder) if VERSION.fullmatch(tag)]
        return sorted(tags, key=number)

    def commit(self, revision: str) -> str | None:
        """Return the hash of a tag or commit; None where there is no such."""
        return git.text("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", folder=self.folder)

    def commit_of_tree(self, tree: str) -> str | None:
        """Return the newest commit that has just these files; None without one."""
        commits = (line.split() for line in git.lines("log", "--all", "--format=%H %T", folder=self.folder))
        return next((commit for commit, found in commits if found == tree), None)

    def is_older(self, commit: str, other: str) -> bool:
        """Whether `commit` is in the history of `other`."""
        return git.text("merge-base", "--is-ancestor", commit, other, folder=self.folder) is not None

    def describe(self, commit: str) -> str:
        """Return the version of a commit; with how far it is from one, as v0.1.0-3-g1a2b3c4, where it is none."""
        return git.text("describe", "--tags", "--always", "--match=v*", commit, folder=self.folder) or commit

    def read(self, commit: str, path: str) -> bytes:
        """Return a file; empty where there is none."""
        return git.read_files([commit], path, self.folder)[0] or b""

    def files(self, commit: str) -> dict[str, str]:
        """Return the paths of its files, and the hash of each one's content."""
        return files(self.folder, commit)


def number(version: str) -> tuple[int, ...]:
    """Return a version's numbers, to sort by."""
    return tuple(map(int, VERSION.fullmatch(version).groups()))


def files(folder: Path, commit: str = "HEAD") -> dict[str, str]:
    """Return the paths of the files of a commit in or below `folder`, relative to it, and the hash of each content."""
    found = {}
    for line in git.run("ls-tree", "-r", "-z", commit, folder=folder).decode("utf-8", "surrogateescape").split("\0"):
        if line:
            about, path = line.split("\t", 1)
            found[path] = about.split()[2]
    return found
