"""`run.py new` and `run.py update`, with real git and Copier: a dataset's repository, made and updated."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Project, add_pictures, copy_project

from imagepack import PackedImages
from imagepack.commands.update_params import merge
from imagepack.commands.update_plan import Pipeline, news, reruns
from imagepack.dvc import git
from imagepack.dvc.template import Origin, Rules, files

slow = pytest.mark.slow
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
NEW, UPDATE = ("python", "-m", "imagepack.commands.new"), ("python", "-m", "imagepack.commands.update")
CHECK = """\
    yield from standard_checks(image, params)
    if image.width > 47:
        yield "wide", f"{image.width} pixels"
"""
SIZE = "    size = (params"
COUNT = '''\
"""Count: how many files were processed."""

from pathlib import Path

from imagepack.engine.inputs import Input
from imagepack.engine.params import Section


class Count(Section):
    """Section `count` of params.yaml."""

    times: int = 1


def count(processed: Input, out: Path, params: Count) -> str:
    """Write how many there are."""
    number = sum(path.is_file() for path in processed.rglob("*")) * params.times
    out.write_text(str(number))
    return f"{number} files"
'''
STAGE = """
  count:
    desc: Count what was processed
    cmd: python -m imagepack.engine count data/processed reports/count.txt
    deps:
      - data/processed
      - requirements.lock
      - stages/count.py
    params:
      - count
    outs:
      - reports/count.txt:
          cache: false

plots:
"""


def edit(project: Project, name: str, *changes: tuple[str, str]) -> None:
    """Replace the first of each text in a file."""
    text = (project.folder / name).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, (name, old)
        text = text.replace(old, new, 1)
    project.write(name, text)


def release(project: Project, version: str, reruns: str) -> None:
    """Commit a version of the template."""
    edit(project, ".copier-answers.yml", (Origin.read(project.folder).version, f"v{version}"))
    changes = (project.folder / "CHANGELOG.md").read_text(encoding="utf-8").removeprefix("# Changelog\n")
    project.write("CHANGELOG.md", f"# Changelog\n\n## {version} - 2026-12-24\n\n- **Reruns**: {reruns}\n{changes}")
    project.commit(version)
    project("git", "tag", f"v{version}")


@pytest.fixture(scope="session")
def releases(new_project: Callable[[], Project], tmp_path_factory: pytest.TempPathFactory, made_once: Callable) -> Path:
    """The template's repository, with versions v1.0.0 and v1.1.0; the commit after v1.0.0 is none."""

    def make(folder: Path) -> None:
        project = copy_project(new_project(), folder)
        for path in (project.folder / "data/sample/images").glob("*/*"):
            if path.name not in ("apple-01.jpg", "apple-02.jpg"):
                path.unlink()
        shutil.rmtree(project.folder / "workshop/tests")
        (project.folder / "tests/fixture.bin").write_bytes(bytes(256))
        (project.folder / "tests/latin.txt").write_bytes(block("old", "old", "old"))
        release(project, "1.0.0", "nothing.")
        edit(project, "imagepack/names.py", ('"""Names', '"""All names'))
        edit(project, "docs/remotes.md", ("# ", "# All "))
        project.commit("Between versions")
        change_template(project)
        release(project, "1.1.0", "every stage; the bytes of data/packed\n  stay the same.")
        project("git", "gc", "--quiet")  # one pack is faster to clone than a thousand objects

    return made_once("releases", make)


def block(*words: str) -> bytes:
    """A text of the same ten lines again and again but for a word, so that a patch fits in many places."""
    return "".join(f"{'-' * 5}\n" * 5 + f"{word}\n" + f"{'-' * 5}\n" * 4 for word in words).encode("latin-1")


