"""Batch norm folded into convolutions: the same results with fewer passes over the maps, for inference only.

In eval mode a batch norm multiplies every channel by a constant and adds another, which the convolution before it can
do by its own weight and bias.
"""

from __future__ import annotations

import copy
import functools
import itertools
import threading
import types
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from hubmodels.networks.dilation import use_fast_dilation

PROBE_PX = 32  # the least that networks take

# Where the classes are that compute large photos as they do the small one of a trial: those of PyTorch, ours, and what
# timm makes our backbones of. Others may look at the size of a photo, or need a larger one.
KNOWN = (
    "torch.nn.modules.",
    "hubmodels.networks.",
    "timm.layers.",
    "timm.models._efficientnet_blocks",
    "timm.models._features",
    "timm.models.efficientnet",
    "timm.models.mobilenetv3",
    "timm.models.resnet",
)


@torch.no_grad()
def folded_tensors(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias with which `conv` alone does what `conv` and then `norm`, in eval mode, do.

    Computed in float64, as products of small and large numbers are at stake; returned in the dtype of the weight.
    """
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ValueError("expected a batch norm with running statistics; this one takes those of the batch")
    weight, mean, var = (t.detach().cpu().double() for t in (conv.weight, mean, var))  # some devices have no float64
    scale = (var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().cpu().double()
    bias = (0.0 if conv.bias is None else conv.bias.detach().cpu().double()) - mean
    bias = bias * scale + (norm.bias.detach().cpu().double() if norm.affine else 0.0)
    return (weight * scale[:, None, None, None]).to(conv.weight), bias.to(conv.weight)


def is_plain(network: nn.Module) -> bool:
    """Whether its classes, attributes and tensors tell all that an eval network does, at every size of photo.

    Then it can be folded, and known by a digest. It is not if a class is not `KNOWN`, such as most of a user's own, or
    if it is in training mode or compiled, or has hooks or another `forward`, which a copy would not call in time.
    """
    return _are_plain(tuple(network.modules()))


@torch.inference_mode(False)  # in it, tensors do not count how often they were written to
def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy of an eval network in which every batch norm right behind a convolution is part of that convolution.

    Which batch norm follows which convolution is observed on a forward pass of a small photo of noise, so it depends
    on no names. A convolution that is called more than once, or a batch norm that is fed by something else, stays.
    Of a network that is not `is_plain`, what holds for the small photo may be wrong for others.

    Args:
        network: (N, 3, H, W) float -> a tensor or tensors, H and W at least 32, in eval mode; not touched.

    Returns:
        A copy whose results are equal up to rounding. It is neither for training nor for loading weights: its
        parameters ask for no gradient, and its state dict has other names.

    Raises:
        ValueError: the network is in training mode, where batch norm depends on the batch; or the copy answers a
            trial otherwise, as it does where the output of a convolution goes to its batch norm and elsewhere too; or
            the network answers it with values that are not finite, or with no tensors.
        RuntimeError: the network fails on a photo so small.
    """
    if any(module.training for module in network.modules()):
        raise ValueError("expected a network in eval mode, as folding is for inference only: call network.eval() first")
    folded = copy.deepcopy(network).requires_grad_(False)
    if not any(_is_foldable(module) for module in folded.modules()):
        return folded
    probe = _probe(network)
    before = _answers(network, probe)
    if not all(torch.isfinite(answer).all() for answer in before):
        raise ValueError(
            "the network answers a trial with values that are not finite, so that copies cannot be checked"
        )
    for conv_name, norm_name in _pairs(folded, probe):
        conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        weight, bias = folded_tensors(conv, norm)
        conv.weight.copy_(weight)
        conv.bias = nn.Parameter(bias, requires_grad=False)
        replace_module(folded, norm_name, _rest(norm))
    for one, two in zip(before, _answers(folded, probe), strict=True):
        tolerance = (1e-3 if one.dtype in (torch.float32, torch.float64) else 5e-2) * float(one.abs().max() + 1e-6)
        if not torch.allclose(one, two, rtol=0, atol=tolerance):
            raise ValueError("a convolution's output seems to go to its batch norm and elsewhere too: not foldable")
    return folded


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one called `name` (dotted)."""
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


class FoldedCopy:
    """The folded copy of a network for inference, kept for as long as the network stays what it is.

    Made at the first call. Weights that were loaded, trained, moved or replaced since, through `.data` too, are
    noticed by looking at all of them, at a few hundredths of the time of a pass; so are other numbers, text or
    functions as attributes of a module, such as the `eps` of a norm or the `dilation` of a convolution.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: _State | None = None
        self._folded: nn.Module | None = None

    def of(self, network: nn.Module) -> nn.Module:
        """What to run instead of `network`: a folded copy, or the network itself where that would not be the same.

        That is a network that is not `is_plain`, and one without batch norms.
        """
        modules = tuple(network.modules())
        if not _are_plain(modules) or not any(map(_is_foldable, modules)):
            return network
        with self._lock:
            state = _State(network, modules)
            if self._folded is None or self._state is None or not self._state.is_same(state):
                # Ordinary tensors even if the caller is in inference mode, so that they can be told apart later.
                with torch.inference_mode(False):
                    self._folded = _folded_or_same(network)
                self._state = state
            return self._folded

    def __reduce__(self) -> tuple[type[FoldedCopy], tuple[()]]:
        """Copies and pickles start without a folded network, as it can be made again."""
        return FoldedCopy, ()


def _folded_or_same(network: nn.Module) -> nn.Module:
    try:
        # Under the caller's autocast a trial would be too coarse to tell whether both answer alike.
        with torch.autocast(next(network.parameters()).device.type, enabled=False):
            folded = fold_batch_norms(network)
        use_fast_dilation(folded)
        return folded
    # Not foldable, or of layers that need more than the pixels of a trial: then it runs as it is, which is slower and
    # nothing else. What is wrong with it at any size, its own run says.
    except (ValueError, RuntimeError):
        return network


def _are_plain(modules: Sequence[nn.Module]) -> bool:
    known = all(each.__module__.startswith(KNOWN) for each in set(map(type, modules)))
    return known and not any(map(_is_peculiar, modules))


def _is_peculiar(module: nn.Module) -> bool:
    """Whether a copy made at one time would not do what the module does at another."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return module.training or bool(hooked) or "_orig_mod" in module._modules  # the last: compiled


class _State:
    """What the results of a network depend on: its modules, their attributes, and its tensors' places and values."""

    def __init__(self, network: nn.Module, modules: tuple[nn.Module, ...]) -> None:
        self._modules = modules
        # Aliases keep the memory from being used anew, so that an equal address is the same memory.
        self._tensors = [t.detach() for t in itertools.chain(network.parameters(), network.buffers())]
        self._versions = [None if t.is_inference() else t._version for t in self._tensors]
        self._attributes = [_attributes(module) for module in modules]
        prints = [_fingerprint(t) for t in self._tensors if t.is_floating_point()]
        self._prints = torch.stack([each.to(prints[0].device) for each in prints]).cpu()

    def is_same(self, other: _State) -> bool:
        return (
            len(self._modules) == len(other._modules)
            and all(one is two for one, two in zip(self._modules, other._modules, strict=True))
            and [_place(t) for t in self._tensors] == [_place(t) for t in other._tensors]
            and self._versions == other._versions
            and self._attributes == other._attributes
            and torch.equal(self._prints, other._prints)
        )


_VALUES = (bool, int, float, complex, str, types.NoneType, torch.dtype)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_PLAIN = frozenset((*_VALUES, *_FUNCTIONS))
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))  # parameters, hooks and so on, which are looked at elsewhere


