"""Write the page of a version: its name, date and revision, classes and splits, sizes, samples, findings.

    python3 run.py report                     of what is here, as reports/dataset.html
    python3 run.py report v1                  of v1 (a commit, tag, branch or DVC experiment), as dataset-v1.html
    python3 run.py report v1 --html v1.html

It is reports/validation.html, which validate made, with what a stage cannot know: a stage's output may depend neither
on the folder's name nor on the day, and splits are chosen after it.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from imagepack.checks import overview
from imagepack.commands.compare import project
from imagepack.compare.versions import CACHE_BYTES, Version, read
from imagepack.dvc import git
from imagepack.dvc.download_cache import DownloadCache, user_folder
from imagepack.dvc.revision_files import RevisionFiles
from imagepack.errors import InputError
from imagepack.names import visible, visible_lines
from imagepack.reader.format import PackError

PAGE, OUT = Path("reports/validation.html"), Path("reports/dataset.html")
HEADING, CLASSES = ('<header id="heading">', "</header>"), ('<section class="panel" id="classes">', "</section>")
RAW_UNKNOWN = '<main data-raw="">'
"""Where parts of the page that are drawn anew begin and end. Names from outside are escaped, and have no tags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", nargs="?", metavar="VERSION", help="the workspace unless given")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page there")
    options = parser.parse_args(arguments)
    try:
        print(f"Written: {visible(str(write(project(), options.version, options.html)))}")
    except (InputError, PackError) as error:
        print(visible_lines(f"report: {error}"), file=sys.stderr)
        return 1
    return 0


def write(folder: Path, name: str | None = None, out: Path | None = None) -> Path:
    """Write the page of a version; return where.

    Args:
        folder: of the repository.
        name: of the version; None for the workspace.
        out: the file; reports/dataset.html of the workspace, else a name in the folder one is in, unless given.

    Raises:
        InputError, PackError: there is no such version, or it has no page; or the file cannot be written.
    """
    version = read(name, folder)
    out = out or (folder / OUT if name is None else Path("dataset-" + re.sub(r"[^\w.-]", "-", name) + ".html"))
    page = complete(_validation_page(folder, name), folder.name, version, list(_about(folder, version)))
    if name is None and version.raw:
        page = page.replace(RAW_UNKNOWN, f'<main data-raw="{_address(version.raw.folder, out.parent)}/">', 1)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror or error}): name another file") from None
    return out


def _address(raw: Path, beside: Path) -> str:
    """Where the raw images are, for a page in the folder `beside`."""
    try:
        return quote(Path(os.path.relpath(raw, beside)).as_posix())
    except ValueError:  # on another drive of Windows
        return raw.absolute().as_uri()


def _validation_page(folder: Path, name: str | None) -> str:
    """The page that validate made of a version."""
    missing = f"{name or 'the workspace'} has no {PAGE}: run `dvc repro`" + " there, and commit" * (name is not None)
    if name is None:
        path = folder / PAGE
    else:
        files = RevisionFiles(name, folder, DownloadCache(user_folder(), CACHE_BYTES))
        if not files.has(PAGE.as_posix()):
            raise InputError(missing)
        path = files.get(PAGE.as_posix())
    if not path.is_file():
        raise InputError(f"{missing}, or `dvc pull`")
    return path.read_text(encoding="utf-8")


def complete(page: str, name: str, version: Version, about: Sequence[str]) -> str:
    """Return the page of validate with a heading that says which version it is, and its splits.

    Args:
        page: reports/validation.html.
        name: of the dataset.
        version: whose page it is.
        about: lines below the name.

    Raises:
        InputError: it is the page of an earlier version of the template.
    """
    from imagepack.html import pages  # imported here, since Jinja2 would slow the start

    if not all(page.count(begin) == 1 for begin, _ in (HEADING, CLASSES)):
        raise InputError(f"{PAGE} of {version.name} is of another version of this template: run `dvc repro`")
    heading = pages.part("overview.html", "heading", name, about, version.warnings)
    images = version.images if version.pack else version.images.drop("split")
    classes = pages.part("overview.html", "class_bars", overview.classes(images))
    for (begin, end), part in ((HEADING, heading), (CLASSES, classes)):
        before, _, rest = page.partition(begin)
        page = before + part.strip() + rest.partition(end)[2]
    return page.replace("<title>Image dataset</title>", f"<title>{pages.mark_invisible(visible(name))}</title>", 1)


def _about(folder: Path, version: Version) -> Iterator[str]:
    """Which version it is, and which pack it has."""
    commit = version.revision or git.text("rev-parse", "--verify", "-q", "HEAD", folder=folder)
    if not commit:
        yield "Not committed yet"
    else:
        tags = [found.name for found in git.references(folder) if found.kind == "tag" and found.commit == commit]
        date, subject = (git.text("log", "-1", "--format=%cs%n%s", commit, folder=folder) or "\n").split("\n", 1)
        named = [version.name] if version.revision and version.name not in (*tags, commit) else []
        line = " · ".join([*named, *tags[:3], commit[:10], date, subject])
        changed = not version.revision and git.lines("status", "--porcelain", "--", "dvc.lock", "*.dvc", folder=folder)
        yield f"Not committed yet; the last commit: {line}" if changed else line
    if version.pack:
        yield f"Pack {version.pack.digest[:12]}"


if __name__ == "__main__":
    sys.exit(main())
