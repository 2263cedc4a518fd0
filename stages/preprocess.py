"""Preprocess: make each accepted image upright, 8-bit, of one mode and one size.

    python -m imagepack.engine preprocess data/raw data/validated/manifest.parquet data/processed

Edit `fit` for steps of your own: one image in, one image out.
"""

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image, ImageOps
from pydantic import Field

from imagepack.engine.inputs import Input
from imagepack.engine.memo import NO_MEMO, Memo
from imagepack.engine.params import Section
from imagepack.engine.stage import empty_folder
from imagepack.images import colour, decode, png
from imagepack.images import manifest as manifests
from imagepack.names import counted
from imagepack.packing import processed

LIBRARIES = ("pillow", "numpy", "simplejpeg", "zlib-ng", "pillow-heif", "pillow-jxl-plugin")
"""Packages that decide what is written: after another version of one is installed, the memo starts afresh."""


class Preprocess(Section):
    """Section `preprocess` of params.yaml."""

    size: int = Field(128, ge=8, le=8192)
    fit: Literal["crop", "pad", "stretch"] = "crop"
    mode: Literal["RGB", "L"] = "RGB"
    background: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] = [255] * 3
    layout: Literal["folder", "zip"] = "folder"


def fit(image: Image.Image, params: Preprocess) -> Image.Image:
    """Make `image` size x size pixels. Edit here.

    Args:
        image: upright, of mode `params.mode`, of any size.
        params: section `preprocess`; add a field to `Preprocess` above to add a knob.
    """
    size = (params.size, params.size)
    match params.fit:
        case "crop":
            return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        case "pad":
            scale = params.size / max(image.size)
            whole = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
            pixel = Image.new("RGB", (1, 1), tuple(params.background)).convert(params.mode)
            return ImageOps.pad(whole, size, color=pixel.getpixel((0, 0)))  # alone it would lose a very long image
        case "stretch":
            return image.resize(size, Image.Resampling.BICUBIC)


def smallest(params: Preprocess, size: tuple[int, int]) -> tuple[int, int]:
    """Return the least width and height from which `fit` need not enlarge: a large JPEG is decoded no larger."""
    if params.fit == "stretch":
        return params.size, params.size
    scale = params.size / (min(size) if params.fit == "crop" else max(size))
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def read(data: bytes, params: Preprocess, frame: int = 1) -> Image.Image:
    """Decode a file that validate has accepted: upright, 8 bits a channel, sRGB, of mode `params.mode`.

    Raises:
        Fault: it does not decode.
    """
    image = decode.open_decoded(data, frame, partial(smallest, params))
    return colour.upright_srgb(image, params.mode, tuple(params.background))


def make_png(data: bytes, params: Preprocess, frame: int = 1) -> bytes:
    """Return the processed image of a file. It must depend on the arguments alone, since the memo keeps it."""
    return png.encode(fit(read(data, params, frame), params))


def preprocess(raw: Input, manifest: Input, out: Path, params: Preprocess, memo: Memo = NO_MEMO) -> str:
    """Write each accepted image of `raw` to the same place under `out`, its name with .png behind it, or into zips."""
    accepted = manifests.read_accepted(manifest, *processed.COLUMNS)
    zipped = processed.require_same_files(raw, manifest)
    empty_folder(out)
    pixels = params.model_copy(update={"layout": "folder"})  # no image depends on the layout, nor does its memo key
    arguments = raw, zipped, accepted, out, memo.of(make_png), memo, pixels
    if params.layout == "zip":
        processed.write_zips(*arguments, pixel_bytes=params.size**2 * len(params.mode))
    else:
        processed.write_files(*arguments)
    where = f"{params.size} x {params.size} pixels, {params.mode}, in {out}"
    return f"{counted(len(accepted), 'image')} of {where}{memo.summary()}"
