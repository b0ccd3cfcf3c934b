"""Weights are refused unless they are exactly those of the entry."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from types import MappingProxyType

import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save

import hubmodels
from hubmodels import ModelNotFoundError, WeightsError
from hubmodels.entries import ENTRIES
from hubmodels.hub import WEIGHTS_FOLDER, load_regions, read_weights
from hubmodels.networks import build_network
from hubmodels.refine import superpixels

ENTRY = ENTRIES["deeplabv3plus_person"]


@pytest.fixture(scope="module")
def network():
    return build_network(ENTRY.arch, num_classes=len(ENTRY.labels), **ENTRY.network)


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
    with pytest.raises(ModelNotFoundError, match=r"vote='classifier'.*Networks: deeplabv3plus_fashion"):
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
