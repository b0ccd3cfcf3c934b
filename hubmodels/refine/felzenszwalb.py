"""Felzenszwalb and Huttenlocher's graph-based segmentation: the graph of a photo once, its segments at any scale.

After P. Felzenszwalb and D. Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004, in the form that
scikit-image gives it. Sorting the edges takes most of the time and depends on neither scale nor smallest size, so a
slider need not wait for it. `hubmodels.refine.felzenszwalb_loops` is imported at first use and compiled once.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from hubmodels.refine.compiled import load
from hubmodels.refine.region_means import region_means
from hubmodels.refine.touching import EDGES, touching_pairs

SIGMA_MAX_PX = 1000  # of a smoothing whose time and memory grow with it; a photo is flat long before


def load_loops() -> ModuleType | None:
    """The compiled loops, or None (logged once) where Numba cannot be imported."""
    without = "superpixels run on scikit-image, many times slower at a new scale"
    return load("hubmodels.refine.felzenszwalb_loops", without=without)


# ---- checks --------------------------------------------------------------------------------------------


def check_photo(image: np.ndarray, mask: np.ndarray | None) -> None:
    """Raise ValueError unless `image` is (H, W, 3) uint8 or float in 0..1 and `mask` is None or (H, W) bool."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        got = type(image).__name__ if shape is None else shape
        raise ValueError(f"image must be an (H, W, 3) array of at least one pixel; got {got}: convert it to RGB")
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise ValueError(f"image must be uint8, or float in 0..1; got {dtype}: use image.astype(np.uint8)")
    if dtype != np.uint8 and not (image.min() >= 0 and image.max() <= 1):  # written so that NaN is refused
        raise ValueError(
            f"a float image must be in 0..1; got {image.min():g}..{image.max():g}: divide 8-bit values by 255"
        )
    if mask is not None and (getattr(mask, "shape", None) != shape[:2] or mask.dtype != bool):
        got = f"{getattr(mask, 'shape', type(mask).__name__)} {getattr(mask, 'dtype', '')}".strip()
        raise ValueError(f"mask must be {tuple(shape[:2])} bool; got {got}: use a comparison such as labels == 1")


def check_numbers(*, scale: float = 1.0, sigma: float = 0.0, min_size_px: float = 0) -> None:
    """Raise ValueError unless the numbers are finite, scale above 0 and the others 0 or more."""
    if not 0 < scale < np.inf:
        raise ValueError(f"scale must be a number above 0; got {scale}: 10 to 1000 is usual")
    if not 0 <= sigma <= SIGMA_MAX_PX:
        raise ValueError(f"sigma must be in 0..{SIGMA_MAX_PX} pixels; got {sigma}: 0 turns smoothing off")
    if not 0 <= min_size_px < np.inf:
        raise ValueError(f"min_size_px must be 0 or more; got {min_size_px}: 0 keeps every segment")


# ---- the graph -----------------------------------------------------------------------------------------


class FelzenszwalbGraph:
    """A photo's pixels, joined to their eight neighbours by edges that are sorted by colour difference.

    Args:
        image: (H, W, 3) uint8 sRGB, or float in 0..1.
        sigma: standard deviation of the Gaussian smoothing before, in pixels; 0 is off.
        mask: (H, W) bool; only True pixels are segmented, and colours outside have no influence. None is all True.

    Raises:
        ValueError: not a photo, not its mask, or a negative sigma.

    Memory: 48 bytes a pixel, 11.5 MB at 600x400; about five times that while it is built.
    Safe to share between threads. Without Numba it keeps the photo alone, and scikit-image starts anew at every scale.
    """

    def __init__(self, image: np.ndarray, sigma: float, mask: np.ndarray | None = None) -> None:
        check_photo(image, mask)
        check_numbers(sigma=sigma)
        self._mask = None if mask is None or mask.all() else mask.copy()
        self._height, self._width = image.shape[:2]
        filled = fill_outside(image, self._mask)
        self._loops = load_loops()
        if self._loops is None:
            self._image, self._sigma = filled.copy(), sigma
            return
        self._inside = np.ones(image.shape[:2], bool) if self._mask is None else self._mask
        self._codes, self._costs = _sorted_edges(filled, sigma, self._inside, self._loops)

    def segments(self, scale: float, min_size_px: int) -> np.ndarray:
        """The segments at one scale, the same ones as of `skimage.segmentation.felzenszwalb`.

        Where edges tie, this takes the first in scan order, and scikit-image any.

        Args:
            scale: larger values make larger segments; unlike in `superpixels`, whatever the size of the photo.
            min_size_px: segments with fewer pixels are joined across their weakest edge, if they have a neighbour.

        Returns:
            (H, W) int32, numbered in scan order and consecutive from 0; segments hang together by eight neighbours.
            All pixels outside the mask are 0, and those inside then start at 1.

        Raises:
            ValueError: a number out of range.
        """
        check_numbers(scale=scale, min_size_px=min_size_px)
        if self._loops is None:
            return self._without_loops(scale, min_size_px)
        # dividing by 255 makes scale mean what it did for the paper's 8-bit photos
        first = 0 if self._mask is None else 1
        numbers = self._width, float(scale) / 255, self._at_most_all(min_size_px), first
        ids = self._loops.segment(self._codes, self._costs, self._inside.reshape(-1), *numbers)
        return ids.reshape(self._height, self._width)

    def _at_most_all(self, min_size_px: float) -> int:
        """As a number that compiled loops can take; larger than the photo means no more than as large."""
        return int(min(min_size_px, self._height * self._width))

    def _without_loops(self, scale: float, min_size_px: int) -> np.ndarray:
        from skimage.segmentation import felzenszwalb

        size = self._at_most_all(min_size_px)
        ids = felzenszwalb(self._image, scale=scale, sigma=self._sigma, min_size=size).astype(np.int32)
        if self._mask is None:
            return ids
        return join_small(pieces(ids, self._mask), self._image, min_size_px, self._mask)


