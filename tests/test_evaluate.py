"""The command that scores a model: where its results go, on a drawing."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import hubmodels.remote
import training.evaluate
from hubmodels import FASHION, Segmenter
from hubmodels.refine import Refinement
from tests.drawn_data import draw_data
from tests.fixed_network import Fixed
from training.arguments import count, scale
from training.compare import main as compare
from training.ensemble import main as ensemble
from training.errors import CommandError
from training.evaluate import main
from training.report import main as report
from training.seeds import main as seeds
from training.train_regions import main as train_regions
from training.tune import main as tune


@pytest.fixture
def results(tmp_path, monkeypatch, fashion):
    """Calls the command on one drawn test photo; gives the files it wrote, by name."""
    splits = {"train": [1], "val": [2], "test": [3]}
    drawn = draw_data(tmp_path / "data", np.random.default_rng(0), size=(64, 96), splits=splits)
    folder = tmp_path / "results"
    monkeypatch.setattr(training.evaluate, "RESULTS", folder)
    monkeypatch.setattr(training.evaluate, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(training.evaluate, "load_model", lambda name: copy.deepcopy(fashion))  # --bf16 changes it
    (tmp_path / "manifest.json").write_text(json.dumps({fashion.name: {"sha256": "0" * 64}}))

    def call(*arguments):
        main([fashion.name, *arguments, "--data", str(drawn)])
        return {path.stem.removeprefix(fashion.name): json.loads(path.read_text()) for path in folder.glob("*.json")}

    return call


def test_every_way_of_asking_has_a_file_of_its_own(results):
    strong = Refinement.preset("strong", task="fashion").to_dict()
    assert set(results()) == {""}
    assert set(results("--flip")) == {"", "_augmented"}
    assert set(results("--preset", "strong")) == {"", "_augmented", "_strong"}
    written = results("--preset", "strong", "--scales", "0.75", "1.0")
    assert set(written) == {"", "_augmented", "_strong", "_strong_augmented"}
    said = {name: {key: row.get(key) for key in ("refinement", "flip", "scales")} for name, row in written.items()}
    nothing = {"refinement": None, "flip": None, "scales": None}
    assert said == {
        "": nothing,
        "_augmented": {"refinement": None, "flip": True, "scales": [1.0]},
        "_strong": {**nothing, "refinement": strong},
        "_strong_augmented": {"refinement": strong, "flip": False, "scales": [0.75, 1.0]},
    }
    assert all(row["images"] == 1 and len(row["sha256"]) == 64 for row in written.values())


def test_the_plain_scores_go_to_the_manifest_and_no_others(results, tmp_path):
    results("--flip")
    results("--preset", "gentle")
    assert "metrics" not in (tmp_path / "manifest.json").read_text()
    plain = results()[""]
    (row,) = json.loads((tmp_path / "manifest.json").read_text()).values()
    assert row["metrics"]["miou"] == plain["miou"]


@pytest.mark.parametrize("options", [[], ["--flip"]])
def test_other_splits_are_only_printed(results, tmp_path, capsys, options):
    assert not results("--split", "val", *options)
    assert "metrics" not in (tmp_path / "manifest.json").read_text()
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_what_a_photo_shows_may_be_told(results, monkeypatch):
    """A network that sees a dress everywhere, then shoes; the mask has shoes and no dress."""
    network = Fixed([1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 3.0])
    monkeypatch.setattr(training.evaluate, "load_model", lambda name: Segmenter(network, FASHION, name=name).eval())
    plain, told = results()[""], results("--known")["_known"]
    shown, (before, after) = np.sum(plain["confusion"], 1), (np.sum(row["confusion"], 0) for row in (plain, told))
    assert shown[4] and not shown[6]
    assert before.nonzero()[0].tolist() == [6] and after.nonzero()[0].tolist() == [4]
    assert told["known"] is True and "known" not in plain
    assert "_gentle_known" in results("--known", "--preset", "gentle")


def test_half_precision_has_a_file_of_its_own(results, tmp_path):
    written = results("--bf16")
    assert set(written) == {"_bf16"} and written["_bf16"]["images"] == 1
    assert "metrics" not in (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize("other", [["--flip"], ["--scales", "0.5"], ["--preset", "gentle"], ["--known"]])
def test_half_precision_with_other_ways_is_refused_before_the_work(monkeypatch, capsys, other):
    monkeypatch.setattr(training.evaluate, "subject", None)
    with pytest.raises(SystemExit):
        main(["deeplabv3plus_fashion", "--bf16", *other])
    assert "--bf16 is scored by itself: leave out --preset, --flip, --scales and --known" in capsys.readouterr().err


def test_the_smallest_and_the_largest_scale_and_a_single_photo_may_be_asked_for():
    assert (scale("0.25"), scale("2"), count("1")) == (0.25, 2.0, 1)


@pytest.mark.parametrize("text", ["0", "3", "nan", "-1", "x"])
def test_a_scale_that_no_photo_is_looked_at_in_is_refused_before_the_work(monkeypatch, capsys, text):
    monkeypatch.setattr(training.evaluate, "subject", None)
    with pytest.raises(SystemExit):
        main(["deeplabv3plus_fashion", "--scales", "1", text])
    assert f"--scales: expected a number in 0.25..2; got {text!r}" in capsys.readouterr().err


def test_a_preset_for_a_region_classifier_is_refused_before_the_work(monkeypatch, capsys):
    def refuse(*args):
        raise AssertionError("work was done")

    monkeypatch.setattr(training.evaluate, "subject", refuse)
    with pytest.raises(SystemExit):
        main(["regions_fashion", "--preset", "gentle"])
    assert "regions_fashion comes with post-processing of its own: leave out --preset" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [main, report, compare, lambda argv: tune(["crf", *argv]), lambda argv: seeds([*argv, "last.pt"])]
)
def test_a_head_that_was_never_trained_is_not_measured(monkeypatch, command):
    monkeypatch.setattr(hubmodels.remote, "fetch", None)  # the backbone's weights would come from the Hub
    arguments = ["deeplabv3_resnet101", "last.pt"] if command is compare else ["deeplabv3_resnet101"]
    with pytest.raises(CommandError, match="trained weights; deeplabv3_resnet101 has none of ours"):
        command(arguments)


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (
            tune,
            ["crf", "deeplabv3plus_person", "--limit", "0"],
            "--limit: expected a whole number of 1 or more",
        ),
        (train_regions, ["deeplabv3plus_fashion", "--limit", "-1"], "whole number of 1 or more; got '-1'"),
        (
            compare,
            ["deeplabv3plus_person", "last.pt", "--input-px", "5"],
            "--input-px: expected pixels in 32..4096",
        ),
        (ensemble, ["out", "deeplabv3plus_person", "u2net_person", "--input-px", "x"], "32..4096; got 'x'"),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_parser(capsys, command, options, said):
    with pytest.raises(SystemExit) as ended:
        command(options)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_of_two_labels_none_can_be_known_to_be_absent(monkeypatch, capsys):
    monkeypatch.setattr(training.evaluate, "subject", None)
    with pytest.raises(SystemExit):
        main(["deeplabv3plus_person", "--known"])
    assert "deeplabv3plus_person has only background and person" in capsys.readouterr().err
