"""Networks that answer together: the mean of their probabilities, in one file that loads like any other."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file
from torch import nn

import hubmodels
from hubmodels import PERSON, Segmenter
from hubmodels.entries import ENTRIES
from hubmodels.hub import WEIGHTS_FOLDER
from hubmodels.model_export import export_model
from hubmodels.networks import build_network, is_head
from hubmodels.networks.ensemble import Ensemble
from hubmodels.networks.folding import fold_batch_norms
from tests.exporting import needs_onnx
from training import ensemble
from training.errors import DataError

MEMBERS = (ENTRIES["deeplabv3plus_person"], ENTRIES["deeplabv3_person"])


class Says(nn.Module):
    """Answers the same logits for every pixel."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits)[None, :, None, None])

    def forward(self, x):
        return self.logits.expand(x.shape[0], -1, *x.shape[2:])


@pytest.fixture(scope="module")
def two() -> Segmenter:
    """The published DeepLabv3+ and DeepLabv3 for persons as one network."""
    return ensemble.ensemble_of(MEMBERS, name="two_person", input_px=256)


def test_probabilities_are_the_mean_of_the_members_by_hand():
    """Odds of 3:1 and 1:1 are 3/4 and 1/2; their mean is 5/8, while the mean of the logits would say 0.634."""
    network = Ensemble([Says(float(np.log(3)), 0.0), Says(7.0, 7.0)])
    probs = network(torch.rand(2, 3, 4, 5)).softmax(1)
    assert probs.shape == (2, 2, 4, 5)
    assert_allclose(probs[:, 0].detach(), 5 / 8, rtol=1e-6)


def test_answers_far_from_zero_stay_finite():
    """A member that is certain of the other label does not turn the answer into infinity."""
    logits = Ensemble([Says(1e4, -1e4), Says(-1e4, 1e4)])(torch.rand(1, 3, 2, 2))
    assert torch.isfinite(logits).all()
    assert_allclose(logits.softmax(1).detach(), 0.5)


def test_every_member_learns():
    network = Ensemble([Says(0.1, 0.0), Says(0.0, 0.3)])
    nn.functional.cross_entropy(network(torch.rand(1, 3, 2, 2)), torch.zeros(1, 2, 2, dtype=torch.long)).backward()
    assert all(float(each.grad.abs().sum()) > 0 for each in network.parameters())


def test_one_member_is_no_ensemble():
    with pytest.raises(ValueError, match="two or more members; got 1"):
        Ensemble([Says(0.0, 1.0)])


