"""The pipeline under real DVC: what reruns and what does not, and that the result depends on nothing else."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, add_pictures, contents

pytestmark = pytest.mark.slow
STAGES = ("validate", "preprocess", "pack", "preview")
RESULTS = ("data/validated", "data/processed", "data/packed", "reports")


def results(project: Project) -> dict[str, dict[str, bytes]]:
    return {name: contents(project.folder / name) for name in RESULTS}


def ran(output: str) -> set[str]:
    """The stages that `dvc repro` ran."""
    return {stage for stage in STAGES if f"Running stage '{stage}'" in output}


@pytest.fixture(scope="module")
def first_version(new_project: Callable[[], Project]) -> Project:
    """A clone with 60 images in two classes, its pipeline run and committed; not to be changed."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 30, "cat")
    add_pictures(project.folder / "data/raw", 30, "dog", first=30)
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    project.commit("First version")
    return project


@pytest.fixture
def project(first_version: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    shutil.copytree(first_version.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def test_the_second_run_does_nothing_and_git_sees_no_change(project: Project):
    assert ran(project("dvc", "repro")) == set()
    assert project("git", "status", "--porcelain") == ""
    assert "No changes." in project("dvc", "data", "status")


def test_data_and_images_are_not_in_git(project: Project):
    tracked = project("git", "ls-files", "data", "reports").split()
    assert {name for name in tracked if not name.startswith("data/sample/")} == {
        "data/.gitignore",
        "data/acknowledged.csv",
        "data/raw.dvc",
        "reports/.gitignore",
        "reports/pack.json",
        "reports/plots/classes.csv",
        "reports/plots/sizes.csv",
        "reports/validation.json",
    }


def test_two_runs_from_nothing_give_the_same_bytes_with_any_number_of_workers(project: Project):
    first = results(project)
    shutil.rmtree(project.folder / ".dvc/cache/runs")
    time.sleep(1.1)  # so that a time written into a file would differ
    for workers in ("1", "4"):
        assert ran(project("dvc", "repro", "--force", "--no-run-cache", STAGE_WORKERS=workers)) == set(STAGES)
        assert results(project) == first


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("validate.min_side=20", {"validate"}),
        ("preprocess.size=64", {"preprocess", "pack", "preview"}),
        ("pack.split.test=0.2 pack.split.train=0.7", {"pack", "preview"}),
        ("preview.variants=3", {"preview"}),
        ("augment.rotate=30", {"preview"}),
    ],
)
def test_a_changed_param_reruns_only_the_stages_that_read_it(project: Project, setting: str, stages: set[str]):
    options = [option for value in setting.split() for option in ("-S", value)]
    assert ran(project("dvc", "exp", "run", *options)) == stages
    again = project("git", "stash", "--quiet") + project("dvc", "checkout", "--quiet") + project("dvc", "repro")
    assert ran(again) == set()  # params as before: nothing to do, or taken from the run cache


def test_incremental_runs_end_in_the_same_bytes_as_a_run_from_nothing(project: Project):
    raw = project.folder / "data/raw"
    add_pictures(raw, 3, "cat", first=100)
    (raw / "cat/img5.png").unlink()
    (raw / "cat/img6.png").rename(raw / "dog/img6.png")
    (raw / "dog/img40.png").write_bytes(b"no image")
    assert ran(project("dvc", "repro")) == set(STAGES)
    after_changes = results(project)
    assert json.loads((project.folder / "reports/validation.json").read_text())["rejected"] == 1
    shutil.rmtree(project.folder / ".dvc/cache/runs")
    for name in RESULTS[:3]:
        shutil.rmtree(project.folder / name)
    project("dvc", "repro", "--force")
    assert results(project) == after_changes


