"""Pixels as screens show them: to sRGB by the colour profile, 8 bits, upright, over a background."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from imagepack.images.content import profile_name
from imagepack.images.pixels import GREY_MODES, eight_bit, over, upright


def upright_srgb(image: Image.Image, mode: str, background: tuple[int, int, int]) -> Image.Image:
    """Return a decoded file as an image of `mode`, RGB or L: 8 bits, sRGB, upright, over the background."""
    profile = image.info.get("icc_profile") or b""
    if image.mode in GREY_MODES:
        plain = eight_bit(image, _grey_curve(profile, deep=image.mode.startswith("I;16")))
    else:
        plain = _to_srgb(eight_bit(image), profile)
    return over(upright(plain, image), background).convert(mode)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply the colour profile. Where it is damaged or of another kind of pixels, viewers ignore it, and so do we."""
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
    """Return how to convert; None where there is nothing to do: the profile is sRGB, or of no use."""
    if not profile_name(profile):
        return None
    # otherwise lcms puts 33 points of a grey curve in its place, and dark greys are wrong by up to 10
    exact = ImageCms.Flags.NOOPTIMIZE if mode in ("L", "I;16") else ImageCms.Flags.NONE
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, to_mode, flags=exact)
    except (OSError, ImageCms.PyCMSError):
        return None
