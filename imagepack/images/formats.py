"""The image formats that are read: their names and extensions, how files begin, and the codecs of Pillow for them."""

import importlib.util
import io
import re
from functools import cache

from PIL import Image

from imagepack.images import boxes, jpeg_xl, tiff
from imagepack.images.faults import Fault, of_error

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
"""Formats that Pillow tells apart: a phone's JPEG with more pictures behind it, a BMP without the file's header."""
EXTRAS = {"HEIF": ("HEIC", "pillow_heif", "heic"), "JXL": ("JPEG XL", "pillow_jxl", "jxl")}
"""Formats that need another library: what people call them, its module, and the extra of pyproject.toml."""
ALWAYS = [form for form in EXTENSIONS if form not in EXTRAS]
OTHERS = {
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "Photoshop": rb"8BPS",
    "SVG": rb"\s*(<\?xml.{,500}?)?<svg[\s>]",
}
"""Formats that Pillow may not know, and how their files begin."""


@cache
def prepare_codecs() -> None:
    """Load Pillow's plugins and set up its memory and threads, once a process.

    Before memory is short: Pillow goes on without the plugins that it cannot load.
    """
    Image.init()
    Image.core.set_blocks_max(16)  # PILLOW_BLOCKS_MAX: memory of one image is kept for the next, a third of the time
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker a core, as it is


@cache
def has_extra(form: str) -> bool:
    """Have Pillow read a format of EXTRAS by its library, loaded now; return False where that is not installed."""
    if importlib.util.find_spec(EXTRAS[form][1]) is None:
        return False
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    else:
        import pillow_jxl

        pillow_jxl.JpegXLImagePlugin.DECODE_THREADS = 0
    return True


def format_of(image: Image.Image) -> str:
    """Return the file's format, a key of EXTENSIONS."""
    return VARIANTS.get(image.format, image.format)


def format_in_boxes(data: bytes) -> str:
    """Return AVIF, HEIF or JXL, where a file's first bytes say so; nothing for any other."""
    if jpeg_xl.begins(data):
        return "JXL"
    brands = boxes.brands(data) if data[4:8] == b"ftyp" else set()
    return "AVIF" if brands & boxes.AVIF_BRANDS else "HEIF" if brands & boxes.HEIC_BRANDS else ""


def candidates(data: bytes) -> list[str]:
    """Return the formats of which a file may be."""
    form = format_in_boxes(data)
    if form in EXTRAS:
        return [form] if has_extra(form) else []
    return ALWAYS


def why_unidentified(data: bytes) -> Fault:
    """Return what a file is of which Pillow knows no format: damaged in its header, another kind of image, or none."""
    form = format_in_boxes(data)
    if form in EXTRAS and not has_extra(form):
        name, _, extra = EXTRAS[form]
        return Fault("unsupported_format", f"is {name}, for which the extra {extra} has to be installed")
    if form and (missing := boxes.missing_bytes(data)):
        return Fault("truncated", f"{missing} bytes are not there")
    for form in candidates(data):
        plugin, accept = Image.OPEN[form]
        if accept and accept(data[:16]) is True:
            try:
                plugin(io.BytesIO(data), "")
            except Exception as error:  # noqa: BLE001
                if form == "TIFF" and (unread := tiff.why_unread(tiff.first_tags(data))):
                    return Fault("unsupported_variant", unread)
                fault = of_error(error)
                return Fault(fault.code, f"{form} with a header that cannot be read: {fault.seen}")
    if data.startswith(b"PK\3\4"):
        return Fault("not_image", "is a zip, and none is opened inside another, or by another name")
    other = next((name for name, begins in OTHERS.items() if re.match(begins, data[:1024], re.DOTALL)), "")
    if not other:
        try:
            other = Image.open(io.BytesIO(data)).format
        except Exception:  # noqa: BLE001
            return Fault("not_image", f"not recognised as an image; begins with {data[:16]!r}")
    return Fault("unsupported_format", f"is {other}; read are {', '.join(ALWAYS)}")
