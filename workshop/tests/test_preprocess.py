"""Preprocessing: whatever way a file stores a picture, what comes out is what a viewer would show."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from conftest import REPOSITORY, Workspace, add_pictures, check_one, contents, picture, save
from PIL import Image, ImageCms

from imagepack.engine.memo import NO_MEMO
from imagepack.errors import InputError
from imagepack.images import containers, damage, png
from imagepack.packing.processed import Frame, write_images
from stages.preprocess import Preprocess, fit, make_png, preprocess, read
from stages.validate import Validate

ORIENTATION_TAG = 0x0112
STORED = {  # what a camera held that way stores of an upright picture, by EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
LOUD = (255, 0, 255)
BACKGROUND = [10, 200, 30]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def processed(path: Path, **params) -> np.ndarray:
    """Pixels, int, of what becomes of an image."""
    knobs = Preprocess(**params)
    return np.asarray(fit(read(path.read_bytes(), knobs), knobs)).astype(int)


def as_shown(image: Image.Image, folder: Path, **params) -> np.ndarray:
    """Pixels of what becomes of `image` if it is stored plainly."""
    return processed(save(folder / "plain/plain.png", image), **params)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference, 0 to 255."""
    assert one.shape == other.shape
    return float(np.abs(one - other).mean())


def twice(mode: str) -> tuple[Image.Image, Image.Image]:
    """A picture in RGB and in `mode`."""
    image = picture(1)
    if mode == "P":
        palette = image.quantize(40)
        return palette.convert("RGB"), palette
    if mode == "LAB":
        profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
        return image, ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    return image, image.convert(mode)


