"""Validation: every kind of bad file is found and named, good ones are left alone, and nothing is changed."""

import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from conftest import FIXES, REPOSITORY, Workspace, add_pictures, check_one, checker, contents, picture, save
from PIL import Image, ImageCms, ImageFilter, ImageOps

from imagepack.errors import InputError
from imagepack.images import raw_files
from imagepack.reader.format import SPLITS
from stages.pack import Pack, Split
from stages.preprocess import Preprocess, preprocess
from stages.validate import Levels, Validate, validate

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
not_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names and links")

CALM = {"blurry": 0, "min_class_images": 0, "levels": Levels(mode_mix="ignore", exif_orientation="ignore")}
"""Params that leave out what the small, smooth and various pictures of these tests all have."""
COLUMNS = {
    "path": pl.String,
    "label": pl.String,
    "batch": pl.String,
    "sha256": pl.String,
    "bytes": pl.Int64,
    "format": pl.String,
    "mode": pl.String,
    "kind": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "orientation": pl.Int8,
    "frame": pl.Int32,
    "frames": pl.Int32,
    "pixel_hash": pl.String,
    "perceptual_hash": pl.String,
    "brightness": pl.Float32,
    "contrast": pl.Float32,
    "saturation": pl.Float32,
    "entropy": pl.Float32,
    "sharpness": pl.Float32,
    "status": pl.String,
    "issues": pl.List(pl.String),
    "seen": pl.List(pl.String),
    "group": pl.String,
}


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    """An image file of format `form`."""
    file = io.BytesIO()
    (image or picture(1, 96, 80)).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(width: int, height: int, rows: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG that says it is width x height and holds `rows` rows; with more chunks before and after the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(rows * (width + 1))))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + chunk(b"IEND", b"")


