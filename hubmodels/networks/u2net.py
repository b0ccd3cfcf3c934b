"""U-2-Net: U-blocks nested in a U, with a map of logits at every depth and their fusion.

Source: Qin et al. 2020, "U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection" (fig. 2 and 5,
table 1). Tensors are named as in the authors' release, so that its checkpoints fit.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hubmodels.networks.backbones import IMAGENET
from hubmodels.networks.grid import check_input, pad_to_grid

# Height of the U-block at each of the six depths; the last two are dilated instead of pooled (RSU-4F).
HEIGHTS = (7, 6, 5, 4, 4, 4)
DILATED_FROM_STAGE = 5

# Per block (inner channels, output channels): on the way down, stages 1 to 6; on the way up, stages 1 to 5.
FULL = (
    ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
    ((16, 64), (32, 64), (64, 128), (128, 256), (256, 512)),
)
SMALL = (((16, 64),) * 6, ((16, 64),) * 5)


def resize_to(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Bilinear resize of (N, C, h, w) to the size of `like`; pixel centres, not corners, are aligned."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class ConvBnRelu(nn.Module):
    """3x3 convolution with bias, batch norm and ReLU; keeps the size."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn_s1(self.conv_s1(x)), inplace=True)


class ResidualU(nn.Module):
    """RSU-L of the paper: a U of L levels whose output is added to its input; (N, inputs, h, w) -> (N, outputs, h, w).

    Args:
        height: levels L; without `dilated` the map is halved from each to the next, but for the last two.
        inputs, middle, outputs: channels in, inside and out.
        dilated: keep the size and dilate by 1, 2, 4, 8 instead (RSU-4F).
    """

    def __init__(self, height: int, inputs: int, middle: int, outputs: int, *, dilated: bool = False) -> None:
        super().__init__()
        self.height, self.dilated = height, dilated
        rates = [2**level for level in range(height)] if dilated else [1] * (height - 1) + [2]
        self.rebnconvin = ConvBnRelu(inputs, outputs)
        for level in range(1, height + 1):
            down = ConvBnRelu(outputs if level == 1 else middle, middle, dilation=rates[level - 1])
            self.add_module(f"rebnconv{level}", down)
        for level in range(height - 1, 0, -1):
            up = ConvBnRelu(2 * middle, outputs if level == 1 else middle, dilation=rates[level - 1])
            self.add_module(f"rebnconv{level}d", up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = start = self.rebnconvin(x)
        maps: list[torch.Tensor] = []
        for level in range(1, self.height + 1):
            if 1 < level < self.height and not self.dilated:
                h = F.max_pool2d(h, 2, ceil_mode=True)
            h = getattr(self, f"rebnconv{level}")(h)
            maps.append(h)
        h = maps.pop()
        for level in range(self.height - 1, 0, -1):
            skip = maps.pop()
            h = getattr(self, f"rebnconv{level}d")(torch.cat([resize_to(h, skip), skip], dim=1))
        return h + start


class U2Net(nn.Module):
    """U-2-Net, full (44.0 million parameters) or small (1.13 million, the authors' "u2netp").

    The input is (N, 3, H, W) float RGB in 0..1, H and W at least 32; ImageNet mean and standard deviation are applied
    inside, from non-persistent buffers. Unlike the authors' scripts, neither the photo nor the prediction is
    stretched to its own range: a probability means the same in every photo.

    Args:
        num_classes: output channels (>= 1); the authors' release has 1, a logit to be passed through a sigmoid.
        small: the small network.

    Raises:
        ValueError: no output channel.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, *, num_classes: int, small: bool = False) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more; got {num_classes}")
        down, up = SMALL if small else FULL
        inputs = 3
        for stage, (height, (middle, outputs)) in enumerate(zip(HEIGHTS, down, strict=True), start=1):
            block = ResidualU(height, inputs, middle, outputs, dilated=stage >= DILATED_FROM_STAGE)
            self.add_module(f"stage{stage}", block)
            inputs = outputs
        for stage in range(5, 0, -1):
            joined = inputs + down[stage - 1][1]
            middle, inputs = up[stage - 1]
            block = ResidualU(HEIGHTS[stage - 1], joined, middle, inputs, dilated=stage >= DILATED_FROM_STAGE)
            self.add_module(f"stage{stage}d", block)
        for stage in range(1, 7):
            channels = up[stage - 1][1] if stage < 6 else down[-1][1]
            self.add_module(f"side{stage}", nn.Conv2d(channels, num_classes, 3, padding=1))
        self.outconv = nn.Conv2d(6 * num_classes, num_classes, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) float RGB in 0..1, H and W at least 32 -> (N, C, H, W) logits, fused."""
        return self.forward_sides(x)[0]

    def forward_sides(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Seven (N, C, H, W) maps of logits: the fused one, then those of depths 1 (finest) to 6.

        Raises:
            ValueError: another shape, a side under 32 pixels, or whole numbers, as of a photo in 0..255.
        """
        check_input(x)
        height, width = x.shape[2:]
        x = pad_to_grid(x)
        sides = [
            resize_to(getattr(self, f"side{depth}")(h), x)
            for depth, h in enumerate(self._features((x - self.mean) / self.std), start=1)
        ]
        return [h[..., :height, :width] for h in (self.outconv(torch.cat(sides, dim=1)), *sides)]

    def _features(self, h: torch.Tensor) -> list[torch.Tensor]:
        """What the six sides look at, finest first: the outputs of stages 1d to 5d and 6."""
        maps: list[torch.Tensor] = []
        for stage in range(1, 7):
            if stage > 1:
                h = F.max_pool2d(h, 2, ceil_mode=True)
            h = getattr(self, f"stage{stage}")(h)
            maps.append(h)
        features = [maps.pop()]
        for stage in range(5, 0, -1):
            skip = maps.pop()
            features.append(getattr(self, f"stage{stage}d")(torch.cat([resize_to(features[-1], skip), skip], dim=1)))
        return features[::-1]
