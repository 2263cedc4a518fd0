"""From a decoded image to pixels as they are seen: 8 bits a channel, upright, transparency over a background."""

import warnings

import numpy as np
from PIL import Image

from imagepack.images import tiff

GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's names for the kinds of pixels that a grey colour profile is about."""
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes each EXIF orientation upright."""
WHITE = (255, 255, 255)
SIXTEEN_TO_EIGHT = ((np.arange(2**16) + 128) // 257).astype(np.uint8)
BITS, OPAQUE, PAINTED = "bits", "opaque", "painted"
"""Keys of an opened image's `info` for what its decoder leaves out: bits a channel; bool (height, width), pixels of a
PNG that are not of its key colour, and pixels of a GIF's canvas that a frame covers."""


def eight_bit(image: Image.Image, curve: np.ndarray | None = None) -> Image.Image:
    """Return a decoded image without palette and key colour, 8 bits a channel: mode L, RGB, RGBA or CMYK.

    Args:
        image: the file itself, decoded by `decode`, as stored.
        curve: uint8, (256,), or (65536,) for 16 bits: how each level of a grey image is shown; None: in proportion.
    """
    if image.mode.startswith("I;16"):  # convert("L") alone would clip: 65535 is to become 255
        plain = Image.fromarray((SIXTEEN_TO_EIGHT if curve is None else curve)[np.asarray(image)])
    else:
        plain = _plain(image)
        if curve is not None:
            plain = plain.point([*curve] if plain.mode == "L" else [*curve, *curve, *curve, *range(256)])
    opaque = _opaque(image)
    return plain if opaque is None else _with_alpha(plain, opaque)


def _plain(image: Image.Image) -> Image.Image:
    """Return what `eight_bit` does of 8 bits or less, but for transparency that only `_opaque` knows."""
    if tiff.has_untagged_band(image):
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("L", "RGB", "CMYK", "RGBA") and ("transparency" not in image.info or OPAQUE in image.info):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _opaque(image: Image.Image) -> np.ndarray | None:
    """Return which pixels are not transparent, bool (height, width); None: all, or Pillow knows."""
    if image.mode.startswith("I;16"):
        key = image.info.get("transparency")
        return None if key is None else np.asarray(image) != key
    if OPAQUE in image.info:
        return image.info[OPAQUE]
    painted = image.info.get(PAINTED)
    return None if painted is None or painted.all() else painted


def _with_alpha(image: Image.Image, opaque: np.ndarray) -> Image.Image:
    """Return an image of mode RGBA that is transparent too where `opaque`, bool (height, width), is not."""
    image = image.convert("RGBA")
    alpha = np.where(opaque, np.asarray(image.getchannel("A")), 0).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return image


def over(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return what `eight_bit` returned in mode L or RGB: transparent pixels show `background`."""
    if image.mode == "RGBA":
        behind = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(behind, image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def upright(plain: Image.Image, image: Image.Image) -> Image.Image:
    """Turn `plain`, the pixels of `image`, as its EXIF orientation says, for PNG and WebP too.

    Not by ImageOps.exif_transpose: it also writes the EXIF anew, and fails where any other tag is odd.
    """
    turn = TURNS.get(orientation(image))
    return plain if turn is None else plain.transpose(turn)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where the file has none or a damaged one."""
    if image.format == "JXL" and not image.jpeg:
        return 1  # libjxl has turned it, and EXIF does not count; of a JPEG in JPEG XL it does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = image.getexif().get(ORIENTATION_TAG, 1)
        except Exception:  # noqa: BLE001  (damaged EXIF: the pixels are still good)
            return 1
    return int(value) if value in range(1, 9) else 1
