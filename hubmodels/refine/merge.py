"""Join superpixels into larger regions: neighbours of like colour, or clusters of colour.

graph = RegionGraph(segments, image)          # for a slider: what depends on the photo is built once
graph.cut(8.0)[segments], graph.hierarchical(12.0)[segments]
"""

from __future__ import annotations

import math
import threading
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hubmodels.refine.compiled import load
from hubmodels.refine.region_features import check_photo_fits, check_segments, lab_planes
from hubmodels.refine.region_means import region_means
from hubmodels.refine.touching import touching_pairs

if TYPE_CHECKING:
    from hubmodels.refine.merge_loops import Forest

PLACE_WEIGHT_MAX = 1e6  # Lab units: nothing but place counts long before, and squares end far beyond
WAYS, METHODS = ("adjacency", "colour"), ("cut", "hierarchical")


def load_loops() -> ModuleType:
    """The loops of hierarchical merging, compiled; where Numba cannot be imported (logged once), as they are."""
    without = "hierarchical merging runs as plain Python, a hundred times slower"
    compiled = load("hubmodels.refine.merge_loops", without=without)
    if compiled is not None:
        return compiled
    from hubmodels.refine import merge_loops

    return merge_loops


def merge_regions(
    segments: np.ndarray,
    image: np.ndarray,
    *,
    by: str = "adjacency",
    method: str = "cut",
    threshold: float = 8.0,
    clusters: int = 16,
    seed: int = 0,
    adjacent_only: bool = True,
    place_weight: float = 0.0,
    keep_apart: np.ndarray | None = None,
) -> np.ndarray:
    """Fewer, larger regions.

    Args:
        segments: (H, W) int region ids, consecutive from 0.
        image: (H, W, 3) uint8 sRGB, the photo.
        by: `adjacency` joins neighbours of like mean colour, `colour` regions of one colour cluster.
        method: of `adjacency`: `cut` or `hierarchical`, see `RegionGraph`.
        threshold: of `adjacency`: distances below it join, in Lab units (Delta E 1976); 0 joins nothing.
        clusters, seed, adjacent_only, place_weight: of `colour`, see `RegionGraph.kmeans`.
        keep_apart: (R,) int or bool, or None; regions with different values never join.

    Returns:
        (H, W) int32 region ids, consecutive from 0, never more than before.

    Raises:
        ValueError: sizes disagree, an unknown way or method, or a number out of range.
        ImportError: `by="colour"` without scikit-learn.
    """
    if by not in WAYS:
        raise ValueError(f"by must be one of {', '.join(WAYS)}; got {by!r}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    graph = RegionGraph(segments, image, keep_apart=keep_apart)
    if by == "colour":
        new_ids = graph.kmeans(clusters, seed=seed, adjacent_only=adjacent_only, place_weight=place_weight)
    elif method == "cut":
        new_ids = graph.cut(threshold)
    else:
        new_ids = graph.hierarchical(threshold)
    return new_ids.astype(np.int32)[segments]


class RegionGraph:
    """Regions with their mean colour, and an edge between each two that touch, diagonally too.

    Args:
        segments: (H, W) int region ids, consecutive from 0.
        image: (H, W, 3) uint8 sRGB, the photo.
        keep_apart: (R,) int or bool, or None; regions with different values never join.

    Attributes:
        areas: (R,) int64, pixels.
        mean_lab: (R, 3) float64, CIE Lab.
        edges: (E, 2) int64, pairs of touching regions that may join, the lower id first, sorted.
        weights: (E,) float64, distances of their mean colours in Lab units (Delta E 1976).

    Every method returns (R,) int64: old id -> new id, consecutive from 0 in the order of the lowest old ids.
    Results are those of scikit-image's rag_mean_color (of a Lab photo, its default connectivity of 2) with
    cut_threshold and merge_hierarchical. Safe to share between threads.

    Raises:
        ValueError: sizes or dtypes disagree, or ids are not consecutive.

    Source: Tremeau and Colantoni 2000, "Regions adjacency graph applied to color image segmentation".
    """

    def __init__(self, segments: np.ndarray, image: np.ndarray, *, keep_apart: np.ndarray | None = None) -> None:
        self.areas = check_segments(segments)
        check_photo_fits(image, segments)
        count = len(self.areas)
        if keep_apart is None:
            keep_apart = np.zeros(count, bool)
        elif np.shape(keep_apart) != (count,) or (keep_apart := np.asarray(keep_apart)).dtype.kind not in "biu":
            got = f"{np.shape(keep_apart)} {getattr(keep_apart, 'dtype', type(keep_apart).__name__)}"
            raise ValueError(f"keep_apart must be ({count},) int or bool, one value per region; got {got}")
        self._apart = keep_apart
        self.mean_lab = region_means(lab_planes(image), segments, self.areas).T
        self._segments = segments
        edges = np.stack(touching_pairs(segments), axis=1)
        self.edges = edges[keep_apart[edges[:, 0]] == keep_apart[edges[:, 1]]]
        self.weights = np.linalg.norm(self.mean_lab[self.edges[:, 0]] - self.mean_lab[self.edges[:, 1]], axis=1)
        self._lock = threading.Lock()
        # Merges so far: distances in Lab units, and the two regions of each, of which the second stays.
        self._forest: Forest | None = None
        self._distances, self._pairs, self._done = np.empty(count), np.empty((count, 2), np.int64), 0

    @cached_property
    def centroids(self) -> np.ndarray:
        """(R, 2) float64: y and x of every region's middle, as shares of the photo's diagonal."""
        height, width = self._segments.shape
        places = np.stack(np.divmod(np.arange(self._segments.size), width))
        return region_means(places, self._segments, self.areas).T / math.hypot(height, width)

    def cut(self, threshold: float) -> np.ndarray:
        """Join every two neighbours whose colours differ by less than `threshold`; chains of them join as well.

        Args:
            threshold: Lab units, 0 or more; 0 joins nothing, 5 to 15 is usual.

        Raises:
            ValueError: a negative threshold.
        """
        _check_threshold(threshold)
        return self._joined(self.edges[self.weights < threshold])

    def hierarchical(self, threshold: float) -> np.ndarray:
        """Join the two nearest neighbours, give both their common mean, and go on while any differ by less.

        Args:
            threshold: Lab units, 0 or more; 0 joins nothing, 10 to 30 is usual.

        The order of merges does not depend on the threshold, so they are remembered: a lower threshold is free, and a
        higher one goes on where the last stopped.

        Raises:
            ValueError: a negative threshold.
        """
        _check_threshold(threshold)
        loops = load_loops()
        with self._lock:
            if self._forest is None:
                self._forest = loops.plant(self.areas, self.mean_lab, self.edges)
            self._done = loops.merge_until(self._forest, float(threshold), self._distances, self._pairs, self._done)
            # Distances may fall again after a merge, so what counts is the first that is too far.
            too_far = self._distances[: self._done] >= threshold
            joined = self._pairs[: int(too_far.argmax()) if too_far.any() else self._done].copy()
        return self._joined(joined)

    def kmeans(
        self, clusters: int, *, seed: int = 0, adjacent_only: bool = True, place_weight: float = 0.0
    ) -> np.ndarray:
        """Join regions of one cluster of mean colours, large regions counting for more (k-means++, Lloyd).

        Args:
            clusters: colours to look for; more than there are different regions are as many as these.
            seed: of the starting centres.
            adjacent_only: join only members of a cluster that touch, or touch through other members of it.
            place_weight: Lab units that the photo's diagonal is worth as a distance, up to 1e6; 0 is colour alone.

        Raises:
            ValueError: a number out of range.
            ImportError: scikit-learn is missing.
        """
        if isinstance(clusters, bool) or not math.isfinite(clusters) or clusters != int(clusters) or clusters < 1:
            raise ValueError(f"clusters must be a whole number of 1 or more; got {clusters}")
        if not 0 <= place_weight <= PLACE_WEIGHT_MAX:
            raise ValueError(f"place_weight must be in 0..{PLACE_WEIGHT_MAX:g}; got {place_weight}")
        points = self.mean_lab
        if place_weight > 0:
            points = np.hstack([points, place_weight * self.centroids])
        cluster = _kmeans(points, self.areas, int(clusters), seed)
        if adjacent_only:
            return self._joined(self.edges[cluster[self.edges[:, 0]] == cluster[self.edges[:, 1]]])
        return _in_order(np.stack([cluster, self._apart.astype(np.int64)], axis=1))

    def _joined(self, pairs: np.ndarray) -> np.ndarray:
        """(R,) int64 new ids after the pairs (P, 2) of old ids were joined."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self.areas)
        first, second = pairs.T.astype(np.int32)  # of int64 SciPy 1.11.1 joins nothing, silently
        links = coo_array((np.ones(len(pairs), bool), (first, second)), shape=(count, count))
        return _in_order(connected_components(links, directed=False)[1][:, None])


def _check_threshold(threshold: float) -> None:
    if not threshold >= 0:
        raise ValueError(f"threshold must be 0 or more, in Lab units; got {threshold}")


def _kmeans(points: np.ndarray, areas: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """(R,) int64 cluster of every point; ids of regions have no influence on which points share one."""
    try:
        from sklearn.cluster import KMeans  # heavy, and an extra
    except ImportError as error:
        raise ImportError('merging by colour (merge "kmeans") needs scikit-learn: pip install scikit-learn') from error
    order = np.lexsort(np.column_stack([areas, points]).T)
    different = len(np.unique(points, axis=0))  # more clusters than that would stay empty, with a warning
    model = KMeans(n_clusters=min(clusters, different), random_state=seed, n_init=4)
    found = np.empty(len(points), np.int64)
    found[order] = model.fit_predict(points[order], sample_weight=areas[order].astype(float))
    return found


def _in_order(keys: np.ndarray) -> np.ndarray:
    """(R,) int64: one id per different row of keys (R, K), numbered in the order of first appearance."""
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[group.ravel()]
