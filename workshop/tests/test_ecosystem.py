"""The files that other people's tools read: an editor, pre-commit, GitHub. .ci/run asks those tools themselves."""

import json
import re
import subprocess
from collections.abc import Callable

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY, Project, template_params

SCHEMA = json.loads((REPOSITORY / "params.schema.json").read_text(encoding="utf-8"))
KNOB = "    layout: Literal"


def valid(text: str) -> bool:
    """What an editor says of a params.yaml."""
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text))


def test_params_yaml_names_its_schema_for_editors():
    assert template_params().startswith("# yaml-language-server: $schema=params.schema.json\n")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert valid(template_params())


@pytest.mark.parametrize(
    ("old", "new", "ok"),
    [
        ("  size: 128\n", "  size: 64\n", True),
        ("  size: 128\n", "  size: 7\n", False),
        ("  size: 128\n", "  sise: 64\n", False),
        ("  fit: crop\n", "  fit: squash\n", False),
        ("    too_small: error\n", "    too_small: fatal\n", False),
        ("  background: [255, 255, 255]\n", "  background: [255, 255]\n", False),
        ("\npack:\n", "\ntrain:\n  lr: 0.001\n\npack:\n", True),
    ],
)
def test_an_editor_marks_what_the_stages_would_refuse_and_leaves_sections_of_ones_own_alone(
    old: str, new: str, ok: bool
):
    text = template_params()
    assert old in text
    assert valid(text.replace(old, new, 1)) == ok


@pytest.mark.slow
def test_a_knob_of_ones_own_is_known_after_one_command_which_the_tests_name(new_project: Callable[[], Project]):
    project = new_project()
    test = ("python", "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "tests/test_params.py")
    text = (project.folder / "stages/preprocess.py").read_text(encoding="utf-8")
    project.write("stages/preprocess.py", text.replace(KNOB, f"    sharpen: float = Field(0.0, ge=0, le=3)\n{KNOB}"))
    assert "python3 run.py schema" in project(*test, ok=False)
    assert "params.schema.json: written" in project("python", "-m", "imagepack.commands.schema")
    properties = json.loads((project.folder / "params.schema.json").read_text(encoding="utf-8"))["$defs"]["Preprocess"]
    assert properties["properties"]["sharpen"] == {"default": 0.0, "maximum": 3, "minimum": 0, "type": "number"}
    project(*test)


def test_the_container_has_the_extensions_that_an_editor_recommends():
    text = (REPOSITORY / ".devcontainer/devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(re.sub(r"^\s*//.*", "", text, flags=re.MULTILINE))
    recommended = json.loads((REPOSITORY / ".vscode/extensions.json").read_text(encoding="utf-8"))["recommendations"]
    assert container["customizations"]["vscode"]["extensions"] == recommended
    assert container["postCreateCommand"].startswith("python3 run.py -- ")


def test_what_pre_commit_fetches_is_pinned_and_ruff_and_dvc_are_those_of_the_locks():
    (repo,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        if hook["language"] == "system":
            assert re.match(r"python3 run\.py -- (ruff|dvc) ", hook["entry"])
        else:
            assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in hook["additional_dependencies"])


def test_each_file_for_github_is_yaml_and_each_form_has_fields():
    names = subprocess.check_output(["git", "ls-files", "-co", ".github"], cwd=REPOSITORY, text=True).split()
    files = {name: yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8")) for name in names}
    forms = [content for name, content in files.items() if "ISSUE_TEMPLATE" in name and "config" not in name]
    assert len(files) >= 5
    assert len(forms) == 2
    assert all(len(form["body"]) >= 4 for form in forms)
