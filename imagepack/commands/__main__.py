"""Run a command, which ends in a word where nobody reads on, as in `python3 run.py doctor | head`.

python -m imagepack.commands NAME ...
"""

import io
import os
import runpy
import sys
from typing import NoReturn

UNREAD = 141
"""Exit code, as shells have it of a program that SIGPIPE has ended."""


class Output(io.TextIOWrapper):
    """Standard output that ends the process where nobody reads on.

    A BrokenPipeError is an OSError, which commands take for a fault of a file. SIGPIPE would end them at a connection
    to a server too.
    """

    def write(self, text: str) -> int:
        """Write text; return its length."""
        try:
            return super().write(text)
        except BrokenPipeError:
            stop()

    def flush(self) -> None:
        """Write what is in the buffer."""
        try:
            super().flush()
        except BrokenPipeError:
            stop()


def stop() -> NoReturn:
    """End the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
    print("run.py: stopped, as nobody reads what it prints", file=sys.stderr)
    sys.exit(UNREAD)


def main() -> None:
    """Become the module that the command line names."""
    out = sys.stdout
    sys.stdout = Output(out.buffer, out.encoding, out.errors, line_buffering=out.line_buffering)
    name = sys.argv.pop(1)
    try:
        runpy.run_module(f"imagepack.commands.{name}", run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