def change_template(project: Project) -> None:
    """Change files of every owner, some on lines that users edit the neighbours of."""
    edit(project, "params.yaml", ("  # pixels, 8 to 8192; images become", "  # 8 to 8192 pixels; images become"))
    edit(project, "params.yaml", ("  # rows of a sheet", "  # how many rows a sheet has"))
    edit(project, "stages/preprocess.py", ('LIBRARIES = ("pillow",', 'LIBRARIES = ("pillow", "tqdm",'))
    edit(project, "stages/validate.py", ('"""Validate: decode', '"""Validate: read and decode'))
    edit(project, "dvc.yaml", ("    desc: Draw contact sheets", "    desc: Draw sheets"))
    edit(project, "README.md", ("Put in your images", "Bring your images"), ("## What is where", "## Where is what"))
    edit(project, "tests/test_fit.py", ('"""', '"""Now: '))
    edit(project, "imagepack/images/png.py", ('"""', '"""Now: '))
    project.write("imagepack/images/fresh.py", '"""Nothing yet."""\n')
    (project.folder / "tests/fixture.bin").write_bytes(bytes(255))
    (project.folder / "tests/latin.txt").write_bytes(block("new", "old", "old", "old"))
    (project.folder / "docs/scaling.md").unlink()
    (project.folder / "tests/test_splits.py").unlink()
    project.write("tests/test_fresh.py", "def test_nothing():\n    pass\n")


@pytest.fixture(scope="session")
def made(releases: Path, tmp_path_factory: pytest.TempPathFactory, made_once: Callable) -> Path:
    """A repository that `new` has made of v1.0.0; nothing is done to it."""

    def make(folder: Path) -> None:
        clone = tmp_path_factory.mktemp("clone") / "template"
        Project(releases)("git", "clone", "--quiet", "--branch=v1.0.0", str(releases), str(clone))
        Project(clone)(*NEW, str(folder), **IDENTITY)

    return made_once("made", make)


