"""Opening image files that other people made: what is accepted, and what is wrong with the rest."""

import contextlib
import importlib.util
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

import numpy as np
import simplejpeg
from PIL import AvifImagePlugin, GifImagePlugin, Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError
from xxhash import xxh3_128

from imagepack.images import boxes, damage, file_structure, jpeg_xl

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
    "JXL": (".jxl",),
}
"""The formats that are read, by Pillow's names for them, and what their files are called."""
VARIANTS = {"MPO": "JPEG", "DIB": "BMP"}
"""What Pillow calls otherwise: a phone's JPEG with more pictures behind it, a BMP without the file's header."""
EXTRAS = {"HEIF": ("HEIC", "pillow_heif", "heic"), "JXL": ("JPEG XL", "pillow_jxl", "jxl")}
"""Of formats that need another library: what people call them, its module, and the extra of pyproject.toml."""
ALWAYS = [form for form in EXTENSIONS if form not in EXTRAS]

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "I;16",
    "I;16L",
    "I;16B",
    "I;16N",
)
"""Pillow's names for the kinds of pixels that become 0 to 255."""
GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
"""Those of them that a grey colour profile is about."""
UNSCALED_MODES = ("I", "F")
"""32-bit pixels: nothing in the file says which value is white."""

VARIANT_WORDS = (
    "unsupported",
    "not supported",
    "unknown",
    "not available",
    "cannot handle",
    "not implemented",
    "text chunk",
    "max_text_chunk",
)
"""In what Pillow says of a file that is whole, as far as can be told, and of a kind that it does not read."""
OTHERS = {
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "Photoshop": rb"8BPS",
    "SVG": rb"\s*(<\?xml.{,500}?)?<svg[\s>]",
}
"""Formats that Pillow may not know, and how their files begin."""

UNREAD_TIFFS = {
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG, as in DNG",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL, as in DNG",
}
"""By their number, ways to compress a TIFF that Pillow does not know, or not in its wheels."""

File = TypeVar("File")

