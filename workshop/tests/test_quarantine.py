"""Quarantine: what validate rejected leaves data/raw and comes back, and no file is ever lost or overwritten."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import REPOSITORY, Project, add_pictures, contents, picture, run_command, save

from imagepack.errors import InputError
from stages.validate import Validate, validate

COMMAND = [sys.executable, "-m", "imagepack.commands.quarantine"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY)}
RAW, QUARANTINE = Path("data/raw"), Path("data/quarantine")
MANIFEST = Path("data/validated/manifest.parquet")
BAD = {
    "cat/empty.png": ["empty_file"],
    "cat/img0 copy.png": ["exact_duplicate"],
    "cat/junk.jpg": ["not_image"],
    "cat/small.png": ["too_small"],
    "cat/small copy.png": ["too_small", "exact_duplicate"],
    "2024/only-bad/text.png": ["not_image"],
}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
not_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names and links")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, in which the test stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAGE_WORKERS", "1")
    yield


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def add_images() -> None:
    """Three good files and those of BAD."""
    add_pictures(RAW, 2, "cat")
    add_pictures(RAW, 1, "dog", first=2)
    write(RAW / "cat/empty.png", b"")
    shutil.copy(RAW / "cat/img0.png", RAW / "cat/img0 copy.png")
    write(RAW / "cat/junk.jpg", b"junk")
    save(RAW / "cat/small.png", picture(3, 4, 4))
    shutil.copy(RAW / "cat/small.png", RAW / "cat/small copy.png")
    write(RAW / "2024/only-bad/text.png", b"text")


def make_manifest() -> None:
    """As `dvc repro` does; a class without a good image stops it, after the manifest is written."""
    try:
        validate(RAW, Path("acknowledged.csv"), MANIFEST, Path("reports"), Validate())
    except InputError as error:
        assert "these classes have no image left" in str(error)


def quarantine(*arguments: str, code: int = 0) -> str:
    """The command as a user runs it; what it printed."""
    ended, printed = run_command([*COMMAND, *arguments], Path.cwd(), ENVIRONMENT)
    assert ended == code, printed
    assert "Traceback" not in printed
    return printed


def edit_manifest(*added: dict) -> None:
    """Rows that somebody has written into the manifest by hand."""
    table = pl.read_parquet(MANIFEST)
    blank = {"sha256": "", "status": "rejected", "issues": []}
    rows = pl.DataFrame([blank | row for row in added], schema_overrides={"issues": pl.List(pl.String)})
    pl.concat([table, rows], how="diagonal").write_parquet(MANIFEST)


def everything(root: Path) -> set[str]:
    """Every file, folder and link below `root`."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_rejected_files_leave_and_come_back():
    add_images()
    make_manifest()
    before, names = contents(RAW), everything(RAW)
    assert quarantine() == (
        f"6 rejected files moved from {RAW} to {QUARANTINE}\n"
        "  empty_file: 1\n  exact_duplicate: 2\n  not_image: 2\n  too_small: 2\n"
        f"{QUARANTINE} is on this machine alone: git and DVC leave it out, and teammates do not get it\n"
        "\nNext\n  python3 run.py -- dvc add data/raw\n  python3 run.py\n"
        "  python3 run.py quarantine --back   # undoes it\n"
    )
    assert contents(QUARANTINE) == {path: before[path] for path in BAD}
    assert everything(RAW) == {"cat", "dog", "cat/img0.png", "cat/img1.png", "dog/img2.png"}
    assert validate(RAW, Path("acknowledged.csv"), MANIFEST, Path("reports"), Validate()).startswith(
        "3 files in 2 classes: 3 accepted, 0 reject"
    )

    assert "6 files put back from data/quarantine to data/raw\n\nNext\n" in quarantine("--back")
    assert contents(RAW) == before
    assert everything(RAW) == names
    assert not QUARANTINE.exists()
    assert quarantine("--back") == f"0 files put back from {QUARANTINE} to {RAW}\n"


