"""Asks the command server; what `dvc` and `python` do that commands start in tests. It imports next to nothing."""

import marshal
import os
import socket
import sys

ADDRESS = "COMMAND_SERVER"
"""Variable with the server's socket, for what a command starts."""
NOT_SERVED = 256
"""In place of an exit code: a fork of the server would be another process than this command."""


def ask(address: str, command: list[str], folder: str, environment: dict[str, str], files: list[int]) -> int:
    """Have the server run a command with these files for stdin, stdout and stderr; return the exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [b"."], files)
        with server.makefile("rwb") as stream:
            marshal.dump((command, folder, environment), stream)
            stream.flush()
            return marshal.load(stream)


def be(program: str, served: tuple[str, ...]) -> None:
    """Do what `dvc ...` or `python ...` says, by the server where the arguments begin with `served`.

    Args:
        program: the real one.
    """
    arguments = sys.argv[1:]
    if os.environ.get(ADDRESS) and arguments[: len(served)] == [*served]:
        command = [os.path.basename(program), *arguments]  # noqa: PTH119
        code = ask(os.environ[ADDRESS], command, os.getcwd(), dict(os.environ), [0, 1, 2])  # noqa: PTH109
        if code < 0:
            os.kill(os.getpid(), -code)
        if code != NOT_SERVED:
            os._exit(code)
    os.execv(program, [program, *arguments])
