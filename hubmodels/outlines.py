"""Outlines of masks as polygons without holes, as COCO and programs for annotation take them.

Polygons run along the edges of pixels, so they cover exactly the pixels of the mask. Such formats know no holes: a hole
becomes part of the outline around it, by a slit of no width along which the outline goes there and back.
"""

from __future__ import annotations

import math

import numpy as np

CORNERS_MIN = 3
Edges = tuple[np.ndarray, np.ndarray]  # (N, 2) starts and (N, 2) ends, x and y


def check_tolerance(tolerance_px: float) -> None:
    """Raise ValueError unless it is a distance in pixels."""
    if not 0 <= tolerance_px < math.inf:
        raise ValueError(f"tolerance_px must be 0 or more, in pixels, and finite; got {tolerance_px!r}")


def polygons_of(mask: np.ndarray, *, tolerance_px: float = 0.0) -> list[np.ndarray]:
    """One polygon for every part of a mask, from top to bottom.

    Args:
        mask: (H, W) bool. Pixels that touch at a corner alone are of two parts.
        tolerance_px: 0: along the edges of pixels; else corners are left out as long as the outline stays so near to
            where it was, in pixels (Douglas and Peucker 1973), which leaves few enough to be edited by hand. A part
            that would lose its area keeps its corners, a hole that would is filled.

    Returns:
        (N, 2) int64 corners, x in 0..W and y in 0..H from the photo's upper left corner, clockwise; the first is not
        repeated at the end.

    Raises:
        ValueError: `tolerance_px` is below 0 or not finite.
    """
    from scipy import ndimage  # heavy: run lengths do without

    check_tolerance(tolerance_px)
    parts, count = ndimage.label(mask)
    around: dict[int, np.ndarray] = {}
    holes: list[list[np.ndarray]] = [[] for _ in range(count)]
    for ring in _rings(mask):
        x, y = ring[0]
        part = parts[y, x] - 1
        corners = _simplified(ring, tolerance_px)
        if _is_hole(ring):
            if len(corners) >= CORNERS_MIN:
                holes[part].append(corners)
        else:
            around[part] = corners if len(corners) >= CORNERS_MIN else ring
    return [_joined(around[part], holes[part]) for part in range(count)]


def _rings(mask: np.ndarray) -> list[np.ndarray]:
    """The boundaries of a mask as (N, 2) corners, with the mask to the right: clockwise around it, else around a hole.

    Each begins at the left end of the upper edge of a pixel, and turns at every corner.
    """
    edges = _edges(np.pad(np.asarray(mask, bool), 1))
    first = np.cumsum([0, *(len(starts) for starts, _ in edges)])
    if not first[-1]:
        return []
    # Where two parts meet at a corner two edges go on from it; the turn to the right stays on its own part.
    after = np.concatenate([_following(edges, first, direction) for direction in range(4)]).tolist()
    corners = np.concatenate([starts for starts, _ in edges])
    rings, seen = [], bytearray(len(after))
    for begin in range(first[1]):
        ring, each = [], begin
        while not seen[each]:
            seen[each] = True
            ring.append(each)
            each = after[each]
        if ring:
            rings.append(corners[ring])
    return rings


def _edges(padded: np.ndarray) -> list[Edges]:
    """Straight edges that go right, down, left and up, each with the mask to its right."""
    found = []
    for turned in (padded, padded.T):
        before, after = turned[:-1], turned[1:]
        for edge in (after & ~before, before & ~after):
            line, low = np.nonzero(edge[:, 1:] & ~edge[:, :-1])
            _, high = np.nonzero(~edge[:, 1:] & edge[:, :-1])  # as many and in the same order, as edges are apart
            found.append((np.stack([low, line], 1), np.stack([high, line], 1)))
    right, (left_end, left_start), (up_end, up_start), down = found  # the other two go backwards
    return [right, _transposed(down), (left_start, left_end), _transposed((up_start, up_end))]


def _transposed(edges: Edges) -> Edges:
    starts, ends = edges
    return starts[:, ::-1], ends[:, ::-1]


def _following(edges: list[Edges], first: np.ndarray, direction: int) -> np.ndarray:
    """Of all edges that go in a direction: which edge goes on where they end, counted over all directions."""
    ends = edges[direction][1]
    found = np.empty(len(ends), np.int64)
    for turn in (3, 1):  # to the left, then to the right, which is preferred where there are both
        onward = (direction + turn) % 4
        starts = edges[onward][0]
        width = max(starts.max(), ends.max()) + 1
        keys, wanted = (points @ (1, width) for points in (starts, ends))
        order = np.argsort(keys)
        place = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
        hit = keys[place] == wanted
        found[hit] = first[onward] + place[hit]
    return found


def _is_hole(ring: np.ndarray) -> bool:
    """Whether a ring goes round anticlockwise, by the sign of its area."""
    x, y = ring.T
    return bool((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0)


def _simplified(ring: np.ndarray, tolerance_px: float) -> np.ndarray:
    if not tolerance_px:
        return ring
    from skimage.measure import approximate_polygon

    return approximate_polygon(np.concatenate([ring, ring[:1]]), tolerance_px)[:-1]


def _joined(around: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """One polygon of an outline and the holes in it, from left to right: each by a slit from its leftmost corner."""
    for hole in sorted(holes, key=lambda each: each[:, 0].min()):
        hole = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)
        nearest = int(((around - hole[0]) ** 2).sum(1).argmin())
        slit = around[nearest : nearest + 1]
        around = np.concatenate([around[:nearest], slit, hole, hole[:1], slit, around[nearest + 1 :]])
    return around
