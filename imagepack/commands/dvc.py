"""python3 run.py -- dvc ...: run DVC, and look before and after at what it passes over in silence.

DVC hides what rules hide, waits minutes for a server that does not answer, and goes by a list of what was pushed that
may be half (repository.forget_data_index). `dvc repro`, `add` and `commit` end with exit code 0 where the disk of the
cache was full, `dvc push` where the cache lacked what it was to push: they only print what failed, and write that all
is done.
"""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from imagepack.dvc import pushed, raw_data
from imagepack.dvc.lock_files import RAW_DVC
from imagepack.names import counted, visible_lines

if TYPE_CHECKING:
    from imagepack.dvc.objects import Objects
    from imagepack.dvc.repository import Out, Repo

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TOOL = "python3 run.py --"
STORE = f"make room if a disk was full, then {TOOL} dvc commit --force"


def main(arguments: list[str]) -> int:
    """Run DVC in this folder, and the checks at the root of the repository; return the exit code."""
    here, (verb, *options) = Path.cwd(), arguments or [""]
    os.chdir(ROOT)
    moves_data = not {"push", "pull", "fetch"}.isdisjoint(arguments[:2])  # also: dvc exp push
    store = _store_to_check(verb, options)
    if fault := _fault_before(verb, moves_data, store):
        print(visible_lines(fault), file=sys.stderr)
        return 1
    pulls_all = verb == "pull" and all(option.startswith("-") for option in options) and RAW_DVC.exists()
    if pulls_all:
        raw_data.begin_pull()
    code = run(arguments, here)
    if code == 0:
        if pulls_all:
            raw_data.end_pull()
        if fault := lacking(store)[store] if store else "":
            print(f"\n{fault}", file=sys.stderr)
            return 1
        if store == "remote" or pulls_all:
            pushed.note()
    elif code != INTERRUPTED and moves_data:
        from imagepack.commands import s3

        print(s3.explanation())
    return code


def run(arguments: list[str], folder: Path | None = None) -> int:
    """Run DVC and return its exit code. After Ctrl-C it ends by itself: killed, it may leave half a dvc.lock."""
    process, interrupted = subprocess.Popen(["dvc", *arguments], cwd=folder), False
    while True:
        try:
            code = process.wait()
            return INTERRUPTED if interrupted else code
        except KeyboardInterrupt:  # the terminal tells DVC too
            interrupted = True


def lacking(*stores: str) -> dict[str, str]:
    """Return, by store, how many files of data of this version it lacks, and the fix; empty if none.

    Args:
        stores: cache (then only data that is here counts) and remote.
    """
    from imagepack.dvc import repository  # it takes a second to load DVC

    try:
        with closing(repository.open_repo(Path.cwd())) as repo:
            tracked, _ = repository.outs(repo, [])
            look = {"cache": _cache_lacks, "remote": _remote_lacks}
            return {store: look[store](repo, tracked) for store in stores}
    except (repository.DvcException, OSError) as error:
        return dict.fromkeys(stores, f"It cannot be told whether all is stored ({error}): python3 run.py doctor")


def _cache_lacks(repo: "Repo", tracked: "list[Out]") -> str:
    from imagepack.dvc import objects

    there = [out for out in tracked if Path(out.path).exists()]
    wanted = objects.objects(repo, there, ask_remote=False)
    missing = objects.not_in_cache(repo, objects.of_all_remotes(wanted))
    return f"DVC's cache lacks {_named(missing)}, though DVC says that it has stored all: {STORE}" if missing else ""


def _remote_lacks(repo: "Repo", tracked: "list[Out]") -> str:
    from imagepack.dvc import objects

    missing = objects.of_all_remotes(objects.not_on_remotes(repo, objects.objects(repo, tracked)))
    if not missing:
        return ""
    text = f"The remote lacks {_named(missing)}, though DVC says that it has pushed all"
    if nowhere := objects.not_in_cache(repo, missing):
        return f"{text}; of {len(nowhere)} the cache here lacks them too: {STORE}, then {TOOL} dvc push"
    return f"{text}: python3 run.py doctor --push"


def _named(missing: "Objects") -> str:
    """How many files these are, and of what."""
    return f"{counted(len(missing), 'file')} of {', '.join(sorted({out.path for out in missing.values()}))}"


def _store_to_check(verb: str, options: list[str]) -> str:
    """Where a command of DVC may not have put all, though it ends with 0: the cache, the remote, or nowhere.

    A push of some of the data, or to another remote than the default one, is not looked at.
    """
    names = {option.partition("=")[0] for option in options}
    if verb in ("repro", "add", "commit") and not names & {"--dry", "--allow-missing", "-h", "--help"}:
        return "cache"
    jobs = {"-j", "--jobs"} & names
    pushes_all = all(option.startswith("-") or (jobs and option.isdigit()) for option in options)
    return "remote" if verb == "push" and pushes_all and not names & {"-r", "--remote", "-h", "--help"} else ""


def _fault_before(verb: str, moves_data: bool, store: str) -> str:
    """Make DVC look anew at what is pushed. Why it must not be started; empty if it may."""
    if moves_data:
        from imagepack.dvc import repository

        repository.forget_data_index()
    if verb in ("add", "commit", "repro", "checkout"):
        from imagepack.commands import unseen_files

        faults = unseen_files.dvc_files()
        if verb != "checkout":  # it stores files
            faults += unseen_files.untrackable() + unseen_files.outputs()
        return "\n".join(["run.py: DVC was not started:", *faults]) if faults else ""
    if store == "remote":
        from imagepack.commands import s3

        return s3.silent(s3.default_remote())
    return ""


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
