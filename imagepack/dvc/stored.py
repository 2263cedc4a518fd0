"""Whether DVC's cache and the remote have all that data/raw.dvc and dvc.lock name.

    python -m imagepack.dvc.stored cache|remote   (run.py asks after DVC; exit code 1 and the fix where not)

`dvc repro`, `add` and `commit` end with exit code 0 where the disk of the cache was full, `dvc push` where the cache
lacked what it was to push: they only print what failed, and write that all is done.
"""

import sys
from contextlib import closing
from pathlib import Path

from dvc.exceptions import DvcException

from imagepack.dvc import pushed

TOOL = "python3 run.py --"
STORE = f"make room if a disk was full, then {TOOL} dvc commit --force"


def not_in_cache() -> str:
    """How many files of data that are here are not in DVC's cache, and the fix; empty if all are."""
    with closing(pushed.open_repo(Path.cwd())) as repo:
        tracked = [out for out in pushed.outs(repo, [])[0] if Path(_place(out.where)).exists()]
        wanted = _all(pushed.objects(repo, tracked, ask_remote=False))
        missing = {info: where for info, where in wanted.items() if not repo.cache.local.exists(info.value)}
    if not missing:
        return ""
    return f"DVC's cache lacks {_counted(missing)}, though DVC says that it has stored all: {STORE}"


def not_on_remote() -> str:
    """How many files of data of this version are not on the remote, and the fix; empty if all are."""
    with closing(pushed.open_repo(Path.cwd())) as repo:
        wanted = pushed.objects(repo, pushed.outs(repo, [])[0])
        missing = _all({name: pushed.absent(repo, name, infos) for name, infos in wanted.items()})
        nowhere = {info: where for info, where in missing.items() if not repo.cache.local.exists(info.value)}
    if not missing:
        return ""
    text = f"The remote lacks {_counted(missing)}, though DVC says that it has pushed all"
    if nowhere:
        return f"{text}; of {len(nowhere)} the cache here lacks them too: {STORE}, then {TOOL} dvc push"
    return f"{text}: python3 run.py doctor --push"


def _all(found: dict[str | None, pushed.Objects]) -> pushed.Objects:
    """Those of all remotes together."""
    return {info: where for infos in found.values() for info, where in infos.items()}


def _counted(missing: pushed.Objects) -> str:
    places = sorted({_place(where) for where in missing.values()})
    return f"{len(missing)} file{'s' * (len(missing) != 1)} of {', '.join(places)}"


def _place(where: str) -> str:
    return where.rpartition(" of ")[0]


def main() -> int:
    """The command line; the exit code."""
    try:
        fault = {"cache": not_in_cache, "remote": not_on_remote}[sys.argv[1]]()
    except (DvcException, OSError) as error:
        fault = f"It cannot be told whether all is stored ({error}): python3 run.py doctor"
    if fault:
        print(f"\n{fault}", file=sys.stderr)
    return int(bool(fault))


if __name__ == "__main__":
    sys.exit(main())
