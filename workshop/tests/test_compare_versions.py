"""Versions of a dataset as compare reads them: from clones without data, through real DVC and a real S3."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, Workspace, add_pictures, contents, picture, save
from test_versions import connect, new_clone

from imagepack.commands import s3
from imagepack.compare.versions import COLUMNS, Version, read, splits_of
from imagepack.errors import InputError
from imagepack.reader.format import read_index

slow = pytest.mark.slow
MANIFEST, RAW = "data/validated/manifest.parquet", "data/raw"
SCORE = "\nmetrics:\n  - score.json\n"


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """Tags v1 (validated, not packed), v2 (packed) and experiment small; all pushed. Not to be changed."""
    project = connect(new_project(), s3_server)
    pipeline = (project.folder / "dvc.yaml").read_text(encoding="utf-8")
    project.write("dvc.yaml", pipeline.rstrip() + "\n" + SCORE)
    project.write("score.json", json.dumps({"val": {"accuracy": 0.5, "name": "x", "nan": float("nan")}}))
    for version, label, first, target in (("v1", "cat", 0, "validate"), ("v2", "dog", 20, "pack")):
        add_pictures(project.folder / RAW, 20, label, first)
        save(project.folder / RAW / label / "tiny.png", picture(99 + first, 4, 4))
        project("dvc", "add", RAW)
        project("dvc", "repro", target)
        project.commit(f"Version {version}\n\nMore of it.")
        project("git", "tag", "--annotate", "--message", version, version)
    project("dvc", "exp", "run", "--name", "small", "--set-param", "validate.min_side=2", "pack")
    project("dvc", "push")
    project("git", "reset", "--quiet", "--hard")
    project("dvc", "checkout", "pack", "validate")
    project("dvc", "push", "--all-tags")
    return project


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is fetched is kept."""
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clone(project: Project, s3_server: s3.Server, tmp_path: Path) -> Project:
    """A fresh clone, without data and with an empty DVC cache."""
    return new_clone(project, s3_server, tmp_path / "clone")


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    """The project with its data, to be changed."""
    shutil.copytree(project.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def counted(version: Version) -> dict:
    return dict(version.images["split"].value_counts().iter_rows())


@slow
def test_a_clone_without_data_reads_every_version(project: Project, clone: Project, cache: Path):
    first, second = (read(name, clone.folder) for name in ("v1", "v2"))
    assert [len(first.images), len(second.images)] == [21, 42]
    assert first.images.columns == [*COLUMNS, "split"]
    assert first.pack is None and counted(first) == {None: 21}
    index, digest = read_index(project.folder / "data/packed/dataset.h5")
    assert second.pack.digest == digest
    assert second.pack.shards == {p.name: p.stat().st_size for p in (project.folder / "data/packed/shards").iterdir()}
    assert second.pack.index_bytes == (project.folder / "data/packed/dataset.h5").stat().st_size
    expected = pl.read_parquet(project.folder / MANIFEST)
    assert second.images.drop("split").equals(expected.select(list(COLUMNS)))
    packed = second.images.filter(pl.col("split").is_not_null())
    assert packed["status"].unique().to_list() == ["accepted"]
    assert packed["path"].to_list() == list(index.paths)
    assert second.revision == project("git", "rev-parse", "v2^{commit}").strip()
    assert second.date == project("git", "log", "-1", "--format=%cs", "v2").strip()
    assert (second.name, second.subject) == ("v2", "Version v2")
    assert second.lock["pack"].params["params.yaml"]["pack"]["shard_mib"] == 8
    assert second.raw_md5 and second.raw_md5 in (project.folder / "data/raw.dvc").read_text(encoding="utf-8")
    assert second.packages["polars"] == pl.__version__
    assert second.metrics["score.json"] == {"val.accuracy": 0.5}
    assert second.metrics["reports/pack.json"]["split.train"] == counted(second)["train"]
    assert first.warnings == second.warnings == []
    assert clone("git", "status", "--porcelain") == ""
    assert not (clone.folder / "data/raw").exists() and not (clone.folder / ".dvc/cache").exists()
    assert len(list(cache.iterdir())) == 3


@slow
def test_a_second_look_needs_no_network(clone: Project):
    before = read("v2", clone.folder)
    connect(clone, s3.Server(0, 9, "x", "x"))
    after = read("v2", clone.folder)
    assert after.images.equals(before.images) and after.pack == before.pack


@slow
def test_an_experiment_a_branch_and_a_commit_are_versions(project: Project, clone: Project):
    assert read("small", project.folder).images["status"].unique().to_list() == ["accepted"]
    by_branch, by_commit = read("main", clone.folder), read(read("v2", clone.folder).revision, clone.folder)
    assert by_branch.images.equals(by_commit.images)


@slow
def test_the_workspace_is_read_as_it_lies_there(project: Project):
    workspace, second = read(None, project.folder), read("v2", project.folder)
    assert workspace.images.equals(second.images) and workspace.pack == second.pack
    assert (workspace.name, workspace.revision, workspace.date, workspace.subject) == ("workspace", None, None, None)
    assert workspace.warnings == [] and workspace.metrics == second.metrics
    assert workspace.raw_md5 == second.raw_md5 and workspace.packages == second.packages
    assert project("git", "status", "--porcelain") == ""


@slow
def test_a_stale_workspace_says_what_has_changed(copy: Project):
    text = (copy.folder / "params.yaml").read_text(encoding="utf-8")
    copy.write("params.yaml", text.replace("min_side: 16", "min_side: 3"))
    add_pictures(copy.folder / RAW, 1, "cow", 50)
    copy("dvc", "add", RAW)
    for code in ("stages/validate.py", "imagepack/checks/gate.py"):
        copy.write(code, (copy.folder / code).read_text(encoding="utf-8") + "\n")
    assert read(None, copy.folder).warnings == [
        "data/raw has changed since validate and preprocess ran: run `dvc repro`",
        "imagepack/checks, stages/validate.py, params.yaml changed since the last `dvc repro`: run `dvc repro`",
    ]
    copy("dvc", "repro", "validate")
    assert read(None, copy.folder).warnings == [
        "data/raw has changed since preprocess ran: run `dvc repro`",
        f"{MANIFEST} has changed since preprocess and pack ran: run `dvc repro`",
        "the pack holds other images than the manifest, so no image has a split: run `dvc repro`",
    ]
    copy("dvc", "repro", "pack")
    assert read(None, copy.folder).warnings == []
    manifest = pl.read_parquet(copy.folder / MANIFEST)
    (copy.folder / MANIFEST).unlink()
    manifest.with_columns(pl.col("seen").list.reverse()).write_parquet(copy.folder / MANIFEST)
    (warning,) = read(None, copy.folder).warnings
    assert warning == f"{MANIFEST} is not the one that dvc.lock names: run `dvc repro`, or `dvc checkout`"
    shutil.rmtree(copy.folder / "data/packed")
    assert "data/packed/dataset.h5 is not there, so no image has a split" in read(None, copy.folder).warnings[1]


@slow
def test_a_commit_without_repro_is_said_so(copy: Project):
    add_pictures(copy.folder / RAW, 1, "cow", 50)
    copy("dvc", "add", RAW)
    copy.commit("More, not validated")
    assert read("HEAD", copy.folder).warnings == [
        "data/raw has changed since validate and preprocess ran: "
        "check HEAD out, run `dvc repro` and commit what it changes"
    ]


@slow
def test_reading_waits_for_no_running_repro(copy: Project):
    (copy.folder / ".dvc/tmp/rwlock").write_text(
        json.dumps({str(copy.folder / "data/raw"): {"write": {"pid": 1, "cmd": "dvc repro"}}}), encoding="utf-8"
    )
    held = "from dvc.repo import Repo; r = Repo(); r.lock.lock(); print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", held], cwd=copy.folder, stdin=-1, stdout=-1, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert len(read(None, copy.folder).images) == len(read("v2", copy.folder).images) == 42
    finally:
        holder.communicate("\n")


