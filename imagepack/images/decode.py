"""Open and decode image files that other people made, or say what is wrong with them."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from imagepack.images import boxes, containers, formats, frames, jpeg, jpeg_xl, tiff
from imagepack.images.faults import Fault, of_error
from imagepack.images.pixels import BITS, OPAQUE

MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"),
    *("I;16", "I;16L", "I;16B", "I;16N"),
)
"""Pillow's names for the kinds of pixels that become 0 to 255."""
UNSCALED_MODES = ("I", "F")
"""32-bit pixels: nothing in the file says which value is white."""


def open_image(data: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an image of an accepted format from memory; no pixel is decoded yet.

    Args:
        data: the whole file.
        max_pixels: refuse a larger image, which may be a decompression bomb; None where that was checked before.

    Raises:
        Fault: not_image, unsupported_format, unsupported_variant, decode_error or bomb.
    """
    formats.prepare_codecs()
    Image.MAX_IMAGE_PIXELS = max_pixels or 2**31 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata, of no consequence for the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if jpeg_xl.begins(data) and formats.has_extra("JXL"):
                _require_simple_jpeg_xl(data)
            image = Image.open(io.BytesIO(data), formats=[*formats.candidates(data), "DIB"])
            _prepare(image, data)
            return image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            pixels = re.search(r"\((\d+) pixels\)", str(error))
            raise Fault("bomb", f"{pixels[1] if pixels else 'many'} pixels, more than {max_pixels}") from None
        except UnidentifiedImageError:
            raise formats.why_unidentified(data) from None
        except (MemoryError, Fault):
            raise
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever broke)
            in_boxes = formats.format_in_boxes(data) and boxes.missing_bytes(data)
            if missing := containers.missing_webp_bytes(data) or in_boxes:
                raise Fault("truncated", f"{missing} bytes are not there") from None
            raise of_error(error) from None


def _require_simple_jpeg_xl(data: bytes) -> None:
    """Refuse a JPEG XL that is too large, since opening decodes it, and one of several frames, of which one is read."""
    head = jpeg_xl.header(data)
    if Image.MAX_IMAGE_PIXELS and head.width * head.height > Image.MAX_IMAGE_PIXELS:
        raise Fault("bomb", f"{head.width * head.height} pixels, more than {Image.MAX_IMAGE_PIXELS}")
    if head.animated:
        raise Fault("unsupported_variant", "animated JPEG XL")


def _prepare(image: Image.Image, data: bytes) -> None:
    """Note what Pillow's decoder of this format will not tell, and refuse what it would show wrongly."""
    match image.format:
        case "JPEG" | "MPO":
            image.decodermaxblock = len(data)  # all at once: libjpeg cannot wait for more of an arithmetic-coded scan
        case "PNG":
            _scale_key(image)
            image.info[BITS] = 16 if any(";16" in tile.args for tile in image.tile) else 8
        case "JXL":
            image.info[BITS] = jpeg_xl.header(data).bits
        case "AVIF" | "HEIF":
            image.info[BITS] = boxes.bits(data)  # the decoder of HEIC says so itself, for each picture
            if transfer := boxes.hdr(data):
                raise Fault("unsupported_variant", f"picture of high dynamic range ({transfer})")


def decode(image: Image.Image) -> None:
    """Decode every pixel of `image`, in place.

    Raises:
        Fault: truncated, decode_error, resource_limit or unsupported_variant.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if image.format == "TIFF" and tiff.needs_libtiff(image.tag_v2):
                tiff.choose_libtiff(image)
            elif image.format == "PNG" and _has_deep_key(image):
                image.info[OPAQUE] = _differs_from_key(image)
            image.load()
        except MemoryError:
            raise Fault("resource_limit", "needs more memory to decode than a worker may have") from None
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001
            if image.format == "TIFF" and image.tag_v2.get(tiff.COMPRESSION) in tiff.UNREAD:
                raise Fault("unsupported_variant", tiff.why_unread(image.tag_v2)) from None
            raise of_error(error) from None
    if image.mode in UNSCALED_MODES:
        raise Fault("unsupported_variant", f"32-bit pixels (mode {image.mode}) have no known range")
    if image.mode not in MODES:
        raise Fault("unsupported_variant", f"pixels of mode {image.mode}")
    if image.format == "TIFF":
        tiff.require_plain(image)
    if image.format == "GIF":
        frames.paint(image)


def open_decoded(
    data: bytes,
    frame: int = 1,
    at_least: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Open one frame of a file and decode it, as validate does but for its strictness.

    Args:
        data: the whole file.
        frame: its number, from 1.
        at_least: the width and height that suffice, from those of the image: a JPEG is decoded at the smallest scale
            (1, 1/2, 1/4, 1/8) that is no smaller, if it is of a kind that can be; None: at full size.
        max_pixels: as for `open_image`.

    Raises:
        Fault: it does not decode, or is not there.
    """
    image = open_image(jpeg.with_end(data), max_pixels)
    try:
        frames.go_to(image, frame)
        if at_least and formats.format_of(image) == "JPEG" and image.draft(None, at_least(image.size)):
            with contextlib.suppress(Fault):
                decode(image)
                return image
            return open_decoded(data, frame, max_pixels=max_pixels)  # libjpeg scales no lossless JPEG
    except (OSError, EOFError) as error:
        raise Fault("decode_error", str(error)) from None
    decode(image)
    return image


def _scale_key(image: Image.Image) -> None:
    """Give the key colour of a PNG of 8 bits or less as a value of 8 bits, as Pillow gives the pixels."""
    key = image.info.get("transparency")
    raw = image.tile[0].args if image.tile else ""
    if image.mode == "L" and isinstance(key, int):
        bits = {"L;2": 2, "L;4": 4}.get(raw, 8)
        image.info["transparency"] = key % 2**bits * 255 // (2**bits - 1)


def _has_deep_key(image: Image.Image) -> bool:
    """Return whether a PNG that is not yet decoded has a key colour of three times 16 bits."""
    return "transparency" in image.info and any(tile.args == "RGB;16B" for tile in image.tile)


def _differs_from_key(image: Image.Image) -> np.ndarray:
    """Return which pixels of a PNG of three times 16 bits are not of its key colour, bool (height, width).

    Pillow reads but one byte of each value, and compares that: so it decodes twice more, for the upper and the lower.

    Raises:
        Fault: unsupported_variant: it is an animation.
    """
    if getattr(image, "is_animated", False):
        raise Fault("unsupported_variant", "animated PNG of 16 bits with a key colour")
    values = 0
    for part in ("RGB;16B", "RGB;16L"):
        again = Image.open(io.BytesIO(image.fp.getvalue()), formats=["PNG"])
        again.tile = [tile._replace(args=part) for tile in again.tile]
        values = values << 8 | np.asarray(again).astype(np.uint16)
    return (values != image.info["transparency"]).any(axis=2)