def _attributes(module: nn.Module) -> tuple[type, dict[str, object]]:
    """The class of a module and its attributes, in a form that can be compared with that of later."""
    own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    # The first alternative is the second written out for nearly all of them: this runs at every photo.
    return type(module), {name: each if type(each) in _PLAIN else _comparable(each) for name, each in own.items()}


def _comparable(value: object) -> object:
    """Numbers, text and functions, and sequences of them, as they are now; of all else the class."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (tuple, list)):
        return tuple(map(_comparable, value))
    return value.item() if isinstance(value, np.generic) else type(value)


def _place(tensor: torch.Tensor) -> tuple[int, torch.Size, tuple[int, ...], torch.dtype, torch.device]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


@torch.no_grad()
def _fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """A number that moves with every value, its sign and its place: the product with fixed noise."""
    if not tensor.is_contiguous() and tensor.ndim == 4:
        tensor = tensor.permute(0, 2, 3, 1)  # no copy of what lies channels last
    flat = tensor.reshape(-1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    noise = _noise(1 << len(flat).bit_length(), flat.device)[: len(flat)]
    return torch.dot(flat, noise if flat.dtype == noise.dtype else noise.to(flat.dtype)).float()


@functools.lru_cache(maxsize=32)  # lengths are powers of two
def _noise(length: int, device: torch.device) -> torch.Tensor:
    return torch.rand(length, generator=torch.Generator("cpu").manual_seed(0), device="cpu").to(device)


def _probe(network: nn.Module) -> torch.Tensor:
    """A small photo of noise, always the same."""
    like = next(network.parameters())
    noise = torch.rand(1, 3, PROBE_PX, PROBE_PX, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return noise.to(like)


@torch.no_grad()
def _answers(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    answer = network(x)
    answers = [answer] if isinstance(answer, torch.Tensor) else list(answer)
    if not all(isinstance(each, torch.Tensor) for each in answers):
        raise ValueError(f"expected a network that answers with a tensor or tensors; got {type(answer).__name__}")
    return answers


@torch.no_grad()
def _pairs(network: nn.Module, x: torch.Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that got their output, object by object, and as it was."""
    outputs: dict[str, list[torch.Tensor]] = {}  # holds the tensors, so that no other gets the id of one
    inputs: dict[str, list[tuple[int, int]]] = {}
    versions: dict[int, int] = {}

    def made(name: str, y: torch.Tensor) -> None:
        outputs.setdefault(name, []).append(y)
        versions[id(y)] = y._version

    hooks = []
    for name, module in network.named_modules():
        if _is_foldable(module):
            take = lambda _, x, n=name: inputs.setdefault(n, []).append((id(x[0]), x[0]._version))  # noqa: E731
            hooks.append(module.register_forward_pre_hook(take))
        elif isinstance(module, nn.Conv2d) and "weight" in module._parameters:  # not one that is computed or pruned
            hooks.append(module.register_forward_hook(lambda _, __, y, n=name: made(n, y)))
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    makers = {(id(calls[0]), versions[id(calls[0])]): name for name, calls in outputs.items() if len(calls) == 1}
    return [(makers[calls[0]], name) for name, calls in inputs.items() if len(calls) == 1 and calls[0] in makers]


def _is_foldable(module: nn.Module) -> bool:
    """Whether it is a batch norm with statistics of its own, of a class that is known to do nothing else unseen."""
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"  # timm's, without importing it
    return known and getattr(module, "running_mean", None) is not None


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What of a batch norm is not normalisation: timm's BatchNormAct2d carries the activation behind it."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()