def refused(words: str, name: str | None, repo: Path):
    """Reading this version raises an error of one line with these words."""
    with pytest.raises(InputError, match=words) as error:
        read(name, repo)
    assert "\n" not in str(error.value)


@slow
def test_what_is_not_there_is_said_so(clone: Project, tmp_path: Path):
    refused("clone has no revision 'v3': name a commit, tag, branch or DVC experiment", "v3", clone.folder)
    refused("v1~1 has no .*manifest.parquet.*: name a revision from after the first `dvc repro`", "v1~1", clone.folder)
    refused("nothing is no git repository with DVC at its top", "v1", tmp_path / "nothing")
    refused("nothing is no git repository with DVC at its top", None, tmp_path / "nothing")
    subprocess.run(["git", "init", "--quiet", tmp_path / "plain"], check=True)
    refused("plain has no revision 'v1'", "v1", tmp_path / "plain")
    refused("plain has no commit yet: commit a version, then name it", "HEAD", tmp_path / "plain")
    refused("workspace has no DVC: run `dvc init`", None, tmp_path / "plain")
    refused(f"{MANIFEST} is not there: run `dvc repro`, or `dvc pull {MANIFEST}`", None, clone.folder)
    clone("git", "commit", "--quiet", "--allow-empty", "--message", "Same")
    clone("git", "rm", "--quiet", "dvc.lock")
    refused(f"workspace has no {MANIFEST}, since dvc.lock does not name it: run `dvc repro`", None, clone.folder)
    clone("git", "rm", "--quiet", "--cached", "dvc.yaml")
    clone("git", "commit", "--quiet", "--message", "No pipeline")
    refused("HEAD has no stage validate that writes manifest.parquet", "HEAD", clone.folder)


