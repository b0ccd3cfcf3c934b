"""A run against what ships: on val alone, at their own sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import training.compare
from tests.drawn_data import draw_data
from training.compare import compare_with_shipped
from training.compare import main as command
from training.data import load_fashionista
from training.errors import CommandError, DataError
from training.evaluate import evaluate
from training.files import RESULTS
from training.segmenters import load_segmenter
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
    model = load_segmenter(str(run), "person")
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


def test_refuses_no_draws_before_the_work(run):
    with pytest.raises(CommandError, match="one draw or more; got 0"):
        compare_with_shipped("u2net_small_person", run, data=Path("nowhere"), draws=0)
