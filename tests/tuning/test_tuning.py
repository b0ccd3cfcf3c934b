"""Tuning on one's own photos: which photos count, what is chosen, and whether the gain is told without flattery."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import ImageError, LabelSet, Refinement
from hubmodels.bootstrap import PhotoScores
from hubmodels.labels import PERSON
from hubmodels.mask_search import Example, find_examples
from hubmodels.metrics import Scores
from hubmodels.tuning import (
    Trials,
    candidates,
    conclude,
    measure,
    try_settings,
)
from tests.tuning.conftest import CLEAN, HOLES, NONE, save


def test_a_photo_is_scored_as_predict_answers_it(folders, model):
    photos, masks = folders
    example = Example(photos / "p0.png", masks / "p0.png")
    confusion, boundary_f = try_settings(model, example, [NONE, CLEAN])
    for index, settings in enumerate((NONE, CLEAN)):
        expected = Scores(2)
        expected.add(np.asarray(Image.open(example.mask)), model.predict(example.photo, refinement=settings).labels)
        assert_array_equal(confusion[index], expected.confusion)
        assert boundary_f[index] == expected.boundary_f
    assert confusion[0, 0, 1] > confusion[1, 0, 1] == 0  # the dots are gone


def test_large_photos_are_tried_at_the_size_the_page_works_at(tmp_path, model):
    large = np.zeros((1200, 60, 3), np.uint8)
    example = Example(save(tmp_path, "a.png", large), save(tmp_path, "m.png", large[..., 0]))
    assert try_settings(model, example, [NONE])[0].sum() == 800 * 40


def test_what_is_wrong_names_its_file(folders, model, tmp_path):
    photos, _ = folders
    wrong = save(tmp_path, "wrong.png", np.zeros((50, 64), np.uint8))
    with pytest.raises(ImageError, match=r"wrong\.png: the mask is 64x50, the photo 64x96"):
        try_settings(model, Example(photos / "p0.png", wrong), [NONE])


def trials(hits: list[list[int]], settings: list[Refinement], *, size: int = 100) -> Trials:
    """Of each settings and photo, so many of the pixels of one true label were found; the others were called 1."""
    confusion = np.array([[[[found, size - found], [0, size]] for found in row] for row in hits])
    return Trials(settings, confusion, np.full((len(hits), len(hits[0])), 0.5))


def test_the_best_does_least_of_equals():
    found = trials([[50, 50], [60, 60], [60, 60]], [NONE, CLEAN, HOLES])
    assert found.best() == 1 and found.best(np.array([1])) == 1
    assert trials([[60, 60], [60, 60]], [NONE, CLEAN]).best() == 0
    both = Refinement(min_region_px=400, fill_holes_px=400)
    assert trials([[50, 50], [60, 60], [60, 60]], [NONE, both, CLEAN]).best() == 2


def test_photos_on_which_nothing_is_decided_choose_nothing():
    undecided = Trials([NONE, CLEAN], np.zeros((2, 2, 2, 2), np.int64), np.full((2, 2), np.nan))
    result = conclude(undecided, LabelSet.custom(2))
    assert not result["taken"] and result["best"] == {} and result["share"] is None
    assert result["scores"]["cross_validated"]["miou"] is None


def test_a_photo_with_too_many_superpixels_is_left_out(folders, model, monkeypatch):
    photos, masks = folders
    monkeypatch.setattr("hubmodels.refine.tuner.MERGEABLE", 0)
    said: list[str] = []
    merged = Refinement(superpixel_scale=30, merge="kmeans")
    with pytest.raises(ValueError, match="got 0 to learn from"):
        measure(model, find_examples([photos], masks).examples, [merged], failed=said.append)
    assert len(said) == 4 and "p0.png: merge 'kmeans' takes at most 0 superpixels" in said[1]


def test_every_photo_is_scored_by_the_choice_of_the_others():
    """CLEAN is best on the first photo alone, by so much that it is best on all; HOLES on the other two."""
    found = trials([[50, 50, 50], [100, 52, 52], [50, 60, 60]], [NONE, CLEAN, HOLES])
    assert found.best() == 1
    validated = found.cross_validated().confusion[:, 0, 0]
    assert validated.tolist() == [50, 52, 52]  # HOLES on the first; CLEAN on both others, because of the first


def test_neighbours_among_many_photos_have_no_say_in_each_others_choice():
    """Ten parts of two: CLEAN is far better on the first two photos, which may well show one person."""
    found = trials([[50] * 20, [100, 100, *[49] * 18]], [NONE, CLEAN])
    assert found.best() == 1
    assert found.cross_validated().confusion[:, 0, 0].tolist() == [50, 50, *[49] * 18]


def test_a_gain_that_hangs_on_one_photo_is_not_taken():
    labels = LabelSet.custom(2)
    lucky = conclude(trials([[50] * 6, [99, 49, 49, 49, 49, 49]], [NONE, CLEAN]), labels)
    assert lucky["best"] == {"min_region_px": 400} and not lucky["taken"] and lucky["share"] < 0.9
    sure = conclude(trials([[50] * 6, [60] * 6], [NONE, CLEAN]), labels)
    assert sure["taken"] and sure["share"] == 1 and sure["photos"] == 6 and sure["settings_tried"] == 2
    assert conclude(trials([[50] * 6, [60] * 6], [NONE, CLEAN]), labels, share=1)["taken"]  # all draws are enough
    assert sure["scores"]["best"] == sure["scores"]["cross_validated"]
    assert sure["scores"]["none"] == {"miou": 0.58333, "pixel_accuracy": 0.75, "boundary_f": 0.5}
    assert list(sure["iou"].values()) == [[0.5, 0.6], [0.66667, 0.71429]]
    same = conclude(trials([[50] * 6, [50] * 6], [NONE, CLEAN]), labels)
    assert not same["taken"] and same["best"] == {} and same["share"] == 0.5


def test_labels_that_vanish_are_named():
    """Both settings find all of label 0; of 40 pixels that were called 1 the second leaves 19."""
    before, after = [[60, 40], [0, 0]], [[81, 19], [0, 0]]
    found = Trials([NONE, CLEAN], np.array([[before] * 2, [after] * 2]), np.full((2, 2), np.nan))
    result = conclude(found, LabelSet.custom(["ground", "hat"]))
    assert result["vanished"] == ["hat"] and result["scores"]["none"]["boundary_f"] is None
    assert json.loads(json.dumps(result)) == result


def test_a_label_that_no_photo_shows_has_no_say():
    """The second setting finds less of both labels there are, and no more of the third, which is nowhere."""
    before = [[90, 7, 3], [10, 90, 0], [0, 0, 0]]
    after = [[80, 20, 0], [20, 80, 0], [0, 0, 0]]
    found = Trials([NONE, CLEAN], np.array([[before] * 4, [after] * 4]), np.full((2, 4), np.nan))
    result = conclude(found, LabelSet.custom(["ground", "hat", "scarf"]))
    assert found.best() == 0 and result["absent"] == ["scarf"] and not result["taken"]
    assert result["scores"]["none"]["miou"] == round((90 / 110 + 90 / 107) / 2, 5)
    assert result["iou"]["scarf"] == [0.0, 0.0]


def test_a_damaged_photo_is_left_out_and_one_is_not_enough(folders, model):
    photos, masks = folders
    examples = find_examples([photos], masks).examples
    (photos / "p0.png").write_bytes(b"no photo")
    said: list[str] = []
    found = measure(model, examples, [CLEAN, NONE, CLEAN], failed=said.append)
    assert found.settings == [NONE, CLEAN] and found.confusion.shape == (2, 3, 2, 2)
    assert len(said) == 1 and "p0.png" in said[0]
    with pytest.raises(ValueError, match=r"two photos with masks.*got 1"):
        measure(model, examples[:1], [CLEAN], failed=said.append)
    assert isinstance(found.of(1), PhotoScores)
    rows = found.rows()
    assert [row["settings"] for row in rows] == [{}, {"min_region_px": 400}] and rows[1]["miou"] > rows[0]["miou"]


def test_what_is_tried_is_valid_and_never_twice():
    for labels, count in ((PERSON, 340), (LabelSet.custom(5), 336)):
        every = candidates(labels)
        assert len(set(every)) == len(every) == count and every[0] == NONE


def test_the_real_default_gains_on_the_astronaut(astronaut, tmp_path, monkeypatch):
    """Masks that were made with settings: the same settings are found, of some."""
    person = hubmodels.load("u2net_small_person")
    wanted = Refinement(min_region_px=400, keep_largest=True, person_threshold=0.7)
    for index, part in enumerate((astronaut[:320, :256], astronaut[:320, 100:356])):
        save(tmp_path / "photos", f"{index}.png", part)
        person.predict(part, refinement=wanted).save(tmp_path / "masks" / f"{index}.png")
    examples = find_examples([tmp_path / "photos"], tmp_path / "masks").examples
    found = measure(person, examples, [CLEAN, wanted, Refinement(crf_iterations=1)], failed=pytest.fail)
    result = conclude(found, person.labels)
    assert result["best"] == wanted.changes() and result["scores"]["best"]["miou"] == 1 and result["taken"]