def test_a_file_of_which_a_frame_is_accepted_stays():
    add_pictures(RAW, 3, "cat")
    pages = [picture(0), picture(50), picture(51)]  # the first is a picture that stands there by itself
    for name, kept in (("pages.tif", pages), ("twice.tif", pages[:1] * 2)):
        pages[0].save(RAW / "cat" / name, save_all=True, append_images=kept[1:])
    validate(RAW, Path("acknowledged.csv"), MANIFEST, Path("reports"), Validate(multi_frame="split", blurry=0))
    rejected = pl.read_parquet(MANIFEST).filter(status="rejected")["path"].to_list()
    assert rejected == ["cat/pages.tif", "cat/twice.tif", "cat/twice.tif#2"]
    quarantine()
    assert set(contents(QUARANTINE)) == {"cat/twice.tif"}


@pytest.mark.parametrize("codes", [["too_small"], ["exact_duplicate", "empty_file"]])
def test_only_files_with_one_of_the_codes_leave(codes: list[str]):
    add_images()
    make_manifest()
    quarantine(*codes)
    assert set(contents(QUARANTINE)) == {path for path, issues in BAD.items() if set(codes) & set(issues)}


def test_unknown_codes_are_told_with_those_there_are_and_nothing_moves():
    add_images()
    make_manifest()
    assert quarantine("too_small", "tiny", "bomb", code=1) == (
        "quarantine: no rejected file is bomb, tiny; they are: empty_file, exact_duplicate, not_image, too_small\n"
    )
    assert not QUARANTINE.exists()


def test_codes_with_back_are_refused():
    RAW.mkdir(parents=True)
    assert "--back takes no CODE" in quarantine("--back", "too_small", code=2)


def test_without_rejected_files_nothing_moves():
    add_pictures(RAW, 2)
    make_manifest()
    assert quarantine() == f"0 rejected files moved from {RAW} to {QUARANTINE}\n"
    assert not QUARANTINE.exists()


@pytest.mark.slow
def test_what_is_missing_is_named_with_the_fix():
    assert quarantine(code=1) == f"quarantine: {RAW} is no folder: python3 run.py brings the images in\n"
    RAW.mkdir(parents=True)
    assert quarantine(code=1) == f"quarantine: {MANIFEST} is not there: run python3 run.py -- dvc repro first\n"
    write(MANIFEST, b"PAR1 not really")
    assert (
        quarantine(code=1) == "quarantine: reports/rejected.csv is not there: run python3 run.py -- dvc repro first\n"
    )
    write(Path("reports/rejected.csv"), b"path,code,seen,fix\n")
    assert "make them anew, python3 run.py -- dvc repro --force validate" in quarantine(code=1)
    pl.DataFrame({"path": ["a"]}).write_parquet(MANIFEST)
    assert "make them anew" in quarantine(code=1)


def test_files_that_are_not_as_validated_stay_and_are_named_and_the_others_leave():
    add_images()
    make_manifest()
    write(RAW / "cat/empty.png", b"no longer empty")
    write(RAW / "cat/junk.jpg", b"mended")
    (RAW / "cat/small.png").unlink()
    write(QUARANTINE / "cat/small copy.png", b"of an earlier day")
    raw, quarantined = contents(RAW), contents(QUARANTINE)
    output = quarantine(code=1)
    assert output.endswith(
        "\nLeft where they are: 4\n"
        "  cat/empty.png: has changed since it was validated: python3 run.py validates it anew\n"
        "  cat/junk.jpg: has changed since it was validated: python3 run.py validates it anew\n"
        "  cat/small.png: is gone since it was validated: python3 run.py validates anew\n"
        f"  cat/small copy.png: is in {QUARANTINE} too: remove one of the two\n"
    )
    gone = {path: raw.pop(path) for path in ("cat/img0 copy.png", "2024/only-bad/text.png")}
    assert contents(RAW) == raw
    assert contents(QUARANTINE) == quarantined | gone