def test_experiments_show_what_changed(project: Project):
    project("dvc", "exp", "run", "-n", "small", "-S", "preprocess.size=64")
    table = json.loads(project("dvc", "exp", "show", "--json"))
    assert '"small"' in json.dumps(table)
    params = json.loads(project("dvc", "params", "diff", "HEAD", "--json"))
    assert params["params.yaml"]["preprocess.size"] == {"old": 128, "new": 64, "diff": -64}
    metrics = json.loads(project("dvc", "metrics", "diff", "HEAD", "--json"))
    assert metrics["reports/pack.json"]["bytes"]["new"] < metrics["reports/pack.json"]["bytes"]["old"] / 3
    page = project("dvc", "plots", "diff", "HEAD", "small").strip().splitlines()[-1].removeprefix("file://")
    html = (project.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert page.endswith("index.html")
    assert "small" in html
    assert "cat.png" in html
    assert "https://cdn" not in html


@pytest.mark.extra("browser")
def test_plots_are_drawn_without_a_network(project: Project):
    project("dvc", "plots", "show")
    page = (project.folder / "dvc_plots/index.html").as_uri()
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={project.folder / 'browser'}"]
    options = ["--headless", "--no-sandbox", "--virtual-time-budget=9000", "--dump-dom"]
    drawn = project("chromium", *options, *quiet, *offline, page)
    assert drawn.count('class="marks"') == 2  # what vega draws on
    assert "cat.png" in drawn


def test_experiments_run_in_a_copy_of_the_repository(project: Project):
    before = results(project)
    project("dvc", "exp", "run", "--temp", "-n", "grey", "-S", "preprocess.mode=L")
    assert results(project) == before
    project("dvc", "exp", "apply", "grey")
    assert json.loads((project.folder / "reports/pack.json").read_text())["bytes"] < 60 * 128 * 128 * 2


def test_what_the_vs_code_extension_asks_for_is_answered(project: Project):
    json.loads(project("dvc", "exp", "show", "--json"))
    json.loads(project("dvc", "data", "status", "--json", "--granular", "--unchanged"))
    plots = project("dvc", "plots", "diff", "--json", "--out", "plots-out", "--split")
    assert "reports/plots/classes.csv" in plots
    assert "cat.png" in plots
    assert "preprocess" in project("dvc", "dag", "--mermaid")


def test_a_clone_without_data_can_check_that_the_pipeline_is_up_to_date(project: Project, tmp_path):
    project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert ran(clone("dvc", "repro", "--allow-missing", "--dry")) == set()
    clone.write("params.yaml", (clone.folder / "params.yaml").read_text().replace("size: 128", "size: 64"))
    assert "preprocess" in clone("dvc", "repro", "--allow-missing", "--dry", ok=False)


def test_junk_of_operating_systems_python_and_editors_changes_nothing(project: Project):
    (project.folder / "data/raw/cat/.DS_Store").write_bytes(b"junk")
    (project.folder / "imagepack/images/__pycache__").mkdir(exist_ok=True)
    for name in ("__pycache__/other.pyc", ".decode.py.swp", "decode.py~", ".#decode.py"):
        (project.folder / "imagepack/images" / name).write_bytes(b"junk")
    assert "No changes." in project("dvc", "data", "status")
    assert ran(project("dvc", "repro")) == set()
    before = results(project)
    assert "1 more left out by .dvcignore" in project("dvc", "repro", "--force")
    assert results(project) == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: shutil.rmtree(raw) or raw.mkdir(), "holds no files"),
        (lambda raw: [path.write_bytes(b"") for path in raw.rglob("*.png")], "none of 60 files is an image"),
        (lambda raw: [path.write_bytes(b"x") for path in raw.glob("dog/*")], "dog: all 30 files rejected"),
    ],
    ids=["empty", "no image", "a class lost"],
)
def test_bad_data_stops_the_pipeline_with_one_clear_error(project: Project, spoil, words: str):
    spoil(project.folder / "data/raw")
    output = project("dvc", "repro", ok=False)
    assert words in output
    assert "Traceback" not in output
    project("git", "checkout", "--", ".")
    project("dvc", "checkout", "--force")  # and the version before is there again
    assert ran(project("dvc", "repro")) == set()
