"""Small regions of a label map absorbed by what surrounds them, on the graph of regions.

By definition this goes in rounds: every small region that touches a large one takes the label it shares most border
with, the map is cut into regions again, and so on until none is small. Cutting the whole map anew in every round would
take quadratic time on maps of dots. It is not needed: a small region that waits never grows, and one that is absorbed
is part of something large from then on, so the rounds are those of a search through the graph, each region once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CLASSES = 256  # ids are uint8


class Borders(NamedTuple):
    """Small regions and their neighbours, large ones too: three arrays of a row for each pair, sorted by `region`.

    Attributes:
        region: id of a small region.
        neighbour: id of a region beside it.
        length_px: pairs of neighbouring pixels, one in each; 0 where they meet at corners alone.
    """

    region: np.ndarray
    neighbour: np.ndarray
    length_px: np.ndarray

    def of(self, regions: np.ndarray) -> Borders:
        """The rows of some regions."""
        first, last = (np.searchsorted(self.region, regions, side) for side in ("left", "right"))
        counts = last - first
        rows = np.arange(counts.sum()) + np.repeat(first - (counts.cumsum() - counts), counts)
        return self.where(rows)

    def where(self, rows: np.ndarray) -> Borders:
        """Some of the rows: indices, or a mask."""
        return Borders(*(column[rows] for column in self))


def absorb_islands(labels: np.ndarray, regions: np.ndarray, *, min_region_px: int, corners: bool) -> np.ndarray:
    """A label map without small regions.

    Args:
        labels: (H, W) uint8 label ids.
        regions: (H, W) int ids from 0 of its connected regions.
        min_region_px: regions with fewer pixels are small; if all are, the largest is not, the first on a tie.
        corners: regions are held together by corners too (8 neighbours); border is counted along edges in any case.

    Returns:
        (H, W) uint8, `labels` itself if no region is small.
    """
    flat, sizes = regions.ravel(), np.bincount(regions.ravel())
    small = sizes < min_region_px
    if small.all():
        small[sizes.argmax()] = False
    pixels = np.flatnonzero(small[flat])
    if not pixels.size:
        return labels
    borders, label_of = _borders(labels, regions, pixels, corners=corners)
    beside_large = borders.where(~small[borders.neighbour])
    chosen = beside_large.region, label_of[beside_large.neighbour], beside_large.length_px
    while True:
        absorbed, taken = _longest(*chosen)
        if not absorbed.size:
            break
        label_of[absorbed], small[absorbed] = taken, False
        around = borders.of(absorbed)
        # Waiting regions that had this label all along are of one piece with it now.
        same = small[around.neighbour] & (label_of[around.neighbour] == label_of[around.region])
        joined = np.unique(around.neighbour[same])
        small[joined] = False
        around = borders.of(np.union1d(absorbed, joined))
        around = around.where(small[around.neighbour])
        chosen = around.neighbour, label_of[around.region], around.length_px
    out = labels.copy()
    out.ravel()[pixels] = label_of[flat[pixels]]
    return out


def _borders(
    labels: np.ndarray, regions: np.ndarray, pixels: np.ndarray, *, corners: bool
) -> tuple[Borders, np.ndarray]:
    """Borders of the regions that hold `pixels` (flat indices), and labels by id: theirs and their neighbours'."""
    height, width = labels.shape
    flat, ids, count = regions.ravel(), labels.ravel(), int(regions.max()) + 1
    label_of = np.zeros(count, np.uint8)
    label_of[flat[pixels]] = ids[pixels]
    row, column = np.divmod(pixels, width)
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if corners:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    keys: list[np.ndarray] = []
    for down, right in steps:
        y, x = row + down, column + right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        here, there = pixels[inside], pixels[inside] + down * width + right
        mine, theirs = flat[here], flat[there]
        apart = mine != theirs
        label_of[theirs] = ids[there]
        keys.append(mine[apart].astype(np.int64) * count + theirs[apart])
    along_edges = sum(len(part) for part in keys[:4])
    pairs, index = np.unique(np.concatenate(keys), return_inverse=True)
    return Borders(*np.divmod(pairs, count), np.bincount(index[:along_edges], minlength=len(pairs))), label_of


def _longest(region: np.ndarray, label: np.ndarray, length_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regions with a border, in order, and the label that most of it is with, the lower id on a tie."""
    touching = length_px > 0
    keys, index = np.unique(region[touching].astype(np.int64) * CLASSES + label[touching], return_inverse=True)
    totals = np.bincount(index, weights=length_px[touching])  # sums of integers: exact
    owner, offered = np.divmod(keys, CLASSES)
    order = np.lexsort((offered, -totals, owner))
    found, first = np.unique(owner[order], return_index=True)
    return found, offered[order][first].astype(np.uint8)