def _sorted_edges(
    image: np.ndarray, sigma: float, inside: np.ndarray, loops: ModuleType
) -> tuple[np.ndarray, np.ndarray]:
    """Edges between inside pixels as (E,) int32 codes (see the loops) and (E,) float64 costs, cheapest first."""
    from skimage.filters import gaussian  # heavy: only when the stage runs
    from skimage.util import img_as_float64

    smooth = gaussian(img_as_float64(image), sigma=[sigma, sigma, 0], mode="reflect", channel_axis=-1)
    channels = np.ascontiguousarray(np.moveaxis(smooth, 2, 0))
    pixels = np.arange(inside.size, dtype=np.int32).reshape(inside.shape)
    codes, costs = [], []
    for direction, (one, other) in enumerate(EDGES):
        used = inside[one] & inside[other]
        squares = [np.square(channel[other] - channel[one]) for channel in channels]
        costs.append(np.sqrt(squares[0] + squares[1] + squares[2])[used])
        codes.append(pixels[one][used] * np.int32(4) + np.int32(direction))
    cost = np.concatenate(costs)
    order = loops.sort_order(cost)  # 8-bit photos tie, and NumPy's default sort orders ties by the CPU it runs on
    return np.concatenate(codes)[order], cost[order]


# ---- masks and small segments, for the methods that know neither ---------------------------------------


def fill_outside(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """`image` with the nearest inside colour at every pixel outside, so that nothing outside shows through an edge.

    Args:
        image: (H, W, 3), any dtype.
        mask: (H, W) bool. None and masks without any True pixel leave `image` as it is.
    """
    if mask is None or not mask.any():
        return image
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return image[rows, columns]


def pieces(segments: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The parts of segments that hang together by eight neighbours inside the mask.

    Args:
        segments: (H, W) int, 0 or more.
        mask: (H, W) bool, or None for all True.

    Returns:
        (H, W) int32, consecutive from 0 in scan order; with a mask 0 outside, and from 1 inside.
    """
    from skimage.measure import label as label_regions

    numbered = segments.astype(np.int32) + 1
    if mask is None:
        return (label_regions(numbered, connectivity=2) - 1).astype(np.int32)
    return label_regions(numbered * mask, background=0, connectivity=2).astype(np.int32)


def join_small(segments: np.ndarray, image: np.ndarray, min_size_px: float, mask: np.ndarray | None) -> np.ndarray:
    """Join every segment with too few pixels to the adjacent one of nearest mean colour.

    Pairs of adjacent segments are visited from the nearest mean colours to the farthest, and joined where either has
    too few pixels by then: the second pass of Felzenszwalb's algorithm, on segments in place of pixels. Hence a
    larger `min_size_px` only ever joins more.

    Args:
        segments: (H, W) int32 as of `pieces`.
        image: (H, W, 3) float colours.
        min_size_px: segments with fewer pixels are joined, unless they have no neighbour (of eight) inside the mask.
        mask: (H, W) bool; the segment outside joins nothing. None is all True.

    Returns:
        (H, W) int32, consecutive from 0 in scan order.
    """
    sizes = np.bincount(segments.ravel())
    means = region_means(np.moveaxis(image, 2, 0), segments, sizes)
    one, other = touching_pairs(segments, mask)
    matters = np.minimum(sizes[one], sizes[other]) < min_size_px
    one, other = one[matters], other[matters]
    distance = sum(np.square(mean[one] - mean[other]) for mean in means)
    order = np.argsort(distance, kind="stable")
    pairs = one[order].astype(np.int32), other[order].astype(np.int32)
    from hubmodels.refine import felzenszwalb_loops  # where Numba is missing, as plain Python

    loops = load_loops() or felzenszwalb_loops
    return loops.join_pairs(*pairs, sizes.astype(np.int32), float(min_size_px))[segments]
