"""The workflow that docs/ci.md explains may do little, and its commands do what that says in a clone without data."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, Project, add_pictures, aws_variables

from imagepack.commands import s3
from imagepack.compare import gates

TEXT = (REPOSITORY / "docs/ci.md").read_text(encoding="utf-8")
FILE = (REPOSITORY / ".github/workflows/dataset.yml").read_text(encoding="utf-8")
WORKFLOW = yaml.load(FILE, yaml.BaseLoader)
JOBS = WORKFLOW["jobs"]
slow = pytest.mark.slow


def steps(job: str) -> dict[str, str]:
    """Shell commands by the step's name."""
    return {step["name"]: step["run"] for step in JOBS[job]["steps"] if "run" in step}


RECORDED = steps("recorded")["Is dvc.lock of these params, this code and these images?"]
PUSHED = steps("compare")["Is the data in the bucket?"]


def run(clone: Project, script: str, ok: bool = True, **environment: str) -> str:
    """As a runner does, but for making .venv, which test_run.py tests."""
    assert "run.py compare" not in script
    script = script.replace("python3 run.py -- ", "").replace("python3 -", "python -")
    return clone("bash", "-e", "-c", script, ok=ok, **environment)


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """A dataset that was pushed, tagged v1, and a second version that was not."""
    project = new_project()
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("  size: 128\n", "  size: 16\n"))
    project("dvc", "remote", "modify", "s3", "url", f"{s3.TEMPLATE_URL}/ci")
    for version, first in (("v1", 0), ("v2", 20)):
        add_pictures(project.folder / "data/raw", 4, first=first)
        project("dvc", "add", "data/raw")
        project("dvc", "repro")
        project.commit(version)
        project("git", "tag", version)
        if version == "v1":
            project("dvc", "push", **aws_variables(s3_server))
    return project


@pytest.fixture
def clone(project: Project, tmp_path: Path) -> Callable[[str], Project]:
    """Make a fresh clone of a version, without data and with an empty DVC cache."""

    def make(version: str) -> Project:
        shutil.rmtree(tmp_path / "clone", ignore_errors=True)
        project("git", "clone", "--quiet", "--branch", version, str(project.folder), str(tmp_path / "clone"))
        return Project(tmp_path / "clone")

    return make


def test_the_workflow_may_do_no_more_than_it_has_to():
    assert WORKFLOW["on"] == "pull_request"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOBS["recorded"]
    assert JOBS["compare"]["permissions"] == {"contents": "read", "id-token": "write", "pull-requests": "write"}
    checkouts = [step for job in JOBS.values() for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == ["false", "false"]


def test_actions_are_pinned_to_commits_and_say_which_version_that_is():
    uses = re.findall(r"uses: (.*)", FILE)
    assert len(uses) == sum("uses" in step for job in JOBS.values() for step in job["steps"]) == 6
    assert [line for line in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_no_command_has_text_of_a_pull_request_pasted_into_it():
    """A branch may be called $(...): it comes in as a variable."""
    for job in JOBS:
        assert not any("${{" in command for command in steps(job).values())


def test_its_rules_are_rules_and_all_are_explained():
    (named,) = re.findall(r"--fail-on (\S+)", FILE)
    assert gates.parse(named)
    assert re.findall(r"^\| ([a-z]+(?:_[a-z]+)*) \| ", TEXT, flags=re.MULTILINE) == ["check", "rule", *gates.RULES]


def test_the_document_names_what_the_workflow_has():
    assert "](../.github/workflows/dataset.yml)" in TEXT
    words = {
        *JOBS,
        "DATASET_ROLE",
        "configure-aws-credentials",
        "id-token: write",
        "--edit-last",
        "persist-credentials",
    }
    assert {word for word in words if word not in FILE} == set()
    for quoted in ("vars.DATASET_ROLE != ''", "dvc repro --allow-missing --dry", "dvc data status --not-in-remote"):
        assert quoted in TEXT
        assert quoted in FILE
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert yaml.safe_load(block)["env"].items() >= JOBS["compare"]["env"].items()


def test_every_command_of_it_is_tested_or_known_not_to_be():
    tested = {"Set up", "Is dvc.lock of these params, this code and these images?", "Is the data in the bucket?"}
    assert {*steps("recorded"), *steps("compare")} == tested | {"Compare", "Say it"}  # the CLI's tests; gh


def test_a_repository_without_a_dataset_passes(template: Project):
    assert "No dataset is committed here yet" in run(template, RECORDED)
    assert not (template.folder / "repro.txt").exists()


@slow
def test_what_is_recorded_passes_without_data_or_keys(clone: Callable[[str], Project]):
    for version in ("v1", "v2"):
        here = clone(version)
        run(here, steps("recorded")["Set up"])
        assert "Data and pipelines are up to date." in run(here, RECORDED)
        assert not (here.folder / "data/raw").exists()


@slow
@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("params.yaml", "  size: 16\n", "  size: 17\n", "preprocess"),
        ("params.yaml", "  hflip: 0.5\n", "  hflip: 0.4\n", "preview"),
        ("stages/pack.py", '"""', '"""Changed. ', "pack"),
    ],
)
def test_what_was_not_run_again_is_stopped(clone: Callable[[str], Project], file: str, old: str, new: str, stage: str):
    here = clone("v1")
    text = (here.folder / file).read_text(encoding="utf-8")
    assert old in text
    here.write(file, text.replace(old, new, 1))
    said = run(here, RECORDED, ok=False)
    assert f"ERROR: failed to reproduce '{stage}': [Errno 2] No such file or directory: " in said
    assert "::error file=dvc.lock::The stage named last has other params, code or data than dvc.lock says." in said