@pytest.mark.slow
def test_nothing_is_overwritten_on_the_way_back():
    add_images()
    make_manifest()
    quarantine()
    write(RAW / "cat/junk.jpg", b"mended")
    write(RAW / "2024/only-bad", b"a file where the folder was")
    before = contents(QUARANTINE)
    output = quarantine("--back", code=1)
    assert "4 files put back" in output
    assert "\nLeft where they are: 2\n  2024/only-bad/text.png: cannot be moved (" in output
    assert f"\n  cat/junk.jpg: is in {RAW} too: remove one of the two\n" in output
    assert contents(RAW)["cat/junk.jpg"] == b"mended"
    assert contents(QUARANTINE) == {path: before[path] for path in ("cat/junk.jpg", "2024/only-bad/text.png")}


@pytest.mark.slow
@not_windows
def test_a_link_moves_and_what_it_leads_to_does_not(tmp_path: Path):
    add_pictures(RAW, 2, "cat")
    save(tmp_path / "elsewhere/tiny.png", picture(9, 4, 4))
    links = {
        "cat/gone.png": "nowhere",
        "cat/folder": tmp_path / "elsewhere",
        "cat/t.png": tmp_path / "elsewhere/tiny.png",
    }
    for name, target in links.items():
        (RAW / name).symlink_to(target)
    make_manifest()
    quarantine()
    assert {name: (QUARANTINE / name).readlink() for name in links} == {k: Path(v) for k, v in links.items()}
    assert everything(RAW) == {"cat", "cat/img0.png", "cat/img1.png"}
    assert everything(tmp_path / "elsewhere") == {"tiny.png"}
    quarantine("--back")
    assert {name: (RAW / name).readlink() for name in links} == {k: Path(v) for k, v in links.items()}
    assert everything(tmp_path / "elsewhere") == {"tiny.png"}


@pytest.mark.slow
@not_windows
def test_no_path_leads_out_of_the_folders(tmp_path: Path):
    add_pictures(RAW, 1)
    make_manifest()
    write(tmp_path / "outside/a.png", b"a")
    write(Path("data/b.png"), b"b")
    (RAW / "linked").symlink_to(tmp_path / "outside")
    write(RAW / "real/a.png", b"a")
    QUARANTINE.mkdir()
    (QUARANTINE / "real").symlink_to(tmp_path / "outside")
    paths = ["../b.png", "cat/../../b.png", f"{tmp_path}/outside/a.png", "linked/a.png", "real/a.png"]
    paths += ["..", ".", "", "../raw", "../quarantine/real"]
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in "ab"}
    edit_manifest(*({"path": path, "sha256": digest.get(path[-5:-4], "")} for path in paths))
    before = contents(tmp_path)
    output = quarantine(code=1)
    assert "0 rejected files moved" in output
    assert output.count(": would lead out of data/") == len(paths)
    assert contents(tmp_path) == before
    (QUARANTINE / "real").unlink()
    assert "1 rejected file moved" in quarantine(code=1)


@pytest.mark.slow
@not_windows
def test_a_folder_where_a_rejected_link_was_stays():
    add_pictures(RAW, 2)
    (RAW / "cat/link").symlink_to("nowhere")
    make_manifest()
    (RAW / "cat/link").unlink()
    save(RAW / "cat/link/good.png", picture(5))
    assert "cat/link: has changed" in quarantine(code=1)
    assert (RAW / "cat/link/good.png").exists()


@pytest.mark.slow
@linux_only
def test_a_name_that_is_not_utf8_stays_on_the_way_there_and_moves_on_the_way_back():
    add_images()
    name = os.fsdecode(b"cat/caf\xe9.png")
    save(RAW / name, picture(7))
    make_manifest()
    output = quarantine(code=1)
    assert "6 rejected files moved" in output
    assert "  cat/caf\\xe9.png: has a name that is not valid UTF-8" in output
    (RAW / name).rename(QUARANTINE / name)
    write(RAW / name, b"new")
    assert "is in data/raw too" in quarantine("--back", code=1)
    (RAW / name).unlink()
    assert "1 file put back" in quarantine("--back")
    assert (RAW / name).exists()


