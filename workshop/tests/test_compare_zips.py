"""Versions whose raw images are in zips, compared: through real DVC and a real S3, from a clone without data."""

import hashlib
import io
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, add_pictures, contents, picture
from test_versions import connect, new_clone
from test_zips import GOOD, entry, zip_of

from imagepack.commands import s3
from imagepack.compare.comparison import Comparison, compare
from imagepack.compare.versions import Version, read
from imagepack.compare.zipped_images import ZippedImages
from imagepack.images import zips
from imagepack.reader.format import PackError

slow = pytest.mark.slow
RAW = "data/raw"


def png(number: int) -> bytes:
    data = io.BytesIO()
    picture(number).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def images() -> dict[str, dict[str, bytes]]:
    """The raw images of each version, by path; filled by `project`."""
    return {}


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server, images: dict) -> Project:
    """Tags folder, zipped (the same images) and edited (in a zip, and beside); all pushed. Not to be changed."""
    project = connect(new_project(), s3_server)
    raw = project.folder / RAW

    def done(version: str) -> None:
        project("dvc", "add", RAW)
        project("dvc", "repro", "pack")
        project.commit(version)
        project("git", "tag", version)

    for number, batch in enumerate(("a", "b", "c")):
        add_pictures(raw, 8, f"{batch}/cat", 20 * number)
    images["folder"] = images["zipped"] = contents(raw)
    done("folder")
    delivered = {path: data for path, data in images["folder"].items() if path.startswith("c/")}
    shutil.rmtree(raw / "c")
    project("python", "-m", "imagepack.commands.zips")
    (raw / "c").mkdir()
    write(raw / "c/delivered.zip", delivered)
    done("zipped")
    del delivered["c/cat/img41.png"]
    delivered |= {"c/cat/img40.png": png(100), "c/cat/new.png": png(101)}
    write(raw / "c/delivered.zip", delivered)
    (raw / "c/cat").mkdir()
    (raw / "c/cat/loose.png").write_bytes(png(102))
    images["edited"] = {path: data for path, data in images["folder"].items() if not path.startswith("c/")} | delivered
    images["edited"]["c/cat/loose.png"] = png(102)
    done("edited")
    project("dvc", "push", "--all-tags")
    return project


def write(archive: Path, images: dict[str, bytes]) -> None:
    """A zip in batch c, as anybody would."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path, data in images.items():
            target.writestr(path.removeprefix("c/"), data)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is fetched is kept."""
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clone(project: Project, s3_server: s3.Server, tmp_path: Path) -> Project:
    """Without data, and with an empty DVC cache."""
    return new_clone(project, s3_server, tmp_path / "clone")


def fetched(version: Version, paths: list[str]) -> dict[str, bytes | None]:
    found = {path: (content, note) for path, content, note in version.fetch(paths)}
    assert [note for _, note in found.values() if note] == []
    return {path: content for path, (content, _) in found.items()}


def moved(comparison: Comparison, way: str) -> dict:
    """What is to be transferred of the raw images."""
    parts = {part["part"]: part for part in comparison.summary["transfer"][way]["parts"]}
    return parts["raw images"]


def listing(names: dict) -> int:
    """Bytes of DVC's list of these files."""
    return sum(len(f'{{"md5": "{"x" * 32}", "relpath": "{name}"}}, ') for name in names)


@slow
def test_a_folder_and_its_zips_are_the_same_images_in_other_files(project: Project, clone: Project):
    here, there = ([read(name, folder) for name in ("folder", "zipped")] for folder in (project.folder, clone.folder))
    project("git", "checkout", "--quiet", "zipped")
    project("dvc", "checkout", RAW)
    archives = contents(project.folder / RAW)
    project("git", "checkout", "--quiet", "main")
    project("dvc", "checkout", RAW)
    assert len(archives) == 3
    for versions, estimated in ((here, False), (there, True)):
        comparison = compare(*versions)
        assert comparison.changes.is_empty()
        assert comparison.summary["counts"]["unchanged"] == 24
        assert comparison.summary["pipeline"]["packed_changed"] is False
        assert comparison.summary["pipeline"]["explanation"] == [
            "No raw image differs, only the files that they are in: zips or others."
        ]
        size = sum(map(len, archives.values())) + listing(archives)
        expected = {"part": "raw images", "files": 3 + 1, "bytes": size, "estimated": estimated}
        found = moved(comparison, "a_to_b")
        assert abs(found.pop("bytes") - expected.pop("bytes")) <= 3 * estimated
        assert found == expected
        assert moved(comparison, "b_to_a")["files"] == 24 + 1
    assert not (clone.folder / ".dvc/cache").exists()


