"""The region classifier: untrained it is the vote, trained it corrects it, and its file is checked."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load, save
from torch import nn

import training.train_regions as module
from hubmodels.errors import WeightsError
from hubmodels.labels import FASHION, PERSON
from hubmodels.metrics import IGNORE, Scores
from hubmodels.refine import vote
from hubmodels.refine.region_classifier import RegionClassifier, RegionSettings, load_region_classifier
from hubmodels.refine.region_features import feature_names, region_features
from hubmodels.segmenter import Segmenter
from tests.conftest import grid
from tests.drawn_data import draw_data
from training.train_regions import (
    Options,
    Photo,
    confusion,
    evaluate,
    loss_of,
    main,
    region_counts,
    run,
    shaken,
    train_epochs,
    train_on_train,
    train_on_val,
)

SETTINGS = RegionSettings("felzenszwalb", 100.0, FASHION.names)
PERSONS = RegionSettings("felzenszwalb", 1000.0, PERSON.names)
SHORT = Options(epochs=30, lr=0.02, batch_regions=512, hidden=16, dropout=0.0)


def example(rng: np.random.Generator, classes: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise: photo, segments and probabilities of 20x30 pixels."""
    segments = np.unique(rng.integers(0, 15, (20, 30)), return_inverse=True)[1].reshape(20, 30)
    probs = rng.dirichlet(np.full(classes, 0.3), (20, 30)).transpose(2, 0, 1).astype(np.float32)
    return rng.integers(0, 256, (20, 30, 3), np.uint8), segments, probs