@pytest.mark.slow
@linux_only
def test_a_name_of_251_bytes_and_more_and_odd_names_move():
    add_pictures(RAW, 2, "cat")
    names = {f"cat/{'n' * 251}.png", "cat/ü ñ 图.png", "cat/a\nb.png", "cat/-x", "cat/%41\\x41.png", "no-class.png"}
    for number, name in enumerate(sorted(names)):
        write(RAW / name, f"junk {number}".encode())
    make_manifest()
    quarantine()
    assert set(contents(QUARANTINE)) == names


def test_read_only_files_and_hard_links_move():
    add_images()
    (RAW / "cat/junk.jpg").chmod(0o444)
    Path("cache").mkdir()
    os.link(RAW / "cat/junk.jpg", "cache/junk")
    make_manifest()
    quarantine()
    assert (QUARANTINE / "cat/junk.jpg").samefile("cache/junk")


def test_where_every_file_is_rejected_the_folder_itself_stays():
    write(RAW / "cat/a.png", b"junk")
    with pytest.raises(InputError, match="none of 1 file is"):
        validate(RAW, Path("acknowledged.csv"), MANIFEST, Path("reports"), Validate())
    quarantine()
    assert list(RAW.iterdir()) == []


@pytest.mark.slow
def test_a_second_run_goes_on_where_the_first_stopped():
    add_images()
    make_manifest()
    before = contents(RAW)
    write(QUARANTINE / "2024/only-bad/text.png", b"text")  # moved; killed before the empty folder was removed
    (RAW / "2024/only-bad/text.png").unlink()
    (QUARANTINE / "cat").mkdir()  # made; killed before the file was moved there
    assert "5 rejected files moved from data/raw to data/quarantine, 1 there already\n" in quarantine()
    assert not (RAW / "2024").exists()
    assert contents(RAW) | contents(QUARANTINE) == before
    assert "0 rejected files moved from data/raw to data/quarantine, 6 there already\n" in quarantine()


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
def test_killed_at_any_moment_nothing_is_lost_and_a_second_run_ends_it(back: bool):
    add_pictures(RAW, 2, "good")
    for number in range(4000):
        write(RAW / f"class{number % 7}/bad{number}.jpg", f"no image {number}".encode())
    make_manifest()
    before = contents(RAW)
    source, target, arguments = (QUARANTINE, RAW, ["--back"]) if back else (RAW, QUARANTINE, [])
    if back:
        quarantine()
    order = random.Random(0).sample([path for path in before if "bad" in path], 5)
    halfway = 0
    for path in order:  # killed when this file has moved
        process = subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (target / path).exists():
            time.sleep(0.0005)
        process.kill()
        process.wait()
        left, moved = contents(source), contents(target)
        assert not left.keys() & moved.keys()
        assert left | moved == before
        halfway += bool({name for name in left if "bad" in name})
    assert halfway
    quarantine(*arguments)
    assert not {name for name in contents(source) if "bad" in name}
    assert contents(source) | contents(target) == before
    assert not QUARANTINE.exists() if back else {path.name for path in RAW.iterdir()} == {"good"}


@pytest.mark.slow
def test_with_dvc_the_next_version_has_no_rejected_file_and_back_is_the_old_one(new_project: Callable[[], Project]):
    project = new_project()
    shutil.copytree(project.folder / "data/sample/images", project.folder / "data/raw")
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    project.commit("All")
    first, status = contents(project.folder / "data/raw"), project("dvc", "status")
    packed = contents(project.folder / "data/packed")

    def counts() -> tuple[int, int]:
        table = pl.read_parquet(project.folder / MANIFEST)
        return table.filter(pl.col("status") == "accepted").height, table.filter(pl.col("status") == "rejected").height

    assert counts() == (209, 8)
    assert "8 rejected files moved" in project(*COMMAND)
    assert project("git", "status", "--porcelain") == ""  # git does not see the quarantine
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    assert counts() == (209, 0)
    assert contents(project.folder / "data/packed") == packed
    assert "8 files put back" in project(*COMMAND, "--back")
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    assert contents(project.folder / "data/raw") == first
    assert project("dvc", "status") == status
    assert project("git", "diff", "HEAD", "--stat") == ""
