"""What a dense CRF needs of a photo, whatever the logits and weights: the lattices of its two kernels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hubmodels.refine.lattice import Backend, PermutohedralLattice, choose_kernels

SPATIAL_CACHE_PIXELS = 1_200_000  # smoothness lattices kept, in pixels; 40 to 50 bytes each, so at most 60 MB

_spatial: OrderedDict[tuple[object, ...], PermutohedralLattice] = OrderedDict()
_spatial_lock = threading.Lock()


@dataclass(frozen=True)
class PhotoKernels:
    """What depends on the photo alone: both lattices with their normalisers. Made by `DenseCRF.photo`.

    Attributes: full_hw: the photo's size; hw: the size the CRF works at, smaller for large photos;
        sigmas: (appearance px, appearance colour, smoothness px) at that size.
    Memory: about 150 bytes a pixel of `hw`, 36 MB at 600x400 (twice that on the PyTorch path); 40 of them belong to
        `smoothness`, which photos of one size share.
    """

    full_hw: tuple[int, int]
    hw: tuple[int, int]
    sigmas: tuple[float, float, float]
    appearance: PermutohedralLattice
    smoothness: PermutohedralLattice


def build_photo_kernels(
    colours: Tensor, hw: tuple[int, int], sigmas: tuple[float, float, float], *, backend: Backend
) -> PhotoKernels:
    """Both lattices of one photo (3, H, W) in 0..255, built at the working size `hw` for `sigmas` at that size.

    Raises: ValueError for a backend that cannot run, or a sigma so small that the photo does not fit a lattice.
    """
    full_hw = (int(colours.shape[1]), int(colours.shape[2]))
    choose_kernels(backend, colours.device)  # so that what the lattices refuse below are sigmas alone
    # Outside of inference mode: what is cached here may be used in training later.
    with torch.inference_mode(False), torch.no_grad():
        colours = colours.float()
        if hw != full_hw:
            colours = F.interpolate(colours[None], hw, mode="area")[0]
        features = torch.cat([_positions(hw, sigmas[0], colours.device), colours.flatten(1) / sigmas[1]])
        try:
            appearance = PermutohedralLattice(features.t(), backend=backend)
        except ValueError as error:
            by_place = max(hw) * sigmas[1] > float(colours.max()) * sigmas[0]
            widest = "appearance_sigma_px" if by_place else "appearance_sigma_colour"
            raise _too_small(widest, sigmas[0] if by_place else sigmas[1], hw) from error
    try:
        smoothness = _spatial_lattice(hw, sigmas[2], colours.device, backend)
    except ValueError as error:
        raise _too_small("smoothness_sigma_px", sigmas[2], hw) from error
    for lattice in (appearance, smoothness):
        lattice.prepare_normaliser()
    return PhotoKernels(full_hw, hw, sigmas, appearance, smoothness)


def forget_spatial_lattices() -> None:
    """Drop the smoothness lattices that are kept: the next photo is as the first of its size."""
    with _spatial_lock:
        _spatial.clear()


def _too_small(name: str, sigma: float, hw: tuple[int, int]) -> ValueError:
    return ValueError(
        f"{name} is too small: got {sigma:g} at the size the CRF works at, {hw[0]}x{hw[1]} pixels, and the photo would "
        "be too many standard deviations wide for a lattice: raise it"
    )


def _positions(hw: tuple[int, int], sigma_px: float, device: torch.device) -> Tensor:
    """(2, H * W) float32: x and y of every pixel, row by row, in standard deviations."""
    height, width = hw
    x = torch.arange(width, dtype=torch.float32, device=device) / sigma_px
    y = torch.arange(height, dtype=torch.float32, device=device) / sigma_px
    return torch.stack([x.repeat(height), y.repeat_interleave(width)])


def _spatial_lattice(
    hw: tuple[int, int], sigma_px: float, device: torch.device, backend: Backend
) -> PermutohedralLattice:
    """The smoothness lattice of all photos of one size; the most recent ones are kept, SPATIAL_CACHE_PIXELS in all."""
    key = (hw, sigma_px, device, backend)
    with _spatial_lock:
        if (known := _spatial.get(key)) is not None:
            _spatial.move_to_end(key)
            return known
    with torch.inference_mode(False), torch.no_grad():
        made = PermutohedralLattice(_positions(hw, sigma_px, device).t(), backend=backend)
    with _spatial_lock:
        _spatial[key] = made
        while _spatial and sum(lattice.points for lattice in _spatial.values()) > SPATIAL_CACHE_PIXELS:
            _spatial.popitem(last=False)
    return made
