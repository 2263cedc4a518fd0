"""`python3 run.py compare`: real images, real DVC, a real S3, a clone without data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from conftest import REPOSITORY, Project, add_pictures, picture, save
from PIL import ImageEnhance
from test_ci_docs import steps
from test_versions import connect, new_clone

from imagepack.commands import s3

SCHEMA = json.loads((REPOSITORY / "imagepack/compare/schema.json").read_text(encoding="utf-8"))
pytestmark = pytest.mark.slow


def change(raw: Path) -> set[tuple[str, str | None, str | None]]:
    """Do one of everything to the images of `raw`; kind, path_a, path_b."""
    save(raw / "cat/img0.png", picture(0), compress_level=1)
    save(raw / "cat/img1.png", ImageEnhance.Brightness(picture(1)).enhance(1.05))
    (raw / "cat/img2.png").rename(raw / "dog/img2.png")
    (raw / "cat/img3.png").rename(raw / "cat/renamed.png")
    (raw / "cat/img4.png").unlink()
    save(raw / "cat/moved4.png", ImageEnhance.Brightness(picture(4)).enhance(1.03))
    (raw / "cat/img5.png").unlink()
    save(raw / "cat/img100.png", picture(100))
    (raw / "cat/img6.png").write_bytes((raw / "cat/img6.png").read_bytes()[:-200])
    return {
        ("reencoded", "cat/img0.png", "cat/img0.png"),
        ("edited", "cat/img1.png", "cat/img1.png"),
        ("relabelled", "cat/img2.png", "dog/img2.png"),
        ("moved", "cat/img3.png", "cat/renamed.png"),
        ("moved_edited", "cat/img4.png", "cat/moved4.png"),
        ("removed", "cat/img5.png", None),
        ("added", None, "cat/img100.png"),
        ("edited", "cat/img6.png", "cat/img6.png"),
    }


DONE: set = set()


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """Two versions, v1 and v2, and an experiment called small; all pushed. Not to be changed."""
    project = connect(new_project(), s3_server)
    raw = project.folder / "data/raw"
    add_pictures(raw, 40)
    add_pictures(raw, 20, "dog", 40)
    for version in ("v1", "v2"):
        project("dvc", "add", "data/raw")
        project("dvc", "repro", "pack")
        project.commit(f"Version {version}")
        project("git", "tag", "--annotate", "--message", version, version)
        if version == "v1":
            DONE.update(change(raw))
    project("dvc", "exp", "run", "--name", "small", "--set-param", "preprocess.size=64", "pack")
    project("dvc", "push")
    project("git", "reset", "--quiet", "--hard")
    project("dvc", "checkout", "data/packed", "data/processed")
    project("dvc", "push", "--all-tags")
    project("git", "branch", "base", "v1")
    return project


@pytest.fixture(scope="module")
def clone(project: Project, s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone without data, that nothing is pulled into."""
    return new_clone(project, s3_server, tmp_path_factory.mktemp("clone") / "clone")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))


