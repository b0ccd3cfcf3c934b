"""One label per pixel, one label per superpixel: drawn rules, slow twins, properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hubmodels.refine import decide, superpixels, vote
from tests import reference
from tests.conftest import grid


def test_a_threshold_moves_the_border_between_two_labels():
    probs = np.array([[0.7, 0.5, 0.2], [0.3, 0.5, 0.8]], np.float32)
    assert_array_equal(decide(probs), [0, 0, 1])  # the lower id on a tie
    assert_array_equal(decide(probs, threshold=0.25), [1, 1, 1])
    assert_array_equal(decide(probs, threshold=0.9), [0, 0, 0])


@pytest.mark.parametrize("shape", [(3, 700, 450), (5, 1, 200_000), (2, 200_000, 1), (4, 70_000), (3, 0, 7), (1, 5, 5)])
def test_bands_decide_as_argmax_does(shape, rng):
    probs = rng.integers(0, 4, shape).astype(np.float32) / 4  # many ties
    for values in (probs, probs[:, ::-1]):
        assert_array_equal(decide(values), values.argmax(0))


def test_sure_pixels_count_more_in_a_vote_by_probability_than_in_a_majority():
    segments = grid("000")
    second = np.array([[0.45, 0.45, 0.95]])
    probs = np.stack([1 - second, second])
    assert_array_equal(vote(probs, segments), grid("111"))  # 1.85 against 1.15
    assert_array_equal(vote(probs, segments, weight="majority"), grid("000"))  # two pixels against one


def test_the_threshold_is_on_the_mean_probability_of_a_superpixel():
    probs = np.stack([grid("00") + 0.6, grid("00") + 0.4])
    assert_array_equal(vote(probs, grid("00"), threshold=0.3), grid("11"))
    assert_array_equal(vote(probs, grid("00"), weight="majority", threshold=0.3), grid("11"))


def test_sure_pixels_may_keep_their_label():
    second = np.array([[0.9, 0.9, 0.4, 0.05]])
    probs, segments = np.stack([1 - second, second]), grid("0000")
    assert_array_equal(vote(probs, segments), grid("1111"))
    assert_array_equal(vote(probs, segments, keep_confident=0.95), grid("1110"))
    assert_array_equal(vote(probs, segments, keep_confident=0.5), grid("1100"))


def test_sure_pixels_keep_the_label_that_the_threshold_gives_them():
    second = np.array([[0.45, 0.1, 0.1, 0.1]])
    probs = np.stack([1 - second, second])
    assert_array_equal(vote(probs, grid("0000"), threshold=0.4), grid("0000"))
    assert_array_equal(vote(probs, grid("0000"), threshold=0.4, keep_confident=0.5), grid("1000"))


def test_label_ids_vote_by_majority_and_a_tie_goes_to_the_lower():
    assert_array_equal(vote(grid("220", "115"), grid("000", "111"), weight="majority"), grid("222", "111"))
    assert_array_equal(vote(grid("2211"), grid("0000"), weight="majority"), grid("1111"))


def test_ids_without_a_pixel_do_no_harm():
    assert_array_equal(vote(np.stack([grid("00"), grid("11")]), grid("14")), grid("11"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_that_are_no_numbers_are_refused(value, dtype):
    probs = np.full((2, 300, 400), 0.5, dtype)  # 240,000 values, whose sum float16 cannot hold
    segments = np.zeros((300, 400), int)
    calls = [
        lambda: decide(probs),
        lambda: decide(probs, threshold=0.4),
        lambda: vote(probs, segments),
        lambda: vote(probs, segments, weight="majority"),
        lambda: vote(probs, segments, keep_confident=0.4),
    ]
    for call in calls:
        call()
    probs[1, 7, 8] = value
    for call in calls:
        with pytest.raises(ValueError, match="probs must be finite numbers; got NaN or infinity"):
            call()


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 5), count=st.integers(1, 12))
def test_both_votes_equal_their_slow_twins(seed, classes, count):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(classes), (8, 9)).transpose(2, 0, 1)
    segments = rng.integers(0, count, (8, 9))
    assert_array_equal(vote(probs, segments), reference.vote(probs, segments))
    assert_array_equal(vote(probs, segments, weight="majority"), reference.majority(probs.argmax(0), segments))


def test_the_vote_is_the_predecessors_loops_over_pixels(rng, astronaut):
    """How much faster it is, test_bench_results.py holds."""
    probs = rng.dirichlet(np.ones(7), (240, 160)).transpose(2, 0, 1).astype(np.float32)
    segments = superpixels(astronaut[:240, :160], scale=100)
    assert_array_equal(vote(probs, segments), reference.vote_by_pixel(probs, segments))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), weight=st.sampled_from(["probability", "majority"]))
def test_renaming_labels_or_superpixels_renames_the_answer(seed, weight):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(4), (9, 9)).transpose(2, 0, 1)
    segments = rng.integers(0, 81, (9, 9)) // 27  # three large ones of 27 pixels or so
    segments[0] = rng.integers(0, 3, 9)
    before = vote(probs, segments, weight=weight)
    assert_array_equal(vote(probs, rng.permutation(3)[segments], weight=weight), before)
    counts = np.stack([np.bincount(probs.argmax(0)[segments == s], minlength=4) for s in range(3)])
    ranked = np.sort(counts, 1)
    if weight == "probability" or (ranked[:, -1] > ranked[:, -2]).all():  # ids decide ties
        order = rng.permutation(4)
        assert_array_equal(order[vote(probs[order], segments, weight=weight)], before)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: decide(np.ones((3, 2)) / 3, threshold=0.4), "needs two labels; got 3"),
        (lambda: decide(np.ones((2, 2)) / 2, threshold=1.5), "0..1; got 1.5"),
        (lambda: vote(np.zeros((2, 3, 3)), np.zeros((4, 4), int)), r"probs must be \(C, 4, 4\)"),
        (lambda: vote(np.zeros((2, 4, 4)), np.zeros((4, 4), int), weight="loud"), "got 'loud'"),
        (lambda: decide(np.eye(300)[:, [299]]), "at most 256 labels, so that ids fit uint8; got 300"),
        (lambda: vote(np.zeros((2, 1, 2)), grid("00").astype(float)), r"int region ids; got \(1, 2\) float64"),
        (lambda: vote(np.zeros((2, 1, 2)), grid("00") > 0), "int region ids"),
        (lambda: vote(np.zeros((2, 1, 2)), grid("01").astype(int) - 1), r"ids in 0\.\.65535; got -1\.\.0: renumber"),
        (lambda: vote(np.zeros((2, 1, 2)), grid("01").astype(int) * 10**12), r"got 0\.\.1000000000000"),
        (lambda: vote(grid("00"), grid("00")), "pass probabilities"),
        (lambda: vote(np.zeros((1, 2)), grid("00"), weight="majority"), "uint8"),
        (lambda: vote(np.zeros((2, 1, 2)), grid("00"), keep_confident=2), "keep_confident must be in 0..1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
