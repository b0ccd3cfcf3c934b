"""Large photos by bands of rows: their probabilities take 28 bytes a pixel at seven labels, so copies must be few."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BAND_VALUES = 1 << 21  # 8 MB of float32; a photo of 600x400 with seven labels is one band


def bands(values: Tensor) -> Iterator[slice]:
    """Slices of rows that cover values (C, H, W), of about `BAND_VALUES` each and one row at least."""
    labels, height, width = values.shape
    rows = max(1, BAND_VALUES // max(1, labels * width))
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))


@torch.no_grad()
def softmax_(logits: Tensor) -> Tensor:
    """Probabilities of logits (C, H, W) over C, written into `logits` itself."""
    for rows in bands(logits):
        logits[:, rows] = logits[:, rows].softmax(0)
    return logits