@slow
def test_images_that_were_added_without_a_run_are_stopped(clone: Callable[[str], Project]):
    here = clone("v1")
    here("git", "checkout", "v2", "--", "data/raw.dvc")
    assert "failed to reproduce 'validate'" in run(here, RECORDED, ok=False)


@slow
def test_a_stage_that_finds_all_that_it_reads_in_git_is_stopped_too(clone: Callable[[str], Project]):
    here = clone("v1")
    text = (here.folder / "dvc.yaml").read_text(encoding="utf-8")
    stage = "\n  more:\n    cmd: python -c 1\n    deps:\n      - README.md\n\nplots:\n"
    here.write("dvc.yaml", text.replace("\nplots:\n", stage))
    here("dvc", "repro", "--allow-missing", "--dry")  # exits 0
    assert "::error file=dvc.lock::" in run(here, RECORDED, ok=False)


@slow
def test_data_that_was_not_pushed_is_stopped(clone: Callable[[str], Project], s3_server: s3.Server):
    keys = aws_variables(s3_server)
    run(clone("v1"), PUSHED, **keys)
    here = clone("v2")
    said = run(here, PUSHED, ok=False, **keys)
    assert re.search(r"::error::Not in the bucket: .*data/raw/.* Run dvc push where this was made\.", said)
    assert not (here.folder / "data/raw").exists()


@slow
def test_an_image_that_was_deleted_from_the_bucket_takes_granular(
    project: Project, clone: Callable[[str], Project], s3_server: s3.Server
):
    keys, client = aws_variables(s3_server), s3_server.client()
    content = (project.folder / "data/raw/cat/img0.png").read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    place = {"Bucket": "image-dataset", "Key": f"ci/files/md5/{md5[:2]}/{md5[2:]}"}
    client.head_object(**place)
    client.delete_object(**place)
    try:
        run(clone("v1"), PUSHED, **keys)
        said = run(clone("v1"), PUSHED.replace("--not-in-remote", "--not-in-remote --granular"), ok=False, **keys)
        assert "::error::Not in the bucket: data/raw/cat/img0.png. Run" in said
    finally:
        client.put_object(**place, Body=content)


@slow
def test_without_keys_the_bucket_is_not_taken_for_complete(clone: Callable[[str], Project]):
    assert "::error::" not in run(clone("v1"), PUSHED, ok=False, AWS_EC2_METADATA_DISABLED="true")
