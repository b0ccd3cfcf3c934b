"""Labels that a photo is known not to show: from one array to commands and files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from hubmodels import FASHION, LabelSet, Refinement, Segmenter
from hubmodels.absent import ids_of_absent, leave_out_, names_of_absent
from hubmodels.refine import Tuner, refine
from hubmodels.refine.region_classifier import RegionClassifier, RegionSettings
from hubmodels.refine.settings import MERGES, METHODS, VOTES
from tests.fixed_network import Fixed
from training.evaluate import absent_labels

DRESS, HAIR = FASHION.id_of("dress"), FASHION.id_of("hair")


@pytest.fixture
def portrait(astronaut: np.ndarray) -> np.ndarray:
    """(256, 256, 3) uint8, with hair, skin and more."""
    return astronaut[:256, 100:356].copy()


def three(logits: list[float]) -> Segmenter:
    return Segmenter(Fixed(logits), LabelSet.custom(["none", "hat", "bag"]), name="three", input_px=64).eval()


def test_the_other_labels_share_as_a_softmax_over_them_would(small):
    seg = three([0.5, 1.0, 3.0]).predict(small, absent=["bag"])
    assert_allclose(seg.probs[:, 5, 5], [*torch.softmax(torch.tensor([0.5, 1.0]), 0), 0], rtol=1e-6)
    assert (seg.labels == 1).all()
    assert (three([0.5, 1.0, 3.0]).predict(small).labels == 2).all()


def test_pixels_of_which_nothing_else_is_known_become_background():
    probs = np.array([[[0.0, 0.2]], [[0.0, 0.3]], [[1.0, 0.5]]], np.float32)
    assert leave_out_(probs, [2]) is probs
    assert_allclose(probs, [[[1, 0.4]], [[0, 0.6]], [[0, 0]]], rtol=1e-6)


def test_a_network_that_is_sure_of_an_absent_label_still_says_what_is_next(small):
    """The others have next to no probability in float32, and it says which of them is likelier."""
    seg = three([0.0, 1.0, 60.0]).predict(small, absent=["bag"])
    assert_allclose(seg.probs[:, 0, 0], [*torch.softmax(torch.tensor([0.0, 1.0]), 0), 0], rtol=1e-5)


def test_nothing_absent_changes_no_bit(fashion, portrait):
    plain = fashion.predict(portrait)
    assert_array_equal(fashion.predict(portrait, absent=[]).probs, plain.probs)
    tuner = fashion.tune(portrait)
    assert tuner.without([]) is tuner


@pytest.mark.parametrize("vote", VOTES)
def test_no_stage_brings_an_absent_label_back(fashion, portrait, vote):
    settings = Refinement(
        crf_iterations=3,
        crf_appearance_weight=50,
        superpixel_scale=40,
        merge="cut",
        vote=vote,
        min_region_px=300,
        fill_holes_px=300,
    )
    assert fashion.predict(portrait, refinement=settings).mask("hair").any()
    for absent in (["hair"], ["hair", "skin", "dress"], list(FASHION.names[2:])):
        seg = fashion.predict(portrait, refinement=settings, absent=absent)
        for name in absent:
            assert not seg.mask(name).any() and not seg.probs[FASHION.id_of(name)].any()
        assert_allclose(seg.probs.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("setting", [{"superpixel_method": each} for each in METHODS] + [{"merge": m} for m in MERGES])
def test_a_tuner_without_labels_is_as_one_that_never_had_them(fashion, portrait, setting):
    tuner, settings = fashion.tune(portrait), Refinement(crf_iterations=1, superpixel_scale=30, **setting)
    before = tuner.refine(settings)
    without = tuner.without(["hair", "dress"]).refine(settings)
    fresh = fashion.predict(portrait, refinement=settings, absent=("dress", "hair"))
    assert_array_equal(without.labels, fresh.labels)
    assert_array_equal(without.probs, fresh.probs)
    assert_array_equal(tuner.refine(settings).probs, before.probs)  # what it had is left as it was


def test_a_classifier_of_regions_cannot_choose_what_no_pixel_has(rng):
    settings = RegionSettings("felzenszwalb", 100.0, ("background", "one", "two"))
    classifier = RegionClassifier(settings).eval()
    torch.nn.init.constant_(classifier.correction[-1].bias, 0)
    with torch.no_grad():
        classifier.correction[-1].bias[1] = 1000.0  # it would always say "one"
    probs = rng.dirichlet(np.ones(3), (20, 30)).transpose(2, 0, 1).astype(np.float32)
    image, segments = rng.integers(0, 256, (20, 30, 3), np.uint8), np.arange(20)[:, None].repeat(30, 1) // 5
    assert (classifier.vote(image, segments, probs) == 1).all()
    probs[:, 0, 0] = (0.5, 0, 0.5)  # one pixel without it is not all of them
    assert (classifier.vote(image, segments, probs) == 1).all()
    assert not (classifier.vote(image, segments, leave_out_(probs, [1])) == 1).any()


def test_the_crf_leaves_zeros_of_probabilities_that_are_given(rng):
    probs = rng.dirichlet(np.ones(3), (24, 20)).transpose(2, 0, 1).astype(np.float32)
    probs[:, 0, 0] = (0.5, 0, 0.5)  # only this pixel: the label is there
    image = rng.integers(0, 256, (24, 20, 3), np.uint8)
    assert refine(probs, image, Refinement(crf_iterations=2))[1][1].any()
    _, sharpened = Tuner(leave_out_(probs, [1]), image).refine(Refinement(crf_iterations=2))
    assert not sharpened[1].any()


@pytest.mark.parametrize(
    ("absent", "error", "message"),
    [
        ("dress", TypeError, r"list of label names, such as \['dress'\]; got 'dress'"),
        (3, TypeError, "list of label names"),
        (["hat"], ValueError, "no label 'hat' in task 'fashion'; expected one of: background, skin"),
        (["dress", "background"], ValueError, "may not name background"),
        (FASHION.names[1:], ValueError, "leaves none of skin, hair"),
    ],
    ids=["text", "number", "unknown", "background", "all"],
)
def test_what_cannot_be_left_out_is_refused_before_the_network_runs(
    fashion, small, monkeypatch, absent, error, message
):
    tuner = fashion.tune(small)
    monkeypatch.setattr(Segmenter, "probabilities", None)
    for call in (fashion.tune, fashion.predict):
        with pytest.raises(error, match=message):
            call(small, absent=absent)
    with pytest.raises(error, match=message):
        tuner.without(absent)


def test_labels_left_out_one_by_one_are_refused_as_those_left_out_at_once(fashion, small):
    names = FASHION.names[1:]
    for tuner in (fashion.tune(small, absent=names[:3]), fashion.tune(small).without(names[:1]).without(names[1:3])):
        assert tuner.without([]).without(names[3:5]) is not None
        with pytest.raises(ValueError, match="absent leaves none of skin"):
            tuner.without(names[3:])


def test_names_may_repeat_and_come_in_any_order():
    assert ids_of_absent(FASHION, ["dress", "hair", "dress"]) == (HAIR, DRESS)
    assert names_of_absent(FASHION, {"dress", "hair"}) == ("hair", "dress")


def test_of_a_person_nothing_can_be_left_out(person, small):
    with pytest.raises(ValueError, match="leaves none of person"):
        person.predict(small, absent=["person"])


def test_what_a_mask_does_not_show_is_known_from_its_ids():
    truth = np.array([[0, 1, 255], [6, 6, 3]])
    assert absent_labels(truth, FASHION) == ["hair", "shoes", "pants"]
    assert absent_labels(np.zeros((2, 2)), FASHION) == []  # a photo of nobody
