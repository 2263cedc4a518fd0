"""Pictures of changes: of real versions in real DVC, from wherever the raw files are."""

import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Project, picture, save
from PIL import Image
from test_versions import connect, new_clone

from imagepack.commands import s3
from imagepack.compare.pictures import LONGEST, Pictures, draw, heat
from imagepack.compare.versions import Version, read

slow = pytest.mark.slow
RAW = "data/raw"
CHANGES = {  # kind, path in v1, path in v2
    "edited": ("cat/edited.png", "cat/edited.png"),
    "reencoded": ("cat/saved.jpg", "cat/saved.jpg"),
    "moved_edited": ("cat/moved.png", "dog/moved.png"),
    "relabelled": ("cat/other.png", "dog/other.png"),
    "added": (None, "dog/new.png"),
    "removed": ("cat/old.tif", None),
}
HOSTILE = ("cat/bomb.png", "cat/truncated.jpg", "cat/text.png", "cat/empty.png")


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """Tags v1 and v2, validated and pushed. Not to be changed."""
    project = connect(new_project(), s3_server)
    raw = project.folder / RAW
    for name in ("cat/edited.png", "cat/moved.png", "cat/other.png", "cat/old.tif"):
        save(raw / name, picture(sum(name.encode()), 600, 400))
    save(raw / "cat/saved.jpg", picture(1, 600, 400), quality=95, comment=b"a word")
    save(raw / "dog/dog.png", picture(2))
    versioned(project, "v1")
    edited = Image.open(raw / "cat/edited.png").copy()
    edited.paste(tuple(value ^ 4 for value in edited.getpixel((300, 200))), (290, 190, 330, 230))
    save(raw / "cat/edited.png", edited)
    save(raw / "cat/saved.jpg", Image.open(raw / "cat/saved.jpg").copy(), quality=60)
    save(raw / "dog/moved.png", Image.open(raw / "cat/moved.png").resize((150, 100)))
    (raw / "cat/moved.png").unlink()
    (raw / "cat/other.png").rename(raw / "dog/other.png")
    (raw / "cat/old.tif").unlink()
    save(raw / "dog/new.png", picture(3, 20, 400))
    save(raw / "cat/bomb.png", Image.new("1", (20_000, 20_000)))
    whole = io.BytesIO()
    picture(4, 300, 300).save(whole, "JPEG")
    (raw / "cat/truncated.jpg").write_bytes(whole.getvalue()[:-2000])
    (raw / "cat/text.png").write_bytes(b"<html>")
    (raw / "cat/empty.png").write_bytes(b"")
    versioned(project, "v2")
    return project