def changed(classifier: RegionClassifier, seed: int = 0) -> RegionClassifier:
    """The classifier with random weights and statistics, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for value in classifier.state_dict().values():
        value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return classifier


# ---- the classifier


def test_untrained_it_is_the_vote(rng):
    for _ in range(5):
        image, segments, probs = example(rng)
        assert_array_equal(RegionClassifier(SETTINGS).eval().vote(image, segments, probs), vote(probs, segments))


def test_untrained_logits_are_log_probabilities(rng):
    features = torch.from_numpy(region_features(*example(rng)))
    logits = RegionClassifier(SETTINGS).eval()(features)
    assert_allclose(logits.detach().softmax(1), features[:, -7:], atol=1e-6)


def test_a_label_that_no_pixel_has_a_probability_for_is_no_trouble():
    probs = np.stack([np.ones((2, 2)), np.zeros((2, 2))]).astype(np.float32)
    features = region_features(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), int), probs)
    assert torch.isfinite(RegionClassifier(PERSONS)(torch.from_numpy(features))).all()


def test_one_label_per_region_comes_from_the_logits(rng):
    image, segments, probs = example(rng)
    classifier = changed(RegionClassifier(SETTINGS)).eval()
    chosen = classifier(torch.from_numpy(region_features(image, segments, probs))).argmax(1).numpy()
    labels = classifier.vote(image, segments, probs)
    assert labels.dtype == np.uint8
    assert_array_equal(labels, chosen[segments])
    assert (labels != vote(probs, segments)).any()  # random weights do decide otherwise


def test_features_are_standardised_with_the_regions_weights():
    classifier = RegionClassifier(PERSONS)
    features = torch.zeros(3, len(classifier.features))
    features[:, 0] = torch.tensor([0.0, 10.0, 99.0])
    classifier.standardise(features, torch.tensor([3.0, 1.0, 0.0]))
    assert_allclose(classifier.mean[:2], [2.5, 0])
    assert_allclose(classifier.std[:2], [np.sqrt(0.75 * 2.5**2 + 0.25 * 7.5**2), 1e-3], rtol=1e-6)


def test_wrong_features_and_labels_are_refused(rng):
    image, segments, probs = example(rng, classes=2)
    with pytest.raises(ValueError, match=r"probs must hold 7 labels \(background, .*\); got 2: wrong model"):
        RegionClassifier(SETTINGS).vote(image, segments, probs)
    with pytest.raises(ValueError, match=r"features must be \(R, 27\) for 7 labels; got \(3, 22\): take them from"):
        RegionClassifier(SETTINGS)(torch.zeros(3, 22))


# ---- its file


def test_a_file_gives_the_same_classifier_back(rng, tmp_path):
    path = tmp_path / "c.safetensors"
    original = changed(RegionClassifier(RegionSettings("slic", 50.0, FASHION.names), hidden=8)).eval()
    path.write_bytes(original.to_bytes())
    loaded = load_region_classifier(path)
    assert loaded.settings == original.settings and loaded.hidden == 8 and not loaded.training
    features = torch.from_numpy(region_features(*example(rng)))
    assert torch.equal(loaded(features), original(features))
    assert original.to_bytes() == loaded.to_bytes()


def facts_of(classifier: RegionClassifier) -> dict:
    data = classifier.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["hubmodels"])


def test_the_header_says_what_the_file_is_for():
    facts = facts_of(RegionClassifier(SETTINGS))
    assert facts["settings"] == {"method": "felzenszwalb", "scale": 100.0, "labels": list(FASHION.names)}
    assert facts["features"] == list(feature_names(7))


def with_tensor(key: str, value: torch.Tensor | None):
    def change(tensors, facts):
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value

    return change


def with_fact(key: str, value: object):
    def change(tensors, facts):
        facts[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_tensor("std", None), "1 tensors missing.*std"),
        (with_tensor("more", torch.zeros(1)), "1 unknown.*more"),
        (with_tensor("mean", torch.zeros(3)), r"mean is \(3,\), expected \(27,\)"),
        (with_tensor("mean", torch.zeros(27).int()), r"mean is torch.int32, expected torch.float32"),
        (with_tensor("mean", torch.full((27,), torch.nan)), "mean holds values that are not finite"),
        (with_tensor("std", torch.zeros(27)), "std must be above 0; got 0"),
        (with_fact("format_version", 2), "format version is 2, this release reads 1"),
        (with_fact("features", ["size"]), "made for 1 features.*this release computes 27"),
        (with_fact("hidden", 10**9), "header says 1000000000 hidden values, its tensors differ"),
        (with_tensor("correction.0.bias", torch.tensor(1.0)), "64 hidden values, its tensors differ"),
        (with_fact("hidden", 64.0), "header does not describe"),
        (with_fact("hidden", 1e400), "header does not describe"),
        (with_fact("hidden", True), "header does not describe"),
        (with_fact("settings", {"method": "slic", "scale": "nan", "labels": []}), "header does not describe"),
        (with_fact("settings", {"method": "slic", "scale": 1e400, "labels": []}), "header does not describe"),
        (with_fact("settings", {"method": None, "scale": 1, "labels": []}), "header does not describe"),
        (with_fact("settings", {}), "header does not describe a region classifier"),
        (with_fact("settings", None), "header does not describe a region classifier"),
    ],
)
def test_a_wrong_file_is_refused(change, message):
    classifier = RegionClassifier(SETTINGS)
    tensors, facts = load(classifier.to_bytes()), facts_of(classifier)
    change(tensors, facts)
    data = save(tensors, metadata={"hubmodels": json.dumps(facts)})
    with pytest.raises(WeightsError, match=f"^weights: .*{message}.*; train it again"):
        RegionClassifier.from_bytes(data, what="weights")


def test_a_header_cannot_ask_for_more_memory_than_its_file_has():
    """Two hidden layers of a million values would be terabytes; the file that says so has four megabytes."""
    classifier = RegionClassifier(SETTINGS)
    tensors, facts = load(classifier.to_bytes()), facts_of(classifier)
    width = 1_000_000
    data = save(
        {**tensors, "correction.0.bias": torch.zeros(width)}, {"hubmodels": json.dumps({**facts, "hidden": width})}
    )
    with pytest.raises(WeightsError, match="1000000 hidden values and 7 labels, expected 1024 and 256 at most"):
        RegionClassifier.from_bytes(data)
    labels = [str(index) for index in range(300)]
    wide = {**facts, "features": feature_names(300), "settings": {**facts["settings"], "labels": labels}}
    with pytest.raises(WeightsError, match="64 hidden values and 300 labels"):
        RegionClassifier.from_bytes(save(tensors, {"hubmodels": json.dumps(wide)}))
    with pytest.raises(WeightsError, match="does not describe"):
        RegionClassifier.from_bytes(save(tensors, {"hubmodels": "[" * 100_000 + "]" * 100_000}))


def test_no_classifiers_file_is_refused(tmp_path):
    good = RegionClassifier(SETTINGS).to_bytes()
    for data in (b"", b"not a file", good[:200], good[:-4]):
        with pytest.raises(WeightsError, match="not a safetensors file"):
            RegionClassifier.from_bytes(data)
    tensors = load(good)
    for metadata in (None, {"hubmodels": "{"}, {"hubmodels": "[]"}):
        with pytest.raises(WeightsError, match="does not describe a region classifier"):
            RegionClassifier.from_bytes(save(tensors, metadata=metadata))
    with pytest.raises(WeightsError, match="no such file; make it with"):
        load_region_classifier(str(tmp_path / "missing.safetensors"))


# ---- training


def test_pixels_of_every_label_are_counted_and_ignored_ones_are_not():
    truth, segments = grid("0122", "0100"), grid("0011", "0011")
    truth[1, 3] = IGNORE
    assert_array_equal(region_counts(truth, segments, 3), [[2, 2, 0], [1, 0, 2]])
    assert_array_equal(region_counts(np.full((2, 4), IGNORE, np.uint8), segments, 3), np.zeros((2, 3)))


def test_the_loss_is_that_of_every_pixel(rng):
    truth, segments = rng.integers(0, 3, (6, 5)).astype(np.uint8), rng.integers(0, 4, (6, 5))
    logits = torch.from_numpy(rng.normal(size=(4, 3)))
    pixels = nn.functional.cross_entropy(logits[segments.ravel()], torch.from_numpy(truth.ravel()).long())
    assert_allclose(loss_of(logits, torch.from_numpy(region_counts(truth, segments, 3))), pixels)


def test_the_confusion_of_regions_is_that_of_their_pixels(rng):
    image, segments, probs = example(rng, classes=2)
    truth = rng.integers(0, 2, segments.shape).astype(np.uint8)
    truth[3:5] = IGNORE
    classifier = changed(RegionClassifier(PERSONS)).eval()
    counts = torch.from_numpy(region_counts(truth, segments, 2)).float()
    photo = Photo(torch.from_numpy(region_features(image, segments, probs)), counts)
    scores = Scores(2)
    scores.add(truth, classifier.vote(image, segments, probs), with_boundary=False)
    assert_array_equal(confusion(classifier, [photo]), scores.confusion)


def test_noise_leaves_distributions_and_all_other_features(rng):
    features = torch.from_numpy(region_features(*example(rng)))
    generator = torch.Generator().manual_seed(0)
    assert shaken(features, 7, 0.0, generator) is features
    noisy = shaken(features, 7, 1.0, generator)
    assert_allclose(noisy[:, -7:].sum(1), 1, rtol=1e-5)
    assert (noisy[:, -7:] != features[:, -7:]).all()
    assert_array_equal(noisy[:, :-8], features[:, :-8])
    entropy = -(noisy[:, -7:] * noisy[:, -7:].log()).sum(1)
    assert_allclose(noisy[:, -8], entropy, rtol=1e-4)


def drawn_regions(rng: np.random.Generator, photos: int) -> list[list[Photo]]:
    """Regions of two labels that lightness tells apart and that the probabilities get wrong."""
    made = []
    for _ in range(photos):
        labels = torch.from_numpy(rng.integers(0, 2, 12))
        features = torch.from_numpy(rng.normal(size=(12, len(feature_names(2))))).float()
        features[:, 0] = 40 + 30 * labels
        features[:, -2:] = torch.tensor([0.8, 0.2])
        made.append([Photo(features, 10 * nn.functional.one_hot(labels, 2).float())])
    return made


def share_right(classifier: RegionClassifier, photos: list[list[Photo]]) -> float:
    total = confusion(classifier, [views[0] for views in photos])
    return float(np.trace(total) / total.sum())


def test_training_starts_at_the_vote_and_learns(rng):
    photos = drawn_regions(rng, 20)
    options = dataclasses.replace(SHORT, batch_regions=64)
    scores = [share_right(c, photos) for c in train_epochs([views[0] for views in photos], PERSONS, options)]
    background = sum(float(views[0].counts[:, 0].sum()) for views in photos) / (20 * 120)
    assert len(scores) == options.epochs + 1
    assert scores[0] == pytest.approx(background)  # the vote says background everywhere
    assert scores[-1] == 1


def test_one_seed_trains_one_classifier(rng):
    photos = [views[0] for views in drawn_regions(rng, 6)]
    options = Options(epochs=3, noise=0.5)

    def last() -> bytes:
        return list(train_epochs(photos, PERSONS, options))[-1].to_bytes()

    assert last() == last()


def test_the_best_epoch_on_val_is_kept(rng):
    train, val = drawn_regions(rng, 20), drawn_regions(rng, 5)
    classifier, judges, epoch = train_on_train(train, [views[0] for views in val], PERSONS, SHORT)
    assert share_right(classifier, val) > 0.9 and epoch > 0 and judges == [classifier] * 5
    # Labels swapped in val: whatever is learnt does harm there, so the plain vote is kept.
    other = [Photo(views[0].features, views[0].counts.flip(1)) for views in train]
    _, _, epoch = train_on_train([[photo] for photo in other], [views[0] for views in train], PERSONS, SHORT)
    assert epoch == 0


def test_no_photo_is_judged_by_a_classifier_that_learnt_from_it(rng, monkeypatch):
    photos = drawn_regions(rng, 7)
    seen: dict[bytes, set[int]] = {}
    number = {id(views[0]): index for index, views in enumerate(photos)}

    def recorded(learn, settings, options):
        for classifier in train_epochs(learn, settings, options):
            seen[classifier.to_bytes()] = {number[id(photo)] for photo in learn}
            yield classifier

    monkeypatch.setattr(module, "train_epochs", recorded)
    classifier, judges, epoch = train_on_val(photos, PERSONS, SHORT, folds=3)
    assert epoch > 0 and seen[classifier.to_bytes()] == set(range(7))
    for index, judge in enumerate(judges):
        assert index not in seen[judge.to_bytes()]
        assert len(seen[judge.to_bytes()]) in (4, 5)


class Guess(nn.Module):
    """A network that always slightly prefers the background; it has a parameter, so that it has a device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return torch.cat([0 * x[:, :1] + 0.1, self.scale * x[:, :1]], 1)


