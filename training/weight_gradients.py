"""Gradients of wide 3x3 convolutions by matrix products, where PyTorch is slow with them.

With AVX2 and channels last, the gradient of a weight takes PyTorch several times as long as the convolution itself once
the maps are large and wide: half of a step of U-2-Net (training/EXPERIMENTS.md). It is a sum over pixels, though, of a
product of two vectors for each of the nine taps, so nine matrix products. One copy of each map, with a border of zeros,
serves them all: the neighbour of every pixel then lies a fixed number of rows away in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ROWS = 2048  # pixels for which all nine products are taken in turn, so that they stay in the cache
LEAST_INPUTS, LEAST_OUTPUTS = 32, 64  # narrower ones gain nothing


def weight_gradient(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Gradient of the weight of a 3x3 convolution of stride 1 and padding 1.

    Args:
        x: (N, C, H, W) input, best channels last.
        gradient: (N, O, H, W) of the output, best channels last.

    Returns:
        (O, C, 3, 3), of the dtype of `x`.
    """
    pixels, gradients = _bordered_rows(x), _bordered_rows(gradient)
    width = x.shape[3] + 2
    steps = [row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    taps = x.new_zeros(len(steps), gradients.shape[1], pixels.shape[1])
    # The first and last pixels that are no border lie this far within, which is as far as a tap reaches.
    for start in range(width + 1, len(pixels) - width - 1, ROWS):
        end = min(start + ROWS, len(pixels) - width - 1)
        outer = gradients[start:end].t()
        for tap, step in zip(taps, steps, strict=True):
            tap.addmm_(outer, pixels[start + step : end + step])
    return taps.view(3, 3, *taps.shape[1:]).permute(2, 3, 0, 1)


def _bordered_rows(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N * (H + 2) * (W + 2), C): the pixels of all maps, each with a border of zeros."""
    return F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class _Convolution(torch.autograd.Function):
    """3x3, stride 1, padding 1; forward and the gradient of the input as PyTorch has them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.nn.grad.conv2d_input(x.shape, weight, gradient, padding=1) if of_x else None,
            weight_gradient(x, gradient) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


class ProductGradientConv2d(nn.Conv2d):
    """A 3x3 `nn.Conv2d` of stride 1 and padding 1 whose weight learns by `weight_gradient`; equal up to rounding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):  # these have kernels of their own
            return super().forward(x)
        return _Convolution.apply(x, self.weight, self.bias)


def use_product_gradients(network: nn.Module) -> int:
    """Switch the convolutions that this machine trains slowly, in place; returns how many.

    The names of the state dict stay as they are. Of processors beyond AVX2 no such thing is known, so there networks
    stay as they are; on other devices than the processor they compute as before.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return 0
    switched = 0
    for module in network.modules():
        if _is_eligible(module):
            module.__class__ = ProductGradientConv2d
            switched += 1
    return switched


def _is_eligible(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.padding == module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and module.groups == 1
        and module.in_channels >= LEAST_INPUTS
        and module.out_channels >= LEAST_OUTPUTS
    )