def stored(image: Image.Image, orientation: int) -> Image.Image:
    turn = STORED[orientation]
    return image if turn is None else image.transpose(turn)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of entries (tag, type, count, four bytes of value), which need not make sense; turned by 6."""
    entries = sorted([(ORIENTATION_TAG, 3, 1, b"\6\0\0\0"), *entries])
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_comes_out_upright(form: str, orientation: int, tmp_path: Path):
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    image = picture(1, 96, 64)
    options = {"quality": 95} if form in ("jpg", "webp", "avif") else {}
    path = save(tmp_path / f"a.{form}", stored(image, orientation), exif=tags, **options)
    shown = processed(path, size=64, fit="pad")
    assert difference(shown, as_shown(image, tmp_path, size=64, fit="pad")) < (0.01 if form in ("png", "tif") else 3)


@pytest.mark.parametrize(
    "entry",
    [
        (0x011A, 2, 4, b"abc\0"),
        (0x011A, 5, 1, b"\xff\xff\xff\x7f"),
        (0x0100, 2, 4, b"abc\0"),
        (0x0100, 9, 1, struct.pack("<i", -5)),
        (0x8769, 4, 1, b"\xff\xff\xff\xff"),
        (0x8825, 2, 4, b"abc\0"),
    ],
    ids=["resolution in words", "cut off", "width in words", "negative width", "points behind the end", "GPS in words"],
)
def test_odd_exif_does_not_keep_an_image_from_being_made_upright(entry: tuple, tmp_path: Path):
    image = picture(1, 96, 64)
    path = save(tmp_path / "cat/a.jpg", stored(image, 6), exif=exif(entry), quality=95)
    _, found = check_one(tmp_path, "cat/a.jpg", Validate(blurry=0))
    assert found == [("exif_orientation", "orientation 6")]
    assert difference(processed(path, size=64), as_shown(image, tmp_path, size=64)) < 3


SIXTEEN_BITS = np.repeat(np.array([0, 128, 25_700, 32_768, 65_280, 65_535], "u2"), 8)[None].repeat(48, axis=0)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("name", "dtype"), [("a.png", "<u2"), ("a.tif", "<u2"), ("a.tif", ">u2")], ids=["PNG", "TIFF", "big-endian TIFF"]
)
def test_sixteen_bits_are_scaled_not_clipped(name: str, dtype: str, mode: str, tmp_path: Path):
    path = save(tmp_path / name, Image.fromarray(SIXTEEN_BITS.astype(dtype)))
    shown = processed(path, size=48, fit="stretch", mode=mode).reshape(48, 48, -1)
    assert (shown == shown[:1, :, :1]).all()
    assert shown[0, ::8, 0].tolist() == pytest.approx([0, 0.5, 100, 127.5, 254, 255], abs=0.5)


def half_transparent(mode: str) -> Image.Image:
    """Its left half transparent over a loud colour, its right half opaque blue (grey 90 where there is no colour)."""
    image = Image.new("RGBA", (48, 48), (*LOUD, 0))
    image.paste((0, 0, 90, 255), (24, 0, 48, 48))
    if mode == "LA":
        image = Image.merge("LA", (Image.new("L", (48, 48), 90), image.getchannel("A")))
        image.paste((255, 0), (0, 0, 24, 48))
    if mode == "P":
        image = Image.new("P", (48, 48), 0)
        image.putpalette([*LOUD, 0, 0, 90])
        image.paste(1, (24, 0, 48, 48))
    if mode in ("L", "RGB"):
        image = image.convert("RGB").convert(mode)
    return image


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGBA", "a.png", {}),
        ("RGBA", "a.webp", {"lossless": True, "exact": True}),
        ("RGBA", "a.tif", {}),
        ("LA", "a.png", {}),
        ("P", "a.png", {"transparency": 0}),
        ("P", "a.png", {"transparency": b"\0\xff"}),
        ("P", "a.gif", {"transparency": 0}),
        ("RGB", "a.png", {"transparency": LOUD}),
        ("L", "a.png", {"transparency": 105}),  # what LOUD is in grey
    ],
)
def test_transparent_pixels_show_the_background_and_nothing_hidden(mode: str, name: str, options: dict, tmp_path: Path):
    image = half_transparent(mode)
    path = save(tmp_path / name, image, **options)
    opaque = np.asarray(image.convert("RGB"))[0, -1].astype(int)
    shown = processed(path, size=48, background=BACKGROUND)
    assert (shown[:, :24] == BACKGROUND).all()
    assert (shown[:, 24:] == opaque).all()
    small = processed(path, size=9, background=BACKGROUND)  # the border falls inside a pixel
    least, most = np.minimum(opaque, BACKGROUND), np.maximum(opaque, BACKGROUND)
    assert (small >= least - 20).all(), "bicubic overshoots by a little"
    assert (small <= most + 20).all()


def test_half_transparent_pixels_are_mixed_with_the_background(tmp_path: Path):
    path = save(tmp_path / "a.png", Image.new("RGBA", (20, 20), (200, 0, 100, 51)))
    assert processed(path, size=20, background=[0, 100, 100])[0, 0].tolist() == pytest.approx([40, 80, 100], abs=1)
    assert processed(path, size=20, background=[0, 100, 100], mode="L")[0, 0] == pytest.approx(70, abs=1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
def test_one_bit_images_come_out_black_and_white(name: str, mode: str, tmp_path: Path):
    bits = np.arange(48 * 48).reshape(48, 48) % 3 == 0
    shown = processed(save(tmp_path / name, Image.fromarray(bits)), size=48, mode=mode)
    assert (shown.reshape(48, 48, -1) == 255 * bits[..., None]).all()


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.jpg"),
        ("YCbCr", "a.tif"),
        ("LAB", "a.tif"),
        ("RGB", "a.bmp"),
        ("P", "a.png"),
        ("P", "a.gif"),
        ("P", "a.bmp"),
        ("P", "a.tif"),
    ],
)
def test_colours_are_right_however_they_are_stored(mode: str, name: str, tmp_path: Path):
    image, other = twice(mode)
    path = save(tmp_path / name, other, **({"quality": 95} if name.endswith("jpg") else {}))
    with Image.open(path) as file:
        assert ("adobe" in file.info) == ((mode, name) == ("CMYK", "a.jpg"))  # inverted, as Adobe writes it
    assert difference(processed(path, size=40), as_shown(image, tmp_path, size=40)) < 4


def swapped_profile() -> bytes:
    """An ICC profile (version 2) of a screen whose red and blue wires are exchanged, otherwise about sRGB."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + struct.pack(">IIHxx", 0, 1, round(2.2 * 256))
    white = fixed(0.9642, 1, 0.8249)
    text = b"Swapped\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(80),
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"rXYZ": b"XYZ " + bytes(4) + fixed(0.1431, 0.0606, 0.7141),
        b"gXYZ": b"XYZ " + bytes(4) + fixed(0.3851, 0.7169, 0.0971),
        b"bXYZ": b"XYZ " + bytes(4) + fixed(0.4361, 0.2225, 0.0139),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + white + bytes(48) + table + body


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.png"), ("RGB", "a.jpg"), ("RGB", "a.tif"), ("RGB", "a.avif"), ("RGBA", "a.png"), ("P", "a.png")],
)
def test_a_colour_profile_is_applied(mode: str, name: str, tmp_path: Path):
    image, other = twice(mode)
    path = save(tmp_path / name, other, icc_profile=swapped_profile())
    red, green, blue = image.split()
    shown = processed(path, size=40)
    assert difference(shown, as_shown(Image.merge("RGB", (blue, green, red)), tmp_path, size=40)) < 6
    assert difference(shown, as_shown(image, tmp_path, size=40)) > 30


