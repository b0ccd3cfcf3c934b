"""The fixed order of stages, and what the tuner remembers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import hubmodels.refine.tuner
from hubmodels import Refinement
from hubmodels.errors import RegionsError
from hubmodels.labels import LabelSet
from hubmodels.refine import (
    SETTINGS,
    DenseCRF,
    PreparedSuperpixels,
    RegionClassifier,
    RegionGraph,
    Tuner,
    clean_regions,
    refine,
    superpixels,
    vote,
)
from hubmodels.refine.region_classifier import RegionSettings
from hubmodels.refine.stopwatch import Stopwatch
from hubmodels.segmenter import PhotoTuner


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
    labels, after = refine(probs, photo, Refinement())
    assert_array_equal(labels, probs.argmax(0))
    assert after is probs


def test_stages_run_in_the_documented_order(probs, photo):
    labels, after = refine(probs, photo, Refinement(crf_iterations=2, superpixel_scale=80, min_region_px=300))
    with torch.inference_mode():
        batch, photos = torch.tensor(probs)[None], torch.tensor(photo)[None]
        sharpened = DenseCRF(iterations=2).refine_probs(batch, photos)[0].numpy()
    assert_allclose(after, sharpened, atol=1e-5)  # float32, and the layer normalises once more
    voted = vote(after, superpixels(photo, scale=80))
    assert_array_equal(labels, clean_regions(voted, min_region_px=300))


@pytest.mark.parametrize(
    "settings", [Refinement(min_region_px=200), Refinement(fill_holes_px=200)], ids=["regions", "holes"]
)
def test_sizes_grow_with_the_photos_area(probs, photo, settings):
    """Four times the pixels: the same setting absorbs regions, and fills holes, of four times the size."""
    large = np.kron(probs, np.ones((1, 2, 2), np.float32))
    small_result, _ = refine(probs, photo, settings)
    large_result, _ = refine(large, np.kron(photo, np.ones((2, 2, 1), np.uint8)), settings)
    assert_array_equal(large_result, np.kron(small_result, np.ones((2, 2), np.uint8)))


STAGES = {  # what the log says -> where the stage is called
    "crf": (Tuner, "_run_crf"),
    "prepare": (PreparedSuperpixels, "__init__"),
    "superpixels": (PreparedSuperpixels, "segments"),
    "graph": (RegionGraph, "__init__"),
    "merge": (RegionGraph, "cut"),
    "vote": (hubmodels.refine.tuner, "vote"),
    "clean": (hubmodels.refine.tuner, "clean_regions"),
}


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the stages in the order in which they run."""
    log: list[str] = []
    for stage, (owner, name) in STAGES.items():
        real = getattr(owner, name)

        def spy(*args, _real=real, _stage=stage, **kwargs):
            log.append(_stage)
            return _real(*args, **kwargs)

        monkeypatch.setattr(owner, name, spy)
    return log


def test_a_slider_recomputes_only_what_depends_on_it(probs, photo, calls):
    tuner = Tuner(probs, photo)
    for change, expected in (
        ({}, ["prepare", "superpixels", "vote", "clean"]),
        ({}, []),
        ({"min_region_px": 100}, ["clean"]),
        ({"fill_holes_px": 50}, ["clean"]),
        ({"min_region_px": 100}, []),  # back again
        ({"crf_iterations": 1}, ["crf", "vote", "clean"]),
        ({"crf_iterations": 0}, []),
        ({"crf_iterations": 0, "crf_appearance_weight": 5}, []),  # of a stage that is off
        ({"crf_iterations": 1, "superpixel_scale": 90}, ["superpixels", "vote", "clean"]),
        ({"superpixel_sigma": 1.0}, ["prepare", "superpixels", "vote", "clean"]),
        ({"merge": "cut"}, ["graph", "merge", "vote", "clean"]),  # these superpixels are remembered
        ({"merge": "cut", "merge_threshold": 5}, ["merge", "vote", "clean"]),
        ({"merge": "cut", "merge_threshold": 5, "merge_clusters": 9}, []),  # of another way to merge
        ({"merge": "cut", "merge_threshold": 5, "vote": "majority"}, ["vote", "clean"]),
        ({"merge": "cut", "keep_confident": 0.9}, ["vote", "clean"]),
        ({"superpixel_scale": 0, "min_region_px": 9}, ["clean"]),
    ):
        calls.clear()
        tuner.refine(Refinement(**{"superpixel_scale": 80, **change}))
        assert calls == expected, change


