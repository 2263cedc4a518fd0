"""What long work shows: a progress bar on a terminal, plain lines in a log."""

import sys

from tqdm import tqdm


def progress_bar(total: int, desc: str) -> tqdm:
    """Return a bar on a terminal; elsewhere a line every half minute."""
    style = {"bar_format": "{desc}: {n_fmt} of {total_fmt} images, {rate_fmt}\n", "mininterval": 30, "delay": 30}
    return tqdm(total=total, desc=desc, unit="img", **({} if sys.stderr.isatty() else style))


def say(line: str) -> None:
    """Print a line on stderr, above a bar on a terminal; elsewhere tqdm would print the bar's line anew."""
    tqdm.write(line, file=sys.stderr) if sys.stderr.isatty() else print(line, file=sys.stderr, flush=True)
