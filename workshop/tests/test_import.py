"""`python3 run.py import`: datasets of other shapes, each made by its own library where there is one, and packed."""

import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import Project, Workspace, add_pictures, contents, picture, save

from imagepack import PackedImages
from stages.validate import Levels, Validate

ANY_SIZE = Validate(blurry=0, levels=Levels(class_too_small="ignore", class_imbalance="ignore"))
IMPORT = ("python", "-m", "imagepack.commands.import_images")


class Target(Project):
    """A repository into which images are imported."""

    @property
    def raw(self) -> Path:
        return self.folder / "data/raw"

    def take(self, source: Path, *options: str, **settings) -> str:
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
    assert "python3 run.py -- dvc add data/raw" in printed
    assert contents(target.raw) == before == contents(source)
    assert target.packed().classes == ["cat", "dog"]


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
