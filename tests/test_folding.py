"""Batch norm folded into convolutions: the same results, from a copy, for as long as the network stays the same."""

from __future__ import annotations

import copy
import pickle
import timeit
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import hubmodels
from hubmodels.entries import ENTRIES
from hubmodels.networks import build_network
from hubmodels.networks.folding import FoldedCopy, _attributes, _fingerprint, fold_batch_norms, folded_tensors, is_plain

NETWORKS = {
    "deeplabv3plus": {"arch": "deeplabv3plus", "backbone": "tf_efficientnet_lite0", "channels": 16},
    "deeplabv3": {"arch": "deeplabv3", "backbone": "mobilenetv3_large_100", "channels": 16},
    "resnet": {"arch": "deeplabv3", "backbone": "resnet50", "channels": 16, "output_stride": 8, "separable": False},
    "dense": {"arch": "deeplabv3plus", "backbone": "tf_efficientnet_lite0", "channels": 16, "dense_upsampling": True},
    "u2net_small": {"arch": "u2net_small"},
}


def used(network: nn.Module) -> nn.Module:
    """An eval network whose batch norms are as after a training, instead of doing next to nothing."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 4)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.7)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) / 4)
    return network.eval()


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_every_batch_norm_of_every_network_is_folded(options):
    torch.manual_seed(0)
    network = used(build_network(num_classes=3, **options)).double()  # so that rounding does not hide a mistake
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert is_plain(network)
    folded = fold_batch_norms(network)
    assert batch_norms(network) > 30 and batch_norms(folded) == 0
    x = torch.rand(2, 3, 70, 45, dtype=torch.float64)
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.is_network])
def test_every_published_network_is_folded(name):
    model = hubmodels.load(name, pretrained=False)
    assert batch_norms(model.network) > 30 and batch_norms(model._folded.of(model.network)) == 0


def test_the_shipped_network_answers_the_same_within_a_ten_thousandth(fashion, astronaut):
    x = torch.tensor(astronaut[:256, 100:290].copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norms(fashion.network)(x), fashion(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_one_pair_by_hand(bias, affine):
    conv, norm = nn.Conv2d(1, 1, 1, bias=bias), nn.BatchNorm2d(1, eps=0.0, affine=affine)
    with torch.no_grad():
        conv.weight.fill_(6.0)
        norm.running_mean.fill_(4.0)
        norm.running_var.fill_(9.0)
        if bias:
            conv.bias.fill_(1.0)
        if affine:
            norm.weight.fill_(5.0)
            norm.bias.fill_(7.0)
    weight, shift = folded_tensors(conv, norm)
    # (6 x + b - 4) / 3, times 5 and plus 7 where it is affine
    expected = ((1.0 if bias else 0.0) - 4.0) / 3
    assert weight.item() == pytest.approx(10.0 if affine else 2.0)
    assert shift.item() == pytest.approx(expected * 5 + 7 if affine else expected)


class Odd(nn.Module):
    """A batch norm on the photo, a convolution that is called twice, and an ordinary pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.norm = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.pair = nn.ModuleDict({"b": nn.BatchNorm2d(4), "a": nn.Conv2d(3, 4, 1)})  # not in the order of the calls

    def forward(self, x):
        x = self.twice(self.norm(self.twice(self.first(x))))
        return self.pair["b"](self.pair["a"](x))


def test_what_cannot_be_folded_stays():
    network = used(Odd())
    folded = fold_batch_norms(network)
    assert [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)] == ["first", "norm"]
    x = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), network(x))


def known_odd() -> nn.Module:
    """The same, made of PyTorch's classes."""
    twice = nn.Conv2d(3, 3, 3, padding=1)
    pair = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 4, 1), b=nn.BatchNorm2d(4)))
    steps = {"first": nn.BatchNorm2d(3), "twice": twice, "norm": nn.BatchNorm2d(3), "again": twice, "pair": pair}
    return used(nn.Sequential(OrderedDict(steps)))


class Shared(nn.Module):
    """The convolution's output goes to the batch norm and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


def test_an_output_that_is_used_twice_is_noticed():
    network = used(Shared())
    with pytest.raises(ValueError, match="elsewhere too"):
        fold_batch_norms(network)
    assert FoldedCopy().of(network) is network


class BySize(nn.Module):
    """Looks at the size of a photo, and at a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.temperature = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), 1.0

    def forward(self, x):
        y = self.conv(x)
        return (self.norm(y) if x.shape[-1] <= 32 else self.norm(y) + y) / self.temperature


