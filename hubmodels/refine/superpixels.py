"""Superpixels: cut a photo into small areas of one colour, then let each area decide on one label."""

from __future__ import annotations

import numpy as np


def superpixels(image: np.ndarray, *, scale: float = 100.0, sigma: float = 0.8, min_size_px: int = 20) -> np.ndarray:
    """Felzenszwalb and Huttenlocher's graph-based segmentation (2004), through scikit-image.

    Args:
        image: (H, W, 3) uint8 sRGB.
        scale: larger values make larger areas; 10 to 1000 is usual.
        sigma: standard deviation of the Gaussian smoothing before, in pixels.
        min_size_px: areas with fewer pixels are joined to a neighbour.

    Returns:
        (H, W) int32, consecutive from 0; every pixel has one.

    Raises:
        ValueError: not a photo, or a number out of range.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8; got {image.shape} {image.dtype}")
    if scale <= 0 or sigma < 0 or min_size_px < 0:
        raise ValueError(f"expected scale > 0, sigma >= 0, min_size_px >= 0; got {scale}, {sigma}, {min_size_px}")
    from skimage.segmentation import felzenszwalb  # heavy: only when the stage runs

    segments = felzenszwalb(image.astype(np.float32) / 255, scale=scale, sigma=sigma, min_size=min_size_px)
    return np.unique(segments, return_inverse=True)[1].reshape(segments.shape).astype(np.int32)


def vote(probs: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """One label per superpixel: the one with the largest summed probability, the lower id on a tie.

    Args:
        probs: (C, H, W) float probabilities.
        segments: (H, W) int, consecutive from 0.

    Returns:
        (H, W) uint8 label ids.

    Raises:
        ValueError: the sizes disagree.
    """
    if probs.ndim != 3 or probs.shape[1:] != segments.shape:
        raise ValueError(f"probs must be (C, {segments.shape[0]}, {segments.shape[1]}); got {probs.shape}")
    flat, count = segments.ravel(), int(segments.max()) + 1
    sums = np.stack([np.bincount(flat, weights=channel.ravel(), minlength=count) for channel in probs])
    return sums.argmax(0).astype(np.uint8)[segments]
