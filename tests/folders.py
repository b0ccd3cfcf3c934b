"""What a test finds in folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def names(folder: Path) -> list[str]:
    """Files in a folder and those below it, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def stored(path: Path) -> np.ndarray:
    """What a picture holds: label ids of a mask."""
    with Image.open(path) as picture:
        return np.asarray(picture)