def test_transparency_survives_a_colour_profile(tmp_path: Path):
    path = save(tmp_path / "a.png", half_transparent("RGBA"), icc_profile=swapped_profile())
    shown = processed(path, size=48, background=BACKGROUND)
    assert (shown[:, :24] == BACKGROUND).all()
    assert shown[0, -1].tolist() == pytest.approx([90, 0, 0], abs=3)


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"junk" * 100,
        swapped_profile()[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["empty", "damaged", "cut off", "of other colours", "sRGB"],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_profile_that_says_nothing_new_changes_nothing(profile: bytes, mode: str, tmp_path: Path):
    image = picture(1, mode=mode)
    path = save(tmp_path / "a.png", image, icc_profile=profile)
    assert difference(processed(path, size=40), as_shown(image, tmp_path, size=40)) == 0


def three_stripes(turned: bool) -> Image.Image:
    """60 x 40: its left 10 columns red, its right 10 blue, green between; or all that turned, 40 x 60."""
    image = Image.new("RGB", (60, 40), GREEN)
    image.paste(RED, (0, 0, 10, 40))
    image.paste(BLUE, (50, 0, 60, 40))
    return image.transpose(Image.Transpose.TRANSPOSE) if turned else image


@pytest.mark.parametrize("turned", [False, True])
def test_crop_keeps_the_centre(turned: bool, tmp_path: Path):
    shown = processed(save(tmp_path / "a.png", three_stripes(turned)), size=40, fit="crop")
    assert (shown == GREEN).all()


@pytest.mark.parametrize("turned", [False, True])
def test_pad_shows_all_of_it_on_the_background(turned: bool, tmp_path: Path):
    shown = processed(save(tmp_path / "a.png", three_stripes(turned)), size=60, fit="pad", background=BACKGROUND)
    shown = shown.transpose(1, 0, 2) if turned else shown
    assert (shown[:10] == BACKGROUND).all()
    assert (shown[50:] == BACKGROUND).all()
    assert (shown[10:50, :10] == RED).all()
    assert (shown[10:50, 10:50] == GREEN).all()
    assert (shown[10:50, 50:] == BLUE).all()


@pytest.mark.parametrize("turned", [False, True])
def test_stretch_shows_all_of_it_and_no_background(turned: bool, tmp_path: Path):
    path = save(tmp_path / "a.png", three_stripes(turned))
    shown = processed(path, size=120, fit="stretch", background=[255, 255, 255])
    shown = shown.transpose(1, 0, 2) if turned else shown
    assert (shown[:, :15] == RED).all()
    assert (shown[:, 25:95] == GREEN).all()
    assert (shown[:, 105:] == BLUE).all()


def test_the_background_is_grey_where_the_images_are(tmp_path: Path):
    path = save(tmp_path / "a.png", three_stripes(turned=False))
    shown = processed(path, size=60, fit="pad", mode="L", background=list(RED))
    assert shown.shape == (60, 60)
    assert (shown[:10] == 76).all()
    assert (shown[10:50, :10] == 76).all()  # the red stripe
    assert (shown[10:50, 10:50] == 150).all()


@pytest.mark.parametrize("size", [(16, 5000), (5000, 16)])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_very_long_image_is_seen_when_padded(name: str, size: tuple[int, int], tmp_path: Path):
    shown = processed(save(tmp_path / name, Image.new("RGB", size, (0, 0, 0))), size=32, fit="pad")
    assert (shown < 128).sum() == 32 * 3


@pytest.mark.parametrize(
    ("fitting", "width", "height"), [("crop", 703, 522), ("stretch", 703, 522), ("pad", 640, 480), ("crop", 480, 640)]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "params", [{}, {"exif": exif()}, {"progressive": True}], ids=["plain", "turned", "progressive"]
)
def test_a_jpeg_decoded_at_a_smaller_scale_shows_the_same(
    fitting: str, width: int, height: int, mode: str, params: dict, tmp_path: Path
):
    noise = np.random.default_rng(0).integers(-25, 25, (height, width, 3))
    image = Image.fromarray(np.clip(np.asarray(picture(3, width, height)) + noise, 0, 255).astype("u1"))
    path = save(tmp_path / "a.jpg", image, quality=90, **params)
    with Image.open(path) as file:
        full = file.convert("RGB")
    upright = full.transpose(Image.Transpose.ROTATE_270) if "exif" in params else full
    options = {"size": 60, "fit": fitting, "mode": mode, "background": BACKGROUND}
    assert difference(processed(path, **options), as_shown(upright, tmp_path, **options)) < 3


@pytest.mark.parametrize("size", [8, 40, 41, 300])
def test_an_image_smaller_or_larger_than_asked_for_has_the_size_asked_for(size: int, tmp_path: Path):
    path = save(tmp_path / "a.jpg", picture(1))
    for fitting in ("crop", "pad", "stretch"):
        assert processed(path, size=size, fit=fitting).shape == (size, size, 3)


def add_all_kinds(raw: Path) -> list[str]:
    """A file of each kind, all of them with whatever metadata the format can hold; their names."""
    more = {"exif": exif(), "icc_profile": swapped_profile(), "dpi": (300, 300), "comment": b"by me", "xmp": b"<x/>"}
    kinds = {
        "rgb.jpg": "RGB",
        "grey.jpg": "L",
        "cmyk.jpg": "CMYK",
        "rgba.png": "RGBA",
        "la.png": "LA",
        "palette.png": "P",
        "bits.png": "1",
        "grey.gif": "L",
        "palette.gif": "P",
        "rgb.bmp": "RGB",
        "cmyk.tif": "CMYK",
        "rgb.webp": "RGB",
        "rgb.tif": "RGB",
    }
    for number, (name, mode) in enumerate(kinds.items()):
        save(raw / "cat" / name, picture(number, mode=mode), **more)
    save(raw / "cat/deep.png", Image.fromarray(SIXTEEN_BITS), **more)
    return [*kinds, "deep.png"]


def png_chunks(data: bytes) -> set[bytes]:
    """The kinds of parts that a PNG file has."""
    kinds, at = set(), 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kinds.add(data[at + 4 : at + 8])
        at += length + 12
    return kinds


def run(workspace: Workspace, **params) -> str:
    """Validate and preprocess."""
    workspace.validate()
    return preprocess(workspace.raw, workspace.manifest, workspace.processed, Preprocess(**{"size": 24} | params))


@pytest.mark.parametrize(("mode", "fitting"), [("RGB", "crop"), ("L", "pad"), ("RGB", "stretch")])
def test_what_is_written_is_a_png_of_one_size_and_mode_without_metadata(mode: str, fitting: str, workspace: Workspace):
    names = add_all_kinds(workspace.raw)
    summary = run(workspace, mode=mode, fit=fitting)
    assert summary == f"{len(names)} images of 24 x 24 pixels, {mode}, in {workspace.processed}"
    written = contents(workspace.processed)
    assert set(written) == {f"cat/{name}.png" for name in names}
    for data in written.values():
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode, image.size) == ("PNG", mode, (24, 24))
        assert png_chunks(data) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (8, 8), (61, 37)])
