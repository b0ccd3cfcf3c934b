"""Slow, obvious twins of the superpixel code: union-find by repainting, pixel by pixel."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from hubmodels.refine.felzenszwalb import fill_outside


def felzenszwalb(
    image: np.ndarray, scale: float, sigma: float, min_size_px: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """Felzenszwalb & Huttenlocher 2004 in float64, with scikit-image's order of edges and its float32 bounds."""
    height, width = image.shape[:2]
    inside = np.ones((height, width), bool) if mask is None else mask
    smooth = gaussian_filter(fill_outside(image.astype(np.float64), mask), (sigma, sigma, 0), mode="reflect")
    edges = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y in range(height):
            for x in range(width):
                v, u = y + dy, x + dx
                if v < height and 0 <= u < width and inside[y, x] and inside[v, u]:
                    red, green, blue = (smooth[v, u] - smooth[y, x]) ** 2
                    edges.append((np.sqrt(red + green + blue), (y, x), (v, u)))
    edges.sort(key=lambda edge: edge[0])  # Python's sort is stable
    ids = np.arange(height * width).reshape(height, width)
    inner = {int(i): 0.0 for i in ids.flat}

    def bound(i: int) -> np.float32:
        return np.float32(inner[i] + scale / 255 / np.count_nonzero(ids == i))

    for cost, one, other in edges:
        a, b = int(ids[one]), int(ids[other])
        if a != b and cost < min(bound(a), bound(b)):
            ids[ids == b] = a
            inner[a] = cost
    for _, one, other in edges:
        a, b = int(ids[one]), int(ids[other])
        if a != b and min(np.count_nonzero(ids == a), np.count_nonzero(ids == b)) < min_size_px:
            ids[ids == b] = a
    return in_scan_order(ids, inside)


def in_scan_order(ids: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Renumbered by first appearance; 0 outside, and then from 1 inside."""
    numbers: dict[int, int] = {}
    out = np.zeros(ids.shape, np.int32)
    for pixel in np.argwhere(inside):
        first = 0 if inside.all() else 1
        out[tuple(pixel)] = numbers.setdefault(int(ids[tuple(pixel)]), len(numbers) + first)
    return out


def join_small(segments: np.ndarray, image: np.ndarray, min_size_px: float, mask: np.ndarray | None) -> np.ndarray:
    """Again and again join the first pair, by distance of the original mean colours, with a side that is too small."""
    inside = np.ones(segments.shape, bool) if mask is None else mask
    means = {i: image[segments == i].mean(0, dtype=np.float64) for i in range(int(segments.max()) + 1)}
    pairs = set()
    for y, x in np.argwhere(inside):
        for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1), (y + 1, x - 1)):
            if v < inside.shape[0] and 0 <= u < inside.shape[1] and inside[v, u] and segments[y, x] != segments[v, u]:
                pairs.add(tuple(sorted((int(segments[y, x]), int(segments[v, u])))))
    ids = segments.copy()
    group = {i: i for i in means}
    while True:
        sizes = {i: np.count_nonzero(ids == i) for i in set(group.values())}
        open_pairs = [
            (float(np.square(means[a] - means[b]).sum()), a, b)
            for a, b in pairs
            if group[a] != group[b] and min(sizes[group[a]], sizes[group[b]]) < min_size_px
        ]
        if not open_pairs:
            return in_scan_order(ids, inside)
        _, a, b = min(open_pairs)
        old, new = group[b], group[a]
        ids[ids == old] = new
        group = {i: new if g == old else g for i, g in group.items()}
