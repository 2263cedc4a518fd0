"""The table of experiments, of real ones: which runs had the same data, and which was best."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, add_pictures

from imagepack.compare import experiments
from imagepack.compare.words import columns
from imagepack.errors import InputError

TRAIN = """
import json, yaml
rate = yaml.safe_load(open("train.yaml"))["rate"]
images = json.load(open("reports/pack.json"))["images"]
json.dump({"accuracy": round(rate * images / 20, 4), "test": {"loss": 1 - rate}}, open("model.json", "w"))
"""
STAGE = """
  train:
    cmd: python train.py
    deps:
      - data/packed
      - train.py
    params:
      - train.yaml:
          - rate
    metrics:
      - model.json:
          cache: false

plots:
"""
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project]) -> Project:
    """Two commits with data, and a model: experiments fast and small of the first, late of the second."""
    project = new_project()
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("  size: 128\n", "  size: 16\n"))
    pipeline = (project.folder / "dvc.yaml").read_text(encoding="utf-8")
    project.write("dvc.yaml", pipeline.replace("\nplots:\n", STAGE))
    project.write("train.py", TRAIN)
    project.write("train.yaml", "rate: 0.5\n")
    add_pictures(project.folder / "data/raw", 8)
    project("dvc", "add", "data/raw")
    project("dvc", "repro", "train")
    project.commit("Version 1")
    experiment(project, "fast", "train.yaml:rate=0.9")
    experiment(project, "small", "preprocess.size=24")
    add_pictures(project.folder / "data/raw", 4, "dog", 20)
    project("dvc", "add", "data/raw")
    project("dvc", "repro", "train")
    project.commit("Version 2")
    experiment(project, "late", "train.yaml:rate=0.7")
    return project


def experiment(project: Project, name: str, setting: str) -> None:
    """Run it, and have what git tracks as it was."""
    project("dvc", "exp", "run", "--name", name, "--set-param", setting, "train")
    project("git", "reset", "--quiet", "--hard")


def names(found: dict) -> dict[str, list[str]]:
    """Runs by data, in order."""
    groups: dict[str, list[str]] = {}
    for run in found["runs"]:
        groups.setdefault(run["data"], []).append(run["name"])
    return groups


@slow
def test_runs_with_the_same_data_stand_together(project: Project):
    found = experiments.table(project.folder)
    assert names(found) == {"A": ["HEAD", "late"], "B": ["fast"], "C": ["small"]}
    digests = [group["digest"] for group in found["data"]]
    assert digests[0] == json.loads((project.folder / "reports/pack.json").read_text(encoding="utf-8"))["digest"]
    assert len(set(digests)) == 3
    runs = {run["name"]: run for run in found["runs"]}
    assert {name: (run["files"], run["accepted"], run["rejected"]) for name, run in runs.items()} == {
        "HEAD": (12, 12, 0), "late": (12, 12, 0), "fast": (8, 8, 0), "small": (8, 8, 0),
    }  # fmt: skip
    assert all(sum(run["split"].values()) == run["accepted"] for run in runs.values())
    assert runs["HEAD"]["revision"] == project("git", "rev-parse", "HEAD").strip()


@slow
def test_only_params_that_differ_and_the_metrics_of_models_are_columns(project: Project):
    found = experiments.table(project.folder)
    assert found["params"] == ["preprocess.size", "train.yaml:rate"]
    assert found["metrics"] == ["model.json:accuracy", "model.json:test.loss"]
    small = next(run for run in found["runs"] if run["name"] == "small")
    assert small["params"] == {"preprocess.size": 24, "train.yaml:rate": 0.5}
    assert small["metrics"] == {"model.json:accuracy": 0.2, "model.json:test.loss": 0.5}


@slow
def test_the_best_run_stands_first_and_its_data_with_it(project: Project):
    found = experiments.table(project.folder, "accuracy")
    assert found["sort_by"] == "model.json:accuracy"
    assert [run["metrics"]["model.json:accuracy"] for run in found["runs"]] == [0.42, 0.3, 0.36, 0.2]
    found = experiments.table(project.folder, "model.json:test.loss", ascending=True)
    assert names(found) == {"A": ["fast"], "B": ["late", "HEAD"], "C": ["small"]}
    assert experiments.table(project.folder, "accuracy") == experiments.table(project.folder, "accuracy")


@slow
def test_the_table_fits_a_terminal(project: Project):
    found = json.loads(json.dumps(experiments.table(project.folder, "accuracy"), allow_nan=False))
    lines = experiments.text(found).splitlines()
    assert lines[0].split() == [
        "data", "run", "accuracy", "preprocess.size", "train.yaml:rate", "test.loss", "images", "train/val/test",
    ]  # fmt: skip
    assert [line.split()[:4] for line in lines[1:5]] == [
        ["A", "late", "0.42", "16"],
        ["A", "HEAD", "0.3", "16"],
        ["B", "fast", "0.36", "16"],
        ["C", "small", "0.2", "24"],
    ]
    assert "The same in all runs: rejected 0" in lines
    assert any(line.startswith("data A: 2 runs, pack ") for line in lines)
    narrow = experiments.text(found, 60).splitlines()
    assert max(map(columns, narrow)) <= 60
    assert "preprocess.size" in narrow[0] and "train.yaml:rate" in narrow[0]
    assert any(line.startswith("Too narrow for: ") and "images" in line for line in narrow)


@slow
def test_the_workspace_is_a_run_where_it_differs(project: Project):
    try:
        project.write("train.yaml", "rate: 0.8\n")
        found = experiments.table(project.folder)
        assert names(found)["A"] == ["HEAD", "workspace", "late"]
        workspace = found["runs"][1]
        assert workspace["revision"] is None
        assert workspace["params"]["train.yaml:rate"] == 0.8
    finally:
        project("git", "checkout", "train.yaml")


@slow
def test_a_clone_with_the_experiments_and_no_data_has_the_same_table(project: Project, tmp_path: Path):
    project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone("git", "fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*")
    assert experiments.table(clone.folder) == experiments.table(project.folder)
    assert not (clone.folder / ".dvc/cache/files").exists()


@slow
def test_a_metric_that_cannot_be_read_is_said_so(project: Project):
    try:
        project.write("model.json", "{")
        found = experiments.table(project.folder)
        assert found["warnings"] == ["workspace: cannot be read: model.json"]
        assert experiments.text(found).endswith("workspace: cannot be read: model.json\n")
        assert (
            next(run for run in found["runs"] if run["name"] == "workspace")["metrics"]["model.json:accuracy"] is None
        )
    finally:
        project("git", "checkout", "model.json")


@slow
def test_a_metric_that_is_not_there_is_named_with_those_there_are(project: Project):
    with pytest.raises(InputError, match=r"no metric 'acuracy' in any run; .*: model.json:accuracy, model.json:test"):
        experiments.table(project.folder, "acuracy")


@slow
def test_no_experiments_and_no_repository_are_said_so(new_project: Callable[[], Project], tmp_path: Path):
    with pytest.raises(InputError, match=r"there are no DVC experiments in .*: make one: dvc exp run -n NAME"):
        experiments.table(new_project().folder)
    with pytest.raises(InputError, match="is no git repository with a commit"):
        experiments.table(tmp_path)


def test_what_differs_is_shown_and_what_is_the_same_is_said_once():
    def run(name: str, size: int, images: str | int) -> dict:
        split = {"train": 8, "val": 1, "test": 1}
        counts = {"accepted": 10, "rejected": 2, "files": 12, "split": split}
        params = {"preprocess.size": size, "images": images}  # a param may be called like a column
        return {"name": name, "data": "A", "params": params, "metrics": {"m.json:loss": 0.5}, **counts}

    runs = [run("HEAD", 128, "few"), run("small", 64, "many")]
    found = {"runs": runs, "params": ["preprocess.size", "images"], "metrics": ["m.json:loss"], "sort_by": None}
    lines = experiments.text(found | {"data": [], "warnings": []}, 60).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["data", "run", "preprocess.size", "images"],
        ["A", "HEAD", "128", "few"],
        ["A", "small", "64", "many"],
    ]
    assert " ".join(lines[4:]).strip() == (
        "The same in all runs: loss 0.5, images 10, rejected 2, train/val/test 8/1/1"
    )
    only = experiments.text(found | {"runs": runs[:1], "data": [], "warnings": []}).splitlines()
    assert only[0].split()[-3:] == ["images", "rejected", "train/val/test"]