THUMBNAIL = 128
"""Pixels."""
JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""simplejpeg's names of Pillow's modes."""
ORIENTATION_TAG = 0x0112
TIFF_BITS, TIFF_COMPRESSION, TIFF_SAMPLES, TIFF_PLANES, TIFF_EXTRA_SAMPLES = 258, 259, 277, 284, 338
MPO_ENTRIES = 0xB002
"""Of a phone's JPEG: where its pictures are."""
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
SIXTEEN_TO_EIGHT = ((np.arange(2**16) + 128) // 257).astype(np.uint8)
BITS, OPAQUE, PAINTED = "bits", "opaque", "painted"
"""Keys of an opened image's `info` for what its decoder leaves out: bits a channel; bool (height, width), pixels of a
PNG that are not of its key colour, and pixels of a GIF's canvas that a frame covers."""


Image.core.set_blocks_max(16)  # PILLOW_BLOCKS_MAX: memory of one image is kept for the next, a third of the time
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker a core, as it is
Image.init()  # the plugins now, and not when memory is short: Pillow goes on without those that it cannot load


class Fault(Exception):
    """A file that cannot be used: a check code and what was seen."""

    def __init__(self, code: str, seen: str) -> None:
        super().__init__(code, seen)
        self.code, self.seen = code, seen


@dataclass(frozen=True)
class Content:
    """What decoding finds out about a file, apart from its pixels.

    Attributes:
        format: a key of EXTENSIONS; empty where the file does not decode.
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
    most: int = 65_535
    bands: int = 0
    unexplained: int = 0
    pixel_hash: str = ""


def open_image(data: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an image of an accepted format from memory; no pixel is decoded yet.

    Args:
        data: the whole file.
        max_pixels: refuse a larger image, which may be a decompression bomb; None where that was checked before.

    Raises:
        Fault: not_image, unsupported_format, unsupported_variant, decode_error or bomb.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels or 2**31 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata, of no consequence for the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if jpeg_xl.begins(data) and _has_extra("JXL"):
                _require_simple_jpeg_xl(data)
            image = Image.open(io.BytesIO(data), formats=[*_formats(data), "DIB"])
            _prepare(image, data)
            return image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            pixels = re.search(r"\((\d+) pixels\)", str(error))
            raise Fault("bomb", f"{pixels[1] if pixels else 'many'} pixels, more than {max_pixels}") from None
        except UnidentifiedImageError:
            raise _unidentified(data) from None
        except (MemoryError, Fault):
            raise
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever broke)
            if missing := file_structure.missing_webp_bytes(data) or (_kinds(data) and boxes.missing_bytes(data)):
                raise Fault("truncated", f"{missing} bytes are not there") from None
            raise _fault(error) from None


def decode(image: Image.Image) -> None:
    """Decode every pixel of `image`, in place.

    Raises:
        Fault: truncated, decode_error, resource_limit or unsupported_variant.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if image.format == "TIFF" and _needs_libtiff(image.tag_v2):
                _choose_libtiff(image)
            elif image.format == "PNG" and _has_deep_key(image):
                image.info[OPAQUE] = _differs_from_key(image)
            image.load()
        except MemoryError:
            raise Fault("resource_limit", "needs more memory to decode than a worker may have") from None
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001
            if image.format == "TIFF" and image.tag_v2.get(TIFF_COMPRESSION) in UNREAD_TIFFS:
                raise Fault("unsupported_variant", _unread_tiff(image.tag_v2)) from None
            raise _fault(error) from None
    if image.mode in UNSCALED_MODES:
        raise Fault("unsupported_variant", f"32-bit pixels (mode {image.mode}) have no known range")
    if image.mode not in MODES:
        raise Fault("unsupported_variant", f"pixels of mode {image.mode}")
    if image.format == "TIFF":
        _require_plain_tiff(image)
    if image.format == "GIF":
        _paint(image)


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
            image.info[BITS] = boxes.bits(data)  # of a HEIC its decoder says so, of each picture
            if transfer := boxes.hdr(data):
                raise Fault("unsupported_variant", f"picture of high dynamic range ({transfer})")


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
    image = open_image(with_end(data), max_pixels)
    try:
        go_to(image, frame)
        if at_least and format_of(image) == "JPEG" and image.draft(None, at_least(image.size)):
            with contextlib.suppress(Fault):
                decode(image)
                return image
            return open_decoded(data, frame, max_pixels=max_pixels)  # libjpeg scales no lossless JPEG
    except (OSError, EOFError) as error:
        raise Fault("decode_error", str(error)) from None
    decode(image)
    return image


def go_to(image: Image.Image, number: int) -> None:
    """Go to frame `number`, from 1, of what `open_image` returned; raises what its `seek` does.

    Of a GIF by way of the frames before it, so that it is known which pixels they have painted.
    """
    if image.format == "HEIF":
        _go_to_picture(image, number)
        return
    if image.format != "GIF":
        image.seek(number - 1)
        return
    while image.tell() < number - 1:
        _paint(image)
        if image.disposal_method == 2:
            _painted_box(image)[...] = False
        image.seek(image.tell() + 1)


def _go_to_picture(image: Image.Image, number: int) -> None:
    """Of a HEIC: 1 is its primary picture, which need not be the first in the file."""
    if number > image.n_frames:
        raise EOFError
    if image.n_frames == 1:
        return
    places = range(image.n_frames)
    for place in places:
        image.seek(place)
        if image.info["primary"]:
            break
    image.seek(sorted(places, key=lambda other: other != place)[number - 1])


def _paint(image: GifImagePlugin.GifImageFile) -> None:
    """Remember that the frame to which it was gone covers its part of the canvas."""
    before = image.info.get(PAINTED)
    width, height = image.size
    if before is None or before.shape != (height, width):  # a frame may enlarge the canvas
        painted = np.zeros((height, width), bool)
        if before is not None:
            painted[: before.shape[0], : before.shape[1]] = before
        image.info[PAINTED] = painted
    _painted_box(image)[...] = True


def _painted_box(image: GifImagePlugin.GifImageFile) -> np.ndarray:
    left, top, right, bottom = image.dispose_extent
    return image.info[PAINTED][top:bottom, left:right]


def _scale_key(image: Image.Image) -> None:
    """Give the key colour of a PNG of 8 bits or less as a value of 8 bits, as Pillow gives the pixels."""
    key = image.info.get("transparency")
    raw = image.tile[0].args if image.tile else ""
    if image.mode == "L" and isinstance(key, int):
        bits = {"L;2": 2, "L;4": 4}.get(raw, 8)
        image.info["transparency"] = key % 2**bits * 255 // (2**bits - 1)


def _has_deep_key(image: Image.Image) -> bool:
    """Whether a PNG that is not yet decoded has a key colour of three times 16 bits."""
    return "transparency" in image.info and any(tile.args == "RGB;16B" for tile in image.tile)


def _differs_from_key(image: Image.Image) -> np.ndarray:
    """Which pixels of a PNG of three times 16 bits are not of its key colour, bool (height, width).

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


def _require_simple_jpeg_xl(data: bytes) -> None:
    """Refuse a JPEG XL that is too large, since opening decodes it, and one of several frames, of which one is read."""
    head = jpeg_xl.header(data)
    if Image.MAX_IMAGE_PIXELS and head.width * head.height > Image.MAX_IMAGE_PIXELS:
        raise Fault("bomb", f"{head.width * head.height} pixels, more than {Image.MAX_IMAGE_PIXELS}")
    if head.animated:
        raise Fault("unsupported_variant", "animated JPEG XL")


def _formats(data: bytes) -> list[str]:
    """Those of which a file may be."""
    extra = [form for form in _kinds(data) if form in EXTRAS]
    return list(filter(_has_extra, extra)) if extra else ALWAYS


def _kinds(data: bytes) -> list[str]:
    """AVIF, HEIF or JXL, where a file's first bytes say so; none of the other formats."""
    if jpeg_xl.begins(data):
        return ["JXL"]
    brands = boxes.brands(data) if data[4:8] == b"ftyp" else set()
    return ["AVIF"] if brands & boxes.AVIF_BRANDS else ["HEIF"] if brands & boxes.HEIC_BRANDS else []


@cache
def _has_extra(form: str) -> bool:
    """Have Pillow read a format of EXTRAS by its library, loaded now; False where that is not installed.

    The imports stand here as statements, since the memo finds by them on which libraries a result depends.
    """
    if importlib.util.find_spec(EXTRAS[form][1]) is None:
        return False
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    else:
        import pillow_jxl

        pillow_jxl.JpegXLImagePlugin.DECODE_THREADS = 0
    return True


def _needs_libtiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether an uncompressed TIFF has planes of which Pillow's own decoder makes noise: those not of 8 bits."""
    apart = tags.get(TIFF_PLANES, 1) == 2 and tags.get(TIFF_COMPRESSION, 1) == 1
    return apart and (tags.get(TIFF_SAMPLES, 1) == 1 or max(tags.get(TIFF_BITS, (1,))) != 8)


def _choose_libtiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Have a page that was opened, and not yet decoded, decoded by libtiff."""
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        image._setup()
    finally:
        TiffImagePlugin.READ_LIBTIFF = False


def _require_plain_tiff(image: Image.Image) -> None:
    """Refuse a TIFF without all its rows, and one whose numbers do not mean 0 for black to 255 or 65535 for white."""
    tags = image.tag_v2
    strips, rows = tags.get(273, ()), tags.get(278, image.height)
    if strips and rows and len(strips) * rows < tags.get(257, image.height):
        raise Fault("truncated", f"has {len(strips) * rows} of {tags[257]} rows")
    if 2 in tags.get(339, (1,)):
        raise Fault("unsupported_variant", "TIFF of signed numbers")
    bits, photometric = tags.get(258, (16,)), tags.get(262, 1)
    if image.mode.startswith("I;16") and (bits != (16,) or photometric != 1):
        white = ", white as 0" if photometric == 0 else ""
        raise Fault("unsupported_variant", f"grey TIFF of {bits[0]} bits{white}")
    by_libtiff = tags.get(TIFF_COMPRESSION, 1) != 1 or _needs_libtiff(tags)
    if by_libtiff and tags.get(TIFF_PLANES, 1) == 2 and _has_untagged_band(image):  # Pillow divides colours by it
        raise Fault("unsupported_variant", "TIFF of planes, the fourth without a tag (ExtraSamples)")


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
            words = _words(error)
            if "premature end of jpeg file" in words.lower():  # that of a "data segment" is damage in the middle
                whole = with_end(data)
                if whole is data:
                    raise Fault("truncated", words) from None
                return _decode_jpeg(open_image(whole), whole)
            if "corrupt jpeg data" in words.lower():
                raise Fault("jpeg_damage", words) from None
            if file_structure.is_rare_jpeg(data):
                raise Fault("unsupported_variant", "lossless or hierarchical JPEG") from None
    decode(image)  # for a JPEG: of a kind that libjpeg-turbo's simple interface does not know
    _require_sound(image, data, next(damage.frames(data, image.format), str))
    if image.format == "PNG":
        if chunk := file_structure.damaged_png_chunk(data):
            raise Fault("decode_error", f"the checksum of its {chunk} is wrong")
        suspect = image.info.get("interlace") or _ends_in_zeros(image)
        if suspect and (missing := file_structure.missing_png_bytes(data)):
            raise Fault("truncated", f"{missing} bytes of its pixels are not there")
    if image.format in ("AVIF", "HEIF") and (at := boxes.damage(data)):
        raise Fault("decode_error", f"bytes that no encoder writes where there should be pixels, at byte {at}")
    return None


def _require_sound(image: Image.Image, data: bytes, check: Callable[[], str]) -> None:
    """Refuse a page or frame that decodes and is damaged."""
    if image.format == "WEBP" and image.width * image.height > damage.MOST_PIXELS:
        return
    wrong = damage.in_tiff(data, image.tag_v2) if image.format == "TIFF" else check()
    if wrong:
        raise Fault("decode_error", wrong)


def _decode_jpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    pixels = simplejpeg.decode_jpeg(data, JPEG_COLOURS[image.mode], strict=True)
    if at := file_structure.zeros_in_jpeg(data):
        raise Fault("jpeg_damage", f"zeros where there should be pixels, at byte {at}")
    if image.mode == "CMYK" or not file_structure.is_huffman_jpeg(data):
        decode(image)  # Adobe stores CMYK inverted, which Pillow knows; and it may not read all that simplejpeg does
        return None
    return pixels[..., 0] if image.mode == "L" else pixels


def with_end(data: bytes) -> bytes:
    """A JPEG that lacks nothing but its end marker, with it, since Pillow insists on it; any other file as it is."""
    if (
        not data.startswith(b"\xff\xd8")
        or data.endswith(b"\xff\xd9")
        or file_structure.end_of(data, "JPEG") is not None
    ):
        return data
    if not file_structure.is_one_scan_jpeg(data):
        return data
    whole = data.removesuffix(b"\xff") + b"\xff\xd9"
    try:
        simplejpeg.decode_jpeg(whole, "GRAY", strict=True)
    except ValueError:
        return data
    return whole


def _ends_in_zeros(image: Image.Image) -> bool:
    """Whether the last row is what a decoder leaves where there was none."""
    extremes = image.crop((0, image.height - 1, image.width, image.height)).getextrema()
    return not np.any(extremes)


def later_frames(
    image: Image.Image, data: bytes, most: int, max_pixels: int, used: bool = True
) -> Iterator[Image.Image]:
    """Go to each frame after the first and decode it strictly, up to frame number `most`; yields `image` itself.

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
    stored = itertools.islice(damage.frames(data, image.format), 1, None)
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
                if not used and _fault(error).code == "unsupported_variant":
                    yield image
                    continue
                raise Fault("later_frame_error", f"frame {number}: {_words(error)}") from None
        if image.width * image.height > max_pixels:
            raise Fault("bomb", f"frame {number} has more than {max_pixels} pixels")
        try:
            decode(image)
            _require_sound(image, data, next(stored, str))
        except Fault as fault:
            if used or fault.code != "unsupported_variant":
                code = "resource_limit" if fault.code == "resource_limit" else "later_frame_error"
                raise Fault(code, f"frame {number}: {fault.seen}") from None
        yield image


def _require_further_pictures(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse a phone's JPEG of which a further picture is damaged, or cut; programs that leave it out leave no trace.

    Source of the index: CIPA DC-007 (Multi-Picture Format).
    """
    origin = file_structure.origin_of_mpf(data)
    for number, entry in enumerate(image.mpinfo.get(MPO_ENTRIES, ())[1:], 2):
        start = origin + entry["DataOffset"]
        picture = data[start : start + entry["Size"]]
        if not picture.startswith(b"\xff\xd8"):
            continue
        try:
            decode_strictly(open_image(picture, max_pixels), picture)
        except Fault as fault:
            code = "resource_limit" if fault.code == "resource_limit" else "later_frame_error"
            raise Fault(code, f"picture {number}: {fault.seen}") from None


def inspect(image: Image.Image, pixels: np.ndarray | None) -> tuple[Content, Image.Image]:
    """What `image` is, and how it is seen: upright, mode L or RGB, 8-bit, over white where it is transparent.

    Args:
        image: opened, and decoded if `pixels` is None.
        pixels: what `decode_strictly` returned.
    """
    turn = TURNS.get(orientation(image))
    plain = eight_bit(image) if pixels is None else Image.fromarray(pixels)
    if turn is not None:
        plain = plain.transpose(turn)
    exact = plain
    if pixels is None and image.mode.startswith("I;16"):
        exact = image if turn is None else image.transpose(turn)
    values = np.ascontiguousarray(pixels if pixels is not None and turn is None else np.asarray(exact))
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
        most=_most(image, plain) if bits == 16 else 65_535,
        bands=bands,
        unexplained=unexplained,
        pixel_hash=digest.hexdigest(),
    )
    return content, over(plain, (255, 255, 255))


def _bits(image: Image.Image) -> int:
    """Of a channel, in the file, where a decoder may use fewer; 8 of all others."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(TIFF_BITS, (1,)))
    return image.info.get("bit_depth" if image.format == "HEIF" else BITS, 8)


def _bands(image: Image.Image) -> tuple[int, int]:
    """How many a pixel has in the file, and of how many of them it does not say what they are."""
    if image.format != "TIFF":
        return len(image.getbands()), 0
    tags = image.tag_v2
    unexplained = tags.get(TIFF_EXTRA_SAMPLES, ()).count(0)
    return tags.get(TIFF_SAMPLES, len(image.getbands())), unexplained or int(_has_untagged_band(image))


def _has_untagged_band(image: Image.Image) -> bool:
    """Whether a TIFF has a fourth band beside its colours and no tag for it: transparency, infrared, or nothing."""
    return image.format == "TIFF" and image.mode == "RGBA" and TIFF_EXTRA_SAMPLES not in image.tag_v2


def _most(image: Image.Image, plain: Image.Image) -> int:
    """The largest value of 16 bits of a picture of more than one tone, up to 255 too large where it has colours.

    Inks are left out: most of a light picture has none.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        return int(values.max()) if values.min() < values.max() else 65_535
    if plain.mode == "CMYK":
        return 65_535
    extremes = [plain.getchannel(band).getextrema() for band in plain.getbands() if band != "A"]
    least, most = min(low for low, _ in extremes), max(high for _, high in extremes)
    return most * 256 + 255 if least < most else 65_535


def _is_grey(values: np.ndarray) -> bool:
    """Whether red, green and blue are equal everywhere: uint8, (H, W, 3). A few pixels mostly tell."""
    return all(
        (part[..., 0] == part[..., 1]).all() and (part[..., 0] == part[..., 2]).all()
        for part in (values[::16, ::16], values)
    )


def kind_of(image: Image.Image) -> str:
    """The mode, transparency in a palette or a key colour, and any colour profile other than sRGB."""
    kind = image.mode
    if "transparency" in image.info:
        kind += " with transparency"
    if profile := profile_name(image.info.get("icc_profile") or b""):
        kind += f", profile {profile}"
    return kind


@lru_cache(maxsize=64)
def profile_name(profile: bytes) -> str:
    """The description of a colour profile; empty where it is sRGB, or damaged or not there, which counts as sRGB."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""
    return "" if "srgb" in name.lower() else name[:60] or "without a name"


def eight_bit(image: Image.Image, curve: np.ndarray | None = None) -> Image.Image:
    """A decoded image without palette and key colour, 8 bits a channel: mode L, RGB, RGBA or CMYK.

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
    """As `eight_bit`, of 8 bits or less, but for what `_opaque` says."""
    if _has_untagged_band(image):
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("L", "RGB", "CMYK", "RGBA") and ("transparency" not in image.info or OPAQUE in image.info):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _opaque(image: Image.Image) -> np.ndarray | None:
    """Which pixels are there, bool (height, width), where Pillow does not know it; None: all, or it does."""
    if image.mode.startswith("I;16"):
        key = image.info.get("transparency")
        return None if key is None else np.asarray(image) != key
    if OPAQUE in image.info:
        return image.info[OPAQUE]
    painted = image.info.get(PAINTED)
    return None if painted is None or painted.all() else painted


def _with_alpha(image: Image.Image, opaque: np.ndarray) -> Image.Image:
    """Mode RGBA, transparent too where `opaque`, bool (height, width), is not."""
    image = image.convert("RGBA")
    alpha = np.where(opaque, np.asarray(image.getchannel("A")), 0).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return image


def over(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Of what `eight_bit` returns, mode L or RGB: transparent pixels show `background`."""
    if image.mode == "RGBA":
        behind = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(behind, image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def thumbnails(
    read: Callable[[File], bytes], max_pixels: int, side: int, frames: Iterable[tuple[str, int, File]]
) -> dict[str, bytes]:
    """JPEGs of at most `side` pixels a side, by path, of what decodes, if only in part; runs in a worker.

    Args:
        read: a file's bytes.
        max_pixels: larger images have none.
        side: pixels.
        frames: path and number of the frame, from 1, as in the manifest; and what to `read`.
    """
    small = {}
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # in this process, which makes nothing but what people look at
    for path, frame, file in frames:
        with contextlib.suppress(Exception):
            image = open_decoded(read(file), frame, lambda _: (2 * side, 2 * side), max_pixels)
            seen = over(upright(eight_bit(image), image), (255, 255, 255))
            seen.thumbnail((side, side))
            jpeg = io.BytesIO()
            pixels_alone(seen).save(jpeg, "JPEG", quality=80)
            small[path] = jpeg.getvalue()
    return small


def pixels_alone(image: Image.Image) -> Image.Image:
    """A copy without what Pillow has read beside the pixels: it copies comments into the JPEGs that it writes."""
    bare = image.copy()
    bare.info = {}
    return bare


def file_of(path: str, frame: int) -> str:
    """Where the image with this path of the manifest is stored: behind that of a later frame stands its number."""
    return path.removesuffix(f"#{frame}") if frame > 1 else path


def format_of(image: Image.Image) -> str:
    """The file's format, a key of EXTENSIONS."""
    return VARIANTS.get(image.format, image.format)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where the file has none or a damaged one."""
    if image.format == "JXL" and not image.jpeg:
        return 1  # libjxl has turned it, and EXIF does not count; of a JPEG in JPEG XL it does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = image.getexif().get(ORIENTATION_TAG, 1)
        except Exception:  # noqa: BLE001  (damaged EXIF: the pixels are still good)
            return 1
    return int(value) if value in range(1, 9) else 1


def upright(plain: Image.Image, image: Image.Image) -> Image.Image:
    """Turn `plain`, the pixels of `image`, as its EXIF orientation says, for PNG and WebP too.

    Not by ImageOps.exif_transpose: it also writes the EXIF anew, and fails where any other tag is odd.
    """
    turn = TURNS.get(orientation(image))
    return plain if turn is None else plain.transpose(turn)


def _unidentified(data: bytes) -> Fault:
    """Tell a damaged header, another kind of image, and what is none."""
    for form in EXTRAS:
        name, _, extra = EXTRAS[form]
        if form in _kinds(data) and not _has_extra(form):
            return Fault("unsupported_format", f"is {name}, for which the extra {extra} has to be installed")
    if _kinds(data) and (missing := boxes.missing_bytes(data)):
        return Fault("truncated", f"{missing} bytes are not there")
    for form in _formats(data):
        plugin, accept = Image.OPEN[form]
        if accept and accept(data[:16]) is True:
            try:
                plugin(io.BytesIO(data), "")
            except Exception as error:  # noqa: BLE001
                if form == "TIFF" and (unread := _unread_tiff(_first_tags(data))):
                    return Fault("unsupported_variant", unread)
                fault = _fault(error)
                return Fault(fault.code, f"{form} with a header that cannot be read: {fault.seen}")
    if data.startswith(b"PK\3\4"):
        return Fault("not_image", "is a zip, and none is opened inside another, or by another name")
    if other := next((name for name, begins in OTHERS.items() if re.match(begins, data[:1024], re.DOTALL)), None):
        return Fault("unsupported_format", f"is {other}; read are {', '.join(ALWAYS)}")
    try:
        other = Image.open(io.BytesIO(data)).format
    except Exception:  # noqa: BLE001
        return Fault("not_image", f"not recognised as an image; begins with {data[:16]!r}")
    return Fault("unsupported_format", f"is {other}; read are {', '.join(ALWAYS)}")


def _first_tags(data: bytes) -> Mapping[int, object]:
    """Of a TIFF's first page, by number; none where they cannot be read."""
    with contextlib.suppress(Exception):
        tags, file = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8]), io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)
    return {}


