"""Architectures: sizes, gradients, normalisation inside, parameter counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hubmodels.networks import ARCHITECTURES, build_network
from hubmodels.networks.backbones import BACKBONES, Backbone
from hubmodels.networks.deeplab import ASPP, ATROUS_RATES

LITE = {"backbone": "tf_efficientnet_lite0", "channels": 16}
DEEPLABS = [arch for arch in ARCHITECTURES if arch.startswith("deeplab")]  # tests/test_u2net.py has the others


@pytest.mark.parametrize("arch", DEEPLABS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 32), (97, 130)])
def test_logits_have_the_size_of_the_input_whatever_it_is(arch, size):
    net = build_network(arch, num_classes=5, **LITE).eval()
    with torch.inference_mode():
        assert net(torch.rand(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("arch", DEEPLABS)
def test_any_size_is_seen_as_if_padded_to_the_grid(arch):
    """Without it features shift by half a pixel at every stride whose map is odd, and scores with them."""
    net = build_network(arch, num_classes=3, **LITE).eval()
    x = torch.rand(1, 3, 70, 45)
    with torch.inference_mode():
        whole = net(torch.nn.functional.pad(x, (0, 19, 0, 26), mode="replicate"))
        torch.testing.assert_close(net(x), whole[..., :70, :45])


@pytest.mark.parametrize("arch", [*DEEPLABS, "u2net_small"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_one_size_answers_for_any(arch):
    """torch.jit.trace is what older programs keep networks in; it holds every number that is computed in Python."""
    net = build_network(arch, num_classes=3, **(LITE if arch in DEEPLABS else {})).eval()
    with torch.no_grad():
        traced = torch.jit.trace(net, torch.rand(1, 3, 64, 96))
        for size in ((64, 96), (96, 64), (128, 160), (65, 97)):
            x = torch.rand(2, 3, *size)
            torch.testing.assert_close(traced(x), net(x))


@pytest.mark.parametrize("arch", [*DEEPLABS, "u2net_small"])
def test_whole_numbers_are_no_photo_in_0_to_1(arch):
    net = build_network(arch, num_classes=3, **(LITE if arch in DEEPLABS else {})).eval()
    with pytest.raises(ValueError, match=r"float RGB in 0\.\.1; got torch\.uint8: divide by 255"):
        net(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("arch", DEEPLABS)
def test_gradients_reach_every_parameter_even_for_a_batch_of_one(arch):
    net = build_network(arch, num_classes=3, **LITE).train()
    net(torch.rand(1, 3, 64, 64)).square().mean().backward()
    missing = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all()
    ]
    assert missing == []


@pytest.mark.parametrize("arch", DEEPLABS)
def test_a_photo_gets_the_same_answer_alone_and_in_a_batch(arch):
    net = build_network(arch, num_classes=3, **LITE).eval()
    x = torch.rand(3, 3, 64, 48)
    with torch.inference_mode():
        together, alone = net(x), torch.cat([net(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)  # sums run in another order


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet50"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_deepest_map_is_held_at_the_output_stride(name, stride):
    backbone = Backbone(name, output_stride=stride).eval()
    with torch.inference_mode():
        low, high = backbone(torch.rand(1, 3, 64, 96))
    assert low.shape[2:] == (16, 24) and high.shape[2:] == (64 // stride, 96 // stride)
    assert (low.shape[1], high.shape[1]) == (backbone.low_channels, backbone.high_channels)


def test_mean_and_deviation_are_applied_inside_and_not_stored():
    backbone = Backbone("resnet50").eval()
    seen = []
    backbone.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        backbone(torch.full((1, 3, 64, 64), 0.5))
    facts = BACKBONES["resnet50"]
    expected = (0.5 - np.array(facts.mean)) / np.array(facts.std)
    np.testing.assert_allclose(seen[0][0, :, 0, 0], expected, rtol=1e-5)
    assert not {"mean", "std"} & set(backbone.state_dict())


def test_atrous_rates_follow_the_output_stride():
    """Chen et al. 2017, table 5: rates double when the output stride halves."""
    assert ATROUS_RATES[16] == (6, 12, 18)
    net = build_network("deeplabv3plus", num_classes=2, output_stride=8, **LITE)
    dilations = [branch[0].dilation[0] for branch in net.aspp.branches[1:4]]
    assert dilations == [12, 24, 36]


def test_the_image_branch_sees_the_whole_map():
    aspp = ASPP(4, 8, rates=(6, 12, 18)).eval()
    x = torch.zeros(1, 4, 40, 40)
    changed = x.clone()
    changed[..., -1, -1] = 50.0
    with torch.inference_mode():
        difference = (aspp(changed) - aspp(x)).abs().sum(1)[0]
    assert difference[0, 0] > 0  # 39 pixels away: beyond every dilated branch


def dense_and_bilinear(arch: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A network with dense upsampling as it starts, and one without that has its other weights."""
    dense = build_network(arch, num_classes=3, dense_upsampling=True, **LITE).eval()
    bilinear = build_network(arch, num_classes=3, **LITE).eval()
    assert bilinear.load_state_dict(dense.state_dict(), strict=False).unexpected_keys == [
        "dense_upsampling.weight",
        "dense_upsampling.bias",
    ]
    return dense, bilinear


