"""Scores by hand and against a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hubmodels.metrics import IGNORE, Scores, boundaries, boundary_f, iou_of, miou_of
from tests import reference
from tests.conftest import grid


def test_scores_by_hand():
    scores = Scores(3)
    scores.add(grid("0011"), grid("0111"))
    assert_array_equal(scores.confusion, [[1, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert_array_equal(scores.iou, [1 / 2, 2 / 3, np.nan])
    assert scores.miou == pytest.approx((1 / 2 + 2 / 3) / 2)  # label 2 neither occurs nor is predicted
    assert scores.pixel_accuracy == 3 / 4


def test_the_matrix_is_summed_over_photos_before_the_ratio_is_taken():
    scores = Scores(2)
    scores.add(grid("01"), grid("01"))
    scores.add(grid("0000"), grid("0001"))
    assert scores.iou[1] == 1 / 2 and scores.images == 2


def test_precision_recall_and_share_by_hand():
    scores = Scores(3)
    scores.add(grid("0011"), grid("0112"))  # of two pixels each one is found; 1 is said twice and right once
    assert_array_equal(scores.precision, [1, 1 / 2, 0])
    assert_array_equal(scores.recall, [1 / 2, 1 / 2, np.nan])
    assert_array_equal(scores.share, [1 / 2, 1 / 2, 0])
    assert np.isnan([Scores(2).miou, Scores(2).pixel_accuracy]).all()  # nothing was counted
    assert np.isnan(Scores(2).share).all() and np.isnan(Scores(2).precision).all()


def test_results_files_hold_no_nan():
    """JSON has none; what is undefined is left out."""
    scores = Scores.of_photo(grid("0011"), grid("0111"), num_classes=3)
    assert scores.iou_by_name(("sky", "sea", "sand")) == {"sky": 1 / 2, "sea": 2 / 3}
    assert scores.summary(("sky", "sea", "sand"))["iou"] == {"sky": 0.5, "sea": 0.66667}
    same = Scores.of_photo(grid("00"), grid("00"), num_classes=2)
    assert same.summary() == {"miou": 1, "pixel_accuracy": 1}  # no boundary
    assert Scores(2).summary() == {} and Scores(2).iou_by_name(("a", "b")) == {}


def test_scores_of_many_matrices_at_once(rng):
    matrices = rng.integers(0, 9, (2, 3, 4, 4))
    assert_array_equal(iou_of(matrices)[1, 2], iou_of(matrices[1, 2]))
    assert miou_of(matrices[0, 0]) == iou_of(matrices[0, 0]).mean() and np.isnan(miou_of(np.zeros((3, 3))))


def test_scores_of_photos_are_joined_as_if_counted_together():
    photos = [(grid("0011", "0111"), grid("0111", "0111")), (grid("22", "22"), grid("22", "21"))]
    together, joined = Scores(3), Scores(3)
    for truth, predicted in photos:
        together.add(truth, predicted)
        joined.include(Scores.of_photo(truth, predicted, num_classes=3))
    assert_array_equal(joined.confusion, together.confusion)
    assert joined.boundary == together.boundary and len(joined.boundary) == joined.images == 2
    with pytest.raises(ValueError, match="scores must be of 3 labels within 3 px; got those of 2 within 3"):
        joined.include(Scores(2))


def test_many_labels_are_counted_apart():
    """There are more pairs of 20 labels than uint8, the type of the ids, has numbers."""
    scores = Scores.of_photo(np.array([[19, 18]], np.uint8), np.array([[18, 19]], np.uint8), num_classes=20)
    assert scores.confusion[19, 18] == scores.confusion[18, 19] == 1 and scores.confusion.sum() == 2


def test_the_boundary_measure_is_the_mean_over_photos_that_have_one():
    scores = Scores(2, boundary_px=1)
    scores.add(grid("0011"), grid("0011"))
    scores.add(grid("0001111"), grid("0000011"))  # two pixels beside the true one
    scores.add(grid("0000"), grid("0000"))
    scores.add(grid("0011"), grid("0011"), with_boundary=False)
    assert scores.boundary == [1, 0] and scores.images == 4
    assert scores.boundary_f == scores.summary()["boundary_f"] == 1 / 2


def test_undecided_pixels_do_not_count():
    truth = np.array([[0, IGNORE, 1]], np.uint8)
    scores = Scores(2)
    scores.add(truth, grid("001"))
    assert scores.confusion.sum() == 2 and scores.pixel_accuracy == 1


def test_boundaries_are_where_the_next_pixel_differs():
    assert_array_equal(boundaries(grid("0011", "0111")), [[0, 1, 0, 0], [1, 0, 0, 0]])


def test_a_boundary_within_the_distance_counts_as_found():
    truth, predicted = grid(*["00000111111"] * 9), grid(*["00011111111"] * 9)
    assert boundary_f(truth, predicted, distance_px=2) == 1
    assert boundary_f(truth, predicted, distance_px=1) == 0


def test_boundary_f_of_maps_without_boundaries():
    flat, cut = grid("000"), grid("001")
    assert boundary_f(flat, flat) is None
    assert boundary_f(flat, cut) == boundary_f(cut, flat) == 0


@pytest.mark.parametrize("undecided", [0, 0.05, 0.6, 1], ids="{} undecided".format)
def test_boundary_f_equals_its_slow_twin(rng, undecided):
    for _ in range(5):
        coarse = rng.integers(0, 3, (2, 6, 6), dtype=np.uint8)
        truth, predicted = np.kron(coarse, np.ones((1, 5, 5), np.uint8))
        blocks = np.kron(rng.random((10, 10)) < undecided, np.ones((3, 3), bool))
        truth[blocks] = IGNORE
        for distance in (0, 1, 3):
            expected = reference.boundary_f(truth, predicted, distance)
            assert boundary_f(truth, predicted, distance_px=distance) == pytest.approx(expected)


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:60, :60]
    return ((y - 30) ** 2 + (x - 30) ** 2 < radius**2).astype(np.uint8)


def test_undecided_areas_have_no_boundary():
    predicted = disc(15)
    strip = predicted.copy()
    strip[:, :20] = IGNORE  # cuts off a part of the disc
    far = predicted.copy()
    far[2:5, 2:5] = IGNORE
    band = np.where(disc(17) > disc(13), IGNORE, predicted)
    assert boundary_f(strip, predicted) == boundary_f(far, predicted) == 1
    assert boundary_f(band, predicted) is None and boundary_f(band, disc(16)) is None  # nothing that could be judged
    assert boundary_f(band, predicted * 0) is None and boundary_f(band * 0, predicted) == 0
    assert boundary_f(np.full_like(predicted, IGNORE), predicted) is None
    assert boundary_f(band, disc(25)) == 0  # nobody could have drawn a boundary there
    scores = Scores(2)
    scores.add(band, predicted)
    assert scores.miou == 1 and np.isnan(scores.boundary_f)


def test_a_boundary_beside_an_undecided_area_is_still_looked_for():
    truth, right = grid(*["001111"] * 6), grid(*["001111"] * 6)
    truth[::3, 3:] = IGNORE  # within 3 pixels of all of the boundary: what is predicted there cannot be judged
    assert boundary_f(truth, right) == 1
    assert boundary_f(truth, right * 0) == 0


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        Scores(2).add(grid("00"), grid("000"))


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [("00", "02", "prediction must be in 0..1.*got 0..2"), ("03", "00", "truth must be in 0..1, or 255.*got 0..3")],
)
def test_an_id_that_is_no_label_never_counts_as_another(truth, predicted, message):
    scores = Scores(2)
    with pytest.raises(ValueError, match=message):
        scores.add(grid(truth), grid(predicted))
    assert not scores.confusion.any() and scores.images == 0
