"""What keeps a dataset from being run, pushed or pulled, and the fix: a line a check.

    python -m imagepack.commands.doctor [--deep] [--push]

Every check runs, whatever the others find; none waits longer than some seconds for a network. Nothing is changed,
except that a small object is written to the remote and removed again. Exit code 1 if there is any problem.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable

from tqdm import tqdm

from imagepack.commands import doctor_data, doctor_machine
from imagepack.commands.doctor_case import HINT, PROBLEM, Case, Findings
from imagepack.dvc.repository import SCMError
from imagepack.errors import InputError
from imagepack.names import counted, visible_lines

COMMAND = r": (python3 run\.py|git|rm|chmod) "
"""How a fix begins that can be typed."""
CHECKS: dict[str, Callable[[Case], Findings]] = {
    "git": doctor_machine.git_repository,
    "params": doctor_machine.parameters,
    "file system": doctor_machine.file_system,
    "hidden": doctor_machine.hidden_files,
    "zips": doctor_machine.zips,
    "room": doctor_machine.room,
    "locks": doctor_machine.locks,
    "links": doctor_machine.links,
    "hooks": doctor_machine.git_hooks,
    "secrets": doctor_machine.secrets,
    "remote": doctor_data.remote,
    "teammates": doctor_data.teammates,
    "pushed": doctor_data.pushed_versions,
    "cache": doctor_data.cache,
    "pipeline": doctor_data.pipeline,
    "splits": doctor_data.splits,
    "commits": doctor_data.commits,
}


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py doctor", description="What goes wrong with a dataset, and the fix."
    )
    parser.add_argument(
        "--deep", action="store_true", help="read all data, here and in DVC's cache, and verify its hashes"
    )
    parser.add_argument("--push", action="store_true", help="push what is found missing on the remote")
    options = parser.parse_args()
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # what it says is said below, with the fix
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))  # the local S3
    case = Case(deep=options.deep, push=options.push)
    said: list[tuple[str, str, str]] = []
    try:
        for name, check in CHECKS.items():
            for level, text in findings(check, case):
                said.append((level, name, visible_lines(case.without_keys(text))))
                tqdm.write(f"{level:8} {name}: {said[-1][2]}".replace("\n", f"\n{'':9}"))
    except KeyboardInterrupt:
        print("doctor: stopped", file=sys.stderr)
        return 130
    finally:
        case.close()
    problems, hints = (sum(level == asked for level, *_ in said) for asked in (PROBLEM, HINT))
    print(f"\n{counted(problems, 'problem')}, {counted(hints, 'hint')}{first_step(said)}")
    return 1 if problems else 0


def first_step(said: list[tuple[str, str, str]]) -> str:
    """Return what to do first: the first problem, or the first hint with a command; level, check and text of each."""
    wanted = [(name, text) for level, name, text in said if level == PROBLEM]
    wanted += [(name, text) for level, name, text in said if level == HINT and re.search(COMMAND, text)]
    return ". Begin with {}: {}".format(*wanted[0]) if wanted else ""


def findings(check: Callable[[Case], Findings], case: Case) -> Findings:
    """What a check finds, once it has found it."""
    try:
        yield from list(check(case))
    except SCMError:
        yield HINT, "not looked at, since this is no git repository"
    except InputError as error:
        yield PROBLEM, str(error)
    except Exception as error:  # noqa: BLE001  (a check that fails must not keep the others from being made)
        first = (str(error).splitlines() or [""])[0]
        yield PROBLEM, f"could not be looked at: {type(error).__name__}: {first}"


if __name__ == "__main__":
    sys.exit(main())
