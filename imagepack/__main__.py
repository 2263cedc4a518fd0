"""Questions about packs.

python -m imagepack info PACK                    what is in a pack
python -m imagepack verify PACK                  every image against its checksum
python -m imagepack whence DIGEST [--repo .]     the git revisions that have this pack
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from imagepack.dvc import provenance
from imagepack.names import visible, visible_lines
from imagepack.reader import card
from imagepack.reader.format import AGAIN, PackError
from imagepack.reader.packed_images import Folder, PackedImages
from imagepack.reader.verify import verify


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m imagepack", description="Questions about packs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, words in (("info", _info, "what is in a pack"), ("verify", _verify, "look for damage")):
        command = commands.add_parser(name, help=words)
        command.add_argument("pack", type=Path, metavar="PACK", help="the folder: data/packed")
        command.set_defaults(run=run)
    whence = commands.add_parser("whence", help="the git revisions that have a pack")
    whence.add_argument("digest", type=_digest, metavar="DIGEST", help="of the pack, or its first 8 or more digits")
    whence.add_argument("--repo", type=Path, default=Path(), help="where the git repository is (default: here)")
    whence.set_defaults(run=_whence)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except PackError as error:
        print(visible_lines(f"imagepack: {error}"), file=sys.stderr)
        return 1


def _info(options: argparse.Namespace) -> int:
    print(card.text(PackedImages(options.pack)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    images, faults = 0, []
    for count, found in verify(Folder(options.pack)):
        images += count
        faults += found
        if sys.stderr.isatty():
            print(f"\r{images:,} images", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    if faults:
        raise PackError("\n  ".join([f"{options.pack} is damaged:", *faults, AGAIN]))
    print(f"{images:,} images, all of them sound")
    return 0


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{8,64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no digest: 8 to 64 hexadecimal digits")
    return text.lower()


def _whence(options: argparse.Namespace) -> int:
    commits = provenance.whence(options.digest, options.repo)
    if not commits:
        raise PackError(
            f"no revision in {options.repo.absolute()} has the pack {options.digest}: "
            "fetch what others have (git fetch --all --tags; dvc exp pull), or ask in another repository"
        )
    for digest in dict.fromkeys(commit.digest for commit in commits):
        mine = [commit for commit in commits if commit.digest == digest]
        print(f"pack {digest}: {len(mine)} revision{'s' * (len(mine) != 1)}")
        for commit in mine:
            names = f"  ({', '.join(commit.names)})" if commit.names else ""
            print(visible(f"  {commit.commit[:12]}  {commit.date}  {commit.subject}{names}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
