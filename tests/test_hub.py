"""Weights are refused unless they are exactly those of the entry."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
from types import MappingProxyType

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save

import hubmodels
from hubmodels import LabelSet, ModelNotFoundError, WeightsError
from hubmodels.config import config_of
from hubmodels.entries import ENTRIES
from hubmodels.hub import WEIGHTS_FOLDER, load_regions, network_with_backbone, read_weights
from hubmodels.refine import superpixels
from hubmodels.weights_files import HEADER_BYTES_MAX, places
from tests.conftest import ROOT

ENTRY = ENTRIES["deeplabv3plus_person"]


@pytest.fixture(scope="module")
def network():
    return config_of(ENTRY).build()


@pytest.fixture
def tensors():
    return load_file(WEIGHTS_FOLDER / ENTRY.filename)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Put bytes where HUBMODELS_WEIGHTS points; returns the entry, with its digest changed to match if asked."""

    def _put(data: bytes, *, trusted: bool = True):
        (tmp_path / ENTRY.filename).write_bytes(data)
        monkeypatch.setenv("HUBMODELS_WEIGHTS", str(tmp_path))
        entry = dataclasses.replace(ENTRY)
        digest = hashlib.sha256(data).hexdigest() if trusted else ENTRY.sha256
        object.__setattr__(entry, "measured", MappingProxyType({**ENTRY.measured, "sha256": digest}))
        return entry

    return _put


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ModelNotFoundError, match=r"did you mean 'deeplabv3plus_person'\?.*deeplabv3plus_fashion"):
        hubmodels.load("deeplabv3_plus_person")


def test_weights_are_float32_in_memory_and_the_model_is_in_eval_mode(person):
    assert {p.dtype for p in person.parameters()} == {torch.float32}
    assert not person.training and not any(m.training for m in person.modules())


def test_without_pretraining_no_weights_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr("hubmodels.weights_files.WEIGHTS_FOLDER", tmp_path)
    assert not hubmodels.load(ENTRY.name, pretrained=False).training


def test_missing_weights_say_where_they_were_sought(monkeypatch, tmp_path):
    monkeypatch.setattr("hubmodels.weights_files.WEIGHTS_FOLDER", tmp_path / "none")
    with pytest.raises(WeightsError, match="HUBMODELS_WEIGHTS"):
        hubmodels.load(ENTRY.name)


def test_a_folder_named_by_the_environment_comes_first(put, network, tensors):
    tensors["classifier.bias"] = torch.tensor([5.0, -5.0]).half()
    state = read_weights(put(save(tensors)), network)
    assert state["classifier.bias"].tolist() == [5, -5] and state["classifier.bias"].dtype == torch.float32


def test_the_folder_named_by_the_environment_may_lie_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HUBMODELS_WEIGHTS", "~/weights")
    assert places(ENTRY)[0] == tmp_path / "weights" / ENTRY.filename


def test_a_file_larger_than_weights_can_be_is_not_read(put, network, tmp_path):
    entry = put(b"", trusted=False)
    os.truncate(tmp_path / ENTRY.filename, entry.size_bytes + HEADER_BYTES_MAX + 1)
    with pytest.raises(WeightsError, match=r"has [\d,]+ bytes, expected [\d,]+ at most"):
        read_weights(entry, network)


def test_one_flipped_bit_is_noticed(put, network):
    data = bytearray((WEIGHTS_FOLDER / ENTRY.filename).read_bytes())
    data[-100] ^= 1
    with pytest.raises(WeightsError, match="sha256"):
        read_weights(put(bytes(data), trusted=False), network)


def damaged(tensors):
    """Name, file content, and what the message must say; each with a digest that matches."""
    whole = save(tensors)
    first = "classifier.weight"
    infinite = {**tensors, first: torch.full_like(tensors[first], float("inf"))}
    yield "truncated", whole[:-1000], "not a safetensors file"
    yield "empty", b"", "empty file"
    yield "web page", b"<!DOCTYPE html><html></html>", "web page"
    yield "web page after a blank line", b'\r\n<?xml version="1.0"?><html></html>', "web page"
    yield "pickle", pickle.dumps({"a": 1}), "pickled"
    yield "LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"
    yield "missing tensor", save({k: v for k, v in tensors.items() if k != first}), "1 tensors missing"
    yield "extra tensor", save({**tensors, "more": torch.zeros(1)}), "1 unknown"
    yield "other shape", save({**tensors, first: torch.zeros(3)}), "expected"
    yield "not finite", save(infinite), "not finite"


