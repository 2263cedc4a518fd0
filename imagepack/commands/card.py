"""Write the card of a version: README.md for people and the Hub, croissant.json for programs, and contact sheets.

    python3 run.py card                       of what is here, into reports/card
    python3 run.py card v1                    of v1 (a commit, tag, branch or DVC experiment), into card-v1
    python3 run.py card v1 --out ../cards/v1

Title, licence and authors come from CITATION.cff, where that has `type: dataset`; all else is what the pipeline knows.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from imagepack.commands.compare import project
from imagepack.commands.export import require_outside, require_place, writing
from imagepack.compare.versions import Version, read
from imagepack.errors import InputError
from imagepack.exporting import card, croissant, known
from imagepack.exporting.card import Facts
from imagepack.exporting.file_names import safe
from imagepack.exporting.selection import open_pack
from imagepack.images.manifest import COLUMN
from imagepack.names import visible, visible_lines
from imagepack.reader import format as packs
from imagepack.reader.format import PackError

OUT = Path("reports/card")
CARD, CROISSANT, SHEETS = "README.md", "croissant.json", "preview"
OF_MANIFEST = ("path", "label", "batch", "status", "sha256", "format", "width", "height", "bytes")
"""Columns that croissant.json describes, beside those of tables."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", nargs="?", metavar="VERSION", help="the workspace unless given")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write there: an empty or new folder")
    options = parser.parse_args(arguments)
    try:
        print(f"Written: {visible(str(write(project(), options.version, options.out)))}")
    except (InputError, PackError) as error:
        print(visible_lines(f"card: {error}"), file=sys.stderr)
        return 1
    return 0


def write(folder: Path, name: str | None = None, out: Path | None = None) -> Path:
    """Write the card of a version; return where.

    Args:
        folder: of the repository.
        name: of the version; None for the workspace.
        out: an empty or new folder; OUT of the workspace, else a name in the folder one is in, which are replaced.

    Raises:
        InputError, PackError: there is no such version, or no pack in it; or the folder cannot be written.
    """
    version = read(name, folder)
    place = out or (folder / OUT if name is None else Path("card-" + re.sub(r"[^\w.-]", "-", name)))
    dest = place.absolute()
    if out:
        require_place(dest, is_folder=True)
        require_outside(dest, folder, version)
    packed, commit = open_pack(folder, version), known.commit_of(folder, version)
    for warning in version.warnings:
        _say(warning)
    with writing(dest, replace=out is None) as there:
        (there / SHEETS).mkdir(parents=True)
        facts = Facts(
            version, packed, known.cited(folder, version, folder.name), commit.name, commit.date, commit.tags,
            _changes(folder, version, commit), _sheets(folder, version, there / SHEETS),
        )  # fmt: skip
        (there / CARD).write_text(card.text(facts, _usage(folder, facts)), encoding="utf-8", newline="\n")
        text = _croissant(folder, facts, dest)
        (there / CROISSANT).write_text(text, encoding="utf-8", newline="\n")
    if not facts.citation.licenses:
        _say(f"no licence: write title, authors and license into {known.citation.FILE}, with type: dataset")
    return place


def _say(line: str) -> None:
    print(visible_lines(f"card: {line}"), file=sys.stderr)


def _changes(folder: Path, version: Version, commit: known.Commit) -> str:
    try:
        return known.changes(folder, version, commit)
    except InputError as error:
        _say(f"nothing about the version before, which cannot be read: {error}")
        return ""


def _sheets(folder: Path, version: Version, there: Path) -> dict[str, str]:
    """Copy the contact sheets; return their addresses by class."""
    found = {}
    try:
        for name, path in known.sheets(folder, version):
            file = f"{safe(name)}.png"
            shutil.copyfile(path, there / file)
            found[name] = f"{SHEETS}/{quote(file)}"
    except PackError as error:
        _say(f"without contact sheets: {error}")
    return found


def _usage(folder: Path, facts: Facts) -> str:
    """How to read the pack from git and the bucket."""
    revision = (facts.tags[0] if facts.tags else facts.commit) or "HEAD"
    repo = known.origin(folder) or "PATH OR ADDRESS OF THIS REPOSITORY"
    return (
        "```python\nfrom imagepack import PackedImages\n\n"
        f"packed = PackedImages.at({json.dumps(revision)}, {json.dumps(repo)})\n"
        'image, label = packed.split("train")[0]  # uint8 (H, W, C)\n```'
    )


def _croissant(folder: Path, facts: Facts, dest: Path) -> str:
    """Describe the manifest and the pack, as they are where the version is checked out."""
    version, files = facts.version, known.VersionFiles(folder, facts.version)
    up = "../" * len(dest.relative_to(folder).parts) if dest.is_relative_to(folder) else ""
    distribution = []
    index = f"{version.pack_path}/{packs.INDEX_NAME}"
    for path in (known.manifest_path(version), index):
        if file := files.get(path):
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            distribution.append(croissant.file(up + path, digest, file.stat().st_size))
    for name, size in version.pack.shards.items():
        path = f"{up}{version.pack_path}/{packs.SHARDS_NAME}/{name}"
        distribution.append(croissant.file(path, PurePosixPath(name).stem, size))
    return croissant.document(facts, distribution, [croissant.classes(facts.packed.classes), _records(facts, up)])


def _records(facts: Facts, up: str) -> dict:
    """The record set of the images: rows of the manifest."""
    version = facts.version
    source = {"fileObject": {"@id": up + known.manifest_path(version)}}
    names = [*OF_MANIFEST, *(name for name in version.images.columns if name.startswith(COLUMN))]
    fields = [croissant.field("images", name, version.images.schema[name], source) for name in names]
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "key": {"@id": "images/path"}, "field": fields}


if __name__ == "__main__":
    sys.exit(main())