CRF, CUT_UP = {"crf_iterations": 2}, {"superpixel_scale": 80}
CUT_UP_PERSON = {**CUT_UP, "superpixel_foreground": True}
CHANGES = [  # a setting, others under which it matters, and another value of it
    ("crf_iterations", CRF, 4),
    ("crf_iterations", CRF | CUT_UP_PERSON, 4),
    ("crf_appearance_weight", CRF, 8.0),
    ("crf_appearance_sigma_px", CRF, 30.0),
    ("crf_appearance_sigma_colour", CRF, 20.0),
    ("crf_smoothness_weight", CRF, 1.0),
    ("crf_smoothness_sigma_px", CRF, 8.0),
    ("person_threshold", {}, 0.3),
    ("person_threshold", CUT_UP_PERSON, 0.3),
    ("superpixel_scale", CUT_UP, 200.0),
    ("superpixel_method", CUT_UP, "watershed"),
    ("superpixel_sigma", CUT_UP, 3.0),
    ("superpixel_min_size_px", CUT_UP, 600),
    ("superpixel_foreground", CUT_UP, True),
    ("merge", CUT_UP, "cut"),
    ("merge", {**CUT_UP, "merge": "cut", "merge_threshold": 20.0}, "hierarchical"),
    ("merge_threshold", {**CUT_UP, "merge": "cut"}, 20.0),
    ("merge_threshold", {**CUT_UP, "merge": "hierarchical"}, 20.0),
    ("merge_clusters", {**CUT_UP, "merge": "kmeans"}, 5),
    ("vote", CUT_UP, "majority"),
    ("keep_confident", CUT_UP, 0.7),
    ("min_region_px", {}, 300),
    ("fill_holes_px", {}, 300),
    ("keep_largest", {}, True),
    ("connectivity", {"min_region_px": 300}, 8),
]


def test_every_setting_is_changed():
    assert {name for name, *_ in CHANGES} == set(SETTINGS)


@pytest.mark.parametrize("name, others, value", CHANGES)
def test_a_tuner_that_was_used_answers_a_changed_setting_as_a_fresh_one(astronaut, rng, name, others, value):
    """So no stage is remembered by less than it depends on."""
    photo = np.asarray(Image.fromarray(astronaut[:384, 100:356]).resize((64, 96), Image.Resampling.BOX))
    grey = photo.mean(2) / 255
    logits = np.stack([grey, 1 - grey, np.full_like(grey, 0.4)]) * 4 + rng.normal(0, 0.5, (3, 96, 64))
    probs = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    if name == "person_threshold":
        probs = np.stack([probs[0], probs[1] + probs[2]])
    tuner = Tuner(probs, photo)
    before, _ = tuner.refine(Refinement(**others))
    labels, after = tuner.refine(changed := Refinement(**others | {name: value}))
    assert (labels != before).any()  # else a remembered answer would be right by chance
    expected, probs_expected = Tuner(probs, photo).refine(changed)
    assert_array_equal(labels, expected)
    assert_array_equal(after, probs_expected)


def test_superpixels_of_the_foreground_never_cross_its_outline(probs, photo):
    tuner = Tuner(probs, photo)
    settings = Refinement(superpixel_scale=300, superpixel_foreground=True, merge="cut", merge_threshold=60)
    background = probs.argmax(0) == 0
    assert 0 < background.mean() < 1
    segments = tuner.superpixels(settings)
    assert not set(np.unique(segments[background])) & set(np.unique(segments[~background]))
    labels, _ = tuner.refine(settings)
    assert (labels[background] == 0).all()  # one superpixel, and background is what it votes for


