"""Merge a branch: git merges code and params, this the images; then the pipeline makes anew what it makes.

    python3 run.py merge             what `git pull` would merge: the upstream of this branch, fetched first
    python3 run.py merge BRANCH      a branch; origin/BRANCH is fetched first
    python3 run.py merge --continue  go on after conflicts were resolved, or after an interruption
    python3 run.py merge --abort     back to before the merge

Lists of images and images of the other side are fetched before anything changes.
"""

import argparse
import os
import shlex
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from imagepack.commands import dvc as dvc_command
from imagepack.commands import run, s3, unmerged
from imagepack.dvc import git, lock_files, objects, raw_data, repository
from imagepack.dvc.list_merge import DvcFile, Listing, ListMissing, Merge, NotMergeable
from imagepack.errors import InputError
from imagepack.names import visible, visible_lines

HERE = Path(__file__).resolve().parents[2]
RAW_DVC = lock_files.RAW_DVC
CONTINUE, ABORT = "python3 run.py merge --continue", "python3 run.py merge --abort"
DRIVER = f"{shlex.quote(Path(sys.executable).as_posix())} -P -m imagepack.commands.merge_driver %O %A %B %P"
DRIVERS = [
    *("-c", f"merge.dvc.driver={DRIVER}", "-c", "merge.dvc.recursive=dvc-base"),
    *("-c", f"merge.dvc-base.driver={DRIVER} --base"),
]
BACK = f"to go back: {ABORT}"


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("branch", nargs="?", metavar="BRANCH", help="or tag or commit; the upstream unless given")
    parser.add_argument("--continue", action="store_true", dest="go_on", help="go on with a merge that has stopped")
    parser.add_argument("--abort", action="store_true", help="undo a merge that has stopped")
    options = parser.parse_args()
    if sum((options.go_on, options.abort, bool(options.branch))) > 1:
        parser.error("name a branch, or --continue, or --abort")
    try:
        if options.abort:
            return abort()
        if not options.go_on:
            branch = find(options.branch)
            require_ready()
            drivers, before = DRIVERS if fetch(branch) else [], git.text("rev-parse", "HEAD") or ""
            if not start(branch, drivers):
                return 0
            if has_other_code(before) and not unmerged.settle():
                print("The merge brings other code: going on with that.", flush=True)
                return subprocess.call([sys.executable, HERE / "run.py", "merge", "--continue"])
        elif not is_merging():
            raise InputError("no merge is under way: python3 run.py merge BRANCH starts one")
        return finish()
    except InputError as error:
        print(visible_lines(f"merge: {error}"), file=sys.stderr)
        return 1


def is_merging() -> bool:
    """Return whether git has a merge to conclude, or this command has one to finish."""
    return git.other_side() == "MERGE_HEAD" or raw_data.MERGING.exists()


