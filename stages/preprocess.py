"""Preprocess: make each accepted image upright, 8-bit, of one mode and one size.

    python -m stages.preprocess data/raw data/validated/manifest.parquet data/processed

`fit` is the place for steps of your own: one image in, one image out.
"""

import hashlib
import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageCms, ImageOps

from imagepack.engine.inputs import Input
from imagepack.engine.memo import NO_MEMO, Memo, Memoised
from imagepack.engine.params import Preprocess
from imagepack.engine.stage import empty_folder, run_stage
from imagepack.errors import InputError
from imagepack.images import decode, png, raw_files, zips
from imagepack.images import manifest as manifests
from imagepack.images.cuts import PNG_SHARE, cut
from imagepack.images.raw_files import TYPICAL_GROUP, RawFile

LIBRARIES = ("pillow", "numpy", "simplejpeg", "zlib-ng", "pillow-heif", "pillow-jxl-plugin")
"""Packages on which the results depend: the memo forgets them when another version is installed."""
AGAIN = "run dvc repro --force validate, then dvc repro"
"""What helps also where DVC holds validate for up to date, as after a change just when it ended."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An accepted image.

    Attributes:
        path: in the manifest.
        number: of the frame in its file, from 1.
        id: the image's.
        bytes: of the file.
        file: where it is.
    """

    path: str
    number: int
    id: bytes
    bytes: int
    file: RawFile


def preprocess(raw: Input, manifest: Input, out: Path, params: Preprocess, memo: Memo = NO_MEMO) -> str:
    """Write each accepted image of `raw` to the same place under `out`, its name with .png behind it, or into zips."""
    accepted = manifests.read_accepted(manifest, "path", "frame", "bytes", "sha256", "batch")
    files, _ = raw_files.find(raw)
    require_same_files(raw, manifest, files)
    zipped = {file.path: file for file in files if isinstance(file, zips.Member)}
    empty_folder(out)
    how = params.model_copy(update={"layout": "folder"})  # no image depends on it, nor its place in the memo
    png_of = memo.of(make_png)
    if params.layout == "zip":
        starts = cut(manifests.hashes(accepted["sha256"]), accepted["batch"], images_per_zip(params))
        zip_of = memo.of(make_zip, shorten, partial(restore, memo.earlier))
        write = partial(write_zip, raw, out, how, png_of, zip_of)
    else:
        starts = [*range(0, len(accepted), TYPICAL_GROUP), len(accepted)]
        for folder in accepted["path"].str.replace(r"[^/]*$", "").unique():
            (out / folder).mkdir(parents=True, exist_ok=True)
        write = partial(write_images, raw, out, how, png_of)
    tasks = (find_files(zipped, accepted[a:b]) for a, b in itertools.pairwise(starts))
    for _ in memo.map_in_order(write, tasks, len(accepted), "preprocess"):
        pass
    where = f"{params.size} x {params.size} pixels, {params.mode}, in {out}"
    return f"{len(accepted)} images of {where}{memo.summary()}"


def require_same_files(raw: Path, manifest: Path, files: list[RawFile]) -> None:
    """Refuse a manifest that was made of other files than are there, however sure DVC is that it is up to date.

    Raises:
        InputError: which files one has and the other has not.
    """
    new, gone = manifests.compare_files(manifest, (raw_files.shown(str(file)) for file in files))
    faults = [f"{raw / path}: is not in {manifest}" for path in new] + [f"{raw / path}: is gone" for path in gone]
    if faults:
        raise InputError(raw_files.listed(f"{raw} has changed since it was validated: {AGAIN}", faults))


def find_files(zipped: dict[str, zips.Member], accepted: pl.DataFrame) -> list[Frame]:
    """These accepted images, with where each file is.

    Args:
        zipped: what is in zips.
        accepted: rows of the manifest.
    """
    frames = []
    for path, number, size, digest in accepted.select("path", "frame", "bytes", "sha256").iter_rows():
        file = decode.file_of(path, number)
        frames.append(Frame(path, number, bytes.fromhex(digest), size, zipped.get(file) or file))
    return frames


def images_per_zip(params: Preprocess) -> int:
    """About how many make a zip of zips.TYPICAL_BYTES; of params alone, so that no other image changes a zip."""
    return max(1, int(zips.TYPICAL_BYTES / (params.size**2 * len(params.mode) * PNG_SHARE)))


def write_images(raw: Path, out: Path, params: Preprocess, png_of: Memoised, frames: list[Frame]) -> None:
    """Runs in a worker.

    Raises:
        InputError: a file is not the one that validate accepted; of one that is in the memo its size tells.
    """
    require_sizes(raw, frames)
    for path, content in _pngs(raw, params, png_of, frames):
        (out / path).write_bytes(content)


def write_zip(
    raw: Path, out: Path, params: Preprocess, png_of: Memoised, zip_of: Memoised, frames: list[Frame]
) -> None:
    """As `write_images`, into one zip, which is called after its content."""
    require_sizes(raw, frames)
    inside = repr([(frame.path, frame.number, frame.id) for frame in frames]).encode()
    made = zip_of.by_id(inside, partial(_pngs, raw, params, png_of, frames), params, images=len(frames))
    (out / made.name).write_bytes(made.content)


