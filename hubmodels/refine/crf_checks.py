"""Checks of what users give the CRF: each returns the value in the form that is worked with, or says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WEIGHT_MAX = 1e30  # nats; messages are sums in float32, which ends at 3e38, and infinity less infinity is no number


def described(value: object) -> str:
    """Class of a value, and shape and dtype if it has them, for messages."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}" + ("" if shape is None else f" {tuple(shape)} of {getattr(value, 'dtype', '?')}")


def checked_sigma(name: str, value: float) -> float:
    """A standard deviation; ValueError unless it is finite and above 0."""
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be finite and above 0; got {value}: to switch a kernel off, set its weight to 0")
    return float(value)


def checked_weight(name: str, value: float) -> float:
    """A strength in nats; ValueError unless it is in 0..`WEIGHT_MAX`."""
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be finite and at least 0; got {value}: pass the strength, not an energy")
    if value > WEIGHT_MAX:
        raise ValueError(f"{name} must be at most {WEIGHT_MAX:g}, as float32 ends soon after; got {value:g}")
    return float(value)


def checked_iterations(iterations: int) -> int:
    """A number of iterations; TypeError unless it is whole, ValueError if it is negative."""
    real = isinstance(iterations, (int, float, np.integer, np.floating)) and not isinstance(iterations, bool)
    if not real or not math.isfinite(iterations) or int(iterations) != iterations:
        raise TypeError(f"iterations must be a whole number; got {iterations!r}")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0 (which changes nothing); got {iterations}")
    return int(iterations)


def checked_count(name: str, value: int, *, advice: str = "") -> int:
    """How many; ValueError, which ends with `advice`, unless it is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more; got {value!r}{advice}")
    return int(value)


def checked_reference(value: tuple[int, int] | None) -> tuple[int, int] | None:
    """A size in pixels, or None; ValueError for anything else."""
    if value is None:
        return None
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"reference_hw must be (height, width) in pixels, or None; got {value!r}")
    return checked_count("height of reference_hw", value[0]), checked_count("width of reference_hw", value[1])


def checked_compatibility(value: object, num_classes: int | None) -> Tensor | None:
    """(C, C) float32 energies of one's own, or Potts for `num_classes`, or None; ValueError for other matrices."""
    if num_classes is not None:
        num_classes = checked_count("num_classes", num_classes)
    if value is None:
        return None if num_classes is None else -torch.eye(num_classes)
    matrix = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    expected = (num_classes, num_classes) if num_classes is not None else (matrix.shape[:1] * 2 or ("C", "C"))
    if matrix.ndim != 2 or tuple(matrix.shape) != tuple(expected) or not bool(matrix.isfinite().all()):
        raise ValueError(f"compatibility must be a finite (C, C) matrix of energies; got {described(matrix)}")
    return matrix


def checked_logits(logits: Tensor) -> Tensor:
    """(N, C, H, W) finite floats as they came; TypeError or ValueError for anything else."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits must be a float tensor (N, C, H, W); got {described(logits)}")
    if logits.ndim != 4 or 0 in logits.shape:
        raise ValueError(f"logits must be (N, C, H, W), none of them 0; got {tuple(logits.shape)}")
    # the extremes are finite only if all are, and take an eighth of the time of isfinite().all()
    if not all(math.isfinite(value.item()) for value in torch.aminmax(logits.detach())):
        raise ValueError(
            "logits must be finite; got NaN or infinity: clamp logarithms of probabilities (see log_probabilities)"
        )
    return logits


def checked_image(image: Tensor | NDArray[np.generic], hw: tuple[int, int] | None = None) -> Tensor:
    """(3, H, W) view of one photo in 0..255; of size `hw` if given."""
    # Copied: strides of an axis of one pixel may be negative in what NumPy calls contiguous.
    tensor = torch.from_numpy(np.array(image, order="C")) if isinstance(image, np.ndarray) else image
    if not isinstance(tensor, Tensor):
        raise TypeError(f"image must be a tensor or array; got {type(image).__name__}: use numpy.asarray(picture)")
    layouts = [tensor, tensor.permute(2, 0, 1)] if tensor.ndim == 3 and 0 not in tensor.shape else []
    fits = [each for each in layouts if each.shape[0] == 3 and hw in (None, tuple(each.shape[1:]))]
    if not fits:
        height, width = hw if hw is not None else ("H", "W")
        raise ValueError(
            f"image must be (3, {height}, {width}) or ({height}, {width}, 3), RGB, as large as the logits; "
            f"got {tuple(tensor.shape)}: resize the logits, not the labels, to the photo"
        )
    if tensor.dtype != torch.uint8:
        check_range(tensor)
    return fits[0]


def check_range(image: Tensor) -> None:
    """Raise TypeError for a photo of whole numbers but uint8, ValueError for one that is not in 0..255."""
    if not image.is_floating_point():
        raise TypeError(f"image must be uint8, or float in 0..255; got {image.dtype}: convert it to uint8")
    low, high = (value.item() for value in torch.aminmax(image.detach()))
    if not (low >= 0 and high <= 255):
        raise ValueError(f"image must be in 0..255; got {low:g} to {high:g}: pass the photo before normalisation")
    # Of a photo that is nearly black, values are 0 and 1: others so small are shares of 255.
    if 0 < high <= 1 and not bool(((image == 0) | (image == 1)).all()):
        raise ValueError(f"image must be in 0..255; got {low:g} to {high:g}, which looks like 0..1: multiply by 255")
