"""Convolutional feature extractors by name, EfficientNet-Lite from here and others from timm, at an output stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hubmodels.networks.efficientnet_lite import VARIANTS, EfficientNetLite


@dataclass(frozen=True)
class BackboneFacts:
    """Colour normalisation a backbone was pretrained with, per RGB channel in 0..1 units."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = BackboneFacts(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
INCEPTION = BackboneFacts(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# Only networks that decode well at stride 16 and whose licence allows shipping fine-tuned weights.
BACKBONES: dict[str, BackboneFacts] = {
    "tf_efficientnet_lite0": INCEPTION,
    "tf_efficientnet_lite1": INCEPTION,
    "tf_efficientnet_lite2": INCEPTION,
    "mobilenetv3_large_100": IMAGENET,
    "resnet50": IMAGENET,
    "resnet101": IMAGENET,
}


class Backbone(nn.Module):
    """Feature maps at strides 4 (low level) and `output_stride` (high level) of a network for classification.

    Args:
        name: a key of `BACKBONES`.
        output_stride: 8, 16 or 32; smaller strides replace striding by dilation in the last stages.
        pretrained: take timm's network with its ImageNet weights, which needs a network connection or a filled cache.

    The input is (N, 3, H, W) float RGB in 0..1; mean and standard deviation are applied inside, from
    non-persistent buffers, so a state dict holds learned tensors only.

    Raises:
        ValueError: unknown name or output stride.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, name: str, *, output_stride: int = 16, pretrained: bool = False) -> None:
        super().__init__()
        if name not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise ValueError(f"unknown backbone {name!r}; expected one of: {known}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32; got {output_stride}")
        if name in VARIANTS and not pretrained:
            lite = EfficientNetLite(name, output_stride=output_stride)
            self.body: nn.Module = lite
            self.low_channels, self.high_channels = lite.channels
        else:
            features = _timm_features(name, output_stride=output_stride, pretrained=pretrained)
            self.body = features
            self.low_channels, self.high_channels = features.feature_info.channels()
        facts = BACKBONES[name]
        self.register_buffer("mean", torch.tensor(facts.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) RGB in 0..1 -> low-level map at stride 4, high-level map at the output stride."""
        low, high = self.body((x - self.mean) / self.std)
        return low, high


def _timm_features(name: str, *, output_stride: int, pretrained: bool) -> Any:
    try:
        import timm  # takes a second or two, which the backbones of the default models need not wait for
    except ImportError as error:
        raise ImportError(f"backbone {name!r} needs timm, which is missing; run: pip install timm") from error

    # Index 1 has stride 4; the last index is the deepest map, held at `output_stride` by dilation.
    return timm.create_model(
        name, pretrained=pretrained, features_only=True, output_stride=output_stride, out_indices=(1, 4)
    )
