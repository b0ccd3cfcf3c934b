"""Pictures of a report: where one prediction is wrong, where all are, and pictures as part of an HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from hubmodels.labels import Colour
from hubmodels.metrics import IGNORE, ratio

# What can be wrong with a pixel, told apart also by colour-blind readers.
ERROR_COLOURS: dict[str, Colour] = {
    "missed: background instead of a label": (0, 114, 178),
    "extra: a label instead of background": (230, 159, 0),
    "confused: one label instead of another": (204, 41, 54),
}
HEAT: tuple[Colour, ...] = ((0, 0, 0), (84, 15, 109), (187, 55, 84), (249, 142, 9), (252, 255, 164))  # dark to bright
LONG_SIDE_PX = 480


def error_map(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> Image.Image:
    """The photo in pale grey, wrong pixels in the colours of `ERROR_COLOURS`; undecided pixels are never wrong.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) uint8 label ids, 0 the background, IGNORE where undecided.
        predicted: (H, W) uint8 label ids.
    """
    wrong = is_wrong(truth, predicted)
    kinds = (wrong & (predicted == 0), wrong & (truth == 0), wrong & (predicted != 0) & (truth != 0))
    grey = 140 + image.mean(-1) * (100 / 255)
    out = np.repeat(grey[..., None].round().astype(np.uint8), 3, axis=-1)
    for kind, colour in zip(kinds, ERROR_COLOURS.values(), strict=True):
        out[kind] = colour
    return Image.fromarray(out)


def is_wrong(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(H, W) bool: decided pixels with another label than the true one."""
    return (truth != IGNORE) & (truth != predicted)


def mean_errors(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """How often each place of the photos is wrong.

    Args:
        pairs: truth and prediction of each photo, both (H, W) uint8; at least one pair.

    Returns:
        (H, W) float in 0..1 at the size of the first photo, to which others are stretched; 0 where no photo is decided.

    Raises:
        ValueError: no photo.
    """
    wrong = decided = None
    for truth, predicted in pairs:
        maps = [(truth != IGNORE).astype(np.float32), is_wrong(truth, predicted).astype(np.float32)]
        if wrong is None:
            wrong, decided = np.zeros(truth.shape), np.zeros(truth.shape)
        if truth.shape != wrong.shape:
            # These are shares, not ids; a box keeps the mean over the area that becomes a pixel.
            maps = [np.array(Image.fromarray(m).resize(wrong.shape[::-1], Image.Resampling.BOX)) for m in maps]
        decided, wrong = decided + maps[0], wrong + maps[1]
    if wrong is None:
        raise ValueError("expected at least one photo; got none")
    return np.nan_to_num(ratio(wrong, decided))


def heat(values: np.ndarray, *, top: float) -> Image.Image:
    """Values in 0..`top` in the colours of `HEAT`: (H, W) float -> RGB; larger ones are as bright as `top`."""
    level = np.clip(values / top, 0, 1) if top > 0 else np.zeros(values.shape)
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(level, stops, [colour[channel] for colour in HEAT]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def data_uri(picture: Image.Image) -> tuple[str, tuple[int, int]]:
    """An RGB picture as a JPEG inside of a URI, with its width and height; large ones are scaled down."""
    small = picture.copy()
    small.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", small.size
