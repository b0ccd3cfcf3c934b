"""Files of settings, as the page and `hubmodels tune` write and `hubmodels label` reads them."""

from __future__ import annotations

import json

import pytest

from hubmodels import Refinement
from hubmodels.cli import main
from hubmodels.settings_files import read_settings


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