def require_sizes(raw: Path, frames: list[Frame]) -> None:
    """Refuse files that are gone or have another size than validate saw: these are not to be unpacked."""
    for frame in frames:
        if raw_files.size_of(raw, frame.file) != frame.bytes:
            raise InputError(f"{raw / str(frame.file)} has changed since it was validated (its size): {AGAIN}")


def _pngs(raw: Path, params: Preprocess, png_of: Memoised, frames: list[Frame]) -> Iterator[tuple[str, bytes]]:
    """Path below `out`, and content. What the memo has of an image is of its id, so that its file need not be read."""
    for frame in frames:
        try:
            content = png_of.by_id(frame.id, partial(read_validated, raw, frame), params, frame.number)
        except decode.Fault as error:
            raise InputError(f"{raw / str(frame.file)} has changed since it was validated ({error}): {AGAIN}") from None
        yield f"{frame.path}.png", content


def read_validated(raw: Path, frame: Frame) -> bytes:
    """The bytes of an image's file.

    Raises:
        Fault: they are not those that validate saw.
    """
    data = raw_files.read(raw, frame.file)
    if manifests.frame_id(hashlib.sha256(data).hexdigest(), frame.number) != frame.id.hex():
        raise decode.Fault("decode_error", "other bytes")
    return data


@dataclass(frozen=True)
class Zip:
    """A file of processed images, by its name and its content."""

    name: str
    content: bytes | memoryview


def make_zip(pngs: Iterable[tuple[str, bytes]], params: Preprocess) -> Zip:
    """Of paths and files. It depends on `params` by the files alone."""
    file = io.BytesIO()
    zips.write(file, pngs)
    content = file.getbuffer()
    return Zip(zips.name_of(hashlib.sha256(content).hexdigest()), content)


def shorten(made: Zip) -> bytes:
    """What the memo keeps of a zip: all but the content, which DVC's cache mostly has."""
    return made.name.encode()


def restore(find: Callable[[str], Path | None], name: bytes) -> Zip | None:
    """The zip, from the file that `find` finds; None if it finds none, or one of another content."""
    try:
        path = find(name.decode())
        content = path.read_bytes() if path else b""
    except OSError:
        return None
    if zips.name_of(hashlib.sha256(content).hexdigest()) != name.decode():
        return None
    return Zip(name.decode(), content)


def make_png(data: bytes, params: Preprocess, frame: int = 1) -> bytes:
    """The processed image of a file. What it returns must depend on its arguments alone, since the memo keeps it."""
    return png.encode(fit(read(data, params, frame), params))


def read(data: bytes, params: Preprocess, frame: int = 1) -> Image.Image:
    """Open an image that validate has accepted: upright, 8 bits a channel, sRGB, of mode `params.mode`.

    A JPEG is decoded at the smallest scale (1, 1/2, 1/4, 1/8) that is no smaller than what `fit` needs.

    Raises:
        images.Fault: it does not decode.
    """
    image = decode.open_decoded(data, frame, partial(_needed, params))
    return in_mode(image, params)


def fit(image: Image.Image, params: Preprocess) -> Image.Image:
    """Make `image` size x size pixels. Edit here.

    Args:
        image: upright, of mode `params.mode`, of any size.
        params: section `preprocess` of params.yaml; add a field in imagepack/engine/params.py to add a knob.
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
    """A decoded file to `params.mode`, upright: 16 bits scaled to 8, to sRGB, transparency over the background."""
    profile = image.info.get("icc_profile") or b""
    if image.mode in decode.GREY_MODES:
        plain = decode.eight_bit(image, _grey_curve(profile, deep=image.mode.startswith("I;16")))
    else:
        plain = _to_srgb(decode.eight_bit(image), profile)
    return decode.over(decode.upright(plain, image), tuple(params.background)).convert(params.mode)


def _needed(params: Preprocess, size: tuple[int, int]) -> tuple[int, int]:
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
    if not profile:
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    transform = _transform(profile, image.mode, mode)
    return ImageCms.applyTransform(image, transform) if transform else image


@lru_cache(maxsize=16)
def _grey_curve(profile: bytes, deep: bool) -> np.ndarray | None:
    """How each level of grey is shown in sRGB, uint8, (65536,) if `deep`, else (256,).

    None where there is nothing to do: there is no profile, or it is of no use, or of colours, as viewers have it.
    """
    levels = np.arange(2**16, dtype="<u2").reshape(256, 256) if deep else np.arange(256, dtype="u1")[None]
    transform = _transform(profile, "I;16" if deep else "L", "RGB")
    if transform is None:
        return None
    return np.asarray(ImageCms.applyTransform(Image.fromarray(levels), transform))[..., 1].ravel()


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str, to_mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where there is nothing to do: the profile is sRGB, or of no use."""
    if not decode.profile_name(profile):
        return None
    # otherwise lcms puts 33 points of a grey curve in its place, and dark greys are wrong by up to 10
    exact = ImageCms.Flags.NOOPTIMIZE if mode in ("L", "I;16") else ImageCms.Flags.NONE
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, to_mode, flags=exact)
    except (OSError, ImageCms.PyCMSError):
        return None


if __name__ == "__main__":
    run_stage(preprocess)
