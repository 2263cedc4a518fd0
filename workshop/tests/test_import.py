"""`python3 run.py import`: datasets of other shapes, each made by its own library where there is one, and packed."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.session
import numpy as np
import polars as pl
import pytest
from conftest import Project, Workspace, add_pictures, aws_variables, contents, picture, save
from PIL import Image

from imagepack import PackedImages
from imagepack.commands import s3
from stages.validate import Levels, Validate

ANY_SIZE = Validate(blurry=0, levels=Levels(class_too_small="ignore", class_imbalance="ignore"))
IMPORT = ("python", "-m", "imagepack.commands.import_images")


class Target(Project):
    """A repository into which images are imported."""

    @property
    def raw(self) -> Path:
        return self.folder / "data/raw"

    def take(self, source: Path | str, *options: str, **settings) -> str:
        """Import; what was printed."""
        return self(*IMPORT, str(source), *options, **settings)

    def packed(self) -> PackedImages:
        """Validate, preprocess and pack what is in data/raw."""
        workspace = Workspace(self.folder / "stages-alone")
        workspace.folder.mkdir(exist_ok=True)
        workspace.raw = self.raw
        return workspace.run(ANY_SIZE)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, template: Project) -> Path:
    """As much of a repository as the command asks for."""
    folder = tmp_path_factory.mktemp("bare") / "bare"
    for name in ("imagepack", "stages"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(template.folder / name)
    for name in (".dvcignore", "params.yaml"):
        shutil.copy(template.folder / name, folder)
    shutil.copytree(template.folder / ".dvc", folder / ".dvc")
    return folder


@pytest.fixture
def target(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("STAGE_WORKERS", "1")
    shutil.copytree(bare, tmp_path / "project", symlinks=True)
    return Target(tmp_path / "project")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of two classes, four images each."""
    folder = tmp_path / "source"
    add_pictures(folder, 4, "cat")
    add_pictures(folder, 4, "dog", first=4)
    return folder


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Folders train, valid and test of two classes, in which names repeat."""
    number = 0
    for split in ("train", "valid", "test"):
        for label in ("cat", "dog"):
            for name in range(2):
                save(tmp_path / f"splits/{split}/{label}/{name}.png", picture(number))
                number += 1
    (tmp_path / "splits/README.txt").write_text("Two animals\n")
    return tmp_path / "splits"


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".png")}


def test_class_folders_are_copied_and_the_source_stays_as_it_was(target: Target, source: Path):
    before = contents(source)
    printed = target.take(source)
    assert "8 images in 2 classes: cat 4, dog 4" in printed
    assert "8 images copied to data/raw." in printed
    assert "other folders" not in printed
    assert "python3 run.py -- dvc add data/raw" in printed
    assert contents(target.raw) == before == contents(source)
    assert target.packed().classes == ["cat", "dog"]


def test_a_source_is_named_from_where_one_stands(target: Target, source: Path):
    elsewhere = Project(source.parent)
    printed = elsewhere(*IMPORT, "source", PYTHONPATH=str(target.folder))
    assert "8 images copied to data/raw." in printed
    assert contents(target.raw) == contents(source)


def test_a_second_run_copies_nothing_and_says_so(target: Target, splits: Path):
    target.take(splits)
    before = {path: path.stat().st_mtime_ns for path in target.raw.rglob("*")}
    assert "All 12 images are in data/raw already: nothing was copied." in target.take(splits)
    assert {path: path.stat().st_mtime_ns for path in target.raw.rglob("*")} == before


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(target: Target, splits: Path):
    printed = target.take(splits, "--dry-run")
    assert "Would copy 12 images to data/raw, 12 rows in metadata.csv; nothing was copied." in printed
    assert "train/cat/0.png -> data/raw/cat/0.png (split: train)" in printed
    assert contents(target.raw) == {}


def test_folders_of_splits_become_a_column_that_pack_obeys(target: Target, splits: Path):
    printed = target.take(splits)
    assert "splits: train 4, val 4, test 4" in printed
    assert "left out, no images by their names: 1 file: README.txt" in printed
    assert sorted(files_of(target.raw).values()) == sorted(files_of(splits).values())
    assert (target.raw / "dog/valid-1.png").read_bytes() == (splits / "valid/dog/1.png").read_bytes()
    packed = target.packed()
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        ids = {packed.split(split).path(row) for row in range(len(packed.split(split)))}
        assert {(target.raw / path).read_bytes() for path in ids} == set(files_of(splits / folder).values())


def test_a_zip_of_splits_in_a_folder_is_the_same_as_the_folder(target: Target, splits: Path, tmp_path: Path):
    target.take(splits)
    before = contents(target.raw)
    shutil.rmtree(target.raw)
    with zipfile.ZipFile(tmp_path / "animals.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents(splits).items():
            archive.writestr(f"animals/{path}", data)
        archive.writestr("__MACOSX/._animals", b"junk")
    assert "12 images copied" in target.take(tmp_path / "animals.zip")
    assert contents(target.raw) == before


def test_a_batch_has_a_folder_and_a_table_of_its_own(target: Target, splits: Path):
    target.take(splits, "--batch", "2026-11")
    assert (target.raw / "2026-11/metadata.csv").is_file()
    assert len(target.packed()) == 12


def test_names_that_lead_out_are_refused_all_at_once(target: Target, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name in ("../out.png", "/etc/1.png", "cat/ok.png", "C:/1.png"):
            archive.writestr(name, b"x")
    printed = target.take(tmp_path / "bad.zip", ok=False)
    assert "'../out.png' leads out of its folder by .." in printed
    assert "'/etc/1.png' begins with a slash" in printed
    assert "'C:/1.png' begins with a drive letter" in printed
    assert contents(target.raw) == {}
    assert not (target.folder / "data/out.png").exists()


def test_another_file_in_the_place_of_one_stops_before_anything_is_copied(target: Target, source: Path):
    (target.raw / "birds").mkdir(parents=True)
    assert "data/raw has other folders, which stay: birds" in target.take(source, "--dry-run")
    save(target.raw / "cat/img2.png", picture(50))
    save(target.raw / "dog/img5.png", picture(51))
    printed = target.take(source, ok=False)
    assert "data/raw/cat/img2.png is there already, and is another" in printed
    assert "data/raw/dog/img5.png is there already, and is another" in printed
    assert len(contents(target.raw)) == 2


def test_a_killed_import_is_completed_by_the_next(target: Target, source: Path):
    (target.raw / "cat").mkdir(parents=True)
    (target.raw / "cat/.importing-0123").write_bytes(b"half")
    shutil.copy(source / "cat/img0.png", target.raw / "cat")
    assert "7 images copied to data/raw (1 were there already)" in target.take(source)
    assert contents(target.raw) == contents(source)


def by_library(folder: Path, script: str) -> None:
    """Run a script where other people's libraries are; it stands in `folder`, and has eight pictures."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "pictures.npy", np.stack([np.asarray(picture(number)) for number in range(8)]))
    before = "import numpy as np\nfrom PIL import Image\n"
    before += "pictures = [Image.fromarray(each) for each in np.load('pictures.npy')]\n"
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([os.environ["TRAINING_PYTHON"], "-c", before + script], cwd=folder, check=True, env=offline)


