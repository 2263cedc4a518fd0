"""Git's pre-push hook: the data of the commits that are pushed goes to the DVC remote first, or nothing goes anywhere.

    python -m imagepack.commands.pre_push REMOTE URL   (git writes what is pushed to standard input; see githooks(5))

DVC's own hook runs `dvc push`, which pushes the data of the working tree: not that of another branch, a tag or the
commits in between. It succeeds where data is in no cache and on no remote, and where an object is gone from a bucket
that DVC remembers as complete. And it waits for a running `dvc repro`. This one asks for every object of every commit
that the git remote lacks, and needs no lock, since it reads commits and adds objects.
"""

import logging
import os
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from imagepack.commands import s3
from imagepack.dvc import git, objects, repository
from imagepack.dvc.objects import Objects
from imagepack.names import counted, visible, visible_lines

NONE = "0"
"""All digits of the hash that stands for no commit."""
SHOWN = 5
NOWHERE = "{} files of data are neither in DVC's cache here nor on the remote"


class Refused(Exception):
    """The data cannot be pushed; the message says why and what to do."""


def main() -> int:
    """The exit code; git pushes nothing unless it is 0."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    remote = sys.argv[1] if len(sys.argv) > 1 else ""
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))  # the local S3
    try:
        for tip, commits in to_push(remote, sys.stdin.read()):
            push(tip, commits)
    except KeyboardInterrupt:
        return refuse("stopped")
    except Refused as reason:
        return refuse(str(reason))
    except Exception as error:  # noqa: BLE001  (whatever it is: the data is not there, so git must not go ahead of it)
        return refuse(f"{type(error).__name__}: {error}")
    return 0


def refuse(reason: str) -> int:
    """Say so; the exit code."""
    print(
        f"pre-push: {visible_lines(reason)}\n"
        "pre-push: nothing was pushed to git, since the data has to be there first. "
        "Mend that and push again; to push without the data: git push --no-verify",
        file=sys.stderr,
    )
    return 1


def to_push(remote: str, updates: str) -> list[tuple[str, list[str]]]:
    """Each commit that a branch, tag or experiment is set to, and those that change data and the git remote lacks.

    Args:
        remote: name, or URL if it has none.
        updates: a line `LOCAL_REF LOCAL_HASH REMOTE_REF REMOTE_HASH` each.
    """
    hashes = [(words[1], words[3]) for words in map(str.split, updates.splitlines()) if len(words) == 4]
    olds = [old for _, old in hashes if old.strip(NONE)]
    known = [old for old in olds if git.text("cat-file", "-e", f"{old}^{{commit}}") is not None]
    if remote in git.lines("remote"):
        known.append(f"--remotes={remote}")
    found = []
    for new, _ in hashes:
        tip = git.text("rev-parse", "--verify", "--quiet", f"{new}^{{commit}}") if new.strip(NONE) else None
        if tip is None:  # it is deleted, or a tag of something else
            continue
        changing = git.lines("rev-list", "--full-history", tip, "--not", *known, "--", *git.DVC_FILES)
        found.append((tip, list(dict.fromkeys([tip, *changing]))))
        known.append(tip)
    return found


def push(tip: str, commits: list[str]) -> None:
    """Push the data of `commits`, of each folder with DVC from the first working tree of this repository that can.

    Raises:
        Refused: none can.
    """
    trees = working_trees()
    for folder in folders(tip):
        reasons = []
        for root in (tree / folder for tree in trees if (tree / folder / ".dvc").is_dir()):
            reasons.append(push_from(root, tip, commits))
            if not reasons[-1]:
                break
        else:
            raise Refused(reasons[0] if reasons else f"no working tree here has {folder} with DVC: check one out")


def folders(tip: str) -> list[str]:
    """Return the folders of the git repository that have DVC, usually its top alone, by a commit or the index."""
    listed = git.lines("ls-tree", "-r", "--name-only", "--full-tree", tip) + git.lines("ls-files")
    ours = (Path(name) for name in listed if name.endswith(".dvc/config"))
    return list(dict.fromkeys(path.parents[1].as_posix() for path in ours if path.parts[-2] == ".dvc"))


def working_trees() -> list[Path]:
    """This one first: others may have the cache or the keys that this one, made by `git worktree add`, has not."""
    listed = git.lines("worktree", "list", "--porcelain")
    listed = [line.removeprefix("worktree ") for line in listed if line.startswith("worktree ")]
    here = git.text("rev-parse", "--show-toplevel")
    return list(dict.fromkeys(Path(root) for root in filter(None, [here, *listed])))


def push_from(root: Path, tip: str, commits: list[str]) -> str:
    """Push what the remote lacks; why that cannot be done, empty if it is."""
    with closing(repository.open_repo(root, tip)) as repo:
        tracked, unreadable = repository.outs(repo, commits)
        for line in unreadable:  # nobody can pull that commit, wherever its data is
            print(f"pre-push: left out, DVC cannot read it: {visible(line)}", file=sys.stderr)
        for remote in {out.remote for out in tracked}:
            if reason := unusable(repo, remote):
                return reason
        for remote, wanted in objects.objects(repo, tracked).items():
            lacking = objects.not_on_remote(repo, remote, wanted)
            left = upload(repo, remote, lacking) if lacking else {}
            earlier = {info: out for info, out in left.items() if out.version != tip[:9]}
            lost = objects.not_in_cache(repo, earlier)
            if lost.keys() != left.keys():
                return describe(repo, remote, left)
            if lost:  # whoever pushes cannot help it, and what is pushed needs none of it
                rows = "\n".join(f"pre-push:   {row}" for row in by_version(lost))
                print(f"pre-push: left out, {NOWHERE.format(len(lost))}, of earlier commits:\n{rows}", file=sys.stderr)
    return ""


def unusable(repo, name: str | None) -> str:
    """Why a remote cannot be used, as far as that can be told quickly; empty if it can."""
    name = name or repo.config["core"].get("remote")
    return s3.fault(repo.config["remote"].get(name, {}))


def upload(repo, remote: str | None, lacking: Objects) -> Objects:
    """Copy from the cache; what the remote still lacks."""
    left = objects.upload(repo, remote, lacking, show=sys.stderr.isatty())
    done = len(lacking) - len(left)
    print(f"pre-push: {done} file{'s' * (done != 1)} of data pushed", file=sys.stderr)
    return left


def describe(repo, remote: str | None, left: Objects) -> str:
    """What could not be pushed, by version."""
    if nowhere := objects.not_in_cache(repo, left):
        why = f"{NOWHERE.format(len(nowhere))}:"
        fix = "Who has them runs `dvc push --all-commits`; or leave the commit out that needs them."
    else:
        why, fix = f"the remote did not take {counted(len(left), 'file')} of data:", "python3 run.py doctor says more."
    return "\n".join([why, *(f"  {row}" for row in by_version(left)), fix])


def by_version(found: Objects) -> list[str]:
    """How many there are, where they are met; the most first."""
    counts = Counter(f"{out.path} of {out.version}" for out in found.values())
    rows = [f"{visible(where)}: {count}" for where, count in counts.most_common(SHOWN)]
    return [*rows, f"... and {len(counts) - SHOWN} more"] if len(counts) > SHOWN else rows


if __name__ == "__main__":
    sys.exit(main())
