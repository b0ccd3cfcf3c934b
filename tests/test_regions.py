"""Clean-up of small regions: drawn rules, a slow twin, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hubmodels.refine import clean_regions, regions
from tests import reference
from tests.conftest import grid

LABEL_MAPS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


@pytest.mark.parametrize(
    "before, after, size",
    [
        (grid("1111", "1211", "1111"), grid("1111", "1111", "1111"), 2),  # an island takes the class around it
        (grid("0000", "0110", "0000"), grid("0000", "0110", "0000"), 2),  # exactly the bound: kept
        (grid("1112", "1112", "1122"), grid("1111", "1111", "1111"), 5),  # at the border of the photo too
        (grid("11322", "11122"), grid("11122", "11122"), 2),  # the longer border wins: 1 twice, 2 once
        (grid("132"), grid("111"), 2),  # all are small: the first of the largest stays
    ],
)
def test_small_regions_take_what_surrounds_them_most(before, after, size):
    assert_array_equal(clean_regions(before, min_region_px=size), after)


def test_a_tie_goes_to_the_lower_id():
    assert_array_equal(clean_regions(grid("22311"), min_region_px=2), grid("22111"))


def test_a_region_among_small_ones_waits_until_a_neighbour_has_grown():
    assert_array_equal(clean_regions(grid("111123"), min_region_px=3), grid("111111"))


def test_connectivity_decides_whether_a_diagonal_holds_together():
    diagonal = grid("1000", "0100", "0010", "0000")
    assert_array_equal(clean_regions(diagonal, min_region_px=3, connectivity=8), diagonal)
    assert not clean_regions(diagonal, min_region_px=3, connectivity=4).any()


@pytest.mark.parametrize("connectivity", [4, 8])
def test_a_map_of_dots_is_cut_into_regions_once(monkeypatch, connectivity):
    """Rounds that each looked at the whole photo took minutes on such maps, which anyone may upload."""
    cuts, cut = [], regions._components
    monkeypatch.setattr(regions, "_components", lambda *given: cuts.append(given) or cut(*given))
    dots = (np.indices((90, 60)).sum(0) % 2).astype(np.uint8)
    dots = np.where(np.random.default_rng(0).random(dots.shape) < 0.2, 2, dots).astype(np.uint8)
    after = clean_regions(dots, min_region_px=50, connectivity=connectivity)
    assert len(cuts) == 1
    assert_array_equal(after, reference.clean_regions(dots, 50, connectivity))
    sizes = np.bincount(cut(after.astype(np.int32) + 1, connectivity).ravel())[1:]
    assert sizes.min() >= 50


def test_off_returns_the_very_same_array():
    labels = grid("01", "10")
    for size in (0, 1):
        assert clean_regions(labels, min_region_px=size) is labels


@settings(max_examples=150, deadline=None)
@given(labels=LABEL_MAPS, size=st.integers(0, 12), connectivity=st.sampled_from([4, 8]))
def test_equal_to_the_slow_twin_stable_and_without_new_labels(labels, size, connectivity):
    kept = labels.copy()
    cleaned = clean_regions(labels, min_region_px=size, connectivity=connectivity)
    assert_array_equal(cleaned, reference.clean_regions(labels, size, connectivity))
    assert_array_equal(labels, kept)  # the input is left untouched
    assert_array_equal(clean_regions(cleaned, min_region_px=size, connectivity=connectivity), cleaned)
    assert set(np.unique(cleaned)) <= set(np.unique(labels))


@pytest.mark.parametrize(
    "before, after, size",
    [
        (grid("1111", "1001", "1111"), grid("1111", "1111", "1111"), 3),
        (grid("1111", "1001", "1111"), grid("1111", "1001", "1111"), 2),  # exactly the bound: kept
        (grid("1111", "1001", "1011"), grid("1111", "1001", "1011"), 9),  # open at the edge of the photo: no hole
        (grid("2222", "2132", "2222"), grid("2222", "2222", "2222"), 3),  # whatever lies in it
        (grid("0000", "0110", "0000"), grid("0000", "0110", "0000"), 9),  # the background fills nothing
        (grid("11111", "12221", "12021", "12221", "11111"), np.ones((5, 5), np.uint8), 20),  # a hole in a hole
        (grid("11111", "12221", "12021", "12221", "11111"), grid("11111", "12221", "12221", "12221", "11111"), 5),
    ],
)
def test_holes_are_filled_by_the_label_around_them(before, after, size):
    assert_array_equal(clean_regions(before, min_region_px=0, fill_holes_px=size), after)


def test_connectivity_decides_whether_a_ring_is_closed():
    ring = grid("01110", "10001", "10001", "01110")  # held together at the corners only over 8 neighbours
    assert_array_equal(clean_regions(ring, fill_holes_px=9, connectivity=4), ring)
    filled = grid("01110", "11111", "11111", "01110")
    assert_array_equal(clean_regions(ring, fill_holes_px=9, connectivity=8), filled)


def test_only_the_largest_part_of_the_foreground_is_kept():
    before = grid("1100200", "1100220", "0000020")
    assert_array_equal(clean_regions(before, keep_largest=True), grid("1100000", "1100000", "0000000"))  # the first
    before[2, 6] = 1  # touches the other part, and makes it the larger one
    assert_array_equal(clean_regions(before, keep_largest=True), grid("0000200", "0000220", "0000021"))
    empty = grid("000")
    assert_array_equal(clean_regions(empty, keep_largest=True), empty)


def test_a_hole_that_opens_when_an_island_goes_is_filled_too():
    """The island closes the ring once it is absorbed; a single pass of the stages would leave the hole."""
    before = grid("111111", "100021", "111111")
    assert_array_equal(clean_regions(before, min_region_px=2, fill_holes_px=4), grid("111111", "111111", "111111"))


def border(labels: np.ndarray) -> int:
    """How many pairs of pixels side by side have two labels."""
    return int(np.count_nonzero(np.diff(labels.astype(int), axis=0)) + np.count_nonzero(np.diff(labels.astype(int))))


CLEANING = st.fixed_dictionaries(
    {
        "min_region_px": st.integers(0, 8),
        "fill_holes_px": st.integers(0, 12),
        "keep_largest": st.booleans(),
        "connectivity": st.sampled_from([4, 8]),
    }
)


@settings(max_examples=300, deadline=None)
@given(labels=LABEL_MAPS, cleaning=CLEANING)
@example(
    labels=grid("010", "101", "111"),  # the hole holds the background together across corners
    cleaning={"min_region_px": 0, "fill_holes_px": 2, "keep_largest": False, "connectivity": 8},
)
def test_all_together_is_stable_adds_no_label_and_no_border(labels, cleaning):
    cleaned = clean_regions(labels, **cleaning)
    assert_array_equal(clean_regions(cleaned, **cleaning), cleaned)
    assert set(np.unique(cleaned)) <= set(np.unique(labels)) | ({0} if cleaning["keep_largest"] else set())
    assert border(cleaned) <= border(labels)
    if cleaning["connectivity"] == 4 or cleaning["fill_holes_px"] <= 1:
        count = [len(reference.regions(each, cleaning["connectivity"])) for each in (labels, cleaned)]
        assert count[1] <= count[0]


@settings(max_examples=150, deadline=None)
@given(labels=LABEL_MAPS, size=st.integers(0, 30), connectivity=st.sampled_from([4, 8]))
def test_filling_equals_the_slow_twin(labels, size, connectivity):
    filled = clean_regions(labels, fill_holes_px=size, connectivity=connectivity)
    assert_array_equal(filled, reference.fill_holes(labels, size, connectivity))


@settings(max_examples=100, deadline=None)
@given(labels=LABEL_MAPS, size=st.integers(2, 8), shift=st.integers(1, 5))
def test_other_ids_in_the_same_order_change_nothing(labels, size, shift):
    """Ties go to the lower id, so ids may be spread but not swapped."""
    spread = np.where(labels > 0, labels * shift + 1, 0).astype(np.uint8)
    cleaned = clean_regions(labels, min_region_px=size, fill_holes_px=size)
    wanted = np.where(cleaned > 0, cleaned * shift + 1, 0)
    assert_array_equal(clean_regions(spread, min_region_px=size, fill_holes_px=size), wanted)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": np.zeros((2, 2)), "min_region_px": 2}, "uint8"),
        ({"labels": np.zeros((1, 2, 2), np.uint8), "min_region_px": 2}, "H, W"),
        ({"labels": grid("0"), "min_region_px": -1}, "min_region_px must be 0 or more"),
        ({"labels": grid("0"), "fill_holes_px": -1}, "fill_holes_px must be 0 or more"),
        ({"labels": grid("0"), "min_region_px": float("nan")}, "min_region_px must be 0 or more; got nan"),
        ({"labels": grid("0"), "min_region_px": 2, "connectivity": 6}, "4 or 8"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        clean_regions(arguments.pop("labels"), **arguments)
