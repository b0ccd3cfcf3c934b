"""The paired bootstrap between a run and what ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import training.compare
from tests.drawn_data import draw_data
from training.compare import PhotoScores, compare, compare_with_shipped, split_scores
from training.compare import main as command
from training.data import load_fashionista
from training.errors import DataError
from training.evaluate import RESULTS, evaluate
from training.metrics import Scores
from training.soft_labels import load_teacher
from training.train import main as train

RECIPE = """
tasks = ["person"]
arch = "u2net_small"
epochs = 1
init = "random"
batch_size = 2
eval_long_side_px = 64
compile = false
[augment]
crop_hw = [64, 48]
scale = [0.9, 1.1]
"""


def scored(maps: list[tuple[np.ndarray, np.ndarray]], classes: int) -> PhotoScores:
    """Of pairs of true and predicted labels, each counted by itself."""
    confusions, boundaries = [], []
    for truth, predicted in maps:
        scores = Scores(classes)
        scores.add(truth, predicted)
        confusions.append(scores.confusion)
        boundaries.append(scores.boundary_f)
    return PhotoScores(np.stack(confusions), np.array(boundaries))


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
    with pytest.raises(DataError, match="same photos"):
        compare(photos, PhotoScores(photos.confusion[::1] * 2, photos.boundary_f))
    with pytest.raises(DataError, match="same photos"):
        compare(photos, PhotoScores(photos.confusion[:1], photos.boundary_f[:1]))
    with pytest.raises(DataError, match="one draw or more; got 0"):
        compare(photos, photos, draws=0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    splits = {"train": [1, 2], "val": [3, 4], "test": [3, 4]}
    return draw_data(tmp_path_factory.mktemp("data"), np.random.default_rng(0), splits=splits)


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.toml").write_text(RECIPE)
    train([str(folder / "tiny.toml"), "--data", str(drawn), "--runs", str(folder)])
    return folder / "tiny" / "best.pt"


def test_an_untrained_run_does_not_replace_what_ships(drawn, run, capsys):
    command(["u2net_small_person", str(run), "--data", str(drawn), "--draws", "100", "--input-px", "96"])
    said = json.loads(capsys.readouterr().out)
    assert said["images"] == 2 and said["draws"] == 100 and said["input_px"] == {"new": 96, "old": 384}
    model = load_teacher(str(run), "person")
    model.input_px = 96
    alone = evaluate(model, data=drawn, split="val")
    spread = json.loads((RESULTS / "seeds_u2net_small_person.json").read_text())["val"]
    for key in ("miou", "pixel_accuracy", "boundary_f"):
        assert said[key]["new"] == alone[key]
        assert said[key]["deviation_of_seeds"] == spread[key]["standard_deviation"]


def test_the_size_of_a_run_is_its_recipes(drawn, run):
    found = compare_with_shipped("u2net_small_person", run, data=drawn, draws=1, limit=1)
    assert found["input_px"]["new"] == 64 and found["images"] == 1


def test_refuses_a_run_of_another_task(drawn, run):
    with pytest.raises(DataError, match="fashion"):
        compare_with_shipped("deeplabv3plus_fashion", run, data=drawn)


def test_decisions_are_never_made_on_test(drawn, run, monkeypatch):
    asked = []

    def load(data, split, tasks, **options):
        asked.append(split)
        return load_fashionista(data, split, tasks, **options)

    monkeypatch.setattr(training.compare, "load_fashionista", load)
    compare_with_shipped("u2net_small_person", run, data=drawn, draws=1, limit=1)
    assert asked == ["val"]
