"""Models are what they were after `save_pretrained`, and folders that are not right are refused."""

from __future__ import annotations

import copy
import hashlib
import json

import pytest
import torch
from numpy.testing import assert_array_equal

import hubmodels
import hubmodels.config as config_module
from hubmodels import ModelNotFoundError, WeightsError, networks


def test_a_saved_model_is_the_same_when_it_is_loaded(tmp_path, fashion, astronaut):
    fashion.save_pretrained(tmp_path / "saved")
    names = {"config.json", "model.safetensors", "region_classifier.safetensors", "README.md"}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names
    for model in (hubmodels.load(tmp_path / "saved"), hubmodels.Segmenter.from_pretrained(str(tmp_path / "saved"))):
        assert (model.name, model.labels, model.input_px) == (fashion.name, fashion.labels, fashion.input_px)
        assert not model.training
        probs = model.probabilities(astronaut[:96, :96])
        assert_array_equal(probs, fashion.probabilities(astronaut[:96, :96]))


def test_saving_twice_gives_the_same_bytes_and_keeps_a_card_that_somebody_wrote(tmp_path, person):
    person.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "README.md").write_text("mine")
    person.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before and (tmp_path / "README.md").read_text() == "mine"


def test_labels_of_any_script_survive_a_round_trip(tmp_path, person):
    from hubmodels.hub import with_labels
    from hubmodels.labels import LabelSet

    labels = LabelSet.custom(["Hintergrund", "Mütze|<b>", "かばん"], task="own")
    with_labels(person, labels).save_pretrained(tmp_path)
    assert hubmodels.load(tmp_path).labels == labels
    assert "Mütze\\|&lt;b>" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_what_config_json_cannot_describe_is_not_saved(tmp_path, person):
    bare = hubmodels.Segmenter(person.network, person.labels, name="bare")
    with pytest.raises(ValueError, match="network of your own"):
        bare.save_pretrained(tmp_path)
    other = copy.deepcopy(person)
    other.network.classifier = torch.nn.Conv2d(128, 5, 1)
    with pytest.raises(ValueError, match="2 tensors differ"):
        other.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="without push_to_hub"):
        person.save_pretrained(tmp_path, private=True)
    assert not list(tmp_path.iterdir())


def test_weights_that_would_not_load_are_not_saved(tmp_path, person):
    person.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    diverged = copy.deepcopy(person)
    diverged.network.classifier.weight.data[0] = float("nan")
    with pytest.raises(WeightsError, match=r"classifier\.weight holds values that are not finite; nothing was saved"):
        diverged.save_pretrained(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_network_partly_in_half_precision_is_saved_in_one(tmp_path, person):
    mixed = copy.deepcopy(person)
    mixed.network.backbone.half()
    mixed.save_pretrained(tmp_path)
    loaded = hubmodels.load(tmp_path).network.state_dict()
    for name, value in mixed.network.state_dict().items():
        assert torch.equal(loaded[name], value.to(loaded[name].dtype)), name


def test_a_damaged_folder_is_not_to_be_deleted(tmp_path, person):
    person.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is damaged: restore it, or save the model again") as refused:
        hubmodels.load(tmp_path)
    assert "download" not in str(refused.value) and "delete" not in str(refused.value)


def test_nothing_is_built_before_its_weights_have_been_found_to_fit(tmp_path, person, monkeypatch):
    """A made-up config.json may ask for networks of a gigabyte."""
    built = []

    def build(*args, **options):
        network = networks.build_network(*args, **options)
        built.append({str(value.device) for value in network.state_dict().values()})
        return network

    person.save_pretrained(tmp_path)
    monkeypatch.setattr(config_module, "build_network", build)
    hubmodels.load(tmp_path)
    assert built == [{"meta"}, {"cpu"}]
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    whole = config.read_text()
    config.write_text(json.dumps({**json.loads(whole), "network": {"channels": 1024, "decoder_channels": 1024}}))
    with pytest.raises(WeightsError, match=r" is \(.*\), expected \("):
        hubmodels.load(tmp_path)
    config.write_text(whole)
    weights.unlink()
    with pytest.raises(WeightsError, match="is missing"):
        hubmodels.load(tmp_path)
    assert built[2:] == [{"meta"}, {"meta"}]


def test_a_pinned_digest_may_be_in_capitals(tmp_path, person):
    person.save_pretrained(tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    hubmodels.Segmenter.from_pretrained(tmp_path, sha256=digest.upper())
    with pytest.raises(TypeError, match="sha256 must be 64 hexadecimal digits as text; got 5"):
        hubmodels.Segmenter.from_pretrained(tmp_path, sha256=5)


def test_what_is_saved_below_the_home_is_loaded_from_there(tmp_path, person, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    person.save_pretrained("~/mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    assert hubmodels.load("~/mine").name == person.name


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_this_folder(name, monkeypatch, tmp_path, person):
    person.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="got an empty name"):
        hubmodels.load(name)


def test_what_is_no_saved_model_says_what_was_expected(tmp_path, person):
    person.save_pretrained(tmp_path / "saved")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty: has no config\.json; expected what save_pretrained or push_to_hub"):
        hubmodels.load(tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"model\.safetensors is a file; expected the folder .*, such as .*saved$"):
        hubmodels.load(str(tmp_path / "saved" / "model.safetensors"))
    with pytest.raises(ModelNotFoundError, match="no model named 'xxx"):
        hubmodels.load("x" * 300)
    with pytest.raises(TypeError, match="expected the name of a model, a folder or user/name; got NoneType"):
        hubmodels.load(None)


def test_pickled_weights_are_never_read(tmp_path, person):
    person.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(person.network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing; restore it, or save the model again$"):
        hubmodels.load(tmp_path)
    with pytest.raises(WeightsError, match="never read"):
        person._load_as_pickle(person, "x", "cpu", False)
