"""The tests of tests/ pass in any repository that is in order, and fail where something is wrong."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, Workspace, add_pictures

from imagepack.engine import params

pytestmark = pytest.mark.slow
FIT = """

kept = fit


def fit(image, params):
    %s
"""
"""What replaces `fit` of stages/preprocess.py, behind all that is there."""


def run_tests(project: Project, *options: str, ok: bool = True) -> str:
    """What `python3 run.py test` prints where there is no workshop/, or of one file."""
    return project("python", "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *options, ok=ok)


def set_params(project: Project, **values: str) -> None:
    """Replace lines of params.yaml."""
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    for key, value in values.items():
        text, count = re.subn(rf"^( +{key}: )", rf"\g<1>{value}  # ", text, flags=re.MULTILINE)
        assert count == 1
    project.write("params.yaml", text)


def test_they_pass_in_a_fresh_clone_without_the_workshop(new_project: Callable[[], Project]):
    project = new_project()
    shutil.rmtree(project.folder / "workshop")
    printed = run_tests(project, "-m", "not slow and not extra")
    assert "the pipeline has not run here: python3 run.py" in printed
    assert project("git", "status", "--porcelain", "--", ":!workshop") == ""


def test_they_pass_with_other_params_images_in_files_and_zips_and_labels_in_a_table(new_project: Callable[[], Project]):
    project = new_project()
    raw = project.folder / "data/raw"
    for number, folder in enumerate(("cat", "2024-05/dog", "2024-06/dog")):
        add_pictures(raw, 12, folder, first=12 * number)
    names = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.png"))
    rows = "".join(f"{name},{('red', 'blue')[number % 2]}\n" for number, name in enumerate(names))
    (raw / "metadata.csv").write_text(f"file_name,colour\n{rows}", encoding="utf-8")
    project("python", "-m", "imagepack.commands.zips", "data/raw/2024-06")
    set_params(project, size="40", mode="L", fit="pad", layout="zip", encoding="png", train="0.9", test="0.0")
    set_params(project, fail_on="[class_too_small]", min_side="20", column="colour")
    project("dvc", "repro")
    shutil.rmtree(project.folder / "data/sample")
    printed = run_tests(project, "tests")
    assert "there is to be no test split" in printed
    assert "the pipeline has not run" not in printed


def test_a_class_that_lacks_a_split_is_named(new_project: Callable[[], Project], workspace: Workspace):
    project = new_project()
    for number, folder in enumerate(("train/cat", "val/cat", "test/cat", "train/dog", "val/dog")):
        add_pictures(workspace.raw, 2, folder, first=2 * number)
    set_params(project, by="folder")
    workspace.run(packed=dict(params.load(project.folder / "params.yaml"))["pack"])
    shutil.copytree(workspace.packed, project.folder / "data/packed")
    printed = run_tests(project, "tests/test_splits.py", ok=False)
    assert "dog: none of 4 images is in test" in printed
    assert "1 failed, 2 passed" in printed


@pytest.mark.parametrize(
    ("file", "old", "new", "failing"),
    [
        ("params.yaml", "\n  size: ", "\n  sise: ", "test_params.py::test_every_value_is_allowed"),
        (
            "stages/preprocess.py",
            None,
            FIT % "return kept(image, params).resize((9, 9))",
            "test_fit.py::test_an_image_get",
        ),
        (
            "stages/preprocess.py",
            None,
            FIT % "return kept(image, params).convert('1')",
            "test_fit.py::test_an_image_get",
        ),
        (
            "stages/preprocess.py",
            None,
            FIT % "image.putpixel((0, 0), tuple(__import__('os').urandom(3))); return kept(image, params)",
            "test_fit.py::test_the_same_image_gives_the_same_pixels",
        ),
        (
            "stages/preprocess.py",
            None,
            FIT % "return open('notes.txt') and kept(image, params)",
            "test_pipeline.py::test_each_stage_writes_what_dvc_yaml_says",
        ),
        ("dvc.yaml", "      - imagepack/checks\n", "", "test_dvc_yaml.py::test_a_stage_depends_on_all_code"),
        ("dvc.yaml", "      - requirements.lock\n", "", "test_dvc_yaml.py::test_a_stage_depends_on_the_lock"),
    ],
    ids=["a key", "size", "mode", "chance", "a file that is no dep", "a dep", "the lock"],
)
def test_what_is_wrong_is_found(new_project: Callable[[], Project], file: str, old: str | None, new: str, failing: str):
    """Where there is nothing old, the new is put behind the rest."""
    project = new_project()
    project.write("notes.txt", "which dvc.yaml does not list")
    text = Path(project.folder, file).read_text(encoding="utf-8")
    assert old is None or old in text
    project.write(file, text.replace(old, new, 1) if old else text + new)
    name = failing.partition("::")[0]
    assert f" tests/{failing}" in run_tests(project, f"tests/{name}", ok=False)
