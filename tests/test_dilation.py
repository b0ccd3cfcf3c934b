"""Space to batch: what a dilated convolution computes, and only where it pays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hubmodels.networks import build_network, dilation
from hubmodels.networks.dilation import SpaceToBatchConv2d, use_fast_dilation, use_space_to_batch
from hubmodels.networks.folding import FoldedCopy
from tests.test_folding import used


def depthwise(kernel: int, step: int) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, padding=step * (kernel // 2), dilation=step, groups=4)


@pytest.fixture
def processor(monkeypatch):
    """Says what PyTorch shall take the processor for."""

    def is_a(capability: str) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    return is_a


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 14), (26, 18)])
@pytest.mark.parametrize("step, kernel", [(2, 3), (2, 5), (4, 5), (6, 3)])
def test_space_to_batch_equals_the_dilated_convolution(size, step, kernel, layout):
    torch.manual_seed(0)
    conv = depthwise(kernel, step)
    x = torch.randn(2, 4, *size).to(memory_format=layout).requires_grad_()
    expected = conv(x)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
    holder = nn.Sequential(conv)
    assert use_space_to_batch(holder) == 1 and type(conv) is SpaceToBatchConv2d
    got = holder(x)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), x)[0], expected_grad)


def test_space_to_batch_leaves_other_convolutions_alone():
    net = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=4),  # not dilated
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),  # not depthwise
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, padding=0, dilation=2, groups=4),  # does not keep the size
        nn.Conv2d(4, 4, 4, padding=4, dilation=2, groups=4),  # nor does an even kernel
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, padding_mode="reflect"),
    )
    assert use_space_to_batch(net) == 0


def test_only_wide_borders_are_switched_for_inference(processor):
    processor("AVX2")
    net = nn.Sequential(depthwise(5, 2), depthwise(3, 4), depthwise(5, 4), depthwise(3, 6))
    assert use_fast_dilation(net) == 2
    assert [type(layer) is SpaceToBatchConv2d for layer in net] == [False, False, True, True]


@pytest.mark.parametrize("capability, dtype", [("AVX512", torch.float32), ("AVX2", torch.bfloat16)])
def test_machines_and_dtypes_that_were_not_found_slow_are_left_alone(processor, capability, dtype):
    processor(capability)
    assert use_fast_dilation(nn.Sequential(depthwise(5, 4)).to(dtype)) == 0


@pytest.mark.parametrize("arch, switched", [("deeplabv3", 6), ("deeplabv3plus", 3)])
def test_a_network_answers_the_same_by_either_way(processor, arch, switched):
    """DeepLabv3 at output stride 8: three layers of the backbone besides the three branches of ASPP."""
    options = {"output_stride": 8} if arch == "deeplabv3" else {}
    torch.manual_seed(0)
    network = used(build_network(arch, num_classes=3, backbone="tf_efficientnet_lite0", channels=16, **options))
    x = torch.rand(1, 3, 96, 70)
    answers = []
    for capability, count in (("AVX512", 0), ("AVX2", switched)):
        processor(capability)
        copy = FoldedCopy().of(network)
        assert sum(isinstance(module, SpaceToBatchConv2d) for module in copy.modules()) == count
        with torch.inference_mode():
            answers.append(copy(x))
    torch.testing.assert_close(*answers, rtol=0, atol=1e-4 * float(answers[0].abs().max()))
    assert not any(isinstance(module, SpaceToBatchConv2d) for module in network.modules())


def test_the_bound_is_the_widest_border_that_stays(processor):
    processor("AVX2")
    assert use_fast_dilation(depthwise(3, dilation.FAST_PADDING_PX)) == 0
    assert use_fast_dilation(depthwise(3, dilation.FAST_PADDING_PX + 1)) == 1
