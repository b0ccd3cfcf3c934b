"""Recipes of runs that take seconds: a tiny network for both tasks, and one with a CRF on top."""

from __future__ import annotations

import dataclasses

from training.recipe import Recipe
from training.transforms import Augment

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