def test_a_png_gives_every_pixel_back(mode: str, size: tuple[int, int]):
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype="u1")
    image = Image.fromarray(noise).convert(mode)
    data = png.encode(image)
    assert damage.damaged_png_chunk(data) == ""
    assert containers.end_of(data, "PNG") == len(data)
    again = Image.open(io.BytesIO(data))
    assert (again.mode, again.tobytes()) == (mode, image.tobytes())
    assert png.decode(data).tobytes() == image.tobytes()
    assert png.decode(data).shape == np.asarray(image).shape


def test_a_png_with_any_damage_or_of_another_program_is_left_to_pillow():
    image = picture(1, 9, 7)
    data = png.encode(image)
    for place in range(len(data)):
        assert png.decode(data[:place]) is None
        assert png.decode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) is None
    assert png.decode(data + b"\0") is None
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        other = io.BytesIO()
        Image.new(mode, (9, 7)).save(other, "PNG")
        assert png.decode(other.getvalue()) is None
    for width, height in ((0, 7), (9, 0), (9, 6), (9, 8), (8, 7), (2**31 - 1, 2**31 - 1)):  # of right checksums
        stored = data[png.BEFORE : -png.BEHIND]
        assert png.decode(png._file(width, height, 2, stored)) is None


def test_files_that_differ_in_their_extension_alone_stay_two(workspace: Workspace):
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE))
    save(workspace.raw / "monday/cat/a.png", red)
    save(workspace.raw / "monday/cat/a.bmp", blue)
    run(workspace)
    for name, colour in (("a.png.png", RED), ("a.bmp.png", BLUE)):
        with Image.open(workspace.processed / "monday/cat" / name) as image:
            assert image.getpixel((5, 5)) == colour


