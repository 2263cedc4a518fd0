"""Names that command a terminal or a spreadsheet are harmless wherever we print them, and come back as they were."""

import csv
import shlex
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, Workspace, add_pictures

from imagepack import PackedImages
from imagepack.checks import validation_reports
from imagepack.errors import InputError
from imagepack.names import HIDDEN, visible, visible_lines
from stages.validate import Validate

HOSTILE = [
    "clear\x1b[2J\x1b]52;c;aGk=\x07.png",
    "line\nerror: all is lost\r.png",
    "turned\u202egnp.exe.png",
    "zero\u200bwidth\x85.png",
    "=cmd|' C calc'!A0.png",
    "日本語 é.png",
]
CLASSES = ["=1+cmd|' C calc'!A0", "-\x1b[31mred", "'quoted"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")

VALIDATE = shlex.split("python -m imagepack.engine validate data/raw data/none.csv m.parquet reports")


def hidden_in(printed: str) -> set[str]:
    """What a terminal would obey, or not show."""
    return {character for character in printed if unicodedata.category(character) in HIDDEN} - {"\n"}


def test_a_name_is_one_line_and_a_message_stays_of_several():
    assert visible("\x1b[2J\n\u202egpj\udcff\ud800") == r"\x1b[2J\n\u202egpj\xff\ud800"
    assert visible("日本語 é 👩\u200d🔬") == "日本語 é 👩\u200d🔬"
    assert visible_lines("first\n  \x07second\n") == "first\n  \\x07second\n"


def test_no_cell_of_a_table_is_a_formula_and_names_come_back(workspace: Workspace):
    for number, label in enumerate(CLASSES):
        add_pictures(workspace.raw, 2, label, first=2 * number)
        (workspace.raw / label / "empty.png").touch()
    (workspace.raw / HOSTILE[4]).touch()
    workspace.validate()
    rejected = workspace.reports / "rejected.csv"
    for table in (rejected, workspace.reports / "plots/classes.csv"):
        with table.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    paths = set(validation_reports.read_rejected(rejected)["path"])
    assert paths == {f"{label}/empty.png" for label in CLASSES} | {HOSTILE[4]}


def test_the_lines_that_a_stage_wants_acknowledged_are_printable_and_are_taken(workspace: Workspace):
    add_pictures(workspace.raw, 2)
    (workspace.raw / "cat" / HOSTILE[1]).touch()
    params = Validate(fail_on=["empty_file"])
    with pytest.raises(InputError) as error:
        workspace.validate(params)
    assert not hidden_in(str(error.value))
    lines = [line.strip() for line in str(error.value).splitlines() if ",empty_file," in line]
    workspace.acknowledged.write_text("\n".join(["image,code,note", *lines]), encoding="utf-8")
    workspace.validate(params)


@pytest.mark.slow
def test_our_commands_print_nothing_that_a_terminal_obeys(new_project: Callable[[], Project], tmp_path: Path):
    project = new_project()
    raw = project.folder / "data/raw"
    for number, label in enumerate(CLASSES):
        add_pictures(raw, 3, label, first=3 * number)
    for name in HOSTILE:
        (raw / CLASSES[1] / name).touch()
    project("dvc", "remote", "add", "--default", "--force", "s3", str(tmp_path / "remote"))
    printed = project("python", "-m", "imagepack.commands.run", PYTHONIOENCODING="ascii:backslashreplace")
    assert r"-\x1b[31mred/clear\x1b[2J" in printed
    assert r"line\nerror: all is lost\r.png" in printed
    project.commit("First version")
    printed += project("python", "-m", "imagepack", "info", "data/packed")
    (raw / CLASSES[1] / "img3.png").rename(raw / CLASSES[1] / HOSTILE[2].replace("turned", "moved"))
    (raw / CLASSES[0] / HOSTILE[0]).write_bytes((raw / CLASSES[0] / "img0.png").read_bytes()[:-20])
    (raw / CLASSES[2] / "img6.png").rename(raw / CLASSES[2] / "\x1b[5m.png")
    printed += project("dvc", "add", "--quiet", "data/raw")
    printed += project(*VALIDATE)
    printed += project("python", "-m", "imagepack.commands.run")
    to_a_comment = ("--markdown", "comment.md", "--fail-on", "invalid_increase")
    printed += project("python", "-m", "imagepack.commands.compare", *to_a_comment, ok=None)
    printed += (project.folder / "comment.md").read_text(encoding="utf-8")
    printed += project("python", "-m", "imagepack.commands.doctor", ok=None)
    (raw / CLASSES[1] / HOSTILE[0]).write_text("changed")
    (raw / CLASSES[2] / "a\x1bb.zip").write_text("no zip")
    printed += project(*VALIDATE, ok=False)
    printed += project("python", "-m", "imagepack.commands.zips", "data/raw", ok=None)
    (raw / CLASSES[2] / "a\x1bb.zip").unlink()
    printed += project("python", "-m", "imagepack.commands.quarantine", ok=False)
    assert "Left where they are: 1" in printed
    assert not hidden_in(printed), {line for line in printed.splitlines() if hidden_in(line)}
    assert len(list((project.folder / "data/quarantine").rglob("*.png"))) == len(HOSTILE)
    assert PackedImages(project.folder / "data/packed").classes == sorted(CLASSES)
