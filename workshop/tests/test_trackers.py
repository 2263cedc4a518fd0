"""The code of docs/trackers.md runs with the trackers themselves, and what they keep names the data."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, Workspace, add_pictures

from imagepack import PackedImages
from stages.preprocess import Preprocess

pytestmark = [pytest.mark.slow, pytest.mark.extra("trackers")]
CODE = re.findall(r"```py\n(.*?)```", (REPOSITORY / "docs/trackers.md").read_text(encoding="utf-8"), flags=re.DOTALL)
READ_BACK = """
import mlflow
(run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
(given,) = run.inputs.dataset_inputs
print(given.dataset.digest, given.dataset.source, given.tags[0].value)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A pack in data/packed that the last commit has."""
    folder = tmp_path_factory.mktemp("trackers")
    workspace = Workspace(folder)
    workspace.packed = folder / "data/packed"
    add_pictures(workspace.raw, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGE_WORKERS", "1")
        workspace.run(preprocessed=Preprocess(size=16))
    project = Project(folder)
    for name in ("dvc.yaml", "dvc.lock"):
        project.write(name, "")
    project("git", "init", "--quiet")
    project("git", "config", "user.name", "Test")
    project("git", "config", "user.email", "test@example.com")
    project("git", "add", "reports/pack.json", "dvc.yaml", "dvc.lock")
    project("git", "commit", "--quiet", "--message", "Dataset")
    return project


def run(code: str, folder: Path) -> str:
    """Run code with the trackers' Python; what it printed."""
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",  # mlflow-skinny has no other store, and the whole is heavy
    }
    done = subprocess.run(
        [os.environ["TRACKERS_PYTHON"], "-c", code], cwd=folder, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mlflow_knows_digest_and_revision(project: Project):
    assert "1 run with these images" in run(CODE[0], project.folder)
    version = PackedImages(project.folder / "data/packed").version
    assert version["revision"] == project("git", "rev-parse", "HEAD").strip()
    said = run(READ_BACK, project.folder)
    assert all(word in said for word in (version["digest"][:36], version["revision"], "training"))


def test_weights_and_biases_keeps_the_version_offline(project: Project):
    run(CODE[1], project.folder)
    (file,) = (project.folder / "wandb").glob("offline-run-*/*.wandb")
    version = PackedImages(project.folder / "data/packed").version
    kept = file.read_bytes()
    assert all(word.encode() in kept for word in (version["digest"], version["revision"], "my-dataset", "val_accuracy"))


def test_dvclive_writes_the_version_beside_the_metrics(project: Project):
    run(CODE[2], project.folder)
    version = PackedImages(project.folder / "data/packed").version
    said = (project.folder / "my-run/params.yaml").read_text()
    assert version["digest"] in said and version["revision"] in said
    assert "val_accuracy" in (project.folder / "my-run/metrics.json").read_text()
