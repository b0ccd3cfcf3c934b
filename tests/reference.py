"""Slow, obvious twins of the library's clever code."""

from __future__ import annotations

from collections import Counter

import numpy as np

NEIGHBOURS = {4: [(0, 1), (1, 0), (0, -1), (-1, 0)]}
NEIGHBOURS[8] = [*NEIGHBOURS[4], (1, 1), (1, -1), (-1, 1), (-1, -1)]


def regions(labels: np.ndarray, connectivity: int) -> list[list[tuple[int, int]]]:
    """Connected regions of equal labels as lists of pixels, by flood fill."""
    height, width = labels.shape
    seen, found = np.zeros(labels.shape, bool), []
    for start in np.ndindex(labels.shape):
        if seen[start]:
            continue
        seen[start], region, stack = True, [], [start]
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for dy, dx in NEIGHBOURS[connectivity]:
                v, u = y + dy, x + dx
                inside = 0 <= v < height and 0 <= u < width
                if inside and not seen[v, u] and labels[v, u] == labels[y, x]:
                    seen[v, u] = True
                    stack.append((v, u))
        found.append(region)
    return found


def clean_regions(labels: np.ndarray, min_region_px: int, connectivity: int) -> np.ndarray:
    """Small regions take the label they share the longest border with among large neighbours, round by round."""
    labels = labels.copy()
    height, width = labels.shape
    while True:
        found = regions(labels, connectivity)
        large = [len(region) >= min_region_px for region in found]
        if all(large) or len(found) == 1:
            return labels
        if not any(large):
            large[max(range(len(found)), key=lambda i: len(found[i]))] = True
        owner = {pixel: i for i, region in enumerate(found) for pixel in region}
        changes = []
        for i, region in enumerate(found):
            if large[i]:
                continue
            border: Counter[int] = Counter()
            for y, x in region:
                for dy, dx in NEIGHBOURS[4]:
                    pixel = (y + dy, x + dx)
                    if 0 <= pixel[0] < height and 0 <= pixel[1] < width and owner[pixel] != i and large[owner[pixel]]:
                        border[int(labels[pixel])] += 1
            if border:
                changes.append((region, min(border, key=lambda label: (-border[label], label))))
        for region, label in changes:
            for pixel in region:
                labels[pixel] = label


def fill_holes(labels: np.ndarray, fill_holes_px: int, connectivity: int) -> np.ndarray:
    """Per label, flood what is not the label; small floods that miss the edge take the label."""
    labels = labels.copy()
    height, width = labels.shape
    for index in range(1, labels.max() + 1):
        for pixels in regions((labels == index).astype(np.uint8), 12 - connectivity):
            inside = all(0 < y < height - 1 and 0 < x < width - 1 for y, x in pixels)
            if labels[pixels[0]] != index and inside and len(pixels) < fill_holes_px:
                for pixel in pixels:
                    labels[pixel] = index
    return labels


def vote(probs: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Every segment takes the label of the largest summed probability, in a loop over segments."""
    labels = np.zeros(segments.shape, np.uint8)
    for segment in range(segments.max() + 1):
        inside = segments == segment
        labels[inside] = np.argmax([channel[inside].astype(float).sum() for channel in probs])
    return labels


def vote_by_pixel(probs: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The same as `vote`, as the predecessor wrote it: Python loops over all pixels."""
    classes, height, width = probs.shape
    sums: dict[int, list[float]] = {}
    for y in range(height):
        for x in range(width):
            total = sums.setdefault(int(segments[y, x]), [0.0] * classes)
            for index in range(classes):
                total[index] += float(probs[index, y, x])
    winner = {segment: max(range(classes), key=lambda index: (total[index], -index)) for segment, total in sums.items()}
    labels = np.zeros(segments.shape, np.uint8)
    for y in range(height):
        for x in range(width):
            labels[y, x] = winner[int(segments[y, x])]
    return labels


def majority(labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Every segment takes the label of most of its pixels, the lower id on a tie, in a loop over segments."""
    out = np.zeros(segments.shape, np.uint8)
    for segment in range(segments.max() + 1):
        inside = segments == segment
        if inside.any():
            counts = Counter(labels[inside].tolist())
            out[inside] = min(counts, key=lambda label: (-counts[label], label))
    return out


def boundary_f(truth: np.ndarray, predicted: np.ndarray, distance_px: float) -> float | None:
    """Boundary F-measure by comparing every pair of boundary pixels; 255 in the truth is undecided."""
    height, width = truth.shape

    def edge(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
        def differs(y: int, x: int, v: int, u: int) -> bool:
            inside = v < height and u < width
            return inside and decided[y, x] and decided[v, u] and labels[y, x] != labels[v, u]

        every = [(y, x) for y in range(height) for x in range(width)]
        return np.array([(y, x) for y, x in every if differs(y, x, y, x + 1) or differs(y, x, y + 1, x)]).reshape(-1, 2)

    def near(some: np.ndarray, others: np.ndarray, distance: float = distance_px) -> np.ndarray:
        return (np.sqrt(((some[:, None] - others[None]) ** 2).sum(-1)) <= distance).any(1)

    one, other = edge(truth, truth != 255), edge(predicted, np.full(truth.shape, True))
    judged = other[~near(other, np.argwhere(truth == 255), max(1, distance_px))]
    if len(one) == 0:
        return None if len(judged) == 0 else 0.0
    recall = near(one, other).mean()
    precision = near(judged, one).mean() if len(judged) else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
