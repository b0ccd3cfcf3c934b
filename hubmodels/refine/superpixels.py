"""Superpixels: cut a photo into small areas of one colour, by four methods under one meaning of their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hubmodels.refine.felzenszwalb import (
    FelzenszwalbGraph,
    check_numbers,
    check_photo,
    fill_outside,
    join_small,
    pieces,
)
from hubmodels.refine.settings import METHODS, REFERENCE_PX

# One slider for four methods. On scikit-image's astronaut at 600x400 (sigma 0.8, at least 20 px), Felzenszwalb makes
# 1442, 894, 497 and 262 segments at scale 50, 100, 200 and 400: about 900 * (100 / scale)^0.8. SLIC and the watershed
# are asked for that many; a test holds all methods within a factor of two of Felzenszwalb there.
_SEGMENTS_AT_100 = 900
_SEGMENTS_FALLOFF = 0.8
_SLIC_COMPACTNESS = 10.0  # scikit-image's default, Lab units for one step of its grid
# Quickshift has no such number. Links longer than 1 + 0.08 * scale are cut (px and Lab units alike; 1 px joins
# neighbours), which meets the counts above. Its density kernel stays at 3 px, because time grows with the square.
_QUICKSHIFT_LINK_PER_SCALE = 0.08
_QUICKSHIFT_KERNEL_PX = 3.0


def superpixels(
    image: np.ndarray,
    *,
    method: str = "felzenszwalb",
    scale: float = 100.0,
    sigma: float = 0.8,
    min_size_px: int = 20,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Cut a photo into small areas of one colour.

    Felzenszwalb's method runs compiled here, with scikit-image where Numba is missing; the others are scikit-image's.

    Args:
        image: (H, W, 3) uint8 sRGB, or float in 0..1; both give the same superpixels.
        method: "felzenszwalb" follows colour edges most closely; "slic" makes compact areas of about one size;
            "quickshift" seeks modes of colour and place, and takes seconds; "watershed" floods a map of Sobel edges.
        scale: larger values make larger areas, about equally many by every method; 10 to 1000 is usual.
        sigma: standard deviation of the Gaussian smoothing before, in pixels, up to 1000; 0 is off.
        min_size_px: areas with fewer pixels are joined to a neighbour: by Felzenszwalb's method across the weakest
            edge, by the others to the nearest mean colour. An area without any neighbour inside the mask stays.
        mask: (H, W) bool, such as the person; only True pixels are segmented, all others are one area, and their
            colours have no influence. None is all True.

    Numbers are those of a photo of `REFERENCE_PX` pixels. A larger photo is segmented at that size and the ids spread
    back. For a smaller one `min_size_px` shrinks with its area and `sigma` with the side, and `scale` makes about as
    many areas as on the larger photo.

    Returns:
        (H, W) int32, consecutive from 0, in scan order of the size worked at; every pixel has one. If the mask leaves
        any pixel out, those are 0 and areas inside start at 1. Without a mask every area hangs together by eight
        neighbours.

    Raises:
        ValueError: not a photo, not its mask, an unknown method, or a number out of range.

    Source: Felzenszwalb & Huttenlocher 2004; Achanta et al. 2012 (SLIC); Vedaldi & Soatto 2008 (quickshift); Neubert
        & Protzel 2014 (watershed from a grid of seeds).
    """
    check_numbers(scale=scale, sigma=sigma, min_size_px=min_size_px)
    return PreparedSuperpixels(image, method=method, sigma=sigma, mask=mask).segments(scale, min_size_px)


class PreparedSuperpixels:
    """One photo's superpixels at any scale: whatever does not depend on scale and smallest size is computed once.

    Args: image, method, sigma, mask as of `superpixels`.

    Raises: ValueError as `superpixels`.

    A new scale then costs a pass over sorted edges (Felzenszwalb), cutting links (quickshift), one flooding
    (watershed), or the whole clustering (SLIC).

    Memory: 12 MB for Felzenszwalb's method at 600x400 (48 bytes a pixel), 4 to 6 MB for the others, and no more for
    larger photos, apart from the mask. While it is built, 60 MB, or 36 bytes for each pixel of a larger photo if that
    is more. Safe to share between threads.
    """

    def __init__(self, image: np.ndarray, *, method: str, sigma: float, mask: np.ndarray | None = None) -> None:
        check_photo(image, mask)
        check_numbers(sigma=sigma)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
        self._mask = None if mask is None or mask.all() else mask.copy()
        # float32 for all, so that 8-bit values and the same values / 255 in float32 or float64 agree to the last bit
        colours = image.astype(np.float32)
        if image.dtype == np.uint8:
            colours /= 255
        self._grid = _reference_grid(*image.shape[:2])
        if self._grid is not None:
            colours, working_mask = _reduce(colours, self._mask, *self._grid)
        else:
            working_mask = self._mask
        self._area = min(1.0, colours.shape[0] * colours.shape[1] / REFERENCE_PX)
        # a reduced mask may be all True: then its segments start at 0
        self._first_id = 0 if working_mask is None or not working_mask.all() else 1
        self._segments = _prepare(colours, method, sigma * self._area**0.5, working_mask, self._area)

    def segments(self, scale: float, min_size_px: int) -> np.ndarray:
        """(H, W) int32 ids as of `superpixels`.

        Raises:
            ValueError: a number out of range.
        """
        check_numbers(scale=scale, min_size_px=min_size_px)
        ids = self._segments(float(scale), math.ceil(min_size_px * self._area))
        if self._grid is not None:
            rows, columns = self._grid
            ids = ids[rows][:, columns]
        return ids if self._mask is None else np.where(self._mask, ids + np.int32(self._first_id), np.int32(0))


