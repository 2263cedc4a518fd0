"""Decode an image so that no damage passes that can be found: decoders alone pass over much."""

import itertools
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import simplejpeg
from PIL import Image

from imagepack.images import boxes, damage, faults, jpeg, tiff
from imagepack.images.containers import JPEG_BEGINS
from imagepack.images.decode import decode, open_image
from imagepack.images.faults import Fault
from imagepack.images.formats import format_of
from imagepack.images.frames import go_to

JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""simplejpeg's names of Pillow's modes."""
MPO_ENTRIES = 0xB002
"""Tag of a phone's JPEG: where its pictures are."""


def decode_strictly(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode every pixel and let no damage pass that the decoders know of: Pillow alone passes over much.

    Args:
        image: what `open_image` made of `data`.
        data: the whole file.

    Returns:
        uint8, (height, width) or (height, width, 3), as stored; None where the pixels are in `image`, as is the case
        for all but most JPEGs.

    Raises:
        Fault: jpeg_damage, or as `decode`.
    """
    if format_of(image) == "JPEG" and image.mode in JPEG_COLOURS:
        try:
            return _decode_jpeg(image, data)
        except ValueError as error:
            words = faults.one_line(error)
            if "premature end of jpeg file" in words.lower():  # that of a "data segment" is damage in the middle
                whole = jpeg.with_end(data)
                if whole is data:
                    raise Fault("truncated", words) from None
                return _decode_jpeg(open_image(whole), whole)
            if "corrupt jpeg data" in words.lower():
                raise Fault("jpeg_damage", words) from None
            if jpeg.is_rare(data):
                raise Fault("unsupported_variant", "lossless or hierarchical JPEG") from None
    decode(image)  # a JPEG here is of a kind that libjpeg-turbo's simple interface does not know
    _require_sound(image, data, next(damage.frames(data, image.format), str))
    if image.format == "PNG":
        if chunk := damage.damaged_png_chunk(data):
            raise Fault("decode_error", f"the checksum of its {chunk} is wrong")
        suspect = image.info.get("interlace") or _ends_in_zeros(image)
        if suspect and (missing := damage.missing_png_bytes(data)):
            raise Fault("truncated", f"{missing} bytes of its pixels are not there")
    if image.format in ("AVIF", "HEIF") and (at := boxes.damage(data)):
        raise Fault("decode_error", f"bytes that no encoder writes where there should be pixels, at byte {at}")
    return None


def _decode_jpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    pixels = simplejpeg.decode_jpeg(data, JPEG_COLOURS[image.mode], strict=True)
    if at := jpeg.zeros(data):
        raise Fault("jpeg_damage", f"zeros where there should be pixels, at byte {at}")
    if image.mode == "CMYK" or not jpeg.is_huffman(data):
        decode(image)  # Adobe stores CMYK inverted, which Pillow knows; and it may not read all that simplejpeg does
        return None
    return pixels[..., 0] if image.mode == "L" else pixels


def _require_sound(image: Image.Image, data: bytes, check: Callable[[], str]) -> None:
    """Refuse a page or frame that decodes and is damaged."""
    if image.format == "WEBP" and image.width * image.height > damage.MOST_PIXELS:
        return
    wrong = tiff.damage_in(data, image.tag_v2) if image.format == "TIFF" else check()
    if wrong:
        raise Fault("decode_error", wrong)


def _ends_in_zeros(image: Image.Image) -> bool:
    """Return whether the last row is what a decoder leaves where there was none."""
    extremes = image.crop((0, image.height - 1, image.width, image.height)).getextrema()
    return not np.any(extremes)


def later_frames(
    image: Image.Image, data: bytes, most: int, max_pixels: int, used: bool = True
) -> Iterator[Image.Image]:
    """Go to each frame after the first and decode it strictly, up to frame number `most`; yield `image` itself.

    The further pictures in a phone's JPEG (depth, gain maps) are no frames, but decoded too.

    Args:
        image: what `open_image` made of `data`.
        data: the whole file.
        most: frames.
        max_pixels: of a frame.
        used: whether these frames become images; where not, one of a kind that is not read is good too.

    Raises:
        Fault: a frame does not decode; as `decode` otherwise.
    """
    if image.format == "MPO":
        _require_further_pictures(image, data, max_pixels)
    if format_of(image) == "JPEG":
        return
    checks = itertools.islice(damage.frames(data, image.format), 1, None)
    for number in range(2, most + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                go_to(image, number)
            except EOFError:
                return
            except MemoryError:
                raise Fault("resource_limit", f"frame {number} needs more memory than a worker may have") from None
            except Exception as error:  # noqa: BLE001
                if not used and faults.of_error(error).code == "unsupported_variant":
                    yield image
                    continue
                raise Fault("later_frame_error", f"frame {number}: {faults.one_line(error)}") from None
        if image.width * image.height > max_pixels:
            raise Fault("bomb", f"frame {number} has more than {max_pixels} pixels")
        try:
            decode(image)
            _require_sound(image, data, next(checks, str))
        except Fault as fault:
            if used or fault.code != "unsupported_variant":
                raise _of_part(fault, f"frame {number}") from None
        yield image


def _require_further_pictures(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse a phone's JPEG of which a further picture is damaged, or cut; programs that leave it out leave no trace.

    Source of the index: CIPA DC-007 (Multi-Picture Format).
    """
    origin = jpeg.mpf_origin(data)
    for number, entry in enumerate(image.mpinfo.get(MPO_ENTRIES, ())[1:], 2):
        start = origin + entry["DataOffset"]
        picture = data[start : start + entry["Size"]]
        if not picture.startswith(JPEG_BEGINS):
            continue
        try:
            decode_strictly(open_image(picture, max_pixels), picture)
        except Fault as fault:
            raise _of_part(fault, f"picture {number}") from None


def _of_part(fault: Fault, part: str) -> Fault:
    """Return what a fault of one frame or picture is for the whole file."""
    code = "resource_limit" if fault.code == "resource_limit" else "later_frame_error"
    return Fault(code, f"{part}: {fault.seen}")
