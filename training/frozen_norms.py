"""Frozen batch norms that cost nothing in training: same results up to rounding, same state dicts.

Batch norms that a recipe freezes become part of the convolutions before them.
"""

from __future__ import annotations

import torch
from torch import nn

from hubmodels.networks.folding import folded_tensors
from hubmodels.networks.u2net import ConvBnRelu


class FoldedBatchNorm2d(nn.BatchNorm2d):
    """A frozen batch norm whose effect has moved into the convolution before it; its own tensors say identity."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@torch.no_grad()
def fold_frozen_batch_norms(net: nn.Module) -> int:
    """Move the batch norms of U-2-Net into their convolutions, in place; returns how many.

    For training with frozen batch norm, which then costs no pass over the maps. What the network computes in eval
    mode stays, as do the names of its state dict, which loads into an ordinary network.
    """
    folded = 0
    for module in net.modules():
        if isinstance(module, ConvBnRelu):
            conv, norm = module.conv_s1, module.bn_s1
            weight, bias = folded_tensors(conv, norm)
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0)
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.zero_()
            norm.requires_grad_(False)  # DistributedDataParallel would wait for gradients that never come
            norm.__class__ = FoldedBatchNorm2d
            folded += 1
    return folded