@pytest.fixture
def drawn(tmp_path):
    splits = {"train": list(range(1, 7)), "val": list(range(7, 15)), "test": [15, 16]}
    return draw_data(tmp_path / "data", np.random.default_rng(0), count=16, splits=splits)


@pytest.fixture
def guesser():
    return Segmenter(Guess(), PERSON, name="guess", input_px=64).eval()


@pytest.mark.parametrize(("folds", "noise"), [(0, 0.0), (0, 0.5), (4, 0.0)])
def test_colours_make_up_for_a_network_that_guesses(drawn, guesser, folds, noise):
    options = dataclasses.replace(SHORT, noise=noise)
    classifier, report = run(guesser, PERSONS, options, data=drawn, folds=folds, limit=None)
    val = report["val"]
    assert val["images"] == 8 and report["epoch"] > 0 and report["noise"] == noise
    assert val["network"]["iou"]["person"] == val["vote"]["iou"]["person"] == 0
    assert val["regions"]["miou"] > 0.8 > 0.5 > val["vote"]["miou"]
    assert val["regions"]["boundary_f"] > 0.8 > 0.5 > val["vote"]["boundary_f"]
    assert ("folds" in report["learnt_from"]) == bool(folds)
    test = evaluate(guesser, classifier, data=drawn, split="test", limit=None)
    assert test["images"] == 2 and test["regions"]["miou"] > 0.8


