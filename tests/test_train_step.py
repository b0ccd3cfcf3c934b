"""One step of training by hand: what the loss is made of, what is clipped, and what stays as it is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer

from hubmodels.metrics import IGNORE
from tests.tiny_runs import TINY, WITH_CRF
from training.checkpoint import load_checkpoint
from training.data import Sample, load_fashionista
from training.errors import DivergedError
from training.losses import cross_entropy
from training.train import Run, set_train_mode, train, train_step
from training.transforms import Augment

STILL = Augment((64, 48), (1.0, 1.0), 0, 0, 0, 0)


def step(run: Run, samples: list[Sample]) -> float:
    return train_step(run, samples, np.arange(len(samples)), step=0, steps=10)


def test_the_loss_of_a_step_by_hand(tmp_path):
    """A quarter of the pixels is a person, all have soft labels of clothing; logits are 0, but 1 for person."""
    person = np.zeros((64, 48), np.uint8)
    person[:32, :24] = 1
    undecided, soft = np.full((64, 48), IGNORE, np.uint8), np.zeros((7, 32, 24), np.uint8)
    soft[0], soft[1] = 102, 153  # 0.4 and 0.6
    sample = Sample(
        "drawn", np.zeros((64, 48, 3), np.uint8), {"person": person, "fashion": undecided}, {"fashion": soft}
    )
    recipe = dataclasses.replace(
        TINY,
        augment=STILL,
        loss={"cross_entropy": 1.0},
        class_weight={"person": (1.0, 6.0)},
        task_weight={"person": 0.5, "fashion": 3.0},
        soft_labels="drawn",
        soft_weight=2.0,
    )
    run = Run(recipe, tmp_path)
    person_logits = torch.tensor([0.0, 1.0], requires_grad=True)
    fashion_logits = torch.tensor([1.0, *[0.0] * 6], requires_grad=True)

    def answers(images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        return {
            task: [logits.view(1, -1, 1, 1).expand(len(images), -1, 64, 48)]
            for task, logits in (("person", person_logits), ("fashion", fashion_logits))
        }

    run.model = answers
    wrong, right = math.log(1 + math.e), math.log(1 + math.e) - 1  # of background, which is called person, and person
    hard = (3 * 1.0 * wrong + 1 * 6.0 * right) / (3 * 1.0 + 1 * 6.0)
    taught = math.log(math.e + 6) - 0.4 * 1.0
    assert step(run, [sample]) == pytest.approx(0.5 * hard + 3.0 * 2.0 * taught, rel=1e-5)


def test_gradients_are_clipped_to_their_bound(drawn, tmp_path):
    run = Run(dataclasses.replace(TINY, tasks=("person",), task_weight={"person": 1e5}), tmp_path)
    step(run, load_fashionista(drawn, "train", ["person"]))
    norms = [parameter.grad.norm() for parameter in run.net.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norms_keep_their_statistics(drawn, tmp_path, frozen):
    run = Run(dataclasses.replace(TINY, freeze_batch_norm=frozen), tmp_path)
    before = {name: value.clone() for name, value in run.net.named_buffers() if "running_" in name}
    set_train_mode(run)
    assert run.net.training
    step(run, load_fashionista(drawn, "train", TINY.tasks))
    after = dict(run.net.named_buffers())
    same = [torch.equal(value, after[name]) for name, value in before.items()]
    assert len(same) > 50 and (all(same) if frozen else not any(same))


def test_pixels_of_labels_without_weight_are_no_loss():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.long), torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_a_run_without_a_weighted_label_in_a_batch_stays_finite(drawn, tmp_path):
    samples = load_fashionista(drawn, "train", ["person"])
    nobody = [dataclasses.replace(sample, labels={"person": sample.labels["person"] * 0}) for sample in samples]
    recipe = dataclasses.replace(
        TINY, tasks=("person",), loss={"cross_entropy": 1.0}, class_weight={"person": (0.0, 1.0)}
    )
    run = Run(recipe, tmp_path)
    assert step(run, nobody) == 0
    assert all(torch.isfinite(value).all() for value in run.net.state_dict().values())


def test_a_loss_that_is_no_number_stops_the_run_before_its_step(drawn, tmp_path, monkeypatch):
    run = Run(TINY, tmp_path)
    run.epoch, run.step_in_epoch = 1, 2
    before = {name: value.clone() for name, value in run.net.named_parameters()}
    real = run.model
    monkeypatch.setattr(run, "model", lambda x: {t: [m * math.nan for m in maps] for t, maps in real(x).items()})
    with pytest.raises(DivergedError, match=r"recipe 'tiny': expected a finite loss; got nan in step 3 of epoch 2"):
        step(run, load_fashionista(drawn, "train", TINY.tasks))
    for net in (run.net, run.ema.net):
        assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


@pytest.mark.parametrize("part", ["net", "crfs"])
def test_a_gradient_that_is_no_number_stops_the_run_before_its_step(drawn, tmp_path, part):
    run = Run(WITH_CRF, tmp_path)
    *_, last = getattr(run, part).parameters()
    last.register_hook(lambda gradient: gradient * math.inf)
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    with pytest.raises(DivergedError, match=r"expected a finite norm of the gradients; got (nan|inf) in step 1 of ep"):
        step(run, load_fashionista(drawn, "train", WITH_CRF.tasks))
    assert all(torch.equal(value, before[name]) for name, value in run.model.named_parameters())


def test_a_scaler_skips_steps_that_are_not_finite_itself(drawn, tmp_path):
    """As that of fp16 does, here on the CPU: it tries again with smaller gradients."""
    run = Run(TINY, tmp_path)
    scaler = run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    run.stepper = AcceleratedOptimizer(run.optimizer, scaler=scaler)
    *_, last = run.net.parameters()
    last.register_hook(lambda gradient: gradient * math.inf)
    before = last.clone()
    step(run, load_fashionista(drawn, "train", TINY.tasks))
    assert torch.equal(last, before) and scaler.get_scale() == 2.0


def test_the_last_checkpoint_of_a_diverged_run_is_good(drawn, tmp_path):
    with pytest.raises(DivergedError):
        train(
            dataclasses.replace(TINY, lr=1e30, epochs=3, warmup_share=0.0),
            folder=tmp_path / "run",
            data=drawn,
            checkpoint_seconds=0,
        )
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    assert all(math.isfinite(loss) for loss in state["losses"])
    for part in ("net", "ema"):
        assert all(torch.isfinite(value).all() for value in state[part].values())
