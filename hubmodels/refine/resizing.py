"""Probabilities of a large photo on their way to the CRF's working size and back, compiled.

`hubmodels.refine.mean_field` imports this module only where the lattices are compiled too, and has the same in PyTorch.
Passes over a photo of 13 megapixels take longer than the CRF itself, so each is one pass, with no array between.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from hubmodels.refine import resize_loops
from hubmodels.refine.simd import LANES
from hubmodels.refine.threads import parts_of, run

LEAST_ROWS = 16  # for a thread of their own


def takes(probs: Tensor) -> bool:
    """Whether these are probabilities (C, H, W) as the loops want them."""
    plain = probs.device.type == "cpu" and probs.dtype == torch.float32 and probs.is_contiguous()
    return plain and probs.shape[2] >= LANES


def mean_logs(probs: Tensor, hw: tuple[int, int], *, floor: float) -> Tensor:
    """Means over areas, (C, h, w) float32, of the logarithms of probs (C, H, W), which count as `floor` at least."""
    out = torch.empty((len(probs), *hw), dtype=torch.float32, device="cpu")  # whatever the defaults are
    loop = partial(resize_loops.mean_logs, probs.numpy(), np.float32(floor))
    run([partial(loop, start, stop, out.numpy()) for start, stop in parts_of(hw[0], least=LEAST_ROWS)])
    return out


def change_probs(probs: Tensor, change: Tensor, *, floor: float) -> Tensor:
    """Probabilities (C, H, W) whose logarithms are those of `probs` and `change` (C, h, w), enlarged bilinearly."""
    _, height, width = probs.shape
    out = torch.empty_like(probs)
    flat, into, least = probs.numpy().reshape(-1), out.numpy().reshape(-1), np.float32(floor)
    loop = partial(resize_loops.change_probs, flat, height, width, change.contiguous().numpy(), least)
    run([partial(loop, start, stop, into) for start, stop in parts_of(height, least=LEAST_ROWS)])
    return out
