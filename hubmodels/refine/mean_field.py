"""Mean-field iterations of a dense CRF, from logits brought to its working size and back to the size of the photo.

Source: Kraehenbuehl & Koltun 2011, algorithm 1.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional as F

from hubmodels.bands import bands
from hubmodels.refine.lattice import load_kernels
from hubmodels.refine.photo_kernels import PhotoKernels

PROBABILITY_FLOOR = 1e-8  # less probable counts as this, so that logarithms of zeros stay finite


class Unaries(NamedTuple):
    """Logits of one photo as a CRF begins with them, for several CRFs in turn.

    Made by `DenseCRF.unaries` and `DenseCRF.unaries_of_probs`.

    Attributes:
        full: (C, H, W) logits of the photo, or its probabilities.
        working: (C, h, w) logits at the working size, float32 or float64; `full` itself if those are logits at it.
        of_probs: `full` are probabilities, whose logarithms are taken when they are needed.
    """

    full: Tensor
    working: Tensor
    of_probs: bool = False

    def logits(self, rows: slice = slice(None)) -> Tensor:
        """(C, h, W) logits of some rows of the photo: a view, or new ones of probabilities."""
        part = self.full[:, rows]
        return floored_log(part) if self.of_probs else part


def floored_log(probs: Tensor) -> Tensor:
    """Logarithms of probabilities, at least `PROBABILITY_FLOOR`; float32 for half precision."""
    probs = probs if probs.dtype == torch.float64 else probs.float()  # in float16 the floor would be 0
    return probs.clamp_min(PROBABILITY_FLOOR).log()


class MeanField:
    """Mean-field iterations at the working size, compiled where nothing asks for a gradient and Numba can."""

    def __init__(self, logits: Tensor, photo: PhotoKernels, appearance: Tensor, smoothness: Tensor) -> None:
        self.logits, self.photo, self.matrices = logits, photo, (appearance, smoothness)
        inputs = (logits, *self.matrices)
        wants_gradient = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
        wants_gradient |= any(unpack_dual(each).tangent is not None for each in inputs)  # of forward mode
        self.fused = not wants_gradient and logits.dtype == torch.float32 and photo.appearance.cpu_kernels() is not None

    def run(self, state: Tensor, iterations: int, *, keep: int = 1) -> list[Tensor]:
        """The last `keep` states (C, h, w) of so many iterations from `state`."""
        if self.fused:
            return self._run_fused(state, iterations, keep)
        states: list[Tensor] = []
        with torch.autocast(self.logits.device.type, enabled=False):  # it would take messages to half precision
            x = state
            for _ in range(iterations):
                x = self._step(x)
                states = [*states[-(keep - 1) :], x] if keep > 1 else [x]
        return states

    def _step(self, x: Tensor) -> Tensor:
        q = x.flatten(1).t().softmax(dim=1)
        energy = self.logits.flatten(1).t()
        for lattice, matrix in zip((self.photo.appearance, self.photo.smoothness), self.matrices, strict=True):
            norm = lattice.normaliser()[:, None].to(q.dtype)
            energy = energy + (norm * lattice.filter(norm * q)) @ matrix
        return energy.t().reshape(x.shape)

    def _run_fused(self, state: Tensor, iterations: int, keep: int) -> list[Tensor]:
        kernels = load_kernels()
        assert kernels is not None  # `fused` says so
        logits = self.logits.detach().flatten(1).contiguous().numpy()
        begin = logits if state is self.logits else state.detach().flatten(1).contiguous().numpy()
        lattices = (self.photo.appearance.cpu_kernels(), self.photo.smoothness.cpu_kernels())
        matrices = tuple(each.detach().numpy() for each in self.matrices)
        states = kernels.mean_field(logits, begin, lattices, matrices, iterations=iterations, keep=keep)
        return [torch.from_numpy(each).view(self.logits.shape) for each in states]


def shrink(logits: Tensor, hw: tuple[int, int]) -> Tensor:
    """Logits (C, H, W) at the working size (h, w); half precision becomes float32, in which the CRF works."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if tuple(logits.shape[1:]) == hw else F.interpolate(logits[None], hw, mode="area")[0]


def working_logs(probs: Tensor, hw: tuple[int, int], *, compiled: bool) -> Tensor:
    """Logarithms of probabilities (C, H, W) at the working size (h, w), float32 or float64, `compiled` if that can be.

    Beside the result there are never as many values as `probs` has: photos are large.
    """
    if tuple(probs.shape[1:]) != hw and (passes := _passes_for(probs, compiled=compiled)):
        return passes.mean_logs(probs, hw, floor=PROBABILITY_FLOOR)
    return torch.cat([shrink(floored_log(probs[c : c + 1]), hw) for c in range(len(probs))])


def enlarged_probs(unaries: Unaries, refined: Tensor, photo: PhotoKernels) -> Tensor:
    """(C, H, W) probabilities of the photo from logits that were refined at the working size, as `enlarge_change`.

    Beside the result there are never as many values as that has: photos are large.
    """
    if photo.hw == photo.full_hw:
        return refined.softmax(0)
    at_work = refined - unaries.working
    compiled = unaries.of_probs and photo.appearance.cpu_kernels() is not None
    if passes := _passes_for(unaries.full, compiled=compiled):
        return passes.change_probs(unaries.full, at_work, floor=PROBABILITY_FLOOR)
    change = F.interpolate(at_work[None], photo.full_hw, mode="bilinear", align_corners=False)[0]
    for rows in bands(change):
        change[:, rows] = (unaries.logits(rows) + change[:, rows]).softmax(0)
    return change


def _passes_for(probs: Tensor, *, compiled: bool) -> ModuleType | None:
    """The compiled passes over a large photo, if they may be used and take such probabilities."""
    if not compiled:
        return None
    from hubmodels.refine import resizing  # with Numba, which the lattices have loaded already

    return resizing if resizing.takes(probs) else None


def enlarge_change(logits: Tensor, start: Tensor, refined: Tensor, photo: PhotoKernels) -> Tensor:
    """Add what the CRF changed at the working size to the full-size logits.

    The change of the logits is that of the log-probabilities up to one number per pixel, which softmax ignores.
    """
    if photo.hw == photo.full_hw:
        return refined.to(logits.dtype)
    change = F.interpolate((refined - start)[None], photo.full_hw, mode="bilinear", align_corners=False)[0]
    if change.dtype == logits.dtype and not torch.is_grad_enabled():
        return change.add_(logits)  # nobody else has it, and photos are large
    return (logits + change).to(logits.dtype)
