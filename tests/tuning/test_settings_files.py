"""Files of settings, as the page and `hubmodels tune` write and `hubmodels label` reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubmodels import LabelSet, Refinement
from hubmodels.cli import main
from hubmodels.labels import PERSON
from hubmodels.settings_files import check_tuned_for, encoded_settings, read_settings


def test_files_of_settings(tmp_path):
    path = tmp_path / "s.json"
    path.write_bytes(b'\xef\xbb\xbf{"task": "fashion", "crf_iterations": 3}')  # as Windows' editor saves it
    assert read_settings(path) == ({"crf_iterations": 3}, "fashion")
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file of settings; the page and"):
        read_settings(tmp_path / "none.json")
    for text, message in (
        ("{", r"s\.json: expected a JSON file of settings"),
        ("[1]", r"s\.json: expected a JSON object of settings; got list"),
        ('{"task": "pets"}', r"s\.json: expected a task of .*got 'pets'"),
        ('{"task": ["person"]}', r"s\.json: expected a task of .*got \['person'\]"),
        ('{"task": ""}', r"s\.json: expected a task of .*got ''"),
        ("[" * 200_000, r"s\.json: expected a JSON file of settings"),
        ('{"crf_iterations": 99}', r"s\.json: crf_iterations"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_settings(path)


def test_settings_of_one_task_are_not_for_another(folders, tmp_path, capsys):
    path = tmp_path / "s.json"
    path.write_text('{"task": "person", "min_region_px": 5}')
    call = ["label", str(folders[0]), "--out", str(tmp_path / "out"), "--settings", str(path)]
    assert main([*call, "--model", "deeplabv3_fashion"]) == 2
    said = "tuned for person, but deeplabv3_fashion labels fashion; choose another model, or say --task fashion"
    assert said in capsys.readouterr().err
    assert main([*call, "--model", "deeplabv3_fashion", "--task", "fashion", "--bf16", "--runtime", "onnx"]) == 2
    assert "leave out --bf16" in capsys.readouterr().err  # which comes after
    assert Refinement.from_dict(json.loads(path.read_text())) == Refinement(min_region_px=5)


@pytest.mark.parametrize("task, said", [("person", "person"), ("fashion", "fashion"), ("custom", None), (None, None)])
def test_a_file_says_for_which_published_task_its_settings_were_tuned(tmp_path, task, said):
    """What labels of one's own are called is nothing that another machine knows."""
    settings = Refinement(min_region_px=5, vote="majority")
    (tmp_path / "s.json").write_bytes(encoded_settings(settings, task))
    assert read_settings(tmp_path / "s.json") == (settings.to_dict(), said)


def test_a_file_of_settings_has_a_line_for_each_and_begins_with_the_task():
    first, *lines, last = encoded_settings(Refinement(), "person").decode().splitlines(keepends=True)
    assert (first, lines[0], last) == ("{\n", ' "task": "person",\n', "}\n")
    assert len(lines) == 1 + len(Refinement().to_dict())


def test_settings_without_a_task_are_for_any_labels_and_a_way_round_is_named_where_there_is_one():
    hats, path = LabelSet.custom(["none", "hat"]), Path("s.json")
    for tuned_for, task, labels in ((None, "person", PERSON), (None, None, hats), ("person", "person", PERSON)):
        check_tuned_for(path, tuned_for, task, labels, model="m")
    refused = r"^s\.json was tuned for person, but m labels none, hat; choose another model"
    with pytest.raises(ValueError, match=refused + "$"):
        check_tuned_for(path, "person", None, hats, model="m")
    with pytest.raises(ValueError, match=refused + ", or say so to take the settings all the same$"):
        check_tuned_for(path, "person", None, hats, model="m", anyway="say so")
