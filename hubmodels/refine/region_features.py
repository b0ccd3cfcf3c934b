"""What each superpixel looks like, where it lies, and what the network thinks of it: one row of numbers per region."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from hubmodels.refine.region_means import region_means
from hubmodels.refine.settings import REFERENCE_PX

TEXTURE_POINTS, TEXTURE_RADIUS_PX = 8, 1
TEXTURE_CODES = TEXTURE_POINTS + 2  # rotation-invariant uniform patterns by their count of bright points, and the rest
BOX_REACH = 1.0  # centroids farther outside the person's box than so many box sizes count as so far

LAB_TABLE_STEPS = 1 << 17  # Lab is right to 0.03 then, a fortieth of the smallest step of an 8-bit photo

_LINEAR_FROM_SRGB = np.arange(256) / 255
_LINEAR_FROM_SRGB = np.where(
    _LINEAR_FROM_SRGB > 0.04045, ((_LINEAR_FROM_SRGB + 0.055) / 1.055) ** 2.4, _LINEAR_FROM_SRGB / 12.92
).astype(np.float32)
_XYZ_FROM_LINEAR = np.array(  # scikit-image's numbers; each row is divided by its white, D65 at 2 degrees
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])


def feature_names(num_classes: int) -> tuple[str, ...]:
    """Names of the columns of `region_features`, F = 20 + `num_classes`, in order.

    `l_mean` to `b_std` are in Lab units, `texture_0` to `texture_9` shares that sum to 1, `x` and `y` in sizes of the
    person's box, `log_area` the natural logarithm of a share, `entropy` in nats, `prob_0` and on in 0..1.
    """
    colour = [f"{channel}_{what}" for what in ("mean", "std") for channel in "lab"]
    texture = [f"texture_{code}" for code in range(TEXTURE_CODES)]
    return (*colour, *texture, "x", "y", "log_area", "entropy", *(f"prob_{label}" for label in range(num_classes)))


def region_features(image: np.ndarray, segments: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Colour, texture, place, size and mean probabilities of every region.

    Args:
        image: (H, W, 3) uint8 sRGB.
        segments: (H, W) int region ids, consecutive from 0.
        probs: (C, H, W) float probabilities; label 0 is the background, and the person is where it has less than 0.5.

    Returns:
        (R, F) float32, one row per region; `feature_names(C)` names the columns:
        mean and standard deviation of CIE Lab (D65);
        shares of the rotation-invariant uniform local binary patterns of lightness, 8 points at 1 pixel;
        centroid in the person's bounding box, 0..1 from left to right and top to bottom, beyond that outside of it,
        at most one box size; the box is the whole photo if there is no person;
        logarithm of the share of the photo that the region covers; entropy of the mean probabilities, and these.

    They mean the same at any size of the photo; the texture of a photo beyond `REFERENCE_PX` pixels is that of the
    photo reduced to them.

    Raises:
        ValueError: sizes or dtypes disagree, or ids are not consecutive.

    Source: Ojala, Pietikainen and Maenpaa 2002, "Multiresolution gray-scale and rotation invariant texture
    classification with local binary patterns", section 2.3.
    """
    areas = check_segments(segments)
    check_photo_fits(image, segments)
    if probs.ndim != 3 or probs.shape[1:] != segments.shape:
        raise ValueError(f"probs must be (C, {segments.shape[0]}, {segments.shape[1]}); got {probs.shape}")
    lab, flat = lab_planes(image), segments.ravel()
    mean = region_means(lab, flat, areas)
    variance = region_means((lab - mean[:, flat]) ** 2, flat, areas)  # two passes: E(x^2) - E(x)^2 cancels
    class_means = region_means(probs, flat, areas)
    log_area = np.log(areas / flat.size)
    entropy = -(class_means * np.log(np.maximum(class_means, 1e-12))).sum(0)
    texture, place = _texture_shares(lab[0], segments, areas), _place_in_box(segments, areas, probs[0] < 0.5)
    rows = np.concatenate([mean, np.sqrt(variance), texture, place, log_area[None], entropy[None], class_means])
    return np.ascontiguousarray(rows.T, np.float32)


