"""python3 run.py memo: what the stages' memo holds; `memo clear` removes it. Stages then make everything anew, once."""

import shutil
import sys
from pathlib import Path

from imagepack.engine import memo, params
from imagepack.errors import InputError

USAGE = "usage: python3 run.py memo [clear]"


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    if arguments == ["clear"]:
        files = [path for path in memo.FOLDER.rglob("*") if path.is_file()]  # whether or not they can be read
        freed = sum(path.stat().st_size for path in files)
        shutil.rmtree(memo.FOLDER, ignore_errors=True)
        print(f"Removed {memo.FOLDER}: {_mib(freed)} MiB.")
        return 0
    if arguments in (["-h"], ["--help"]):
        print(f"{__doc__}\n\n{USAGE}")
        return 0
    if arguments:
        print(f"run.py memo: no such command: {' '.join(arguments)}\n{USAGE}", file=sys.stderr)
        return 2
    limit = params.load(Path("params.yaml"))["memo"].max_gib
    rows = [("stage", "entries", "MiB"), *((name, f"{count:,}", _mib(size)) for name, count, size in memo.sizes())]
    for name, count, size in rows:
        print(f"{name:12}{count:>12}{size:>12}")
    print(f"limit of each: {limit:g} GiB (memo.max_gib in params.yaml)" if limit else "off: memo.max_gib is 0")
    return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"run.py memo: {error}")
    except memo.memo_store.FAILURES as error:
        fix = ": remove it with python3 run.py memo clear" if memo.memo_store.is_damage(error) else ""
        sys.exit(f"run.py memo: {memo.FOLDER} cannot be read ({error}){fix}")
