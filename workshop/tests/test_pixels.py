"""Files written here value by value come out of preprocess as the values say, or validate refuses them."""

import base64
import importlib.util
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, check_one
from hostile_files import chunk, encoded, gif_frame, segment
from PIL import Image

from imagepack.images import boxes, jpeg_xl
from stages.preprocess import Preprocess, read
from stages.validate import Validate

WIDTH, HEIGHT = 48, 40
OF_NO_CONCERN = {"uniform", "blurry", "reduced_depth"}
TIFF_TYPES = {3: "H", 4: "I"}
PLANES, CHUNKY = 2, 1


def ramps(count: int, most: int = 65_535) -> np.ndarray:
    """Values 0 to `most` that differ in every band, int, (HEIGHT, WIDTH, count)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    steps = [x * HEIGHT + y, y * WIDTH + x, (x + y) * 22, 1900 - x - y * 40]
    return np.stack([(step * most + 959) // (WIDTH * HEIGHT - 1) for step in steps[:count]], axis=-1)


def tiff(
    values: np.ndarray,
    photometric: int,
    bits: int = 16,
    order: str = "<",
    planes: int = CHUNKY,
    extra: tuple[int, ...] | None = None,
    strips: int = 1,
) -> bytes:
    """An uncompressed TIFF of values (height, width, bands); `extra` is the tag that explains what is no colour."""
    height, width, bands = values.shape
    rows = -(-height // strips)
    stored = values.astype(f"{order}u{bits // 8}")
    layers = np.moveaxis(stored, 2, 0) if planes == PLANES else stored[None]
    parts = [layer[top : top + rows].tobytes() for layer in layers for top in range(0, height, rows)]
    tags = {256: (4, width), 257: (4, height), 258: (3, *[bits] * bands), 259: (3, 1), 262: (3, photometric)}
    tags |= {273: (4, *parts), 277: (3, bands), 278: (4, rows), 279: (4, *map(len, parts)), 284: (3, planes)}
    tags |= {338: (3, *extra)} if extra else {}
    room = sum(size for kind, *inside in tags.values() if (size := len(inside) * (kind - 2) * 2) > 4)
    at = 8 + 2 + 12 * len(tags) + 4
    first = at + room
    tags[273] = (4, *[first + sum(map(len, parts[:number])) for number in range(len(parts))])
    directory, outside = b"", b""
    for tag, (kind, *inside) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(inside)}{TIFF_TYPES[kind]}", *inside)
        if len(value) > 4:
            value, outside = struct.pack(f"{order}I", at + len(outside)), outside + value
        directory += struct.pack(f"{order}HHI4s", tag, kind, len(inside), value)
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    return head + directory + bytes(4) + outside + b"".join(parts)


def findings(data: bytes, folder: Path, suffix: str, but: set[str] = OF_NO_CONCERN) -> list[str]:
    """The codes that validate gives to a file, but for some."""
    (folder / "cat").mkdir(exist_ok=True)
    (folder / f"cat/a.{suffix}").write_bytes(data)
    _, found = check_one(folder, f"cat/a.{suffix}", Validate())
    return [code for code, _ in found if code not in but]


def shown(data: bytes, frame: int = 1, **params) -> np.ndarray:
    """What preprocess reads, int."""
    return np.asarray(read(data, Preprocess(size=WIDTH, **params), frame)).astype(int)


def eight(values: np.ndarray) -> np.ndarray:
    """16 bits as 8."""
    return np.rint(values / 257).astype(int)


def png(values: np.ndarray, bits: int, colour: int, key: tuple[int, ...]) -> bytes:
    """A PNG of values (height, width, channels) with a key colour."""
    height, width, channels = values.shape
    as_bits = (values[..., None] >> np.arange(bits)[::-1] & 1).astype("u1").reshape(height, width * channels * bits)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(as_bits, axis=1))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    clear = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    return b"\x89PNG\r\n\x1a\n" + header + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey_profile(curve: list[int]) -> bytes:
    """An ICC profile (version 2) of a grey printer or screen: its tone curve, 16 bits, or one exponent times 256."""
    white = struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))
    text = b"Grey\0"
    parts = {
        b"desc": b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(79),
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + struct.pack(f">II{len(curve)}H", 0, len(curve), *curve),
    }
    at, table = 128 + 4 + 12 * len(parts), struct.pack(">I", len(parts))
    for name, data in parts.items():
        table += struct.pack(">4sII", name, at, len(data))
        at += len(data)
    head = struct.pack(">I4xI4s4s4s12x4s28x", at, 0x02100000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    return head + white + bytes(48) + table + b"".join(parts.values())


def over(colours: np.ndarray, alpha: np.ndarray, background: int = 255) -> np.ndarray:
    """Values 0 to 255, seen over `background`."""
    return np.rint((colours * alpha + background * (255 - alpha)) / 255).astype(int)


@pytest.mark.parametrize("strips", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", ["grey", "RGB", "RGBA", "CMYK"])
def test_planes_of_sixteen_bits_come_out_as_they_are_stored(bands: str, order: str, strips: int, tmp_path: Path):
    count = {"grey": 1, "RGB": 3}.get(bands, 4)
    values = ramps(count)
    photometric = {"grey": 1, "CMYK": 5}.get(bands, 2)
    extra = (2,) if bands == "RGBA" else None
    data = tiff(values, photometric, order=order, planes=PLANES, extra=extra, strips=strips)
    assert findings(data, tmp_path, "tif") == []
    right = eight(values)
    if bands == "RGBA":
        right = over(right[..., :3], right[..., 3:])
    if bands == "CMYK":
        right = np.rint((255 - right[..., :3]) * (255 - right[..., 3:]) / 255)
    assert np.abs(shown(data) - right).max() <= 2
    assert findings(data[:-1], tmp_path, "tif") in (["decode_error"], ["truncated"])


@pytest.mark.parametrize("planes", [CHUNKY, PLANES])
def test_premultiplied_colours_are_divided(planes: int, tmp_path: Path):
    values = ramps(4)
    values[..., 3] = np.maximum(values[..., 3], 20_000)
    alpha = values[..., 3:] / 65_535
    data = tiff(np.concatenate([values[..., :3] * alpha, values[..., 3:]], axis=2), 2, planes=planes, extra=(1,))
    assert findings(data, tmp_path, "tif") == []
    right = over(eight(values[..., :3]), 255 * alpha)
    assert np.abs(shown(data) - right).max() <= 3


@pytest.mark.parametrize(
    ("bits", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)], ids=lambda number: str(number)
)
def test_only_pixels_of_the_key_colour_are_transparent(bits: int, colour: int, tmp_path: Path):
    channels, most = (3 if colour else 1), 2**bits - 1
    values = ramps(channels, most)
    if bits == 16:  # a value of which Pillow sees the same, one off in the lower byte
        values[:8] = 40_000
        values[:4, :, -1] = 40_001
    key = tuple(int(value) for value in values[20 if bits < 16 else 5, 24])
    clear = (values == key).all(axis=2, keepdims=True)
    assert 0 < clear.mean() < 0.8
    data = png(values, bits, colour, key)
    assert findings(data, tmp_path, "png") == []
    right = np.rint(values * 255 / most).astype(int)
    expected = np.where(clear, 90, right) + np.zeros(3, int)
    assert np.abs(shown(data, background=[90, 90, 90]) - expected).max() <= 1


LINEAR = [256]
DOT_GAIN = [round(65_535 * ((1 - ink) * (1 - ink * 0.8 * (1 - ink)))) for ink in 1 - np.linspace(0, 1, 256)]
"""A curve of light over grey, about as that of a printer whose dots grow by a fifth."""


def in_srgb(light: np.ndarray) -> np.ndarray:
    """Light, 0 to 1, as 0 to 255 (IEC 61966-2-1)."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("curve", [LINEAR, DOT_GAIN], ids=["gamma 1", "dot gain"])
