"""Which versions are wanted: commits, by whatever leads to them. Asks git alone."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

from imagepack.dvc import git
from imagepack.dvc.git import GitError
from imagepack.dvc.remotes import SECONDS

EXPERIMENTS = "refs/exps/"
WANTED = {"branch": "branches", "tag": "tags", "experiment": "experiments"}
"""The field of Rules that wants each kind of reference."""


@dataclass(frozen=True)
class Rules:
    """What to keep, beside this working tree, the HEAD of every other, stashes, and commits that are not pushed.

    Attributes:
        branches: tips of branches, also of git remotes; with `number`, so many commits of each.
        tags, experiments: all of them.
        commits: every commit of all of these.
        since: commits since then, also those that git remembers in its reflog alone.
        revisions: tips of these; with `number`, so many commits of each.
        number: 1 or more.
    """

    branches: bool = False
    tags: bool = False
    experiments: bool = False
    commits: bool = False
    since: date | None = None
    revisions: tuple[str, ...] = ()
    number: int = 1


@dataclass(frozen=True)
class Version:
    """A commit.

    Attributes:
        commit: its hash.
        date: of the commit.
        names: what leads to it: `main`, `v1`, `experiment small`, `not pushed`, `since 2026-09-01`.
        is_named: whether that is more than being one of many commits.
    """

    commit: str
    date: date
    names: tuple[str, ...] = ()
    is_named: bool = False


@dataclass(frozen=True)
class RemoteTip:
    """What a branch, tag or experiment of a git remote is set to: the commit, and its name in words."""

    commit: str
    name: str


def remote_tips() -> tuple[list[RemoteTip], list[str]]:
    """Ask every git remote for its branches, tags and experiments; return them, and a line for each that says nothing.

    None waits longer than some seconds.
    """
    tips, silent = [], []
    for remote in git.lines("remote"):
        try:
            listed = git.run("ls-remote", remote, "refs/heads/*", "refs/tags/*", f"{EXPERIMENTS}*", seconds=SECONDS)
        except GitError as error:
            reason = (str(error).splitlines() or ["no answer"])[-1]
            silent.append(f"the git remote {remote} cannot be asked for its branches ({reason})")
            continue
        for line in listed.decode("utf-8", "replace").splitlines():
            commit, ref = line.split("\t")
            tips.append(RemoteTip(commit, f"{_words(ref)} of {remote}"))
    return tips, silent


def unknown(tips: list[RemoteTip]) -> list[RemoteTip]:
    """Return those whose commit is not here: `git fetch` has not brought it yet."""
    return [tip for tip, here in zip(tips, git.are_here([tip.commit for tip in tips]), strict=True) if not here]


def all_versions() -> dict[str, Version]:
    """Return every commit that git knows, by hash, newest first; those of the reflog too."""
    log = git.run("log", "--all", "--reflog", "--no-show-signature", "--format=%H %ct").decode().splitlines()
    dates = {commit: datetime.fromtimestamp(int(seconds)).date() for commit, seconds in map(str.split, log)}
    return {commit: Version(commit, dates[commit]) for commit in dates}


def changing(versions: Iterable[str]) -> list[str]:
    """Return the commits of all history in which the files of DVC are others than before, and `versions` too.

    Together they have every state of those files.
    """
    found = git.lines("rev-list", "--all", "--reflog", "--full-history", "--", *git.DVC_FILES)
    return list(dict.fromkeys([*versions, *found]))


def select(rules: Rules, known: dict[str, Version], tips: Iterable[RemoteTip] = ()) -> list[Version]:
    """Return the versions to keep, the newest first.

    Args:
        rules: which.
        known: all that there are.
        tips: of git remotes, whose commits are kept where they are here, if their kind is.

    Raises:
        GitError: a revision is none.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for commit, name in _named(rules, known):
        if name not in names[commit]:
            names[commit].append(name)
    for commit, name in _others(rules, tips):
        if not names[commit]:
            names[commit].append(name)
    named = set(names)
    for commit, name in _recent(rules, known):
        if not names[commit]:
            names[commit].append(name)
    kept = [Version(commit, _date(commit, known), tuple(names[commit]), commit in named) for commit in names]
    return sorted(kept, key=lambda version: version.date, reverse=True)


def _named(rules: Rules, known: dict[str, Version]) -> Iterator[tuple[str, str]]:
    """Commits that have a name, and those that are nowhere else."""
    for reference in git.references():
        commit = reference.commit if reference.commit in known else _commit(reference.commit)
        if commit and getattr(rules, WANTED[reference.kind]):
            name = f"experiment {reference.name}" if reference.kind == "experiment" else reference.name
            yield from _last(commit, name, rules.number if reference.kind == "branch" else 1)
    for revision in rules.revisions:
        yield from _last(revision, revision, rules.number)
    if git.lines("remote"):  # else there is nowhere to push to
        unpushed = git.lines("rev-list", "--branches", "HEAD", "--not", "--remotes", "--")
        yield from ((commit, "not pushed") for commit in unpushed)
    for ref in ("refs/stash", *filter(_is_dvcs_own, git.lines("for-each-ref", "--format=%(refname)", EXPERIMENTS))):
        commits = git.lines("rev-list", "--walk-reflogs", ref, "--") or [_commit(ref)]
        yield from ((commit, "stash") for commit in commits if commit)


def _others(rules: Rules, tips: Iterable[RemoteTip]) -> Iterator[tuple[str, str]]:
    """What is checked out, and what git remotes have: mostly it has a name here."""
    for line in git.lines("worktree", "list", "--porcelain"):
        if line.startswith("HEAD ") and line.split()[1].strip("0"):
            yield line.split()[1], "HEAD"
    for tip in tips:
        commit = _commit(tip.commit)
        if commit and getattr(rules, WANTED[tip.name.split()[0]]):
            yield commit, tip.name


def _recent(rules: Rules, known: dict[str, Version]) -> Iterator[tuple[str, str]]:
    """Commits that need no name to be kept."""
    if rules.commits:
        yield from ((commit, "a commit") for commit in git.lines("rev-list", "--all"))
    if rules.since:
        recent = (commit for commit, version in known.items() if version.date >= rules.since)
        yield from ((commit, f"since {rules.since}") for commit in recent)


def _is_dvcs_own(ref: str) -> bool:
    """Whether it holds what is queued or running, and is no finished experiment: refs/exps/2 digits/38 digits/NAME."""
    return len(ref.split("/")[2]) != 2


def _commit(name: str) -> str | None:
    return git.text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")


def _last(revision: str, name: str, number: int) -> Iterator[tuple[str, str]]:
    """A commit and its first parents, `number` in all, as `dvc gc --num` counts them; `main`, `main~1`, ..."""
    asked = ("rev-list", "--first-parent", f"--max-count={number}", "--end-of-options", revision, "--")
    for back, commit in enumerate(git.run(*asked).decode().split()):
        yield commit, f"{name}~{back}" if back else name


def _date(commit: str, known: dict[str, Version]) -> date:
    if commit in known:
        return known[commit].date
    return datetime.fromtimestamp(int(git.run("log", "-1", "--no-show-signature", "--format=%ct", commit))).date()


def _words(ref: str) -> str:
    """`refs/heads/main` as `branch main`."""
    kind, name = ref.removeprefix("refs/").split("/", 1)
    name = name.removesuffix("^{}")
    if kind == "exps":
        return f"experiment {name.split('/')[-1]}"
    return f"{'tag' if kind == 'tags' else 'branch'} {name}"