def test_a_vote_by_classifier_is_the_classifiers(probs, photo):
    settings = RegionSettings(method="felzenszwalb", scale=80.0, labels=("background", "one", "two"))
    tuner = Tuner(probs, photo, region_classifier=lambda: RegionClassifier(settings).eval())
    by_classifier, _ = tuner.refine(Refinement(superpixel_scale=80, vote="classifier"))
    assert_array_equal(by_classifier, tuner.refine(Refinement(superpixel_scale=80))[0])  # untrained: as the vote
    sure, _ = tuner.refine(Refinement(superpixel_scale=80, vote="classifier", keep_confident=0.001))
    assert_array_equal(sure, probs.argmax(0))
    with pytest.raises(ValueError, match="needs a model with a region classifier"):
        Tuner(probs, photo).refine(Refinement(superpixel_scale=80, vote="classifier"))


@pytest.mark.parametrize("merge", ["cut", "hierarchical", "kmeans"])
def test_merged_superpixels_vote_together(probs, photo, merge):
    tuner = Tuner(probs, photo)
    settings = Refinement(superpixel_scale=80, merge=merge, merge_threshold=20, merge_clusters=5)
    alone = tuner.superpixels(Refinement(superpixel_scale=80))
    merged = tuner.superpixels(settings)
    assert 1 < merged.max() < alone.max()
    assert_array_equal(tuner.refine(settings)[0], vote(probs, merged))


@pytest.mark.parametrize("merge", ["hierarchical", "kmeans"])
def test_more_superpixels_than_can_be_merged_in_seconds_are_refused(probs, photo, merge, monkeypatch):
    probs, photo = probs[:, :120], photo[:120]
    settings = Refinement(superpixel_scale=10, superpixel_min_size_px=5, merge=merge)
    count = int(Tuner(probs, photo).superpixels(dataclasses.replace(settings, merge="off")).max()) + 1
    for limit, fits in ((count, True), (count - 1, False)):
        monkeypatch.setattr("hubmodels.refine.tuner.MERGEABLE", limit)
        with nullcontext() if fits else pytest.raises(RegionsError, match=f"got {count:,}: raise superpixel_scale"):
            Tuner(probs, photo).refine(settings)
    Tuner(probs, photo).refine(dataclasses.replace(settings, merge="cut"))


def test_a_threshold_needs_two_labels(probs, photo):
    with pytest.raises(ValueError, match="needs two labels; got 3"):
        Tuner(probs, photo).refine(Refinement(person_threshold=0.4))
    two = np.stack([probs[0] + probs[2], probs[1]])
    labels, _ = Tuner(two, photo).refine(Refinement(person_threshold=0.4))
    assert_array_equal(labels, two[1] > 0.4)


def test_a_threshold_decides_for_superpixels_and_for_sure_pixels(probs, photo):
    two, photo = np.stack([probs[0] + probs[2], probs[1]])[:, :200], photo[:200]
    settings = RegionSettings(method="felzenszwalb", scale=80.0, labels=("background", "person"))
    tuner = Tuner(two, photo, region_classifier=lambda: RegionClassifier(settings).eval())
    moved = Refinement(superpixel_scale=80, person_threshold=0.4)
    voted = vote(two, superpixels(photo, scale=80), threshold=0.4)
    assert_array_equal(tuner.refine(moved)[0], voted)
    assert (voted != tuner.refine(Refinement(superpixel_scale=80))[0]).any()
    for kind in ("probability", "classifier"):
        own, _ = tuner.refine(dataclasses.replace(moved, vote=kind, keep_confident=0.001))
        assert_array_equal(own, two[1] > 0.4)


def test_results_are_read_only_because_they_are_shared(probs, photo):
    tuner = Tuner(probs, photo)
    answers = [tuner.refine(Refinement(crf_iterations=1, min_region_px=9)), tuner.refine(Refinement())]
    for array in (*answers[0], *answers[1], tuner.probs, tuner.superpixels(Refinement(superpixel_scale=80))):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert np.shares_memory(answers[1][1], probs)  # it is large, and not copied
    probs[:] = 0  # still the caller's to write to


@pytest.mark.parametrize("iterations", [0, 1])
def test_what_is_refined_once_is_the_callers_to_write_to(probs, photo, iterations):
    before = probs.copy()
    labels, after = refine(probs, photo, Refinement(crf_iterations=iterations, superpixel_scale=80, min_region_px=9))
    labels[:] = 0
    assert (after is probs) == (iterations == 0)
    after[:] = 1
    assert_array_equal(probs, before if iterations else after)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda tuner: pickle.loads(pickle.dumps(tuner))])
