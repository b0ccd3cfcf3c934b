"""Clean-up of label maps by connected regions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hubmodels.refine.islands import absorb_islands


def check_labels(labels: np.ndarray) -> None:
    """Raise ValueError unless `labels` is an (H, W) uint8 label map."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be (H, W) uint8 ids; got {labels.shape} {labels.dtype}")


def clean_regions(
    labels: np.ndarray,
    *,
    min_region_px: int = 0,
    connectivity: int = 4,
    fill_holes_px: int = 0,
    keep_largest: bool = False,
) -> np.ndarray:
    """Remove islands and holes from a label map.

    Args:
        labels: (H, W) uint8 label ids; 0 is the background.
        min_region_px: regions of one label with fewer pixels take the label that surrounds them most; 0 and 1 are off.
        connectivity: 4 or 8 neighbours hold a region together.
        fill_holes_px: what lies inside of a region of another label than the background, and has fewer pixels, takes
            that label, whatever labels it holds; 0 and 1 are off. What touches the edge of the photo is no hole.
        keep_largest: of what is not background only the largest connected part stays, the rest becomes background.

    Returns:
        (H, W) uint8; `labels` itself if nothing is turned on. A second call with the same settings changes nothing,
        and no label appears that `labels` does not hold (but for the background under `keep_largest`).

    A small region takes the label it shares the longest border with among its neighbours that are large enough (the
    lower id on a tie); regions that touch only small ones wait until a neighbour has grown. If no region reaches the
    bound the largest stays.

    Raises:
        ValueError: not a label map, a negative size, or another connectivity.
    """
    check_labels(labels)
    for name, size in (("min_region_px", min_region_px), ("fill_holes_px", fill_holes_px)):
        if not size >= 0:  # NaN neither
            raise ValueError(f"{name} must be 0 or more; got {size}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8; got {connectivity}")
    stages: list[Callable[[np.ndarray], np.ndarray]] = []
    if keep_largest:
        stages.append(lambda out: _largest_part(out, connectivity))
    if fill_holes_px > 1:
        stages.append(lambda out: _without_holes(out, fill_holes_px, connectivity))
    if min_region_px > 1:
        stages.append(lambda out: _without_islands(out, min_region_px, connectivity))
    if labels.size == 0 or not stages:
        return labels
    # An island absorbed may close a ring around a hole, so stages repeat until all are content. Every change shortens
    # the borders between labels, or joins an island that touches by corners alone, which leaves fewer regions; so this
    # ends. One stage alone is content after its first run.
    out = labels
    while True:
        before = out
        for stage in stages:
            out = stage(out)
        if len(stages) == 1 or np.array_equal(out, before):
            return out


def _components(mask_or_labels: np.ndarray, connectivity: int) -> np.ndarray:
    """Connected components of equal values; 0 is where the value is 0 or False, others count from 1."""
    from skimage.measure import label  # heavy: only when the stage runs

    return label(mask_or_labels, connectivity=1 if connectivity == 4 else 2)


def _largest_part(labels: np.ndarray, connectivity: int) -> np.ndarray:
    """Background everywhere but on the largest connected part of the foreground, the first one on a tie."""
    parts = _components(labels > 0, connectivity)
    sizes = np.bincount(parts.ravel())[1:]
    if len(sizes) < 2:
        return labels
    return np.where(parts == 1 + sizes.argmax(), labels, 0).astype(np.uint8)


def _without_holes(labels: np.ndarray, fill_holes_px: int, connectivity: int) -> np.ndarray:
    """Small holes of every label but the background filled, in the order of ids.

    Filling for a later label never opens a hole in an earlier one: it only takes pixels away from it.
    """
    out = labels.copy()
    for index in np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1:
        rows, columns = (np.flatnonzero((out == index).any(axis)) for axis in (1, 0))
        if len(rows) == 0:  # a label before it has filled all of it
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # holes lie inside of it
        # What surrounds a region of 4-neighbours holds together over 8, and the other way round.
        others = _components(out[box] != index, 12 - connectivity)
        fill = np.bincount(others.ravel()) < fill_holes_px
        for edge in (others[0], others[-1], others[:, 0], others[:, -1]):
            fill[edge] = False
        fill[0] = False
        out[box][fill[others]] = index
    return out


def _without_islands(labels: np.ndarray, min_region_px: int, connectivity: int) -> np.ndarray:
    """Small regions absorbed by what surrounds them."""
    regions = _components(labels.astype(np.int32) + 1, connectivity) - 1
    return absorb_islands(labels, regions, min_region_px=min_region_px, corners=connectivity == 8)
