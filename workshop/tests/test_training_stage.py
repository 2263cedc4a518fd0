"""Training as a stage, as docs/training.md has it: the document's own files and commands."""

import json
import re
from collections.abc import Callable

import pytest
from conftest import REPOSITORY, Project, picture, save
from PIL import Image

from imagepack.compare import experiments

pytestmark = [pytest.mark.slow, pytest.mark.extra("dvclive")]
TEXT = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8").partition("\n## Training as a stage\n")[2]
SECTION = TEXT.partition("\n## ")[0]


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project]) -> Project:
    """The document's stage on two classes of other colours, and its two experiments."""
    project = new_project()
    for number in range(60):
        label, colour = (("red", (200, 60, 60)), ("blue", (60, 60, 200)))[number % 2]
        tinted = Image.blend(picture(number), Image.new("RGB", (48, 40), colour), 0.2)
        save(project.folder / f"data/raw/{label}/{number}.png", tinted)
    (code,) = re.findall(r"```py\n(.*?)```", SECTION, flags=re.DOTALL)
    params, stage = re.findall(r"```yaml\n(.*?)```", SECTION, flags=re.DOTALL)
    project.write("stages/train.py", code)
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("  size: 128\n", "  size: 32\n").replace("train: 0.8\n", "train: 0.4\n")
    text = text.replace("val: 0.1\n", "val: 0.3\n").replace("test: 0.1\n", "test: 0.3\n")
    project.write("params.yaml", f"{text}\n{params}")
    pipeline = (project.folder / "dvc.yaml").read_text(encoding="utf-8")
    project.write("dvc.yaml", pipeline.replace("\nplots:\n", f"\n{stage}\nplots:\n"))
    project("python", "-m", "imagepack.commands.schema")
    project("dvc", "add", "data/raw")
    project("dvc", "repro", "train")
    project.commit("Training is a stage")
    for command in re.findall(r"^\$ python3 run.py -- (dvc exp run .*)", SECTION, flags=re.MULTILINE):
        project(*command.replace("=64", "=16").split(), "train")  # leaves out preview
        project("git", "reset", "--quiet", "--hard")
    return project


def test_it_passes_the_tests_that_every_stage_has_to(project: Project):
    project(
        "python", "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "tests/test_dvc_yaml.py", "tests/test_params.py"
    )


def test_it_learns_and_the_table_says_which_data_gave_which_accuracy(project: Project):
    metrics = json.loads((project.folder / "reports/train/metrics.json").read_text())
    assert metrics["val_accuracy"] > 0.7
    found = experiments.table(project.folder)
    runs = {run["name"]: run for run in found["runs"]}
    assert runs.keys() == {"HEAD", "smaller", "slower"}
    assert runs["HEAD"]["data"] == runs["slower"]["data"] != runs["smaller"]["data"]
    printed = project("python", "-m", "imagepack.commands.compare", "--experiments", "--sort-by", "val_accuracy")
    for word in ("smaller", "slower", "preprocess.size", "train.rate", "val_accuracy"):
        assert word in printed
    table = project("dvc", "exp", "show", "--csv")
    assert all(word in table for word in ("smaller", "slower", "preprocess.size", "val_accuracy"))
