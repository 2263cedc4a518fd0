"""Runs commands in forks of a process that has imported DVC and other libraries, which takes longer than most do.

Each is the real one, in a process of its own, with the folder, environment and output that it is given: `dvc ...`, and
`python -m imagepack...` with the code that is in that folder. So are `dvc` and the stages that these start in turn, and
the processes that stages start their workers from.
"""

import gc
import importlib
import itertools
import marshal
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import util
from pathlib import Path

from command_client import ADDRESS, NOT_SERVED, ask

COMMON = (
    *("dvc.cachemgr", "dvc.cli.parser", "dvc.data_cloud", "dvc.dirs", "dvc.lock", "dvc.repo.artifacts"),
    *(
        "dvc.repo.datasets",
        "dvc.repo.experiments.cache",
        "dvc.repo.index",
        "dvc.repo.metrics.show",
        "dvc.repo.open_repo",
    ),
    *("dvc.repo.params.show", "dvc.repo.plots", "dvc.repo.reproduce", "dvc.repo.stage", "dvc.repo.trie", "dvc.rwlock"),
    *("dvc.repo.worktree", "dvc.scm", "dvc.utils.strictyaml", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status"),
    *(
        "dvc_data.index.checkout",
        "dvc_data.index.fetch",
        "dvc_data.index.push",
        "dvc_s3",
        "fsspec.implementations.memory",
    ),
    *("configobj", "dulwich.client", "dulwich.ignore", "dulwich.worktree", "networkx", "platformdirs.unix", "pygit2"),
    *("rich.status", "ruamel.yaml", "s3fs", "scmrepo.fs", "scmrepo.git", "tarfile"),
    *("PIL.Image", "PIL.ImageCms", "PIL.ImageDraw", "PIL.ImageFilter", "PIL.ImageOps", "PIL.JpegImagePlugin"),
    *("PIL.PngImagePlugin", "botocore.session", "h5py", "jinja2", "multiprocessing.forkserver", "numpy", "polars"),
    *("psutil", "pydantic.fields", "pydantic.main", "pydantic.plugin", "pydantic.types", "scipy.special", "simplejpeg"),
    *("tqdm", "xxhash", "yaml", "zlib_ng.zlib_ng"),
)
"""What commands import."""
AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""How variables begin that an interpreter reads when it starts."""
SOCKET = "socket"
"""Its name, beside the programs that ask through it."""
SCRIPT = """\
#!{} -IS
import sys
sys.path.insert(0, {!r})
from command_client import be
be({!r}, {!r})
"""


class CommandServer:
    """Starts with the first command and ends with this process."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[int, str] | None:
        """Return exit code and what was printed; None for other commands."""
        if not is_known(command, environment) or not hasattr(os, "fork"):
            return None
        with self._lock:
            if self._process is None:
                self._folder = Path(tempfile.mkdtemp(prefix="commands-"))
                self._process = start(self._folder)
        address = str(self._folder / SOCKET)
        env = environment | {ADDRESS: address, "PATH": f"{self._folder}{os.pathsep}{environment['PATH']}"}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output, open(os.devnull) as nothing:  # noqa: PTH123
            files = [nothing.fileno(), output.fileno(), output.fileno()]
            code = ask(address, [*map(str, command)], str(folder), env, files)
            output.seek(0)
            return None if code == NOT_SERVED else (code, output.read())


def is_known(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether the command is DVC or one of the package's, of this environment."""
    program = Path(shutil.which(command[0], path=environment["PATH"]) or "")
    known = program.stem == "dvc" or (list(command[1:2]) == ["-m"] and command[2].startswith("imagepack"))
    return known and program.parent == Path(sys.executable).parent


def start(folder: Path) -> subprocess.Popen:
    """Start the server, with its socket in `folder`, beside the `dvc` and `python` that commands are to start."""
    real = Path(sys.executable)
    for program, served in ((real.with_name("python"), ("-m", "imagepack.engine")), (real.with_name("dvc"), ())):
        file = folder / program.name
        file.write_text(SCRIPT.format(real, str(Path(__file__).parent), str(program), served), encoding="utf-8")
        file.chmod(0o755)
    environment = os.environ | {"_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}  # as stages have it
    server = [sys.executable, __file__, folder]
    process = subprocess.Popen(server, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def serve(folder: Path) -> None:
    """Do each command that is asked for, with its exit code for an answer."""
    for name in COMMON:  # nothing of it starts a thread or looks at the folder or the environment
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork then leaves alone what both share
    gc.set_threshold(50_000, 20, 100)  # a command ends before it has much garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked here
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(folder / SOCKET))
        listener.listen(64)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(flush=True)
        while all(key.fileobj is listener for key, _ in selector.select()):
            client, _ = listener.accept()
            if not os.fork():
                selector.close()
                listener.close()
                try:
                    answer(client)
                finally:
                    os._exit(1)
            client.close()
    shutil.rmtree(folder)


def answer(client: socket.socket) -> None:
    """Run the command that a client asks for, in a fork of this process; answer with its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile("rwb") as stream:
        command, folder, environment = marshal.load(stream)
        code = NOT_SERVED
        if at_start(environment) == at_start(os.environ):
            child = os.fork()
            if not child:
                run(command, folder, environment, files)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        marshal.dump(code, stream)


def at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those of the variables that a fork would not read."""
    found = {name: value for name, value in environment.items() if name.startswith(AT_START)}
    found.pop("PYTHONPATH", None)  # the fork has it
    return found


def run(command: list[str], folder: str, env: dict[str, str], files: list[int]) -> None:
    """Become the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # TMPDIR may be another
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, max(files) + 1)
    fork_helpers()
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


def fork_helpers() -> None:
    """Let multiprocessing's own processes, from which workers are forked, be forks of this one too."""
    spawn = util.spawnv_passfds

    def fork(path: bytes, arguments: list[str], kept: list[int]) -> int:
        if arguments[-2] != "-c":
            return spawn(path, arguments, kept)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            try:
                borders = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
                for before, after in itertools.pairwise(borders):
                    os.closerange(before + 1, after)
                exec(arguments[-1], {"__name__": "__main__"})
            finally:
                os._exit(0)
        return child

    util.spawnv_passfds = fork


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
