"""Private metadata is found and named, never told; strip removes it, and every pixel stays as it was."""

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_files
import polars as pl
import pytest
from conftest import REPOSITORY, Project, Workspace, add_pictures, check_one, contents, picture, run_command
from PIL import Image, ImageCms, ImageSequence, TiffImagePlugin

from imagepack.checks import metadata
from imagepack.checks.metadata import OWNER, PERSON, PLACE, POSITION, SERIAL
from imagepack.commands.strip_file import without_metadata
from imagepack.images import containers, zips
from stages.validate import Validate

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "STAGE_WORKERS": "1"}
COMMAND = [sys.executable, "-m", "imagepack.commands.strip"]
RAW = Path("data/raw")
SECRETS = (b"Ann Example", b"SN-4711", b"Wonderland", b"Bob Shown", b"a word")
"""What the files below say, in plain text; beside the position."""
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description exif:GPSLatitude="48,12.5N"
 aux:SerialNumber="SN-4711"><dc:creator><rdf:Seq><rdf:li>Ann Example</rdf:li></rdf:Seq></dc:creator>
 <Iptc4xmpExt:PersonInImage><rdf:Bag><rdf:li>Bob Shown</rdf:li></rdf:Bag></Iptc4xmpExt:PersonInImage>
 <photoshop:City>Wonderland</photoshop:City></rdf:Description></rdf:RDF></x:xmpmeta>"""
IPTC = b"".join(
    b"\x1c\2" + bytes([number]) + struct.pack(">H", len(text)) + text
    for number, text in ((0, b"\0\2"), (80, b"Ann Example"), (90, b"Wonderland"))
)
PHOTOSHOP = b"8BIM\4\x0a\0\0" + struct.pack(">I", 2) + b"\0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC
not_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links and modes")


def exif(orientation: int = 6, position: float = 48.0) -> bytes:
    """EXIF as a camera writes it, with a preview; without a position if that is 0."""
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x013B], block[0x010E] = orientation, "Camera", "Ann Example", "a word"
    block.get_ifd(0x8769).update({0xA430: "Ann Example", 0xA431: "SN-4711", 0x927C: b"a word" * 30, 0x9003: "2026"})
    block.get_ifd(0x8825).update({0: b"\2\3\0\0", 1: "N", 2: (position, 0.0, 0.0), 3: "E", 4: (position, 0.0, 0.0)})
    return block.tobytes()


def tiff_tags() -> TiffImagePlugin.ImageFileDirectory_v2:
    """Of a TIFF, with the same in it."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x013B], tags[0x010E], tags[274] = "Ann Example", "a word", 6
    for tag, value in ((700, XMP), (33723, IPTC), (34377, PHOTOSHOP)):
        tags[tag] = value
        tags.tagtype[tag] = 1
    return tags


