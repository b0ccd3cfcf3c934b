"""Superpixels and their vote."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hubmodels.refine import superpixels, vote
from tests import reference
from tests.conftest import grid


def test_two_colours_make_two_superpixels():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 255
    segments = superpixels(image, scale=100, sigma=0, min_size_px=1)
    assert_array_equal(segments, np.repeat([[0] * 15 + [1] * 15], 20, axis=0))


def test_every_pixel_has_one_and_ids_are_consecutive(astronaut):
    segments = superpixels(astronaut[:128, :128], scale=50)
    assert segments.shape == (128, 128) and segments.dtype == np.int32
    assert_array_equal(np.unique(segments), np.arange(segments.max() + 1))


def test_a_larger_scale_makes_fewer_superpixels(astronaut):
    counts = [superpixels(astronaut[:128, :128], scale=scale).max() for scale in (10, 100, 1000)]
    assert counts[0] > counts[1] > counts[2] > 0


def test_the_vote_sums_probabilities_over_each_superpixel():
    segments = grid("001", "001").astype(np.int32)
    second = np.array([[0.9, 0.1, 0.2], [0.3, 0.1, 0.9]])  # sums: 1.4 of 4 on the left, 1.1 of 2 on the right
    assert_array_equal(vote(np.stack([1 - second, second]), segments), grid("001", "001"))


def test_a_tie_goes_to_the_lower_id():
    assert_array_equal(vote(np.full((3, 2, 2), 1 / 3), np.zeros((2, 2), np.int32)), grid("00", "00"))


def test_the_vote_equals_its_slow_twin(rng):
    probs = rng.dirichlet(np.ones(5), (30, 40)).transpose(2, 0, 1)
    segments = np.unique(rng.integers(0, 60, (30, 40)), return_inverse=True)[1].reshape(30, 40)
    assert_array_equal(vote(probs, segments), reference.vote(probs, segments))


def test_bad_input_is_refused(astronaut):
    for arguments in ({"scale": 0}, {"sigma": -1}, {"min_size_px": -1}):
        with pytest.raises(ValueError, match="expected scale > 0"):
            superpixels(astronaut, **arguments)
    with pytest.raises(ValueError, match="uint8"):
        superpixels(astronaut / 255)
    with pytest.raises(ValueError, match="probs must be"):
        vote(np.zeros((2, 3, 3)), np.zeros((4, 4), int))