class FromSixtyFour(nn.Module):
    """Fails on smaller photos."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 64), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x))


@pytest.mark.parametrize("inside", [False, True], ids=["itself", "inside of known ones"])
@pytest.mark.parametrize("kind", [BySize, FromSixtyFour])
def test_networks_of_other_classes_run_themselves(kind, inside):
    network = used(nn.Sequential(kind(), nn.ReLU()) if inside else kind())
    assert FoldedCopy().of(network) is network


def test_a_network_of_known_classes_that_needs_large_photos_runs_itself():
    network = used(nn.Sequential(nn.Conv2d(3, 3, 64), nn.BatchNorm2d(3)))
    assert FoldedCopy().of(network) is network


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_is_overwritten_before_its_batch_norm_is_not_folded(mode):
    """The activation hands on the tensor it got, and changes nothing of so small an output as that to noise."""
    network = used(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True), nn.BatchNorm2d(4)))
    with torch.no_grad():
        network[0].weight.abs_()
        network[0].bias.fill_(1.0)
    with mode():
        assert batch_norms(fold_batch_norms(network)) == 1


def test_looking_at_attributes_costs_next_to_nothing(fashion):
    """A pass takes a second on one thread; the best of many keeps the noise of a busy machine out."""
    modules = tuple(fashion.network.modules())
    look = lambda: [_attributes(module) for module in modules]  # noqa: E731
    assert min(timeit.repeat(look, number=1, repeat=50)) < 2e-3  # measured 0.6 ms
    assert look() == look()


@pytest.mark.parametrize(
    "value", [2, 1.5, None, "b", (1, 3), ((1, 2), (2, 4)), [1, 3], np.float32(2), np.add, torch.half]
)
def test_attributes_are_looked_at_as_they_are_now(value):
    module = nn.ReLU()
    looks = [_attributes(module)]
    for now in (1, (1, 2), ((1, 2), (2, 3)), [1, 2], np.float64(1.25), value):
        module.other = now
        looks.append(_attributes(module))
        assert looks[-1] == _attributes(module) and looks[-1] != looks[-2]
    listed = module.other = [1, [2]]
    before = _attributes(module)
    listed[1].append(3)
    assert _attributes(module) != before


def test_training_mode_is_refused():
    network = used(Odd())
    network.norm.train()
    with pytest.raises(ValueError, match="eval"):
        fold_batch_norms(network)


def negate(network):
    with torch.no_grad():
        network.pair.a.weight.neg_()


def through_data(network):
    network.twice.weight.data.mul_(2)


def load_others(network):
    network.load_state_dict({name: value + 1 for name, value in network.state_dict().items()})


def step(network):
    network.train()
    network(torch.rand(4, 3, 32, 32)).square().mean().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    network.eval()


def replace(network):
    network.pair.a = nn.Conv2d(3, 4, 1)


def there_and_back(network):
    network.half().float()


def statistics(network):
    network.norm.running_mean.add_(1)


def mirror(network):
    network.pair.a.weight.data.copy_(network.pair.a.weight.data.flip(1))  # RGB to BGR: the norm stays


def negate_through_data(network):
    network.twice.weight.data.neg_()


def other_eps(network):
    network.norm.eps = 0.5


def other_dilation(network):
    network.twice.dilation = (2, 2)


def other_text(network):
    network.twice.padding_mode = "reflect"


def other_class(network):
    network.pair.b.__class__ = nn.Identity


CHANGES = [negate, through_data, load_others, step, replace, there_and_back, statistics]
CHANGES += [mirror, negate_through_data, other_eps, other_dilation, other_text, other_class]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_network_is_noticed(change):
    torch.manual_seed(0)
    network, kept = known_odd(), FoldedCopy()
    x = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():  # as in `Segmenter.probabilities`
        first = kept.of(network)
        assert kept.of(network) is first and first is not network
    change(network)
    with torch.inference_mode():
        second = kept.of(network)
        assert second is not first
        torch.testing.assert_close(second(x), network(x))


def test_looking_at_weights_moves_none_whatever_their_layout(fashion):
    """What lies channels last is looked at as it lies: a copy of all weights would cost more than the look."""
    prints = [_fingerprint(each.detach()) for each in fashion.network.parameters()]
    again = copy.deepcopy(fashion.network).to(memory_format=torch.contiguous_format)
    assert all(each.isfinite() for each in prints)
    assert [float(one) for one in prints] != [float(_fingerprint(two.detach())) for two in again.parameters()]


def test_another_default_device_is_not_asked_for_noise(astronaut):
    model = hubmodels.load("deeplabv3plus_person")
    with torch.device("meta"):
        inside = model.predict(astronaut[:64, :64]).probs
    np.testing.assert_allclose(inside, model.predict(astronaut[:64, :64]).probs, atol=1e-6)


def test_networks_that_a_copy_would_not_stand_for_run_themselves():
    kept = FoldedCopy()
    network = known_odd()
    assert kept.of(network) is not network
    handle = network.twice.register_forward_hook(lambda *_: None)
    assert kept.of(network) is network
    handle.remove()
    assert kept.of(network.train()) is network
    plain = nn.Sequential(nn.Conv2d(3, 2, 1)).eval()
    assert kept.of(plain) is plain


def test_copies_of_a_segmenter_make_their_own(fashion, astronaut):
    photo = astronaut[:64, :64]
    expected = fashion.probabilities(photo)
    for other in (copy.deepcopy(fashion._folded), pickle.loads(pickle.dumps(fashion._folded))):
        assert other.of(fashion.network) is not fashion._folded.of(fashion.network)
    np.testing.assert_array_equal(copy.deepcopy(fashion).probabilities(photo), expected)


def test_a_loaded_model_can_still_be_trained_and_predicts_what_it_learned(astronaut):
    """Folding is the predictor's business: names of tensors, gradients and training are as without it."""
    model = hubmodels.load("deeplabv3plus_person")
    names = set(model.state_dict())
    photo = astronaut[:96, 150:246]
    before = model.probabilities(photo)
    x = torch.tensor(photo.copy()).permute(2, 0, 1)[None] / 255
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    torch.nn.functional.cross_entropy(model(torch.cat([x, x])), torch.zeros(2, 96, 96, dtype=torch.long)).backward()
    optimiser.step()
    model.eval()
    after = model.probabilities(photo)
    with torch.inference_mode():
        expected = model(x)[0].softmax(0).numpy()
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(after, expected, atol=1e-4)
    assert set(model.state_dict()) == names
