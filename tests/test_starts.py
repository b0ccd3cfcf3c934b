"""What a training on own photos starts from: published models, earlier runs, and what is neither."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import hubmodels
from hubmodels import WeightsError
from hubmodels.entries import ENTRIES, list_models
from hubmodels.networks import is_head
from tests.conftest import ROOT
from tests.tiny_runs import TINY
from training.engine import network_for
from training.errors import DataError, RecipeError
from training.recipe import read_recipe

RECIPE = ROOT / "training" / "recipes" / "own_photos" / "finetune.toml"
CLASSES = ["background", "hat", "bag"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of photos, of which only the labels are asked for."""
    (tmp_path / "my_photos").mkdir()
    (tmp_path / "my_photos" / "classes.json").write_text(json.dumps(CLASSES))
    return tmp_path / "my_photos"


def test_training_starts_from_every_weight_but_the_classifiers(folder):
    recipe = read_recipe(RECIPE, folder=folder)
    published = hubmodels.load("deeplabv3plus_fashion").network.state_dict()
    state = network_for(recipe).state_dict()
    assert set(state) == set(published)
    for key, value in state.items():
        if key.startswith("classifier."):
            assert value.shape[0] == 3
        else:
            assert torch.equal(value, published[key]), key


@pytest.mark.parametrize("init", ["deeplabv3_resnet101", "regions_fashion"])
def test_a_start_from_a_row_without_weights_is_refused_with_the_names_of_others(folder, init):
    recipe = dataclasses.replace(read_recipe(RECIPE, folder=folder), init=init)
    with pytest.raises(RecipeError, match=f"{init}' has no weights of a network; use 'imagenet', or .*plus_fashion"):
        network_for(recipe)


def test_a_start_from_what_is_no_checkpoint_says_what_would_be_one(folder, tmp_path):
    recipe = read_recipe(RECIPE, folder=folder)
    for init, message in (
        ("deeplabv3plus_fashon", "no checkpoint there; did you mean 'deeplabv3plus_fashion'"),
        ("runs/none/best.pt", "no checkpoint there; expected the best.pt of a run, or the name of a published model"),
        (str(tmp_path), "a folder, no checkpoint; expected the best.pt of a run"),
    ):
        with pytest.raises(DataError, match=message):
            network_for(dataclasses.replace(recipe, init=init))


def test_a_start_from_a_network_of_another_size_is_refused(folder):
    recipe = dataclasses.replace(read_recipe(RECIPE, folder=folder), init="deeplabv3plus_lite2_fashion")
    with pytest.raises(WeightsError, match=r"'deeplabv3plus_lite2_fashion': .*their own arch and \[network\]"):
        network_for(recipe)


@pytest.mark.parametrize("arch", ["deeplabv3plus", "u2net_small"])
def test_a_start_from_a_run_on_other_labels_keeps_no_classifier(tmp_path, caplog, arch):
    """Of equal number, too: rows mean what classes.json said at their place."""
    caplog.set_level("INFO", logger="training")
    network = {} if arch == "u2net_small" else TINY.network
    first = dataclasses.replace(
        TINY, tasks=("mine",), folder="mine", classes=tuple(CLASSES), arch=arch, network=network, epochs=1
    )
    torch.manual_seed(0)
    state = network_for(first).state_dict()
    torch.save({"recipe": first.to_dict(), "ema": state}, tmp_path / "best.pt")
    for classes, is_kept in ((CLASSES, True), ([*CLASSES[:1], "bag", "hat"], False), ([*CLASSES[:2], "shoe"], False)):
        caplog.clear()
        torch.manual_seed(1)
        again = dataclasses.replace(first, init=str(tmp_path / "best.pt"), classes=tuple(classes))
        got = network_for(again).state_dict()
        differ = {key for key, value in got.items() if not torch.equal(value, state[key])}
        assert all(is_head(key) for key in differ) and bool(differ) != is_kept
        assert ("of other labels, background, hat, bag: the classifier starts anew" in caplog.text) != is_kept


@pytest.mark.parametrize("init", list_models())
def test_training_starts_from_every_published_network(folder, init):
    entry = ENTRIES[init]
    start = {"init": init, "arch": entry.arch, "network": dict(entry.network), "freeze_batch_norm": False}
    state = network_for(dataclasses.replace(read_recipe(RECIPE, folder=folder), **start)).state_dict()
    published = hubmodels.load(init).network.state_dict()
    differ = {key for key, value in state.items() if not torch.equal(value, published[key])}
    assert differ and all(is_head(key) for key in differ)
