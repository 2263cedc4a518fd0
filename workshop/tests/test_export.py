"""`python3 run.py export`: each format read by the library that it is for, and compared with the pack; and `card`."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import polars as pl
import pytest
import yaml
from conftest import REPOSITORY, Project, aws_variables, contents, copy_project, picture, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagepack import PackedImages
from imagepack.commands import card as card_command
from imagepack.commands import s3
from imagepack.commands.export import main, writing
from imagepack.exporting import citation, imagefolder, parquet, selection, webdataset
from imagepack.exporting.file_names import safe, unique_names
from imagepack.reader.format import SPLITS

PYTHON = os.environ.get("TRAINING_PYTHON")
by_their_library = pytest.mark.extra("frameworks")
pytestmark = pytest.mark.slow

CITATION = """\
cff-version: 1.2.0
message: Please cite it.
type: dataset
title: Cats & <dogs>
abstract: Pictures of both.
authors:
  - given-names: Ada
    family-names: Lovelace
license: CC-BY-4.0
"""
HEADER = "file_name,split,age,weight,tame,seen_on,note,label"
FORMATS = {"imagefolder": "x", "parquet": "x", "webdataset": "x", "hdf5": "x.h5", "csv": "x.csv"}
"""And what an export is called here."""


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """Two versions, pushed: v1 with a table, odd names, a rejected and an excluded image; v2 has more, as JPEG."""
    project = new_project()
    variables = aws_variables(s3_server)
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("  size: 128\n", "  size: 32\n").replace("  shard_mib: 8\n", "  shard_mib: 1\n")
    project.write("params.yaml", text)
    project.write("CITATION.cff", CITATION)
    raw, rows = project.folder / "data/raw", [HEADER]
    for number, (batch, label, name, split) in enumerate(
        [
            *((batch, label, f"img{n}.png", split) for batch in ("one", "two") for label in ("cat", "dög")
              for n, split in enumerate(("train", "train", "val", "test"))),
            ("one", "rare #1", "a'b [x] #2.jpg", "train"),
            ("one", "cat", "img0.jpg", "train"),
            ("one", "cat", "IMG0.png", "train"),
        ]
    ):  # fmt: skip
        path = f"{batch}/{label}/{name}"
        save(raw / path, picture(number))
        rows.append(f'{path},{split},{number},{number / 3:.3f},{"true" if number % 2 else ""},2026-01-{number + 1:02},'
                    f'"=note, {number}",{number}')  # fmt: skip
    twin = picture(3).resize((96, 80))  # of the first image of test
    save(raw / "two/cat/twin.png", twin)
    rows.append("two/cat/twin.png,train,,,,,,")
    (raw / "one/cat/empty.png").write_bytes(b"")
    (raw / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    add_version(project, "v1", "pack")
    project.write("params.yaml", text.replace("encoding: raw", "encoding: jpeg"))
    save(raw / "two/owl/img1.png", picture(100))
    add_version(project, "v2")
    project("dvc", "push", "--all-tags", **variables)
    return project


def add_version(project: Project, name: str, *stages: str) -> None:
    project("dvc", "add", "data/raw")
    project("dvc", "repro", *stages)
    project.commit(f"Version {name}")
    project("git", "tag", name)


@pytest.fixture(scope="module")
def clone(project: Project, s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """A clone without data, whose cache and this user's cache for fetched files are empty."""
    folder = tmp_path_factory.mktemp("clone")
    project("git", "clone", "--quiet", str(project.folder), str(folder / "clone"))
    variables = aws_variables(s3_server) | {"IMAGEPACK_CACHE": str(folder / "cache")}
    return lambda *command, **options: Project(folder / "clone")(*command, **options, **variables)


def export(project: Callable, *arguments: object, ok: bool = True) -> str:
    """Run the command, in a clone in a process of its own; what it printed."""
    if not isinstance(project, Project):
        return project("python", "-m", "imagepack.commands.export", *map(str, arguments), ok=ok)
    return run_here(main, project, arguments, ok)