@pytest.mark.parametrize("kind", ["L.png", "L.jpg", "L.tif", "LA.png", "16.png", "16.tif"])
def test_a_grey_profile_is_applied(kind: str, curve: list[int], tmp_path: Path):
    mode, suffix = kind.split(".")
    values = np.repeat(np.arange(0, 256, 8), 8).reshape(32, 8)[..., None].repeat(2, 1)[..., 0] * 257
    image = Image.fromarray(values.astype("u2") if mode == "16" else (values // 257).astype("u1"))
    if mode == "LA":
        image = Image.merge("LA", (image, Image.new("L", image.size, 255)))
    file = io.BytesIO()
    form = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG"}[suffix]
    image.save(file, form, icc_profile=grey_profile(curve), **({"quality": 100} if suffix == "jpg" else {}))
    light = (
        np.interp(values / 65_535, np.linspace(0, 1, len(curve)), curve) / 65_535 if len(curve) > 1 else values / 65_535
    )
    right = in_srgb(light)
    assert np.abs(right - values / 257).mean() > 12
    assert np.abs(shown(file.getvalue(), mode="L") - right).max() <= (3 if suffix == "jpg" else 1)
    assert "unsupported_variant" not in findings(file.getvalue(), tmp_path, suffix)


def gif(*frames: tuple[int, int, int, int], screen: tuple[int, int] = (WIDTH, HEIGHT), control: bytes = b"") -> bytes:
    """A GIF of black frames (width, height, left, top) on a canvas whose background is the red of its palette."""
    head = struct.pack("<6sHHBBB", b"GIF89a", *screen, 0x81, 1, 0)
    palette = b"\0\0\0" + b"\xff\0\0" + b"\0\xff\0" * 2
    return head + palette + b"".join(control + gif_frame(*frame) for frame in frames) + b";"


def test_a_gif_is_transparent_where_nothing_was_painted(tmp_path: Path):
    first, second = (20, 10, 4, 6), (8, 30, 30, 2)
    data = gif(first, second)
    expected = np.full((HEIGHT, WIDTH, 3), 90)
    expected[6:16, 4:24] = 0
    assert (shown(data, background=[90, 90, 90]) == expected).all()
    expected[2:32, 30:38] = 0
    assert (shown(data, frame=2, background=[90, 90, 90]) == expected).all()
    removed = gif(first, second, control=b"\x21\xf9\4\x08\0\0\0\0")  # each frame is taken away before the next
    expected[6:16, 4:24] = 90
    assert (shown(removed, frame=2, background=[90, 90, 90]) == expected).all()
    whole = gif((WIDTH, HEIGHT, 0, 0))
    assert (shown(whole, background=[90, 90, 90]) == 0).all()


def test_validate_sees_a_gif_as_preprocess_does(tmp_path: Path):
    clear = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (4, 6, 24, 16))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.gif").write_bytes(gif((20, 10, 4, 6)))
    clear.save(tmp_path / "cat/a.png")
    rows = [check_one(tmp_path, f"cat/a.{suffix}", Validate())[0] for suffix in ("gif", "png")]
    assert rows[0][13] == rows[1][13] != ""
    assert rows[0][15] == rows[1][15] > 200


@pytest.mark.parametrize("planes", [CHUNKY, PLANES])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("bands", "extra", "codes"),
    [(4, None, ["extra_bands"]), (4, (0,), ["extra_bands"]), (4, (2,), []), (3, None, [])],
    ids=["a fourth band without a tag", "a fourth band of no kind", "transparency", "colours alone"],
)
def test_a_band_that_the_file_does_not_explain_is_named_and_never_transparency(
    bands: int, extra: tuple | None, codes: list[str], bits: int, planes: int, tmp_path: Path
):
    values = ramps(bands, 2**bits - 1)
    data = tiff(values, 2, bits, planes=planes, extra=extra)
    if (bits, planes, extra) == (8, PLANES, (0,)):
        assert findings(data, tmp_path, "tif") in (["decode_error"], ["unsupported_variant"])  # Pillow refuses it
        return
    if (bits, planes, bands, extra) == (16, PLANES, 4, None):
        assert findings(data, tmp_path, "tif") == ["unsupported_variant"]  # libtiff takes it for premultiplied
        return
    assert findings(data, tmp_path, "tif") == codes
    right = values * 255 / (2**bits - 1)
    right = over(right[..., :3], right[..., 3:]) if extra == (2,) else right[..., :3]
    assert np.abs(shown(data) - right).max() <= 2