def srgb() -> bytes:
    """A colour profile, which stays."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    """An image file of format `form`."""
    file = io.BytesIO()
    (image or picture(1, 96, 80)).save(file, form, **options)
    return file.getvalue()


def segment(kind: int, content: bytes) -> bytes:
    """A part of a JPEG."""
    return bytes([0xFF, kind]) + struct.pack(">H", 2 + len(content)) + content


def jpeg_with(*segments: bytes, **options) -> bytes:
    """A JPEG with these parts behind its JFIF header."""
    data = encoded("JPEG", **options)
    return data[:20] + b"".join(segments) + data[20:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes, behind: bytes = b"", **options) -> bytes:
    """A PNG with these parts before its pixels."""
    data = encoded("PNG", **options)
    return data[:33] + b"".join(chunks) + data[33:-12] + behind + data[-12:]


def profile(name: bytes, content: bytes) -> bytes:
    """What ImageMagick puts in a PNG, as text."""
    return b"Raw profile type %b\0\0" % name + zlib.compress(
        b"\n%b\n%8d\n%b\n" % (name, len(content), content.hex().encode())
    )


EVERY_XMP = [POSITION, PLACE, OWNER, PERSON, SERIAL]
MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", len(XMP), 0) + XMP
CASES = {  # name: what is found, and the bytes
    "exif.jpg": ([POSITION, OWNER, SERIAL], encoded("JPEG", exif=exif(), icc_profile=srgb(), comment=b"a word")),
    "exif.png": ([POSITION, OWNER, SERIAL], encoded("PNG", exif=exif(), icc_profile=srgb(), dpi=(72, 72))),
    "exif.webp": ([POSITION, OWNER, SERIAL], encoded("WEBP", exif=exif(), icc_profile=srgb(), xmp=b"<x/>")),
    "exif_lossless.webp": ([POSITION, OWNER, SERIAL], encoded("WEBP", exif=exif(3), lossless=True)),
    "no_fix.jpg": ([OWNER, SERIAL], encoded("JPEG", exif=exif(1, 0.0))),
    "adobe.jpg": ([POSITION, OWNER, SERIAL], encoded("JPEG", picture(1, 96, 80).convert("CMYK"), exif=exif(8))),
    "progressive.jpg": (EVERY_XMP, jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), progressive=True)),
    "more_xmp.jpg": (EVERY_XMP, jpeg_with(segment(0xE1, MORE_XMP))),
    "iptc.jpg": ([PLACE, OWNER], jpeg_with(segment(0xED, b"Photoshop 3.0\0" + PHOTOSHOP), segment(0xEC, b"a word"))),
    "behind.jpg": (
        [POSITION, OWNER, SERIAL],
        encoded("JPEG", exif=exif()) + b"ftypmp42 Ann Example" + encoded("JPEG", exif=exif()),
    ),
    "phone.jpg": (
        [POSITION, OWNER, SERIAL],
        encoded("MPO", save_all=True, append_images=[picture(2)], exif=exif()),
    ),
    "author.png": ([OWNER], png_with(chunk(b"tEXt", b"Author\0Ann Example"), chunk(b"tEXt", b"Comment\0a word"))),
    "behind.png": ([POSITION, OWNER, SERIAL], png_with(behind=chunk(b"eXIf", exif()[6:]) + chunk(b"prVt", b"a word"))),
    "xmp.png": (EVERY_XMP, png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), chunk(b"tIME", bytes(7)))),
    "packed_xmp.png": (EVERY_XMP, png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)))),
    "magick_exif.png": ([POSITION, OWNER, SERIAL], png_with(chunk(b"zTXt", profile(b"exif", exif(1))))),
    "magick_iptc.png": ([PLACE, OWNER], png_with(chunk(b"zTXt", profile(b"iptc", PHOTOSHOP)))),
    "magick_xmp.png": (EVERY_XMP, png_with(chunk(b"zTXt", profile(b"xmp", XMP)))),
    "gps_text.png": ([POSITION], png_with(chunk(b"tEXt", b"exif:GPSLatitude\x0048/1, 12/1, 0/1"))),
    "palette.png": ([OWNER], png_with(chunk(b"tEXt", b"Author\0Ann Example"), image=Image.new("1", (40, 40), 1))),
    "moving.png": (
        [POSITION, OWNER, SERIAL],
        encoded("PNG", save_all=True, append_images=[picture(2, 96, 80), picture(3, 96, 80)], exif=exif(1)),
    ),
    "moving.webp": (
        [POSITION, OWNER, SERIAL],
        encoded("WEBP", save_all=True, append_images=[picture(2, 96, 80), picture(3, 96, 80)], exif=exif()),
    ),
    "xmp.webp": (EVERY_XMP, encoded("WEBP", xmp=XMP)),
    "raw.tif": (EVERY_XMP, encoded("TIFF", tiffinfo=tiff_tags(), icc_profile=srgb())),
    "deflate.tif": (EVERY_XMP, encoded("TIFF", tiffinfo=tiff_tags(), compression="tiff_adobe_deflate")),
    "big.tif": (EVERY_XMP, encoded("TIFF", tiffinfo=tiff_tags(), big_tiff=True)),
    "exif.tif": ([POSITION, OWNER, SERIAL], encoded("TIFF", exif=exif(1))),
    "pages.tif": (
        EVERY_XMP,
        encoded("TIFF", tiffinfo=tiff_tags(), save_all=True, append_images=[picture(2), picture(3)]),
    ),
}
WITHOUT = {
    "plain.jpg": encoded("JPEG", icc_profile=srgb(), comment=b"a word"),
    "turned.jpg": encoded("JPEG", exif=b"Exif\0\0" + hostile_files.exif([(0x112, 3, 1, b"\6\0\0\0")])),
    "blank.jpg": encoded(
        "JPEG", exif=b"Exif\0\0" + hostile_files.exif([(0x13B, 2, 4, b"   \0"), (0xA431, 2, 4, b"0000")])
    ),
    "tool.png": png_with(chunk(b"tEXt", b"Software\0a word"), chunk(b"tEXt", b"Author\0 ")),
    "tool.webp": encoded("WEBP", xmp=b"<rdf:Description xmp:CreatorTool='a word' photoshop:City=''/>"),
    "plain.tif": encoded("TIFF"),
    "moving.gif": encoded("GIF", comment=b"a word"),
    "plain.bmp": encoded("BMP"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with the template's params, in which the test stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAGE_WORKERS", "1")
    shutil.copy(REPOSITORY / ".dvcignore", ".dvcignore")
    Path("params.yaml").write_text("validate:\n  min_class_images: 0\n", encoding="utf-8")
    yield


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def strip(*arguments: str, code: int = 0) -> str:
    """The command as a user runs it; what it printed."""
    ended, printed = run_command([*COMMAND, *arguments], Path.cwd(), ENVIRONMENT)
    assert ended == code, printed
    assert "Traceback" not in printed
    return printed


def encoded_pixels(data: bytes) -> list[bytes]:
    """The parts of a JPEG, PNG or WebP in which the pixels are, as they stand in the file."""
    if data.startswith(b"\xff\xd8"):
        begin = next(start for kind, start, _ in containers.jpeg_segments(data) if kind == containers.JPEG_SCAN)
        return [data[begin : containers.end_of(data, "JPEG")]]
    parts = containers.png_chunks(data) if data.startswith(b"\x89PNG") else containers.webp_chunks(data)
    return [data[start:end] for kind, start, end in parts if kind in (b"IDAT", b"fdAT", b"VP8 ", b"VP8L", b"ANMF")]


def frames(data: bytes) -> list[tuple]:
    """What Pillow makes of each frame of a file, and all that says how it is to be seen."""
    with Image.open(io.BytesIO(data)) as image:
        seen = [(each.mode, each.size, each.tobytes()) for each in ImageSequence.Iterator(image)]
        seen = seen[:1] if image.format == "MPO" else seen
        image.seek(0)
        return [*seen, image.getexif().get(0x0112, 1), image.info.get("icc_profile")]


@pytest.mark.parametrize("name", CASES)
def test_private_metadata_is_named_and_not_told(name: str):
    found, data = CASES[name]
    write(RAW / "cat" / name, data)
    _, findings = check_one(RAW, f"cat/{name}", Validate(blurry=0))
    assert [seen for code, seen in findings if code == "private_metadata"] == [", ".join(found)]


@pytest.mark.parametrize("name", WITHOUT)
def test_other_metadata_is_no_finding(name: str):
    write(RAW / "cat" / name, WITHOUT[name])
    _, findings = check_one(RAW, f"cat/{name}", Validate(blurry=0))
    assert "private_metadata" not in dict(findings)


def test_nothing_but_the_pictures_stays():
    for name, (_, data) in CASES.items():
        write(RAW / "cat" / name, data)
    output = strip()
    assert output.startswith(f"{len(CASES)} files of data/raw stripped of private metadata; the pixels are the same\n")
    assert "another split" in output and output.endswith("Next\n  python3 run.py\n")
    for name, (_, data) in CASES.items():
        new = (RAW / "cat" / name).read_bytes()
        assert metadata.private(new) == [], name
        assert frames(new) == frames(data), name
        assert all(part in new for part in encoded_pixels(data)), name
        assert not [secret for secret in (*SECRETS, b"GPS", b"Raw profile") if secret in new], name
    assert {path.name for path in (RAW / "cat").iterdir()} == set(CASES)
    stripped = contents(RAW)
    assert strip() == "0 files of data/raw have private metadata that can be removed\n"
    assert contents(RAW) == stripped


@pytest.mark.slow
@pytest.mark.parametrize("make", [hostile_files.exif_faults, hostile_files.metadata_bombs, hostile_files.tiff_faults])
def test_hostile_metadata_neither_ends_the_search_nor_takes_long(make: Callable[[], hostile_files.Files]):
    files = make()
    blocks = [(b"Exif\0\0II*\0\x08\0\0\0" + b"\xff\xff" + b"\x69\x87\x04\0\xff\x3f\0\0\x08\0\0\0" * 5000)[:65000]]
    files["loops.jpg"] = jpeg_with(*(segment(0xE1, block) for block in blocks * 50))
    files["bombs.png"] = png_with(*[chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(10**7)))] * 300)
    files["xmp.jpg"] = jpeg_with(*[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<dc:creator " * 5000)] * 20)
    begun = time.process_time()
    for data in files.values():
        metadata.private(data)
        metadata.private(data[: len(data) // 2])
    assert time.process_time() - begun < 60  # without bounds one of the last three takes longer
    assert all(metadata.private(files[name]) == [] for name in ("loops.jpg", "bombs.png", "xmp.jpg"))


def test_private_metadata_behind_a_loop_is_found():
    loop = b"Exif\0\0" + hostile_files.exif([(0x13B, 2, 4, b"Ann\0"), (0x8769, 4, 1, b"\x08\0\0\0")], following=8)
    assert metadata.private(encoded("JPEG", exif=loop)) == [OWNER]


def test_files_that_cannot_be_stripped_stay_and_are_named_with_what_to_do():
    add_pictures(RAW, 1, "cat")
    data = CASES["exif.jpg"][1]
    write(RAW / "cat/good.jpg", data)
    write(RAW / "cat/cut.jpg", data[: len(data) * 6 // 10])
    tags = tiff_tags()
    old_jpeg = encoded("TIFF", tiffinfo=tags).replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 60000, 4, 1))
    write(RAW / "cat/sizeless.tif", old_jpeg)
    boxes = encoded("AVIF", exif=exif(), xmp=XMP)
    assert metadata.private(boxes) == EVERY_XMP
    assert metadata.private(encoded("AVIF")) == []
    write(RAW / "cat/boxes.avif", boxes)
    with (RAW / "more.zip").open("wb") as stream:
        zips.write(stream, [("cat/zipped.jpg", data)])
    before = contents(RAW)
    output = strip(code=1)
    assert "1 file of data/raw stripped" in output
    lines = output[output.index("Left as they are: 4") :].splitlines()
    assert sorted(line.split(": ")[0].strip() for line in lines[1:]) == [
        "cat/boxes.avif", "cat/cut.jpg", "cat/sizeless.tif", "cat/zipped.jpg",
    ]  # fmt: skip
    assert "python3 run.py quarantine" in output and "unpack that beside it" in output
    assert {name: data for name, data in contents(RAW).items() if name != "cat/good.jpg"} == {
        name: data for name, data in before.items() if name != "cat/good.jpg"
    }


def test_a_dry_run_names_the_files_and_changes_nothing_and_paths_choose():
    for name in ("exif.jpg", "author.png"):
        write(RAW / "cat" / name, CASES[name][1])
        write(RAW / "2024/dog" / name, CASES[name][1])
    before = contents(Path())
    output = strip("--dry-run", "data/raw/cat")
    assert "2 files of data/raw would be stripped" in output
    assert "cat/exif.jpg: GPS position, author or owner, serial number\n" in output
    assert "2024" not in output
    assert contents(Path()) == before
    assert strip("nowhere", "cat", code=1) == "strip: data/raw has no nowhere\n"
    strip("2024", "cat/exif.jpg")
    changed = {name for name, data in contents(Path()).items() if data != before[name]}
    assert changed == {"data/raw/2024/dog/exif.jpg", "data/raw/2024/dog/author.png", "data/raw/cat/exif.jpg"}


@not_windows
def test_hard_links_modes_and_links_are_kept_apart(tmp_path: Path):
    data = CASES["exif.jpg"][1]
    cached = write(tmp_path / "cache/linked", data)
    outside = write(tmp_path / "cache/outside", data)
    (RAW / "cat").mkdir(parents=True)
    os.link(cached, RAW / "cat/hard.jpg")
    (RAW / "cat/hard.jpg").chmod(0o440)
    (RAW / "cat/out.jpg").symlink_to(outside)
    (RAW / "cat/in.jpg").symlink_to("hard.jpg")
    assert "2 files" in strip()
    assert cached.read_bytes() == outside.read_bytes() == data
    assert (RAW / "cat/hard.jpg").stat().st_mode & 0o777 == 0o440
    assert not (RAW / "cat/out.jpg").is_symlink()
    assert (RAW / "cat/in.jpg").readlink() == Path("hard.jpg")
    assert not any(metadata.private(path.read_bytes()) for path in RAW.rglob("*.jpg"))


def test_what_was_acknowledged_stays_acknowledged():
    data = CASES["exif.jpg"][1]
    place = write(RAW / "cat/a.jpg", data)
    old = hashlib.sha256(data).hexdigest()
    lines = ["image,code,note", f'{old},blurry,"so, be it"', f"{old},private_metadata,known", "cat,class_too_small,few"]
    write(Path("data/acknowledged.csv"), "\r\n".join(lines).encode())  # as a spreadsheet writes it
    strip()
    new = hashlib.sha256(place.read_bytes()).hexdigest()
    with Path("data/acknowledged.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [*csv.reader(lines), [new, "blurry", "so, be it"]]


@pytest.mark.slow
def test_killed_at_any_moment_every_file_is_old_or_new_and_a_second_run_ends_it():
    data = CASES["exif.jpg"][1]
    for number in range(600):
        write(RAW / f"cat/{number}.jpg", data + bytes([number % 256, number // 256]))
    new = without_metadata(data, 6)
    for number in (5, 200):  # killed when this file is new
        process = subprocess.Popen(COMMAND, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        while process.poll() is None and (RAW / f"cat/{number}.jpg").read_bytes() != new:
            time.sleep(0.001)
        process.kill()
        process.wait()
        found = {path: data for path, data in contents(RAW).items() if ".stripping-" not in path}
        assert len(found) == 600
        assert all(each == new or each.startswith(data) for each in found.values())
    assert sum(each != new for each in found.values()) > 100
    strip()
    assert set(contents(RAW).values()) == {new} and len(contents(RAW)) == 600


@pytest.mark.slow
def test_dvc_is_told_and_no_image_looks_otherwise(new_project: Callable[[], Project]):
    project = new_project()
    raw = project.folder / RAW
    add_pictures(raw, 12, "cat")
    for number in range(12):
        write(raw / f"dog/{number}.jpg", encoded("JPEG", picture(50 + number, 96, 80), exif=exif(1 + number % 8)))
    project("dvc", "add", "data/raw")
    project("dvc", "repro", "validate")
    project.commit("Before")
    before = pl.read_parquet(project.folder / "data/validated/manifest.parquet")
    assert before["issues"].list.contains("private_metadata").sum() == 12
    assert "$ dvc add data/raw" in project(*COMMAND)
    assert "data/raw.dvc" in project("git", "diff", "--name-only", "HEAD")
    assert "data/raw.dvc:" not in project("dvc", "status", "data/raw.dvc")
    project("dvc", "repro", "validate")
    after = pl.read_parquet(project.folder / "data/validated/manifest.parquet")
    assert not after["issues"].list.contains("private_metadata").any()
    seen = ("path", "pixel_hash", "orientation", "width", "height", "kind", "brightness", "status")
    assert after.select(seen).equals(before.select(seen))
    project("git", "checkout", "--quiet", "HEAD", "--", "data/raw.dvc")  # as a git pull that brings another version
    assert "dvc pull" in project(*COMMAND, ok=False)


def test_no_picture_of_the_reports_has_metadata(workspace: Workspace):
    for number in (1, 2):  # two copies of each: a duplicate is shown
        write(workspace.raw / f"cat/{number}.jpg", encoded("JPEG", exif=exif(), xmp=XMP, comment=b"a word"))
        write(workspace.raw / f"cat/{number}.gif", encoded("GIF", picture(7, 96, 80), comment=b"a word"))
        write(
            workspace.raw / f"cat/{number}.png", png_with(chunk(b"tEXt", b"Comment\0a word"), image=picture(8, 96, 80))
        )
        write(workspace.raw / f"cat/{number}.tif", encoded("TIFF", picture(9, 96, 80), tiffinfo=tiff_tags()))
    workspace.run()
    page = (workspace.reports / "validation.html").read_text(encoding="utf-8")
    pictures = [base64.b64decode(each) for each in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert len(pictures) >= 8
    processed = list(contents(workspace.processed).values())
    assert len(processed) == 4
    for each in (*pictures, *processed):
        assert not [secret for secret in (*SECRETS, b"Exif", b"xap", b"tEXt", b"iTXt") if secret in each]
        assert b"\xff\xfe" not in each[:30]  # a JPEG's comment
