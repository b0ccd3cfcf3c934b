"""The paired bootstrap over photos."""

from __future__ import annotations

import numpy as np
import pytest

from hubmodels.bootstrap import PhotoScores, compare, split_scores
from hubmodels.metrics import Scores


def scored(maps: list[tuple[np.ndarray, np.ndarray]], classes: int) -> PhotoScores:
    """Of pairs of true and predicted labels, each counted by itself."""
    return PhotoScores.of([Scores.of_photo(*each, num_classes=classes) for each in maps])


def two_photos(right: tuple[int, int]) -> PhotoScores:
    """Ten pixels each, all of label 0, of which so many were found."""
    confusion = [[[found, 10 - found], [0, 0]] for found in right]
    return PhotoScores(np.array(confusion), np.array([0.5, 0.5]))


def test_splits_are_scored_as_scores_scores_them():
    rng = np.random.default_rng(0)
    maps = [tuple(rng.integers(0, 4, (2, 12, 10)).astype(np.uint8)) for _ in range(5)]
    maps[1] = (np.zeros((12, 10), np.uint8), np.zeros((12, 10), np.uint8))  # no boundary, and one label alone
    counts = np.array([[1, 1, 1, 1, 1], [3, 0, 2, 0, 0], [0, 5, 0, 0, 0], [0, 2, 0, 1, 2]])
    got = split_scores(scored(maps, 5), counts)
    for index, times in enumerate(counts):
        expected = Scores(5)
        for (truth, predicted), often in zip(maps, times, strict=True):
            for _ in range(often):
                expected.add(truth, predicted)
        for key in ("miou", "pixel_accuracy", "boundary_f"):
            np.testing.assert_allclose(got[key][index], getattr(expected, key), rtol=1e-12)


def test_labels_without_true_pixels_cost_those_they_replace_and_no_more():
    """Six of ten pixels of label 0 are found, one is called 2: IoU 0.6, and that of label 1 is 0 for its two pixels."""
    photos = PhotoScores(np.array([[[6, 3, 1], [2, 0, 0], [0, 0, 0]]]), np.array([np.nan]))
    assert split_scores(photos)["miou"].tolist() == [(6 / 12 + 0) / 2]


def test_the_share_by_hand():
    """Two pixels more on one photo, one less on the other: better in the sets 00, 01 and 10 of four, worse in 11."""
    found = compare(two_photos((8, 5)), two_photos((6, 6)), draws=20_000)
    assert found["pixel_accuracy"]["new"] == 0.65 and found["pixel_accuracy"]["old"] == 0.6
    assert abs(found["pixel_accuracy"]["share"] - 0.75) < 0.0153  # five standard deviations of 20,000 draws
    assert found["boundary_f"] == {"new": 0.5, "old": 0.5, "share": 0.5}


def test_a_model_is_no_better_than_itself_and_the_draws_are_the_same_every_time():
    photos = two_photos((8, 5))
    assert {row["share"] for row in compare(photos, photos, draws=10).values()} == {0.5}
    assert compare(photos, two_photos((6, 6)), draws=50) == compare(photos, two_photos((6, 6)), draws=50)
    assert compare(two_photos((7, 7)), two_photos((6, 6)), draws=10)["miou"]["share"] == 1.0
    nothing = PhotoScores(photos.confusion, np.array([np.nan, np.nan]))
    assert compare(nothing, nothing, draws=10)["boundary_f"] == {"new": None, "old": None, "share": None}
    half = PhotoScores(photos.confusion, np.array([np.nan, 0.5]))  # some draws hold the first alone
    assert compare(half, half, draws=50)["boundary_f"]["share"] == 0.5


def test_refuses_other_photos_and_no_draws():
    photos = two_photos((8, 5))
    with pytest.raises(ValueError, match="same photos"):
        compare(photos, PhotoScores(photos.confusion[::1] * 2, photos.boundary_f))
    with pytest.raises(ValueError, match="same photos"):
        compare(photos, PhotoScores(photos.confusion[:1], photos.boundary_f[:1]))
    with pytest.raises(ValueError, match="one draw or more; got 0"):
        compare(photos, photos, draws=0)


def test_both_ways_are_scored_on_the_same_draws():
    """A pixel more on each photo, though the photos differ by much more: better whichever are drawn."""
    found = compare(two_photos((10, 2)), two_photos((9, 1)), draws=200)
    assert found["pixel_accuracy"]["share"] == 1.0


def test_a_draw_in_which_one_way_has_nothing_to_judge_counts_for_neither():
    """Four fifths against a half wherever both are judged, which draws of the first photo alone are not."""
    confusion = two_photos((8, 5)).confusion
    better, worse = (PhotoScores(confusion, np.array([value, value])) for value in (0.8, 0.5))
    some_better, some_worse = (PhotoScores(confusion, np.array([np.nan, value])) for value in (0.8, 0.5))
    for new, old in ((some_better, worse), (better, some_worse)):
        assert compare(new, old, draws=50)["boundary_f"]["share"] == 1.0
        assert compare(old, new, draws=50)["boundary_f"]["share"] == 0.0


def test_another_seed_draws_other_photos():
    def shares(seed: int) -> list[float | None]:
        found = compare(two_photos((8, 5)), two_photos((6, 6)), draws=1_000, seed=seed)
        return [row["share"] for row in found.values()]

    assert shares(1) == shares(1) != shares(2)


def test_scores_have_five_digits_and_shares_four():
    """Thirds of three photos; of 7 draws sevenths, or halves of them where draws are equal."""
    confusion = np.ones((3, 2, 2), np.int64)
    new, old = (PhotoScores(confusion, np.array(scores)) for scores in ([1.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    row = compare(new, old, draws=7)["boundary_f"]
    assert (row["new"], row["old"]) == (0.66667, 0.33333)
    assert row["share"] in {round(halves / 14, 4) for halves in range(15)} - {0.0, 0.5, 1.0}


def test_one_draw_is_enough():
    assert compare(two_photos((8, 8)), two_photos((6, 6)), draws=1)["miou"] == {"new": 0.8, "old": 0.6, "share": 1.0}


def test_one_true_pixel_gives_a_label_its_part_of_the_mean():
    """Eight of nine pixels of label 0 are found, and the only one of label 1."""
    photos = PhotoScores(np.array([[[8, 1], [0, 1]]]), np.array([np.nan]))
    assert split_scores(photos)["miou"].tolist() == [(8 / 9 + 1 / 2) / 2]


def test_refuses_photos_in_another_order_and_other_labels_of_the_same_sizes():
    def photos(*counts: tuple[int, int]) -> PhotoScores:
        return PhotoScores(np.array([np.diag(each) for each in counts]), np.full(len(counts), 0.5))

    shown = photos((4, 6), (7, 3))
    assert compare(shown, shown, draws=1)["miou"]["share"] == 0.5
    for others in (photos((7, 3), (4, 6)), photos((6, 4), (3, 7))):
        with pytest.raises(ValueError, match="in one order; their true pixels differ"):
            compare(shown, others)