@pytest.mark.parametrize("photometric", [1, 2], ids=["grey", "RGB"])
@pytest.mark.parametrize(
    ("most", "codes"),
    [(4095, ["unused_range", "dark"]), (16_383, ["unused_range"]), (16_640, ["reduced_depth"])],
    ids=["12 bits", "14 bits", "nearly"],
)
def test_values_that_were_not_scaled_to_sixteen_bits_are_named(
    most: int, codes: list[str], photometric: int, tmp_path: Path
):
    data = tiff(ramps(1 if photometric == 1 else 3, most), photometric)
    assert findings(data, tmp_path, "tif", but={"blurry"}) == codes


def test_a_picture_of_one_dark_tone_is_not_said_to_be_of_fewer_bits(tmp_path: Path):
    data = tiff(np.full((HEIGHT, WIDTH, 1), 1000), 1)
    assert findings(data, tmp_path, "tif", but=set()) == ["reduced_depth", "uniform"]


ARITHMETIC = base64.b85decode(
    b"|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`kO^Py"
    b"gEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2J01*fPC;%`60U`hb5di}c0sqV"
    b"Z3IGrg1pyEd1^?Or3<CiG0ucid06zfIkwUK;{#+v|(y0B!sfn+Z)&%S!;1sUxfhl}8BGuqrGeNoI?9SUgIUw~Cd1;pQ)dK$j?k-"
    b"DixUMX8RK+eKzo<2A@h7a)&27dXZ;(Rn)*jQu<CnQ6m*={<Uomet2{nNm`d=`pj``v9aZANy7n<yGZ-=-"
    b"XRE}K3Rm3RGKv@ehSo?;pG*48@jsUDL_eW3KJxJt3OhUfiF&#s5z|rbA_ATc7O(NEN<c^4zT!BC5n6j!sTlaocqhFDL#ct=to?^M?{^!s@J}I%Y("
    b"_kzk`bLEd0bG4aYtP*y;xdC~+#IB!hWoR5I%!j4B~xJt>!@*zA&mdo"
)
"""A JPEG of 48 x 40 smooth pixels, coded arithmetically (made by jpegtran of noise that was scaled up)."""