def compared(project: Project, folder: Path, *arguments: str) -> dict:
    """The document, which has to be as the schema says."""
    project("python", "-m", "imagepack.commands.compare", *arguments, "--json", str(folder / "c.json"))
    document = json.loads((folder / "c.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    return document


def triples(document: dict) -> set[tuple[str, str | None, str | None]]:
    return {(change["kind"], change["path_a"], change["path_b"]) for change in document["changes"]}


def test_a_clone_without_data_tells_what_was_done(clone: Project, tmp_path: Path):
    document = compared(clone, tmp_path, "v1", "v2")
    assert triples(document) == DONE
    assert document["counts"]["unchanged"] == 60 - 7
    assert document["a"]["images"] == document["b"]["images"] == 60
    assert [image["path_b"] for image in document["status"]["newly_rejected"]] == ["cat/img6.png"]
    by_kind = {change["kind"]: change for change in document["changes"] if change["path_b"] != "cat/img6.png"}
    assert 0 < by_kind["edited"]["pixel_distance"] < 20
    assert by_kind["edited"]["perceptual_distance"] <= 15
    assert by_kind["moved_edited"]["evidence"]
    assert document["pipeline"]["raw_changed"] and document["pipeline"]["packed_changed"]
    assert 0 < document["transfer"]["a_to_b"]["bytes"] < 10_000_000
    assert clone("git", "status", "--porcelain") == ""
    assert not (clone.folder / "data/raw").exists()


def test_swapped_versions_give_the_mirrored_answer(clone: Project, tmp_path: Path):
    other = {"added": "removed", "removed": "added"}
    document = compared(clone, tmp_path, "v2", "v1")
    assert {(other.get(kind, kind), b, a) for kind, a, b in triples(document)} == DONE


def test_an_experiment_is_a_version_and_its_param_explains_the_packs(clone: Project, project: Project, tmp_path: Path):
    document = compared(project, tmp_path, "v2", "small")
    assert document["changes"] == []
    assert document["pipeline"]["raw_changed"] is False
    assert document["pipeline"]["explanation"] == [
        "The packs differ though no raw image does: preprocess.size is 64 instead of 128."
    ]


def test_the_last_commit_against_the_workspace(project: Project, tmp_path: Path):
    document = compared(project, tmp_path)
    assert (document["a"]["name"], document["b"]["name"]) == ("HEAD", "workspace")
    assert document["changes"] == []


def test_images_that_dvc_was_not_told_of_are_warned_of(project: Project, tmp_path: Path):
    stray = project.folder / "data/raw/cat/stray.png"
    save(stray, picture(200))
    text = project("python", "-m", "imagepack.commands.compare", "v2", "workspace")
    stray.unlink()
    text = " ".join(text.split())  # it is wrapped
    assert "B: data/raw has changed since the last `dvc add`: run `dvc add data/raw`, then `dvc repro`" in text
    assert "Warnings" not in project("python", "-m", "imagepack.commands.compare", "v1", "workspace")


def test_the_workspace_can_be_the_older_version(project: Project, tmp_path: Path):
    document = compared(project, tmp_path, "workspace", "v1")
    assert document["counts"]["added"] == document["counts"]["removed"] == 1


def test_every_output_is_written_and_the_gates_name_rule_and_image(clone: Project, tmp_path: Path):
    files = {name: tmp_path / f"out/c.{name}" for name in ("json", "markdown", "html")}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    rules = ("--fail-on", "invalid_increase,leakage")
    text = clone("python", "-m", "imagepack.commands.compare", "v1", "v2", *options, *rules, ok=False)
    assert "invalid_increase" in text and "cat/img6.png" in text
    assert all(path.stat().st_size > 1000 for path in files.values())
    assert f"\nWritten: {files['html']}, {files['markdown']}, {files['json']}\n" in text
    assert files["html"].read_text(encoding="utf-8").count("data:image/") >= 8


def test_the_workflow_for_pull_requests_says_what_is_wrong_and_fails(clone: Project):
    script = steps("compare")["Compare"].replace("python3 run.py ", "python -m imagepack.commands.")
    text = clone("bash", "-e", "-c", script, ok=False, BASE="base")
    assert "\ninvalid_increase: 1 rejected image instead of 0: cat/img6.png" in text
    assert {path.name for path in clone.folder.glob("compare.*")} == {"compare.md", "compare.html", "compare.json"}
    for path in clone.folder.glob("compare.*"):
        path.unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no revision 'nowhere'"),
        (["v1", "v1"], "the same commit"),
        (["v1", "v1^{commit}"], "the same commit"),
        (["v1:data", "v2"], "'v1:data' is no revision"),
        (["workspace", "workspace"], "both are the workspace"),
        (["v1", "v2", "--fail-on", "leekage"], "leakage"),
        (["v1", "v2", "--json", "data"], "is a folder"),
        (["v1", "v2", "--markdown", "/dev/full", "--pictures", "0"], "/dev/full cannot be written (No space left"),
        (["v1", "v2", "--json", "x", "--html", "x"], "two outputs have the same name"),
        (["--experiments", "--ascending"], "--ascending goes with --sort-by"),
        (["--experiments", "--html", "x"], "--experiments goes with"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(clone: Project, arguments: list[str], words: str):
    text = clone("python", "-m", "imagepack.commands.compare", *arguments, ok=False)
    assert words in text
    assert "Traceback" not in text


def test_the_first_commit_has_no_manifest(clone: Project):
    first = clone("git", "rev-list", "--max-parents=0", "HEAD").strip()
    text = clone("python", "-m", "imagepack.commands.compare", first, "v1", ok=False)
    assert "manifest" in text and "Traceback" not in text


def test_a_remote_that_is_down_is_named(project: Project, s3_server: s3.Server, tmp_path: Path):
    dead = new_clone(project, s3_server, tmp_path / "dead", endpointurl="http://127.0.0.1:9")
    once = {"AWS_MAX_ATTEMPTS": "1", "IMAGEPACK_CACHE": str(tmp_path / "empty")}
    text = dead("python", "-m", "imagepack.commands.compare", "v1", "v2", ok=False, **once)
    assert "does not answer" in text and "Traceback" not in text
    shutil.rmtree(dead.folder)
