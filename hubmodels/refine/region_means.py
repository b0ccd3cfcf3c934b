"""Means over the pixels of regions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def region_means(planes: Iterable[np.ndarray], ids: np.ndarray, areas: np.ndarray | None = None) -> np.ndarray:
    """Mean of every plane over the pixels of every region.

    Args:
        planes: K arrays of numbers, each of as many pixels as `ids`: (K, H, W), or the channels of a photo.
        ids: region ids from 0, some of which may be missing, in any shape.
        areas: (R,) pixels of each region where they were counted already.

    Returns:
        (K, R) float64; 0 for an id without pixels.
    """
    flat = ids.ravel().astype(np.intp, copy=False)  # which bincount would do again for every plane
    sizes = np.maximum(np.bincount(flat) if areas is None else areas, 1)
    return np.stack([np.bincount(flat, weights=plane.ravel(), minlength=len(sizes)) for plane in planes]) / sizes
