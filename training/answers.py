"""Network and CRFs of a run as one module."""

from __future__ import annotations

import torch
from torch import nn

from training.crf_layer import refined
from training.engine import task_rows
from training.recipe import Recipe


class Answers(nn.Module):
    """What the losses of a recipe are taken of; one module, so that gradients of all its parts are averaged together.

    The parts keep the state dicts that checkpoints hold: nothing is saved of this module itself.
    """

    def __init__(self, recipe: Recipe, net: nn.Module, crfs: nn.ModuleDict) -> None:
        super().__init__()
        self.net, self.crfs = net, crfs
        self.deep, self.rows = recipe.deep_supervision, task_rows(recipe.label_counts)
        forward = net.forward_sides if self.deep else net.forward
        self.ask = torch.compile(forward) if recipe.compile else forward

    def forward(self, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        """(N, 3, H, W) float RGB in 0..1 -> task -> maps of float32 logits (N, C, H, W): one, or seven of U-2-Net."""
        answer = self.ask(images)
        maps = answer if self.deep else [answer]
        return {
            task: [refined(self.crfs, task, logits[:, rows].float(), images) for logits in maps]
            for task, rows in self.rows.items()
        }
