"""`python3 run.py report`: the page of a version, of a real repository with real DVC."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from conftest import Project, add_pictures

from imagepack.commands import report
from imagepack.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project]) -> Project:
    """Two versions, v1 with one class and v2 with two; and what came after v2 is not committed."""
    project = new_project()
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("  size: 128\n", "  size: 16\n"))
    for version, label in (("v1", "cat"), ("v2", "dog <b>")):
        add_pictures(project.folder / "data/raw", 20, label, 0 if version == "v1" else 50)
        project("dvc", "add", "data/raw")
        project("dvc", "repro", "pack")
        project.commit(f"Version {version}")
        project("git", "tag", version)
    return project


def shown(page: Path) -> tuple[list[str], str]:
    """The lines of the heading, and the text of the classes."""
    text = page.read_text(encoding="utf-8")
    heading = re.search('<header id="heading">(.*?)</header>', text, re.DOTALL)[1]
    classes = re.search('<section class="panel" id="classes">(.*?)</section>', text, re.DOTALL)[1]
    lines = [unescape(line) for line in re.findall("<(?:h1|p)[^>]*>(.*?)</", heading)]
    return lines, " ".join(unescape(re.sub("<.*?>", " ", classes, flags=re.DOTALL)).split())


def test_the_page_says_which_version_it_is_and_has_its_splits(project: Project, tmp_path: Path):
    page = report.write(project.folder)
    assert page == project.folder / "reports/dataset.html"
    commit, date = project("git", "log", "-1", "--format=%h %cs", "--abbrev=10").split()
    (name, line, pack), classes = shown(page)
    assert (name, line) == (project.folder.name, f"v2 · {commit} · {date} · Version v2")
    assert re.fullmatch("Pack [0-9a-f]{12}", pack)
    counts = re.findall(r"(\d+) (train|val|test)", classes)
    assert sum(int(count) for count, _ in counts[:3]) == 40 and "dog <b>" in classes and "rejected" not in classes
    assert project("git", "status", "--porcelain") == ""
    assert '<main data-raw="../data/raw/">' in page.read_text(encoding="utf-8")
    elsewhere = report.write(project.folder, out=tmp_path / "it is.html").read_text(encoding="utf-8")
    assert (tmp_path / re.search('<main data-raw="(.*?)">', elsewhere)[1]).samefile(project.folder / "data/raw")


def test_an_earlier_version_is_as_it_was(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    page = report.write(project.folder, "v1")
    lines, classes = shown(page)
    assert page == Path("dataset-v1.html")
    assert lines[1].startswith("v1 · ") and lines[1].endswith(" · Version v1")
    assert "dog" not in classes and "cat 20" in classes
    assert '<main data-raw="">' in page.read_text(encoding="utf-8")  # data/raw has the files of another version


def test_what_is_not_committed_is_said(project: Project):
    try:
        project.write("dvc.lock", (project.folder / "dvc.lock").read_text(encoding="utf-8") + "# edited\n")
        lines, _ = shown(report.write(project.folder))
        assert lines[1].startswith("Not committed yet; the last commit: v2 · ")
    finally:
        project("git", "checkout", "dvc.lock")


def test_a_version_without_a_page_is_said_with_the_fix(project: Project, tmp_path: Path):
    page = project.folder / "reports/validation.html"
    kept = page.read_bytes()
    try:
        page.unlink()
        with pytest.raises(
            InputError, match=r"^the workspace has no reports/validation.html: run `dvc repro`, or `dvc pull`$"
        ):
            report.write(project.folder)
        page.write_text("<html>of an older template</html>")
        with pytest.raises(InputError, match="is of another version of this template: run `dvc repro`"):
            report.write(project.folder)
    finally:
        page.unlink(missing_ok=True)
        page.write_bytes(kept)
    text = project("python", "-m", "imagepack.commands.report", "v1", "--html", "/dev/full", ok=False)
    assert "/dev/full cannot be written (No space left" in text and "Traceback" not in text


def test_a_run_ends_with_the_page(project: Project, tmp_path: Path):
    (project.folder / "reports/dataset.html").unlink(missing_ok=True)
    project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone("dvc", "remote", "modify", "s3", "url", str(tmp_path / "bucket"))
    clone("dvc", "cache", "dir", "--local", str(project.folder / ".dvc/cache"))
    clone("dvc", "checkout", "--quiet", ok=None)  # reports/preview was not made
    printed = clone("python", "-m", "imagepack.commands.run")
    assert "Look at   reports/dataset.html" in printed
    assert shown(clone.folder / "reports/dataset.html")[0][0] == "clone"
