"""Settings, the fixed order of stages, and what the tuner remembers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hubmodels.refine
from hubmodels import Refinement
from hubmodels.refine import Tuner, clean_regions, refine, superpixels, vote


@pytest.fixture
def probs(rng, astronaut) -> np.ndarray:
    """(3, 600, 400) noisy probabilities that follow the photo's brightness."""
    grey = np.resize(astronaut.mean(2) / 255, (600, 400))
    logits = np.stack([grey, 1 - grey, np.full_like(grey, 0.4)]) * 4 + rng.normal(0, 0.5, (3, 600, 400))
    return (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)


@pytest.fixture
def photo(astronaut) -> np.ndarray:
    return np.ascontiguousarray(np.resize(astronaut, (600, 400, 3)))


def test_off_is_the_argmax_of_the_probabilities_bit_for_bit(probs, photo):
    assert_array_equal(refine(probs, photo, Refinement()), probs.argmax(0))


def test_stages_run_in_the_documented_order(probs, photo):
    labels = refine(probs, photo, Refinement(superpixel_scale=80, min_region_px=300))
    voted = vote(probs, superpixels(photo, scale=80))
    assert_array_equal(labels, clean_regions(voted, min_region_px=300))


def test_region_size_grows_with_the_photos_area(probs, photo):
    """Four times the pixels: the same setting absorbs regions of four times the size."""
    large = np.kron(probs, np.ones((1, 2, 2), np.float32))
    settings = Refinement(min_region_px=200)
    small_result = refine(probs, photo, settings)
    large_result = refine(large, np.kron(photo, np.ones((2, 2, 1), np.uint8)), settings)
    assert_array_equal(large_result, np.kron(small_result, np.ones((2, 2), np.uint8)))


def test_a_slider_recomputes_only_what_depends_on_it(probs, photo, monkeypatch):
    calls = []
    real = hubmodels.refine.superpixels
    monkeypatch.setattr(hubmodels.refine, "superpixels", lambda *a, **k: calls.append(1) or real(*a, **k))
    tuner = Tuner(probs, photo)
    for size in (0, 100, 200):
        tuner.labels(Refinement(superpixel_scale=80, min_region_px=size))
    assert len(calls) == 1
    tuner.labels(Refinement(superpixel_scale=90))
    assert len(calls) == 2


def test_what_the_tuner_keeps_is_bounded(probs, photo):
    tuner = Tuner(probs, photo, cached_segmentations=2)
    for scale in (500, 600, 700):
        tuner.labels(Refinement(superpixel_scale=scale))
    assert len(tuner._segments._items) == len(tuner._votes._items) == 2


def test_settings_survive_json():
    settings = Refinement(superpixel_scale=120.5, min_region_px=40)
    assert Refinement.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    "values, error, message",
    [
        ({"superpixel_scale": -1}, ValueError, "0..10000"),
        ({"min_region_px": 1_000_000}, ValueError, "0..240000"),
        ({"min_region_px": 2.5}, ValueError, "whole number"),
        ({"superpixel_scale": float("nan")}, ValueError, "nan"),
        ({"superpixel_scale": "100"}, TypeError, "got str"),
        ({"min_region_px": True}, TypeError, "got bool"),
        ({"min_regoin_px": 3}, ValueError, "min_regoin_px"),
        ({"schema_version": 99}, ValueError, "version 99"),
    ],
)
def test_wrong_settings_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        Refinement.from_dict(values)


def test_a_photo_of_another_size_is_refused(probs, photo):
    with pytest.raises(ValueError, match="size of probs"):
        refine(probs, photo[:-1], Refinement())
