"""Optimizers by the name that a recipe gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

# AdamW takes weight decay apart from the gradient (Loshchilov & Hutter 2019); Adam and SGD add it to the gradient.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),  # the momentum of DeepLab (Chen et al. 2017)
}


def build_optimizer(name: str, groups: Iterable[dict[str, Any]], *, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of a recipe over parameter groups that each carry their own "lr"."""
    return OPTIMIZERS[name](groups, weight_decay=weight_decay)
