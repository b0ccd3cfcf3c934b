"""The backbones of the default models are timm's: names, shapes and answers, at every output stride."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hubmodels.networks.backbones import Backbone
from hubmodels.networks.efficientnet_lite import VARIANTS, EfficientNetLite
from tests.conftest import ROOT


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_names_shapes_and_answers_are_those_of_timm(name, output_stride):
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model(name, features_only=True, output_stride=output_stride, out_indices=(1, 4)).eval()
    for module in theirs.modules():  # statistics that are not the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = EfficientNetLite(name, output_stride=output_stride).eval()
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]
    assert list(ours.channels) == theirs.feature_info.channels()
    ours.load_state_dict(theirs.state_dict())
    for height, width in ((96, 64), (33, 70)):  # the second needs TensorFlow's uneven padding
        x = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            for mine, their in zip(ours(x), theirs(x), strict=True):
                assert mine.shape == their.shape
                torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fresh_network_starts_as_timms_does(name):
    """Weights of every layer have the spread that timm gives them, within what chance allows."""
    import timm

    torch.manual_seed(0)
    ours, theirs = EfficientNetLite(name, output_stride=16), timm.create_model(name, features_only=True)
    for key, value in ours.state_dict().items():
        if value.ndim == 4 and value.numel() > 5000:
            assert float(value.std() / theirs.state_dict()[key].std()) == pytest.approx(1, abs=0.05), key


def test_gradients_reach_every_weight():
    net = EfficientNetLite("tf_efficientnet_lite0", output_stride=16)
    sum(map_.square().mean() for map_ in net(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_defaults_answer_without_importing_timm_a_compiler_or_what_post_processing_needs():
    """They take longer than all else together."""
    script = """
import sys, hubmodels, numpy
for name in hubmodels.entries.DEFAULTS.values():
    seg = hubmodels.load(name).predict(numpy.zeros((64, 64, 3), numpy.uint8))
    seg.cutout(seg.label_set.names[1])
print({"timm", "torchvision", "torch._dynamo", "sympy", "scipy", "skimage", "numba"} & set(sys.modules))
"""
    call = [sys.executable, "-c", "import hubmodels.entries\n" + script]
    assert subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip() == "set()"


def test_the_backbone_says_its_channels():
    backbone = Backbone("tf_efficientnet_lite2")
    low, high = backbone(torch.rand(1, 3, 64, 96))
    assert (low.shape, high.shape) == ((1, 24, 16, 24), (1, 352, 4, 6))
    assert (backbone.low_channels, backbone.high_channels) == (24, 352)