def find(name: str | None) -> str:
    """Return the branch to merge, the upstream unless named; fetch it where it is of a git remote.

    Raises:
        InputError: there is none, or it cannot be fetched.
    """
    if name is None:
        name = git.text("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
        if name is None:
            raise InputError("this branch has no upstream: name the branch to merge, python3 run.py merge BRANCH")
    remote = name.partition("/")[0]
    if remote in git.lines("remote") and git.in_terminal("fetch", "--quiet", remote)[0]:
        raise InputError(f"git fetch {remote} fails (see above)")
    if git.text("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is None:
        others = ", ".join(git.lines("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes"))
        raise InputError(f"there is no branch {name}; there are: {others}")
    return name


def require_ready() -> None:
    """Refuse to begin where something is under way, or where changes would be mixed into the merge.

    Raises:
        InputError: says what and the fix; all at once.
    """
    if is_merging() or git.unmerged():
        raise InputError(f"a merge is under way: {CONTINUE}; {BACK}")
    faults = []
    changed = git.lines("status", "--porcelain", "--untracked-files=no", "--", ".")
    if changed:
        listed = "\n".join(f"  {line}" for line in changed[:10])
        faults.append(f"there are changes that are not committed:\n{listed}\nCommit them (git commit -a) first")
    if repository.compare_with_workspace(raw_data.RAW) is not None:
        faults.append(
            f"{raw_data.RAW} has other images than {RAW_DVC} says. To keep them: python3 run.py, then git commit -a. "
            f"To drop them: python3 run.py -- dvc checkout --force {RAW_DVC}"
        )
    if faults:
        raise InputError("\n".join(faults))


def fetch(branch: str) -> bool:
    """Fetch the lists of images that the merge needs, and the images that it brings, into DVC's cache.

    Returns:
        Whether git has to merge several versions before both first.

    Raises:
        InputError: they are nowhere, or the remote cannot be reached.
    """
    if fault := run.reach_remote(s3.is_own()):
        raise InputError(fault)
    bases = git.lines("merge-base", "--all", "HEAD", branch)
    try:
        with closing(repository.open_repo(Path.cwd())) as repo:
            ours, theirs, *before = (_listing(repo, commit) for commit in ("HEAD", branch, *bases))
            remote = next((file.remote for file in map(_file, (branch, "HEAD")) if file), None)
            found = Merge(before[0] if before else {}, ours, theirs)
            wanted = {*found.files.values(), *(conflict.theirs for conflict in found.conflicts if conflict.theirs)}
            missing = objects.download(repo, remote, wanted, show=sys.stderr.isatty())
    except ListMissing as reason:
        raise InputError(str(reason)) from None
    except Exception as error:  # noqa: BLE001  (of whatever library reaches the remote)
        raise InputError(f"the images cannot be fetched: {s3.explain() or error}") from None
    if missing:
        count = f"{len(missing)} image{'s' * (len(missing) != 1)}"
        raise InputError(
            f"{count} of {branch} not found, in DVC's cache here or on the remote: who made it runs `dvc push`"
        )
    return len(bases) > 1


def _listing(repo: repository.Repo, commit: str) -> Listing:
    """The images of a commit; none where its data/raw.dvc says nothing of a folder."""
    file = _file(commit)
    return file.listing(repo) if file else {}


def _file(commit: str) -> DvcFile | None:
    text = git.text("show", f"{commit}:./{RAW_DVC.as_posix()}")
    with suppress(NotMergeable):
        return DvcFile(text or "", commit)
    return None


def start(branch: str, settings: list[str]) -> bool:
    """Let git merge, and not commit yet; return whether there is something to finish.

    Args:
        branch: to merge.
        settings: options of git. Without a merge driver data/raw.dvc comes out in conflict, which is settled here.

    Raises:
        InputError: git refuses.
    """
    raw_data.begin_merge()
    paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    before = git.text("rev-parse", "HEAD")
    code, printed = git.in_terminal(*settings, "merge", "--no-commit", "--no-stat", branch, PYTHONPATH=paths)
    if git.other_side() == "MERGE_HEAD":
        return True
    if code:
        raw_data.forget_merge()
        raise InputError(f"git does not merge {branch} (see above) {printed}".strip())
    if git.text("rev-parse", "HEAD") == before:
        raw_data.forget_merge()
        print(f"Already up to date: this branch has all of {visible(branch)}.")
        return False
    return True  # this branch had nothing of its own, and git has moved it to that commit


def has_other_code(before: str) -> bool:
    """Return whether the machinery here, which this process has loaded in part, is not that of a commit."""
    return bool(git.lines("diff", "--name-only", before, "--", "imagepack", "run.py", "requirements.lock"))


def finish() -> int:
    """Settle what git left, bring the images, run the pipeline, commit; return the exit code."""
    if left := unmerged.settle():
        return run.fail("\n\n".join([*left, BACK.capitalize()]))
    if run.bring_up_to_date():
        return run.fail(f"The merge is not committed yet. Mend that, then: {CONTINUE}\n{BACK.capitalize()}")
    if git.other_side() != "MERGE_HEAD":
        print(f"\nThere is no merge to commit. This branch is at {last_commit()}")
        return 0
    made = [path for path in unmerged.made_by_pipeline() if Path(path).exists() or git.lines("ls-files", "--", path)]
    try:
        git.run("add", "--all", "--", *made)
    except git.GitError as error:
        return run.fail(f"git does not add what the pipeline made: {error}\nMend that, then: {CONTINUE}")
    if changed := git.lines("diff", "--name-only", "--relative", "--", "."):
        return run.fail(f"Changed, and not part of the merge yet: {', '.join(changed)}: git add them, then {CONTINUE}")
    code, printed = git.in_terminal("commit", "--quiet", *message(), "--cleanup=strip")
    if code:
        return run.fail(f"git does not commit (see above). Mend that, then: {CONTINUE}\n{printed}")
    print(f"\n{last_commit()}\n{brought()}\n\nNext\n  {next_step()}")
    return 0


def message() -> list[str]:
    """Return the options of `git commit` that name the merge: git's own message, or one like it where git has none.

    git notes a merge (MERGE_HEAD) a moment before its message (MERGE_MSG), and may be killed in between.
    """
    noted = Path(git.text("rev-parse", "--git-path", "MERGE_MSG") or "")
    if noted.is_file() and noted.stat().st_size:
        return ["--no-edit"]
    return ["-m", f"Merge commit '{git.text('rev-parse', 'MERGE_HEAD')}'"]


def last_commit() -> str:
    """Return its hash and subject."""
    return visible(git.text("log", "-1", "--format=%h %s") or "")


def brought() -> str:
    """Return what the merge, which is the last commit, did to the images of this branch."""
    base = git.text("merge-base", "HEAD^1", "HEAD^2") or "HEAD^1"
    try:
        with closing(repository.open_repo(Path.cwd())) as repo:
            before, ours, theirs, now = (_listing(repo, commit) for commit in (base, "HEAD^1", "HEAD^2", "HEAD"))
    except ListMissing as reason:  # git could merge without
        return f"What it did to the images is not known: {reason}"
    return unmerged.summary(Merge(before, ours, theirs), now)


def next_step() -> str:
    """Return the command that comes after a merge."""
    if not git.lines("remote"):
        return "python3 run.py compare HEAD~1   # what it did to the images"
    hook = Path(git.text("rev-parse", "--git-path", "hooks/pre-push") or "")
    takes_data = hook.is_file() and "imagepack.commands.pre_push" in hook.read_text(encoding="utf-8", errors="replace")
    return "git push" if takes_data or not s3.is_own() else "python3 run.py -- dvc push && git push"


def abort() -> int:
    """Put everything back as it was before the merge; return the exit code."""
    if git.other_side() != "MERGE_HEAD":
        raw_data.forget_merge()
        raise InputError("no merge is under way, so there is nothing to undo")
    made = [path for path in unmerged.made_by_pipeline() if git.lines("ls-tree", "HEAD", "--", path)]
    if made:  # the pipeline may have written them since
        git.run("checkout", "HEAD", "--", *made)
    try:
        git.run("merge", "--abort")
    except git.GitError as error:
        raise InputError(f"git does not undo the merge: {error}") from None
    raw_data.forget_merge()
    unmerged.CHOICES.unlink(missing_ok=True)
    if RAW_DVC.exists():
        raw_data.begin_pull()
    if dvc_command.run(["checkout"]):
        return run.fail(f"git has undone the merge, but {raw_data.RAW} not all (see above): python3 run.py goes on")
    raw_data.end_pull()
    print("The merge is undone.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(run.fail(f"Stopped; to go on: {CONTINUE}; {BACK}" if is_merging() else "Stopped; nothing was merged"))
