"""Opening image files that other people made: what is accepted, and what is wrong with the rest."""

import io
import warnings

import simplejpeg
from PIL import Image, UnidentifiedImageError

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""The formats that are read, by Pillow's names for them, and what their files are called."""

UNSCALED_MODES = ("I", "F")
"""32-bit pixels: nothing in the file says which value is white, so they cannot become 0 to 255."""

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


class Fault(Exception):
    """A file that cannot be used: a code of stages.validate.CHECKS and what was seen."""

    def __init__(self, code: str, seen: str) -> None:
        super().__init__(code, seen)
        self.code, self.seen = code, seen


def open_image(data: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an image of an accepted format from memory; no pixel is decoded yet.

    Args:
        data: the whole file.
        max_pixels: refuse a larger image, which may be a decompression bomb; None where that was checked before.

    Raises:
        Fault: not_image, unsupported_format or bomb.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels or 2**31 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata, of no consequence for the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=list(EXTENSIONS))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise Fault("bomb", f"more than {max_pixels} pixels") from None
        except UnidentifiedImageError:
            raise _unidentified(data) from None
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise whatever broke)
            raise Fault("decode_error", _words(error)) from None


def decode(image: Image.Image) -> None:
    """Decode every pixel of `image`, in place.

    Raises:
        Fault: truncated, decode_error, resource_limit or unsupported_format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
        except MemoryError:
            raise Fault("resource_limit", "needs more memory to decode than a worker may have") from None
        except Exception as error:  # noqa: BLE001
            words = _words(error)
            short = isinstance(error, EOFError) or "truncated" in words.lower()
            raise Fault("truncated" if short else "decode_error", words) from None
    if image.mode in UNSCALED_MODES:
        raise Fault("unsupported_format", f"32-bit pixels (mode {image.mode}) have no known range")
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        _require_plain_grey(image)


def _require_plain_grey(image: Image.Image) -> None:
    """Refuse a TIFF of which Pillow hands out numbers that do not mean 0 for black to 65535 for white."""
    bits, photometric = image.tag_v2.get(258, (16,)), image.tag_v2.get(262, 1)
    if bits != (16,) or photometric != 1:
        raise Fault("unsupported_format", f"grey TIFF of {bits[0]} bits" + (", white as 0" if photometric == 0 else ""))


def decode_strictly(image: Image.Image, data: bytes) -> None:
    """Decode every pixel, of a JPEG with libjpeg's warnings as errors: Pillow does not see 4 KiB of zeros inside one.

    Args:
        image: what `open_image` made of `data`. A JPEG's pixels are decoded without it and thrown away.
        data: the whole file.

    Raises:
        Fault: jpeg_damage, or as `decode`.
    """
    if format_of(image) != "JPEG" or image.mode not in ("L", "RGB"):
        return decode(image)
    try:
        simplejpeg.decode_jpeg(data, "GRAY" if image.mode == "L" else "RGB", strict=True)
    except ValueError as error:
        words = _words(error)
        if "premature end of jpeg file" in words.lower():  # that of a "data segment" is damage in the middle
            raise Fault("truncated", words) from None
        if "corrupt jpeg data" in words.lower():
            raise Fault("jpeg_damage", words) from None
        decode(image)  # a kind of JPEG that libjpeg-turbo's simple interface does not know


def format_of(image: Image.Image) -> str:
    """The file's format, a key of EXTENSIONS. MPO is a JPEG with more pictures behind it, as phones write."""
    return "JPEG" if image.format == "MPO" else image.format


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where the file has none or a damaged one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = image.getexif().get(ORIENTATION_TAG, 1)
        except Exception:  # noqa: BLE001  (damaged EXIF: the pixels are still good)
            return 1
    return int(value) if value in range(1, 9) else 1


def upright(image: Image.Image) -> Image.Image:
    """Turn the pixels as the EXIF orientation says, for PNG and WebP too.

    Not by ImageOps.exif_transpose: it also writes the EXIF anew, and fails where any other tag is odd.
    """
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _unidentified(data: bytes) -> Fault:
    """Tell another kind of image from what is none."""
    try:
        other = Image.open(io.BytesIO(data)).format
    except Exception:  # noqa: BLE001
        return Fault("not_image", f"not recognised as an image; begins with {data[:16]!r}")
    if other in EXTENSIONS:
        return Fault("decode_error", f"{other} with a damaged header")
    return Fault("unsupported_format", f"is {other}; read are {', '.join(EXTENSIONS)}")


def _words(error: Exception) -> str:
    """What went wrong, on one line; some of Pillow's errors have no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__