@pytest.mark.parametrize("arch", DEEPLABS)
def test_dense_upsampling_starts_as_the_network_without_it(arch):
    dense, bilinear = dense_and_bilinear(arch)
    x = torch.rand(1, 3, 70, 45)
    with torch.inference_mode():
        assert torch.equal(dense(x), bilinear(x))


@pytest.mark.parametrize("arch", DEEPLABS)
def test_dense_upsampling_answers_for_each_pixel_of_a_cell(arch):
    """Of label c it adds channel (c * stride + y) * stride + x to the pixels y, x from their cell's corner."""
    dense, bilinear = dense_and_bilinear(arch)
    stride = dense.stride
    assert stride == (16 if arch == "deeplabv3" else 4)
    added = torch.rand(3, stride, stride)
    with torch.no_grad():
        dense.dense_upsampling.bias.copy_(added.flatten())
    x = torch.rand(1, 3, 70, 45)
    with torch.inference_mode():
        got = (dense(x) - bilinear(x))[0]
    expected = torch.stack([added[:, y % stride, x % stride] for y in range(70) for x in range(45)], dim=1)
    torch.testing.assert_close(got, expected.reshape(3, 70, 45), atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", DEEPLABS)
def test_dense_upsampling_sees_the_cells_around(arch):
    """A 3x3 convolution: an outline within a cell depends on what is beside it."""
    dense, _ = dense_and_bilinear(arch)
    assert dense.dense_upsampling.kernel_size == (3, 3) and dense.dense_upsampling.padding == (1, 1)
    x = torch.rand(1, 3, 64, 64)
    dense.train()(x).square().mean().backward()
    assert dense.dense_upsampling.weight.grad.abs().amax((0, 1)).min() > 0


def test_parameter_counts():
    """Sizes that a change of the architecture would move; the first is that of the shipped networks."""
    sizes = {
        arch: sum(p.numel() for p in build_network(arch, num_classes=7, **options).parameters())
        for arch, options in {
            "deeplabv3plus": {"channels": 128, "decoder_channels": 128},
            "deeplabv3": {"channels": 128},
        }.items()
    }
    assert sizes == {"deeplabv3plus": 3_302_455, "deeplabv3": 3_276_487}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: build_network("unet", num_classes=2), "unet.*deeplabv3plus"),
        (lambda: build_network("deeplabv3", num_classes=1), "2 or more"),
        (lambda: build_network("deeplabv3", num_classes=2, backbone="vgg"), "vgg.*resnet101"),
        (lambda: build_network("deeplabv3", num_classes=2, output_stride=4), "8, 16 or 32"),
    ],
)
def test_wrong_arguments_name_the_choices(call, message):
    with pytest.raises(ValueError, match=message):
        call()