def test_damaged_weights_are_refused_with_the_remedy(put, network, tensors):
    for name, data, message in damaged(tensors):
        with pytest.raises(WeightsError, match=message) as raised:
            read_weights(put(data), network)
        assert ENTRY.name in str(raised.value), name


def test_networks_and_region_classifiers_are_not_mistaken_for_each_other():
    with pytest.raises(ModelNotFoundError, match=r"vote='classifier'.*Networks: deeplabv3_fashion"):
        hubmodels.load("regions_fashion")
    with pytest.raises(ModelNotFoundError, match="is a network"):
        load_regions(ENTRY.name)


def test_a_region_classifier_for_other_labels_is_refused(monkeypatch):
    wrong = dataclasses.replace(ENTRIES["regions_fashion"], labels=ENTRY.labels)
    monkeypatch.setattr("hubmodels.hub.find_entry", lambda name: wrong)
    with pytest.raises(WeightsError, match="made for labels"):
        load_regions("regions_fashion")


def test_every_network_with_a_region_classifier_votes_by_it(astronaut):
    settings = hubmodels.Refinement(superpixel_scale=60, vote="classifier")
    for name, entry in ENTRIES.items():
        if entry.regions:
            model, image = hubmodels.load(name), astronaut[:256, :256]
            probs = model.probabilities(image)
            expected = load_regions(entry.regions).vote(image, superpixels(image, scale=60), probs)
            assert_array_equal(model.predict(image, refinement=settings).labels, expected)


def test_names_of_models_for_other_labels_stay_short(person):
    from hubmodels.hub import with_labels
    from hubmodels.labels import LabelSet

    labels = LabelSet.custom(["a", "b"], task="hats")
    again = with_labels(with_labels(person, labels), labels)
    assert again.name == f"{person.name}_hats"
    long = with_labels(again, LabelSet.custom(["a", "b"], task=90 * "t"))
    assert long.name.startswith(f"{person.name}_hats_ttt") and len(long.name) <= 100


def test_labels_may_be_a_set_of_labels_or_a_number_of_any_kind():
    assert hubmodels.load(ENTRY.name, pretrained=False, labels=hubmodels.FASHION).labels == hubmodels.FASHION
    assert len(hubmodels.load(ENTRY.name, pretrained=False, num_classes=np.int64(5)).labels) == 5
    assert LabelSet.custom(name for name in ("a", "b")).names == ("a", "b")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": "person"}, TypeError, "a list of names, or their number as an int; got 'person'"),
        ({"labels": {"a"}}, TypeError, "a list of names"),
        ({"labels": {0: "a", 1: "b"}}, TypeError, "a list of names"),
        ({"labels": ["a", 3]}, TypeError, "label names must be text; got 3"),
        ({"num_classes": "12"}, TypeError, "got '12'"),
        ({"num_classes": 5.0}, TypeError, r"got 5\.0"),
        ({"num_classes": True}, TypeError, "got True"),
        ({"num_classes": 10**12}, ValueError, "2 to 256 labels.*got 1000000000000"),
    ],
    ids=str,
)
def test_labels_of_other_kinds_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        hubmodels.load(ENTRY.name, **options)


def test_options_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(ValueError, match="num_classes is 3, but 2 labels"):
        hubmodels.load(ENTRY.name, num_classes=3, labels=["a", "b"])
    with pytest.raises(ValueError, match="revision is for repositories"):
        hubmodels.load(ENTRY.name, revision="main")
    with pytest.raises(ValueError, match="revision is for repositories"):
        hubmodels.load(tmp_path, revision="main")
    with pytest.raises(ValueError, match="pretrained=False is for published"):
        hubmodels.load(tmp_path, pretrained=False)


LARGE = dataclasses.replace(ENTRY, large=True)


