"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from training.recipe import Recipe


def lr_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` of `steps` (from 0).

    `one_cycle` rises linearly over `warmup_share` of the steps and falls by a half cosine (Smith & Topin 2018);
    `poly` falls as (1 - step / steps) ** 0.9 (Chen et al. 2017).
    """
    progress = step / max(1, steps)
    if recipe.schedule == "poly":
        return (1 - progress) ** 0.9
    warmup = recipe.warmup_share
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return max(0.001, 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))))
