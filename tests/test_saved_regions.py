"""The region classifier of a model goes with it into a folder, and is read from there when it is used."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil

import pytest
from numpy.testing import assert_array_equal

import hubmodels
from hubmodels import Refinement, Segmenter, WeightsError
from hubmodels.hub import load_regions
from hubmodels.publish import write_repository
from hubmodels.refine import RegionClassifier
from hubmodels.refine.region_classifier import RegionSettings

BY_CLASSIFIER = Refinement(superpixel_scale=60, vote="classifier")
BY_PROBABILITY = Refinement(superpixel_scale=60)
FILE = "region_classifier.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, fashion):
    folder = tmp_path_factory.mktemp("saved")
    fashion.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def photo(astronaut):
    return astronaut[:160, 120:280]


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({key: each for key, each in config.items() if each is not None}))


def test_a_loaded_folder_votes_as_the_model_that_was_saved(saved, fashion, photo):
    config = json.loads((saved / "config.json").read_text())
    digest = hashlib.sha256((saved / FILE).read_bytes()).hexdigest()
    assert config["region_classifier"] == {"file": FILE, "sha256": digest}
    model = hubmodels.load(saved)
    voted = model.predict(photo, refinement=BY_CLASSIFIER).labels
    assert_array_equal(voted, fashion.predict(photo, refinement=BY_CLASSIFIER).labels)
    assert (voted != model.predict(photo, refinement=BY_PROBABILITY).labels).any()  # it has a say


def test_it_is_read_when_it_is_used_and_only_once(saved, photo, monkeypatch):
    real, read = RegionClassifier.from_bytes, []
    monkeypatch.setattr(RegionClassifier, "from_bytes", lambda *a, **k: read.append(1) or real(*a, **k))
    model = hubmodels.load(saved)
    model.predict(photo, refinement=BY_PROBABILITY)
    assert not read
    for _ in range(2):
        model.predict(photo, refinement=BY_CLASSIFIER)
    assert read == [1]


def test_it_is_saved_again_with_the_same_bytes(saved, tmp_path):
    hubmodels.load(saved).save_pretrained(tmp_path)
    for name in ("config.json", FILE):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()


def test_models_with_one_can_be_pickled_and_copied(saved, fashion, photo):
    for model in (hubmodels.load(saved), fashion):
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            expected = model.predict(photo, refinement=BY_CLASSIFIER).labels
            assert_array_equal(other.predict(photo, refinement=BY_CLASSIFIER).labels, expected)


def damaged(folder):
    path = folder / FILE
    data = path.read_bytes()
    yield "sha256 is .*, expected", lambda: path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield "sha256 is .*, expected", lambda: path.write_bytes(data[: len(data) // 2])
    yield "a web page", lambda: path.write_bytes(b"<html></html>")
    yield "is missing", lambda: path.unlink()
    yield "expected 16,000,000 at most", lambda: os.truncate(path, 2**40)
    yield "made for labels", lambda: swap(folder, RegionSettings("slic", 50.0, hubmodels.PERSON.names))


def swap(folder, settings):
    """Another classifier, with a config.json that vouches for it."""
    data = RegionClassifier(settings).to_bytes()
    (folder / FILE).write_bytes(data)
    change_config(folder, region_classifier={"file": FILE, "sha256": hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize("case", range(6))
def test_without_a_sound_file_the_model_works_and_its_vote_says_what_is_wrong(folder, photo, case):
    message, damage = list(damaged(folder))[case]
    damage()
    model = hubmodels.load(folder)
    model.predict(photo, refinement=BY_PROBABILITY)
    with pytest.raises(WeightsError, match=f"region_classifier.safetensors: .*{message}") as caught:
        model.predict(photo, refinement=BY_CLASSIFIER)
    assert "\n" not in str(caught.value)


def test_folders_without_one_load_and_refuse_that_vote(folder, photo, fashion):
    (folder / FILE).unlink()
    change_config(folder, region_classifier=None)
    model = hubmodels.load(folder)
    assert model.region_classifier is None
    assert_array_equal(model.predict(photo).labels, fashion.predict(photo).labels)
    with pytest.raises(ValueError, match="needs a model with a region classifier"):
        model.predict(photo, refinement=BY_CLASSIFIER)


def test_a_model_whose_file_is_gone_is_saved_without_it_if_told_so(folder, tmp_path):
    (folder / FILE).unlink()
    model = hubmodels.load(folder)
    with pytest.raises(WeightsError, match=f"{FILE} is missing; .*or set model.region_classifier = None to save"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    model.region_classifier = None
    model.save_pretrained(tmp_path / "again")
    assert hubmodels.load(tmp_path / "again").region_classifier is None


def test_a_model_for_other_labels_leaves_it_behind(saved, tmp_path):
    model = hubmodels.load(saved, labels=["nothing", "hat", "bag"])
    model.save_pretrained(tmp_path)
    assert not (tmp_path / FILE).exists() and "region_classifier" not in (tmp_path / "config.json").read_text()


def test_a_classifier_for_other_labels_is_not_saved(person, tmp_path):
    wrong = Segmenter(
        person.network,
        person.labels,
        name="wrong",
        config=person.config,
        region_classifier=lambda: load_regions("regions_fashion"),
    )
    with pytest.raises(WeightsError, match="region classifier of wrong: made for labels"):
        wrong.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_published_repository_has_it_with_its_very_bytes(tmp_path, fashion, photo, monkeypatch):
    from PIL import Image

    monkeypatch.setattr("hubmodels.publish.example_picture", lambda entry: Image.new("RGB", (8, 8)))
    entry = hubmodels.ENTRIES["deeplabv3plus_fashion"]
    assert FILE in {path.name for path in write_repository(entry, "me/mine", tmp_path)}
    assert hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest() == hubmodels.ENTRIES["regions_fashion"].sha256
    expected = fashion.predict(photo, refinement=BY_CLASSIFIER).labels
    assert_array_equal(hubmodels.load(tmp_path).predict(photo, refinement=BY_CLASSIFIER).labels, expected)
