"""Model cards agree with the rows, and their code runs."""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import nullcontext

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

import hubmodels
from hubmodels.card_scores import read_scores
from hubmodels.cards import entry_card, is_generated, model_card
from hubmodels.cli import main
from hubmodels.config import ModelConfig
from hubmodels.entries import ENTRIES, list_models
from hubmodels.errors import WeightsError
from hubmodels.labels import PERSON, LabelSet
from hubmodels.publish import publish, write_repository
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
    for words in (
        f"{entry.parameters:,} learned values in {entry.size_bytes:,} bytes",
        f"within {entry.metrics['boundary_px']} pixels",
        {"fashion": "tights and leggings count as pants", "person": "There is one label for all people"}[entry.task],
    ):
        assert words in text
    assert {result.dataset_name for result in card.data.eval_results} == {
        f"Fashionista, public half of the test split, {entry.metrics['images']} photos"
    }
    for words in ("me/mine", "example.jpg", "Try it on photos like yours"):
        assert (words in text) == entry.is_network


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


def test_scores_may_be_numbers_of_numpy():
    scores = {"data": "my photos", "miou": np.float32(0.5), "images": np.int64(20), "iou": {"person": np.float64(0.25)}}
    read = read_scores(scores, hubmodels.PERSON)
    assert read == {"data": "my photos", "miou": 0.5, "images": 20, "iou": {"person": 0.25}}
    assert {type(each) for each in (read["miou"], read["images"], read["iou"]["person"])} == {float, int}


def test_a_row_without_weights_has_no_card():
    with pytest.raises(ValueError, match="no weights of ours"):
        entry_card(ENTRIES["deeplabv3_resnet101"], repo="me/mine")


def test_a_row_that_was_not_scored_yet_has_a_card_that_says_so():
    exported = dataclasses.replace(ENTRIES["u2net_small_person"])
    unscored = {key: value for key, value in exported.measured.items() if key != "metrics"}
    object.__setattr__(exported, "measured", unscored)
    card = ModelCard(entry_card(exported, repo="me/mine"), ignore_metadata_errors=False)
    assert "Not measured yet." in card.content and not card.data.eval_results


def test_a_card_of_ones_own_model_claims_no_scores():
    config = ModelConfig("mine", "u2net_small", {}, PERSON, 320)
    card = ModelCard(
        model_card(config, license="MIT", data="my photos", limits="Hats only."), ignore_metadata_errors=False
    )
    assert card.data.license == "mit" and not card.data.eval_results
    assert "Not measured." in card.content and "Trained on my photos." in card.content and "Hats only." in card.content


OWN = ModelConfig("mine", "u2net_small", {}, PERSON, 320)
METRICS = {
    "miou": 0.81234,
    "iou": {"background": 0.9, "person": float("nan")},
    "images": 7,
    "data": "my photos",
    "x": 1,
}