@slow
def test_a_pipeline_that_dvc_cannot_read_is_said_so(clone: Project):
    clone.write("dvc.yaml", "stages: [\n")
    clone.commit("Broken")
    refused("HEAD: DVC cannot read its dvc.yaml or dvc.lock .*: check HEAD out, run", "HEAD", clone.folder)
    refused("workspace: DVC cannot read its dvc.yaml or dvc.lock .*", None, clone.folder)


@slow
def test_a_manifest_of_another_time_is_said_so(copy: Project):
    table = pl.read_parquet(copy.folder / MANIFEST)
    older = table.drop("saturation").with_columns(pl.col("bytes").cast(pl.Int32))
    (copy.folder / MANIFEST).unlink()
    older.write_parquet(copy.folder / MANIFEST)
    words = r"of another version of this template \(has no saturation; bytes is Int32, not Int64\): "
    refused(words + "run `dvc repro`", None, copy.folder)
    copy("dvc", "commit", "--force", "validate")
    copy.commit("Of another time")
    refused(words + "check HEAD out, run `dvc repro` and commit", "HEAD", copy.folder)
    (copy.folder / MANIFEST).unlink()
    (copy.folder / MANIFEST).write_bytes(b"no parquet")
    refused(f"{MANIFEST} is damaged .*: run `dvc repro`", None, copy.folder)


@slow
def test_what_was_not_pushed_is_said_so(project: Project, s3_server: s3.Server, tmp_path: Path):
    elsewhere = new_clone(project, s3_server, tmp_path / "a", url="s3://image-dataset/elsewhere")
    refused("manifest.parquet of .* is not on s3://image-dataset/elsewhere: run dvc push", "v2", elsewhere.folder)