def versioned(project: Project, name: str) -> None:
    project("dvc", "add", RAW)
    project("dvc", "repro", "validate")
    project("dvc", "push", "data/raw", "validate")
    project.commit(name)
    project("git", "tag", name)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is fetched is kept."""
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STAGE_WORKERS", "2")
    return tmp_path / "cache"


def table(a: Version, b: Version, changes: list[tuple[str, str | None, str | None]]) -> pl.DataFrame:
    """The columns of `changes` that draw reads."""
    found = pl.DataFrame(changes, {"kind": pl.String, "path_a": pl.String, "path_b": pl.String}, orient="row")
    for version, side in ((a, "a"), (b, "b")):
        facts = version.images.select(pl.col("path").alias(f"path_{side}"), pl.col("sha256").alias(f"sha256_{side}"))
        found = found.join(facts, on=f"path_{side}", how="left", maintain_order="left")
    return found


def drawn(repo: Path, a: str | None = "v1", b: str | None = "v2") -> dict[str, Pictures]:
    """Pictures of all CHANGES, by kind."""
    versions = read(a, repo), read(b, repo)
    changes = table(*versions, [(kind, *paths) for kind, paths in CHANGES.items()])
    pictures = draw(*versions, changes, range(len(changes)))
    assert list(pictures) == list(range(len(changes)))
    assert not [each for each in pictures.values() if b"a word" in (each.before or b"")]  # a comment of the file's
    return dict(zip(CHANGES, pictures.values(), strict=True))


def pixels(jpeg: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB"), np.int16)


def close(jpeg: bytes, image: Image.Image) -> None:
    """A JPEG shows this image, shrunk."""
    image.thumbnail((LONGEST, LONGEST))
    assert np.abs(pixels(jpeg) - np.asarray(image, np.int16)).mean() < 3


@slow
def test_each_kind_of_change_has_its_pictures(project: Project, tmp_path: Path, s3_server: s3.Server):
    clone = new_clone(project, s3_server, tmp_path / "clone")
    found = drawn(clone.folder)
    assert drawn(project.folder) == drawn(project.folder, b=None) == found
    assert not (clone.folder / ".dvc/cache").exists()
    assert clone("git", "status", "--porcelain") == ""
    assert [one.note for one in found.values()] == [""] * 6
    for kind in ("edited", "moved_edited", "reencoded"):
        one = found[kind]
        assert pixels(one.before).shape[:2] == (171, 256)
        assert 0 < one.distance < 10
        assert pixels(one.difference).max() > 30
    shown = pixels(found["edited"].difference)
    assert shown.shape[:2] == (171, 256) and shown[81:98, 124:140].mean() > 20 and shown[:60].max() < 10
    assert pixels(found["moved_edited"].after).shape == pixels(found["moved_edited"].difference).shape == (100, 150, 3)
    same = found["relabelled"]
    assert same.before == same.after and same.difference is None and same.distance == 0
    close(same.after, picture(sum(b"cat/other.png"), 600, 400))
    assert (found["added"].before, found["added"].difference, found["added"].distance) == (None, None, None)
    assert pixels(found["added"].after).shape == (256, 13, 3)
    assert found["removed"].after is None
    close(found["removed"].before, picture(sum(b"cat/old.tif"), 600, 400))


@slow
def test_only_the_files_that_are_asked_for_are_fetched(
    project: Project, tmp_path: Path, s3_server: s3.Server, cache: Path
):
    clone = new_clone(project, s3_server, tmp_path / "clone")
    a, b = read("v1", clone.folder), read("v2", clone.folder)
    changes = table(a, b, [(kind, *paths) for kind, paths in CHANGES.items()])
    assert draw(a, b, changes, []) == {}
    assert len(list(cache.glob("*.raw"))) == 0
    assert list(draw(a, b, changes, [3, 0, 3])) == [3, 0]
    assert len(list(cache.glob("*.raw"))) == 3
    connect(clone, s3.Server(0, 9, "x", "x"))
    assert draw(read("v1", clone.folder), read("v2", clone.folder), changes, [0])[0].note == ""


@slow
def test_hostile_files_cost_themselves_alone(project: Project):
    a, b = read("v1", project.folder), read("v2", project.folder)
    changes = table(a, b, [("edited", "cat/edited.png", path) for path in HOSTILE])
    bomb, truncated, text, empty = draw(a, b, changes, range(4)).values()
    assert bomb.note == "after: 400000000 pixels, more than 100000000"
    assert truncated.note == "" and truncated.difference and truncated.distance > 10
    assert text.note.startswith("after: not recognised as an image")
    assert empty.note == "after: the file is empty or could not be read"
    for one in (bomb, text, empty):
        assert one.before and one.after is None and one.difference is None and one.distance is None


@slow
def test_what_cannot_be_fetched_has_a_note_and_the_remote_is_not_asked_again(
    project: Project, s3_server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    clone = new_clone(project, s3_server, tmp_path / "clone")
    a, b = read("v1", clone.folder), read("v2", clone.folder)
    connect(clone, s3.Server(0, s3.free_ports(1)[0], "x", "x"))
    a, b = read("v1", clone.folder), read("v2", clone.folder)
    changes = table(a, b, [("added", None, path) for path in b.images["path"]] * 5)
    begin = time.monotonic()
    pictures = draw(a, b, changes, range(len(changes)))
    assert time.monotonic() - begin < 20
    notes = {one.note for one in pictures.values() if "is empty" not in one.note}
    assert len(notes) == 1 and "does not answer" in notes.pop()
    elsewhere = new_clone(project, s3_server, tmp_path / "b", url="s3://image-dataset/elsewhere")
    (one,) = draw(read("v1", elsewhere.folder), read("v2", elsewhere.folder), changes, [0]).values()
    assert "is not on s3://image-dataset/elsewhere: run dvc push" in one.note


@slow
def test_a_frame_is_drawn_from_the_file_that_it_is_in(project: Project, tmp_path: Path):
    shutil.copytree(project.folder, tmp_path / "copy", symlinks=True)
    copy = Project(tmp_path / "copy")
    text = (copy.folder / "params.yaml").read_text(encoding="utf-8")
    copy.write("params.yaml", text.replace("multi_frame: first", "multi_frame: split"))
    frames = [picture(number, 200, 100) for number in (5, 6, 7)]
    save(copy.folder / RAW / "cat/pages.tif", frames[0], save_all=True, append_images=frames[1:])
    versioned(copy, "v3")
    a, b = read("v1", copy.folder), read("v3", copy.folder)
    changes = table(a, b, [("added", None, f"cat/pages.tif{number}") for number in ("", "#2", "#3")])
    for frame, one in zip(frames, draw(a, b, changes, range(3)).values(), strict=True):
        close(one.after, frame)


def test_one_grey_level_shows_and_equal_pictures_are_black():
    grey = np.full((40, 60, 3), 100, np.uint8)
    jpeg, distance = heat(grey, grey)
    assert distance == 0 and pixels(jpeg).max() == 0
    jpeg, distance = heat(grey, grey + np.uint8(1))
    assert distance == 1 and pixels(jpeg)[..., 0].min() > 40
    jpeg, distance = heat(grey * 0, grey * 0 + np.uint8(255))
    assert distance == 255 and pixels(jpeg).min() == 255
    jpeg, _ = heat(grey, np.zeros((400, 10, 3), np.uint8))
    assert pixels(jpeg).shape == (40, 60, 3)