def test_large_weights_are_found_in_a_clone(tmp_path, monkeypatch, network):
    monkeypatch.setattr("hubmodels.weights_files.WEIGHTS_FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=r"clone the project with git.*HUBMODELS_WEIGHTS"):
        read_weights(LARGE, network)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / ENTRY.filename).write_bytes((WEIGHTS_FOLDER / ENTRY.filename).read_bytes())
    assert read_weights(LARGE, network)


def test_large_weights_are_in_neither_archive_nor_wheel():
    import subprocess

    call = ["git", "check-attr", "export-ignore", "hubmodels/weights/large", "hubmodels/weights/manifest.json"]
    told = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    if told.returncode:
        pytest.skip("not a clone")
    assert told.stdout.splitlines()[0].endswith("export-ignore: set") and told.stdout.strip().endswith("unspecified")


BACKBONE = {"backbone": "tf_efficientnet_lite0", "channels": 8, "decoder_channels": 8}


def untrained_row():
    row = dataclasses.replace(ENTRIES["deeplabv3plus_resnet101"], network=MappingProxyType(BACKBONE))
    assert not row.is_trained
    return row


def test_a_row_without_weights_takes_timms_backbone(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    full = timm.create_model("tf_efficientnet_lite0")
    save_file(full.state_dict(), tmp_path / "model.safetensors")
    asked = []
    monkeypatch.setattr("hubmodels.remote.fetch", lambda *what: asked.append(what) or tmp_path / "model.safetensors")
    backbone = network_with_backbone(untrained_row()).backbone.body.state_dict()
    assert asked == [("timm/tf_efficientnet_lite0.in1k", "model.safetensors")]
    assert len(backbone) > 200 and all(torch.equal(full.state_dict()[key], value) for key, value in backbone.items())
    data = (tmp_path / "model.safetensors").read_bytes()
    part = {"conv_stem.weight": full.state_dict()["conv_stem.weight"]}
    for damage in (data[: len(data) // 2], b"<html></html>", save(part)):
        (tmp_path / "model.safetensors").write_bytes(damage)
        with pytest.raises(WeightsError, match=r"timm's weights of.*delete .* downloaded again.*pretrained=False"):
            network_with_backbone(untrained_row())


@pytest.mark.parametrize("variable", ["HUBMODELS_OFFLINE", "HF_HUB_OFFLINE", None])
def test_a_row_without_weights_fails_at_once_without_a_connection(tmp_path, monkeypatch, variable):
    """With and without being told: huggingface_hub alone would try for 23 seconds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("a download was tried"))
    if variable:
        monkeypatch.setenv(variable, "1")
        monkeypatch.setattr("hubmodels.remote.is_reachable", lambda: pytest.fail("the network was tried"))
    with pytest.raises(WeightsError, match=r"timm's weights of resnet101.*not in the cache.*pretrained=False"):
        hubmodels.load("deeplabv3_resnet101")


def test_verify_finds_what_is_damaged_missing_or_unknown(tmp_path, monkeypatch, capsys):
    import shutil

    from hubmodels.cli import main

    assert main(["verify"]) == 0
    said = capsys.readouterr().out
    assert "all weights are as published" in said and all(
        entry.sha256 in said for entry in ENTRIES.values() if entry.is_trained
    )
    copy = tmp_path / "weights"
    shutil.copytree(WEIGHTS_FOLDER, copy)
    monkeypatch.setattr("hubmodels.weights_files.WEIGHTS_FOLDER", copy)
    data = bytearray((copy / ENTRY.filename).read_bytes())
    data[5000] ^= 1
    (copy / ENTRY.filename).write_bytes(data)
    (copy / "regions_fashion.safetensors").unlink()
    (copy / "stranger.safetensors").write_bytes(b"")
    assert main(["verify"]) == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert failed == [f"{ENTRY.name}:", "regions_fashion:", "stranger.safetensors:"]


def test_a_published_name_given_to_from_pretrained_is_sent_to_load():
    with pytest.raises(hubmodels.WeightsError, match=r"hubmodels\.load\('u2net_person'\)"):
        hubmodels.Segmenter.from_pretrained("u2net_person")
