"""Photos with a colour profile of their own, such as the Display P3 of telephones, as sRGB. Profiles are untrusted."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageCms, features

MAX_PROFILE_BYTES = 4_000_000  # the largest in use, of printing presses, have 3 million
# What the pixels of a mode are, as profiles call it. Alpha, where there is some, is kept.
_SPACES = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "CMYK": "CMYK"}


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
        if _SPACES.get(flat.mode) != profile.profile.xcolor_space.strip() or _is_srgb(profile):
            return picture
        mode = "RGBA" if flat.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(flat, profile, _srgb(), outputMode=mode)
    except ImageCms.PyCMSError:  # no profile at all, or a damaged one
        return picture
    return converted or picture


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """By its description: conversion would only round."""
    return "srgb" in ImageCms.getProfileDescription(profile).lower()


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
