"""Runs: two photos are learnt, a stopped run ends like an unbroken one, the best epoch of each task is kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import training.train
from hubmodels.labels import FASHION
from hubmodels.metrics import IGNORE, Scores
from tests.conftest import ROOT
from tests.drawn_data import draw_data
from tests.tiny_runs import TINY
from training.checkpoint import load_checkpoint
from training.data import Sample
from training.photos import unseen_labels
from training.train import epoch_order, train
from training.transforms import Augment


def weights_of(run):
    return {**run.net.state_dict(), **{f"ema.{k}": v for k, v in run.ema.net.state_dict().items()}}


def test_a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_weights(drawn, tmp_path, monkeypatch):
    whole = train(TINY, folder=tmp_path / "whole", data=drawn)

    class Stopped(Exception):
        pass

    real, count = training.train.train_step, []

    def stop_after_two(*args, **kwargs):
        if len(count) == 2:  # the epoch has 3 steps
            raise Stopped
        count.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(training.train, "train_step", stop_after_two)
    with pytest.raises(Stopped):
        train(TINY, folder=tmp_path / "parts", data=drawn, checkpoint_seconds=0)
    monkeypatch.setattr(training.train, "train_step", real)
    resumed = train(TINY, folder=tmp_path / "parts", data=drawn, resume=True)
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[name]), name
    assert resumed.best == whole.best


def test_two_photos_are_learnt(tmp_path):
    drawn = draw_data(tmp_path / "data", np.random.default_rng(1), count=3)
    recipe = dataclasses.replace(
        TINY,
        epochs=60,
        sources=("fashionista",),
        lr=1e-2,
        ema_decay=0.0,
        augment=Augment((64, 48), (1.0, 1.0), 0, 0, 0, 0),
    )
    train(recipe, folder=tmp_path / "run", data=drawn)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.25 * losses[0]


def test_of_equal_epochs_the_later_is_kept_and_labels_never_found_are_named(drawn, tmp_path, monkeypatch, caplog):
    """While small labels are not found yet, all epochs score the same, and the first has learnt least."""
    shoes = FASHION.id_of("shoes")  # the label of the third photo, which is for both here
    (drawn / "fashionista" / "splits.json").write_text('{"train": [1, 2, 3], "val": [3]}')

    def validated(net, *_, **__):
        scores = Scores(7)
        scores.add(np.array([[0, 0, shoes, 0]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
        return {"fashion": scores}

    monkeypatch.setattr(training.train, "validate", validated)
    monkeypatch.setattr(training.train, "add_up", lambda *_: None)
    train(dataclasses.replace(TINY, epochs=2, tasks=("fashion",)), folder=tmp_path, data=drawn)
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 2
    # Skin was called, and is nowhere.
    assert "fashion: no pixel of shoes was labelled right" in caplog.text


def test_labels_that_no_photo_shows_are_named_before_the_first_step(drawn, tmp_path, monkeypatch, caplog):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.train, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(TINY, sources=("fashionista",)), folder=tmp_path, data=drawn)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [message.split(":")[0] for message in said] == 3 * ["fashion"]  # persons are everywhere
    assert "no pixel of skin, dress in any photo: this cannot be learnt; add photos that show it" in said[0]
    assert "no pixel of pants in the train photos: this cannot be learnt; move photos that show it" in said[1]
    assert "no pixel of hair, t-shirt, shoes in the val photos: nothing judges this" in said[2]


def test_a_label_that_only_a_teacher_shows_can_be_learnt():
    nothing, soft = np.full((4, 4), IGNORE, np.uint8), np.zeros((2, 2, 2), np.uint8)
    soft[1] = 9
    sample = Sample("drawn", np.zeros((4, 4, 3), np.uint8), {"person": nothing}, {"person": soft})
    assert unseen_labels([sample], TINY, "person") == ["background"]


def test_every_task_keeps_its_own_best_epoch(drawn, tmp_path, monkeypatch):
    scores = iter([(0.2, 0.9), (0.6, 0.8), (0.5, 0.7)])  # fashion is best in the second epoch, person in the first

    def validated(net, *_, **__):
        pairs = zip(TINY.tasks, next(scores), strict=True)
        nothing = np.zeros((2, 2))
        return {t: SimpleNamespace(miou=v, pixel_accuracy=v, iou=[v], confusion=nothing) for t, v in pairs}

    monkeypatch.setattr(training.train, "validate", validated)
    monkeypatch.setattr(training.train, "add_up", lambda *_: None)
    train(dataclasses.replace(TINY, epochs=1), folder=tmp_path, data=drawn)
    train(dataclasses.replace(TINY, epochs=3), folder=tmp_path, data=drawn, resume=True)
    kept = {path.name: load_checkpoint(path)["epoch"] for path in tmp_path.glob("best*.pt")}
    assert kept == {"best.pt": 2, "best_fashion.pt": 2, "best_person.pt": 1}


def test_an_epoch_shows_every_photo_once_and_drops_the_incomplete_batch():
    batches = epoch_order(7, TINY, epoch=0)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert len(set(np.concatenate(batches))) == 6
    assert not all(np.array_equal(a, b) for a, b in zip(batches, epoch_order(7, TINY, epoch=1), strict=True))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_other_optimizers_train_and_resume(drawn, tmp_path, optimizer):
    recipe = dataclasses.replace(TINY, optimizer=optimizer, schedule="plateau", plateau_epochs=1, lr=1e-2)
    run = train(recipe, folder=tmp_path, data=drawn)
    resumed = train(dataclasses.replace(recipe, epochs=3), folder=tmp_path, data=drawn, resume=True)
    assert type(resumed.optimizer).__name__.lower() == optimizer
    assert resumed.scores[:2] == run.scores and len(resumed.scores) == 3


def test_the_command_trains(drawn, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'tasks = ["person"]\narch = "deeplabv3"\nepochs = 1\ninit = "random"\nbatch_size = 2\ncompile = false\n'
        "eval_long_side_px = 64\n[network]\nchannels = 8\n[augment]\ncrop_hw = [64, 48]\nscale = [0.9, 1.1]\n"
    )
    call = [sys.executable, "-m", "training.train", str(recipe), "--data", str(drawn), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "runs" / "tiny").iterdir()} == {"last.pt", "best.pt", "log.jsonl"}
