"""The grid of photos' sizes on which networks are exact: what they accept, and how other sizes are brought to it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

# The deepest stride. TensorFlow's "same" padding, which EfficientNet-Lite was trained with, adds its odd pixel on one
# side or on both, depending on the size: features shift by up to half a pixel at every stride. Whole multiples are laid
# out like the training crops, and the five poolings of U-2-Net halve them without a rest.
GRID_PX = 32


def check_input(x: torch.Tensor) -> None:
    """Raise ValueError unless `x` is (N, 3, H, W) float with H, W >= GRID_PX; below it features would vanish."""
    if not x.is_floating_point():
        raise ValueError(f"input must be float RGB in 0..1; got {x.dtype}: divide by 255")
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < GRID_PX:
        raise ValueError(f"input must be (N, 3, H, W) with H, W >= {GRID_PX}; got {tuple(x.shape)}")


def pad_to_grid(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) with its last row and column repeated until H and W are whole multiples of GRID_PX."""
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % GRID_PX, 0, -height % GRID_PX), mode="replicate")
