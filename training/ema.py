"""Exponential moving average of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """A running average of a network, kept in a copy of it.

    Early steps use decay (1 + t) / (10 + t), so that the average does not remember the starting point; batch norm
    statistics are averaged like weights, integer buffers are copied.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Move the average towards `net` after optimizer step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