def lossless_jpeg(values: np.ndarray) -> bytes:
    """A JPEG of values (height, width, channels), coded as steps from the left one (ITU T.81, annex H)."""
    height, width, channels = values.shape
    before = np.concatenate([np.full((1, 1, channels), 128), values[:-1, :1]])
    steps = np.diff(values.astype(int), axis=1, prepend=before).ravel().tolist()
    bits = ""
    for step in steps:
        length = abs(step).bit_length()
        bits += f"{length:05b}" + (f"{step if step > 0 else step + 2**length - 1:0{length}b}" if length else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    parts = range(1, channels + 1)
    frame = struct.pack(">BHHB", 8, height, width, channels) + b"".join(bytes([part, 0x11, 0]) for part in parts)
    codes = bytes([0, 0, 0, 0, 0, 17, *bytes(11), *range(17)])  # 17 lengths, each by a code of 5 bits
    first = bytes([channels]) + b"".join(bytes([part, 0]) for part in parts) + b"\1\0\0"
    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, codes) + segment(0xDA, first) + scan + b"\xff\xd9"


def test_a_long_arithmetic_jpeg_is_read_whole_and_scaled(tmp_path: Path):
    scan = ARITHMETIC.index(b"\xff\xda")
    padding = segment(0xEF, bytes(65_500 - scan))  # so that the scan reaches over 64 KiB, which Pillow reads at once
    data = ARITHMETIC[:2] + padding + ARITHMETIC[2:]
    assert findings(data, tmp_path, "jpg") == []
    right = np.asarray(Image.open(io.BytesIO(ARITHMETIC))).astype(int)
    assert (shown(data) == right).all()
    small = np.asarray(read(data, Preprocess(size=10, fit="stretch")))
    assert small.shape[:2] in ((10, 12), (20, 24))
    by = HEIGHT // small.shape[0]
    assert np.abs(small - right.reshape(HEIGHT // by, by, WIDTH // by, by, 3).mean((1, 3))).mean() < 8


@pytest.mark.parametrize("channels", [1, 3])
def test_a_lossless_jpeg_comes_out_as_it_is_stored_at_any_size(channels: int, tmp_path: Path):
    values = ramps(channels, 255)
    data = lossless_jpeg(values)
    assert findings(data, tmp_path, "jpg") == []
    for size in (8, WIDTH):
        assert (np.asarray(read(data, Preprocess(size=size))) == values).all()


EXACT = {"quality": 100, "subsampling": "4:4:4"}
"""Ways to save AVIF that leave colours as they are, but for rounding."""


def test_every_frame_of_an_avif_comes_out_as_it_is_stored(tmp_path: Path):
    values = ramps(4, 255).astype("u1")
    values[..., 3] = np.maximum(values[..., 3], 60)
    frames = [Image.fromarray(turned) for turned in (values, values[::-1].copy(), values[:, ::-1].copy())]
    data = encoded("AVIF", frames[0], save_all=True, append_images=frames[1:], **EXACT)
    assert findings(data, tmp_path, "avif") == ["multi_frame"]
    for number, frame in enumerate(frames, 1):
        right = np.asarray(frame).astype(int)
        assert np.abs(shown(data, number) - over(right[..., :3], right[..., 3:])).max() <= 3


def test_an_avif_brighter_than_white_is_refused_and_other_curves_are_not(tmp_path: Path):
    data = encoded("AVIF", Image.fromarray(ramps(3, 255).astype("u1")), **EXACT)
    at = data.index(b"nclx") + 6
    assert findings(data, tmp_path, "avif") == []
    for transfer, codes in ((1, []), (16, ["unsupported_variant"]), (18, ["unsupported_variant"])):
        changed = data[:at] + struct.pack(">H", transfer) + data[at + 2 :]
        assert findings(changed, tmp_path, "avif") == codes


def test_the_bits_of_an_avif_are_read_from_its_boxes():
    data = encoded("AVIF", Image.fromarray(ramps(3, 255).astype("u1")))
    at = data.index(b"pixi") + 9
    assert boxes.bits(data) == 8
    assert boxes.bits(data[:at] + b"\x0a\x0a\x0a" + data[at + 3 :]) == 10


def test_zeros_beside_the_pixels_of_an_avif_are_no_damage(tmp_path: Path):
    """Such as what cameras leave in their notes."""
    notes = Image.Exif()
    notes[0x927C] = bytes(1000)
    data = encoded("AVIF", Image.fromarray(ramps(3, 255).astype("u1")), exif=notes)
    assert boxes.HOLE in data
    assert findings(data, tmp_path, "avif") == []


def as_heic(image: Image.Image, **options) -> bytes:
    """A HEIC whose colours are as they were, but for rounding; skips the test where the extra is not installed."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    return encoded("HEIF", image, **{"quality": 100, "chroma": "444"} | options)


def test_every_picture_of_a_heic_comes_out_as_it_is_stored_the_primary_one_first(tmp_path: Path):
    values = ramps(3, 255).astype("u1")
    files = [Image.fromarray(turned) for turned in (values, values[::-1].copy(), values[:, ::-1].copy())]
    data = as_heic(files[0], save_all=True, append_images=files[1:], primary_index=1)
    assert findings(data, tmp_path, "heic") == ["multi_frame"]
    for number, image in enumerate([files[1], files[0], files[2]], 1):
        assert np.abs(shown(data, number) - np.asarray(image)).max() <= 3


def test_a_turned_heic_is_turned_once(tmp_path: Path):
    values = ramps(3, 255).astype("u1")
    tags = Image.Exif()
    tags[0x0112] = 6
    data = as_heic(Image.fromarray(values), exif=tags.tobytes())
    assert findings(data, tmp_path, "heic") == []
    assert np.abs(shown(data) - np.rot90(values, -1)).max() <= 3


def test_damage_to_a_heic_is_found(tmp_path: Path):
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype="u1")
    data = as_heic(Image.fromarray(noise))
    middle = len(data) // 2
    assert findings(data, tmp_path, "heic") == []
    assert findings(data[:middle] + bytes(8) + data[middle + 8 :], tmp_path, "heic") == ["decode_error"]
    assert findings(data + bytes(20), tmp_path, "heic") == ["trailing_bytes"]
    for end in range(40, len(data), len(data) // 40):
        assert findings(data[:end], tmp_path, "heic") in (["truncated"], ["decode_error"])


def test_ten_bits_of_a_heic_become_eight_with_a_finding(tmp_path: Path):
    heif = pytest.importorskip("pillow_heif")
    values, file = ramps(3), io.BytesIO()
    deep = heif.from_bytes("RGB;16", (WIDTH, HEIGHT), values.astype("<u2").tobytes())
    deep.save(file, quality=100, chroma="444")
    assert findings(file.getvalue(), tmp_path, "heic", but={"blurry"}) == ["reduced_depth"]
    assert np.abs(shown(file.getvalue()) - eight(values)).max() <= 3


def as_jpeg_xl(image: Image.Image, **options) -> bytes:
    """A JPEG XL that loses nothing; skips the test where the extra is not installed."""
    pytest.importorskip("pillow_jxl")
    return encoded("JXL", image, **{"lossless": True} | options)


@pytest.mark.parametrize("in_boxes", [False, True])
@pytest.mark.parametrize("channels", ["grey", "RGB", "RGBA"])
def test_a_jpeg_xl_comes_out_as_it_is_stored(channels: str, in_boxes: bool, tmp_path: Path):
    values = ramps({"grey": 1, "RGB": 3}.get(channels, 4), 255)
    data = as_jpeg_xl(Image.fromarray(values.astype("u1").squeeze()), use_container=in_boxes)
    assert findings(data, tmp_path, "jxl") == []
    right = over(values[..., :3], values[..., 3:]) if channels == "RGBA" else values
    assert np.abs(shown(data) - right).max() <= 1


def test_damage_to_a_jpeg_xl_is_found(tmp_path: Path):
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype="u1")
    data = as_jpeg_xl(Image.fromarray(noise), use_container=True)
    middle = len(data) // 2
    assert findings(data, tmp_path, "jxl") == []
    assert findings(data[:middle] + bytes(40) + data[middle + 40 :], tmp_path, "jxl") == ["decode_error"]
    assert findings(data + bytes(20), tmp_path, "jxl") == ["trailing_bytes"]
    for end in range(40, len(data), len(data) // 40):
        assert findings(data[:end], tmp_path, "jxl") in (["truncated"], ["decode_error"])


def test_a_jpeg_xl_of_sixteen_bits_is_scaled_with_a_finding(tmp_path: Path):
    values = ramps(1)[..., 0]
    data = as_jpeg_xl(Image.fromarray(values.astype("u2")))
    assert findings(data, tmp_path, "jxl", but={"blurry"}) == ["reduced_depth"]
    right = in_srgb(values / 65_535)  # the plugin says of 16 bits that they are light
    assert np.abs(shown(data)[..., 0] - right).max() <= 1


def test_a_turned_jpeg_xl_is_turned_once(tmp_path: Path):
    """EXIF does not count; it does for a JPEG in JPEG XL."""
    values = ramps(3, 255).astype("u1")
    tags = Image.Exif()
    tags[0x0112] = 6
    data = as_jpeg_xl(Image.fromarray(values), exif=tags.tobytes())
    assert np.abs(shown(data) - values).max() <= 1
    Image.fromarray(values).save(tmp_path / "a.jpg", exif=tags, quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as jpeg:
        data = as_jpeg_xl(jpeg, lossless_jpeg=True)
    assert np.abs(shown(data) - np.rot90(values, -1)).mean() < 3
    assert findings(data, tmp_path, "jxl") == ["exif_orientation"]


def test_the_header_of_a_jpeg_xl_says_what_its_library_does_not(tmp_path: Path):
    """Bits, the lowest first, of ISO 18181-1: sizes, then what is not as usual."""

    def file(*numbers: tuple[int, int]) -> bytes:
        bits = "".join(format(value, f"0{count}b")[::-1] for value, count in numbers if count)
        return b"\xff\x0a" + int(bits[::-1], 2).to_bytes(40, "little")

    side = ((0, 1), (1, 2), (4999, 13), (0, 3), (2, 2), (99_999, 18))
    assert jpeg_xl.header(file((1, 1), (4, 5), (7, 3), (1, 1))) == jpeg_xl.Header(80, 40)
    assert jpeg_xl.header(file(*side, (1, 1))) == jpeg_xl.Header(100_000, 5000)
    assert jpeg_xl.header(file(*side, (0, 1), (0, 1), (0, 1), (2, 2))).bits == 12
    turned = (*side, (0, 1), (1, 1), (5, 3), (0, 1))
    preview = ((1, 1), (1, 1), (1, 2), (1, 3))
    assert jpeg_xl.header(file(*turned, (0, 1), (1, 1))).animated
    assert jpeg_xl.header(file(*turned, *preview, (1, 1))).animated
    assert jpeg_xl.header(file(*turned, *preview, (0, 1), (0, 1), (1, 2))) == jpeg_xl.Header(100_000, 5000, False, 10)
    if importlib.util.find_spec("pillow_jxl"):
        assert findings(file(*turned, (0, 1), (1, 1)), tmp_path, "jxl") == ["bomb"]
        small = ((1, 1), (4, 5), (7, 3), (0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1))
        assert findings(file(*small), tmp_path, "jxl") == ["unsupported_variant"]


@pytest.mark.slow
def test_a_library_for_more_formats_that_is_installed_later_makes_the_memo_look_again(tmp_path: Path):
    """Files that were rejected for want of it are known to the memo."""
    if importlib.util.find_spec("pillow_heif"):
        pytest.skip("it is installed")
    code = (
        "from imagepack.engine import dependencies; from stages.validate import LIBRARIES;"
        "print(dependencies.of_files([], LIBRARIES).digest.hex())"
    )

    def digest(path: Path) -> str:
        env = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{REPOSITORY}"}
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout

    for version in ("1", "2"):
        folder = tmp_path / version / f"pillow_heif-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pillow-heif\nVersion: {version}\n")
    digests = [digest(tmp_path / name) for name in ("none", "1", "2", "none")]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]
