"""Photos with a colour profile of their own, such as the Display P3 of telephones, as sRGB. Profiles are untrusted."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms, features

MAX_PROFILE_BYTES = 4_000_000  # the largest in use, of printing presses, have 3 million
# What the pixels of a mode are, as profiles call it. Alpha, where there is some, is kept.
_SPACES = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "CMYK": "CMYK"}
SAME_STEPS = 2  # of 255: what profiles of sRGB differ by, as each rounds its curve and primaries in its own way


def to_srgb(picture: Image.Image) -> Image.Image:
    """The picture with its colours as sRGB (ICC.1:2022), in mode RGB or RGBA if there was something to convert.

    A picture without a profile, with one of sRGB, or with one that cannot be used stays as it is: so viewers show it.
    """
    data = picture.info.get("icc_profile")
    if not data or len(data) > MAX_PROFILE_BYTES or not features.check("littlecms2"):
        return picture
    if picture.mode in ("P", "PA", "LA") or (picture.mode in ("L", "RGB") and picture.has_transparency_data):
        flat = picture.convert("RGBA")  # colours of a palette, and with one transparent colour
    else:
        flat = picture
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(data))
        if _SPACES.get(flat.mode) != profile.profile.xcolor_space.strip() or _is_srgb(profile, flat.mode):
            return picture
        mode = "RGBA" if flat.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(flat, profile, _srgb(), outputMode=mode)
    except ImageCms.PyCMSError:  # no profile at all, or a damaged one
        return picture
    return converted or picture


def _is_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Whether conversion would only round. Names do not tell: there is a "Linear sRGB" too."""
    if mode == "CMYK":
        return False
    stored = _colours().convert("L" if mode == "L" else "RGB")
    # Without a table for many pixels, which takes longer than these few.
    seen = ImageCms.profileToProfile(stored, profile, _srgb(), outputMode="RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    difference = np.asarray(seen).astype(int) - np.asarray(stored.convert("RGB"))
    return bool(np.abs(difference).max() <= SAME_STEPS)


@functools.cache
def _colours() -> Image.Image:
    """Every grey, and mixtures of the primaries."""
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    mixtures = np.stack(np.meshgrid(*[range(0, 256, 51)] * 3), axis=-1).reshape(-1, 3)
    return Image.fromarray(np.concatenate([greys, mixtures])[None].astype(np.uint8))


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
