"""Zips: one stands for the folder it lies in, byte for byte; a hostile one is refused by name; nothing is ever lost."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, Project, Workspace, add_pictures, check_one, contents, picture, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagepack.commands.zips import hash_files, plan, unzip_all, zip_all
from imagepack.errors import InputError
from imagepack.images import raw_files, zips
from imagepack.packing.processed import images_per_zip
from stages.pack import Pack, pack
from stages.preprocess import Preprocess, preprocess
from stages.validate import Validate

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "STAGE_WORKERS": "1"}
not_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links and signals")


def fill(raw: Path) -> None:
    """Good and bad files of all kinds, in batches and not."""
    for number, folder in enumerate(["cat", "dog", "2024-06/cat", "2024-06/dog", "2024-06/b/cat"] * 3):
        save(raw / folder / f"IMG {number}.png", picture(number))
    save(raw / "cat/käse.jpg", picture(20))
    save(raw / "2024-06/cat/film.gif", picture(21), save_all=True, append_images=[picture(22)])
    save(raw / "dog/IMG 0.png", picture(0))  # of cat
    save(raw / "no label.png", picture(24))
    for path, data in {
        "cat/empty.png": b"",
        "cat/text.jpg": b"none",
        "dog/.DS_Store": b"left out",
        "dog/._x.png": b"junk",
        "dog/aux.png": b"no image",
        "__MACOSX/cat/._IMG 0.png": b"junk",
        "cat/short.png": (raw / "cat/IMG 0.png").read_bytes()[:800],
    }.items():
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        (raw / path).write_bytes(data)


def put(archive: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    """Add to a zip, as anybody would."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "a", method) as target:
        for name, data in files.items():
            target.writestr(name, data)


def laid_out(files: dict[str, bytes], raw: Path, place: Callable[[str], tuple[str, int] | None]) -> None:
    """Write each file to the zip that `place` gives it, with how it is compressed, or loose."""
    for path, data in files.items():
        if chosen := place(path):
            archive, method = chosen
            name = PurePosixPath(path).relative_to(PurePosixPath(archive).parent)
            put(raw / archive, {str(name): data}, method)
        else:
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_bytes(data)


def made(raw: Path, **params) -> dict[str, bytes]:
    """All that the stages write of these raw files."""
    folder = Path(tempfile.gettempdir(), f"test_zips-{os.getpid()}")  # always the same: findings name it
    workspace = Workspace(folder)
    folder.mkdir()
    try:
        shutil.copytree(raw, workspace.raw)
        workspace.run(Validate(multi_frame="split"), **params)
        found = {"manifest": workspace.manifest.read_bytes()}
        for part in (workspace.reports, workspace.processed, workspace.packed):
            found |= {f"{part.name}/{name}": data for name, data in contents(part).items()}
        return found
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of `fill`, and what the stages make of them."""
    os.environ["STAGE_WORKERS"] = "1"
    raw = tmp_path_factory.mktemp("loose") / "raw"
    fill(raw)
    return contents(raw), made(raw)


def differing(made: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return [name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name)]


def test_one_zip_is_as_good_as_its_folder(loose, tmp_path: Path):
    files, expected = loose
    laid_out(files, tmp_path / "raw", lambda path: ("x.zip", zipfile.ZIP_DEFLATED))
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["x.zip"]
    assert differing(made(tmp_path / "raw"), expected) == []


@st.composite
def places(draw: st.DrawFn) -> Callable[[str], tuple[str, int] | None]:
    """Any mixture: loose, or in one of two zips in any folder above."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    share = draw(st.floats(0, 1))

    def place(path: str) -> tuple[str, int] | None:
        if rng.random() > share:
            return None
        folder = rng.choice(PurePosixPath(path).parents)
        if raw_files.is_junk(f"{folder}/x.zip"):
            return None
        return (folder / rng.choice(["a.zip", "B.ZIP"])).as_posix(), rng.choice(
            [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
        )

    return place


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=places())
def test_any_mixture_of_files_and_zips_gives_the_same_bytes(loose, place):
    files, expected = loose
    with tempfile.TemporaryDirectory() as folder:
        laid_out(files, Path(folder, "raw"), place)
        assert differing(made(Path(folder, "raw")), expected) == []