@slow
def test_changes_in_a_zip_are_told_by_the_image_and_moved_by_the_zip(project: Project, clone: Project):
    comparison = compare(read("zipped", clone.folder), read("edited", clone.folder))
    told = {(kind, a or b) for kind, a, b in comparison.changes.select("kind", "path_a", "path_b").iter_rows()}
    assert told == {
        ("edited", "c/cat/img40.png"),
        ("removed", "c/cat/img41.png"),
        ("added", "c/cat/new.png"),
        ("added", "c/cat/loose.png"),
    }
    assert moved(comparison, "a_to_b")["files"] == 2 + 1
    exact = compare(read("zipped", project.folder), read("edited", project.folder))
    files = contents(project.folder / RAW)
    size = len(files["c/delivered.zip"]) + len(files["c/cat/loose.png"]) + listing(files)
    assert moved(exact, "a_to_b") == {"part": "raw images", "files": 3, "bytes": size, "estimated": False}


@slow
def test_images_in_zips_come_from_the_remote_the_cache_or_the_workspace(
    project: Project, clone: Project, images: dict, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("zipped", "edited"):
        assert fetched(read(name, clone.folder), list(images[name])) == images[name]
    assert not (clone.folder / RAW).exists() and not (clone.folder / ".dvc/cache").exists()
    connect(clone, s3.Server(0, 9, "x", "x"))
    assert fetched(read("edited", clone.folder), list(images["edited"])) == images["edited"]  # kept
    without = tmp_path / "without"
    shutil.copytree(project.folder, without, symlinks=True, ignore=shutil.ignore_patterns("raw"))
    connect(Project(without), s3.Server(0, 9, "x", "x"))
    shutil.rmtree(cache)
    assert fetched(read("edited", without), list(images["edited"])) == images["edited"]
    monkeypatch.chdir(without / "data")  # wherever one stands
    assert fetched(read(None, without), list(images["edited"])) == images["edited"]
    assert not list(cache.glob("*.raw"))
    here = tmp_path / "here"
    shutil.copytree(project.folder, here, symlinks=True)
    for path in (here / ".dvc/cache/files/md5").glob("??/*"):
        if path.suffix != ".dir":  # DVC's lists of folders
            path.unlink()
    connect(Project(here), s3.Server(0, 9, "x", "x"))
    assert fetched(read(None, here), list(images["edited"])) == images["edited"]
    (here / RAW / "c/delivered.zip").unlink()
    ((_, content, note),) = read(None, here).fetch(["c/cat/new.png"])
    assert content is None and "does not answer" in note


def in_folder(folder: Path) -> tuple[ZippedImages, Counter]:
    """The zips of a folder, and how often each was opened."""
    opened = Counter()

    def open_(path: str):
        opened[path] += 1
        return (folder / path).open("rb")

    def files_in(below: str) -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in (folder / below).glob("*"))

    return ZippedImages(files_in, open_), opened


def test_a_zip_is_opened_once_for_all_its_images(tmp_path: Path):
    for number in range(100):  # more than stay open
        (tmp_path / f"b{number % 2}").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / f"b{number % 2}/{number}.ZIP", "w") as target:
            for image in range(3):
                target.writestr(f"cat/{number}-{image}.png", f"{number} {image}")
    found, opened = in_folder(tmp_path)
    for number in range(0, 100, 2):
        for image in range(3):
            content = f"{number} {image}".encode()
            digest = raw_digest(content)
            assert found.read(f"b0/cat/{number}-{image}.png", digest, len(content)) == content
            assert found.read(f"b0/cat/{number}-{image}.png", digest, 1) is None
            assert found.read(f"b0/cat/{number}-{image}.png", "0" * 64, len(content)) is None
    assert found.read("b1/cat/0-0.png", "0" * 64, 3) is None
    assert set(opened.values()) == {1} and len(opened) == 100
    found.close()


def raw_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_is_wrong_with_a_zip_is_said_and_the_others_are_read(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(GOOD[:-1])
    (tmp_path / "b.zip").write_bytes(zip_of(entry("cat/x.png", b"12"), entry("cat/y.png", b"12", crc=1)))
    (tmp_path / "c.zip").write_bytes(zip_of(entry("../x.png", b"12"), entry("cat/z.png", bytes(999), size=2)))
    found, _ = in_folder(tmp_path)
    digest = raw_digest(b"12")
    assert found.read("cat/x.png", digest, 2) == b"12"
    assert found.faults == ["a.zip: is no zip, or its end is missing"]
    with pytest.raises(PackError, match=r"cat/y.png: its checksum is wrong in b.zip"):
        found.read("cat/y.png", digest, 2)
    with pytest.raises(PackError, match=r"cat/z.png: is not of the 2 bytes that it should be in c.zip"):
        found.read("cat/z.png", digest, 2)
    assert found.read("x.png", digest, 2) is None
    found.close()


@pytest.mark.parametrize("data", [b"", GOOD[:-1], b"MZ" + GOOD, zip_of(entry("a.jpg", packed=10**6))])
def test_an_open_zip_is_checked_as_a_file_is(tmp_path: Path, data: bytes):
    (tmp_path / "x.zip").write_bytes(data)
    archive = zips.Archive(Path("x.zip"), len(data), 0)
    with pytest.raises(zips.Damaged) as of_file:
        zips.list_members(tmp_path / "x.zip")
    with pytest.raises(zips.Damaged) as of_stream:
        zips.list_stream(io.BytesIO(data), archive)
    assert str(of_stream.value) == str(of_file.value)
