"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from training.recipe import Recipe


def lr_factor(recipe: Recipe, step: int, steps: int, scores: Sequence[float] = ()) -> float:
    """Share of the peak learning rate at `step` of `steps` (from 0).

    `one_cycle` rises linearly over `warmup_share` of the steps and falls by a half cosine (Smith & Topin 2018);
    `poly` falls as (1 - step / steps) ** 0.9 (Chen et al. 2017); `plateau` halves each time when `scores`, those on
    val after every epoch so far, have not risen for `plateau_epochs`.
    """
    if recipe.schedule == "plateau":
        return 0.5 ** standstills(scores, recipe.plateau_epochs)
    progress = step / max(1, steps)
    if recipe.schedule == "poly":
        return (1 - progress) ** 0.9
    warmup = recipe.warmup_share
    if progress < warmup or warmup == 1:
        return 0.04 + 0.96 * progress / warmup
    return max(0.001, 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))))


def standstills(scores: Sequence[float], epochs: int) -> int:
    """How often `scores` went without a new best for `epochs` in a row; each time the wait starts anew."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == epochs:
            waited, count = 0, count + 1
    return count