def test_scores_and_licence_of_ones_own_model_are_in_its_text_and_its_model_index(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps({**METRICS, "boundary_f": 0.5, "boundary_px": 3}))
    text = model_card(OWN, license="apache-2.0", metrics=tmp_path / "scores.json")
    card = ModelCard(text, ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0" and card.data.model_name == "mine"
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {"mean IoU": 81.23, "boundary F-measure": 50.0, "IoU of background": 90.0}
    types = [result.metric_type for result in card.data.eval_results]
    assert types == ["mean_iou", "boundary_f_measure", "iou_of_background"]
    assert {(each.dataset_type, each.dataset_name) for each in card.data.eval_results} == {
        ("my-photos", "my photos, 7 photos")
    }
    for words in ("| mean IoU | 81.23 |", "| 90.0 |", "| - |", "my photos, 7 photos", "within 3 pixels", "apache-2.0."):
        assert words in card.content


def test_scores_by_label_alone_make_a_card_whatever_script_names_the_photos():
    text = model_card(OWN, metrics={"data": "私の写真", "iou": {"person": 0.75}})
    card = ModelCard(text, ignore_metadata_errors=False)
    (result,) = card.data.eval_results
    assert (result.metric_name, result.metric_value) == ("IoU of person", 75.0)
    assert result.dataset_name == "私の写真" and result.dataset_type  # which model-index must not leave empty
    assert "IoU by label: see above." in card.content and "| person | #e69f00 | 75.0 |" in card.content


def test_names_of_labels_are_no_markup():
    labels = LabelSet.custom(["nothing", "a|b", "<i>", "c\\d"])
    text = model_card(ModelConfig("mine", "u2net_small", {}, labels, 320))
    rows = [line.split(" | ") for line in text.splitlines() if line[:3] in ("| 1", "| 2", "| 3")]
    assert [row[1] for row in rows] == [r"a\|b", "&lt;i>", r"c\\d"] and {len(row) for row in rows} == {3}
    assert "| id | label | colour |\n" in text and "every pixel of a photo with one of 4 labels" in text


@pytest.mark.parametrize(
    ("said", "name"), [("My  photos, 2024!", "my-photos-2024"), ("x" * 70, "x" * 64)], ids=["signs", "long"]
)
def test_the_name_of_a_data_set_is_a_short_word(said, name):
    card = ModelCard(model_card(OWN, metrics={"data": said, "miou": 0.5}), ignore_metadata_errors=False)
    assert card.data.eval_results[0].dataset_type == name and card.data.license is None
    assert "Not stated. Say here under which terms" in card.content


def test_a_card_in_another_encoding_is_somebodys_own():
    assert is_generated(model_card(OWN).encode()) and not is_generated(model_card(OWN).encode() + b"x")
    assert not is_generated(model_card(OWN).replace("mine", "yours").encode())
    assert not is_generated("# Mütze\n".encode("latin-1"))


def test_the_results_of_evaluate_are_taken_as_they_are():
    path = ROOT / "training" / "results" / "deeplabv3plus_person.json"
    text = model_card(OWN, metrics=path)
    assert f"| mean IoU | {100 * ENTRIES['deeplabv3plus_person'].metrics['miou']:.2f} |" in text
    assert "Measured on: Fashionista test split, 120 photos. Boundaries agree within 3 pixels." in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"miou": 65.4}, "miou must be in 0..1 .*hundredth.*got 65.4"),
        ({"miou": "0.6"}, "miou must be in 0..1"),
        ({"miou": float("nan")}, "miou must be in 0..1"),
        ({"iou": {"hat": 0.5}}, "iou must be of labels among background, person; got .*hat"),
        ({"iou": {"person": -0.1}}, "iou of person must be in 0..1"),
        ({"miou": None, "iou": {}}, "miou must be in 0..1"),
        ({"miou": True}, "miou must be in 0..1"),
        ({"iou": ["person"]}, "iou must be of labels among background, person"),
        ({"data": ""}, "data must say in a line what the scores are of"),
        ({"data": "a\nb"}, "data must say in a line"),
        ({"data": "x" * 201}, "data must say in a line"),
        ({"images": 0}, "images must be a whole number above 0"),
        ({"images": 1.5}, "images must be a whole number"),
        ({"images": True}, "images must be a whole number"),
    ],
)
def test_scores_that_cannot_be_are_refused_before_anything_is_written(tmp_path, person, change, message):
    with pytest.raises(ValueError, match=message):
        person.save_pretrained(tmp_path / "mine", metrics={**METRICS, **change})
    assert not (tmp_path / "mine").exists()


