"""Optimizers, schedules and the average of weights, worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny_runs import TINY
from training.ema import Ema
from training.optimizers import build_optimizer
from training.schedules import lr_factor


def test_schedules():
    one_cycle = dataclasses.replace(TINY, warmup_share=0.25)
    rates = [lr_factor(one_cycle, step, 100) for step in range(100)]
    assert lr_factor(dataclasses.replace(TINY, warmup_share=1.0), 100, 100) == pytest.approx(1.0)
    assert np.argmax(rates) == 25 and rates[25] == 1 and rates[0] == pytest.approx(0.04) and rates[-1] < 0.01
    assert lr_factor(one_cycle, 100, 100) == 0.001
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


def test_the_average_of_weights_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0)
    ema = Ema(net, decay=0.5)
    net.weight.data.fill_(1)
    ema.update(net, step=0)  # early: decay 1/10
    assert ema.net.weight.item() == pytest.approx(0.9)
    ema.update(net, step=100)  # later: 0.5
    assert ema.net.weight.item() == pytest.approx(0.95)


def test_the_average_of_a_batch_norm_has_averaged_statistics_and_the_last_count():
    net = nn.BatchNorm1d(1)
    ema = Ema(net, decay=0.75)
    net.running_mean.fill_(1)
    net.num_batches_tracked.fill_(7)
    ema.update(net, step=100)
    assert ema.net.running_mean.item() == 0.25 and ema.net.num_batches_tracked.item() == 7
    assert net.training and not ema.net.training  # which validation goes through as it is


def test_without_a_decay_the_average_is_the_last_network():
    net = nn.Linear(3, 2)
    ema = Ema(net, decay=0.0)
    net.weight.data.add_(0.1)
    ema.update(net, step=0)
    assert torch.equal(ema.net.weight, net.weight)
