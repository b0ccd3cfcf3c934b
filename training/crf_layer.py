"""A dense CRF after a network, trained with it end to end (Zheng et al. 2015, CRF as RNN)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hubmodels.refine import DenseCRF

OWN_KEYS = {"lr_factor", "learn_compatibility"}  # of a recipe's [crf] table; the others are DenseCRF's


def crf_layers(tasks: Mapping[str, int], table: Mapping[str, Any]) -> nn.ModuleDict:
    """One CRF per task (name -> number of labels), as the [crf] table of a recipe says; none if it is empty.

    Reaches in pixels are taken as they are, because a crop is not a small photo.

    Raises:
        TypeError, ValueError: an unknown key or a value out of range.
    """
    if not table:
        return nn.ModuleDict()
    settings = {key: value for key, value in table.items() if key not in OWN_KEYS}
    learnt = table.get("learn_compatibility", False)
    return nn.ModuleDict(
        {
            task: DenseCRF(num_classes=count if learnt else None, reference_hw=None, **settings)
            for task, count in tasks.items()
        }
    )


def refined(crfs: nn.ModuleDict, task: str, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Logits (N, C, H, W) of a task after its CRF, if it has one; images are (N, 3, H, W) float RGB in 0..1."""
    if task not in crfs:
        return logits
    return crfs[task](logits, (images * 255).round().clamp(0, 255).to(torch.uint8))


def learnt_values(crfs: nn.ModuleDict) -> dict[str, dict[str, Any]]:
    """What the CRFs have learnt, for the log."""
    return {
        task: {name: [round(v, 3) for v in value.detach().flatten().tolist()] for name, value in crf.named_parameters()}
        for task, crf in crfs.items()
    }