IDENTITY = {f"GIT_{who}_{what}": "user@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def user(made: Path, tmp_path: Path) -> Project:
    """A copy of it, to be worked in."""
    return with_name(copy_project(Project(made), tmp_path / "user"))


def with_name(project: Project) -> Project:
    """The same, after git knows its user."""
    project("git", "config", "user.name", "User")
    project("git", "config", "user.email", "user@example.com")
    return project


@pytest.fixture
def from_button(releases: Path, tmp_path: Path) -> Project:
    """A repository that "Use this template" has made of the commit after v1.0.0: all of its files, one commit."""
    project = Project(tmp_path / "button")
    Project(releases)("git", "worktree", "prune")
    Project(releases)("git", "clone", "--quiet", str(releases), str(project.folder))
    project("git", "checkout", "--quiet", "v1.0.0~0")
    project("git", "checkout", "--quiet", "v1.1.0~1")
    shutil.rmtree(project.folder / ".git")
    project("git", "init", "--quiet", "--initial-branch=main")
    with_name(project).commit("Initial commit")
    return project


def in_head(project: Project, version: str) -> dict[str, str]:
    """Paths and hashes of the template's files in a version, without the workshop and the sample."""
    rules = Rules.parse((project.folder / "copier.yml").read_bytes())
    found = files(project.folder, version)
    return {path: content for path, content in found.items() if not rules.excluded.match_file(path)}


def test_a_new_repository_has_the_template_without_its_workshop_and_an_empty_folder_for_images(
    made: Path, releases: Path
):
    project = Project(made)
    whole, here = in_head(Project(releases), "v1.0.0"), files(made)
    without = {path: content for path, content in whole.items() if not path.startswith("data/sample/")}
    assert without.pop(".copier-answers.yml") != here.pop(".copier-answers.yml")
    assert here == without
    assert list((made / "data/raw").iterdir()) == []
    assert project("git", "status", "--porcelain") == ""
    assert project("git", "log", "--format=%s").splitlines() == ["Made from the image dataset template, v1.0.0"]
    assert Origin.read(made) == Origin("v1.0.0", str(releases))
    assert os.access(made / "run.py", os.X_OK)


@slow
def test_the_tests_of_a_new_repository_pass(made: Path):
    fast = ("-p", "no:cacheprovider", "-n", "0", "-m", "not slow and not extra")
    printed = Project(made)("python", "-m", "pytest", *fast)
    assert "passed" in printed


def test_a_new_repository_has_the_sample_where_asked(releases: Path, tmp_path: Path):
    printed = Project(releases)(*NEW, str(tmp_path / "a/b"), "--sample", **IDENTITY)
    assert len(list((tmp_path / "a/b/data/sample/images").glob("*/*"))) == 2
    assert not (tmp_path / "a/b/data/raw").exists()
    assert f"cd {tmp_path / 'a/b'}" in printed


def test_new_makes_nothing_where_something_is(releases: Path, made: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    template = Project(releases)
    assert "full is not empty (notes.txt): name a folder" in template(*NEW, str(tmp_path / "full"), ok=False)
    assert "notes.txt is a file: name a folder" in template(*NEW, str(tmp_path / "full/notes.txt"), ok=False)
    assert f"lies in the git repository {made}: name" in template(*NEW, str(made / "data/more"), ok=False)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    said = Project(made)(*NEW, str(tmp_path / "another"), ok=False)
    assert f"not the template: in a clone of that (git clone {releases}), run python3 run.py new DIR" in said
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "EMAIL": ""}
    said = template(*NEW, str(tmp_path / "another"), ok=False, **nobody | {"HOME": str(tmp_path)})
    assert "git does not know who you are" in said
    assert not (tmp_path / "another").exists()


@slow
def test_both_commands_of_run_py_work_from_any_folder(releases: Path, tmp_path: Path):
    clone = tmp_path / "clone"
    Project(releases)("git", "clone", "--quiet", "--branch=v1.0.0", str(releases), str(clone))
    make_environment(clone)
    printed = Project(tmp_path)(BASE_PYTHON, "clone/run.py", "new", "birds", PYTHONPATH="", **IDENTITY)
    assert printed.startswith(f"Made {tmp_path / 'birds'} from the template, v1.0.0: ")
    make_environment(tmp_path / "birds")
    printed = Project(tmp_path)(BASE_PYTHON, "birds/run.py", "update", "--dry-run", PYTHONPATH="")
    assert "From v1.0.0 of the template to v1.1.0" in printed
    assert "  new: imagepack/images/fresh.py, tests/test_fresh.py" in printed


def make_environment(folder: Path) -> None:
    """Make .venv as run.py would, but of the packages that are installed here."""
    subprocess.run([BASE_PYTHON, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (packages,) = (folder / ".venv").rglob("site-packages")
    (packages / "here.pth").write_text(f"{folder}\n{sysconfig.get_path('purelib')}\n")
    for lock in ("requirements", "requirements-dev"):
        digest = hashlib.sha256((folder / f"{lock}.lock").read_bytes()).hexdigest()
        (folder / f".venv/{lock}.txt").write_text(f"{digest} {folder}\n")


@slow
def test_what_a_user_has_made_of_an_older_version_is_there_after_an_update(user: Project, releases: Path):
    make_it_ones_own(user)
    for version in (1, 2):
        add_pictures(user.folder / "data/raw", 4, first=4 * version, label=f"class{version % 2}")
        user("dvc", "add", "data/raw")
        user("dvc", "repro", "pack", "count")
        user.commit(f"Dataset: version {version}")
        user("git", "tag", f"v{version}")
    before = files(user.folder)

    printed = user(*UPDATE)

    assert "1.1.0 - 2026-12-24: every stage; the bytes of data/packed stay the same." in printed
    assert "yours, merged: README.md, dvc.yaml, params.yaml, stages/preprocess.py, stages/validate.py" in printed
    assert "  validate: imagepack/images, imagepack/names.py, stages/validate.py" in printed
    assert "  count: if the result of preprocess changes" in printed
    assert user("git", "ls-files", "--unmerged") == ""
    user.commit("Template v1.1.0")
    after, new = files(user.folder), in_head(Project(releases), "v1.1.0")
    mine = {"README.md", "dvc.yaml", "params.yaml", "stages/preprocess.py", "stages/validate.py", ".dvc/config"}
    mine.add("params.schema.json")
    made_by_user = {path for path in before if path not in in_head(Project(releases), "v1.0.0")}
    assert {"data/raw.dvc", "dvc.lock", "stages/count.py", "tests/test_mine.py", "reports/count.txt"} <= made_by_user
    assert {path: after[path] for path in made_by_user} == {path: before[path] for path in made_by_user}
    theirs = {path for path in new if not path.startswith("data/sample/")} - mine - {".copier-answers.yml"}
    assert {path: after.get(path) for path in theirs} == {path: new[path] for path in theirs}
    assert after.keys() == theirs | mine | made_by_user | {".copier-answers.yml"}
    assert_both(user, "params.yaml", "  # 8 to 8192 pixels; images become size x size\n  size: 16\n", "  size: 16\n")
    assert_both(user, "params.yaml", "  # how many rows a sheet has", "count:\n  times: 2\n")
    assert_both(user, "stages/validate.py", '"""Validate: read and', CHECK)
    assert_both(user, "stages/preprocess.py", '("pillow", "tqdm",', "image = ImageOps.autocontrast(image)")
    assert_both(user, "dvc.yaml", "    desc: Draw sheets", STAGE)
    assert_both(user, "params.schema.json", '"wide": {', '"times": {')
    assert (user.folder / "README.md").read_text(encoding="utf-8") == "# My birds\n\nPut in your images? No, mine.\n"

    printed = user("dvc", "repro")

    assert "Running stage 'validate'" in printed
    assert len(PackedImages(user.folder / "data/packed")) == 8
    assert len(PackedImages.at("v1", repo=user.folder)) == 4
    printed = user("python", "-m", "imagepack.commands.compare", "v1", "workspace")
    assert "Images    4 -> 8 accepted" in printed
    user.commit("Dataset: made by the new version")
    assert "This repository has v1.1.0 of the template already." in user(*UPDATE)


def make_it_ones_own(user: Project) -> None:
    """What CONTRIBUTING.md lists: a check, a step, a stage, params, tests; and a README and a bucket of one's own."""
    edit(
        user,
        "stages/preprocess.py",
        ("    size = (params", "    image = ImageOps.autocontrast(image)\n    size = (params"),
    )
    edit(user, "stages/validate.py", ("    yield from standard_checks(image, params)\n", CHECK))
    own = ("OWN_CHECKS: dict[str, Check] = {}", 'OWN_CHECKS = {"wide": Check("info", "is wide", "crop it")}')
    edit(user, "stages/validate.py", own)
    edit(user, "params.yaml", ("  size: 128", "  size: 16"), ("  min_class_images: 10", "  min_class_images: 2"))
    user.write("stages/count.py", COUNT)
    edit(user, "dvc.yaml", ("\nplots:\n", STAGE))
    with (user.folder / "params.yaml").open("a") as file:
        file.write("\ncount:\n  times: 2\n")
    user.write("README.md", "# My birds\n\nPut in your images? No, mine.\n")
    user.write("tests/test_mine.py", "def test_mine():\n    pass\n")
    user("dvc", "remote", "modify", "s3", "url", "s3://birds/one")
    user.commit("Make it mine")


def assert_both(user: Project, name: str, theirs: str, mine: str) -> None:
    text = (user.folder / name).read_text(encoding="utf-8")
    assert theirs in text
    assert mine in text


@slow
def test_a_repository_of_use_this_template_is_updated_from_the_very_commit_it_was_made_of(
    from_button: Project, releases: Path
):
    said = from_button(*UPDATE, ok=False)
    assert "does not say where the template is: once, python3 run.py update --from ADDRESS" in said
    edit(from_button, "stages/preprocess.py", (SIZE, f"    image = image.copy()\n{SIZE}"))
    edit(from_button, "CHANGELOG.md", ("# Changelog", "# Changes of my birds"))
    from_button.commit("Mine")
    from_button.write(".git/hooks/pre-push", "#!/bin/sh\n")
    printed = from_button(*UPDATE, "--from", str(releases))
    assert "python3 run.py hooks   " in printed
    assert "From v1.0.0-1-g" in printed
    assert "removed: docs/scaling.md, tests/test_splits.py" in printed
    from_button.commit("Template v1.1.0")
    assert_both(from_button, "stages/preprocess.py", '("pillow", "tqdm",', "    image = image.copy()\n")
    here, new = files(from_button.folder), in_head(Project(releases), "v1.1.0")
    assert here.keys() == new.keys() | {"CHANGELOG.md"}
    assert {path for path in new if here[path] != new[path]} == {"stages/preprocess.py", ".copier-answers.yml"}
    assert Origin.read(from_button.folder) == Origin("v1.1.0", str(releases))
    assert "has v1.1.0 of the template already" in from_button(*UPDATE)


NO_TEXT = {
    "docs/preview.png": b"\0\1",  # the template's, which the next version leaves as it is
    "tests/fixture.bin": b"\0\2",
    "tests/mine.bin": b"\0\3",
}


@pytest.fixture(scope="module")
def edited(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with edits that meet those of the next version; each test gives it back as it was."""
    user = with_name(copy_project(Project(made), tmp_path_factory.mktemp("edited") / "user"))
    for name in ("docs/scaling.md", "docs/training.md"):
        edit(user, name, ("# ", "# My "))
    edit(user, "imagepack/images/png.py", ("\nimport ", "\n# mine\nimport "))
    edit(user, "stages/preprocess.py", ('LIBRARIES = ("pillow",', 'LIBRARIES = ("pillow", "mine",'))
    edit(user, "tests/test_splits.py", ('"""', '"""Mine. '))
    user.write("tests/test_fresh.py", "def test_mine():\n    pass\n")
    (user.folder / "tests/latin.txt").write_bytes(block("old", "caf\xe9", "old"))
    for name, content in NO_TEXT.items():
        (user.folder / name).write_bytes(content)
    (user.folder / "tests/test_fit.py").unlink()
    user.commit("Mine")
    return user


def go_back(user: Project) -> None:
    """The one command that the update names."""
    user("git", "reset", "--quiet", "--hard")
    assert user("git", "status", "--porcelain") == ""


@slow
def test_edits_are_merged_and_what_cannot_be_is_named_and_the_way_back_is_one_command(edited: Project):
    printed = edited(*UPDATE, "--keep", ok=False)
    text = (edited.folder / "imagepack/images/png.py").read_text(encoding="utf-8")
    assert text.startswith('"""Now: ')
    assert "# mine" in text
    assert "# My " in (edited.folder / "docs/training.md").read_text(encoding="utf-8")
    assert "yours, no text, kept as they are: tests/fixture.bin\n" in printed
    assert (edited.folder / "tests/latin.txt").read_bytes() == block("new", "old", "caf\xe9", "old")
    assert {name: (edited.folder / name).read_bytes() for name in NO_TEXT} == NO_TEXT
    assert "removed or renamed here, so not brought: tests/test_fit.py" in printed
    assert "The template has no longer docs/scaling.md, tests/test_splits.py: yours is kept." in printed
    assert "# My " in (edited.folder / "docs/scaling.md").read_text(encoding="utf-8")
    assert '"""Mine. ' in (edited.folder / "tests/test_splits.py").read_text(encoding="utf-8")
    assert not (edited.folder / "tests/test_fit.py").exists()
    conflicts = ("stages/preprocess.py", "tests/test_fresh.py")
    assert "between <<<<<<< and >>>>>>>:\n" + "".join(f"  {name}\n" for name in conflicts) in printed
    assert f"Then: git add {' '.join(conflicts)}" in printed
    text = (edited.folder / "stages/preprocess.py").read_text(encoding="utf-8")
    assert '<<<<<<< before updating\nLIBRARIES = ("pillow", "mine",' in text
    text = (edited.folder / "tests/test_fresh.py").read_text(encoding="utf-8")
    assert "<<<<<<< before updating\ndef test_mine():\n=======\ndef test_nothing():\n" in text
    assert {line[3:] for line in edited("git", "status", "--porcelain").splitlines() if "U" in line[:2]} == {*conflicts}
    edited("git", "commit", "--message=too early", ok=False)
    go_back(edited)


@slow
def test_an_edit_of_the_templates_own_files_is_named_before_it_is_lost(edited: Project, releases: Path):
    said = edited(*UPDATE, ok=False)
    named = "the version changes them too:\n  docs/scaling.md\n  imagepack/images/png.py\nNothing was changed"
    assert named in said
    assert "edited here, not changed by the version: docs/preview.png, docs/training.md" in said
    assert edited("git", "status", "--porcelain") == ""
    edited(*UPDATE, "--replace", ok=False)  # for the conflicts in what is the user's
    content = {name: (edited.folder / name) for name in ("imagepack/images/png.py", "docs/training.md")}
    for name, path in content.items():
        assert path.read_bytes() == git.run("show", f"v1.1.0:{name}", folder=releases)
    assert not (edited.folder / "docs/scaling.md").exists()
    assert '"""Mine. ' in (edited.folder / "tests/test_splits.py").read_text(encoding="utf-8")
    go_back(edited)


@slow
def test_an_update_that_is_stopped_half_way_leaves_all_as_it_was(user: Project):
    command = [sys.executable, "-m", "imagepack.commands.update"]
    process = subprocess.Popen(command, cwd=user.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (user.folder / "imagepack/images/fresh.py").exists():  # Copier writes the new version's files
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.endswith("run.py update: stopped; all is as it was\n")
    assert user("git", "status", "--porcelain", "--ignored", "--", ":!**/__pycache__/**", ":!data/raw") == ""


def test_what_cannot_be_updated_is_said_and_left_as_it_is(user: Project, releases: Path, tmp_path: Path):
    assert "the template has no version v9.9.9; it has v1.0.0, v1.1.0" in user(*UPDATE, "--to", "v9.9.9", ok=False)
    said = user(*UPDATE, "--from", str(tmp_path / "nowhere"), ok=False)
    assert f"cannot be fetched from {tmp_path / 'nowhere'} (fatal: repository" in said
    said = user(*UPDATE, "--from", "https://me:secret@127.0.0.1:9/template.git", ok=False)
    assert "cannot be fetched from https://127.0.0.1:9/template.git (" in said
    (tmp_path / "empty").mkdir()
    Project(tmp_path / "empty")("git", "init", "--quiet")
    assert "there is no version of the template" in user(*UPDATE, "--from", str(tmp_path / "empty"), ok=False)
    clone = copy_project(Project(releases), tmp_path / "copy")
    assert "is a clone of the template" in clone(*UPDATE, "--from", str(releases), ok=False)
    assert "What will change" in user(*UPDATE, "--dry-run")
    assert user("git", "status", "--porcelain") == ""
    (user.folder / ".git/info/exclude").write_text("fresh.py\n")
    user.write("imagepack/images/fresh.py", "mine, and in no commit")
    assert "some are that git ignores; move these away, then update:\n  imagepack/images/fresh.py" in user(
        *UPDATE, ok=False
    )
    user.write("notes.txt", "mine")
    said = user(*UPDATE, ok=False)
    assert "there are changes that are not committed" in said
    assert "?? notes.txt" in said


def test_an_address_is_remembered_without_its_password(tmp_path: Path):
    Origin("v1.0.0", "https://me:secret@example.com/template.git").write(tmp_path / ".copier-answers.yml")
    assert Origin.read(tmp_path).address == "https://example.com/template.git"
    Origin("v1.0.0", "git@example.com:template.git").write(tmp_path / ".copier-answers.yml")
    assert Origin.read(tmp_path).address == "git@example.com:template.git"


@pytest.mark.parametrize(
    ("here", "new", "merged"),
    [
        ("a:\n  # b\n  b: 2\n", "a:\n  # better\n  b: 1\n", "a:\n  # better\n  b: 2\n"),
        ("a:\n  # b\n  b: 2\nmine: 1\n", "a:\n  # b\n  b: 1\n  # c\n  c: 3\n", None),
        ("a:\n  # b\n  b: 2\n", "a:\n  # b\n  b: 3\n", None),
        (
            "a:\n  # b\n  b: 1\n  # m\n  m: 2\n",
            "# all\na:\n  # b\n  b: 4\n",
            "# all\na:\n  # b\n  b: 4\n  # m\n  m: 2\n",
        ),
    ],
    ids=["comment and value", "both at the end", "the same value", "beside each other"],
)
def test_params_are_merged_line_by_line_unless_both_change_the_same(here: str, new: str, merged: str | None):
    assert merge("a:\n  # b\n  b: 1\n", here, new) == merged


def test_news_are_those_of_the_versions_between():
    text = "# C\n\n## 2.0.0 - x\n\n- **Reruns**: all\n  of it.\n- b\n\n## 1.1.0\n\n- c\n\n## 1.0.0\n\n- **Reruns**: d\n"
    assert news(text, (1, 0, 0), (2, 0, 0)) == ["2.0.0 - x: all of it.", "1.1.0: see CHANGELOG.md there"]
    assert news(text, (1, 0, 0), (1, 1, 0)) == ["1.1.0: see CHANGELOG.md there"]


def test_a_stage_reruns_for_what_dvc_yaml_lists_and_after_those_that_it_reads():
    def pipeline(size: int, **more: dict) -> Pipeline:
        stages = {
            "one": {"cmd": "a", "deps": ["code", "raw"], "params": ["one.size"], "outs": ["made"]},
            "two": {"cmd": "b", "deps": ["made", "file.py"], "outs": [{"end": {"cache": False}}]},
            "three": {"cmd": "c", "deps": ["other"]},
        }
        return Pipeline(stages | more, {"one": {"size": size}})

    assert reruns(pipeline(1), pipeline(1), ["codes/a.py", "README.md"]) == {}
    assert reruns(pipeline(1), pipeline(1), ["code/a.py"]) == {
        "one": ["code"],
        "two": ["if the result of one changes"],
    }
    assert reruns(pipeline(1), pipeline(2), []) == {"one": ["one.size"], "two": ["if the result of one changes"]}
    changed = pipeline(1, three={"cmd": "d", "deps": ["other", "third"]}, four={"cmd": "e", "deps": ["end"]})
    assert reruns(pipeline(1), changed, []) == {"three": ["its command", "third"], "four": ["it is new"]}


def test_every_rule_of_copier_yml_is_about_a_file_and_no_file_is_both_the_workshops_and_ones_own(template: Project):
    rules, tracked = Rules.parse((template.folder / "copier.yml").read_bytes()), list(files(template.folder))
    said = yaml.safe_load((template.folder / "copier.yml").read_text(encoding="utf-8"))
    unused = {".git", "__pycache__", "*.pyc", "/.gitattributes"}  # which a clone may have, or a user
    for key in ("_exclude", "_yours", "_yours_as_a_whole"):
        for pattern in {pattern.removeprefix("!") for pattern in said[key]} - unused:
            alone = Rules.parse(yaml.safe_dump({"_exclude": [pattern]}).encode()).excluded
            assert any(alone.match_file(path) for path in tracked), pattern
    document = (template.folder / "docs/updates.md").read_text(encoding="utf-8")
    named = [*said["_exclude"], *said["_yours_as_a_whole"], *(path for path in said["_yours"] if "/." not in path)]
    assert [name for name in named if name not in unused and f"`{name.strip('!/')}" not in document] == []
    assert [path for path in tracked if rules.excluded.match_file(path) and rules.is_yours(path)] == []
    assert [path for path in tracked if "{" in path or path.endswith(".jinja")] == []  # Copier would render it
