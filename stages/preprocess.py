"""Preprocess: make each accepted image upright, 8-bit, of one mode and one size.

    python -m stages.preprocess data/raw data/validated/manifest.parquet data/processed

`fit` is the place for steps of your own: one image in, one image out.
"""

import hashlib
import io
import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import polars as pl
from PIL import Image, ImageCms, ImageOps

from stages.params import Preprocess
from stages.toolkit import images, png, raw_files, workers, zips
from stages.toolkit import manifest as manifests
from stages.toolkit.cuts import PNG_SHARE, cut
from stages.toolkit.errors import InputError
from stages.toolkit.memo import NO_MEMO, Memo
from stages.toolkit.raw_files import RawFile
from stages.toolkit.stage import empty_folder, run_stage


def preprocess(raw: Path, manifest: Path, out: Path, params: Preprocess, memo: Memo = NO_MEMO) -> str:
    """Write each accepted image of `raw` to the same place under `out`, its name with .png behind it, or into zips."""
    order = ("sha256", "batch") if params.layout == "zip" else ()
    accepted = manifests.read_accepted(manifest, "path", "frame", "bytes", *order)
    frames = find_files(raw, accepted)
    empty_folder(out)
    how = params.model_copy(update={"layout": "folder"})  # no image depends on it, nor its place in the memo
    png_of = memo.of(make_png)
    if params.layout == "zip":
        ids = manifests.hashes(accepted["sha256"])
        starts = cut(ids, accepted["batch"], images_per_zip(params))
        tasks = (frames[a:b] for a, b in itertools.pairwise(starts))
        write = partial(write_zip, raw, out, how, png_of)
    else:
        for folder in {Path(path).parent for path, *_ in frames}:
            (out / folder).mkdir(parents=True, exist_ok=True)
        tasks = workers.groups(frames)
        write = partial(write_images, raw, out, how, png_of)
    for _ in memo.map_in_order(write, tasks, len(frames), "preprocess"):
        pass
    where = f"{params.size} x {params.size} pixels, {params.mode}, in {out}"
    return f"{len(frames)} images of {where}{memo.summary()}"


def find_files(raw: Path, accepted: pl.DataFrame) -> list[tuple[str, int, RawFile]]:
    """Path and number of the frame of each image, and where its file is.

    Raises:
        InputError: one in a zip has another size than validate saw, and is not to be unpacked.
    """
    zipped, frames = raw_files.members(raw), []
    for path, frame, size in accepted.select("path", "frame", "bytes").iter_rows():
        file = images.file_of(path, frame)
        member = zipped.get(file)
        if member and member.bytes != size:
            raise InputError(f"{raw / file} has changed since it was validated: run dvc repro again")
        frames.append((path, frame, member or file))
    return frames


def images_per_zip(params: Preprocess) -> int:
    """About how many make a zip of zips.TYPICAL_BYTES; of params alone, so that no other image changes a zip."""
    return max(1, int(zips.TYPICAL_BYTES / (params.size**2 * len(params.mode) * PNG_SHARE)))


def write_images(
    raw: Path, out: Path, params: Preprocess, png_of: Callable[..., bytes], frames: list[tuple[str, int, RawFile]]
) -> None:
    """Runs in a worker; of each image a path of the manifest, the number of the frame, from 1, and the file.

    Raises:
        InputError: a file is not the one that validate accepted.
    """
    for path, content in _pngs(raw, params, png_of, frames):
        (out / path).write_bytes(content)


def write_zip(
    raw: Path, out: Path, params: Preprocess, png_of: Callable[..., bytes], frames: list[tuple[str, int, RawFile]]
) -> None:
    """As `write_images`, into one zip, which is called after its content."""
    file = io.BytesIO()
    zips.write(file, _pngs(raw, params, png_of, frames))
    content = file.getbuffer()
    (out / zips.name_of(hashlib.sha256(content).hexdigest())).write_bytes(content)


def _pngs(
    raw: Path, params: Preprocess, png_of: Callable[..., bytes], frames: list[tuple[str, int, RawFile]]
) -> Iterator[tuple[str, bytes]]:
    """Path below `out`, and content."""
    for path, frame, file in frames:
        try:
            content = png_of(raw_files.read(raw, file), params, frame)
        except images.Fault as error:
            raise InputError(
                f"{raw / str(file)} has changed since it was validated ({error}): run dvc repro again"
            ) from None
        yield f"{path}.png", content


def make_png(data: bytes, params: Preprocess, frame: int = 1) -> bytes:
    """The processed image of a file. What it returns must depend on its arguments alone, since the memo keeps it."""
    return png.encode(fit(read(data, params, frame), params))


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
