"""Preprocess: make each accepted image upright, 8-bit, of one mode and one size.

    python -m stages.preprocess data/raw data/validated/manifest.parquet data/processed

`fit` is the place for steps of your own: one image in, one image out.
"""

import io
import math
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from stages.params import Preprocess
from stages.toolkit import images, workers
from stages.toolkit import manifest as manifests
from stages.toolkit.errors import InputError
from stages.toolkit.memo import NO_MEMO, Memo
from stages.toolkit.stage import empty_folder, run_stage


def preprocess(raw: Path, manifest: Path, out: Path, params: Preprocess, memo: Memo = NO_MEMO) -> str:
    """Write each accepted image of `raw` to the same place under `out`, its name with .png behind it."""
    frames = manifests.read_accepted(manifest).select("path", "frame").rows()
    empty_folder(out)
    for folder in {Path(path).parent for path, _ in frames}:
        (out / folder).mkdir(parents=True, exist_ok=True)
    write = partial(write_images, raw, out, params, memo.of(make_png))
    for _ in memo.map_in_order(write, workers.groups(frames), len(frames), "preprocess"):
        pass
    where = f"{params.size} x {params.size} pixels, {params.mode}, in {out}"
    return f"{len(frames)} images of {where}{memo.summary()}"


def write_images(
    raw: Path, out: Path, params: Preprocess, png_of: Callable[..., bytes], frames: list[tuple[str, int]]
) -> None:
    """Runs in a worker; a path of the manifest and the number of the frame, from 1, an image.

    Raises:
        InputError: a file is not the one that validate accepted.
    """
    for path, frame in frames:
        source = raw / images.file_of(path, frame)
        try:
            png = png_of(_bytes(source), params, frame)
        except images.Fault as error:
            raise InputError(f"{source} has changed since it was validated ({error}): run dvc repro again") from None
        (out / f"{path}.png").write_bytes(png)


def _bytes(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise images.Fault("unreadable", error.strerror or str(error)) from None


def make_png(data: bytes, params: Preprocess, frame: int = 1) -> bytes:
    """The processed image of a file. What it returns must depend on its arguments alone, since the memo keeps it."""
    file = io.BytesIO()
    # No profile, as the pixels are sRGB by now. Level 1 is three times as fast as the default, and a tenth larger.
    fit(read(data, params, frame), params).save(file, "PNG", icc_profile=None, compress_level=1)
    return file.getvalue()


def read(data: bytes, params: Preprocess, frame: int = 1) -> Image.Image:
    """Open an image that validate has accepted: upright, 8 bits a channel, sRGB, of mode `params.mode`.

    A JPEG is decoded at the smallest scale (1, 1/2, 1/4, 1/8) that is no smaller than what `fit` needs.

    Raises:
        images.Fault: it does not decode.
    """
    image = images.open_image(images.with_end(data))
    try:
        image.seek(frame - 1)
        image.draft(None, _needed(image.size, params))
    except (OSError, EOFError) as error:
        raise images.Fault("decode_error", str(error)) from None
    images.decode(image)
    return in_mode(images.upright(image), params)


def fit(image: Image.Image, params: Preprocess) -> Image.Image:
    """Make `image` size x size pixels. Edit here.

    Args:
        image: upright, of mode `params.mode`, of any size.
        params: section `preprocess` of params.yaml; add a field in stages/params.py to add a knob.
    """
    size = (params.size, params.size)
    match params.fit:
        case "crop":
            return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        case "pad":
            scale = params.size / max(image.size)
            whole = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
            return ImageOps.pad(whole, size, color=_background(params))  # alone it would lose a very long image
        case "stretch":
            return image.resize(size, Image.Resampling.BICUBIC)


def in_mode(image: Image.Image, params: Preprocess) -> Image.Image:
    """Any mode to `params.mode`: 16 bits scaled to 8, colours to sRGB, transparency over the background."""
    image = images.eight_bit(image)
    if image.mode != "L" and (profile := image.info.get("icc_profile")):
        image = _to_srgb(image, profile)
    return images.over(image, tuple(params.background)).convert(params.mode)


def _needed(size: tuple[int, int], params: Preprocess) -> tuple[int, int]:
    """The least width and height from which `fit` need not enlarge."""
    if params.fit == "stretch":
        return params.size, params.size
    scale = params.size / (min(size) if params.fit == "crop" else max(size))
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _background(params: Preprocess) -> tuple[int, ...] | int:
    pixel = Image.new("RGB", (1, 1), tuple(params.background)).convert(params.mode)
    return pixel.getpixel((0, 0))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply the colour profile; where it is damaged or of another kind of pixels, viewers ignore it, and so do we."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    transform = _transform(profile, image.mode, mode)
    return ImageCms.applyTransform(image, transform) if transform else image


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str, to_mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where there is nothing to do: the profile is sRGB, or of no use."""
    if not images.profile_name(profile):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, to_mode)
    except (OSError, ImageCms.PyCMSError):
        return None


if __name__ == "__main__":
    run_stage(preprocess)
