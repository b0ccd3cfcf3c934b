"""EfficientNet-Lite 0 to 2 as feature extractors, with timm's names and results.

timm holds them as well, but importing it takes more than twice as long as all else that loading a model does, because
it brings hundreds of architectures and PyTorch's compiler. Tests hold the two against each other.

Source: Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (table 1); Lite leaves
out squeeze-and-excitation, takes ReLU6, and scales neither the stem nor the repeats of the first and last stage.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

VARIANTS = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
}
STEM = 32
# Per stage: repeats, kernel, stride of the first block, expansion, output channels; scaled by the variant.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BATCH_NORM_EPS = 1e-3  # TensorFlow's, with which the weights were trained


class SameConv2d(nn.Conv2d):
    """A strided convolution padded as in TensorFlow: the odd pixel of padding goes right and below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # F.pad wants the last axis first
            size, step = x.shape[2 + axis], self.stride[axis]
            # Beyond the last step, which is a whole one on the grid; what torch.jit.trace would keep of a size is wrong
            # for others.
            rest = step if torch.jit.is_tracing() else size - (math.ceil(size / step) - 1) * step
            total = max(0, self.dilation[axis] * (self.kernel_size[axis] - 1) + 1 - rest)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride > 1:
        return SameConv2d(inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=False)
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class SeparableBlock(nn.Module):
    """Depthwise then pointwise convolution; (N, inputs, h, w) -> (N, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv_dw = _conv(inputs, inputs, kernel, dilation=dilation, groups=inputs)
        self.bn1 = _norm(inputs)
        self.conv_pw = _conv(inputs, outputs, 1)
        self.bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)), inplace=True)))


class InvertedResidual(nn.Module):
    """Wide pointwise, depthwise and narrow pointwise convolution, added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.conv_pw = _conv(inputs, wide, 1)
        self.bn1 = _norm(wide)
        self.conv_dw = _conv(wide, wide, kernel, stride=stride, dilation=dilation, groups=wide)
        self.bn2 = _norm(wide)
        self.conv_pwl = _conv(wide, outputs, 1)
        self.bn3 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.adds else y


class EfficientNetLite(nn.Module):
    """(N, 3, H, W) normalised RGB -> the last maps at stride 4 and at the deepest stride.

    Args:
        name: a key of `VARIANTS`.
        output_stride: 8, 16 or 32; from there on the network is dilated instead of strided.

    Attributes:
        channels: of the two maps.
    """

    def __init__(self, name: str, *, output_stride: int) -> None:
        super().__init__()
        width, depth = VARIANTS[name]
        self.conv_stem = _conv(3, STEM, 3, stride=2)
        self.bn1 = _norm(STEM)
        inputs, stride, dilation = STEM, 2, 1
        stages: list[nn.Module] = []
        for number, (repeats, kernel, step, expansion, channels) in enumerate(STAGES):
            if 0 < number < len(STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            outputs = _rounded(channels * width)
            blocks: list[nn.Module] = []
            for repeat in range(repeats):
                first_dilation = dilation
                block_stride = step if repeat == 0 else 1
                if block_stride > 1 and stride * block_stride > output_stride:
                    dilation *= block_stride  # for the blocks after this one, as this one sees maps of the old stride
                    block_stride = 1
                stride *= block_stride
                blocks.append(
                    SeparableBlock(inputs, outputs, kernel=kernel, dilation=first_dilation)
                    if expansion == 1
                    else InvertedResidual(
                        inputs,
                        outputs,
                        kernel=kernel,
                        stride=block_stride,
                        dilation=first_dilation,
                        expansion=expansion,
                    )
                )
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.channels = (_rounded(STAGES[1][-1] * width), inputs)
        self._initialise()

    def _initialise(self) -> None:
        """Normal by fan-out, as TensorFlow's original does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                height, width = module.kernel_size
                nn.init.normal_(
                    module.weight, std=math.sqrt(2 * module.groups / (height * width * module.out_channels))
                )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        low = self.blocks[1](self.blocks[0](x))
        high = low
        for stage in self.blocks[2:]:
            high = stage(high)
        return [low, high]


def _rounded(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, but not below 90 % of it."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