# ---- the size to work at -------------------------------------------------------------------------------


def _reference_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """For each row and each column, that of the reduced photo; None for a photo that needs no reduction."""
    factor = (REFERENCE_PX / (height * width)) ** 0.5
    rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    if factor >= 1 or (rows, columns) == (height, width):
        return None
    # the cell around each pixel's centre, in whole numbers: no cell stays without a pixel
    return (2 * np.arange(height) + 1) * rows // (2 * height), (2 * np.arange(width) + 1) * columns // (2 * width)


def _reduce(
    colours: np.ndarray, mask: np.ndarray | None, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean colour of each cell's inside pixels, and whether it has any."""
    starts = [np.flatnonzero(np.diff(index, prepend=-1)) for index in (rows, columns)]

    def sums(values: np.ndarray) -> np.ndarray:
        by_column = np.add.reduceat(values, starts[1], axis=1)  # this axis first, and no cast: ten times as fast
        return np.add.reduceat(by_column, starts[0], axis=0, dtype=np.float64)

    if mask is None:
        count = np.outer(np.bincount(rows), np.bincount(columns))
        return (sums(colours) / count[..., None]).astype(np.float32), None
    count = sums(mask.astype(np.float32))
    total = sums(np.where(mask[..., None], colours, np.float32(0)))
    return (total / np.maximum(count, 1)[..., None]).astype(np.float32), count > 0


# ---- the methods ---------------------------------------------------------------------------------------

Cut = Callable[[float], np.ndarray]  # scale -> (H, W) int, any ids from 0


def _prepare(
    colours: np.ndarray, method: str, sigma: float, mask: np.ndarray | None, area: float
) -> Callable[[float, int], np.ndarray]:
    """A function of the reference scale and the smallest size in pixels; `area` is that of the photo / REFERENCE_PX."""
    if method == "felzenszwalb":
        graph = FelzenszwalbGraph(colours, sigma, mask)
        # `scale` stays: on a photo of half the side areas have a quarter of the pixels and colour steps between pixels
        # are steeper; the two cancel. Three natural photos keep their number of segments within a fifth.
        return graph.segments
    from skimage.color import rgb2lab  # heavy: only when the stage runs
    from skimage.filters import gaussian

    mask = None if mask is None or mask.all() else mask
    colours = fill_outside(colours, mask)
    lab = rgb2lab(gaussian(colours, sigma=sigma, mode="reflect", channel_axis=-1))
    cut = {"slic": _slic, "quickshift": _quickshift, "watershed": _watershed}[method](lab, area)
    return lambda scale, size: join_small(pieces(cut(scale), mask), colours, size, mask)


def _count(scale: float, pixels: int) -> int:
    """How many segments Felzenszwalb's method would make of a natural photo at this scale."""
    return round(min(max(1.0, _SEGMENTS_AT_100 * (100 / scale) ** _SEGMENTS_FALLOFF), pixels))


def _slic(lab: np.ndarray, area: float) -> Cut:
    from skimage.segmentation import slic

    # scikit-image stretches values to 0..1; dividing the compactness alike keeps its meaning in Lab units
    compactness = _SLIC_COMPACTNESS / (float(np.ptp(lab)) or 1.0)
    pixels = lab.shape[0] * lab.shape[1]
    return lambda scale: slic(lab, _count(scale, pixels), compactness, convert2lab=False, start_label=0)


def _quickshift(lab: np.ndarray, area: float) -> Cut:
    from skimage.segmentation import quickshift

    side = area**0.5
    kernel = max(1.0, _QUICKSHIFT_KERNEL_PX * side)
    # colour distances shrink with the side, as those in the plane do: a small photo is cut like a large one
    found = quickshift(lab, ratio=side, kernel_size=kernel, convert2lab=False, return_tree=True)
    parents = np.asarray(found[1]).ravel().astype(np.int32)
    distances = np.asarray(found[2]).ravel().astype(np.float32)
    own, shape = np.arange(parents.size, dtype=np.int32), lab.shape[:2]

    def cut(scale: float) -> np.ndarray:
        linked = distances <= 1 + _QUICKSHIFT_LINK_PER_SCALE * scale * side
        return _roots(np.where(linked, parents, own)).reshape(shape)

    return cut


def _roots(parents: np.ndarray) -> np.ndarray:
    """(N,) int: where following parents ends, for each start."""
    while True:
        above = parents[parents]
        if np.array_equal(above, parents):
            return parents
        parents = above


def _watershed(lab: np.ndarray, area: float) -> Cut:
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    height, width = lab.shape[:2]
    edges = np.sqrt(sum(np.square(sobel(lab[..., channel])) for channel in range(3)))

    def cut(scale: float) -> np.ndarray:
        count = _count(scale, edges.size)
        rows = min(height, count, max(1, round((count * height / width) ** 0.5)))
        columns = min(width, max(1, round(count / rows)))
        return watershed(edges, _seeds(edges, rows, columns)) - 1

    return cut


def _seeds(edges: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(H, W) int32 ids from 1 at the pixel of least edge in each cell of a grid, the most central one on a tie."""
    (height, width), seeds = edges.shape, np.zeros(edges.shape, np.int32)
    y, x = (np.arange(height) + 0.5) * rows / height, (np.arange(width) + 0.5) * columns / width
    cell = (y.astype(np.int32)[:, None] * columns + x.astype(np.int32)).ravel()
    off_centre = (np.square(y % 1 - 0.5)[:, None] + np.square(x % 1 - 0.5)).ravel()
    order = np.lexsort((off_centre, edges.ravel(), cell))
    first = order[np.flatnonzero(np.diff(cell[order], prepend=-1))]
    seeds.ravel()[first] = np.arange(1, len(first) + 1)
    return seeds
