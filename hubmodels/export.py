"""Files: label maps as indexed PNG. Written to a temporary name and renamed, so none is ever half there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from hubmodels.labels import LabelSet


def indexed_png(labels: np.ndarray, label_set: LabelSet) -> Image.Image:
    """A palette image whose pixel values are the label ids: (H, W) uint8 -> mode P."""
    picture = Image.fromarray(labels).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([channel for colour in label_set.palette for channel in colour])
    return picture


def save_image(picture: Image.Image, path: str | Path, **options: object) -> Path:
    """Write a picture in the format of the path's suffix, atomically; missing folders are made.

    Raises:
        ValueError: the suffix names no format that can be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            picture.save(file, format=_format_of(path), **options)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp makes files private; saved pictures follow the umask
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _format_of(path: Path) -> str:
    Image.init()
    try:
        return Image.EXTENSION[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"cannot write {path.name!r}: unknown suffix {path.suffix!r}; use .png, .jpg or .webp"
        ) from None
