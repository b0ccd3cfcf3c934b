"""Network architectures by name. `build_network` is the one way in; entries and recipes both use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from hubmodels.networks.deeplab import DeepLabV3, DeepLabV3Plus
from hubmodels.networks.ensemble import Ensemble
from hubmodels.networks.u2net import U2Net


def _ensemble(*, num_classes: int, members: Sequence[Mapping[str, Any]]) -> Ensemble:
    return Ensemble([build_network(num_classes=num_classes, **member) for member in members])


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "ensemble": _ensemble,  # of `members`: for each a mapping with its `arch` and the options of that
    "u2net": U2Net,
    "u2net_small": partial(U2Net, small=True),
}

# First letters of the tensors that answer for labels. All others can be kept when the labels change; in U-2-Net the
# last layer mixes the channels of all sides, so they go together.
_HEADS = ("classifier.", "dense_upsampling.", "side", "outconv.")
_MEMBER = re.compile(r"members\.\d+\.")


def is_head(key: str) -> bool:
    """Whether a tensor, by its name in a state dict, answers for labels; in an ensemble, within a member."""
    return _MEMBER.sub("", key, count=1).startswith(_HEADS)


def build_network(arch: str, *, num_classes: int, **options: Any) -> nn.Module:
    """An untrained network.

    Args:
        arch: a key of `ARCHITECTURES`.
        num_classes: labels, background included.
        options: keyword arguments of the architecture, such as `backbone` or `channels`.

    Raises:
        ValueError: unknown architecture.
        TypeError: an option the architecture does not have.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}; expected one of: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[arch](num_classes=num_classes, **options)
