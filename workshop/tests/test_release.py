"""A version of the template is one number in four places: `run.py update` goes by the tag and .copier-answers.yml."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, template_only

from imagepack.dvc import git
from imagepack.dvc.template import VERSION, Origin

CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def disagreements(folder: Path) -> list[str]:
    """What says another version than pyproject.toml does, where it must not: the release that would be wrong."""
    version = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    heading = re.search(r"^## (\S+)", (folder / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    tags = [tag for tag in git.lines("tag", "--points-at", "HEAD", folder=folder) if VERSION.fullmatch(tag)]
    said = {"CHANGELOG.md": f"v{heading}", ".copier-answers.yml": Origin.read(folder).version}
    said |= {f"the tag {tag}": tag for tag in tags}
    return [
        f"{place} says {found}, pyproject.toml {version}" for place, found in said.items() if found != f"v{version}"
    ]


@template_only
def test_all_places_say_the_same_version():
    assert disagreements(REPOSITORY) == []


def test_each_version_says_what_reruns_and_whether_bytes_change():
    versions = re.findall(
        r"^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d\n\n- \*\*Reruns\*\*: (.+(?:\n  .+)*)", CHANGELOG, re.M
    )
    assert len(versions) == len(re.findall("^## ", CHANGELOG, re.MULTILINE)) > 0
    assert [version for version, said in versions if "bytes" not in said] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "tag", "found"),
    [
        ("README.md", "", "", "v1.2.3", []),
        (
            ".copier-answers.yml",
            "v1.2.3",
            "v1.2.2",
            "v1.2.3",
            [".copier-answers.yml says v1.2.2, pyproject.toml 1.2.3"],
        ),
        ("CHANGELOG.md", "## 1.2.3", "## 1.2.4", "v1.2.3", ["CHANGELOG.md says v1.2.4, pyproject.toml 1.2.3"]),
        ("README.md", "", "", "v1.3.0", ["the tag v1.3.0 says v1.3.0, pyproject.toml 1.2.3"]),
        ("README.md", "", "", "notes", []),
    ],
    ids=["all agree", "_commit is behind", "the changelog is ahead", "another tag", "a tag that is no version"],
)
def test_a_release_that_disagrees_is_found(
    new_project: Callable[[], Project], file: str, old: str, new: str, tag: str, found: list[str]
):
    project = new_project()
    now = version_of(project)
    for name in ("pyproject.toml", "CHANGELOG.md", ".copier-answers.yml"):
        replace(project, name, now, "1.2.3")
    replace(project, file, old, new)
    project.commit("Version")
    project("git", "tag", tag)
    assert disagreements(project.folder) == found


def version_of(project: Project) -> str:
    """The version that the template has now, without the v."""
    return Origin.read(project.folder).version.removeprefix("v")


def replace(project: Project, name: str, old: str, new: str) -> None:
    text = (project.folder / name).read_text(encoding="utf-8")
    assert old in text
    project.write(name, text.replace(old, new, 1))
