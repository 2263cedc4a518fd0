"""Private metadata is found and named, never told; strip removes it, and every pixel stays as it was."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import hostile_files
import pytest
from conftest import REPOSITORY, check_one, contents, picture
from PIL import Image, ImageCms, ImageSequence, TiffImagePlugin

from stages.params import Validate
from stages.toolkit import metadata
from stages.toolkit.metadata import OWNER, PERSON, PLACE, POSITION, SERIAL

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "STAGE_WORKERS": "1"}
COMMAND = [sys.executable, "-m", "quickstart.strip"]
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
    "turned.jpg": encoded("JPEG", exif=hostile_files.exif([(0x112, 3, 1, b"\6\0\0\0")])),
    "blank.jpg": encoded("JPEG", exif=hostile_files.exif([(0x13B, 2, 4, b"   \0"), (0xA431, 2, 4, b"0000")])),
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
    done = subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


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
        assert not [secret for secret in (*SECRETS, b"GPS", b"Raw profile") if secret in new], name
    assert {path.name for path in (RAW / "cat").iterdir()} == set(CASES)
    stripped = contents(RAW)
    assert strip() == "0 files of data/raw have private metadata that can be removed\n"
    assert contents(RAW) == stripped
