"""A CRF on top of a network in training: it learns, it is what validation sees, and tools without it say so."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from hubmodels.entries import ENTRIES
from tests.tiny_runs import WITH_CRF
from training.average import main as average
from training.checkpoint import load_checkpoint
from training.crf_layer import crf_layers
from training.data import load_fashionista
from training.engine import validate
from training.export import export, export_folder
from training.segmenters import load_segmenter
from training.train import Run, train


def test_a_crf_on_top_learns_with_the_network_and_survives_a_stop(drawn, tmp_path):
    run = train(dataclasses.replace(WITH_CRF, epochs=8), folder=tmp_path / "whole", data=drawn)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    (crf,) = run.crfs.values()
    moved = {name: float((value - start).detach().abs().max()) for (name, value), start in zip(
        crf.named_parameters(), crf_layers({"fashion": 7}, WITH_CRF.crf)["fashion"].parameters(), strict=True
    )}  # fmt: skip
    assert set(moved) == {"appearance_weight", "smoothness_weight", "compatibility"} and min(moved.values()) > 0.05
    assert rows[-1]["crf"]["fashion"]["appearance_weight"] == [round(crf.appearance_weight.item(), 3)]

    train(dataclasses.replace(WITH_CRF, epochs=8), folder=tmp_path / "whole", data=drawn, resume=True)
    state = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert torch.equal(state["crfs"]["fashion.compatibility"], crf.compatibility)


def test_the_refined_labels_are_what_is_validated(drawn, tmp_path):
    run = Run(dataclasses.replace(WITH_CRF, crf={**WITH_CRF.crf, "iterations": 1}), tmp_path)
    run.crfs["fashion"].compatibility.data.fill_diagonal_(50.0)  # equal labels repel: surely another answer
    val = load_fashionista(drawn, "val", ["fashion"])
    plain, refined = (
        validate(run.ema.net, val, {"fashion": 7}, long_side_px=64, crfs=crfs)["fashion"].confusion
        for crfs in (None, run.crfs)
    )
    assert (plain != refined).any()


def test_tools_that_leave_the_crf_away_say_so(tmp_path):
    run = Run(WITH_CRF, tmp_path)
    for name in ("best.pt", "last.pt"):
        run.save(name)
    paths = [str(tmp_path / name) for name in ("best.pt", "last.pt")]
    said = r"best\.pt: answers will be the network's alone, without the CRF .*'iterations': 2.*appearance_weight': 3\.0"
    with pytest.warns(UserWarning, match=said):
        export_folder(tmp_path / "best.pt", tmp_path / "out")
    with pytest.warns(UserWarning, match=said):
        load_segmenter(paths[0], "fashion")
    with pytest.warns(UserWarning, match=said), pytest.warns(UserWarning, match=r"last\.pt"):
        average([*paths, "--out", str(tmp_path / "mean.pt")])
    entry = dataclasses.replace(ENTRIES["deeplabv3plus_fashion"], network=WITH_CRF.network)
    with pytest.warns(UserWarning, match=said), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.export.WEIGHTS_FOLDER", tmp_path)
        export(tmp_path / "best.pt", entry)