def test_copies_of_a_tuner_answer_the_same_and_remember_nothing(probs, photo, copied):
    settings = Refinement(crf_iterations=1, superpixel_scale=80, min_region_px=9)
    labels = LabelSet.custom(["background", "one", "two"])
    for tuner in (Tuner(probs, photo), PhotoTuner(Tuner(probs, photo), labels)):
        expected = tuner.refine(settings)
        other = copied(tuner)
        inner = getattr(other, "_tuner", other)
        assert len(inner._votes) == len(inner._crfs) == 0
        answers = [other.refine(settings), expected]
        if isinstance(other, PhotoTuner):
            answers = [(each.labels, each.probs) for each in answers]
        for got, wanted in zip(*answers, strict=True):
            assert_array_equal(got, wanted)
        with pytest.raises(ValueError, match="read-only"):
            inner.probs[:] = 0


def test_threads_may_share_a_tuner(probs, photo):
    tuner = Tuner(probs, photo)
    wanted = [Tuner(probs, photo).refine(Refinement(superpixel_scale=scale))[0] for scale in (60, 200)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: tuner.refine(Refinement(superpixel_scale=(60, 200)[n % 2]))[0], range(12)))
    for number, labels in enumerate(answers):
        assert_array_equal(labels, wanted[number % 2])


def test_what_the_tuner_keeps_is_bounded(probs, photo):
    tuner = Tuner(probs, photo)
    for number in range(hubmodels.refine.tuner.KEPT_RESULTS + 2):
        tuner.refine(Refinement(superpixel_scale=500 + number, crf_iterations=1 + number))
    kept = {len(memory) for memory in (tuner._segments, tuner._votes, tuner._sharpened, tuner._cleaned)}
    assert kept == {hubmodels.refine.tuner.KEPT_RESULTS}
    assert len(tuner._crfs) == len(tuner._kernels) == len(tuner._prepared) == 1
    (crf,) = tuner._crfs._items.values()
    assert len(crf.kept_iterations) <= 1 + hubmodels.refine.tuner.KEPT_CRF_STATES


def test_other_float_types_and_views_give_what_float32_gives(probs, photo):
    small, image = probs[:, :30, :20], photo[:30, :20]
    hard = np.eye(3, dtype=np.float32)[small.argmax(0)].transpose(2, 0, 1)  # with zeros, which no logarithm takes
    for settings in (Refinement(), Refinement(crf_iterations=2, superpixel_scale=20, min_region_px=100)):
        for dtype in (np.float16, np.float64):
            labels, after = refine(hard.astype(dtype), image, settings)
            expected, as_float32 = refine(hard, image, settings)
            assert after.dtype == np.float32
            assert_array_equal(labels, expected)
            assert_array_equal(after, as_float32)
        for view in ((slice(None), slice(None, None, -1)), (slice(None, None, -1),)):
            labels, after = refine(small[:, *view], image[view], settings)
            expected, of_copies = refine(small[:, *view].copy(), image[view].copy(), settings)
            assert_array_equal(labels, expected)
            assert_array_equal(after, of_copies)


@pytest.mark.parametrize("size", [(3, 30), (30, 3), (3, 3), (1, 1)], ids=str)
def test_the_crf_takes_small_photos_as_they_stand(probs, photo, size):
    height, width = size
    small, image = probs[:, :height, :width], photo[200 : 200 + height, 200 : 200 + width]
    _, after = refine(small, image, Refinement(crf_iterations=2))
    with torch.inference_mode():
        channels_first = torch.tensor(image).permute(2, 0, 1)[None]
        expected = DenseCRF(iterations=2).refine_probs(torch.tensor(small)[None], channels_first)[0].numpy()
    assert_allclose(after, expected, atol=1e-5)  # float32, and the layer normalises once more


