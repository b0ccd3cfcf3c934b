"""Clean-up of label maps by connected regions."""

from __future__ import annotations

import numpy as np


def check_labels(labels: np.ndarray) -> None:
    """Raise ValueError unless `labels` is an (H, W) uint8 label map."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels must be (H, W) uint8 ids; got {labels.shape} {labels.dtype}")


def clean_regions(labels: np.ndarray, *, min_region_px: int, connectivity: int = 4) -> np.ndarray:
    """Give every small region the label that surrounds it most.

    Args:
        labels: (H, W) uint8 label ids.
        min_region_px: regions with fewer pixels are absorbed; 0 and 1 return `labels` itself.
        connectivity: 4 or 8 neighbours hold a region together.

    A region takes the label it shares the longest border with among its neighbours that are large enough (the lower
    id on a tie); regions that touch only small ones wait until a neighbour has grown. If no region reaches the bound
    the largest stays. The result is stable under a second call and holds no label that `labels` does not.

    Raises:
        ValueError: not a label map, a negative size, or another connectivity.
    """
    check_labels(labels)
    if min_region_px < 0:
        raise ValueError(f"min_region_px must be 0 or more; got {min_region_px}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8; got {connectivity}")
    if min_region_px <= 1:
        return labels
    from skimage.measure import label as label_regions  # heavy: only when the stage runs

    out = labels.copy()
    while True:
        regions = label_regions(out.astype(np.int32) + 1, connectivity=1 if connectivity == 4 else 2) - 1
        small = np.bincount(regions.ravel()) < min_region_px
        if not small.any():
            return out
        if small.all():
            if len(small) == 1:
                return out
            small[np.argmax(np.bincount(regions.ravel()))] = False
        new_labels = _surrounding_labels(out, regions, small)
        grown = new_labels[regions]
        out = np.where(grown >= 0, grown, out).astype(np.uint8)


def _surrounding_labels(labels: np.ndarray, regions: np.ndarray, small: np.ndarray) -> np.ndarray:
    """(regions,) int: for a small region, the label of most border pixels among large neighbours; -1 for none."""
    count, classes = len(small), int(labels.max()) + 1
    borders = np.zeros(count * classes, np.int64)
    for one, other in _neighbour_pairs():
        inner, outer = regions[one], regions[other]
        for mine, theirs, where in ((inner, outer, other), (outer, inner, one)):
            touching = small[mine] & ~small[theirs]
            keys = mine[touching].astype(np.int64) * classes + labels[where][touching]
            borders += np.bincount(keys, minlength=borders.size)
    by_label = borders.reshape(count, classes)
    return np.where(small & (by_label.sum(1) > 0), by_label.argmax(1), -1)


def _neighbour_pairs() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Index pairs that lay every pixel beside its right and its lower neighbour."""
    everything, but_last, but_first = slice(None), slice(None, -1), slice(1, None)
    return [((everything, but_last), (everything, but_first)), ((but_last, everything), (but_first, everything))]
