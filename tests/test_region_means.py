"""Means over the pixels of regions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hubmodels.refine.region_means import region_means
from tests.conftest import grid

IDS = grid("0011", "0333")  # no pixel is 2
PLANES = np.stack([grid("1256", "3789"), grid("1111", "2222")])


def test_means_of_a_drawn_grid():
    assert_array_equal(region_means(PLANES, IDS), [[2, 5.5, 0, 8], [4 / 3, 1, 0, 2]])
    assert_array_equal(region_means(PLANES, IDS, np.array([3, 2, 0, 3])), region_means(PLANES, IDS))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_ids_of_any_integers_and_channels_of_a_photo(dtype):
    photo = np.stack(list(PLANES), axis=-1).astype(np.uint8)
    means = region_means(np.moveaxis(photo, 2, 0), IDS.astype(dtype))
    assert means.dtype == np.float64
    assert_array_equal(means, region_means(PLANES, IDS))
