"""Files: label maps as indexed PNG. Written to a temporary name and renamed, so none is ever half there."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from hubmodels.files import write_bytes
from hubmodels.labels import LabelSet

NO_LABEL = (128, 128, 128)  # colour of values that are no label's, such as 255 for undecided in masks drawn further


def indexed_png(labels: np.ndarray, label_set: LabelSet) -> Image.Image:
    """A palette image whose pixel values are the label ids: (H, W) uint8 -> mode P."""
    picture = Image.fromarray(labels).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    # A palette of fewer colours would be packed into 1, 2 or 4 bits a pixel, which not every program takes for ids.
    colours = (*label_set.palette, *[NO_LABEL] * (256 - len(label_set)))
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


JPEG_MAX_PX = 65_500  # the longest side that libjpeg writes


def fit_jpeg(picture: Image.Image) -> Image.Image:
    """A picture as large as a JPEG can hold it: itself, or scaled down if a side is longer than JPEG_MAX_PX.

    For pictures to look at; label ids are never scaled like that.
    """
    factor = JPEG_MAX_PX / max(picture.size)
    if factor >= 1:
        return picture
    width, height = (max(1, min(JPEG_MAX_PX, round(side * factor))) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def save_image(picture: Image.Image, path: str | Path, **options: object) -> Path:
    """Write a picture in the format of the path's suffix, atomically; missing folders are made.

    Raises:
        ValueError: the suffix names no format that can be written.
    """
    path = Path(path)
    return write_bytes(encode_image(picture, path, **options), path)


def encode_image(picture: Image.Image, path: str | Path, **options: object) -> bytes:
    """What `save_image` writes; ValueError as there."""
    encoded = io.BytesIO()
    picture.save(encoded, format=_format_of(Path(path)), **options)
    return encoded.getvalue()


def _format_of(path: Path) -> str:
    Image.init()
    try:
        name = Image.EXTENSION[path.suffix.lower()]
        Image.SAVE[name]  # some are only read
    except KeyError:
        raise ValueError(
            f"cannot write {path.name!r}: no format is written with suffix {path.suffix!r}; use .png, .jpg or .webp"
        ) from None
    return name
