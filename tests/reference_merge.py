"""Slow, obvious twins of region features and of merging."""

from __future__ import annotations

import math

import numpy as np


def lab(pixel: np.ndarray) -> tuple[float, float, float]:
    """CIE Lab (D65, 2 degrees) of one 8-bit sRGB pixel, by the book."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (float(v) / 255 for v in pixel)]
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    white = (0.95047, 1.0, 1.08883)
    xyz = [sum(m * v for m, v in zip(row, linear, strict=True)) / w for row, w in zip(matrix, white, strict=True)]
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def region_features(image: np.ndarray, segments: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """One region after the other, one pixel after the other; texture codes of the grey photo are scikit-image's."""
    from skimage.feature import local_binary_pattern

    height, width = segments.shape
    colours = np.array([[lab(image[y, x]) for x in range(width)] for y in range(height)])
    grey = np.round(colours[..., 0] * 2.55).astype(np.uint8)
    codes = local_binary_pattern(grey, 8, 1, method="uniform")
    person = [(y, x) for y in range(height) for x in range(width) if 1 - probs[0, y, x] > 0.5]
    person = person or [(0, 0), (height - 1, width - 1)]
    (top, bottom), (left, right) = ((min(axis), max(axis) + 1) for axis in zip(*person, strict=True))
    rows = []
    for region in range(segments.max() + 1):
        pixels = [(y, x) for y in range(height) for x in range(width) if segments[y, x] == region]
        inside = np.array([colours[p] for p in pixels])
        texture = [sum(codes[p] == code for p in pixels) / len(pixels) for code in range(10)]
        across = sum((x + 0.5 - left) / (right - left) for _, x in pixels) / len(pixels)
        down = sum((y + 0.5 - top) / (bottom - top) for y, _ in pixels) / len(pixels)
        means = [sum(float(channel[p]) for p in pixels) / len(pixels) for channel in probs]
        entropy = -sum(p * math.log(p) for p in means if p > 0)
        place = [min(max(v, -1.0), 2.0) for v in (across, down)]
        area = math.log(len(pixels) / (height * width))
        rows.append([*inside.mean(0), *inside.std(0), *texture, *place, area, entropy, *means])
    return np.array(rows)


def touching(segments: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of regions with pixels that touch along a side or at a corner."""
    height, width = segments.shape
    pairs = set()
    for y, x in np.ndindex(segments.shape):
        for v, u in ((y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1)):
            if 0 <= v < height and 0 <= u < width and segments[y, x] != segments[v, u]:
                pairs.add((int(min(segments[y, x], segments[v, u])), int(max(segments[y, x], segments[v, u]))))
    return pairs


def cut(segments: np.ndarray, colours: np.ndarray, threshold: float) -> np.ndarray:
    """(R,) ids after flooding across every pair of neighbours whose mean colours (R, 3) are nearer than `threshold`."""
    near = [pair for pair in touching(segments) if math.dist(*(colours[i] for i in pair)) < threshold]
    ids = np.full(len(colours), -1)
    for start in range(len(colours)):
        if ids[start] >= 0:
            continue
        new, stack = ids.max() + 1, [start]
        while stack:
            region = stack.pop()
            ids[region] = new
            stack += [sum(pair) - region for pair in near if region in pair and ids[sum(pair) - region] < 0]
    return ids


def hierarchical(segments: np.ndarray, colours: np.ndarray, areas: np.ndarray, threshold: float) -> np.ndarray:
    """(R,) ids after joining the nearest two neighbours again and again, all distances computed anew each time."""
    groups = [[region] for region in range(len(colours))]
    pairs = touching(segments)

    def mean(group: list[int]) -> np.ndarray:
        return np.average(colours[group], axis=0, weights=areas[group])

    while True:
        candidates = [
            (math.dist(mean(one), mean(other)), i, j)
            for i, one in enumerate(groups)
            for j, other in enumerate(groups[:i])
            if any((min(a, b), max(a, b)) in pairs for a in one for b in other)
        ]
        if not candidates or min(candidates)[0] >= threshold:
            break
        _, i, j = min(candidates)
        groups[j] += groups.pop(i)
    ids = np.empty(len(colours), int)
    for new, group in enumerate(sorted(groups, key=min)):
        ids[group] = new
    return ids


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two maps of ids hold the same things together, whatever the ids are."""
    pairs = set(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
