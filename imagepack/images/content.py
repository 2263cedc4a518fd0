"""What decoding finds out about a file: format, size, depth, kind of pixels, and a hash of the pixels."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms
from xxhash import xxh3_128

from imagepack.images import tiff
from imagepack.images.formats import format_of
from imagepack.images.pixels import BITS, WHITE, eight_bit, orientation, over, upright

DEEPEST = 2**16 - 1


@dataclass(frozen=True)
class Content:
    """What decoding finds out about a file, apart from its pixels.

    Attributes:
        format: a key of formats.EXTENSIONS; empty where the file does not decode.
        mode: Pillow's name for the kind of pixels.
        kind: the mode and what else decides how it is to be read, in words.
        width, height: pixels, as stored.
        orientation: EXIF, 1 to 8; 1 is upright.
        bits: of a channel, in the file.
        most: about the largest value of a picture of 16 bits, 0 to 65535, where it is of more than one tone.
        bands: of each pixel, in the file.
        unexplained: those of them of which the file does not say what they are; none of them is used.
        pixel_hash: 32 hexadecimal digits (XXH3), equal for two files that show the same pixels, upright, whatever the
            format, the palette and the metadata.
    """

    format: str = ""
    mode: str = ""
    kind: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    bits: int = 8
    most: int = DEEPEST
    bands: int = 0
    unexplained: int = 0
    pixel_hash: str = ""


def inspect(image: Image.Image, pixels: np.ndarray | None) -> tuple[Content, Image.Image | np.ndarray]:
    """Return what `image` is, and how it is seen: upright, mode L or RGB, 8-bit, over white where it is transparent.

    Pixels that are seen as they are stored are returned as they came, since Pillow would copy them.

    Args:
        image: opened, and decoded if `pixels` is None.
        pixels: what `decode_strictly` returned.
    """
    if pixels is None or orientation(image) != 1:
        plain = upright(eight_bit(image) if pixels is None else Image.fromarray(pixels), image)
        seen = over(plain, WHITE)
        deep = pixels is None and image.mode.startswith("I;16")
        pixels = np.asarray(upright(image, image) if deep else plain)
    else:
        seen = pixels
    values = np.ascontiguousarray(pixels)
    kind = kind_of(image)
    if values.ndim == 3 and values.shape[2] == 4 and (values[..., 3] == 255).all():
        values = np.ascontiguousarray(values[..., :3])
    if values.ndim == 3 and values.shape[2] == 3 and _is_grey(values):
        values = np.ascontiguousarray(values[..., 0])
        kind += ", all grey" if image.mode == "RGB" else ""
    digest = xxh3_128(repr(values.shape).encode())
    digest.update(values)
    bits, (bands, unexplained) = _bits(image), _bands(image)
    content = Content(
        format=format_of(image),
        mode=image.mode,
        kind=kind,
        width=image.width,
        height=image.height,
        orientation=orientation(image),
        bits=bits,
        most=_most(image, plain) if bits == 16 else DEEPEST,
        bands=bands,
        unexplained=unexplained,
        pixel_hash=digest.hexdigest(),
    )
    return content, seen


def _is_grey(values: np.ndarray) -> bool:
    """Return whether red, green and blue are equal everywhere: uint8, (H, W, 3). A few pixels mostly tell."""
    return all(
        (part[..., 0] == part[..., 1]).all() and (part[..., 0] == part[..., 2]).all()
        for part in (values[::16, ::16], values)
    )


def _bits(image: Image.Image) -> int:
    """Return the bits of a channel in the file, where a decoder may use fewer; 8 of all others."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(tiff.BITS, (1,)))
    return image.info.get("bit_depth" if image.format == "HEIF" else BITS, 8)


def _bands(image: Image.Image) -> tuple[int, int]:
    """Return how many a pixel has in the file, and of how many of them it does not say what they are."""
    if image.format != "TIFF":
        return len(image.getbands()), 0
    tags = image.tag_v2
    unexplained = tags.get(tiff.EXTRA_SAMPLES, ()).count(0)
    return tags.get(tiff.SAMPLES, len(image.getbands())), unexplained or int(tiff.has_untagged_band(image))


def _most(image: Image.Image, plain: Image.Image) -> int:
    """Return the largest value of 16 bits of a picture of more than one tone, up to 255 too large where it has colours.

    Inks are left out: most of a light picture has none.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        return int(values.max()) if values.min() < values.max() else DEEPEST
    if plain.mode == "CMYK":
        return DEEPEST
    extremes = [plain.getchannel(band).getextrema() for band in plain.getbands() if band != "A"]
    least, most = min(low for low, _ in extremes), max(high for _, high in extremes)
    return most * 256 + 255 if least < most else DEEPEST


def kind_of(image: Image.Image) -> str:
    """Return the mode, whether a palette or key colour is transparent, and any colour profile other than sRGB."""
    kind = image.mode
    if "transparency" in image.info:
        kind += " with transparency"
    if profile := profile_name(image.info.get("icc_profile") or b""):
        kind += f", profile {profile}"
    return kind


@lru_cache(maxsize=64)
def profile_name(profile: bytes) -> str:
    """Return the description of a colour profile; empty where it is sRGB, which one damaged or missing counts as."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""
    return "" if "srgb" in name.lower() else name[:60] or "without a name"
