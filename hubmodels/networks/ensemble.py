"""Several networks that answer together: their probabilities are averaged.

Source: Hansen and Salamon 1990, "Neural Network Ensembles": networks that err in different places outvote each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class Ensemble(nn.Module):
    """One network made of several with the same labels.

    Args:
        members: (N, 3, H, W) float -> (N, C, H, W) logits each, the same C; two or more.

    Raises:
        ValueError: fewer than two.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ValueError(f"an ensemble needs two or more members; got {len(members)}")
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) float RGB in 0..1 -> (N, C, H, W): logarithms of the mean of the members' probabilities.

        They are logits like those of any network, as softmax gives back the mean.
        """
        logs = torch.stack([member(x).log_softmax(1) for member in self.members])
        return logs.logsumexp(0) - math.log(len(self.members))