def pixels(folder: Path, pattern: str) -> list[int]:
    """Return the numbers of the pictures that files have, by name."""
    numbers = {picture(number).tobytes(): number for number in range(8)}
    return [numbers[Image.open(path).convert("RGB").tobytes()] for path in sorted(folder.glob(pattern))]


HUB = """
import datasets
features = datasets.Features({
    "image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]),
    "age": datasets.Value("float64"), "mask": datasets.Image(), "colour": datasets.Value("string"),
})
rows = {"image": pictures, "label": [0, 1] * 4, "age": [n / 2 for n in range(8)], "mask": [None] * 8,
        "colour": ["red", None] * 4}
whole = datasets.Dataset.from_dict(rows, features=features)
whole.select(range(6)).to_parquet("hub/data/train-00000-of-00001.parquet")
whole.select([6, 7]).to_parquet("hub/data/test-00000-of-00001.parquet")
"""


@pytest.mark.extra("frameworks")
@pytest.mark.slow
def test_parquet_files_of_hugging_face_bring_classes_splits_and_columns(target: Target, tmp_path: Path):
    by_library(tmp_path / "made", f"import os\nos.makedirs('hub/data')\n{HUB}")
    printed = target.take(tmp_path / "made/hub")
    assert "column label is the class: cat, dog" in printed
    assert "left out, no texts, numbers or dates: column mask" in printed
    assert pixels(target.raw, "cat/train*") == [0, 2, 4]
    assert pixels(target.raw, "dog/t*") == [7, 1, 3, 5]
    assert "nothing was copied" in target.take(tmp_path / "made/hub")
    packed = target.packed()
    assert {name: len(packed.split(name)) for name in ("train", "test")} == {"train": 6, "test": 2}
    assert sorted(packed.columns["age"].tolist()) == [n / 2 for n in range(8)]
    shutil.rmtree(target.raw)
    printed = target.take(tmp_path / "made/hub", "--table")
    assert "column: label" in printed
    assert len(list((target.raw / "images").iterdir())) == 8
    assert pl.read_csv(target.raw / "metadata.csv")["label"].to_list() == ["cat", "dog"] * 4


