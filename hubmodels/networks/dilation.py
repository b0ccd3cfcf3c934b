"""Dilated depthwise convolutions computed without dilation, where CPUs are slow with it.

A convolution of dilation d equals an ordinary one on each of the d x d sub-grids of pixels. So the sub-grids are
stacked along the batch, convolved without dilation, and put back: "space to batch", as in the first implementations of
DeepLab.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

FAST_PADDING_PX = 4


class SpaceToBatchConv2d(nn.Conv2d):
    """A dilated depthwise `nn.Conv2d` of stride 1 that keeps the size of maps, computed on sub-grids.

    (N, C, H, W) -> (N, C, H, W), equal up to rounding. Maps are best channels last, so that a pixel's channels are
    moved as one.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        d, (n, c, h, w) = self.dilation[0], x.shape
        x = F.pad(x, (0, -w % d, 0, -h % d))  # zeros beyond the edge, as the padding of the convolution itself
        rows, cols = x.shape[2] // d, x.shape[3] // d
        pixels = x.permute(0, 2, 3, 1).reshape(n, rows, d, cols, d, c)
        grids = pixels.permute(0, 2, 4, 1, 3, 5).reshape(n * d * d, rows, cols, c).permute(0, 3, 1, 2)
        padding = (self.kernel_size[0] // 2, self.kernel_size[1] // 2)
        y = F.conv2d(grids, self.weight, self.bias, padding=padding, groups=self.groups)
        pixels = y.permute(0, 2, 3, 1).reshape(n, d, d, rows, cols, c)
        y = pixels.permute(0, 3, 1, 4, 2, 5).reshape(n, rows * d, cols * d, c).permute(0, 3, 1, 2)
        return y[:, :, :h, :w]


def use_space_to_batch(network: nn.Module, *, padding_px_above: int = 0) -> int:
    """Switch eligible convolutions in place; returns how many. The names of the state dict stay as they are.

    Args:
        network: any.
        padding_px_above: leave those alone that need no wider border than this, as kernels reach it quickly enough.
    """
    switched = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_eligible(module) and int(module.padding[0]) > padding_px_above:
            module.__class__ = SpaceToBatchConv2d
            switched += 1
    return switched


def use_fast_dilation(network: nn.Module) -> int:
    """Switch the convolutions that this machine computes slowly for inference; returns how many.

    With AVX2 and a border of more than `FAST_PADDING_PX` PyTorch takes a path that is up to forty times slower than
    this detour. Of other processors and devices no such thing is known, so their networks stay as they are.
    """
    tensors = list(network.parameters())
    here = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    if not here or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return 0
    return use_space_to_batch(network, padding_px_above=FAST_PADDING_PX)


def _is_eligible(module: nn.Conv2d) -> bool:
    if type(module) is not nn.Conv2d or module.groups != module.in_channels or module.groups == 1:
        return False
    d, k = module.dilation, module.kernel_size
    same = isinstance(module.padding, tuple) and all(
        p == step * (size // 2) and size % 2 for p, step, size in zip(module.padding, d, k, strict=True)
    )
    return same and module.stride == (1, 1) and module.padding_mode == "zeros" and d[0] == d[1] > 1