def check_segments(segments: np.ndarray) -> np.ndarray:
    """(R,) int64 areas in pixels of an (H, W) map of region ids.

    Raises:
        ValueError: not a map of integers, or ids are not consecutive from 0.
    """
    if segments.ndim != 2 or not np.issubdtype(segments.dtype, np.integer) or segments.size == 0:
        raise ValueError(f"segments must be (H, W) int region ids; got {segments.shape} {segments.dtype}")
    low, high = int(segments.min()), int(segments.max())
    if low < 0 or high >= segments.size or not (areas := np.bincount(segments.ravel())).all():
        raise ValueError(
            f"segments must have consecutive ids from 0; got ids in {low}..{high} with gaps: "
            "renumber them with np.unique(segments, return_inverse=True)[1]"
        )
    return areas


def check_photo_fits(image: np.ndarray, segments: np.ndarray) -> None:
    """Raise ValueError unless `image` is an (H, W, 3) uint8 photo of the segments' size."""
    if image.shape != (*segments.shape, 3) or image.dtype != np.uint8:
        expected = (*segments.shape, 3)
        raise ValueError(f"image must be {expected} uint8 to match segments; got {image.shape} {image.dtype}")


def lab_planes(image: np.ndarray) -> np.ndarray:
    """CIE Lab (D65, 2 degrees) of an (H, W, 3) uint8 sRGB photo: (3, H * W) float32.

    scikit-image's rgb2lab within 0.03, several times as fast: the cube root is looked up.
    """
    linear = np.empty((3, image.shape[0] * image.shape[1]), np.float32)
    for channel in range(3):
        linear[channel] = _LINEAR_FROM_SRGB[image[..., channel].ravel()]
    steps = (_XYZ_FROM_LINEAR * LAB_TABLE_STEPS).astype(np.float32) @ linear
    x, y, z = _lab_response()[(steps + np.float32(0.5)).astype(np.int32)]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@lru_cache(maxsize=1)
def _lab_response() -> np.ndarray:
    """CIE's compressed response to 0, 1/steps, ... and a little beyond 1, where white rounds to."""
    share = np.arange(LAB_TABLE_STEPS + 16) / LAB_TABLE_STEPS
    return np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116).astype(np.float32)


def _texture_shares(lightness: np.ndarray, segments: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(TEXTURE_CODES, R): share of each region's pixels with each local binary pattern."""
    codes = _texture_codes(lightness.reshape(segments.shape))
    counts = np.bincount((codes * len(areas) + segments).ravel(), minlength=TEXTURE_CODES * len(areas))
    return counts.reshape(TEXTURE_CODES, len(areas)) / areas


def _texture_codes(lightness: np.ndarray) -> np.ndarray:
    """(H, W) int64 patterns in 0..TEXTURE_CODES - 1, of a photo of at most REFERENCE_PX pixels, spread to (H, W)."""
    from skimage.feature import local_binary_pattern  # heavy: only when features are asked for

    height, width = lightness.shape
    factor = (REFERENCE_PX / lightness.size) ** 0.5
    if factor < 1:
        rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
        lightness = np.asarray(Image.fromarray(lightness).resize((columns, rows), Image.Resampling.BOX))
    grey = np.round(lightness * 2.55).astype(np.uint8)  # between float pixels, equal or not would be chance
    codes = local_binary_pattern(grey, TEXTURE_POINTS, TEXTURE_RADIUS_PX, method="uniform").astype(np.int64)
    if factor >= 1:
        return codes
    return codes[np.arange(height)[:, None] * rows // height, np.arange(width) * columns // width]


def _place_in_box(segments: np.ndarray, areas: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(2, R): x and y of every region's centroid, 0..1 inside the person's box."""
    middles = (np.arange(segments.shape[1]) + 0.5, np.arange(segments.shape[0])[:, None] + 0.5)
    centroids = region_means((np.broadcast_to(middle, segments.shape) for middle in middles), segments, areas)
    places = []
    for axis, centroid in zip((1, 0), centroids, strict=True):
        inside = np.flatnonzero(person.any(1 - axis))
        first, last = (inside[0], inside[-1] + 1) if len(inside) else (0, segments.shape[axis])
        places.append((centroid - first) / (last - first))
    return np.clip(np.stack(places), -BOX_REACH, 1 + BOX_REACH)
