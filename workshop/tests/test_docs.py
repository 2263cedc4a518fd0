"""What the documents say is so: their commands exist, their code runs, their tables are whole."""

import os
import re
import shlex
import subprocess
import sys

import polars as pl
import pytest
from conftest import FIXES, REPOSITORY, Workspace, add_pictures, template_params

from imagepack.checks.codes import CHECKS

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
OUTPUT = (REPOSITORY / "docs/output.md").read_text(encoding="utf-8")
LISTED = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
DOCUMENTS = [REPOSITORY / name for name in subprocess.check_output(LISTED, cwd=REPOSITORY, text=True).splitlines()]
WITHOUT_FRAMEWORKS = [path for path in DOCUMENTS if path.name != "training.md"]  # test_frameworks.py runs that one


def blocks(text: str, language: str) -> list[str]:
    """Code blocks, without the indentation that a list gives them."""
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return [re.sub(r"^ +(?=\$)", "", block, flags=re.MULTILINE) for block in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)", document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        target = document.parent / link if link else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{link}#{anchor}"


def anchors(text: str) -> list[str]:
    """What links to the headings of a document end with."""
    headings = re.findall(r"^#+ (.+)", re.sub("```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("document", WITHOUT_FRAMEWORKS, ids=lambda path: path.name)
def test_python_code_runs(document, workspace: Workspace):
    code = blocks(document.read_text(encoding="utf-8"), "python")
    if not code:
        return
    add_pictures(workspace.raw, 20)
    rows = "".join(f"cat/img{n}.png,{('mono', 'poly')[n % 2]},{n / 20},p{n % 5}\n" for n in range(20))
    (workspace.raw / "metadata.csv").write_text(f"file_name,type,probability,patient\n{rows}", encoding="utf-8")
    workspace.packed = workspace.folder / "data/packed"
    workspace.run()
    (workspace.folder / "params.yaml").write_text(template_params(), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for block in code:
        subprocess.run([sys.executable, "-c", block], cwd=workspace.folder, check=True, env=env)


def commands() -> list[str]:
    lines = [line for block in blocks(README, "console") for line in block.splitlines() if line.startswith("$ ")]
    return [line.removeprefix("$ ") for line in lines]


def test_readme_commands_exist():
    """The first two are run by test_run.py; of DVC's own, the options are checked."""
    asked = {}
    for command in commands():
        words = shlex.split(command)
        if words[:4] == ["python3", "run.py", "--", "dvc"]:
            depth = 2 if words[4] in ("exp", "params", "metrics", "plots", "remote") else 1
            verb = tuple(words[4 : 4 + depth])
            asked.setdefault(verb, set()).update(word for word in words[4 + depth :] if word.startswith("-"))
        else:
            assert words[0] in ("python3", "rm", "mkdir", "cp", "git"), command
    assert len(asked) >= 8
    for verb, options in asked.items():
        text = subprocess.check_output(["dvc", *verb, "--help"], text=True)
        assert all(option in text for option in options), verb


def test_output_md_has_every_column_and_code(workspace: Workspace):
    add_pictures(workspace.raw, 2)
    workspace.run()
    listed = re.findall(r"^\| ([a-z_0-9, ]+) \|", OUTPUT, flags=re.MULTILINE)
    names = {name for row in listed for name in row.split(", ")}
    assert set(pl.read_parquet(workspace.manifest).columns) <= names
    assert set(FIXES) <= names


@pytest.mark.parametrize("code", CHECKS)
def test_output_md_says_what_the_table_of_checks_says(code: str):
    check = CHECKS[code]
    meaning = check.meaning if check.subject == "file" else f"(a {check.subject}) {check.meaning}"
    level = check.level if check.fixed else f"`validate.levels`: {check.level}"
    assert f"| {code} | {meaning} | {level}" in OUTPUT or code == "multi_frame"