def test_files_without_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one or more of miou"):
        model_card(OWN, metrics={"data": "my photos"})
    with pytest.raises(FileNotFoundError):
        model_card(OWN, metrics=tmp_path / "none.json")
    for text, message in (
        ("{", "expected a JSON file of scores"),
        (9_999 * "[", "expected a JSON file of scores"),
        ("[1]", "a JSON object of scores; got list"),
    ):
        (tmp_path / "scores.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            model_card(OWN, metrics=tmp_path / "scores.json")
    with pytest.raises(ValueError, match="license must be a name"):
        model_card(OWN, license="mit\nmodel-index: []")


def test_a_card_is_written_anew_until_somebody_edits_it(tmp_path, person):
    card = tmp_path / "README.md"
    person.save_pretrained(tmp_path, license="mit", metrics=METRICS)
    person.save_pretrained(tmp_path, metrics={**METRICS, "miou": 0.5})
    assert "50.00" in card.read_text() and "81.23" not in card.read_text()
    edited = card.read_text().replace("Not described.", "Hats are background.")
    card.write_text(edited)
    person.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"README.md is kept, as somebody wrote it; write license, metrics into it"):
        person.save_pretrained(tmp_path, license="mit", metrics=METRICS)
    assert card.read_text() == edited


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


def test_a_rehearsal_replaces_nothing_but_a_rehearsal(tmp_path):
    entry, card = ENTRIES["deeplabv3plus_person"], tmp_path / "README.md"
    card.write_text("# My project")
    with pytest.raises(ValueError, match=r"holds README\.md, which would be lost"):
        write_repository(entry, "me/mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"] and card.read_text() == "# My project"
    card.unlink()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds config\.json"):
        write_repository(entry, "me/mine", tmp_path)
    (tmp_path / "config.json").unlink()
    write_repository(entry, "me/mine", tmp_path)
    write_repository(entry, "me/other", tmp_path)
    assert "me/other" in card.read_text()
    card.write_text(card.read_text() + "Mine.\n")
    with pytest.raises(ValueError, match="would be lost"):
        write_repository(entry, "me/mine", tmp_path)


@pytest.mark.parametrize("edited", [False, True])
def test_a_card_on_the_hub_that_somebody_edited_is_kept(tmp_path, monkeypatch, edited):
    entry, sent = ENTRIES["deeplabv3plus_person"], []
    there = tmp_path / "README.md"
    there.write_text(entry_card(entry, repo="me/mine") + edited * "Mine.\n")
    monkeypatch.setattr("hubmodels.remote.check_sending", lambda repo: None)
    monkeypatch.setattr("hubmodels.remote.fetch", lambda repo, name, **_: there)
    monkeypatch.setattr("hubmodels.remote.upload", lambda folder, repo, *, files, **_: sent.extend(files) or "address")
    with pytest.warns(UserWarning, match=r"README\.md of me/mine is kept") if edited else nullcontext():
        assert publish(entry, "me/mine") == "address"
    assert set(sent) == {"config.json", "model.safetensors", "example.jpg"} | ({"README.md"} if not edited else set())


def test_publish_refuses_what_makes_no_sense(tmp_path, capsys):
    assert main(["publish", "deeplabv3plus_person", "me/mine", "--out", str(tmp_path)]) == 2
    assert "--out is for --dry-run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="part of the package only"):
        write_repository(ENTRIES["regions_fashion"], "me/mine", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "place"), [("u2net_person", "not in the wheel"), ("u2net_small_person", "in the package")]
)
def test_a_card_says_where_the_weights_are(name, place):
    assert place in entry_card(ENTRIES[name], repo=f"me/{name}").split("```")[0].split("## Use")[1]


def test_a_misspelt_option_of_a_save_is_named(person, tmp_path):
    with pytest.raises(TypeError, match="no option 'licence'; did you mean 'license'"):
        person.save_pretrained(tmp_path / "mine", licence="mit")
    with pytest.raises(TypeError, match="without push_to_hub=True"):
        person.save_pretrained(tmp_path / "mine", private=True)
    with pytest.raises(TypeError, match=r"needs a repository, such as repo_id='user/mine'"):
        person.save_pretrained(tmp_path / "mine", push_to_hub=True)
    with pytest.raises(WeightsError, match="mine: expected user/name"):
        person.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="mine")
    assert not (tmp_path / "mine").exists()
