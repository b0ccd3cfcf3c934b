"""Several seeds of one recipe: their mean network, and how far their scores are apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hubmodels
import training.seeds
from hubmodels.entries import find_entry
from tests.drawn_data import draw_data
from training.average import check_alike, mean_of
from training.average import main as average
from training.checkpoint import load_checkpoint
from training.engine import network_for
from training.errors import DataError
from training.evaluate import evaluate
from training.recipe import read_recipe
from training.seeds import score_seeds, shipped_recipe, spread
from training.train import main as train

PUBLISHED = sorted(training.seeds.RESULTS.glob("seeds_*.json"))
RECIPE = """
tasks = ["fashion", "person"]
arch = "deeplabv3plus"
epochs = 1
init = "random"
batch_size = 2
eval_long_side_px = 64
compile = false
[network]
backbone = "tf_efficientnet_lite0"
channels = 8
decoder_channels = 8
low_channels = 8
[augment]
crop_hw = [64, 48]
scale = [0.9, 1.1]
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    splits = {"train": [1, 2], "val": [3, 4], "test": [3, 4]}
    return draw_data(tmp_path_factory.mktemp("data"), np.random.default_rng(0), splits=splits)


@pytest.fixture(scope="module")
def runs(drawn, tmp_path_factory) -> list[Path]:
    """Checkpoints of two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.toml").write_text(RECIPE)
    for seed in (1, 2):
        train([str(folder / "tiny.toml"), "--data", str(drawn), "--runs", str(folder), "--seed", str(seed)])
    return [folder / f"tiny_seed{seed}" / "best_fashion.pt" for seed in (1, 2)]


def test_the_mean_by_hand():
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)},
        {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(9)},
    ]
    mean = mean_of(states)
    assert mean["w"].tolist() == [2.0, 4.0] and mean["w"].dtype == torch.float32 and mean["n"] == 7


@pytest.mark.parametrize("states", [[{"w": torch.zeros(1)}], [{"w": torch.zeros(1)}, {"w": torch.zeros(2)}]])
def test_what_has_no_mean_is_refused(states):
    with pytest.raises(DataError, match=r"two or more|other names or shapes"):
        mean_of(states)


def test_the_spread_by_hand():
    rows = [dict.fromkeys(("miou", "pixel_accuracy", "boundary_f"), value) for value in (0.5, 0.6, 0.7)]
    assert spread(rows)["miou"] == {"mean": 0.6, "standard_deviation": 0.1}


def test_seeds_differ_and_their_mean_lies_between(runs, tmp_path):
    average([*map(str, runs), "--out", str(tmp_path / "mean.pt")])
    first, second, mean = (load_checkpoint(path) for path in (*runs, tmp_path / "mean.pt"))
    assert (first["recipe"]["seed"], second["recipe"]["seed"]) == (1, 2)
    key = "classifier.weight"
    assert not torch.equal(first["ema"][key], second["ema"][key])
    torch.testing.assert_close(mean["ema"][key], (first["ema"][key] + second["ema"][key]) / 2)


def test_the_start_of_a_run_can_be_averaged_in(drawn, tmp_path):
    """Of a network whose batch norms are folded while it is trained, as in its start."""
    recipe = tmp_path / "late.toml"
    recipe.write_text(
        'tasks = ["person"]\narch = "u2net_small"\nepochs = 1\ninit = "u2net_small_person"\nbatch_size = 2\n'
        "freeze_batch_norm = true\neval_long_side_px = 64\ncompile = false\n"
        "[augment]\ncrop_hw = [64, 48]\nscale = [0.9, 1.1]\n"
    )
    train([str(recipe), "--data", str(drawn), "--runs", str(tmp_path)])
    average([str(tmp_path / "late" / "best.pt"), "--with-start", "--out", str(tmp_path / "mean.pt")])
    trained, mean = (load_checkpoint(tmp_path / name)["ema"] for name in ("late/best.pt", "mean.pt"))
    start = network_for(read_recipe(recipe)).state_dict()
    key = "stage1.rebnconv1.conv_s1.weight"
    assert not torch.equal(trained[key], start[key])
    torch.testing.assert_close(mean[key], (trained[key] + start[key]) / 2)
    with pytest.raises(DataError, match="two or more networks"):
        average([str(tmp_path / "late" / "best.pt"), "--out", str(tmp_path / "mean.pt")])


def test_new_heads_of_the_start_are_those_of_the_run(runs, tmp_path):
    """They are random, so that any others would spoil the mean."""
    for name in ("first.pt", "second.pt"):
        average([str(runs[0]), "--with-start", "--out", str(tmp_path / name)])
        torch.rand(3)
    run, first, second = (load_checkpoint(path)["ema"] for path in (runs[0], *sorted(tmp_path.glob("*.pt"))))
    key = "classifier.weight"
    torch.manual_seed(1)
    start = network_for(read_recipe(runs[0].parents[1] / "tiny.toml")).state_dict()
    assert torch.equal(first[key], second[key])
    torch.testing.assert_close(first[key], (run[key] + start[key]) / 2)


U2NET = {"tasks": ("person",), "arch": "u2net_small", "network": {}, "freeze_batch_norm": True}
DEEPLAB = {"tasks": ("custom",), "arch": "deeplabv3", "network": {"channels": 8}, "classes": ("background", "hat")}


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        (U2NET, {"freeze_batch_norm": False}),  # norms of the first are part of its convolutions
        (U2NET, {"tasks": ("fashion",)}),
        (U2NET, {"arch": "u2net"}),
        (DEEPLAB, {"network": {"channels": 8, "output_stride": 8}}),  # of equal shapes
        (DEEPLAB, {"classes": ("background", "bag")}),
    ],
)
def test_networks_that_are_not_alike_have_no_mean(recipe, change):
    with pytest.raises(DataError, match=f"expected runs with one value of {next(iter(change))}; got"):
        check_alike([recipe, recipe | change, recipe])


def test_norms_of_deeplab_may_be_frozen_in_one_run_alone():
    check_alike([DEEPLAB, DEEPLAB | {"freeze_batch_norm": True, "seed": 3}])


def test_what_an_older_run_does_not_say_is_nothing():
    older = {key: value for key, value in U2NET.items() if key not in ("network", "freeze_batch_norm")}
    check_alike([older, older | {"network": {}, "classes": (), "freeze_batch_norm": False}])


def test_every_seed_is_scored(runs, drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.seeds, "RESULTS", tmp_path)
    training.seeds.main(["deeplabv3plus_fashion", *map(str, runs), "--data", str(drawn)])
    result = json.loads((tmp_path / "seeds_deeplabv3plus_fashion.json").read_text())
    assert result["recipe"] == "tiny" and [run["seed"] for run in result["runs"]] == [1, 2]
    for split in ("val", "test"):
        values = [run[split]["miou"] for run in result["runs"]]
        assert result[split]["miou"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert result[split]["images"] == 2


def test_a_spread_needs_several_seeds_of_one_recipe(runs, drawn, tmp_path):
    other = torch.load(runs[1], weights_only=True)
    other["recipe"]["name"] = "other_seed2"
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(DataError, match="expected runs of one recipe; got other, tiny"):
        score_seeds(find_entry("deeplabv3plus_fashion"), (runs[0], tmp_path / "other.pt"), data=drawn)
    for chosen, words in (((runs[0],), "two runs"), ((runs[0], runs[0]), "a seed of its own")):
        with pytest.raises(DataError, match=words):
            score_seeds(find_entry("deeplabv3plus_fashion"), chosen, data=drawn)


def test_shipped_weights_count_as_the_run_of_their_recipe(runs, drawn, tmp_path):
    entry = find_entry("u2net_small_person")
    recipe = dataclasses.replace(shipped_recipe(entry), seed=1, name="u2net_small_person_seed1", init="random")
    network = network_for(recipe)
    torch.save({"recipe": recipe.to_dict(), "ema": network.state_dict()}, tmp_path / "own.pt")
    result = score_seeds(entry, (tmp_path / "own.pt",), data=drawn, shipped=True)
    assert result["recipe"] == "u2net_small_person" and result["shipped_sha256"] == entry.sha256
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    model = hubmodels.load("u2net_small_person")
    assert result["runs"][0]["val"]["miou"] == evaluate(model, data=drawn, split="val")["miou"]
    with pytest.raises(DataError, match="one recipe; got tiny, u2net_small_person"):
        score_seeds(entry, (runs[0],), data=drawn, shipped=True)
    faster = dataclasses.replace(recipe, lr=1.0, batch_size=2)
    torch.save({"recipe": faster.to_dict(), "ema": network.state_dict()}, tmp_path / "own.pt")
    with pytest.raises(DataError, match=r"own\.pt and u2net_small_person differ in batch_size, lr"):
        score_seeds(entry, (tmp_path / "own.pt",), data=drawn, shipped=True)
    with pytest.raises(DataError, match=r"ships no single run of a recipe; .*training\.ensemble"):
        score_seeds(find_entry("ensemble_fashion"), runs, data=drawn, shipped=True)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_published_spread_is_that_of_its_runs(path):
    result = json.loads(path.read_text())
    assert len({run["seed"] for run in result["runs"]}) == len(result["runs"]) == 3
    entry = find_entry(path.stem.removeprefix("seeds_"))
    assert result.get("shipped_sha256", entry.sha256) == entry.sha256  # or else: measure the spread anew
    for split, images in (("val", 60), ("test", 120)):
        assert result[split] == {"images": images, **spread([run[split] for run in result["runs"]])}