@given(st.lists(st.text(st.sampled_from("a .#/\x01é0"), min_size=1, max_size=7), max_size=12))
@settings(deadline=None, max_examples=50)
def test_the_order_is_that_of_a_walk_wherever_files_are(names: list[str]):
    paths = {"/".join(part for part in name.split("/") if part.strip(".")) for name in names} - {""}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(paths):
            try:
                Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, path).touch()
            except OSError:
                continue
        walked = list(raw_files._walk(Path(folder)))
    assert sorted(random.Random(0).sample(walked, len(walked)), key=raw_files._walk_order) == walked


# Zips as they should not be


def entry(name: str | bytes, data: bytes = b"data", **odd) -> dict:
    """A member; `odd` says what is to be wrong with it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush() if odd.get("method") == 8 else data
    name = name.encode() if isinstance(name, str) else name
    facts = {"method": 0, "flags": 0, "crc": zlib.crc32(data), "size": len(data), "packed": len(packed), "mode": 0}
    return facts | {"name": name, "local": name, "content": packed, "extra": b"", "offset": None} | odd


def zip_of(*entries: dict, before: bytes = b"", comment: bytes = b"", **end) -> bytes:
    """A zip written by hand."""
    body, directory = before, b""
    for each in entries:
        start = each["offset"] if each["offset"] is not None else len(body)
        facts = (each["flags"], each["method"], 0, 33, each["crc"], each["packed"], each["size"])
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *facts, len(each["local"]), 0) + each["local"] + each["content"]
        sizes = len(each["name"]), len(each["extra"]), 0
        head = struct.pack("<4s6H3L5H2L", b"PK\1\2", 788, 20, *facts, *sizes, 0, 0, each["mode"] << 16, start)
        directory += head + each["name"] + each["extra"]
    last = {"disk": 0, "count": len(entries), "length": len(directory), "start": len(body)} | end
    return (
        body
        + directory
        + struct.pack("<4s4H2LH", b"PK\5\6", last["disk"], 0, last["count"], last["count"], last["length"],
                      last["start"], len(comment))
        + comment
    )  # fmt: skip


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    add_pictures(tmp_path / "raw", 2)
    return tmp_path / "raw"


def refusal(raw: Path, **archives: bytes) -> str:
    """What is said of these zips, which are refused."""
    for name, data in archives.items():
        (raw / f"{name}.zip").write_bytes(data)
    with pytest.raises(InputError) as error:
        raw_files.find(raw)
    assert str(error.value).startswith(f"{raw} has zips that cannot be used:\n  {raw}")
    return str(error.value)


def test_a_zip_by_hand_is_read(raw: Path):
    (raw / "x.zip").write_bytes(zip_of(entry("a/b.jpg", b"12"), entry("a/", b""), entry("c.jpg", b"3" * 99, method=8)))
    found = raw_files.find(raw)[0]
    assert [str(file) for file in found] == ["c.jpg", "a/b.jpg", "cat/img0.png", "cat/img1.png"]
    assert [raw_files.read(raw, file) for file in found[:2]] == [b"3" * 99, b"12"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/etc/passwd", "begins with a slash"),
        ("../a.jpg", "leads out of its folder by .."),
        ("cat/../../a.jpg", "leads out of its folder by .."),
        ("../cat/", "leads out of its folder by .."),
        ("cat\\a.jpg", "has a backslash in its name"),
        ("C:/a.jpg", "begins with a drive letter"),
        ("c:a.jpg", "begins with a drive letter"),
        ("a\0.jpg", "has a zero byte in its name"),
        ("", "has no name"),
        (".", "has no name"),
    ],
)
def test_names_that_lead_elsewhere_are_refused_all_at_once(raw: Path, name: str, fault: str):
    said = refusal(raw, x=zip_of(entry("cat/good.jpg"), entry(name)), y=zip_of(entry("..")))
    assert f"x.zip: {name!r} {fault}: make the zip again, without such names" in said
    assert "y.zip: '..' leads out of its folder" in said
    assert "good.jpg" not in said


def test_what_is_there_twice_is_refused(raw: Path):
    said = refusal(
        raw,
        x=zip_of(entry("cat/img1.png"), entry("twice.png"), entry("./twice.png"), entry("both.png"), entry("dog")),
        y=zip_of(entry("both.png"), entry("dog/1.png"), entry("cat"), entry("x.zip")),
    )
    assert said.splitlines()[1:] == [
        f"  {raw}/x.zip: 'cat/img1.png' is there as a file: remove one of the two",
        f"  {raw}/x.zip: 'twice.png' is there twice: remove one of the two",
        f"  {raw}/y.zip: 'both.png' is there in {raw}/x.zip too: remove one of the two",
        f"  {raw}/y.zip: 'x.zip' is there as a file: remove one of the two",
        f"  {raw}/y.zip: 'cat' is a file, and elsewhere a folder: rename one of the two",
        f"  {raw}/x.zip: 'dog' is a file, and elsewhere a folder: rename one of the two",
    ]


GOOD = zip_of(entry("cat/a.jpg", b"some data" * 9, method=8), entry("cat/b.jpg", b"more"))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is no zip, or its end is missing"),
        (b"not a zip", "is no zip, or its end is missing"),
        (GOOD[:-1], "is no zip, or its end is missing"),
        (GOOD[: len(GOOD) // 2], "is no zip, or its end is missing"),
        (GOOD + b"\0", "is no zip, or its end is missing"),
        (b"MZ" + GOOD, "its parts are not where its end says"),
        (zip_of(entry("a.jpg", extra=bytes(60)), count=2), "its list of files is damaged"),
        (zip_of(entry("a.jpg"), count=0), "its list of files is damaged"),
        (zip_of(entry("a.jpg"), count=9000), "its parts are not where its end says"),
        (zip_of(entry("a.jpg"), disk=1), "is one of several parts"),
        (zip_of(entry("a.jpg"), comment=zip_of()), "has several ends"),
        (zip_of(entry("a.jpg"), start=2**32 - 1, length=2**32 - 1), "its parts are not where its end says"),
        (zip_of(entry("a.jpg", packed=10**6)), "'a.jpg' reaches into what follows it"),
        (zip_of(entry("a.jpg", size=10**9, packed=10**9)), "'a.jpg' reaches into what follows it"),
        (zip_of(entry("a.jpg", b"x" * 90), entry("b.jpg", b"x", offset=0)), "'a.jpg' reaches into what follows it"),
        (zip_of(entry("a.jpg", offset=2**31)), "'a.jpg' reaches into what follows it"),
        (zip_of(entry("a/", b"data")), "'a/' is a folder with content"),
    ],
)  # fmt: skip
def test_a_damaged_zip_is_refused(raw: Path, data: bytes, fault: str):
    assert f"{raw}/x.zip: {fault}" in refusal(raw, x=data)


@not_windows
def test_links_to_zips_and_what_is_no_file_are_refused(raw: Path, tmp_path: Path):
    (tmp_path / "elsewhere.zip").write_bytes(GOOD)
    (raw / "link.zip").symlink_to(tmp_path / "elsewhere.zip")
    os.mkfifo(raw / "pipe.zip")
    said = refusal(raw)
    assert "link.zip: is a link: put the zip itself here" in said
    assert "pipe.zip: is not a file: remove it" in said


PICTURE = io.BytesIO()
picture(5).save(PICTURE, "PNG")
PICTURE = PICTURE.getvalue()


@pytest.mark.parametrize(
    ("member", "code", "seen"),
    [
        (entry("cat/a.png", PICTURE, flags=1), "unreadable", "is encrypted in x.zip"),
        (entry("cat/a.png", PICTURE, flags=0x40), "unreadable", "is encrypted in x.zip"),
        (entry("cat/a.png", b"../b", mode=stat.S_IFLNK | 0o777), "unreadable", "is a link in x.zip"),
        (entry("cat/a.png", b"", mode=stat.S_IFIFO), "unreadable", "is not a file in x.zip"),
        (entry("cat/a.png", PICTURE) | {"method": 14}, "unreadable", "is compressed by method 14 in x.zip"),
        (entry("cat/a.png", PICTURE, crc=1), "decode_error", "its checksum is wrong in x.zip"),
        (entry("cat/a.png", PICTURE, size=5), "decode_error", "is not of the 5 bytes that it should be in x.zip"),
        (entry("cat/a.png", PICTURE, size=10**9), "truncated", "is not of the 1000000000 bytes"),
        (entry("cat/a.png", PICTURE, method=8, size=5), "decode_error", "is not of the 5 bytes"),
        (entry("cat/a.png", PICTURE, method=8, size=10**9), "truncated", "is not of the 1000000000 bytes"),
        (entry("cat/a.png", PICTURE) | {"method": 8}, "decode_error", "Error -3 while decompressing data"),
        (entry("cat/a.png", PICTURE, local=b"cat/b.png"), "decode_error", "its header says something else in x.zip"),
        (entry("cat/a.png", PICTURE, size=2**32 - 1), "resource_limit", "needs more memory than a worker may have"),
        (entry("cat/a.png", b""), "empty_file", "0 bytes"),
        (entry("cat/a.zip", zip_of(entry("b.jpg"))), "not_image", "is a zip, and none is opened inside another"),
        (entry("__MACOSX/a.png", b"x"), "junk", "lies in a folder __MACOSX"),
        (entry(b"__MACOSX/._caf\xe9.png", b"x"), "junk", "lies in a folder __MACOSX"),
        (entry(b"cat/caf\xe9.png", PICTURE), "bad_name", "a name that is not valid UTF-8"),
    ],
)  # fmt: skip
def test_a_member_that_cannot_be_used_is_a_finding_about_it_alone(raw: Path, member: dict, code: str, seen: str):
    (raw / "x.zip").write_bytes(zip_of(entry("cat/good.png", PICTURE), member))
    found = {}
    for file in raw_files.find(raw)[0]:
        row, findings = check_one(raw, file, Validate(blurry=0))
        found[row[0]] = findings
    assert found.pop("cat/good.png") == found.pop("cat/img0.png") == found.pop("cat/img1.png") == []
    ((path, findings),) = found.items()
    assert path == raw_files.as_text(os.fsdecode(member["name"]))
    assert [each for each in findings if each[0] == code and each[1].startswith(seen)], findings
    json.dumps(findings, ensure_ascii=False).encode()  # text that can be written


def test_names_in_utf_8_are_read_whether_or_not_the_zip_says_so(raw: Path):
    data = zip_of(entry("dog/käse.jpg", flags=0x800), entry("dog/größe.jpg"))
    (raw / "x.zip").write_bytes(data)
    assert [str(file) for file in raw_files.find(raw)[0][2:]] == ["dog/größe.jpg", "dog/käse.jpg"]


def test_a_bomb_takes_no_more_memory_than_it_says(raw: Path):
    bomb = entry("cat/a.png", bytes(200 * 2**20), method=8, size=1000, crc=0)
    (raw / "x.zip").write_bytes(zip_of(bomb))
    (member,) = raw_files.members(raw).values()
    tracemalloc.start()
    with pytest.raises(zips.Unreadable):
        zips.read(member)
    assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    tracemalloc.stop()


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_a_changed_byte_never_changes_what_is_read(tmp_path: Path, at: float, change: int, cut: bool):
    data = bytearray(GOOD)
    data[int(at * len(data))] ^= change
    archive = tmp_path / "x.zip"
    archive.write_bytes(data[: int(at * len(data))] if cut else data)
    try:
        members, _ = zips.list_members(archive)
    except zips.Damaged:
        return
    for member in members:
        try:
            data = zips.read(member)
        except zips.Unreadable:
            continue
        assert data == {"cat/a.jpg": b"some data" * 9, "cat/b.jpg": b"more"}[member.path]
    zips.close()


@pytest.mark.slow
def test_large_zips_are_read(tmp_path: Path):
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as target:
        for number in range(66_000):  # more than 16 bits hold
            target.writestr(f"cat/{number}.jpg", b"")
    assert len(zips.list_members(many)[0]) == 66_000
    streamed = tmp_path / "streamed.zip"
    with zipfile.ZipFile(streamed, "w", zipfile.ZIP_DEFLATED) as target:
        file = target.open("cat/a.jpg", "w", force_zip64=True)
        file.write(b"data" * 1000)
        file.close()
    (member,), _ = zips.list_members(streamed)
    assert zips.read(member) == b"data" * 1000
    zips.close()


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP's zip")
def test_zips_of_the_zip_command_are_read(raw: Path):
    save(raw / "dog/käse.png", picture(9))
    expected = contents(raw)
    subprocess.run(["zip", "-qr", "all.zip", "."], cwd=raw, check=True)
    for name in ("cat", "dog"):
        shutil.rmtree(raw / name)
    assert {path: zips.read(member) for path, member in raw_files.members(raw).items()} == expected
    piped = subprocess.check_output(["zip", "-q", "-", "all.zip"], cwd=raw)  # with sizes behind the data
    (raw / "all.zip").write_bytes(piped)
    (member,) = raw_files.members(raw).values()
    assert zips.read(member).startswith(b"PK")
    zips.close()


# preprocess.layout


def test_both_layouts_give_the_same_pack(workspace: Workspace):
    fill(workspace.raw)
    workspace.run(Validate(multi_frame="split"))
    expected, images = contents(workspace.packed), contents(workspace.processed)
    workspace.run(Validate(multi_frame="split"), Preprocess(size=16, layout="zip"))
    assert contents(workspace.packed) == expected
    assert all(path.suffix == ".zip" and zips.is_own(path) for path in workspace.processed.iterdir())
    inside = {}
    for path in workspace.processed.iterdir():
        with zipfile.ZipFile(path) as archive:
            assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
            inside |= {name: archive.read(name) for name in archive.namelist()}
    assert inside == images
    assert len(list(workspace.processed.iterdir())) == 3  # a zip a batch


@pytest.mark.slow
def test_a_small_change_changes_few_zips_and_workers_none(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    params = Preprocess(size=900, layout="zip")
    assert images_per_zip(params.size**2 * 3) == 5
    rng = np.random.default_rng(0)
    for number in range(60):
        save(workspace.raw / f"cat/{number}.png", picture(number, 20, 20))
    workspace.validate()
    preprocess(workspace.raw, workspace.manifest, workspace.processed, params)
    before = contents(workspace.processed)
    save(workspace.raw / f"cat/{rng.integers(60)}.png", picture(100, 20, 20))
    workspace.validate()
    monkeypatch.setenv("STAGE_WORKERS", "3")
    preprocess(workspace.raw, workspace.manifest, workspace.processed, params)
    after = contents(workspace.processed)
    assert len(after) > 8
    assert len(after.keys() - before.keys()) <= 2
    assert all(after[name] == before[name] for name in after.keys() & before.keys())


def test_a_damaged_zip_of_processed_images_is_named(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    workspace.run(preprocessed=Preprocess(size=16, layout="zip"))
    (archive,) = workspace.processed.iterdir()
    data = archive.read_bytes()
    for broken, said in ((data[:-9], "is damaged"), (data.replace(b"IDAT", b"IDAZ", 1), "img0.png.png is missing or")):
        archive.write_bytes(broken)
        with pytest.raises(InputError, match=f"{said}.*run dvc repro --force --single-item preprocess"):
            pack(workspace.processed, workspace.manifest, workspace.packed, workspace.reports / "pack.json", Pack())


# python3 run.py zip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/raw of a folder in which the test stands, filled, without what DVC ignores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAGE_WORKERS", "1")
    shutil.copy(REPOSITORY / ".dvcignore", ".dvcignore")
    fill(Path("data/raw"))
    return Path("data/raw")


def archives(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in contents(folder).items() if path.endswith(".zip")}


def everything(folder: Path) -> dict[str, bytes]:
    """Every file, wherever it is; one that is there twice must be the same."""
    found = {path: data for path, data in contents(folder).items() if not Path(path).name.startswith(".zipping-")}
    for path in archives(folder):
        with zipfile.ZipFile(folder / path) as archive:
            for name in archive.namelist():
                where = (PurePosixPath(path).parent / name).as_posix()
                assert found.setdefault(where, archive.read(name)) == archive.read(name)
    return {path: data for path, data in found.items() if not path.endswith(".zip")}


def command(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "imagepack.commands.zips", *arguments],
        env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def test_a_folder_is_zipped_batch_by_batch_and_comes_back(here: Path):
    before = contents(here)
    said = command()
    assert said.startswith(f"{len(before) - 1} files (")
    assert " of data/raw now in 3 zips\n\nNext\n  python3 run.py -- dvc add data/raw\n  python3 run.py\n" in said
    assert {PurePosixPath(path).parent.as_posix() for path in archives(here)} == {".", "2024-06", "2024-06/b"}
    assert contents(here).keys() - archives(here).keys() == {"dog/.DS_Store"}  # which DVC ignores
    assert everything(here) == before
    zipped = contents(here)
    assert command() == "Every file of data/raw is in a zip.\n"
    assert contents(here) == zipped
    assert "files of data/raw back, from 3 zips" in command("--back")
    assert contents(here) == before
    command()
    assert contents(here) == zipped  # the same zips again


def test_new_files_are_zipped_later_and_no_zip_is_written_again(here: Path):
    zip_all(here)
    before = archives(here)
    add_pictures(here, 3, "2024-07/cat", first=70)
    put(here / "delivered.zip", {"cow/1.png": b"as it came"})
    zip_all(here)
    after = archives(here)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    assert "; 1 zip not made so: left there" in unzip_all(here)
    assert list(archives(here)) == ["delivered.zip"]
    save(here / "cat/new.png", picture(99))
    with pytest.raises(InputError, match="differs from that in"):
        save(here / "cow/1.png", picture(1))
        zip_all(here)


def test_few_zips_change_with_few_files(here: Path):
    rng = np.random.default_rng(0)
    shutil.rmtree(here)
    for number in range(300):
        (here / "cat").mkdir(parents=True, exist_ok=True)
        (here / f"cat/{number}.jpg").write_bytes(rng.bytes(200_000))

    def planned() -> set[tuple]:
        paths = raw_files.tracked(here)[0]
        return {tuple(file.digest for file in group) for group in plan(hash_files(here, paths))}

    before = planned()
    assert 4 < len(before) < 20
    (here / "cat/7.jpg").write_bytes(rng.bytes(100_000))
    (here / "cat/150.jpg").unlink()
    assert len(planned() - before) <= 4


@not_windows
def test_what_would_not_come_back_is_refused_and_nothing_is_done(here: Path):
    (here / "cat/link.png").symlink_to("IMG 0.png")
    (here / "cat/a\\b.png").touch()
    os.mkfifo(here / "cat/pipe")
    before = contents(here)
    said = command(code=1)
    assert said.startswith("zip: data/raw cannot be zipped, and is as it was:\n")
    for line in ("cat/link.png: is a link", "cat/pipe: is no file", "cat/a\\b.png: has a backslash in its name"):
        assert line in said
    assert contents(here) == before
    assert command("nowhere", code=1) == "zip: nowhere is no folder\n"


@not_windows
def test_back_overwrites_nothing_and_follows_no_link(here: Path, tmp_path: Path):
    zip_all(here)
    (here / "2024-06/cat").symlink_to(tmp_path)
    (here / "cat").mkdir()
    (here / "cat/text.jpg").write_bytes(b"another")
    said = command("--back", code=1)
    assert "cat/text.jpg: is there already, and is another: remove one of the two" in said
    assert "would lead out of data/raw by a link" in said
    assert (here / "cat/text.jpg").read_bytes() == b"another"
    assert contents(tmp_path).keys() <= {f"data/raw/{path}" for path in contents(here)} | {".dvcignore"}
    assert len(archives(here)) == 2  # those that have what was in the way
    (here / "2024-06/cat").unlink()
    (here / "cat/text.jpg").unlink()
    command("--back")
    assert archives(here) == {}


def test_only_data_of_this_repository_is_zipped(here: Path, tmp_path_factory: pytest.TempPathFactory):
    """The files are gone afterwards: out of another program's folder, or out of git."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    add_pictures(elsewhere, 2)
    before = contents(elsewhere) | contents(Path())
    for arguments in ([str(elsewhere)], [str(elsewhere), "--back"], [".."], ["."]):
        assert "is not in this repository: name a folder that DVC tracks, such as data/raw\n" in command(
            *arguments, code=1
        )
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "--force", here / "dog"], check=True)
    said = command(code=1)
    assert said.startswith("zip: git tracks data/raw/dog/")
    assert said.endswith("name a folder that DVC tracks, such as data/raw\n")
    shutil.rmtree(".git")
    assert contents(elsewhere) | contents(Path()) == before


