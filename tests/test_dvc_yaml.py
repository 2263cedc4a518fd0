"""dvc.yaml, params.yaml and the code agree.

A stage is a module, a params section, a class and a function of one name. Its deps cover the code that it imports and
the data that it reads: what dvc.yaml does not list, DVC does not see, and an edit of it would rerun nothing.

These tests ask it of every stage in dvc.yaml, so a new stage needs no test here.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

from imagepack.engine import params
from imagepack.engine.inputs import Input

REPOSITORY = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def module_file(name: str) -> Path | None:
    """The file of one of this repository's modules, relative to it; None for other modules."""
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (REPOSITORY / candidate).exists():
            return candidate
    return None


def imports(file: Path) -> set[Path]:
    """This repository's modules that `file` imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module_file(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):  # from package import module, or from module import name
            found |= {module_file(f"{node.module}.{alias.name}") or module_file(node.module) for alias in node.names}
    return found - {None}


def all_imports(file: Path) -> set[Path]:
    """What `file` imports, and what that imports, and so on, of what can change a result; and the file itself."""
    found, waiting = set(), {file}
    while waiting:
        found |= waiting
        waiting = {file for file in set().union(*map(imports, waiting)) - found if not moves_work_about(file)}
    return {file for file in found if file.name != "__init__.py" and file != Path("imagepack/errors.py")}


def moves_work_about(file: Path) -> bool:
    """Whether a module changes no byte of a result."""
    return file.is_relative_to("imagepack/engine") or file.is_relative_to("imagepack/dvc")


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_all_code_that_can_change_its_results_and_on_no_other(stage: str):
    listed = {Path(dep) for dep in PIPELINE[stage]["deps"] if dep.startswith(("imagepack", "stages"))}
    needed = all_imports(Path("stages", f"{stage}.py"))
    without = {file for file in needed if not any(file.is_relative_to(dep) for dep in listed)}
    assert without == set()
    assert {dep for dep in listed if not any(file.is_relative_to(dep) for file in needed)} == set()


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_has_few_deps(stage: str):
    assert len(PIPELINE[stage]["deps"]) <= 8


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_is_a_module_a_params_section_and_a_class_of_one_name(stage: str):
    assert PIPELINE[stage]["cmd"].startswith(f"python -m imagepack.engine {stage} ")
    assert stage in PIPELINE[stage]["params"]
    module = importlib.import_module(f"stages.{stage}")
    assert issubclass(getattr(module, stage.capitalize()), params.Section)
    assert callable(getattr(module, stage))
    assert PIPELINE[stage]["desc"]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_is_stopped_where_any_data_that_it_depends_on_changes(stage: str):
    function = getattr(importlib.import_module(f"stages.{stage}"), stage)
    annotations = [p.annotation for p in inspect.signature(function).parameters.values()]
    paths = zip(PIPELINE[stage]["cmd"].split()[4:], annotations, strict=False)
    read = {path for path, annotation in paths if annotation == Input}
    assert read == {dep for dep in PIPELINE[stage]["deps"] if dep.startswith("data/")}


def test_params_that_dvcs_run_cache_overlooks_inside_a_section_are_listed_by_themselves():
    """treeverse/dvc#10296: a change of them would bring back the outputs of the old value."""
    values = params.defaults()

    def overlooked(key: str, value) -> set[str]:
        inner = value.items() if isinstance(value, dict) else []
        found = set().union(*(overlooked(f"{key}.{name}", part) for name, part in inner))
        return found | ({key} if key.rsplit(".")[-1] in ("size", "nfiles") else set())

    for stage in PIPELINE.values():
        listed = set(stage["params"])
        for section in listed & values.keys():
            assert overlooked(section, values[section]) <= listed


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_the_lock(stage: str):
    assert "requirements.lock" in PIPELINE[stage]["deps"]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_names_its_paths_in_its_command(stage: str):
    command = PIPELINE[stage]["cmd"].split()
    outs = [next(iter(out)) if isinstance(out, dict) else out for kind in ("outs", "metrics", "plots")
            for out in PIPELINE[stage].get(kind, [])]  # fmt: skip
    for path in [*outs, *(dep for dep in PIPELINE[stage]["deps"] if dep.startswith("data/"))]:
        assert any(path == word or path.startswith(f"{word}/") for word in command), path


def test_no_data_path_stands_in_stage_code():
    for file in REPOSITORY.glob("stages/**/*.py"):
        code = re.sub(r'""".*?"""|#.*', "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "data/" not in code, file


def test_the_committed_remote_holds_no_key():
    config = (REPOSITORY / ".dvc/config").read_text(encoding="utf-8")
    assert not re.search(r"(key|key_id|secret|password|token) *=", config)
