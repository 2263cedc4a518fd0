"""Runs DVC's commands in forks of a process that has imported DVC: to import it takes longer than most commands do.

They are DVC's own, each in a process of its own, with the folder, environment and output that it is given.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

COMMON = (
    *("dvc.cachemgr", "dvc.cli.parser", "dvc.data_cloud", "dvc.lock", "dvc.repo.artifacts", "dvc.repo.metrics"),
    *("dvc.repo.open_repo", "dvc.repo.params", "dvc.repo.plots", "dvc.repo.reproduce", "dvc.rwlock", "dvc.scm"),
    *("dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.index.push"),
    *("dulwich.client", "dvc_s3", "ruamel.yaml", "s3fs", "scmrepo.git"),
)
"""What commands import."""


class DvcServer:
    """Starts with the first command and ends with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def run(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str] | None:
        """Run `dvc` with these arguments: exit code, and what it printed. None while it is at work for another."""
        if not hasattr(os, "fork") or not self._lock.acquire(blocking=False):
            return None
        try:
            if self._process is None:
                command = [sys.executable, __file__]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
                request = {"arguments": arguments, "folder": str(folder), "env": environment, "output": output.name}
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                code = int(self._process.stdout.readline())
                return code, output.read()
        finally:
            self._lock.release()


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
    sys.path[0] = str(Path(sys.executable).parent)  # as for the command


def run(arguments: list[str], folder: str, env: dict[str, str], output: str) -> None:
    """Become the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    written = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), written, written)):
        os.dup2(file, number)
    sys.argv = ["dvc", *arguments]
    from dvc.cli import main

    code = 1
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