@pytest.mark.extra("frameworks")
@pytest.mark.slow
def test_tars_of_webdataset_bring_classes_and_what_json_says(target: Target, tmp_path: Path):
    by_library(
        tmp_path / "made",
        """
import webdataset
for split, numbers in (("train", range(6)), ("val", (6, 7))):
    with webdataset.TarWriter(f"{split}-0000.tar") as sink:
        for n in numbers:
            sink.write({"__key__": f"{n:04d}", "png": pictures[n], "cls": n % 2, "json": {"site": f"s{n}"}})
""",
    )
    (tmp_path / "made/pictures.npy").unlink()
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert "classes have numbers, no names" in target.take(tmp_path / "made", "--dry-run")
    target.take(tmp_path / "made", "--class-names", str(tmp_path / "names.txt"))
    assert pixels(target.raw, "cat/*.png") == [0, 2, 4, 6]
    assert pixels(target.raw, "dog/*.png") == [1, 3, 5, 7]
    table = pl.read_csv(target.raw / "metadata.csv").sort("file_name")
    assert table["site"].to_list() == [f"s{n}" for n in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert len(target.packed().split("val")) == 2


@pytest.mark.extra("frameworks")
@pytest.mark.slow
def test_an_imagefolder_of_hugging_face_brings_its_table(target: Target, tmp_path: Path):
    for split, numbers in (("train", range(6)), ("test", (6, 7))):
        folder = tmp_path / "folder" / split
        rows = [f'{{"file_name": "{n}.png", "label": "{("cat", "dog")[n % 2]}", "age": {n}}}\n' for n in numbers]
        for n in numbers:
            save(folder / f"{n}.png", picture(n))
        (folder / "metadata.jsonl").write_text("".join(rows))
    by_library(
        tmp_path / "made",
        "import datasets\nfound = datasets.load_dataset('imagefolder', data_dir='../folder')\n"
        "assert found['train'].features['age'].dtype == 'int64' and len(found['test']) == 2\n",
    )
    printed = target.take(tmp_path / "folder")
    assert "column label is the class" in printed
    assert pixels(target.raw, "cat/*") == [0, 2, 4, 6]
    packed = target.packed()
    assert len(packed.split("test")) == 2
    assert sorted(packed.columns["age"].tolist()) == list(range(8))


def tar(file: Path, members: list[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_tar_of_class_folders_is_as_the_folders(target: Target, source: Path, tmp_path: Path):
    members = [(f"./animals/{path}", data) for path, data in contents(source).items()]
    target.take(tar(tmp_path / "animals.tar.gz", members))
    assert contents(target.raw) == contents(source)


def test_members_of_a_tar_that_lead_out_or_are_links_are_refused_by_name(target: Target, tmp_path: Path):
    link, device = tarfile.TarInfo("cat/link.png"), tarfile.TarInfo("cat/pipe.png")
    link.type, link.linkname, device.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.FIFOTYPE
    names = ["../out.png", "/abs.png", "cat/../../out2.png", "cat/1.png"]
    file = tar(tmp_path / "bad.tar", [*((name, png(1)) for name in names), (link, b""), (device, b"")])
    printed = target.take(file, ok=False)
    for words in (
        "'../out.png' leads out of its folder",
        "'/abs.png' begins with a slash",
        "'cat/../../out2.png' leads out",
        "'cat/link.png' is a link",
        "'cat/pipe.png' is no file",
    ):
        assert words in printed
    assert contents(target.raw) == {}


def test_half_a_tar_is_said_so(target: Target, tmp_path: Path):
    file = tar(tmp_path / "a.tar", [("cat/1.png", png(1)), ("cat/2.png", png(2))])
    file.write_bytes(file.read_bytes()[:3000])
    assert "cannot be read as a tar" in target.take(file, ok=False)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file whose columns have names of their own, and its images in two folders."""
    rows = ["image_id;diagnosis;age;split"]
    for n in range(8):
        save(tmp_path / f"skin/part{n % 3}/ISIC_{n}.png", picture(n))
        rows.append(f"ISIC_{n};{('naevus', 'melanoma')[n % 2]};{20 + n};{'training' if n < 6 else 'test'}")
    save(tmp_path / "skin/part0/unknown.png", picture(20))
    (tmp_path / "skin/labels.csv").write_text("\n".join(rows))
    return tmp_path / "skin"


def test_columns_of_a_csv_file_are_guessed_and_shown(target: Target, table: Path):
    printed = target.take(table)
    assert "column image_id says which image (another: --path-column NAME)" in printed
    assert "column diagnosis is the class (another: --label-column NAME)" in printed
    assert "left out, without a row: 1 image: part0/unknown.png" in printed
    assert pixels(target.raw, "melanoma/*") == [1, 3, 5, 7]
    packed = target.packed()
    assert packed.classes == ["melanoma", "naevus"]
    assert sorted(packed.columns["age"].tolist()) == list(range(20, 28))
    assert len(packed.split("test")) == 2


def test_rows_of_a_csv_file_with_too_many_cells_are_named(target: Target, table: Path):
    with (table / "labels.csv").open("a") as file:
        file.write("\nISIC_1;naevus;20;test;more\n")
    assert "labels.csv: line 10 has 5 cells; line 1 has 4" in target.take(table, ok=False)


def test_columns_of_a_csv_file_may_be_named_and_images_stay_in_their_folders(target: Target, table: Path):
    printed = target.take(table / "labels.csv", "--label-column", "age", "--table")
    assert "column: age" in printed
    assert pixels(target.raw, "part1/*") == [1, 4, 7]
    assert pl.read_csv(target.raw / "metadata.csv").columns == ["file_name", "diagnosis", "age", "split"]
    printed = target.take(table, "--path-column", "id", "--label-column", "kind", ok=False)
    assert "no column 'id': the columns are image_id, diagnosis, age, split" in printed
    assert "no column 'kind'" in printed


def test_a_column_that_tables_cannot_have_gets_another_name(target: Target, table: Path):
    rows = "".join(f"ISIC_{n},cat,/old/{n}.png,{n}\n" for n in range(8))
    (table / "labels.csv").rename(table / "metadata.csv")
    (table / "metadata.csv").write_text(f"id,label,path,file_name\n{rows}")
    printed = target.take(table / "metadata.csv", "--path-column", "id")
    assert "column path is called source_path in metadata.csv" in printed
    packed = target.packed()
    assert sorted(packed.columns["source_path"].tolist()) == [f"/old/{n}.png" for n in range(8)]
    assert sorted(packed.columns["source_file_name"].tolist()) == list(range(8))


def test_all_rows_that_are_wrong_are_named(target: Target, table: Path):
    save(table / "part2/ISIC_1.png", picture(1))
    (table / "labels.csv").write_text("id,label\nISIC_0,cat\nISIC_0,cat\nISIC_9,cat\nISIC_1,dog\nISIC_2,\n")
    printed = target.take(table, ok=False)
    for words in (
        "line 3: a second row of part0/ISIC_0.png, whose first is in line 2",
        "line 4: ISIC_9 is not there",
        "line 5: ISIC_1 may be part1/ISIC_1.png or part2/ISIC_1.png",
        "line 6: no class in column label",
    ):
        assert words in printed
    assert contents(target.raw) == {}


def test_a_class_that_can_be_no_folder_is_refused(target: Target, table: Path):
    (table / "labels.csv").write_text("id,label\nISIC_0,../cat\nISIC_1,/etc\nISIC_2,a/b\n")
    printed = target.take(table, ok=False)
    for name in ("../cat", "/etc", "a/b"):
        assert f"class '{name}' is no name of a folder: --table leaves it in the table" in printed
    assert contents(target.raw) == {}


@pytest.fixture(scope="module")
def other(new_project: Callable[[], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another repository of the template with two versions, and a table; its images are on its remote alone."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 3, "cat")
    add_pictures(project.folder / "data/raw", 3, "dog", first=3)
    project.write("data/raw/metadata.csv", "file_name,age\ncat/img0.png,7\n")
    project("dvc", "remote", "modify", "s3", "url", str(tmp_path_factory.mktemp("remote")))
    for version in ("v1", "v2"):
        project("dvc", "add", "--quiet", "data/raw")
        project("dvc", "push", "--quiet")
        project.commit(version)
        project("git", "tag", version)
        add_pictures(project.folder / "data/raw", 1, "dog", first=6)
    shutil.rmtree(project.folder / ".dvc/cache")
    return project


@pytest.mark.slow
def test_another_repository_is_imported_at_a_revision(target: Target, other: Project, tmp_path: Path):
    options = ("--rev", "v1", "--batch", "theirs")
    printed = target.take(other.folder, *options, IMAGEPACK_CACHE=str(tmp_path / "cache"))
    assert "7 files copied to data/raw/theirs." in printed
    expected = contents(other.folder / "data/raw")
    del expected["dog/img6.png"]
    assert contents(target.raw / "theirs") == expected
    assert "nothing was copied" in target.take(other.folder, *options)
    assert "1 file copied to data/raw/theirs (7 were there already)" in target.take(
        f"file://{other.folder}", "--rev", "v2", "--batch", "theirs"
    )
    assert "has no revision 'v9'" in target.take(other.folder, "--rev", "v9", ok=False)


@pytest.fixture
def bucket(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """A function that makes a bucket of eight images, with versions or without; and one that lists all keys of one."""
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)
    client = botocore.session.Session().create_client(
        "s3", "us-east-1", endpoint_url=s3_server.endpoint, aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
    )  # fmt: skip

    def make(name: str, versions: bool) -> None:
        client.create_bucket(Bucket=name)
        if versions:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        for number in range(8):
            client.put_object(Bucket=name, Key=f"in/{('cat', 'dog')[number % 2]}/{number}.png", Body=png(number))

    make.keys = lambda name: {each["Key"] for each in client.list_objects_v2(Bucket=name).get("Contents", ())}
    yield make
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("versions", [False, True])
def test_a_bucket_is_imported_by_dvc_and_a_teammate_gets_it(
    new_project: Callable[[], Project], bucket: Callable, tmp_path: Path, versions: bool
):
    name, project = f"full-{versions}".lower(), new_project()
    bucket(name, versions)
    project("dvc", "remote", "modify", "s3", "url", f"s3://{name}/dvc")
    options = ("--version-aware",) if versions else ()
    assert f"Would run\n  $ dvc import-url {' '.join(options)}" in project(
        *IMPORT, f"s3://{name}/in", *options, "--dry-run"
    )
    printed = project(*IMPORT, f"s3://{name}/in", *options)
    assert f"s3://{name}/in is in data/raw" in printed
    assert pixels(project.folder / "data/raw", "*/*.png") == [0, 2, 4, 6, 1, 3, 5, 7]
    assert "comes from s3://" in project(*IMPORT, f"s3://{name}/in", *options)
    assert "with other images" in project(*IMPORT, f"s3://{name}/other", ok=False)
    project("dvc", "push")
    assert len(bucket.keys(name)) == (8 if versions else 8 + 9)
    project.commit("Imported")
    project("git", "clone", "--quiet", ".", str(tmp_path / "mate"))
    mate = Project(tmp_path / "mate")
    mate("dvc", "pull", "data/raw.dvc")
    assert contents(mate.folder / "data/raw") == contents(project.folder / "data/raw")
    add_pictures(project.folder / "data/raw", 1, "cat", first=9)
    if versions:  # what docs/import.md says: DVC pushes nothing of data/raw, until it is added anew
        project("dvc", "add", "data/raw")
        project("dvc", "push")
        assert len(bucket.keys(name)) == 8
        project.commit("Changed here")
        said = project("python", "-m", "imagepack.commands.doctor", ok=False)
        assert f"data/raw has other files than s3://{name}/in, where DVC leaves them, and DVC pushes none" in said
        (project.folder / "data/raw.dvc").unlink()
    project("dvc", "add", "data/raw")
    project("python", "-m", "imagepack.commands.dvc", "push")
    assert len(bucket.keys(name)) == 8 + (10 if versions else 9 + 2)


@pytest.mark.slow
def test_hard_links_are_safe_with_copies_in_the_cache_and_refused_with_links(
    new_project: Callable[[], Project], source: Path
):
    project = new_project()
    before = {path: (path.stat().st_mode, path.stat().st_ino) for path in source.rglob("*.png")}
    project("dvc", "config", "cache.type", "hardlink,copy")
    assert "--link is refused: DVC's cache.type has hardlink" in project(*IMPORT, str(source), "--link", ok=False)
    project("dvc", "config", "cache.type", "reflink,copy")
    project(*IMPORT, str(source), "--link")
    linked = {path.stat().st_ino for path in (project.folder / "data/raw").rglob("*.png")}
    assert linked == {number for _, number in before.values()}
    images = contents(source)
    project("dvc", "add", "data/raw")
    add_pictures(project.folder / "data/raw", 1, "cat", first=20)
    project("dvc", "add", "data/raw")
    shutil.rmtree(project.folder / "data/raw/cat")
    project("dvc", "checkout", "--force", "data/raw.dvc")
    assert contents(project.folder / "data/raw") == images | {"cat/img20.png": png(20)}
    assert contents(source) == images
    assert {path: (path.stat().st_mode, path.stat().st_ino) for path in source.rglob("*.png")} == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_import_that_is_killed_anywhere_leaves_whole_files_and_goes_on(target: Target, tmp_path: Path):
    for number in range(600):
        save(tmp_path / f"many/{number % 7}/{number}.png", picture(number % 8))
    expected, killed = contents(tmp_path / "many"), 0
    command = [sys.executable, *IMPORT[1:], str(tmp_path / "many")]
    while len(list(target.raw.rglob("*.png"))) < 600 and killed < 40:
        process = subprocess.Popen(command, cwd=target.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(target.raw.rglob("*.png")))
        while process.poll() is None and len(list(target.raw.rglob("*.png"))) < before + 60:
            pass
        if process.poll() is None:
            process.kill()
            killed += 1
        process.wait()
        found = contents(target.raw)
        assert all(found[path] == expected[path] for path in found if ".importing-" not in path)
    assert killed >= 2
    target.take(tmp_path / "many")
    assert contents(target.raw) == expected


def test_what_a_source_cannot_be_is_said_so(target: Target, source: Path, tmp_path: Path):
    assert "is not there" in target.take(tmp_path / "nowhere", ok=False)
    target.raw.mkdir(parents=True, exist_ok=True)
    assert "lie in each other" in target.take(target.raw, ok=False)
    assert "would lie in" in target.take(source, "--batch", "../out", ok=False)
    (tmp_path / "empty").mkdir()
    assert "has no images" in target.take(tmp_path / "empty", ok=False)
    save(source / "top.png", picture(40))
    (source / "dog/gone.png").symlink_to(tmp_path / "nowhere")
    printed = target.take(source, ok=False)
    assert "top.png: lies in no class folder" in printed
    assert "dog/gone.png: a link that leads nowhere" in printed
    (target.folder / "data/raw.dvc").write_text("outs: []\n")
    shutil.rmtree(target.raw, ignore_errors=True)
    assert "names images that are not here" in target.take(source, ok=False)


def test_a_tar_of_splits_with_a_readme_is_as_the_folder(target: Target, splits: Path, tmp_path: Path):
    target.take(splits)
    before = contents(target.raw)
    shutil.rmtree(target.raw)
    (splits / "train/cat/notes.json").write_text('{"by": "us"}')
    printed = target.take(tar(tmp_path / "pets.tar", [(f"./{path}", data) for path, data in contents(splits).items()]))
    assert "left out, no images by their names: 2 files: " in printed
    assert contents(target.raw) == before


def test_tars_called_like_splits_bring_them(target: Target, splits: Path, tmp_path: Path):
    (tmp_path / "tars").mkdir()
    for split in ("train", "valid", "test"):
        tar(tmp_path / f"tars/{split}.tar", sorted(contents(splits / split).items()))
    printed = target.take(tmp_path / "tars", "--dry-run")
    assert "12 images in 2 classes: cat 6, dog 6" in printed
    assert "splits: train 4, val 4, test 4" in printed


@pytest.mark.parametrize("inside", ["", "skin/"])
@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_table_in_an_archive_is_as_in_the_folder(target: Target, tmp_path: Path, name: str, kind: str, inside: str):
    members = [(f"{inside}pics/{n}.png", png(n)) for n in range(4)]
    rows = "".join(f"pics/{n}.png,{('cat', 'dog')[n % 2]},{n}\n" for n in range(4))
    members.append((f"{inside}{name}", f"file_name,label,age\n{rows}".encode()))
    if kind == "tar":
        tar(tmp_path / "a.tar", members)
    else:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for path, data in members:
                archive.writestr(path, data)
    target.take(tmp_path / f"a.{kind}")
    assert (pixels(target.raw, "cat/*"), pixels(target.raw, "dog/*")) == ([0, 2], [1, 3])
    assert pl.read_csv(target.raw / "metadata.csv").sort("age")["age"].to_list() == [0, 1, 2, 3]


def test_splits_in_a_zip_with_tables_in_a_folder_are_found(target: Target, splits: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path, data in contents(splits).items():
            archive.writestr(f"pets/{path}", data)
        archive.writestr("pets/train/metadata.csv", "file_name,age\ncat/0.png,7\n")
    assert "splits: train 4, val 4, test 4" in target.take(tmp_path / "a.zip", "--dry-run")


def test_a_path_in_a_csv_file_is_never_another_file_of_that_name(target: Target, tmp_path: Path):
    save(tmp_path / "pets/one/x.png", picture(0))
    save(tmp_path / "pets/y.png", picture(1))
    (tmp_path / "pets/labels.csv").write_text("image,label\ntwo/x.png,TWO\none/x.png,ONE\n../dots/y.png,YES\n")
    printed = target.take(tmp_path / "pets", ok=False)
    assert "line 2: two/x.png is not there" in printed
    assert "line 4: ../dots/y.png is not there" in printed
    (tmp_path / "pets/labels.csv").write_text("image,label\n/data/pets/one/x.png,ONE\n/data/pets/y.png,YES\n")
    target.take(tmp_path / "pets")
    assert (pixels(target.raw, "ONE/*"), pixels(target.raw, "YES/*")) == ([0], [1])


def parquet(file: Path, names: list, features: dict | None = None, **columns: list) -> Path:
    """Write a Parquet file of pictures, as `datasets` does."""
    images = [{"bytes": png(number), "path": name} for number, name in enumerate(names)]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pl.DataFrame({"image": images} | columns, strict=False).write_parquet(file, metadata=metadata)
    return file


def test_names_for_classes_that_do_not_fit_are_refused(target: Target, tmp_path: Path):
    file, names = parquet(tmp_path / "a.parquet", ["0.png", "1.png", "2.png"], label=[0, 1, 2]), tmp_path / "names.txt"
    for text, said in (
        ("a\nb\n", "has names of the classes 0 to 1, and 1 label in column label are others, such as '2'"),
        ("a\nb\na\n", "a is there 2 times"),
        ("a\n\nb\n", "line 2 is empty"),
        ("", "has no names"),
    ):
        names.write_text(text)
        assert said in target.take(file, "--class-names", str(names), ok=False)
        assert contents(target.raw) == {}
    names.write_text("a\nb\nc\n")
    assert "3 classes: a 1, b 1, c 1" in target.take(file, "--class-names", str(names), "--dry-run")
    save(tmp_path / "folders/0/1.png", picture(0))
    assert "no column has the numbers" in target.take(tmp_path / "folders", "--class-names", str(names), ok=False)


def test_numbers_of_classes_below_0_are_no_class(target: Target, tmp_path: Path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    members = [("1.png", png(1)), ("1.json", b'{"label": -1}'), ("2.png", png(2)), ("2.json", b'{"label": 1}')]
    file = tar(tmp_path / "a.tar", members)
    assert "1.png: no class in column label" in target.take(
        file, "--class-names", str(tmp_path / "names.txt"), ok=False
    )


def test_several_labels_of_parquet_keep_names_and_none_of_them(target: Target, tmp_path: Path):
    label = {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}
    for feature in ({"feature": label, "_type": "List"}, [label]):
        features = {"image": {"_type": "Image"}, "labels": feature}
        parquet(tmp_path / "a.parquet", ["0.png", "1.png", "2.png"], features, labels=[[0, 1], [], [1]])
        printed = target.take(tmp_path / "a.parquet")
        assert "labels: kind: multilabel, column: labels" in printed
        assert "left out, classes that no image has: owl" in printed
        assert pl.read_csv(target.raw / "metadata.csv")["labels"].to_list() == ["cat;dog", ";", "dog"]
        shutil.rmtree(target.raw)


def test_a_label_with_a_semicolon_is_not_taken_for_two(target: Target, tmp_path: Path):
    file = parquet(tmp_path / "a.parquet", ["0.png", "1.png"], tags=[["a;b"], ["c"]])
    assert "has a ; in it" in target.take(file, "--label-column", "tags", ok=False)


def test_numbers_are_no_class_folders(target: Target, tmp_path: Path):
    for n in range(3):
        save(tmp_path / f"pets/{n}.png", picture(n))
    (tmp_path / "pets/labels.csv").write_text("image,target\n0.png,0.5\n1.png,2\n2.png,1.25\n")
    printed = target.take(tmp_path / "pets", "--dry-run")
    assert "column target has numbers, no classes: it stays in the table" in printed
    assert "data/raw/images/0.png (target: 0.5)" in printed


def test_a_class_stays_as_it_is_written(target: Target, tmp_path: Path):
    for n in range(3):
        save(tmp_path / f"pets/{n}.png", picture(n))
    (tmp_path / "pets/metadata.csv").write_text("file_name,label\n0.png,2026-01-01\n1.png,2026-01-02\n2.png,\n")
    assert "2.png: no class in column label" in target.take(tmp_path / "pets", ok=False)
    (tmp_path / "pets/metadata.csv").write_text("file_name,label\n0.png,TRUE\n1.png,False\n2.png,true\n")
    assert "3 classes: TRUE 1, False 1, true 1" in target.take(tmp_path / "pets", "--dry-run")


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("train/cat/1.png", "cat/1.png"), "stand beside others (cat)"),
        (("train/1.png", "test/1.png", "other/1.png"), "stand beside others (other)"),
        (("train/cat/1.png", "top.png"), "stand beside others (top.png)"),
        (("cat/train/1.png", "dog/test/2.png"), "folders called like splits (test, train) lie in others"),
        (("a/b/train/cat/1.png", "a/b/test/cat/2.png"), "name the folder that has the splits"),
        (("1.png", "2.png"), "1.png: lies in no class folder (and 1 image more)"),
    ],
)
def test_folders_whose_splits_cannot_be_told_are_refused(
    target: Target, tmp_path: Path, paths: tuple[str, ...], said: str
):
    for number, path in enumerate(paths):
        save(tmp_path / "pets" / path, picture(number))
    printed = target.take(tmp_path / "pets", ok=False)
    assert said in printed and "Traceback" not in printed


def test_a_label_column_that_is_not_there_is_one_line(target: Target, table: Path, source: Path, tmp_path: Path):
    members = [(f"{n}.{end}", data) for n in range(5) for end, data in (("png", png(n)), ("cls", b"1"))]
    folders = [(path, data) for path, data in contents(source).items()]
    for place in (
        table, source, tar(tmp_path / "a.tar", members), tar(tmp_path / "b.tar", folders),
        parquet(tmp_path / "a.parquet", ["1.png"], label=[1]),
    ):  # fmt: skip
        printed = target.take(place, "--label-column", "nope", ok=False)
        assert "no column 'nope' (--label-column): the columns are" in printed
        assert len(printed.strip().split("\n")) == 2


def test_one_fault_of_many_images_is_one_line(target: Target, tmp_path: Path):
    members = [(f"{n}.{end}", data) for n in range(50) for end, data in (("png", png(n)), ("json", b'{"label": ""}'))]
    printed = target.take(tar(tmp_path / "a.tar", members), ok=False)
    assert "0.png: no class in column label (and 49 images more)" in printed
    assert len(printed.strip().split("\n")) == 2


def test_images_with_one_name_in_parquet_get_numbers(target: Target, tmp_path: Path):
    file = parquet(tmp_path / "same.parquet", ["same.png"] * 4, label=["cat"] * 4)
    target.take(file)
    names = ["same.png", "same-same.png", "same-same-2.png", "same-same-3.png"]
    assert [(target.raw / "cat" / name).read_bytes() for name in names] == [png(n) for n in range(4)]
    assert "nothing was copied" in target.take(file)


def test_a_split_that_is_none_is_refused(target: Target, table: Path, tmp_path: Path):
    text = (table / "labels.csv").read_text()
    (table / "labels.csv").write_text(text.replace("test", "holdout"))
    printed = target.take(table, ok=False)
    assert "line 8: split 'holdout' in column split: call it train, val or test" in printed
    assert "(and 1 image more)" in printed
    file = parquet(tmp_path / "a.parquet", ["0.png", "1.png"], label=["a", "b"], split=["Validation", None])
    assert "splits: val 1, none 1" in target.take(file, "--dry-run")


def test_what_json_says_and_no_table_can_is_named(target: Target, tmp_path: Path):
    said = b'{"label": "cat", "box": {"x": 1}, "age": 7}'
    printed = target.take(tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", said), ("LICENSE", b"free")]))
    assert "left out, no texts, numbers or lists of texts: key box" in printed
    assert "1 member: LICENSE" in printed
    assert (target.raw / "metadata.csv").read_text() == "file_name,age\ncat/1.png,7\n"


def test_members_that_are_there_twice_or_disagree_are_refused(target: Target, tmp_path: Path):
    members = [("1.png", png(1)), ("1.cls", b"1"), ("1.png", png(2)), ("1.json", b'{"class": 3}')]
    printed = target.take(tar(tmp_path / "a.tar", members), ok=False)
    assert "'1.png' is there twice" in printed
    assert "1.json: says another class than the member before it" in printed


def test_a_csv_file_without_a_header_loses_no_image(target: Target, table: Path):
    (table / "labels.csv").write_text("part0/ISIC_0.png,cat\npart1/ISIC_1.png,dog\npart2/ISIC_2.png,dog\n")
    assert "its first line names an image, part0/ISIC_0.png" in target.take(table, ok=False)
    (table / "labels.csv").write_text("ISIC_0,cat\nISIC_1,dog\n")
    assert "its first line names an image, ISIC_0" in target.take(table, ok=False)


def test_a_repository_where_nothing_is_committed_is_said_so(target: Target, template: Project, tmp_path: Path):
    other = tmp_path / "other"
    target("git", "clone", "--quiet", str(template.folder), str(other))
    save(other / "data/raw/cat/1.png", picture(1))
    (other / "data/raw.dvc").unlink(missing_ok=True)
    Project(other)("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "None", ok=None)
    printed = target.take(other, ok=False)
    assert "nothing of data/raw is committed at revision HEAD" in printed


def test_an_import_whose_output_nobody_reads_is_stopped_with_a_word(target: Target, source: Path):
    command = f"{sys.executable} -m imagepack.commands import_images {source} | true"
    done = subprocess.run(["bash", "-c", command], cwd=target.folder, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "run.py: stopped, as nobody reads what it prints\n"


def test_folders_of_splits_count_where_a_csv_file_has_the_classes(target: Target, tmp_path: Path):
    for n, split in enumerate(("train", "valid", "test")):
        save(tmp_path / f"pets/images/{split}/{n}.png", picture(n))
    (tmp_path / "pets/labels.csv").write_text("image,label\n0.png,cat\n1.png,cat\n2.png,cat\n")
    assert "splits: train 1, val 1, test 1" in target.take(tmp_path / "pets", "--dry-run")
    members = [(f"d/{split}/{n}.{end}", data) for n, split in enumerate(("train", "test"))
               for end, data in (("png", png(n)), ("cls", b"1"))]  # fmt: skip
    assert "splits: train 1, test 1" in target.take(tar(tmp_path / "a.tar", members), "--dry-run")


def test_a_table_of_json_loses_what_no_table_can_have_with_a_word(target: Target, tmp_path: Path):
    for n in range(3):
        save(tmp_path / f"pets/{n}.png", picture(n))
    rows = [{"file_name": f"{n}.png", "path": f"/old/{n}", "tags": tags, "objects": {"bbox": [1]}}
            for n, tags in enumerate((["sea"], [], ["land"]))]  # fmt: skip
    (tmp_path / "pets/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    printed = target.take(tmp_path / "pets", "--label-column", "tags")
    assert "left out, no texts, numbers or dates: column objects" in printed
    assert "column path is called source_path in metadata.csv" in printed
    assert "labels: kind: multilabel, column: tags" in printed
    written = pl.read_csv(target.raw / "metadata.csv")
    assert written["tags"].to_list() == ["sea", ";", "land"]
    assert written["source_path"].to_list() == ["/old/0", "/old/1", "/old/2"]


def test_numbers_that_are_none_are_empty_cells(target: Target, tmp_path: Path):
    save(tmp_path / "pets/0.png", picture(0))
    save(tmp_path / "pets/1.png", picture(1))
    (tmp_path / "pets/metadata.jsonl").write_text(
        '{"file_name": "0.png", "label": NaN}\n{"file_name": "1.png", "label": 2.0}\n'
    )
    assert "labels: kind: numbers, column: label" in target.take(tmp_path / "pets")
    assert (target.raw / "metadata.csv").read_text() == "file_name,label\nimages/0.png,\nimages/1.png,2.0\n"


def test_images_of_no_class_are_said_to_be_so(target: Target, tmp_path: Path):
    printed = target.take(parquet(tmp_path / "a.parquet", ["0.png"], sort=["cat"]), "--dry-run")
    assert "nothing says the class of images in images: --label-column NAME does" in printed