def run_here(command: Callable, project: Project, arguments: Sequence[object], ok: bool) -> str:
    """Run a command in this process, which starts much faster."""
    printed = io.StringIO()
    with chdir(project.folder), redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = command([*map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
    assert (code == 0) == ok, printed.getvalue()
    return printed.getvalue()


@pytest.fixture(scope="module")
def exports(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1 in all formats, a folder each, as x."""
    folder = tmp_path_factory.mktemp("exporting")
    for name, dest in FORMATS.items():
        printed = export(project, name, folder / name / dest, "--rev", "v1")
        if name != "csv":
            assert f"{dest}: 19 images (11 train, 4 val, 4 test)\n" in printed
            assert "Not exported: 1 rejected, 1 excluded" in printed
    return folder


@pytest.fixture(scope="module")
def packed(project: Project) -> PackedImages:
    """v1, without the image that is excluded."""
    packed = PackedImages.at("v1", project.folder)
    return packed.subset(packed.splits != SPLITS.index("excluded"))


def expected(packed: PackedImages) -> dict[str, tuple[str, str, np.ndarray]]:
    """Split, class and pixels of each image by its id."""
    pixels = packed.take(np.arange(len(packed)))
    return {
        packed.ids[i].tobytes().hex(): (SPLITS[packed.splits[i]], packed.classes[packed.labels[i]], pixels[i])
        for i in range(len(packed))
    }


def assert_same(found: dict[str, tuple[str, str, np.ndarray]], packed: PackedImages) -> None:
    wanted = expected(packed)
    assert found.keys() == wanted.keys()
    for digest, (split, label, pixels) in wanted.items():
        assert found[digest][:2] == (split, label)
        assert np.array_equal(found[digest][2], pixels)


def run_theirs(script: str, folder: Path) -> dict:
    """Run a script with the other libraries; the arrays that it saves as out.npz, and as "json" what it prints."""
    environment = os.environ | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([PYTHON, "-c", script], cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(folder / "out.npz", allow_pickle=False) as saved:
        return dict(saved) | {"json": json.loads(done.stdout.splitlines()[-1])}


def table_of(folder: Path) -> list[dict[str, str]]:
    """The rows of images.csv."""
    return list(csv.DictReader(io.StringIO((folder / "images.csv").read_text(encoding="utf-8"))))


def as_found(saved: dict) -> dict[str, tuple[str, str, np.ndarray]]:
    rows = zip(saved["ids"], saved["splits"], saved["labels"], saved["pixels"], strict=True)
    return {str(digest): (str(split), str(label), pixels) for digest, split, label, pixels in rows}


HUGGING_FACE = """
import json, numpy
from datasets import load_dataset
dataset = load_dataset({folder!r})
rows = [(split, row) for split in dataset for row in dataset[split]]
names = {{"validation": "val"}}
feature = dataset["train"].features["label"]
label = (lambda value: feature.names[value]) if hasattr(feature, "names") else str
numpy.savez("out.npz", pixels=[numpy.asarray(row["image"]) for _, row in rows], ids=[row["id"] for _, row in rows],
            labels=[label(row["label"]) for _, row in rows], splits=[names.get(split, split) for split, _ in rows])
others = [{{name: cell if isinstance(cell, (int, float, type(None))) else str(cell)
          for name, cell in row.items() if name not in ("image", "label")}} for _, row in rows]
features = {{name: str(kind) for name, kind in dataset["train"].features.items()}}
print(json.dumps({{"features": features, "rows": others}}))
"""


@by_their_library
@pytest.mark.parametrize("name", ["parquet", "imagefolder"])
def test_hugging_face_loads_it_with_splits_classes_and_columns(
    name: str, exports: Path, packed: PackedImages, tmp_path
):
    saved = run_theirs(HUGGING_FACE.format(folder=str(exports / name / "x")), tmp_path)
    assert_same(as_found(saved), packed)
    assert list(saved["json"]["features"]) == [
        *("image", "label", "id", "path", "age", "table_label", "note", "seen_on", "tame", "weight")
    ]
    first = next(row for row in saved["json"]["rows"] if row["path"] == "one/cat/img1.png")
    columns = {"age": 1, "table_label": 1, "note": "=note, 1", "seen_on": "2026-01-02", "tame": True, "weight": 0.333}
    assert {name: first[name] for name in columns} == columns
    assert next(row for row in saved["json"]["rows"] if row["path"] == "one/cat/img0.png")["tame"] is None
    assert saved["json"]["features"]["label"] == "ClassLabel(names=['cat', 'dög', 'rare #1'])"
    assert "date32" in saved["json"]["features"]["seen_on"]


@by_their_library
@pytest.mark.parametrize("name", ["parquet", "imagefolder"])
def test_hugging_face_sees_that_an_export_was_replaced(name: str, project: Project, tmp_path: Path):
    script = HUGGING_FACE.format(folder=str(tmp_path / "x"))
    for revision, train in (("v1", 11), ("v2", 12)):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        export(project, name, tmp_path / "x", "--rev", revision)
        assert (run_theirs(script, tmp_path)["splits"] == "train").sum() == train


TORCHVISION = """
import json, numpy, pathlib, torch
try:
    from torchvision.datasets import ImageFolder
except RuntimeError:  # of a CPU build of torch beside PyPI's torchvision, whose operators are not needed here
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.datasets import ImageFolder
rows, classes = [], {{}}
for split in ("train", "val", "test"):
    images = ImageFolder({folder!r} + "/" + split, allow_empty=True)
    classes[split] = images.classes
    rows += [(split, pathlib.Path(path).name, images.classes[label], numpy.asarray(images[i][0]))
             for i, (path, label) in enumerate(images.samples)]
numpy.savez("out.npz", splits=[row[0] for row in rows], names=[row[1] for row in rows],
            labels=[row[2] for row in rows], pixels=[row[3] for row in rows])
print(json.dumps(classes))
"""


@by_their_library
def test_torchvision_counts_the_same_classes_in_each_split(exports: Path, packed: PackedImages, tmp_path: Path):
    folder = exports / "imagefolder/x"
    saved = run_theirs(TORCHVISION.format(folder=str(folder)), tmp_path)
    assert set(map(tuple, saved["json"].values())) == {("cat", "dög", "rare %231")}
    ids = {}
    for row in table_of(folder):
        ids[row["file_name"]] = row["id"], row["label"]
    rows = zip(saved["splits"], saved["labels"], saved["names"], saved["pixels"], strict=True)
    found = {ids[f"{s}/{label}/{name}"][0]: (str(s), ids[f"{s}/{label}/{name}"][1], p) for s, label, name, p in rows}
    assert_same(found, packed)


WEBDATASET = """
import json, numpy, webdataset, pathlib
rows = []
for tar in sorted(pathlib.Path({folder!r}).glob("*.tar")):
    samples = webdataset.WebDataset(str(tar), shardshuffle=False).decode("pil").to_tuple("png", "cls", "json")
    rows += [(tar.name.split("-")[0], numpy.asarray(image), label, facts) for image, label, facts in samples]
splits, pixels, numbers, facts = zip(*rows)
numpy.savez("out.npz", splits=splits, pixels=pixels, numbers=numbers,
            labels=[each["label"] for each in facts], ids=[each["id"] for each in facts])
print(json.dumps([row[3] for row in rows]))
"""


@by_their_library
def test_webdataset_loads_it(exports: Path, packed: PackedImages, tmp_path: Path):
    saved = run_theirs(WEBDATASET.format(folder=str(exports / "webdataset/x")), tmp_path)
    assert_same(as_found(saved), packed)
    assert [packed.classes[number] for number in saved["numbers"]] == saved["labels"].tolist()
    first = next(row for row in saved["json"] if row["path"] == "one/cat/img1.png")
    assert (first["age"], first["tame"], first["seen_on"], first["weight"]) == (1, True, "2026-01-02", 0.333)


CROISSANT = """
import json, numpy, mlcroissant
dataset = mlcroissant.Dataset(jsonld={path!r})
issues = sorted(dataset.metadata.ctx.issues.errors) + sorted(dataset.metadata.ctx.issues.warnings)
classes = {{row["classes/label"]: row["classes/name"].decode() if isinstance(row["classes/name"], bytes)
           else row["classes/name"] for row in dataset.records("classes")}}
rows = [{{name.partition("/")[2]: cell.decode() if isinstance(cell, bytes) else cell for name, cell in row.items()}}
        for row in dataset.records("images")]
numpy.savez("out.npz", **({{
    "pixels": [numpy.asarray(row["image"]) for row in rows], "ids": [row["id"] for row in rows],
    "splits": [row["split"].replace("validation", "val") for row in rows],
    "labels": [classes[row["label"]] for row in rows]}} if "image" in rows[0] else {{}}))
print(json.dumps({{"issues": issues, "classes": list(classes.values()), "paths": [row["path"] for row in rows]}}))
"""


@by_their_library
def test_croissant_beside_parquet_loads_each_image(exports: Path, packed: PackedImages, tmp_path: Path):
    saved = run_theirs(CROISSANT.format(path=str(exports / "parquet/x/croissant.json")), tmp_path)
    assert_same(as_found(saved), packed)
    assert [issue for issue in saved["json"]["issues"] if "version" not in issue] == []


def test_h5py_reads_it(exports: Path, packed: PackedImages):
    with h5py.File(exports / "hdf5/x.h5") as file:
        names, classes = file["splits"].asstr()[:], file["classes"].asstr()[:]
        rows = zip(file["ids"].asstr()[:], names, classes[file["labels"][:]], file["images"][:], strict=True)
        assert_same({digest: (split, label, pixels) for digest, split, label, pixels in rows}, packed)
        assert file["paths"].asstr()[:].tolist() == [packed.path(i) for i in range(len(packed))]
        columns = file["columns"]
        assert set(columns) == set(packed.columns) - {"label", "split"} | {"table_label"}
        assert np.array_equal(columns["age"], packed.columns["age"])
        assert np.array_equal(columns["tame"], packed.columns["tame"], equal_nan=True)
        assert columns["note"].asstr()[:].tolist() == packed.columns["note"].tolist()
        assert columns["seen_on"].asstr()[0] == str(packed.columns["seen_on"][0])


def test_the_csv_has_each_image_and_what_was_found(exports: Path):
    rows = list(csv.DictReader(io.StringIO((exports / "csv/x.csv").read_text(encoding="utf-8"))))
    found = {row["path"]: row for row in rows}
    assert len(rows) == 21
    assert found["one/cat/empty.png"]["status"] == "rejected"
    assert found["one/cat/empty.png"]["findings"].split(";")[0] == "empty_file"
    assert (
        found["two/cat/twin.png"]["split"] == "excluded" and "near_duplicate" in found["two/cat/twin.png"]["findings"]
    )
    assert found["one/cat/img1.png"]["note"] == "'=note, 1"  # which no spreadsheet runs
    assert found["one/cat/img1.png"]["table_label"] == found["one/cat/img1.png"]["age"] == "1"


def test_names_say_where_an_image_came_from(exports: Path):
    names = {path for path in contents(exports / "imagefolder/x") if path.endswith(".png")}
    assert {"train/rare %231/a'b %5Bx%5D %232.png", "val/cat/one-cat-img2.png", "val/cat/two-cat-img2.png"} <= names
    cats = {name for name in names if name.startswith("train/cat/") and "0" in name.rpartition("/")[2]}
    assert {"train/cat/img0.jpg.png", "train/cat/two-cat-img0.png"} < cats and len(cats) == 4
    assert len({name.lower() for name in names}) == 19


def test_tar_files_name_nobody_and_no_time(exports: Path):
    for path in (exports / "webdataset/x").glob("*.tar"):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize("name", FORMATS)
def test_a_clone_without_data_writes_the_same_bytes(name: str, exports: Path, clone: Callable, tmp_path: Path):
    export(clone, name, tmp_path / FORMATS[name], "--rev", "v1")
    assert contents(tmp_path) == contents(exports / name)
    assert not (Path(clone("pwd").strip()) / "data/packed").exists()


def test_a_jpeg_pack_is_exported_as_the_files_that_it_holds(project: Project, tmp_path: Path):
    export(project, "imagefolder", tmp_path / "x")
    packed = PackedImages(project.folder / "data/packed")
    files = {path: content for path, content in contents(tmp_path / "x").items() if path.endswith(".jpg")}
    pixels = {np.asarray(Image.open(io.BytesIO(content))).tobytes() for content in files.values()}
    assert pixels == {image.tobytes() for image in packed.take(packed.splits != SPLITS.index("excluded"))}


def test_raw_files_keep_their_bytes(project: Project, clone: Callable, tmp_path: Path):
    export(clone, "imagefolder", tmp_path / "x", "--rev", "v1", "--raw", "--split", "val, test")
    files, raw = contents(tmp_path / "x"), contents(project.folder / "data/raw")
    rows = table_of(tmp_path / "x")
    assert all(files[row["file_name"]] == raw[row["path"]] for row in rows)
    assert len(rows) == 8 and not (tmp_path / "x/train").exists()
    export(clone, "webdataset", tmp_path / "tars", "--rev", "v1", "--raw")
    with tarfile.open(tmp_path / "tars/train-000000.tar") as archive:
        found = {archive.extractfile(member).read() for member in archive if member.name.endswith((".png", ".jpg"))}
    assert found <= set(raw.values()) and len(found) == 11


REFUSED = {
    "an unknown format": (["zip", "DEST"], "invalid choice: 'zip' (choose from "),
    "an unknown split": (["csv", "DEST", "--split", "train,dev"], "no split 'dev': there are train, val, test"),
    "an unknown revision": (["csv", "DEST", "--rev", "v9"], "has no revision 'v9': name a commit, tag, branch"),
    "a revision without data": (["parquet", "DEST", "--rev", "v1~1"], "name a revision from after the first"),
    "data/raw": (["imagefolder", "data/raw/x"], "lies in data/raw, which is the dataset's own: name a place elsewhere"),
    "data/raw by a link": (["imagefolder", "LINK/x"], "lies in data/raw, which is the dataset's own"),
    "a folder that is not empty": (["parquet", "."], "project is not empty (.ci, "),
    "a file that is there": (["hdf5", "README.md"], "README.md is there: name a file that is not"),
    "a folder for a file": (["hdf5", "data"], "data is a folder: name a file that is not there"),
    "a file for a folder": (["parquet", "README.md"], "README.md is there: name a folder that is not"),
    "raw files as an array": (["hdf5", "DEST", "--raw"], "--raw goes with imagefolder, parquet, webdataset"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused(what: str, project: Project, tmp_path: Path):
    (tmp_path / "link").symlink_to(project.folder / "data/raw")
    arguments, words = REFUSED[what]
    places = {"DEST": str(tmp_path / "x"), "LINK/x": str(tmp_path / "link/x")}
    printed = export(project, *(places.get(argument, argument) for argument in arguments), ok=False)
    assert words in printed and "Traceback" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    assert project("git", "status", "--porcelain") == ""


def test_data_that_is_nowhere_is_named_and_nothing_is_left(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alone = Project(tmp_path / "clone")
    project("git", "clone", "--quiet", str(project.folder), str(alone.folder))
    alone("dvc", "remote", "modify", "s3", "url", str(tmp_path / "bucket"))
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))
    printed = export(alone, "parquet", tmp_path / "x", "--rev", "v1", ok=False)
    assert "run dvc push where it was made" in printed
    for path in ("data/validated/manifest.parquet", "data/packed/dataset.h5"):  # and images are nowhere
        alone("dvc", "get", str(project.folder), path, "--rev", "v1", "--out", str(tmp_path / Path(path).name))
    index, manifest = tmp_path / "dataset.h5", tmp_path / "manifest.parquet"
    for path in (index, manifest):
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        place = alone.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    cache = project.folder / ".dvc/cache"
    for listing in cache.glob("files/md5/*/*.dir"):
        place = alone.folder / ".dvc/cache" / listing.relative_to(cache)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(listing, place)
    for raw, words in (([], "shards/"), (["--raw"], "raw images cannot be had:")):
        printed = export(alone, "webdataset", tmp_path / "x", "--rev", "v1", *raw, ok=False)
        assert words in printed and "run dvc push where it was made" in printed
    assert not list(tmp_path.glob("x*")) and not list(tmp_path.glob(".x*"))


def test_a_damaged_shard_ends_it_and_nothing_is_left(project: Project, tmp_path: Path):
    shutil.copytree(project.folder, tmp_path / "copy", symlinks=True)
    copy = Project(tmp_path / "copy")
    copy("git", "checkout", "--quiet", "v1")
    copy("dvc", "checkout", "--quiet", "data/packed", "data/validated/manifest.parquet")
    shard = next((copy.folder / "data/packed/shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.chmod(0o644)
    shard.write_bytes(content)
    for name in ("imagefolder", "parquet", "webdataset", "hdf5"):
        printed = export(copy, name, tmp_path / "out/x", ok=False)
        assert "does not match its checksum: remove it, then get it again" in printed and "Traceback" not in printed
        assert contents(tmp_path / "out") == {}


def test_a_full_disk_is_said_and_nothing_is_left(
    project: Project, small_disk: Callable[[int], Path], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project.folder)
    disk = small_disk(20)
    for name, dest in FORMATS.items():
        if name != "csv":
            assert main([name, str(disk / dest)]) == 1, name
            assert "No space left" in (said := capsys.readouterr().err) or "make room" in said
            assert contents(disk) == {}


def test_what_is_interrupted_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "x") as place:
        place.mkdir()
        (place / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").mkdir()
    with writing(tmp_path / "x") as place:
        place.mkdir()
        (place / "whole").touch()
        assert list((tmp_path / "x").iterdir()) == []
    assert contents(tmp_path) == {"x/whole": b""}


@pytest.mark.parametrize(
    ("labels", "column", "feature"),
    [
        (np.array([[True, False, True], [False, False, False]]), ["labels", [["cat", "rare #1"], []]], "ClassLabel"),
        (np.array([[0.5], [1.5]], np.float32), ["label", [0.5, 1.5]], "float32"),
        (np.array([[0.5, 1], [1.5, 2]], np.float32), ["label", [[0.5, 1], [1.5, 2]]], "float32"),
    ],
)
def test_labels_of_other_kinds_go_along(project: Project, tmp_path: Path, labels, column, feature):
    whole = selection.select(project.folder, "v1", ["val"], raw=False)
    two = replace(whole, images=whole.images[:2])
    two.packed.labels = np.zeros((len(two.packed), *labels.shape[1:]), labels.dtype)
    two.packed.labels[two.images["row"].to_numpy()] = labels
    name, values = column
    assert two.facts[name].to_list() == values
    for write in (imagefolder.write, parquet.write, webdataset.write):
        (tmp_path / write.__module__).mkdir()
        write(two, tmp_path / write.__module__, lambda: None)
    rows = pl.read_parquet(tmp_path / "imagepack.exporting.parquet/data/*.parquet")
    positions = [[0, 2], []] if name == "labels" else values
    assert rows[name].to_list() == positions
    assert feature in json.dumps(parquet.features(two)[name])
    rows = pl.read_parquet(tmp_path / "imagepack.exporting.imagefolder/val/metadata.parquet")
    assert rows["file_name"].to_list() == ["one-cat-img2.png", "one-dög-img2.png"]
    assert rows[name].to_list() == positions
    with tarfile.open(tmp_path / "imagepack.exporting.webdataset/val-000000.tar") as archive:
        assert archive.getnames() == [f"00000000{n}{suffix}" for n in range(2) for suffix in (".json", ".png")]


def test_many_images_fill_several_files_each_image_once(project: Project, packed: PackedImages, tmp_path: Path):
    whole = selection.select(project.folder, "v1", SPLITS[:3], raw=False)
    (tmp_path / "tars").mkdir()
    webdataset.write(whole, tmp_path / "tars", lambda: None, shard_bytes=10_000)
    parquet.write(whole, tmp_path, lambda: None, shard_bytes=10_000)
    tars, files = sorted((tmp_path / "tars").iterdir()), sorted((tmp_path / "data").iterdir())
    count = sum(path.name.startswith("train") for path in files)
    assert count > 1 and {path.name for path in files if path.name.startswith("train")} == {
        f"train-{n:05}-of-{count:05}.parquet" for n in range(count)
    }
    assert [path.name for path in tars if path.name.startswith("train")] == [f"train-{n:06}.tar" for n in range(count)]
    rows = pl.concat(pl.read_parquet(path) for path in files)
    found = {}
    for tar in tars:
        with tarfile.open(tar) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        for name in (name for name in members if name.endswith(".json")):
            found[json.loads(members[name])["id"]] = members[name.replace(".json", ".png")]
    assert len(rows) == len(found) == len(packed)
    assert dict(zip(rows["id"], rows["image"].struct.field("bytes"), strict=True)) == found


ODD = st.text(st.sampled_from("aAäÄ.-/_ #%[x"), min_size=1, max_size=8)


@given(st.lists(st.tuples(ODD, st.sampled_from(["cat", "dog"])), max_size=20), st.sampled_from([None, ".png"]))
@settings(max_examples=300, deadline=None)
def test_no_two_files_have_one_name(images: list[tuple[str, str]], suffix: str | None):
    paths, folders = [path for path, _ in images], [folder for _, folder in images]
    names = unique_names(paths, folders, ["ab" * 32] * len(images), suffix)
    keys = [(folder, name.lower()) for folder, name in zip(folders, names, strict=True)]
    assert len(set(keys)) == len(images)
    assert all(name == safe(name) or "%" in name for name in names)
    assert not any("/" in name or name.startswith((".", "__")) or name in ("", "..") for name in names)
    assert all(suffix is None or name.endswith(suffix) for name in names)


@pytest.mark.parametrize("name", ["CON", "con.txt", "..", ".hidden", "__pycache__", "a/b", "a:b", "50%", "", "x "])
def test_folders_of_classes_suit_every_disk(name: str):
    assert safe(name) != name and safe(name).strip(" .") and not set(safe(name)) & set('/\\:*?"<>|#')


def test_long_names_are_cut():
    (name,) = unique_names(["b/" + "ä" * 120 + ".jpg"], ["cat"], ["ab" * 32], ".png")
    assert len(name.encode()) <= 200 and "abababababababab.png" in name


def card(project: Callable, *arguments: object, ok: bool = True) -> str:
    """Run `card`, in a clone in a process of its own; what it printed."""
    if not isinstance(project, Project):
        return project("python", "-m", "imagepack.commands.card", *map(str, arguments), ok=ok)
    return run_here(card_command.main, project, arguments, ok)


@pytest.fixture(scope="module")
def cards(project: Project) -> Path:
    """The card of what is here, v2."""
    assert card(project).splitlines() == [f"Written: {project.folder / 'reports/card'}"]
    return project.folder / "reports/card"


def test_a_card_says_what_the_pipeline_knows(project: Project, cards: Path):
    text = (cards / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---\n")[1])
    assert header == {
        "pretty_name": "Cats & <dogs>",
        "license": "cc-by-4.0",
        "task_categories": ["image-classification"],
        "size_categories": ["n<1K"],
    }
    packed = PackedImages(project.folder / "data/packed")
    commit = project("git", "rev-parse", "HEAD").strip()
    for line in (
        "# Cats \\& \\<dogs\\>",
        "Version `v2`  ",
        f"pack `{packed.digest}`",
        "| train | 12 |",
        "| excluded | 1 |",
        "| class | train | val | test | excluded | all |",
        "| `cat` | 6 | 2 | 2 | 1 | 11 |",
        "| `label` | int64 | 2 |",
        'PackedImages.at("v2", ',
        "| `near_duplicate` | 1 | 0 | ",
        "v1 -> v2: 1 of 22 images differs",
        "1 added: two/owl/img1.png",
        "Licence: [CC-BY-4.0](https://spdx.org/licenses/CC-BY-4.0.html)",
        "Cite as: Ada Lovelace (20",
    ):
        assert line in text
    assert f"commit `{commit}`" in text
    sheets = [unquote(address) for address in re.findall(r"!\[.*\]\((.*)\)", text)]
    drawn = sorted((project.folder / "reports/preview").iterdir())
    assert [(cards / sheet).read_bytes() for sheet in sheets] == [sheet.read_bytes() for sheet in drawn]
    assert len(drawn) == 4
    assert project("git", "status", "--porcelain") == ""


@by_their_library
def test_mlcroissant_has_nothing_against_a_card_and_reads_its_records(project: Project, cards: Path, tmp_path: Path):
    saved = run_theirs(CROISSANT.format(path=str(cards / "croissant.json")), tmp_path)
    assert saved["json"]["issues"] == []
    manifest = pl.read_parquet(project.folder / "data/validated/manifest.parquet")
    assert saved["json"]["paths"] == manifest["path"].to_list()
    assert saved["json"]["classes"] == ["cat", "dög", "owl", "rare #1"]
    files = json.loads((cards / "croissant.json").read_text(encoding="utf-8"))["distribution"]
    assert len(files) == 2 + len(list((project.folder / "data/packed/shards").iterdir()))
    for file in files:
        content = (cards / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"


def test_a_card_of_an_earlier_version_from_a_clone_without_data(project: Project, clone: Callable, tmp_path: Path):
    printed = card(clone, "v1", "--out", tmp_path / "v1")
    text = (tmp_path / "v1/README.md").read_text(encoding="utf-8")
    assert "Version `v1`" in text and "## Since the version before" not in text and "`owl`" not in text
    assert project("git", "rev-parse", "v1").strip() in text
    assert [path.name for path in (tmp_path / "v1/preview").iterdir()] == [], printed
    assert "lies in data/raw" in card(clone, "v1", "--out", "data/raw/card", ok=False)
    assert "is not empty (README.md" in card(clone, "v1", "--out", tmp_path / "v1", ok=False)
    assert "has no revision 'v9'" in card(clone, "v9", ok=False)


def test_a_card_without_a_licence_says_what_to_write(project: Project, tmp_path: Path):
    (project.folder / "CITATION.cff").write_text("type: software\nlicense: MIT\n")
    try:
        assert "no licence: write title, authors and license into CITATION.cff" in card(
            project, "--out", tmp_path / "a"
        )
        text = (tmp_path / "a/README.md").read_text(encoding="utf-8")
        assert "Licence: not said." in text and f"# {project.folder.name}" in text
        (project.folder / "CITATION.cff").write_text("type: dataset\nlicense: [LicenseRef-Mine]\ntitle: [a\n")
        assert "CITATION.cff is no YAML" in card(project, "--out", tmp_path / "b", ok=False)
        assert not (tmp_path / "b").exists()
    finally:
        project("git", "checkout", "--quiet", "CITATION.cff")


@pytest.mark.parametrize(
    ("licenses", "header"),
    [
        ("MIT", {"license": "mit"}),
        ("[MIT, Apache-2.0]", {"license": ["mit", "apache-2.0"]}),
        ("ODbL-1.0", {"license": "odbl"}),
        ("Beerware", {"license": "other", "license_name": "beerware",
                      "license_link": "https://spdx.org/licenses/Beerware.html"}),
    ],
)  # fmt: skip
def test_the_hub_gets_its_own_names_of_licences(licenses: str, header: dict):
    assert citation.parse(f"type: dataset\nlicense: {licenses}\n".encode(), "x").hub_license() == header


@by_their_library
def test_the_commands_and_the_code_of_export_md_run(project: Project, tmp_path: Path):
    text = (REPOSITORY / "docs/export.md").read_text(encoding="utf-8")
    copy = copy_project(project, tmp_path / "repository")
    commands = re.findall(r"^\$ python3 run.py (.*)", text, flags=re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        name, *arguments = command.split()
        run_here({"export": main, "card": card_command.main}[name], copy, arguments, ok=True)
    made = {"cats", "cats-v1", "cats-tars", "cats-originals", "cats.h5", "findings.csv", "cards"}
    assert {path.name for path in tmp_path.iterdir()} - {"repository"} == made
    code = re.findall("```py\n(.*?)```", text, flags=re.DOTALL)
    assert len(code) == 4
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    script = "\n".join([TORCHVISION.partition("rows,")[0], *code, "assert len(dataset['train']) == 11 and len(train)"])
    done = subprocess.run([PYTHON, "-c", script], cwd=copy.folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