def test_mirrored_photos_are_learnt_from_too(drawn, guesser):
    samples = module.load_fashionista(drawn, "train", ["person"])
    for views in module.collect(guesser, samples, PERSONS, keep=True, flips=True):
        assert len(views) == 2 and views[0].segments is not None and views[1].segments is None
        x = feature_names(2).index("x")
        # The drawing has two regions; without a person (the network's guess) places are in the photo.
        assert_allclose(np.sort(views[1].features[:, x]), np.sort(1 - views[0].features[:, x]), atol=0.05)
        assert views[0].counts.sum() == views[1].counts.sum() == 48 * 64


def test_the_command_writes_a_classifier_and_reports(drawn, guesser, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "load_model", lambda name: guesser)
    folders = ["--data", str(drawn), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    main(["guess", "--scale", "1000", "--epochs", "2", "--val-folds", "2", *folders])
    path = tmp_path / "runs/regions_guess/best.safetensors"
    assert load_region_classifier(path).settings == PERSONS
    report = json.loads((tmp_path / "results/regions_guess.json").read_text())
    assert set(report["val"]) == {"network", "vote", "regions", "images"}
    assert json.loads(capsys.readouterr().out) == report
    before = path.read_bytes()
    main(["guess", "--evaluate", str(path), "--split", "test", *folders])
    added = json.loads((tmp_path / "results/regions_guess.json").read_text())
    assert added["test"]["images"] == 2 and {**added, "test": None} == {**report, "test": None}
    assert path.read_bytes() == before


def test_a_limited_run_keeps_no_report(drawn, guesser, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_model", lambda name: guesser)
    folders = ["--data", str(drawn), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    main(["guess", "--epochs", "1", "--limit", "2", *folders])
    assert (tmp_path / "runs/regions_guess/best.safetensors").is_file() and not (tmp_path / "results").exists()


def test_what_does_not_fit_is_refused(drawn, guesser):
    with pytest.raises(ValueError, match=r"val-folds must be in 2\.\.8, the number of val photos; got 9"):
        run(guesser, PERSONS, SHORT, data=drawn, folds=9, limit=None)
    with pytest.raises(ValueError, match=r"guess answers background, person; the classifier was trained for .*hair"):
        evaluate(guesser, RegionClassifier(SETTINGS), data=drawn, split="val", limit=None)
