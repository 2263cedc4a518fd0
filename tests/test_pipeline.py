"""The pipeline runs from end to end on a handful of your images, by real `dvc repro` in a temporary copy.

The copy holds what dvc.yaml names as deps, and no more: a stage that reads a file which is not listed there fails here,
before DVC fails to see that it changed.

To add a test: take `made`, the copy after its run, and look at what should be in it. To look at it yourself:
`python3 run.py test tests/test_pipeline.py --basetemp=/tmp/made`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from imagepack import PackedImages


@pytest.fixture(scope="module")
def made(
    root: Path,
    pipeline: dict[str, dict],
    handful: dict[str, bytes],
    tables: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A copy of the pipeline with a handful of images as data/raw, after `dvc repro`. Do not change it."""
    copy = tmp_path_factory.mktemp("pipeline")
    written = [out for stage in pipeline.values() for out in outs(stage)]
    deps = {dep for stage in pipeline.values() for dep in stage["deps"] if not is_below(dep, ["data/raw", *written])}
    for name in deps | {"imagepack", "stages", "dvc.yaml", ".dvcignore"}:
        copy_to(root / name, copy / name)
    for path, content in (handful | tables).items():
        (copy / "data/raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / "data/raw" / path).write_bytes(content)
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    values.setdefault("validate", {})["fail_on"] = []  # a handful says nothing about the size of classes
    (copy / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    dvc(copy, "init", "--no-scm", "--quiet")
    dvc(copy, "repro")
    return copy


def outs(stage: dict) -> list[str]:
    """The paths that a stage of dvc.yaml writes."""
    listed = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def is_below(path: str, others: list[str]) -> bool:
    """Whether a path is one of the others, or lies in one."""
    return any(Path(path).is_relative_to(other) for other in others)


def copy_to(source: Path, target: Path) -> None:
    """Copy a file or folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in `folder`; return what it printed. It must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["dvc", *arguments], cwd=folder, env=os.environ | {"PATH": path}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_each_stage_writes_what_dvc_yaml_says(made: Path, pipeline: dict[str, dict]):
    for stage in pipeline.values():
        for out in outs(stage):
            path = made / out
            assert any(path.iterdir()) if path.is_dir() else path.stat().st_size, out


def test_most_images_come_through(made: Path):
    found = json.loads((made / "reports/validation.json").read_text(encoding="utf-8"))
    assert found["rejected"] <= found["files"] / 2, (made / "reports/rejected.csv").read_text(encoding="utf-8")


def test_the_pack_holds_every_class_in_the_size_that_params_yaml_says(made: Path, params, handful: dict[str, bytes]):
    packed = PackedImages(made / "data/packed")
    image, label = packed[0]
    assert image.shape == (params["preprocess"].size, params["preprocess"].size, len(params["preprocess"].mode))
    if not params["labels"].column:  # the folder is the label
        assert packed.classes == sorted({Path(path).parent.name for path in handful})
        assert packed.classes[label] == Path(packed.path(0)).parent.name


def test_the_same_images_give_the_same_bytes_again(made: Path, tmp_path: Path):
    """What depends on chance, on the time or on this machine would differ; dvc.lock holds the hash of every result."""
    again = tmp_path / "again"
    shutil.copytree(made, again, ignore=shutil.ignore_patterns(".memo", "runs"))
    dvc(again, "repro", "--force")
    assert (again / "dvc.lock").read_text(encoding="utf-8") == (made / "dvc.lock").read_text(encoding="utf-8")
