"""DeepLabv3 and DeepLabv3+ over any backbone of `hubmodels.networks.backbones`.

Sources: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation" (v3: atrous spatial
pyramid pooling with image-level features); Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation" (v3+: separable convolutions and a decoder with a low-level skip at stride 4);
Wang et al. 2018, "Understanding Convolution for Semantic Segmentation", section 3.1 (dense upsampling convolution, here
beside the bilinear way instead of in its place, so that a trained network can be given one and go on from where it is).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hubmodels.networks.backbones import Backbone
from hubmodels.networks.grid import check_input, pad_to_grid

OUTPUT_STRIDE = 16  # unless another is asked for
CHANNELS = 256  # of ASPP and of the decoder; as published
LOW_STRIDE = 4  # of the low-level features that the decoder of v3+ adds
ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # at each output stride; Chen et al. 2017, table 5


def conv_bn_relu(inputs: int, outputs: int, *, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm and ReLU; keeps the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable_conv(inputs: int, outputs: int, *, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3 (dilated) then pointwise 1x1, each with batch norm and ReLU; keeps the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def conv3x3(inputs: int, outputs: int, *, separable: bool, dilation: int = 1) -> nn.Sequential:
    """A 3x3 convolution (dilated) with batch norm and ReLU, split into depthwise and pointwise or in one piece."""
    if separable:
        return separable_conv(inputs, outputs, dilation=dilation)
    return conv_bn_relu(inputs, outputs, kernel=3, dilation=dilation)


class ImagePool(nn.Module):
    """The image-level branch of ASPP: global mean, projection, spread back over the map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # No batch norm: at 1x1 it would normalise over the batch alone, which fails for a batch of one.
        self.project = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.relu(self.project(x.mean((2, 3), keepdim=True)))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 branch, three dilated branches and the image mean."""

    def __init__(
        self, inputs: int, outputs: int, *, rates: tuple[int, ...], dropout: float = 0.1, separable: bool = True
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(inputs, outputs)]
            + [conv3x3(inputs, outputs, separable=separable, dilation=rate) for rate in rates]
            + [ImagePool(inputs, outputs)]
        )
        self.project = conv_bn_relu(outputs * len(self.branches), outputs)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.project(torch.cat([branch(x) for branch in self.branches], dim=1)))


def resize_like(x: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Bilinear resize of (N, C, h, w) to `size` = (H, W); pixel centres, not corners, are aligned."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class _DeepLab(nn.Module):
    """What v3 and v3+ share: a backbone, ASPP, and the way from features at a stride to logits at the input's size."""

    stride: int  # of the features that the classifier reads

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: str,
        output_stride: int,
        channels: int,
        pretrained_backbone: bool,
        separable: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more (background included); got {num_classes}")
        self.backbone = Backbone(backbone, output_stride=output_stride, pretrained=pretrained_backbone)
        rates = ATROUS_RATES[output_stride]
        self.aspp = ASPP(self.backbone.high_channels, channels, rates=rates, separable=separable)

    def _add_classifier(self, inputs: int, num_classes: int, *, dense_upsampling: bool) -> None:
        self.classifier = nn.Conv2d(inputs, num_classes, 1)
        self.dense_upsampling: nn.Conv2d | None = None
        if dense_upsampling:
            self.dense_upsampling = nn.Conv2d(inputs, num_classes * self.stride**2, 3, padding=1)
            for parameter in self.dense_upsampling.parameters():
                nn.init.zeros_(parameter)  # starts as the network without it

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), sides multiples of 32 -> what the classifier reads, (N, C, H / stride, W / stride)."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) float RGB in 0..1, H and W at least 32 -> (N, C, H, W) logits.

        Raises:
            ValueError: another shape, a side under 32 pixels, or whole numbers, as of a photo in 0..255.
        """
        check_input(x)
        height, width = x.shape[2:]
        padded = pad_to_grid(x)
        features = self.features(padded)
        logits = resize_like(self.classifier(features), padded.shape[2:])
        if self.dense_upsampling is not None:
            logits = logits + F.pixel_shuffle(self.dense_upsampling(features), self.stride)
        return logits[..., :height, :width]


class DeepLabV3(_DeepLab):
    """DeepLabv3: backbone, ASPP, one 3x3 convolution, classifier at the output stride.

    Args:
        num_classes: labels, background included (>= 2).
        backbone: a key of `hubmodels.networks.backbones.BACKBONES`.
        output_stride: 8, 16 or 32.
        channels: width of ASPP and head.
        pretrained_backbone: start from timm's ImageNet weights (network or cache needed).
        separable: split the 3x3 convolutions of ASPP and head into depthwise and pointwise; False is as published.
        dense_upsampling: add to the bilinear logits a convolution's own answer for each pixel of a cell (Wang et al.).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: str = "tf_efficientnet_lite0",
        output_stride: int = OUTPUT_STRIDE,
        channels: int = CHANNELS,
        pretrained_backbone: bool = False,
        separable: bool = True,
        dense_upsampling: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            backbone=backbone,
            output_stride=output_stride,
            channels=channels,
            pretrained_backbone=pretrained_backbone,
            separable=separable,
        )
        self.stride = output_stride
        self.head = conv3x3(channels, channels, separable=separable)
        self._add_classifier(channels, num_classes, dense_upsampling=dense_upsampling)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), sides multiples of 32 -> (N, channels, H / output_stride, W / output_stride)."""
        return self.head(self.aspp(self.backbone(x)[1]))


class DeepLabV3Plus(_DeepLab):
    """DeepLabv3+: DeepLabv3 with a decoder that joins ASPP to low-level features at stride 4.

    Args:
        num_classes: labels, background included (>= 2).
        backbone: a key of `hubmodels.networks.backbones.BACKBONES`.
        output_stride: 8, 16 or 32.
        channels: width of ASPP.
        decoder_channels: width of the decoder at stride 4, where most of its time goes.
        low_channels: width the low-level features are projected to (48 in the paper).
        pretrained_backbone: start from timm's ImageNet weights (network or cache needed).
        dense_upsampling: add to the bilinear logits a convolution's own answer for each pixel of a cell (Wang et al.).
    """

    stride = LOW_STRIDE

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: str = "tf_efficientnet_lite0",
        output_stride: int = OUTPUT_STRIDE,
        channels: int = CHANNELS,
        decoder_channels: int = CHANNELS,
        low_channels: int = 48,
        pretrained_backbone: bool = False,
        dense_upsampling: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            backbone=backbone,
            output_stride=output_stride,
            channels=channels,
            pretrained_backbone=pretrained_backbone,
        )
        self.low = conv_bn_relu(self.backbone.low_channels, low_channels)
        self.decoder = nn.Sequential(
            separable_conv(channels + low_channels, decoder_channels),
            separable_conv(decoder_channels, decoder_channels),
        )
        self._add_classifier(decoder_channels, num_classes, dense_upsampling=dense_upsampling)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W), sides multiples of 32 -> (N, decoder_channels, H / 4, W / 4)."""
        low, high = self.backbone(x)
        high = resize_like(self.aspp(high), low.shape[2:])
        return self.decoder(torch.cat([high, self.low(low)], dim=1))
