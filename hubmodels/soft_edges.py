"""Edges of a cut-out that follow the photo, with the colour of what lies behind taken out of them.

A label map says of each pixel all or nothing, so that a cut-out has steps, and along its edge a seam in the colours of
the old background. How much of a pixel belongs to it is estimated by the guided filter, led by the photo (He et al.
2013), and its own colour from the means on either side (blur fusion, Forte 2021).
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates, maximum_filter, minimum_filter, uniform_filter

from hubmodels.refine.settings import REFERENCE_PX

WORK_PX = 600_000  # pixels at which larger photos are filtered; their own pixels lead the result
# Radii are those of a photo of `REFERENCE_PX` pixels, and grow with its sides.
RADIUS_PX = 5  # how far from the mask's edge the true one is looked for, about
EPSILON = 1e-4  # variance of colours in 0..1 below which the photo shows no edge to follow
COLOUR_RADIUS_PX = 15  # of the means that say what lies on either side


def soften(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel a mask covers, and the colour of that part.

    Args:
        image: (H, W, 3) uint8 sRGB.
        mask: (H, W) bool.

    Returns:
        (H, W) float32 in 0..1, which is the mask but for some pixels on either side of its edge, and (H, W, 3) uint8,
        the photo but for pixels that are covered in part.
    """
    height, width = mask.shape
    shrink = min(1.0, (WORK_PX / mask.size) ** 0.5)
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    grown = (size[0] * size[1] / REFERENCE_PX) ** 0.5
    radius = max(1, round(RADIUS_PX * grown))
    alpha, colours = mask.astype(np.float32), image.copy()
    small, covered = _resized(image, size), _resized(alpha, size)
    near = _stretched(_near_edges(covered, 2 * radius), mask.shape)
    if not near.any():
        return alpha, colours

    own = image[near].astype(np.float32) / 255
    slope, offset = (_at(near, each) for each in _guide(small, covered, radius))
    alpha[near] = np.clip((slope * own).sum(-1) + offset[:, 0], 0, 1)

    mixed = near & (alpha > 0) & (alpha < 1)
    own, share = image[mixed].astype(np.float32) / 255, alpha[mixed][:, None]
    sides = _sides(small, _resized(alpha, size), max(1, round(COLOUR_RADIUS_PX * grown)))
    inside, outside = (_at(mixed, each) for each in sides)
    missed = own - share * inside - (1 - share) * outside
    colours[mixed] = np.round(255 * np.clip(inside + share * missed, 0, 1))
    return alpha, colours


def _guide(image: np.ndarray, covered: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """What makes of a photo's colours the share that is covered: slope (h, w, 3), to multiply by, and offset (h, w).

    In every window the share is a linear function of colour, by least squares (He et al. 2013, eq. 19 and 20); each
    pixel gets the mean of the windows it is in.
    """
    offset = _box(covered, radius)
    mixed = (offset > 1e-3) & (offset < 1 - 1e-3)  # in other windows it is the same everywhere: no slope
    mean, mean_covered = _box(image, radius)[mixed], offset[mixed]
    covariance = _box(image * covered[..., None], radius)[mixed] - mean * mean_covered[:, None]
    pairs = np.empty((len(mean), 3, 3), np.float32)
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        squares = _box(image[..., i] * image[..., j], radius)[mixed] - mean[:, i] * mean[:, j]
        pairs[:, i, j] = pairs[:, j, i] = squares
    slope = np.zeros_like(image)
    slope[mixed] = np.linalg.solve(pairs + EPSILON * np.eye(3, dtype=np.float32), covariance[..., None])[..., 0]
    offset[mixed] = mean_covered - (slope[mixed] * mean).sum(-1)
    return _box(slope, radius), _box(offset, radius)


def _sides(image: np.ndarray, alpha: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean colours (h, w, 3) of what is covered around each pixel, and of what is not (blur fusion, Forte 2021)."""
    found = []
    for share in (alpha, 1 - alpha):
        weight = _box(share, radius)[..., None]
        total = _box(image * share[..., None], radius)
        found.append(np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), image))
    return found[0], found[1]


def _near_edges(covered: np.ndarray, distance_px: int) -> np.ndarray:
    """(h, w) bool: pixels with more and with less coverage in the square of so many pixels to each side."""
    side = 2 * distance_px + 1
    return maximum_filter(covered, side, mode="nearest") > minimum_filter(covered, side, mode="nearest")


def _box(values: np.ndarray, radius: int) -> np.ndarray:
    """Means over windows of (h, w, ...) float32, `radius` pixels to each side; edges are mirrored."""
    side = 2 * radius + 1
    return uniform_filter(values, (side, side, *[1] * (values.ndim - 2)), mode="reflect")


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, C) as float32, uint8 as 0..1, averaged to a smaller size or as it is."""
    if values.shape[:2] != size and values.ndim == 3:
        return np.stack([_resized(values[..., each], size) for each in range(values.shape[2])], axis=-1)
    if values.shape[:2] != size:
        values = np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BOX))
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


def _stretched(marked: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool to a larger size."""
    return np.asarray(Image.fromarray(marked.view(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)).view(bool)


def _at(marked: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n, C) float32 of a map (h, w) or (h, w, C) at the marked pixels (H, W) of a photo, linear between its own."""
    channels = values.reshape(*values.shape[:2], -1)
    if channels.shape[:2] == marked.shape:
        return channels[marked]
    scales = np.divide(values.shape[:2], marked.shape)
    places = [(of + 0.5) * scale - 0.5 for of, scale in zip(np.nonzero(marked), scales, strict=True)]
    found = [map_coordinates(channels[..., each], places, order=1, mode="nearest") for each in range(channels.shape[2])]
    return np.stack(found, axis=-1)