def test_what_a_killed_zip_leaves_is_not_to_be_removed(here: Path):
    before = contents(here)
    command()
    path = next(iter(before))
    (here / path).parent.mkdir(parents=True, exist_ok=True)
    (here / path).write_bytes(before[path])
    with pytest.raises(InputError, match=r"there as a file: python3 run\.py zip, which was killed, goes on if run"):
        raw_files.find(here)


def files_in(folder: Path) -> int:
    """How many there are; some may vanish meanwhile."""
    return sum(len(files) for *_, files in os.walk(folder))


@pytest.mark.slow
@not_windows
def test_kill_9_at_any_moment_loses_nothing(here: Path):
    shutil.rmtree(here)
    rng = np.random.default_rng(0)
    for number in range(300):
        path = here / f"b{number % 30}/cat{number % 2}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(150_000))
    before, clock, states = contents(here), random.Random(0), set()
    for attempt in range(16):
        back = clock.random() < 0.5 if attempt % 3 else not archives(here)
        arguments = ["--back"] if back else []
        process = subprocess.Popen(
            [sys.executable, "-m", "imagepack.commands.zips", *arguments], env=ENVIRONMENT | {"STAGE_WORKERS": "2"},
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        at_first, moved = files_in(here), clock.randrange(1, 250)
        while process.poll() is None and abs(files_in(here) - at_first) < moved:
            time.sleep(0.003)
        if clock.random() < 0.5:
            process.kill()  # the workers outlive it
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert everything(here) == before
        states.add((len(archives(here)), len(contents(here))))
    assert len(states) > 4
    time.sleep(2)
    command()
    assert len(contents(here)) == len(archives(here)) > 0
    assert everything(here) == before
    command("--back")
    assert contents(here) == before


def test_quarantine_names_the_zip_that_it_cannot_take_a_file_from(here: Path):
    workspace = Workspace(here.parent)
    put(here / "x.zip", {"cow/text.png": b"none"})
    with pytest.raises(InputError, match="these classes have no image left"):
        workspace.validate()
    Path("data/validated").mkdir()
    workspace.manifest.rename("data/validated/manifest.parquet")
    workspace.reports.rename("reports")
    done = subprocess.run(
        [sys.executable, "-m", "imagepack.commands.quarantine"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Left where they are: 1\n  cow/text.png: is in data/raw/x.zip, and no file moves out of a zip" in done.stderr
    assert Path("data/quarantine/cat/text.jpg").exists()


def outs(project: Project) -> Iterator[tuple[str, str]]:
    """What dvc.lock has of all outs of validate, pack and preview."""
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage in ("validate", "pack", "preview"):
        yield from ((out["path"], out["md5"]) for out in lock["stages"][stage]["outs"])


@pytest.mark.slow
def test_with_dvc_folders_and_zips_give_the_same_files(new_project: Callable[[], Project]):
    project = new_project()
    shutil.copytree(project.folder / "data/sample/images", project.folder / "data/raw")
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    expected = dict(outs(project))
    project("python", "-m", "imagepack.commands.zips")
    assert len(contents(project.folder / "data/raw")) == 1
    project("dvc", "add", "data/raw")
    assert "Running stage 'validate'" in project("dvc", "repro")
    assert dict(outs(project)) == expected
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("layout: folder", "layout: zip"))
    assert "209 of 209 from the memo" in project("dvc", "repro")
    assert dict(outs(project)) == expected
    assert {Path(path).suffix for path in contents(project.folder / "data/processed")} == {".zip"}


@pytest.mark.slow
def test_a_zip_that_cannot_be_used_is_told_before_dvc_takes_it_in(new_project: Callable[[], Project]):
    project = new_project()
    add_pictures(project.folder / "data/raw", 3)
    (project.folder / "data/raw/x.zip").write_bytes(b"half a zi")
    project("dvc", "remote", "modify", "s3", "url", "s3://own/images")
    said = project("python", "-m", "imagepack.commands.run", ok=False)
    assert "data/raw has zips that cannot be used:\n  data/raw/x.zip: is no zip, or its end is missing" in said
    assert not (project.folder / "data/raw.dvc").exists()