@slow
def test_a_remote_that_is_down_and_keys_that_are_wrong_or_missing_are_said_so(
    project: Project, s3_server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = new_clone(project, s3_server, tmp_path / "a", secret_access_key="wrong")
    refused("s3://image-dataset refuses these keys: set AWS_ACCESS_KEY_ID", "v2", wrong.folder)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    missing = new_clone(project, s3_server, tmp_path / "b")
    missing.write(".dvc/config.local", f"['remote \"s3\"']\nendpointurl = {s3_server.endpoint}\n")
    refused("there are no keys for s3://image-dataset: set AWS_ACCESS_KEY_ID", "v2", missing.folder)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    down = new_clone(project, s3_server, tmp_path / "c", endpointurl=f"http://127.0.0.1:{s3.free_ports(1)[0]}")
    refused("s3://image-dataset does not answer .*: check the network", "v2", down.folder)


@slow
def test_what_arrives_damaged_is_refused(copy: Project, clone: Project, s3_server: s3.Server, cache: Path):
    content = (copy.folder / MANIFEST).read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    key = f"files/md5/{md5[:2]}/{md5[2:]}"
    client = s3_server.client()
    client.put_object(Bucket="image-dataset", Key=key, Body=content[:-1] + b"x")
    try:
        refused(r"manifest.parquet on s3://image-dataset is damaged \(md5 is .*\): remove it there", "v2", clone.folder)
    finally:
        client.put_object(Bucket="image-dataset", Key=key, Body=content)
    place = copy.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    place.chmod(0o600)
    place.write_bytes(content[:-1] + b"x")
    refused(r"is damaged: remove it, and run again", "v2", copy.folder)


@pytest.fixture
def raw_of(project: Project) -> dict[str, bytes]:
    """The raw files of v2."""
    return contents(project.folder / RAW)


def fetched(version: Version, paths: list[str]) -> dict[str, bytes | None]:
    found = list(version.fetch(paths))
    assert [path for path, *_ in found] == paths
    assert all((content is None) == bool(note) for _, content, note in found)
    return {path: content for path, content, _ in found}


@slow
def test_raw_images_come_from_the_remote_the_cache_or_the_workspace(
    project: Project, clone: Project, raw_of: dict, cache: Path
):
    paths = list(raw_of)
    assert fetched(read("v2", clone.folder), paths) == raw_of
    assert not (clone.folder / RAW).exists() and not (clone.folder / ".dvc/cache").exists()
    shutil.rmtree(cache)
    for version in (read(None, project.folder), read("v2", project.folder)):
        assert fetched(version, paths) == raw_of
        assert not cache.exists()
    without = clone.folder.with_name("without")
    shutil.copytree(project.folder, without, symlinks=True, ignore=shutil.ignore_patterns("raw"))
    assert fetched(read("v2", without), paths) == raw_of
    assert not cache.exists()


@slow
def test_a_raw_image_that_cannot_be_had_has_a_note(
    copy: Project, raw_of: dict, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    path = "cat/img1.png"
    (copy.folder / RAW / path).unlink()
    save(copy.folder / RAW / path, picture(77))  # another than was validated
    assert fetched(read(None, copy.folder), [path]) == {path: raw_of[path]}
    shutil.rmtree(copy.folder / ".dvc/cache/files")
    connect(copy, s3.Server(0, 9, "x", "x"))
    ((_, content, note),) = read(None, copy.folder).fetch([path])
    assert content is None and "does not answer" in note


def test_splits_are_those_of_the_pack_or_none(workspace: Workspace):
    add_pictures(workspace.raw, 30)
    save(workspace.raw / "cat/a.png", picture(3, 4, 4))
    packed = workspace.run()
    images = pl.read_parquet(workspace.manifest)
    splits = splits_of(images, packed.index)
    assert splits.null_count() == 1
    names = ("train", "val", "test", "excluded")
    assert splits.drop_nulls().to_list() == [names[code] for code in packed.index.splits]
    assert splits_of(images.reverse(), packed.index) is None
    assert splits_of(images.head(10), packed.index) is None
    assert splits_of(images.with_columns(sha256=pl.lit("z" * 64)), packed.index) is None
    assert splits_of(images.with_columns(sha256=pl.lit("")), packed.index) is None
