"""Polygons of masks cover the pixels of the mask and no others, as COCO's own package draws them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pycocotools import mask as mask_api
from scipy import ndimage

from hubmodels.outlines import polygons_of

# Of pycocotools to itself, where it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def drawn(polygons, size):
    flat = [polygon.ravel().tolist() for polygon in polygons]
    return mask_api.decode(mask_api.merge(mask_api.frPyObjects(flat, *size))).astype(bool)


def area(polygon):
    """By the shoelace formula: positive if it goes round clockwise, with y growing downwards."""
    x, y = polygon.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def grid(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (grid("#"), [[(0, 0), (1, 0), (1, 1), (0, 1)]]),
        (grid(".##", "..#"), [[(1, 0), (3, 0), (3, 2), (2, 2), (2, 1), (1, 1)]]),
        (grid("#.", ".#"), [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]),
        (grid(".#", "#."), [[(1, 0), (2, 0), (2, 1), (1, 1)], [(0, 1), (1, 1), (1, 2), (0, 2)]]),
        (
            grid("###", "#.#", "###"),
            [[(0, 0), (3, 0), (3, 3), (0, 3), (1, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 3)]],
        ),
        (grid("..", ".."), []),
    ],
)
def test_by_hand(mask, expected):
    assert [list(map(tuple, polygon.tolist())) for polygon in polygons_of(mask)] == expected


@pytest.mark.parametrize("seed", range(40))
def test_exactly_the_pixels_of_noise(seed):
    """Parts that touch at corners, holes in holes, edges of the photo, masks of one row."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        size, cell = rng.integers(1, 14, 2), rng.integers(1, 4, 2)
        mask = np.kron(rng.random(size) < rng.random(), np.ones(cell, bool))
        polygons = polygons_of(mask)
        parts, count = ndimage.label(mask)
        assert len(polygons) == count
        for index, polygon in enumerate(polygons, 1):
            assert_array_equal(drawn([polygon], mask.shape), parts == index)
            assert area(polygon) == (parts == index).sum()


def test_rings_in_rings():
    mask = np.zeros((15, 17), bool)
    for inset in range(0, 8):
        mask[inset : 15 - inset, inset : 17 - inset] = inset % 2 == 0
    polygons = polygons_of(mask)
    assert [len(polygon) for polygon in polygons] == [10, 10, 10, 10]
    assert_array_equal(drawn(polygons, mask.shape), mask)


def test_outlines_stay_within_the_tolerance():
    y, x = np.mgrid[:80, :90]
    radius = np.hypot(y - 40, x - 45)
    mask = (radius < 36) & (radius > 14)
    to_edge = np.maximum(ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask))
    (exact,) = polygons_of(mask)
    counts = [len(exact)]
    for tolerance_px in (0.75, 1.5, 3.0):
        (polygon,) = polygons_of(mask, tolerance_px=tolerance_px)
        assert set(map(tuple, polygon.tolist())) < set(map(tuple, exact.tolist()))
        wrong = drawn([polygon], mask.shape) != mask
        assert 0 < to_edge[wrong].max() <= tolerance_px + 1  # from a pixel's middle to that of one across the edge
        counts.append(len(polygon))
    assert counts == sorted(counts, reverse=True) and counts[1] < counts[0] / 2


def test_a_part_that_would_lose_its_area_keeps_its_corners_and_a_hole_is_filled():
    mask = np.zeros((20, 20), bool)
    mask[3:15, 2:17], mask[8, 8], mask[18, 4] = True, False, True
    polygons = polygons_of(mask, tolerance_px=3)
    assert [list(map(tuple, each.tolist())) for each in polygons] == [
        [(2, 3), (17, 3), (17, 15), (2, 15)],
        [(4, 18), (5, 18), (5, 19), (4, 19)],
    ]


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_is_a_distance(wrong):
    with pytest.raises(ValueError, match="tolerance_px must be 0 or more"):
        polygons_of(np.ones((2, 2), bool), tolerance_px=wrong)
