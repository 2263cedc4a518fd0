"""Runs commands in forks of a process that has imported DVC and other libraries, which takes longer than most do.

Each is the real one, in a process of its own, with the folder, environment and output that it is given: `dvc ...`, and
`python -m imagepack...` with the code that is in that folder.
"""

import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMON = (
    *("dvc.cachemgr", "dvc.cli.parser", "dvc.data_cloud", "dvc.lock", "dvc.repo.artifacts", "dvc.repo.metrics"),
    *("dvc.repo.open_repo", "dvc.repo.params", "dvc.repo.plots", "dvc.repo.reproduce", "dvc.rwlock", "dvc.scm"),
    *("dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.index.push"),
    *("dulwich.client", "dvc_s3", "ruamel.yaml", "s3fs", "scmrepo.git"),
    *("PIL.Image", "botocore.session", "h5py", "jinja2", "numpy", "polars", "psutil", "pydantic", "scipy.special"),
)
"""What commands import."""
AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""How variables begin that an interpreter reads when it starts."""


class CommandServer:
    """Starts with the first command and ends with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[int, str] | None:
        """Return exit code and what was printed; None for other commands, and while it is at work for another."""
        if not is_known(command, environment) or not hasattr(os, "fork") or not self._lock.acquire(blocking=False):
            return None
        try:
            if self._process is None:
                server = [sys.executable, __file__]
                self._process = subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
                request = {
                    "command": [*map(str, command)],
                    "folder": str(folder),
                    "env": environment,
                    "output": output.name,
                }
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                code = int(self._process.stdout.readline())
                return code, output.read()
        finally:
            self._lock.release()


def is_known(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a fork of the server is what this command would be."""
    program = Path(shutil.which(command[0], path=environment["PATH"]) or "")
    ours = program.parent == Path(sys.executable).parent
    known = program.stem == "dvc" or (list(command[1:2]) == ["-m"] and command[2].startswith("imagepack"))
    return ours and known and at_start(environment) == at_start(os.environ)


def at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those of the variables that a fork would not read."""
    found = {name: value for name, value in environment.items() if name.startswith(AT_START)}
    found.pop("PYTHONPATH", None)  # the fork has it
    return found


def serve() -> None:
    """Answer each request, a line of JSON, with the exit code."""
    import_all()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def import_all() -> None:
    """Import what commands do; nothing of it starts a thread or looks at the folder or the environment."""
    for name in COMMON:
        importlib.import_module(name)


def run(command: list[str], folder: str, env: dict[str, str], output: str) -> None:
    """Become the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # TMPDIR may be another
    written = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), written, written)):
        os.dup2(file, number)
    code = 1
    try:
        code = call(command)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def call(command: list[str]) -> int:
    """Return the command's exit code."""
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if command[1:2] != ["-m"]:
        from dvc.cli import main

        sys.path[0], sys.argv = str(Path(sys.executable).parent), command
        return main()
    sys.path[0], sys.argv = str(Path.cwd()), command[2:]
    runpy._run_module_as_main(command[2])  # as the interpreter itself does for -m, whose workers look for __main__
    return 0


if __name__ == "__main__":
    serve()
