"""Compare two versions of the dataset: what happened to the images, and does it matter?

    python3 run.py compare                       what changed since the last commit
    python3 run.py compare v1                    since v1 (a commit, tag, branch or DVC experiment)
    python3 run.py compare v1 v2 --html c.html   from v1 to v2, with pictures
    python3 run.py compare --experiments         which experiments used the same data

Only the manifests are fetched, and of the images those that are shown.
"""

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from imagepack.compare import experiments, gates, markdown, page, pictures, terminal
from imagepack.compare.comparison import Comparison, compare
from imagepack.compare.versions import WORKSPACE, Version, read
from imagepack.errors import InputError
from imagepack.names import visible, visible_lines
from imagepack.reader.format import PackError

PICTURES = 200
"""Changed images that are fetched and drawn, unless --pictures says otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    try:
        if options.experiments:
            return _experiments(options)
        rules = gates.parse(options.fail_on) if options.fail_on is not None else []
        a, b = _versions(options.a or "HEAD", options.b or WORKSPACE)
        found = compare(a, b, options.novelty)
        print(terminal.text(found.summary, found.changes, shutil.get_terminal_size((100, 24)).columns), end="")
        found = _write(found, a, b, options)
        return _exit_code(found, rules)
    except (InputError, PackError) as error:
        print(visible_lines(f"compare: {error}"), file=sys.stderr)
        return 1


def _experiments(options: argparse.Namespace) -> int:
    """The table of all experiments; the exit code."""
    found = experiments.table(project(), options.sort_by, options.ascending)
    if options.json:
        with _writing(options.json):
            text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
            options.json.write_text(text, encoding="utf-8", newline="\n")
    print(experiments.text(found, shutil.get_terminal_size((100, 24)).columns), end="")
    if options.json:
        print(f"\nWritten: {visible(str(options.json))}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 run.py compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", nargs="?", metavar="A", help="the older version (HEAD unless given)")
    parser.add_argument("b", nargs="?", metavar="B", help="the newer version (workspace unless given)")
    for name, what in (
        ("json", "all of it, as data"),
        ("markdown", "a comment for a pull request"),
        ("html", "a page"),
    ):
        parser.add_argument(f"--{name}", type=_file, metavar="FILE", help=f"write {what}")
    parser.add_argument("--fail-on", metavar="RULES", help=f"exit code 1 on any of: {','.join(gates.RULES)}")
    parser.add_argument("--novelty", action="store_true", help="look for new images that resemble old ones")
    parser.add_argument(
        "--pictures", type=_count, default=PICTURES, metavar="N",
        help=f"changed images to fetch for --html and --json (0 for none; {PICTURES} unless given)",
    )  # fmt: skip
    parser.add_argument("--experiments", action="store_true", help="a table of all experiments and their data")
    parser.add_argument("--sort-by", metavar="METRIC", help="of --experiments: the best first")
    parser.add_argument("--ascending", action="store_true", help="of --sort-by: the smallest is the best")
    return parser


def _file(text: str) -> Path:
    path = Path(text)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, or no name: name a file")
    return path


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0")
    return int(text)


def project() -> Path:
    """Return the folder of dvc.yaml, this one or above."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise InputError(f"there is no dvc.yaml in {here} or above: go to the dataset's repository")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if options.experiments and (options.html or options.markdown or options.fail_on or options.a or options.b):
        parser.error("--experiments goes with --json, --sort-by and --ascending alone")
    if not options.experiments and (options.sort_by or options.ascending):
        parser.error("--sort-by and --ascending go with --experiments")
    if options.ascending and not options.sort_by:
        parser.error("--ascending goes with --sort-by")
    files = [path.absolute() for path in (options.json, options.markdown, options.html) if path]
    if len(set(files)) < len(files):
        parser.error("two outputs have the same name")


def _versions(a: str, b: str) -> tuple[Version, Version]:
    folder = project()
    if a == b == WORKSPACE:
        raise InputError("both are the workspace: name two versions")
    one, other = (read(None if name == WORKSPACE else name, folder) for name in (a, b))
    if one.revision == other.revision:
        raise InputError(f"{a} and {b} are the same commit, {one.revision[:12]}: name two versions")
    return one, other


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What writes to `path` runs in here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): name another file") from None


def _write(found: Comparison, a: Version, b: Version, options: argparse.Namespace) -> Comparison:
    """Write the files that were asked for; what pictures told is in the comparison returned."""
    drawn = {}
    if options.html or options.json:
        drawn = pictures.draw(a, b, found.changes, page.pictured(found.changes, options.pictures))
        found = Comparison(found.summary, _with_distances(found.changes, drawn))
    if options.json:
        with _writing(options.json):
            found.write_json(options.json)
    if options.markdown:
        with _writing(options.markdown):
            options.markdown.write_text(markdown.text(found.summary, found.changes), encoding="utf-8", newline="\n")
    if options.html:
        with _writing(options.html):
            page.write(options.html, found.summary, found.changes, drawn)
    if written := [path for path in (options.html, options.markdown, options.json) if path]:
        print(f"\nWritten: {', '.join(map(visible, map(str, written)))}")
    return found


def _with_distances(changes: pl.DataFrame, drawn: dict[int, pictures.Pictures]) -> pl.DataFrame:
    distances = [None] * len(changes)
    for row, picture in drawn.items():
        distances[row] = picture.distance
    return changes.with_columns(pixel_distance=pl.Series(distances, dtype=pl.Float64))


def _exit_code(found: Comparison, rules: Sequence[str]) -> int:
    """Say which rules are broken; return the exit code."""
    failures = gates.check(found.summary, found.changes, rules)
    for failure in failures:
        print(visible_lines(f"\n{failure.message}"), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