def cut(data: bytes) -> bytes:
    """What an interrupted download leaves."""
    return data[: len(data) * 6 // 10]


def overwritten(data: bytes, by: bytes) -> bytes:
    """The same length, damaged in the middle."""
    middle = len(data) // 2
    return data[:middle] + by + data[middle + len(by) :]


def jpeg_with(precision: int = 8, process: int = 0xC0) -> bytes:
    """A JPEG whose frame header says that it is of another kind."""
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = process, precision
    return bytes(data)


def with_segment(data: bytes, content: bytes) -> bytes:
    """A JPEG with another part, where colour profiles are."""
    return data[:2] + struct.pack(">BBH", 0xFF, 0xE2, len(content) + 2) + content + data[2:]


def huge_jpeg(side: int) -> bytes:
    """A JPEG that says it is side x side."""
    data = encoded("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 :]


def slow_bmp(side: int) -> bytes:
    """A BMP of runs of one pixel each, which Pillow takes a second for every 3 million of."""
    runs = (b"\1\7" * side + b"\0\0") * side + b"\0\1"
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    pixels_at = 14 + 40 + len(palette)
    file = struct.pack("<2sIHHI", b"BM", pixels_at + len(runs), 0, 0, pixels_at)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return file + info + palette + runs


def grey_tiff(bits: int = 16, white_is_zero: bool = False) -> bytes:
    """A TIFF of 16-bit grey that says something else of its pixels."""
    data = encoded("TIFF", picture(1).convert("I;16"))
    for tag, old, new in ((258, 16, bits), (262, 1, 0 if white_is_zero else 1)):
        entry = struct.pack("<HHIHH", tag, 3, 1, old, 0)
        assert entry in data
        data = data.replace(entry, struct.pack("<HHIHH", tag, 3, 1, new, 0))
    return data


def compressed_tiff(method: int) -> bytes:
    """A TIFF that says it is compressed in another way."""
    return encoded("TIFF").replace(struct.pack("<HHIH", 259, 3, 1, 1), struct.pack("<HHIH", 259, 3, 1, method))


def tiff_of(parts: list[bytes], tags: dict[int, list[int]]) -> bytes:
    """A grey TIFF of these strips, 30 pixels wide, with these tags more or otherwise; all numbers have 32 bits."""
    tags = {256: [30], 258: [8], 259: [1], 262: [1], 277: [1]} | tags
    tags |= {273: [0] * len(parts), 279: [len(part) for part in parts]}
    end = 8 + 2 + 12 * len(tags) + 4
    pixels_at = end + sum(4 * len(values) for values in tags.values() if len(values) > 1)
    tags[273] = [pixels_at + sum(tags[279][:number]) for number in range(len(parts))]
    entries, more = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        place = struct.pack("<I", end + len(more)) if len(values) > 1 else packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + place
        more += packed if len(values) > 1 else b""
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + more + b"".join(parts)


FOUR_PLANES = {257: [4], 258: [8, 8, 8, 8], 262: [2], 277: [4], 278: [4], 284: [2], 338: [0]}
"""Red, green, blue and something else, each by itself."""


def noise(number: int, low: int = 0, high: int = 256, width: int = 96, height: int = 80) -> Image.Image:
    """Grey noise with levels from `low` to `high` - 1."""
    levels = np.random.default_rng(number).integers(low, high, (height, width), dtype=np.uint8)
    return Image.fromarray(levels)


def deep_noise(number: int, low: int, high: int) -> Image.Image:
    """As `noise`, of 16 bits."""
    levels = np.random.default_rng(number).integers(low, high, (80, 96), dtype=np.uint16)
    levels[0, 0] = high - 1
    return Image.fromarray(levels)


def specks() -> Image.Image:
    """White on black, one pixel in forty."""
    return Image.fromarray(((np.random.default_rng(7).random((80, 96)) < 0.025) * 255).astype(np.uint8))


def frames(count: int, form: str = "GIF", first: int = 200) -> bytes:
    """An animation, or a file of several pages, of pictures number `first` and so on."""
    image, *others = (picture(first + number, 40, 32) for number in range(count))
    return encoded(form, image, save_all=True, append_images=others)


WITHOUT_EXTRA = "decode_error" if importlib.util.find_spec("pillow_heif") else "unsupported_format"
WITHOUT_JXL = "decode_error" if importlib.util.find_spec("pillow_jxl") else "unsupported_format"
PHOTOSHOP = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 40, 40, 8, 3) + bytes(14)

BY_SOMEBODY = Image.Exif()
BY_SOMEBODY[0x013B] = "Ann Example"  # Artist

BAD_FILES = {  # name: the code it gets, and its bytes
    "empty.jpg": ("empty_file", b""),
    "desktop.ini": ("junk", b"[.ShellClassInfo]"),
    "._img.jpg": ("junk", b"\0\5\x16\7" + bytes(100)),
    "page.jpg": ("not_image", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "notes.txt": ("not_image", b"The dog pictures are from Anna.\n"),
    "zeros.png": ("not_image", bytes(4096)),
    "icon.png": ("unsupported_format", encoded("ICO")),
    "phone.heic": (WITHOUT_EXTRA, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)),
    "drawing.svg": ("unsupported_format", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "new.jxl": (WITHOUT_JXL, b"\xff\x0a" + bytes(100)),
    "layers.psd": ("unsupported_format", PHOTOSHOP),
    "float.tif": ("unsupported_variant", encoded("TIFF", picture(1).convert("F"))),
    "integer.tif": ("unsupported_variant", encoded("TIFF", picture(1).convert("I"))),
    "twelve_bits.tif": ("unsupported_variant", grey_tiff(bits=12)),
    "white_is_zero.tif": ("unsupported_variant", grey_tiff(white_is_zero=True)),
    "twelve_bits.jpg": ("unsupported_variant", jpeg_with(precision=12)),
    "lossless.jpg": ("unsupported_variant", jpeg_with(process=0xC3)),
    "inside_jpeg_xl.tif": ("unsupported_variant", compressed_tiff(50002)),
    "inside_jpeg_2000.tif": ("unsupported_variant", compressed_tiff(34712)),
    "inside_webp.tif": ("unsupported_variant", compressed_tiff(50001)),
    "four_planes.tif": ("unsupported_variant", tiff_of([bytes(120)] * 4, FOUR_PLANES)),
    "run_lengths.bmp": ("unsupported_variant", encoded("BMP")[:30] + b"\7" + encoded("BMP")[31:]),
    "bomb.png": ("bomb", grey_png(30_000, 30_000, rows=0)),
    "lying.png": ("bomb", grey_png(2**31 - 1, 2**31 - 1, rows=0)),
    "cut.jpg": ("truncated", cut(encoded("JPEG"))),
    "cut_progressive.jpg": ("truncated", cut(encoded("JPEG", progressive=True))),
    "head.jpg": ("truncated", encoded("JPEG")[:100]),
    "cut.png": ("truncated", cut(encoded("PNG"))),
    "cut.gif": ("truncated", cut(encoded("GIF"))),
    "cut.bmp": ("truncated", cut(encoded("BMP"))),
    "cut.tif": ("truncated", cut(encoded("TIFF"))),
    "few_rows.png": ("truncated", grey_png(96, 80, rows=79)),
    "cut.webp": ("truncated", cut(encoded("WEBP"))),
    "cut.avif": ("truncated", cut(encoded("AVIF"))),
    "hole.avif": ("decode_error", overwritten(encoded("AVIF", noise(7)), bytes(300))),
    "deflate.tif": (
        "decode_error",
        overwritten(encoded("TIFF", noise(7), compression="tiff_adobe_deflate"), bytes(20)),
    ),
    "cut_lzw.tif": ("decode_error", cut(encoded("TIFF", compression="tiff_lzw"))),  # its directory is at the end
    "damaged.png": ("decode_error", overwritten(encoded("PNG"), bytes(40))),
    "damaged.jpg": ("jpeg_damage", overwritten(encoded("JPEG"), b"\xff\xd9")),
    "damaged_progressive.jpg": ("jpeg_damage", overwritten(encoded("JPEG", progressive=True), b"\xff\xd9")),
    "profile.jpg": ("damaged_header", with_segment(encoded("JPEG", picture(118, 96, 80)), b"ICC_PROFILE\0\1\2half")),
    "zeros.jpg": ("damaged_header", encoded("JPEG", picture(133, 96, 80)).replace(b"\xff\xc4", b"\0\0\xff\xc4", 1)),
    "damaged_frame.gif": ("later_frame_error", frames(3)[:-200]),
    "jpeg.png": ("extension_mismatch", encoded("JPEG", picture(101, 96, 80))),
    "no_extension": ("extension_mismatch", encoded("PNG", picture(102, 96, 80))),
    "film.jpg": ("trailing_bytes", encoded("JPEG", picture(103, 96, 80)) + b"ftypmp42" * 500),
    "padded.png": ("trailing_bytes", encoded("PNG", picture(104, 96, 80)) + bytes(512)),
    "longer.gif": ("trailing_bytes", encoded("GIF", picture(105, 96, 80)) + b"\0"),
    "longer.avif": ("trailing_bytes", encoded("AVIF", picture(121, 96, 80)) + bytes(20)),
    "longer.webp": ("trailing_bytes", encoded("WEBP", picture(106, 96, 80)) + b"more"),
    "no_end.jpg": ("missing_end_marker", encoded("JPEG", picture(107, 96, 80))[:-2]),
    "half_an_end.jpg": ("missing_end_marker", encoded("JPEG", picture(108, 96, 80))[:-1]),
    "no_end.png": ("missing_end_marker", encoded("PNG", picture(109, 96, 80))[:-12]),
    "no_end.gif": ("missing_end_marker", encoded("GIF", picture(110, 96, 80))[:-1]),
    "by_somebody.jpg": ("private_metadata", encoded("JPEG", picture(131, 96, 80), exif=BY_SOMEBODY)),
    "infrared.tif": ("extra_bands", encoded("TIFF", picture(132, 96, 80).convert("RGBX"))),
    "fourteen_bits.png": ("unused_range", encoded("PNG", deep_noise(119, 8000, 2**14))),
    "deep.png": ("reduced_depth", encoded("PNG", deep_noise(120, 0, 2**14 + 1))),
    "low.png": ("too_small", encoded("PNG", picture(111, 96, 15))),
    "narrow.png": ("too_small", encoded("PNG", picture(112, 15, 96))),
    "wide.png": ("too_large", encoded("PNG", picture(113, 321, 300))),
    "strip.png": ("aspect", encoded("PNG", picture(114, 130, 16))),
    "flat.png": ("uniform", encoded("PNG", Image.new("RGB", (96, 80), "teal"))),
    "night.png": ("dark", encoded("PNG", noise(115, 0, 40))),
    "fog.png": ("bright", encoded("PNG", noise(116, 230, 256))),
    "specks.png": ("low_information", encoded("PNG", specks())),
    "blurred.png": ("blurry", encoded("PNG", picture(117, 2, 2).resize((96, 80), Image.Resampling.BICUBIC))),
    "pages.tif": ("multi_frame", frames(3, "TIFF", 210)),
    "moving.gif": ("multi_frame", frames(4, first=220)),
}
STRICT = {"max_side": 320, "blurry": 1.5, "multi_frame": "error", "min_class_images": 0}
"""Params with which each of them has its code."""
OF_TABLES = {"no_row", "no_cell", "label_mismatch", "row_without_image", "similar_class_names"}
"""Codes that test_tables.py has, and those of classes."""
FATAL = {"multi_frame", *Levels.model_fields} - OF_TABLES
FATAL -= {"mode_mix", "exif_orientation", "class_too_small", "class_imbalance"}
"""The codes for which params decide whether they reject an image."""


def write(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def check(path: Path, **params) -> tuple[dict, list[str]]:
    """Facts and codes of one file, which stands in its class folder."""
    row, found = check_one(path.parent.parent, f"{path.parent.name}/{path.name}", Validate(**CALM | params))
    return dict(zip(COLUMNS, row, strict=False)), [code for code, _ in found]


def run(workspace: Workspace, **params) -> pl.DataFrame:
    """Run the stage; its manifest."""
    return workspace.validate(Validate(**CALM | params))


def column(manifest: pl.DataFrame, name: str) -> dict:
    """Of each path, what that column says."""
    return dict(zip(manifest["path"], manifest[name].to_list(), strict=True))


def rejections(workspace: Workspace) -> list[dict[str, str]]:
    """The rows of rejected.csv."""
    with (workspace.reports / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def resaved(number: int, quality: int) -> bytes:
    """Copies of a picture that look alike."""
    return encoded("JPEG", noise(number).filter(ImageFilter.GaussianBlur(2)).resize((192, 160)), quality=quality)


def add_every_fault(raw: Path) -> dict[str, str]:
    """Two good images, and files with each fault (a few codes need tests of their own); the code of each path.

    Those of resource_limit need that much memory only if params.max_pixels lets them through.
    """
    add_pictures(raw, 1, "cat")
    add_pictures(raw, 1, "dog", first=1)
    codes = {}
    for name, (code, data) in BAD_FILES.items():
        write(raw / "cat" / name, data)
        codes[f"cat/{name}"] = code
    shutil.copy(raw / "cat/cut.jpg", raw / "dog/again.jpg")  # the same bytes twice, but no image
    write(raw / "top.png", encoded("PNG", picture(2)))
    save(raw / os.fsdecode(b"cat/caf\xe9.png"), picture(3))
    save(raw / "cat/what?.png", picture(6))
    save(raw / "cat/IMG0.png", picture(7))
    (raw / "cat/gone.png").symlink_to("nowhere.png")
    (raw / "cat/link.png").symlink_to(save(raw.parent / "elsewhere.png", picture(8)))
    write(raw / "cat/huge.png", grey_png(20_000, 20_000, rows=0))
    write(raw / "cat/huge.jpg", huge_jpeg(20_000))
    save(raw / "cat/img0 copy.png", picture(0))
    save(raw / "cat/img0.tif", picture(0))
    for label, name, quality in (("cat", "like.jpg", 95), ("cat", "like (1).jpg", 40)):
        write(raw / label / name, resaved(300, quality))
    for label, quality in (("cat", 95), ("dog", 40)):
        write(raw / label / "alike.jpg", resaved(301, quality))
        save(raw / label / "both.png", picture(4))
    return codes | {
        "dog/again.jpg": "truncated",
        "top.png": "no_label",
        "cat/caf\\xe9.png": "bad_name",
        "cat/what?.png": "non_portable_name",
        "cat/img0.png": "name_collision",
        "cat/gone.png": "unreadable",
        "cat/link.png": "outside_link",
        "cat/huge.png": "resource_limit",
        "cat/huge.jpg": "resource_limit",
        "cat/img0 copy.png": "exact_duplicate",
        "cat/img0.tif": "pixel_duplicate",
        "cat/like (1).jpg": "near_duplicate",
        "cat/alike.jpg": "similar_labels",
        "dog/alike.jpg": "similar_labels",
        "cat/both.png": "label_conflict",
        "dog/both.png": "label_conflict",
    }


@linux_only
def test_every_code_is_given_to_a_real_file_and_explained_in_the_report(workspace: Workspace):
    codes = add_every_fault(workspace.raw)
    levels = Levels(**dict.fromkeys(FATAL - {"multi_frame", "name_collision"}, "error"), mode_mix="ignore")
    manifest = run(workspace, levels=levels, max_pixels=500_000_000, memory_mib=256, **STRICT)
    found = {path: issues for path, issues in column(manifest, "issues").items() if issues}
    assert found == {path: [code] for path, code in codes.items()}
    elsewhere = {"timeout", "decoder_crash", "mode_mix", "exif_orientation", "class_too_small", "class_imbalance"}
    assert set(codes.values()) | elsewhere | OF_TABLES == set(FIXES)  # tests of these are below
    report = rejections(workspace)
    assert {row["path"]: row["code"] for row in report} == {
        path: code for path, code in codes.items() if code != "name_collision"
    }
    assert all(row["seen"] and row["fix"] == FIXES[row["code"]] for row in report)


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_for_what_is_wrong_with_it(name: str, tmp_path: Path):
    code, data = BAD_FILES[name]
    facts, codes = check(write(tmp_path / "cat" / name, data), **STRICT)
    assert codes == [code]
    assert facts["bytes"] == len(data)
    usable = code in FATAL - {"jpeg_damage"}
    assert bool(facts["format"]) == bool(facts["width"]) == bool(facts["pixel_hash"]) == usable


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF"])
def test_no_cut_file_is_accepted(form: str, tmp_path: Path):
    data = encoded(form, picture(1, 32, 32))
    for end in range(1, len(data) - 1, max(1, len(data) // 40)):
        _, codes = check(write(tmp_path / f"cat/cut.{form.lower()}", data[:end]))
        assert codes, f"accepted with {end} of {len(data)} bytes"


@pytest.mark.parametrize(
    ("name", "form", "image"),
    [
        ("a.jpg", "JPEG", picture(1)),
        ("a.JPEG", "JPEG", picture(1, mode="L")),
        ("a.jfif", "JPEG", picture(1, mode="CMYK")),
        ("a.png", "PNG", picture(1, mode="RGBA")),
        ("a.Png", "PNG", picture(1, mode="1")),
        ("a.gif", "GIF", picture(1, mode="P")),
        ("a.bmp", "BMP", picture(1)),
        ("a.tif", "TIFF", picture(1, mode="CMYK")),
        ("a.tiff", "TIFF", picture(1, mode="LA")),
        ("a.webp", "WEBP", picture(1, mode="RGBA")),
        ("a.avif", "AVIF", picture(1, mode="RGBA")),
        ("grey.avif", "AVIF", picture(1, mode="L")),
        ("least.png", "PNG", picture(1, 16, 16)),
    ],
)
def test_a_good_file_has_no_findings(name: str, form: str, image: Image.Image, tmp_path: Path):
    path = write(tmp_path / "cat" / name, encoded(form, image))
    facts, codes = check(path)
    assert codes == []
    assert len(facts["pixel_hash"]) == 32
    assert len(facts["perceptual_hash"]) == 64
    stored = list(COLUMNS)[: list(COLUMNS).index("frames") + 1]
    assert {column: facts[column] for column in stored} == {
        "path": f"cat/{name}",
        "label": "cat",
        "batch": "",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "format": form,
        "mode": facts["mode"] if form in ("WEBP", "AVIF") else image.mode,  # they drop what is all opaque
        "kind": facts["kind"],
        "width": image.width,
        "height": image.height,
        "orientation": 1,
        "frame": 1,
        "frames": 1,
    }


def test_the_limits_are_those_of_params(tmp_path: Path):
    path = save(tmp_path / "cat/a.png", picture(1, 100, 90))
    assert check(path, max_pixels=9000, min_side=90)[1] == []
    assert check(path, max_pixels=8999)[1] == ["bomb"]
    assert check(path, max_pixels=100)[1] == ["bomb"]
    assert check(path, min_side=91)[1] == ["too_small"]


def test_several_faults_of_one_file_are_all_found(tmp_path: Path):
    row, found = check_one(tmp_path, save(tmp_path / "a.jpg", picture(1, 9, 9), format="PNG").name, Validate())
    assert [code for code, _ in found] == ["no_label", "extension_mismatch", "too_small"]
    assert row[1] == ""


@not_windows
@pytest.mark.parametrize("target", ["nowhere.png", "link.png", "../dog", "/dev/null"])
def test_a_link_that_leads_to_no_file_is_unreadable(target: str, workspace: Workspace):
    add_pictures(workspace.raw, 1, "cat")
    add_pictures(workspace.raw, 1, "dog", first=1)
    (workspace.raw / "cat/link.png").symlink_to(target)
    manifest = run(workspace)
    issues = column(manifest, "issues")
    assert issues["cat/link.png"] == ["outside_link"] * (target == "/dev/null") + ["unreadable"]
    assert issues["cat/img0.png"] == issues["dog/img1.png"] == []


@not_windows
def test_a_link_to_a_file_is_that_file(workspace: Workspace):
    outside = save(workspace.folder / "elsewhere/a.png", picture(1))
    (workspace.raw / "cat").mkdir(parents=True)
    (workspace.raw / "cat/a.png").symlink_to(outside)
    manifest = run(workspace)
    assert column(manifest, "status") == {"cat/a.png": "accepted"}
    assert column(manifest, "issues") == {"cat/a.png": ["outside_link"]}
    assert column(manifest, "seen") == {"cat/a.png": [f"leads to {outside}"]}


@not_windows
def test_a_link_inside_data_raw_is_no_fault(workspace: Workspace):
    save(workspace.raw / "cat/a.png", picture(1))
    (workspace.raw / "cat/b.png").symlink_to("a.png")
    assert column(run(workspace), "issues") == {"cat/a.png": [], "cat/b.png": ["exact_duplicate"]}


def test_a_folder_that_may_not_be_read_is_not_passed_over(workspace: Workspace):
    add_pictures(workspace.raw, 1, "cat")
    add_pictures(workspace.raw, 1, "dog", first=1)
    (workspace.raw / "dog").chmod(0)
    if os.access(workspace.raw / "dog", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match=r"dog cannot be read \(Permission denied\): check its permissions"):
        run(workspace)
    (workspace.raw / "dog").chmod(0o700)  # so that pytest can remove it


def test_a_jpeg_with_more_pictures_behind_it_counts_as_jpeg(tmp_path: Path):
    """MPO, as phones write it."""
    more = {"save_all": True, "append_images": [picture(2, 96, 80)]}
    data = encoded("MPO", **more)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    facts, codes = check(write(tmp_path / "cat/phone.jpg", data))
    assert codes == []
    assert (facts["format"], facts["width"], facts["height"]) == ("JPEG", 96, 80)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"", b"garbage", b"II*\0\x08\0\0\0\xff\xff" + b"\xaa" * 50], ids=["empty", "garbage", "cut"]
)
def test_damaged_exif_does_not_reject_an_image(form: str, exif: bytes, tmp_path: Path):
    facts, codes = check(write(tmp_path / f"cat/a.{form.lower()}", encoded(form, exif=b"Exif\0\0" + exif)))
    assert codes == []
    assert facts["orientation"] == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_size_is_as_stored_and_orientation_beside_it(form: str, orientation: int, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    facts, _ = check(write(tmp_path / f"cat/a.{form.lower()}", encoded(form, exif=exif)))
    assert (facts["width"], facts["height"], facts["orientation"]) == (96, 80, orientation)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_upright(value: int, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = value
    facts, codes = check(write(tmp_path / "cat/a.jpg", encoded("JPEG", exif=exif)))
    assert codes == []
    assert facts["orientation"] == 1


TEXT_BOMB = b"k\0\0" + zlib.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    "places",
    [
        {"before": chunk(b"zTXt", TEXT_BOMB)},
        {"after": chunk(b"zTXt", TEXT_BOMB)},
        {"before": chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT_BOMB[3:])},
        {"before": chunk(b"iCCP", TEXT_BOMB)},
    ],
    ids=["text before the pixels", "text behind them", "international text", "colour profile"],
)
def test_a_bomb_in_the_metadata_is_contained(places: dict[str, bytes], tmp_path: Path):
    _, codes = check(write(tmp_path / "cat/a.png", grey_png(40, 40, rows=40, **places)))
    assert codes == ["unsupported_variant"]  # it is whole: to download it again would not help


def test_a_folder_that_dvc_leaves_out_as_another_repository_is_refused(workspace: Workspace):
    add_pictures(workspace.raw, 2, "cat")
    (workspace.raw / "cat/.git").mkdir()
    (workspace.raw / "cat/.git/config").write_bytes(b"which DVC leaves out, and so do the stages")
    assert workspace.validate()["path"].to_list() == ["cat/img0.png", "cat/img1.png"]
    (workspace.raw / "cat/.dvc").mkdir()
    with pytest.raises(InputError, match=r"raw/cat/\.dvc: DVC leaves out the whole folder in which it lies"):
        workspace.validate()


def test_what_dvcignore_names_is_left_out_and_counted(workspace: Workspace, monkeypatch):
    add_pictures(workspace.raw, 2)
    for name in ("cat/.DS_Store", "cat/notes.txt", "Thumbs.db"):
        write(workspace.raw / name, b"junk")
    write(workspace.folder / ".dvcignore", b".DS_Store\nThumbs.db\n")
    monkeypatch.chdir(workspace.folder)
    summary = validate(Path("raw"), workspace.acknowledged, workspace.manifest, workspace.reports, Validate())
    assert re.search(r"2 accepted, 1 rejected .*; 2 more .*\.dvcignore;", summary)
    assert pl.read_parquet(workspace.manifest)["path"].to_list() == ["cat/img0.png", "cat/img1.png", "cat/notes.txt"]


@not_windows
def test_odd_names_are_no_fault(workspace: Workspace):
    names = [
        "a b.png",
        "ünï 猫 🐈.png",
        "<img src=x onerror=alert(1)>.png",
        "=cmd|' !A0.png",
        "-rf.png",
        'quote"s, and commas.png',
        "two\nlines.png",
        "back\\slash.png",
        "%20.png",
        "many.dots.in.it.png",
    ]
    for number, name in enumerate(names):
        save(workspace.raw / "=odd <b>class" / name, picture(number))
    manifest = run(workspace)
    assert set(manifest["path"]) == {f"=odd <b>class/{name}" for name in names}
    assert set(manifest["status"]) == {"accepted"}


@not_windows
def test_the_report_quotes_odd_names(workspace: Workspace):
    add_pictures(workspace.raw, 1)
    for name in ('quote"s, and commas.png', "two\nlines.png"):
        write(workspace.raw / "cat" / name, b"no image")
    run(workspace)
    assert [row["path"] for row in rejections(workspace)] == ['cat/quote"s, and commas.png', "cat/two\nlines.png"]


def test_of_duplicates_the_first_in_the_order_of_packs_is_kept(workspace: Workspace):
    for path in ("cat/img10.png", "cat/img2.png", "monday/cat/img1.png"):
        save(workspace.raw / path, picture(1))
    save(workspace.raw / "cat/other.png", picture(2))
    manifest = run(workspace)
    assert column(manifest, "issues") == {
        "cat/img2.png": [],
        "cat/img10.png": ["exact_duplicate"],
        "cat/other.png": [],
        "monday/cat/img1.png": ["exact_duplicate"],
    }
    assert [row["seen"] for row in rejections(workspace)] == ["same bytes as cat/img2.png"] * 2


def test_a_name_that_leaves_no_room_for_an_extension_is_rejected(workspace: Workspace):
    for length in (251, 252):
        write(workspace.raw / f"cat/{'n' * (length - 4)}.png", encoded("PNG", picture(length)))
    assert len(workspace.run()) == 1
    assert [row["code"] for row in rejections(workspace)] == ["bad_name"]


def test_of_duplicates_one_that_is_rejected_anyway_is_not_the_one_kept(workspace: Workspace):
    write(workspace.raw / "cat/a.jpg", encoded("PNG"))
    write(workspace.raw / "cat/b.png", encoded("PNG"))
    manifest = run(workspace, levels=Levels(extension_mismatch="error"))
    assert column(manifest, "status") == {"cat/a.jpg": "rejected", "cat/b.png": "accepted"}


def test_the_same_image_under_two_labels_is_rejected_in_every_batch(workspace: Workspace):
    add_pictures(workspace.raw, 1, "cat", first=1)
    add_pictures(workspace.raw, 1, "dog", first=2)
    for path in ("monday/cat/a.png", "monday/cat/b.png", "tuesday/dog/c.png"):
        save(workspace.raw / path, picture(3))
    issues = column(run(workspace), "issues")
    assert {path for path, codes in issues.items() if codes == ["label_conflict"]} == {
        "monday/cat/a.png",
        "monday/cat/b.png",
        "tuesday/dog/c.png",
    }
    seen = {row["path"]: row["seen"] for row in rejections(workspace)}
    assert seen["monday/cat/a.png"] == "same bytes as tuesday/dog/c.png"


def test_a_file_that_is_no_sample_makes_no_other_a_duplicate(workspace: Workspace):
    add_pictures(workspace.raw, 1)
    save(workspace.raw / "img0.png", picture(0))
    for name in ("a.txt", "b.txt"):
        write(workspace.raw / "cat" / name, b"text")
    issues = column(run(workspace), "issues")
    assert issues["cat/img0.png"] == []
    assert issues["img0.png"] == ["no_label"]
    assert issues["cat/a.txt"] == issues["cat/b.txt"] == ["not_image"]


def test_what_lies_in_a_junk_folder_is_compared_with_nothing_and_is_no_class(workspace: Workspace):
    add_pictures(workspace.raw, 2)
    copies = [
        "cat/.ipynb_checkpoints/img0-checkpoint.png", "cat/@eaDir/img0.png/SYNOPHOTO_THUMB.png",
        "__MACOSX/cat/img0.png", "2024/.AppleDouble/cat/img0.png", ".Trash-1000/files/dog/img0.png",
        "cat/.thumbnails/large/img0.png",
        "$RECYCLE.BIN/dog/IMG0.png", "lost+found/dog/img0.png", ".Spotlight-V100/dog/img0.png", "cat/@EADIR/img0.png",
    ]  # fmt: skip
    for path in copies:
        save(workspace.raw / path, picture(0))
    manifest = run(workspace)
    assert column(manifest, "issues") == {path: ["junk"] for path in copies} | {"cat/img0.png": [], "cat/img1.png": []}
    assert column(manifest, "seen")["cat/@eaDir/img0.png/SYNOPHOTO_THUMB.png"] == ["lies in a folder @eaDir"]
    assert column(manifest, "label") == dict.fromkeys(copies, "") | dict.fromkeys(
        ["cat/img0.png", "cat/img1.png"], "cat"
    )


@pytest.mark.slow
def test_dvc_and_validate_see_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / ".dvcignore", ".dvcignore")
    kept = ["cat/a.png", "cat/.ipynb_checkpoints/a.png", "__MACOSX/cat/a.png", "cat/@eaDir/a.png", "cat/.github/a.png"]
    ignored = [".DS_Store", "Thumbs.db", ".git/a.png", ".hg/a.png", ".stripping-1", "__pycache__/a.png"]
    for path in (*kept, *(f"cat/{name}" for name in ignored)):
        save(Path("data/raw", path).with_suffix(".png"), picture(0)).rename(Path("data/raw", path))
    dvc = partial(subprocess.run, check=True, capture_output=True, text=True)
    dvc(["dvc", "init", "--no-scm", "--quiet"])
    shutil.copy(REPOSITORY / ".dvcignore", ".dvcignore")
    dvc(["dvc", "add", "--quiet", "data/raw"])
    listed = dvc(["dvc", "ls", "--recursive", "--dvc-only", ".", "data/raw"]).stdout.split()
    found, left_out = raw_files.find(Path("data/raw"))
    assert sorted(found) == sorted(listed) == sorted(kept)
    assert left_out == len(ignored)
    save(Path("data/raw/cat/.dvc/a.png"), picture(0))
    dvc(["dvc", "add", "--quiet", "data/raw"])
    assert dvc(["dvc", "ls", "--recursive", "--dvc-only", ".", "data/raw"]).stdout.split() == ["__MACOSX/cat/a.png"]
    with pytest.raises(InputError, match=r"data/raw/cat/\.dvc: DVC leaves out the whole folder"):
        raw_files.find(Path("data/raw"))


def test_the_knob_for_which_a_whole_class_or_all_is_rejected_is_named(workspace: Workspace):
    add_pictures(workspace.raw, 2, "cat")
    save(workspace.raw / "dog/a.png", picture(8, 8, 8))
    write(workspace.raw / "dog/broken.png", b"text")
    write(workspace.raw / "fish/a.png", b"text")
    wanted = f"too_small, and validate.min_side is 16 in params.yaml: {FIXES['too_small']}"
    with pytest.raises(InputError) as error:
        run(workspace)
    lines = str(error.value).splitlines()
    assert lines[1:4] == [
        "  dog: all 2 files rejected",
        f"    1 of 2 are {wanted}",
        "  fish: its only file is rejected",
    ]
    with pytest.raises(InputError) as error:
        shutil.rmtree(workspace.raw / "fish")
        run(workspace, min_side=100)
    assert str(error.value).splitlines()[1:] == [f"  3 of 4 are {wanted.replace('16', '100')}"]


@pytest.mark.parametrize("level", ["error", "warning", "info", "ignore"])
def test_levels_say_what_follows_from_a_finding(level: str, workspace: Workspace):
    save(workspace.raw / "cat/good.png", picture(6))
    save(workspace.raw / "dog/good.png", picture(2))
    bad = {
        "cat/damaged.jpg": "jpeg_damage",
        "cat/jpeg.png": "extension_mismatch",
        "cat/small.png": "too_small",
        "cat/good copy.png": "exact_duplicate",
        "cat/both.png": "label_conflict",
        "dog/both.png": "label_conflict",
    }
    write(workspace.raw / "cat/damaged.jpg", overwritten(encoded("JPEG", noise(9, width=320, height=240)), bytes(300)))
    write(workspace.raw / "cat/jpeg.png", encoded("JPEG", picture(3)))
    save(workspace.raw / "cat/small.png", picture(4, 8, 8))
    save(workspace.raw / "cat/good copy.png", picture(6))
    for label in ("cat", "dog"):
        save(workspace.raw / label / "both.png", picture(5))
    manifest = run(workspace, levels=Levels(**dict.fromkeys(bad.values(), level), mode_mix="ignore"))
    issues, status = column(manifest, "issues"), column(manifest, "status")
    assert {issues[path] == ([] if level == "ignore" else [code]) for path, code in bad.items()} == {True}
    assert {status[path] for path in bad} == {"rejected" if level == "error" else "accepted"}
    assert {row["path"]: row["code"] for row in rejections(workspace)} == (bad if level == "error" else {})
    counts = {"exact_duplicate": 1, "extension_mismatch": 1, "jpeg_damage": 1, "label_conflict": 2, "too_small": 1}
    metrics = json.loads((workspace.reports / "validation.json").read_text())
    assert metrics["issues"] == ({} if level == "ignore" else counts)
    preprocess(
        workspace.raw, workspace.manifest, workspace.processed, Preprocess(size=16)
    )  # what is accepted is usable


def test_the_manifest_has_a_row_for_every_file_and_the_documented_columns(workspace: Workspace):
    add_pictures(workspace.raw, 3, "cat")
    write(workspace.raw / "cat/.hidden", b"x")
    write(workspace.raw / "a/b/c/deep.txt", b"x")
    add_pictures(workspace.raw, 1, "a/b/c", first=3)
    manifest = run(workspace)
    assert manifest.schema == COLUMNS
    assert set(manifest["path"]) == set(contents(workspace.raw))
    deep = manifest.row(by_predicate=pl.col("path") == "a/b/c/deep.txt", named=True)
    seen = deep.pop("seen")
    assert all(deep.pop(name) is None for name in ("brightness", "contrast", "saturation", "entropy", "sharpness"))
    assert deep == {
        "path": "a/b/c/deep.txt",
        "label": "c",
        "batch": "a/b",
        "sha256": hashlib.sha256(b"x").hexdigest(),
        "bytes": 1,
        "format": "",
        "mode": "",
        "kind": "",
        "width": 0,
        "height": 0,
        "orientation": 1,
        "frame": 0,
        "frames": 0,
        "pixel_hash": "",
        "perceptual_hash": "",
        "status": "rejected",
        "issues": ["not_image"],
        "group": "",
    }
    assert len(seen) == 1


def test_the_manifest_is_ordered_by_batch_then_name_then_label_with_numbers_by_value(workspace: Workspace):
    wanted = [
        "cat/harp.png",
        "cat/harp-2.png",
        "dog/harp-10.png",
        "dog/img1.png",
        "cat/img2.jpg",
        "cat/img2.png",
        "dog/img2.png",
        "cat/img10.png",
        "day2/dog/img1.png",
        "day2/cat/img2.png",
        "day10/cat/img1.png",
    ]
    for number, path in enumerate(sorted(wanted)):
        save(workspace.raw / path, picture(number))
    assert run(workspace)["path"].to_list() == wanted


def test_the_reports_count_and_list_what_was_found(workspace: Workspace):
    add_pictures(workspace.raw, 3, "cat")
    for number, width in enumerate((234, 229), 3):
        save(workspace.raw / f"dog/img{number}.png", picture(number, width, 45))
    write(workspace.raw / "dog/bad.png", b"no image")
    write(workspace.raw / "dog/jpeg.png", encoded("JPEG", picture(6)))
    run(workspace)
    assert (workspace.reports / "validation.json").read_text() == (
        '{\n  "files": 7,\n  "accepted": 6,\n  "rejected": 1,\n  "classes": 2,\n'
        '  "issues": {\n    "extension_mismatch": 1,\n    "not_image": 1\n  },\n'
        '  "near_duplicates": {\n    "groups": 0,\n    "images": 0,\n    "largest": 0\n  }\n}\n'
    )
    (row,) = rejections(workspace)
    assert list(row) == ["path", "code", "seen", "fix"]
    assert (row["path"], row["code"], row["fix"]) == ("dog/bad.png", "not_image", FIXES["not_image"])
    assert "no image" in row["seen"]
    plots = contents(workspace.reports / "plots")
    assert plots["classes.csv"] == b"label,images\ncat,3\ndog,3\n"
    assert plots["sizes.csv"] == b"width,height,images\n48,40,4\n230,45,2\n"


@linux_only
def test_two_runs_and_any_number_of_workers_give_the_same_bytes(workspace: Workspace, monkeypatch):
    add_every_fault(workspace.raw)
    add_pictures(workspace.raw, 100, "cat", first=1000)
    run(workspace)
    first = contents(workspace.reports), workspace.manifest.read_bytes()
    for workers in ("1", "4"):
        monkeypatch.setenv("STAGE_WORKERS", workers)
        run(workspace)
        assert (contents(workspace.reports), workspace.manifest.read_bytes()) == first


@linux_only
def test_the_raw_images_are_not_touched(workspace: Workspace):
    add_every_fault(workspace.raw)

    def state() -> dict[Path, tuple]:
        stats = {path: path.lstat() for path in workspace.raw.rglob("*")}
        return {path: (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}

    before = state(), contents(workspace.raw)
    run(workspace)
    assert (state(), contents(workspace.raw)) == before


@pytest.mark.parametrize("make", [Path.mkdir, lambda raw: None, lambda raw: (raw / "cat").mkdir(parents=True)])
def test_no_files_is_an_error_that_says_where_images_go(make: Callable[[Path], None], workspace: Workspace):
    make(workspace.raw)
    with pytest.raises(InputError) as error:
        run(workspace)
    assert str(error.value) == (
        f"{workspace.raw} holds no files: put your images into {workspace.raw}/CLASS/ and run again"
    )


def test_no_usable_image_is_an_error_that_counts_the_reasons(workspace: Workspace):
    add_pictures(workspace.raw, 1, "..")
    for name, data in (("a.jpg", b""), ("b.jpg", b""), ("c.jpg", b"text")):
        write(workspace.raw / "cat" / name, data)
    shutil.move(workspace.folder / "img0.png", workspace.raw)
    with pytest.raises(InputError) as error:
        run(workspace)
    assert str(error.value) == (
        "none of 4 files is an image that can be used: empty_file (2), not_image (1), no_label (1). "
        f"{workspace.reports / 'rejected.csv'} names each"
    )
    assert len(rejections(workspace)) == 4
    assert json.loads((workspace.reports / "validation.json").read_text())["accepted"] == 0


def test_a_class_without_images_is_an_error_that_names_it(workspace: Workspace):
    add_pictures(workspace.raw, 2, "cat")
    for name, label in (("a.jpg", "dog"), ("b.jpg", "dog"), ("c.jpg", "cow"), ("d.jpg", "cat")):
        write(workspace.raw / label / name, b"text")
    with pytest.raises(InputError) as error:
        run(workspace)
    assert str(error.value).splitlines() == [
        "these classes have no image left:",
        "  cow: its only file is rejected",
        "  dog: all 2 files rejected",
        f"{workspace.reports / 'rejected.csv'} says why: "
        "mend the files, or remove the folder of a class you do not want",
    ]
    assert len(rejections(workspace)) == 4
    assert len(pl.read_parquet(workspace.manifest)) == 6


@pytest.mark.slow
def test_a_file_that_takes_too_long_costs_itself_alone(workspace: Workspace):
    add_pictures(workspace.raw, 5)
    data = slow_bmp(4000)
    write(workspace.raw / "cat/slow.bmp", data)
    manifest = run(workspace, timeout=1)
    assert column(manifest, "issues") == {f"cat/img{i}.png": [] for i in range(5)} | {"cat/slow.bmp": ["timeout"]}
    slow = manifest.row(by_predicate=pl.col("path") == "cat/slow.bmp", named=True)
    assert (slow["sha256"], slow["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (slow["format"], slow["width"], slow["status"]) == ("", 0, "rejected")


def busy_workers(stage: psutil.Process) -> list[psutil.Process]:
    """Workers that have used more than the moment that a small picture takes; a server process forks them."""
    try:
        workers = [worker for server in stage.children() for worker in server.children()]
        return [worker for worker in workers if worker.cpu_times().user > 0.5]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow
@linux_only
def test_a_file_whose_worker_is_killed_each_time_costs_itself_alone(tmp_path: Path):
    add_pictures(tmp_path / "raw", 4)
    add_pictures(tmp_path / "raw", 1, "dog", first=4)
    write(tmp_path / "raw/cat/slow.bmp", slow_bmp(4000))
    (tmp_path / "params.yaml").write_text("{}\n")
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "STAGE_WORKERS": "1"}
    command = [
        sys.executable,
        "-m",
        "imagepack.engine",
        "validate",
        "raw",
        "acknowledged.csv",
        "manifest.parquet",
        "reports",
    ]
    stage = psutil.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    killed = 0
    while stage.poll() is None:
        for worker in busy_workers(stage):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                killed += 1
        time.sleep(0.05)
    printed = stage.communicate()[0]
    assert printed == "validate: 6 files in 2 classes: 5 accepted, 1 rejected (see reports/validation.html)\n"
    assert killed >= 2  # with others in its group, then by itself
    manifest = pl.read_parquet(tmp_path / "manifest.parquet")
    assert column(manifest, "issues")["cat/slow.bmp"] == ["decoder_crash"]


def test_zeros_that_an_encoder_wrote_are_no_damage(tmp_path: Path):
    """Of one tone, with tables made for the image: its pixels are hardly anything but zeros."""
    for options in ({"optimize": True}, {"progressive": True}, {}):
        for mode in ("L", "RGB"):
            data = encoded("JPEG", Image.new(mode, (4000, 3000), "white"), **options)
            assert check(write(tmp_path / "cat/blank.jpg", data))[1] == ["uniform"]
    assert bytes(1000) in encoded("JPEG", Image.new("L", (4000, 3000), "white"), optimize=True)


def test_zeros_that_refine_a_progressive_picture_are_no_damage(tmp_path: Path):
    """Where every coefficient is even, the scans that add the last bit add nothing but zeros."""
    signs = np.random.default_rng(0).choice([-8.0, 8.0], (8, 8, 60, 60))
    signs[0, 0] = 0
    cosines = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(8) + 1) / 16) / 2
    cosines[0] /= np.sqrt(2)
    blocks = np.einsum("ux,uvij,vy->ixjy", cosines, signs, cosines) + 128
    image = Image.fromarray(blocks.reshape(480, 480).round().astype(np.uint8))
    data = encoded("JPEG", image, progressive=True, qtables=[[4] * 64])
    assert bytes(100) in data
    assert check(write(tmp_path / "cat/even.jpg", data))[1] == []


def grain(number: int, mode: str = "RGB") -> Image.Image:
    """A picture with the noise of a sensor: some kilobytes in every format."""
    noise = np.random.default_rng(number).normal(0, 6, (160, 200, 3))
    image = Image.fromarray((np.asarray(picture(number, 200, 160)) + noise).clip(0, 255).astype(np.uint8))
    if mode == "RGBA":
        image.putalpha(picture(number + 1, 200, 160, "L"))
    return image.convert(mode)


def film(form: str, **options) -> bytes:
    """Two frames."""
    return encoded(form, grain(1), save_all=True, append_images=[grain(2)], **options)


DAMAGED = {  # name: a sound file, what part of it is damaged, how, and the code
    "lossy.webp": (encoded("WEBP", grain(1)), (0.2, 0.8), "zeros", "decode_error"),
    "changed.webp": (encoded("WEBP", grain(1)), (0.1, 0.9), "byte", "decode_error"),
    "lossless.webp": (encoded("WEBP", grain(1), lossless=True), (0.2, 0.8), "zeros", "decode_error"),
    "transparency.webp": (encoded("WEBP", grain(1, "RGBA"), quality=1), (0.1, 0.3), "zeros", "decode_error"),
    "later.webp": (film("WEBP"), (0.6, 0.9), "zeros", "later_frame_error"),
    "changed.gif": (encoded("GIF", grain(1)), (0.2, 0.9), "byte", "decode_error"),
    "interlaced.gif": (encoded("GIF", grain(1), interlace=1), (0.2, 0.9), "byte", "decode_error"),
    "later.gif": (film("GIF"), (0.6, 0.9), "byte", "later_frame_error"),
    "lzw.tif": (encoded("TIFF", grain(1), compression="tiff_lzw"), (0.1, 0.9), "byte", "decode_error"),
    "packbits.tif": (encoded("TIFF", grain(1), compression="packbits"), (0.1, 0.9), "zeros", "decode_error"),
    "jpeg.tif": (encoded("TIFF", grain(1), compression="jpeg"), (0.2, 0.8), "zeros", "decode_error"),
    "later.tif": (film("TIFF", compression="packbits"), (0.6, 0.9), "zeros", "later_frame_error"),
    "phone.jpg": (film("MPO"), (0.6, 0.8), "zeros", "later_frame_error"),
}


def damaged_copies(data: bytes, part: tuple[float, float], how: str) -> list[bytes]:
    """Twenty copies with 600 zeros or another byte somewhere in that part, which Pillow decodes."""
    copies = []
    for share in np.linspace(*part, 20):
        at = int(share * len(data))
        copy = data[:at] + (bytes(600) if how == "zeros" else bytes([data[at] ^ 0x24]))
        copy += data[len(copy) :]
        with suppress(Exception), Image.open(io.BytesIO(copy)) as image:
            for number in range(image.n_frames):
                image.seek(number)
                image.load()
            copies.append(copy)
    return copies


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_that_decoders_pass_over_is_found(name: str, tmp_path: Path):
    data, part, how, code = DAMAGED[name]
    assert set(check(write(tmp_path / "cat" / name, data))[1]) <= {"multi_frame"}
    copies = damaged_copies(data, part, how)
    found = [code in check(write(tmp_path / "cat" / name, copy))[1] for copy in copies]
    assert len(found) >= 3
    assert sum(found) >= (len(found) if how == "zeros" or "webp" in name else 1)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_damage_in_photographs_is_found_and_no_sound_file_is_called_damaged():
    from workshop.benchmarks import damage

    counts, rejected = damage.main([], 2)
    assert rejected == []
    assert counts.keys() == damage.KINDS.keys()
    missed = {kind: count["hole"] - count["hole_ours"] for kind, count in counts.items()}
    assert {kind for kind, holes in missed.items() if holes} == {"BMP", "TIFF"}
    assert counts["JPEG"]["hole_pillow"] == counts["WebP, lossy"]["hole_pillow"] == 0


def gif_of(codes: list[int], behind: bytes = b"") -> bytes:
    """A GIF of two pixels with these codes of 9 bits; and more behind them."""
    bits = sum(code << 9 * number for number, code in enumerate(codes))
    data = bits.to_bytes((9 * len(codes) + 7) // 8, "little") + behind
    screen = struct.pack("<6sHHBBB", b"GIF89a", 2, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + struct.pack("<BHHHHBBB", 0x2C, 0, 0, 2, 1, 0, 8, len(data)) + data + b"\0;"


GIF_CODES = {
    "a plain one": ([256, 0, 1, 257], b"", []),
    "without the last code, as of old encoders": ([256, 0, 1], b"", []),
    "bytes behind the last code": ([256, 0, 1, 257], bytes(9), []),
    "one pixel more": ([256, 0, 1, 1, 257], b"", ["decode_error"]),
    "one pixel less": ([256, 0, 257], b"", ["truncated"]),
}


@pytest.mark.parametrize("name", GIF_CODES)
def test_the_codes_of_a_gif_are_as_many_pixels_as_it_says(name: str, tmp_path: Path):
    codes, behind, wanted = GIF_CODES[name]
    file = write(tmp_path / "cat/a.gif", gif_of(codes, behind))
    assert check(file, min_side=1, uniform=0, low_information=0)[1] == wanted


def two_strips(rows_of_last: int) -> bytes:
    """A grey TIFF by PackBits, 5 rows, in strips of 4: the last has one, or what some writers fill it up to."""
    row = bytes([29, *range(100, 130)])
    return tiff_of([4 * row, rows_of_last * row], {257: [5], 259: [32773], 278: [4]})


@pytest.mark.parametrize(("rows", "wanted"), [(1, []), (4, []), (2, ["decode_error"])])
def test_a_strip_of_a_tiff_has_its_rows_or_those_of_the_others(rows: int, wanted: list[str], tmp_path: Path):
    file = write(tmp_path / "cat/a.tif", two_strips(rows))
    assert check(file, min_side=1)[1] == wanted


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits the other way round."""


@pytest.mark.parametrize(("method", "pack"), [(8, zlib.compress), (32773, lambda row: bytes([29]) + row)])
def test_bits_may_stand_the_other_way_round(method: int, pack: Callable[[bytes], bytes], tmp_path: Path):
    strip = pack(bytes(range(100, 130))).translate(REVERSED)
    data = tiff_of([strip], {257: [1], 259: [method], 266: [2], 278: [1]})
    assert check(write(tmp_path / "cat/a.tif", data), min_side=1, max_aspect=30)[1] == []


def test_a_phones_jpeg_without_its_further_picture_is_sound(tmp_path: Path):
    data = film("MPO")
    end = data.index(b"\xff\xd9") + 2
    assert data[end:].startswith(b"\xff\xd8")
    assert check(write(tmp_path / "cat/phone.jpg", data[:end]))[1] == []
    assert check(write(tmp_path / "cat/cut.jpg", data[: end + 3000]))[1] == ["later_frame_error"]


def test_a_later_page_of_a_kind_that_is_not_read_counts_only_where_it_is_used(tmp_path: Path):
    pages = encoded("TIFF", picture(1), save_all=True, append_images=[picture(2).convert("F"), picture(3)])
    file = write(tmp_path / "cat/a.tif", pages)
    facts, codes = check(file)
    assert (facts["frames"], codes) == (3, ["multi_frame"])
    split = Validate(**CALM, multi_frame="split")
    _, findings = checker(tmp_path, split)(["cat/a.tif"])
    assert {code for _, code, *_ in findings} == {"later_frame_error"}


def test_premultiplied_grey_and_bitmaps_without_a_file_header_are_read(workspace: Workspace):
    grey, opacity = np.arange(40, 240), np.full(200, 200)
    pixels = np.stack([grey * opacity // 255, opacity], 1).astype("u1").tobytes()
    write(workspace.raw / "cat/a.tif", tiff_of([pixels], {256: [20], 257: [10], 258: [8, 8], 277: [2], 338: [1]}))
    write(workspace.raw / "cat/b.dib", encoded("BMP", picture(2, 20, 10))[14:])
    packed = workspace.run(Validate(**CALM, min_side=1), Preprocess(size=10, fit="stretch"), Pack())
    manifest = pl.read_parquet(workspace.manifest)
    assert manifest.select("format", "status").rows() == [("TIFF", "accepted"), ("BMP", "accepted")]
    over_white = Image.fromarray((grey * opacity / 255 + 55).astype("u1").reshape(10, 20)).convert("RGB")
    for number, image in enumerate((over_white, picture(2, 20, 10))):
        shown = np.asarray(image.resize((10, 10), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(packed[number][0] - shown).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("width", [600, 2311])
def test_measures_depend_on_the_pixels_alone_however_they_are_stored(workspace: Workspace, mode: str, width: int):
    """Of a large JPEG they are taken from the decoded bytes, of other files from Pillow's image."""
    jpeg = save(workspace.raw / "cat/a.jpg", picture(1, width, 307, mode), quality=90)
    save(workspace.raw / "cat/b.png", Image.open(jpeg))
    measured = ("pixel_hash", "perceptual_hash", "brightness", "contrast", "saturation", "entropy", "sharpness")
    first, second = workspace.validate(Validate(**CALM)).select(measured).rows()
    assert first == second


def test_files_are_held_in_memory_few_at_a_time_and_large_ones_alone(tmp_path: Path):
    """Beside a large one others would be refused for want of memory."""
    sizes = [1, raw_files.HELD_BYTES, 1, 2, raw_files.HELD_BYTES - 2, 5, 50 * raw_files.HELD_BYTES, 1]
    names = [f"{number}.png" for number in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
    groups = list(raw_files.small_groups(tmp_path, [*names, "gone.png"]))
    assert groups == [names[:1], names[1:2], names[2:4], names[4:5], names[5:6], names[6:7], [*names[7:], "gone.png"]]


def test_images_stored_otherwise_than_most_are_told_from_them(workspace: Workspace):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for number in range(3):
        save(workspace.raw / f"cat/img{number}.jpg", picture(number))
    others = {
        "cmyk.jpg": (picture(10, mode="CMYK"), {}, "CMYK"),
        "deep.png": (Image.fromarray(np.asarray(noise(11)).astype("u2") * 257), {}, "I;16"),
        "grey.png": (picture(12, mode="L").convert("RGB"), {}, "RGB, all grey"),
        "palette.png": (picture(13, mode="P"), {"transparency": 3}, "P with transparency"),
        "profile.png": (picture(14), {"icc_profile": profile}, "RGB, profile Lab identity built-in"),
    }
    for name, (image, options, _) in others.items():
        save(workspace.raw / "cat" / name, image, **options)
    manifest = run(workspace, levels=Levels(reduced_depth="ignore"))
    assert column(manifest, "kind") == {f"cat/img{number}.jpg": "RGB" for number in range(3)} | {
        f"cat/{name}": kind for name, (_, _, kind) in others.items()
    }
    assert column(manifest, "seen") == {f"cat/img{number}.jpg": [] for number in range(3)} | {
        f"cat/{name}": [f"{kind}; most are RGB"] for name, (_, _, kind) in others.items()
    }


def test_the_frames_of_an_animation_are_counted_and_the_first_one_is_used(workspace: Workspace):
    for number, (form, name) in enumerate((("GIF", "a.gif"), ("TIFF", "b.tif"), ("PNG", "c.png"), ("WEBP", "d.webp"))):
        write(workspace.raw / "cat" / name, frames(3, form, first=300 + 10 * number))
    manifest = run(workspace)
    assert manifest["frames"].to_list() == [3, 3, 3, 3]
    assert manifest["issues"].to_list() == [["multi_frame"]] * 4
    assert manifest["status"].to_list() == ["accepted"] * 4
    assert column(run(workspace, max_frames=2), "seen")["cat/a.gif"] == ["2 frames at least"]


def test_where_files_are_split_each_frame_is_an_image(workspace: Workspace):
    for number, (form, name) in enumerate((("GIF", "a.gif"), ("TIFF", "b.tif"), ("PNG", "c.png"), ("WEBP", "d.webp"))):
        write(workspace.raw / "cat" / name, frames(11, form, first=300 + 20 * number))
    save(workspace.raw / "cat/plain.png", picture(400))
    write(workspace.raw / "cat/damaged.gif", frames(3, first=420)[:-200])
    save(workspace.raw / "cat/odd.png#2", picture(401), format="PNG")
    packed = workspace.run(Validate(**CALM, multi_frame="split"), packed=Pack(split=Split(leakage="allow")))
    wanted = [f"cat/{name}{f'#{k}' * (k > 1)}" for name in ("a.gif", "b.tif", "c.png", "d.webp") for k in range(1, 12)]
    assert [packed.path(i) for i in range(len(packed))] == [*wanted, "cat/plain.png"]
    assert len({image_id.tobytes() for image_id in packed.ids}) == 45
    manifest = pl.read_parquet(workspace.manifest)
    assert column(manifest, "frame")["cat/c.png#11"] == 11
    issues = column(manifest, "issues")
    assert issues["cat/damaged.gif"] == issues["cat/damaged.gif#2"] == ["later_frame_error"]
    assert issues["cat/odd.png#2"] == ["bad_name", "extension_mismatch"]
    split = {name: [part.path(i) for i in range(len(part))] for name in SPLITS for part in [packed.split(name)]}
    for name in ("a.gif", "b.tif", "c.png", "d.webp"):  # all frames of a file are of one split
        assert sum(f"cat/{name}" in paths and f"cat/{name}#11" in paths for paths in split.values()) == 1
    for number in range(11):  # TIFF and PNG keep the pixels
        for path, base in (("b.tif", 320), ("c.png", 340)):
            i = wanted.index(f"cat/{path}{f'#{number + 1}' * (number > 0)}")
            shown = ImageOps.fit(picture(base + number, 40, 32), (16, 16), Image.Resampling.BICUBIC)
            assert np.abs(packed[i][0].astype(int) - np.asarray(shown)).mean() < 2


def test_small_and_outnumbered_classes_are_reported(workspace: Workspace):
    add_pictures(workspace.raw, 12, "cat")
    add_pictures(workspace.raw, 3, "dog", first=20)
    add_pictures(workspace.raw, 4, "owl", first=30)
    run(workspace, min_class_images=4, max_class_ratio=3.5)
    page = (workspace.reports / "validation.html").read_text(encoding="utf-8")
    assert "3 accepted images" in page
    assert "3 images; cat has 12" in page
    metrics = json.loads((workspace.reports / "validation.json").read_text())
    assert metrics["issues"] == {"class_imbalance": 1, "class_too_small": 1}


def test_class_folders_that_are_one_on_other_disks_are_named(workspace: Workspace):
    add_pictures(workspace.raw, 2, "Cat")
    add_pictures(workspace.raw, 2, "cat", first=5)
    run(workspace)
    metrics = json.loads((workspace.reports / "validation.json").read_text())
    assert metrics["issues"] == {"name_collision": 2, "similar_class_names": 1}
    assert "in the same folder as Cat" in (workspace.reports / "validation.html").read_text(encoding="utf-8")


def test_names_that_differ_in_how_an_accent_is_written_collide(workspace: Workspace):
    for number, name in enumerate(("caf\u00e9.png", "cafe\u0301.png")):
        save(workspace.raw / "cat" / name, picture(number))
    if len(list((workspace.raw / "cat").iterdir())) < 2:
        pytest.skip("this disk keeps one of the two")
    issues = column(run(workspace), "issues")
    assert sorted(issues.values()) == [[], ["name_collision"]]


def test_the_page_shows_what_decodes_of_a_damaged_file(workspace: Workspace):
    add_pictures(workspace.raw, 1)
    write(workspace.raw / "cat/cut.jpg", cut(encoded("JPEG")))
    write(workspace.raw / "cat/notes.txt", b"text")
    run(workspace)
    page = (workspace.reports / "validation.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 1 + 1  # and a sample
    assert page.count("not decoded") == 1
