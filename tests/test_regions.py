"""Clean-up of small regions: drawn rules, a slow twin, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hubmodels.refine import clean_regions
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
    "arguments, message",
    [
        ({"labels": np.zeros((2, 2)), "min_region_px": 2}, "uint8"),
        ({"labels": np.zeros((1, 2, 2), np.uint8), "min_region_px": 2}, "H, W"),
        ({"labels": grid("0"), "min_region_px": -1}, "0 or more"),
        ({"labels": grid("0"), "min_region_px": 2, "connectivity": 6}, "4 or 8"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        clean_regions(arguments.pop("labels"), **arguments)
