"""Files written here value by value come out of preprocess as the values say, or validate refuses them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import check_one

from stages.params import Levels, Preprocess, Validate
from stages.preprocess import read

WIDTH, HEIGHT = 48, 40
CALM = {"blurry": 0, "levels": Levels(mode_mix="ignore", exif_orientation="ignore")}
TIFF_TYPES = {3: "H", 4: "I"}
PLANES, CHUNKY = 2, 1


def ramps(count: int, most: int = 65_535) -> np.ndarray:
    """Values 0 to `most` that differ in every band, int, (HEIGHT, WIDTH, count)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    steps = [x * HEIGHT + y, y * WIDTH + x, (x + y) * 22, 1900 - x - y * 40]
    return np.stack([step * most // (WIDTH * HEIGHT - 1) for step in steps[:count]], axis=-1)


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


def findings(data: bytes, folder: Path, suffix: str, **params) -> list[str]:
    """The codes that validate gives to a file."""
    (folder / "cat").mkdir(exist_ok=True)
    (folder / f"cat/a.{suffix}").write_bytes(data)
    return [code for code, _ in check_one(folder, f"cat/a.{suffix}", Validate(**CALM | params))[1]]


def shown(data: bytes, frame: int = 1, **params) -> np.ndarray:
    """What preprocess reads, int."""
    return np.asarray(read(data, Preprocess(size=WIDTH, **params), frame)).astype(int)


def eight(values: np.ndarray) -> np.ndarray:
    """16 bits as 8."""
    return np.rint(values / 257).astype(int)


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


def test_planes_of_premultiplied_colours_are_refused(tmp_path: Path):
    values = ramps(4)
    assert findings(tiff(values, 2, planes=PLANES, extra=(1,)), tmp_path, "tif") == ["unsupported_variant"]
