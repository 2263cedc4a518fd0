"""What messages say is so: sections they name are there, one is no plural, zips are advised where they pay."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, Project
from test_docs import anchors

import run
from imagepack.commands import advice
from imagepack.names import counted

SOURCES = [
    REPOSITORY / "run.py",
    *(path for name in ("imagepack", "stages") for path in (REPOSITORY / name).rglob("*.py")),
]
PLACE = re.compile(r"\b(README(?:\.md)?|docs/[\w-]+\.md)(?:, ([A-Z][^,.()':]*))?")
"""A document, and the section that is named after it."""


def texts(source: Path) -> Iterator[str]:
    """Texts of a module, f-strings without what is put into them; docstrings too."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_documents_and_sections_that_messages_name_are_there():
    found = [
        (name if name.endswith(".md") else f"{name}.md", (section or "").strip())
        for source in SOURCES
        for text in texts(source)
        for name, section in PLACE.findall(text)
    ]
    assert len([section for _, section in found if section]) >= 6
    missing = []
    for name, section in found:
        headings = anchors((REPOSITORY / name).read_text(encoding="utf-8"))
        if section and section.lower().replace(" ", "-") not in headings:
            missing.append(f"{name}, {section}")
    assert missing == []


def test_help_names_gc():
    assert "python3 run.py gc [--yes [--cloud]]" in run.__doc__


@pytest.mark.parametrize("command", ["doctor", "memo"])
def test_a_command_whose_output_nobody_reads_ends_without_a_traceback(command: str, template: Project):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "imagepack.commands", command]
        done = subprocess.run(command, cwd=template.folder, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert done.stderr == "run.py: stopped, as nobody reads what it prints\n"
    assert done.returncode == 141


def test_one_is_no_plural():
    assert [counted(number, "class") for number in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def write_locks(folder: Path, files: int, size: int) -> None:
    """The files of DVC, as if data/raw and data/processed had so many files of so many bytes."""
    out = {"md5": f"{'0' * 32}.dir", "size": files * size, "nfiles": files, "hash": "md5"}
    (folder / "data").mkdir()
    (folder / "data/raw.dvc").write_text(yaml.safe_dump({"outs": [{"path": "raw", **out}]}))
    stage = {"cmd": "x", "outs": [{"path": "data/processed", **out}]}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"preprocess": stage}}))


@pytest.mark.parametrize(
    ("files", "size", "said"),
    [(217, 60_000, False), (10_000, 60_000, False), (20_000, 60_000, True), (20_000, 3_000_000, False), (0, 0, False)],
)
def test_zips_are_advised_where_they_save_a_minute(
    files: int, size: int, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert advice.zips() == ""  # before the first run
    write_locks(tmp_path, files, size)
    printed = advice.zips()
    assert bool(printed) == said
    if said:
        assert printed.startswith("40,000 files of 59 KiB on average: to push or pull all takes DVC some 73 to 100 s,")
        assert printed.endswith(
            "To have zips: python3 run.py zip for data/raw, preprocess.layout: zip in params.yaml for data/processed"
        )
