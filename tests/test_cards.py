"""Model cards agree with the rows, and their code runs."""

from __future__ import annotations

import json
import re

import pytest
from huggingface_hub import ModelCard
from PIL import Image

import hubmodels
from hubmodels.cards import entry_card, model_card
from hubmodels.cli import main
from hubmodels.config import ModelConfig
from hubmodels.entries import ENTRIES, list_models
from hubmodels.labels import PERSON
from hubmodels.publish import write_repository
from hubmodels.weights_files import WEIGHTS_FOLDER
from tests.conftest import ROOT

TRAINED = [name for name, entry in ENTRIES.items() if entry.is_trained]


@pytest.mark.parametrize("name", TRAINED)
def test_scores_labels_and_facts_are_those_of_the_row(name):
    entry = ENTRIES[name]
    text = entry_card(entry, repo="me/mine")
    card = ModelCard(text, ignore_metadata_errors=False)
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["mean IoU"] == round(100 * entry.metrics["miou"], 2)
    assert {label: results[f"IoU of {label}"] for label in entry.labels.names} == {
        label: round(100 * value, 2) for label, value in entry.metrics["iou"].items()
    }
    assert card.data.license == "apache-2.0" and card.data.library_name == "hubmodels"
    assert all(result.dataset_split == "test" and result.verified is None for result in card.data.eval_results)
    for index, label in enumerate(entry.labels.names):
        assert f"| {index} | {label} |" in text
    for words in (entry.sha256, entry.recipe, entry.data, entry.paper, "was not counted", "research data"):
        assert words in text
    assert ("me/mine" in text and "example.jpg" in text) == entry.is_network


@pytest.mark.parametrize("name", list_models())
def test_every_snippet_runs(name, tmp_path, monkeypatch, astronaut):
    """As printed, but for the two places that only the reader knows."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut[:96, :96]).save("photo.jpg")
    hubmodels.load(name).save_pretrained("mine")
    snippets = re.findall(r"```python\n(.*?)```", entry_card(ENTRIES[name], repo="me/mine"), re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        code = snippet.replace("path/to/a/clone", str(ROOT)).replace("me/mine", "./mine")
        exec(compile(code, name, "exec"), {})


def test_a_row_without_weights_has_no_card():
    with pytest.raises(ValueError, match="no weights of ours"):
        entry_card(ENTRIES["deeplabv3_resnet101"], repo="me/mine")


def test_a_card_of_ones_own_model_claims_no_scores():
    config = ModelConfig("mine", "u2net_small", {}, PERSON, 320)
    card = ModelCard(
        model_card(config, license="MIT", data="my photos", limits="Hats only."), ignore_metadata_errors=False
    )
    assert card.data.license == "mit" and not card.data.eval_results
    assert "Not measured." in card.content and "Trained on my photos." in card.content and "Hats only." in card.content


def test_card_prints_and_publish_rehearses(tmp_path, capsys):
    assert main(["card", "deeplabv3plus_person", "--repo", "me/mine"]) == 0
    assert capsys.readouterr().out == entry_card(ENTRIES["deeplabv3plus_person"], repo="me/mine")
    assert main(["publish", "deeplabv3plus_person", "me/mine", "--dry-run", "--out", str(tmp_path)]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    entry = ENTRIES["deeplabv3plus_person"]
    assert (tmp_path / "model.safetensors").read_bytes() == (WEIGHTS_FOLDER / entry.filename).read_bytes()
    assert json.loads((tmp_path / "config.json").read_text())["weights_sha256"] == entry.sha256
    with Image.open(tmp_path / "example.jpg") as picture:
        assert picture.size == (2 * 512 + 8, 512)
    assert hubmodels.load(tmp_path).labels == entry.labels


def test_publish_refuses_what_makes_no_sense(tmp_path, capsys):
    assert main(["publish", "deeplabv3plus_person", "me/mine", "--out", str(tmp_path)]) == 2
    assert "--out is for --dry-run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="part of the package only"):
        write_repository(ENTRIES["regions_fashion"], "me/mine", tmp_path)
    assert not list(tmp_path.iterdir())
