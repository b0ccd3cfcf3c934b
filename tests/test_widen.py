"""The widened U-2-Net answers like the small one it came from, and its copies part when it learns."""

from __future__ import annotations

import pytest
import torch

import training.widen
from hubmodels.hub import load_model
from hubmodels.networks import build_network
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import DataError
from training.widen import main, widen


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    """Random weights and batch norms that do something."""
    torch.manual_seed(0)
    net = build_network("u2net_small", num_classes=3)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def full_of(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    net = build_network("u2net", num_classes=3).eval()
    net.load_state_dict(state)
    return net


@torch.inference_mode()
def test_all_seven_maps_are_those_of_the_small_network(small):
    x = torch.rand(1, 3, 64, 96)
    wide = full_of(widen(small.state_dict(), num_classes=3))
    assert sum(p.numel() for p in wide.parameters()) > 35 * sum(p.numel() for p in small.parameters())
    for mine, theirs in zip(wide.forward_sides(x), small.forward_sides(x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_noise_makes_copies_differ_and_answers_little(small):
    x = torch.rand(1, 3, 64, 64)
    state = widen(small.state_dict(), num_classes=3, noise=0.01)
    weight = state["stage2.rebnconvin.conv_s1.weight"]
    assert not torch.equal(weight[:64], weight[64:])
    mine, theirs = full_of(state)(x), small(x)
    assert 0 < (mine - theirs).abs().mean() < 0.2 * theirs.std()


def test_the_command_writes_a_start_for_recipes(small, tmp_path):
    task_net = build_network("u2net_small", num_classes=2)
    save_checkpoint({"recipe": {"tasks": ["person"]}, "ema": task_net.state_dict()}, tmp_path / "small.pt")
    main([str(tmp_path / "small.pt"), "--out", str(tmp_path / "wide.pt")])
    saved = load_checkpoint(tmp_path / "wide.pt")
    assert saved["recipe"]["tasks"] == ["person"]
    build_network("u2net", num_classes=2).load_state_dict(saved["ema"])


@torch.inference_mode()
def test_a_published_model_can_be_widened(tmp_path, monkeypatch):
    monkeypatch.setattr(training.widen, "save_checkpoint", lambda state, path: saved.append(state))  # 176 MB
    saved = []
    main(["u2net_small_person", "--out", str(tmp_path / "wide.pt"), "--noise", "0"])
    net = build_network("u2net", num_classes=2).eval()
    net.load_state_dict(saved[0]["ema"])
    assert saved[0]["recipe"]["tasks"] == ["person"]
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(x), load_model("u2net_small_person").network(x), rtol=1e-3, atol=1e-3)


def test_another_network_is_refused(small):
    with pytest.raises(DataError, match="expected the weights of u2net_small with 2 classes"):
        widen(small.state_dict(), num_classes=2)
