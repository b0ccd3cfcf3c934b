"""Networks that train faster on CPU: same results up to rounding, same state dicts.

PyTorch's CPU backward for dilated depthwise convolutions takes a slow path. A convolution of dilation d equals an
ordinary one on each of the d x d sub-grids of pixels, so the sub-grids are stacked along the batch, convolved without
dilation, and put back ("space to batch", as in the first DeepLab implementations).

Batch norms that a recipe freezes become part of the convolutions before them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hubmodels.networks.folding import folded_tensors
from hubmodels.networks.u2net import ConvBnRelu


class SpaceToBatchConv2d(nn.Conv2d):
    """A stride-1, size-keeping, dilated depthwise `nn.Conv2d`, computed on sub-grids."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        d = self.dilation[0]
        n, c, h, w = x.shape
        x = F.pad(x, (0, -w % d, 0, -h % d))  # zeros beyond the edge, as the padding of the convolution itself
        rows, cols = x.shape[2] // d, x.shape[3] // d
        grids = x.view(n, c, rows, d, cols, d).permute(0, 3, 5, 1, 2, 4).reshape(n * d * d, c, rows, cols)
        grids = grids.contiguous(memory_format=torch.channels_last)
        pad = (self.kernel_size[0] // 2, self.kernel_size[1] // 2)
        y = F.conv2d(grids, self.weight, self.bias, padding=pad, groups=self.groups)
        y = y.reshape(n, d, d, c, rows, cols).permute(0, 3, 4, 1, 5, 2).reshape(n, c, rows * d, cols * d)
        return y[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


def use_space_to_batch(net: nn.Module, *, max_dilation: int = 2) -> int:
    """Switch eligible convolutions of `net` in place; returns how many. State-dict names stay as they are."""
    switched = 0
    for module in net.modules():
        if type(module) is not nn.Conv2d or module.groups != module.in_channels or module.groups == 1:
            continue
        d, k = module.dilation, module.kernel_size
        same = isinstance(module.padding, tuple) and all(
            p == step * (size // 2) for p, step, size in zip(module.padding, d, k, strict=True)
        )
        if module.stride == (1, 1) and same and d[0] == d[1] and 1 < d[0] <= max_dilation:
            module.__class__ = SpaceToBatchConv2d
            switched += 1
    return switched


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
