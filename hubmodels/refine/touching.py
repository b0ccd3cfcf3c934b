"""Pixels that touch along a side or at a corner, and the regions that do."""

from __future__ import annotations

import numpy as np

_ALL, _HEAD, _TAIL = slice(None), slice(None, -1), slice(1, None)
# First and second pixels of the edges to the right, down, down right and down left, in the order of scikit-image's
# Felzenszwalb.
EDGES = (
    ((_ALL, _HEAD), (_ALL, _TAIL)),
    ((_HEAD, _ALL), (_TAIL, _ALL)),
    ((_HEAD, _HEAD), (_TAIL, _TAIL)),
    ((_HEAD, _TAIL), (_TAIL, _HEAD)),
)


def touching_pairs(segments: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of regions that touch, once and sorted.

    Args:
        segments: (H, W) int region ids, 0 or more.
        mask: (H, W) bool; only pairs of True pixels count. None is all True.

    Returns:
        (P,) int64 lower and (P,) int64 higher ids.
    """
    count = int(segments.max()) + 1
    found = []
    for one, other in EDGES:
        a, b = segments[one], segments[other]
        border = a != b if mask is None else (a != b) & mask[one] & mask[other]
        a, b = a[border].astype(np.int64), b[border].astype(np.int64)
        found.append(np.minimum(a, b) * count + np.maximum(a, b))
    keys = np.sort(np.concatenate(found))  # np.unique hashes, which takes ten times as long for so many
    return np.divmod(keys[np.diff(keys, prepend=-1) > 0], count)
