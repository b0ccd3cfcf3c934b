"""Weight gradients by matrix products: those of PyTorch's convolutions, and only where it pays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hubmodels.networks import build_network
from training import weight_gradients
from training.engine import network_for
from training.recipe import read_recipe
from training.weight_gradients import ProductGradientConv2d, use_product_gradients, weight_gradient

RECIPES = Path(__file__).parent.parent / "training" / "recipes"


@pytest.fixture
def avx2(monkeypatch):
    """PyTorch shall take the processor for one with AVX2 alone."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def test_the_gradient_by_hand():
    """One pixel, so only the middle tap sees something; two, so the taps beside it see the other one."""
    one = weight_gradient(torch.tensor([[[[2.0]]]]), torch.tensor([[[[3.0]]]]))
    assert one.flatten().tolist() == [0, 0, 0, 0, 6, 0, 0, 0, 0]
    two = weight_gradient(torch.tensor([[[[2.0, 5.0]]]]), torch.tensor([[[[3.0, 7.0]]]]))
    assert two.flatten().tolist() == [0, 0, 0, 7 * 2, 3 * 2 + 7 * 5, 3 * 5, 0, 0, 0]


@pytest.mark.parametrize("rows", [7, 2048])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (13, 6)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_gradients_are_those_of_the_convolution(size, layout, rows, avx2, monkeypatch):
    monkeypatch.setattr(weight_gradients, "ROWS", rows)  # blocks that end within a row, and one block
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 64, 3, padding=1).double().to(memory_format=layout)
    x = torch.randn(3, 32, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    wanted_of = [x, conv.weight, conv.bias]
    expected = conv(x)
    wanted = torch.autograd.grad(expected.sin().sum(), wanted_of)
    assert use_product_gradients(nn.Sequential(conv)) == 1 and type(conv) is ProductGradientConv2d
    got = conv(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(got.sin().sum(), wanted_of), wanted)


def test_what_needs_no_gradient_gets_none(avx2):
    conv = nn.Conv2d(32, 64, 3, padding=1, bias=False)
    use_product_gradients(nn.Sequential(conv))
    conv.weight.requires_grad_(False)
    x = torch.randn(1, 32, 4, 4, requires_grad=True)
    conv(x).sum().backward()
    assert conv.weight.grad is None and x.grad is not None
    with torch.no_grad():
        assert not conv(x).requires_grad


def test_half_precision_is_left_to_pytorch(avx2, monkeypatch):
    conv = nn.Conv2d(32, 64, 3, padding=1)
    use_product_gradients(nn.Sequential(conv))
    monkeypatch.setattr(weight_gradients, "weight_gradient", lambda *_: pytest.fail("not in half precision"))
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(torch.randn(1, 32, 4, 4))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert conv.weight.grad is not None


def test_other_devices_compute_as_before(avx2, monkeypatch):
    conv = nn.Conv2d(32, 64, 3, padding=1)
    use_product_gradients(nn.Sequential(conv))
    monkeypatch.setattr(weight_gradients._Convolution, "apply", lambda *_: pytest.fail("on the processor alone"))
    assert conv.to("meta")(torch.empty(1, 32, 4, 4, device="meta")).shape == (1, 64, 4, 4)


def test_other_convolutions_and_processors_are_left_alone(avx2, monkeypatch):
    others = nn.Sequential(
        nn.Conv2d(31, 64, 3, padding=1),  # few inputs
        nn.Conv2d(32, 63, 3, padding=1),  # few outputs
        nn.Conv2d(64, 64, 3),  # the map shrinks
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 1),
    )
    assert use_product_gradients(others) == 0
    wide = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert use_product_gradients(wide) == 0 and type(wide[0]) is nn.Conv2d


def test_a_recipe_trains_with_them_under_the_names_of_the_ordinary_network(avx2):
    recipe = read_recipe(RECIPES / "u2net_small_fashion.toml")
    net = network_for(recipe)
    assert any(type(module) is ProductGradientConv2d for module in net.modules())
    build_network(recipe.arch, num_classes=recipe.num_classes).load_state_dict(net.state_dict())