def _unread_tiff(tags: Mapping[int, object]) -> str:
    """Why Pillow does not read a TIFF that may be whole; empty where that is not known."""
    method, channels = tags.get(TIFF_COMPRESSION, 1), tags.get(TIFF_SAMPLES, 1)
    if method in UNREAD_TIFFS or method not in TiffImagePlugin.COMPRESSION_INFO:
        return f"TIFF compressed by {UNREAD_TIFFS.get(method, f'method {method}')}"
    return f"TIFF whose {channels} channels are stored apart" if tags.get(TIFF_PLANES) == 2 and channels > 3 else ""


def _fault(error: Exception) -> Fault:
    """What an exception of a decoder means."""
    words = _words(error)
    if words.startswith("Generic Error. Please build `libjxl`"):
        return Fault("decode_error", "libjxl does not decode it: it is damaged, or its end is missing")
    if isinstance(error, NotImplementedError) or any(word in words.lower() for word in VARIANT_WORDS):
        return Fault("unsupported_variant", words)
    short = isinstance(error, EOFError) or "truncated" in words.lower() or "unexpected end of file" in words.lower()
    return Fault("truncated" if short else "decode_error", words)


def _words(error: Exception) -> str:
    """What went wrong, on one line; some of Pillow's errors have no text."""
    words = re.sub(r" \(\d+ bytes not processed\)", "", str(error))  # of a buffer of Pillow's
    return " ".join(words.split())[:200] or type(error).__name__