def test_the_published_members_answer_as_they_do_alone(two, astronaut):
    photo = astronaut[:256, :192]  # of the size at which it goes through the network: no resize in between
    alone = []
    for entry in MEMBERS:
        member = hubmodels.load(entry.name)
        member.input_px = two.input_px
        alone.append(member.probabilities(photo))
    assert_allclose(two.probabilities(photo), np.mean(alone, axis=0), atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.3  # they differ, so a mean says something


def test_folding_keeps_the_answer(two):
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norms(two.network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        assert_allclose(folded(x), two.network(x), atol=2e-4)


def test_it_is_saved_and_loaded_like_any_model(two, tmp_path, astronaut):
    two.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert [each["arch"] for each in config["network"]["members"]] == ["deeplabv3plus", "deeplabv3"]
    again = hubmodels.load(tmp_path)
    assert_array_equal(again.probabilities(astronaut[:96, :96]), two.probabilities(astronaut[:96, :96]))


def test_for_other_labels_only_the_heads_of_the_members_are_new(two):
    from hubmodels.hub import with_labels

    old, new = two.network.state_dict(), with_labels(two, hubmodels.LabelSet.custom(5)).network.state_dict()
    heads = {key for key in old if old[key].shape != new[key].shape or not torch.equal(old[key], new[key])}
    parts = ("0.classifier", "1.classifier", "1.dense_upsampling")
    assert heads == {f"members.{part}.{what}" for part in parts for what in ("weight", "bias")}
    assert heads == set(filter(is_head, old)) and new["members.1.classifier.bias"].shape == (5,)


@needs_onnx
def test_the_onnx_file_answers_alike(two, tmp_path):
    import onnxruntime

    path = export_model(two, tmp_path / "two.onnx", format="onnx")  # compares the answers by itself, too
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        assert_allclose(answer, two.network(x), atol=2e-3)


def test_the_command_writes_a_folder_with_the_values_of_the_members(two, tmp_path, capsys):
    ensemble.main([str(tmp_path / "two"), *(each.name for each in MEMBERS), "--input-px", "256"])
    model = hubmodels.load(tmp_path / "two")
    assert (model.name, model.labels, model.input_px) == ("two", PERSON, 256)
    assert "hubmodels.load(" in capsys.readouterr().out
    state = model.network.state_dict()
    for index, entry in enumerate(MEMBERS):
        for key, value in load_file(WEIGHTS_FOLDER / entry.weights_file).items():
            found = state.pop(f"members.{index}.{key}")
            assert torch.equal(found, value.to(found.dtype)), key
    assert not state
    card = (tmp_path / "two" / "README.md").read_text()
    assert all(entry.name in card and entry.data in card for entry in MEMBERS) and "license: apache-2.0" in card


@pytest.mark.parametrize(
    "names, error, message",
    [
        (
            ["deeplabv3_person", "deeplabv3_fashion"],
            DataError,
            "same labels; got deeplabv3_person: person, .*: fashion",
        ),
        (["deeplabv3_fashion", "regions_fashion"], DataError, "regions_fashion is none"),
        (["deeplabv3_fashion", "deeplabv3_resnet101"], DataError, "deeplabv3_resnet101 is none"),
        (["deeplabv3_person"], ValueError, "2..4 networks"),
        (["deeplabv3_person"] * 5, ValueError, "2..4 networks"),
    ],
)
def test_other_members_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        ensemble.ensemble_of([ENTRIES[name] for name in names], name="two", input_px=256)


def test_members_are_built_with_their_own_options():
    network = build_network("ensemble", num_classes=3, members=[{"arch": "u2net_small"}, {"arch": "deeplabv3"}])
    with torch.inference_mode():
        assert network.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_the_recipe_of_a_row_makes_its_very_weights_from_those_of_the_members(tmp_path, monkeypatch, capsys):
    """So a member that is trained anew without the ensemble is found out."""
    (row,) = (each for each in ENTRIES.values() if each.arch == "ensemble")
    monkeypatch.setattr("training.export.WEIGHTS_FOLDER", tmp_path)
    ensemble.main(row.recipe.split()[3:])
    assert hashlib.sha256((tmp_path / row.weights_file).read_bytes()).hexdigest() == row.sha256
    assert json.loads((tmp_path / "manifest.json").read_text())[row.name]["parameters"] == row.parameters
    assert "training.evaluate ensemble_fashion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["deeplabv3plus_fashion", "deeplabv3plus_lite2_fashion"], "OUT is a folder, before the names of the members"),
        (["out", "deeplabv3plus_fashion"], "an ensemble is of 2 to 4 networks; got 1"),
    ],
)
def test_what_makes_no_ensemble_is_said_before_anything_is_read(call, words, capsys):
    with pytest.raises(SystemExit):
        ensemble.main([*call, "--input-px", "544"])
    assert words in capsys.readouterr().err


def test_a_row_takes_only_weights_of_its_own_networks(tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.WEIGHTS_FOLDER", tmp_path)
    with pytest.raises(hubmodels.WeightsError, match="recipe"):
        ensemble.main(["ensemble_fashion", "deeplabv3_fashion", "deeplabv3plus_fashion", "--publish"])
    assert not list(tmp_path.iterdir())