def test_rejected_images_are_left_out(workspace: Workspace):
    add_pictures(workspace.raw, 2, "cat")
    save(workspace.raw / "cat/small.png", picture(3, 8, 8))
    (workspace.raw / "cat/text.png").write_bytes(b"no image")
    run(workspace)
    assert set(contents(workspace.processed)) == {"cat/img0.png.png", "cat/img1.png.png"}


def test_images_that_are_gone_vanish_and_others_stay_as_they_were(workspace: Workspace):
    add_pictures(workspace.raw, 3, "cat")
    add_pictures(workspace.raw, 1, "dog", first=3)
    run(workspace)
    before = contents(workspace.processed)
    (workspace.raw / "cat/img1.png").unlink()
    (workspace.raw / "dog/img3.png").unlink()
    (workspace.raw / "dog").rmdir()
    run(workspace)
    assert contents(workspace.processed) == {
        name: before[f"cat/{name[4:]}"] for name in ("cat/img0.png.png", "cat/img2.png.png")
    }
    assert not (workspace.processed / "dog").exists()


def test_any_number_of_workers_gives_the_same_bytes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    add_all_kinds(workspace.raw)
    add_pictures(workspace.raw, 100, "dog", first=100)
    run(workspace)
    first = contents(workspace.processed)
    assert len(first) == 114
    for workers in ("1", "4"):
        monkeypatch.setenv("STAGE_WORKERS", workers)
        run(workspace)
        assert contents(workspace.processed) == first


def test_an_image_damaged_after_validation_ends_the_stage_with_its_name(workspace: Workspace):
    add_pictures(workspace.raw, 3)
    run(workspace)
    path = workspace.raw / "cat/img1.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError) as error:
        preprocess(workspace.raw, workspace.manifest, workspace.processed, Preprocess())
    assert str(error.value).startswith(f"{path} has changed since it was validated (")
    assert str(error.value).endswith("): run dvc repro --force validate, then dvc repro")


@pytest.mark.parametrize("data", [None, b"", b"no image", zlib.compress(b"x"), png.encode(Image.new("RGB", (9, 9)))])
def test_an_image_lost_or_replaced_after_validation_is_named(data: bytes | None, tmp_path: Path):
    path = tmp_path / "a.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png has changed since it was validated"):
        write_images(
            tmp_path,
            tmp_path,
            NO_MEMO.of(make_png),
            (Preprocess(),),
            [Frame("a.png", 1, bytes(32), len(data or b""), "a.png")],
        )


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker below the server process that forks it")
def test_a_killed_worker_ends_the_stage_with_a_clear_error(tmp_path: Path):
    first = save(tmp_path / "raw/cat/0.png", picture(1, 2400, 1600))
    for number in range(1, 300):
        (tmp_path / f"raw/cat/{number}.png").hardlink_to(first)
    paths = [f"cat/{number}.png" for number in range(300)]
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    table = {"path": paths, "batch": "", "status": "accepted", "frame": 1, "sha256": digest}
    table["bytes"] = first.stat().st_size
    pl.DataFrame(table).write_parquet(tmp_path / "manifest.parquet")
    (tmp_path / "params.yaml").write_text("{}\n")
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "STAGE_WORKERS": "1"}
    command = [sys.executable, "-m", "imagepack.engine", "preprocess", "raw", "manifest.parquet", "processed"]
    stage = psutil.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while stage.poll() is None:
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            for worker in [worker for server in stage.children() for worker in server.children()]:
                if worker.cpu_times().user > 0.3:
                    worker.kill()
        time.sleep(0.02)
    printed = stage.communicate()[0]
    assert stage.returncode == 1
    assert printed.startswith("preprocess: a worker process died after ")
    assert "of 300 images (killed, or out of memory?): run again" in printed
    assert "Traceback" not in printed