def test_a_photo_of_another_size_is_refused(probs, photo):
    with pytest.raises(ValueError, match="size of probs"):
        refine(probs, photo[:-1], Refinement())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, i: (p, i / 255), "image must be uint8 sRGB; got float64: multiply shares of 1 by 255"),
        (lambda p, i: (p, i.astype(np.uint16)), "image must be uint8 sRGB; got uint16"),
        (lambda p, i: (torch.from_numpy(p), i), "must be NumPy arrays; got Tensor and ndarray"),
        (lambda p, i: (p[:, :0], i[:0]), r"none of them 0; got \(0, 400, 3\), \(3, 0, 400\)"),
        (lambda p, i: (p.astype(complex), i), r"probs must be floating-point shares in 0\.\.1; got complex128"),
    ],
    ids=["float", "uint16", "tensor", "empty", "complex"],
)
def test_arrays_of_another_kind_are_refused_whatever_is_turned_on(probs, photo, change, message):
    with pytest.raises(ValueError, match=message):
        Tuner(*change(probs, photo))


def test_the_time_of_each_stage_is_told_once(probs, photo):
    tuner = Tuner(probs, photo)
    settings = Refinement(crf_iterations=1, superpixel_scale=50, merge="cut", min_region_px=20)
    *_, seconds = tuner.refine_timed(settings)
    assert set(seconds) == {"crf", "superpixels", "merge", "vote", "clean-up"} and min(seconds.values()) > 0
    assert set(tuner.refine_timed(dataclasses.replace(settings, min_region_px=30))[2]) == {"clean-up"}
    assert tuner.refine_timed(settings)[2] == {}
    tuner.superpixels(Refinement(superpixel_scale=60))
    assert len(seconds) == 5  # what was told stays


def test_the_superpixels_that_vote_can_be_seen(probs, photo):
    tuner = Tuner(probs, photo)
    settings = Refinement(superpixel_scale=50)
    assert_array_equal(tuner.superpixels(settings), superpixels(photo, scale=50))
    with pytest.raises(ValueError, match="superpixel_scale"):
        tuner.superpixels(Refinement())


def test_nested_stages_are_counted_for_themselves(monkeypatch):
    ticks = iter([100, 101, 103, 110, 114, 130])  # outer begins, inner twice, outer ends
    monkeypatch.setattr("hubmodels.refine.stopwatch.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    watch = Stopwatch()
    with watch.stage("outer"):
        for _ in range(2):
            with watch.stage("inner"):
                pass
    assert list(watch.seconds.items()) == [("inner", 2 + 4), ("outer", 30 - 6)]


def test_numbers_that_are_none_are_refused_with_and_without_a_crf(probs, photo):
    probs[:, 3, 3] = np.nan
    for settings in (Refinement(), Refinement(crf_iterations=1)):
        with pytest.raises(ValueError, match="finite"):
            refine(probs, photo, settings)


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize(
    "change",
    [lambda p: 4 * p - 1, np.log, lambda p: p * 0.99, lambda p: p + np.array([-2, 1, 1], "f4")[:, None, None]],
    ids=["stretched", "logits", "too little", "below zero"],
)
def test_what_are_no_probabilities_is_refused_with_and_without_a_crf(probs, photo, change, iterations):
    for values in (change(probs), change(probs)[:, ::-1]):
        with pytest.raises(ValueError, match=r"in 0\.\.1 and sum to 1 over axis 0; got .*: apply softmax over classes"):
            refine(values, photo, Refinement(crf_iterations=iterations))


def test_probabilities_are_prepared_for_the_crf_once(probs, photo, monkeypatch):
    tuner = Tuner(probs, photo)
    tuner.refine(Refinement(crf_iterations=1))
    monkeypatch.setattr(DenseCRF, "unaries_of_probs", None)
    for change in ({"crf_appearance_weight": 2.0}, {"crf_appearance_sigma_px": 30.0}, {"crf_iterations": 3}):
        labels, sharpened = tuner.refine(Refinement(**{"crf_iterations": 2} | change))
        monkeypatch.undo()
        expected = refine(probs, photo, Refinement(**{"crf_iterations": 2} | change))
        monkeypatch.setattr(DenseCRF, "unaries_of_probs", None)
        assert_array_equal(labels, expected[0])
        assert_array_equal(sharpened, expected[1])
