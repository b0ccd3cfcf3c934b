"""A drawn photo with noisy logits, which the tests of the CRF share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LITERAL = {"reference_hw": None}  # sigmas in pixels as they are, as in pydensecrf


def scene(height: int = 24, width: int = 20, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A bright disc on a dark slope, and noisy logits that vote for it: (1, C, H, W), (1, 3, H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) / 3) ** 2
    image = np.where(disc[..., None], [200, 150, 120], np.stack([y * 2, x * 2, y + x], -1))
    image = image + rng.normal(0, 4, image.shape)
    logits = rng.normal(0, 1, (classes, height, width))
    logits[min(1, classes - 1)] += 1.5 * disc
    logits[0] += 1.5 * ~disc
    photo = torch.from_numpy(image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)
    return torch.from_numpy(logits.astype(np.float32))[None], photo[None]
