"""Weights are untrusted: what every file of tensors must satisfy before it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from hubmodels.errors import WeightsError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], *, what: str, remedy: str
) -> None:
    """Raise WeightsError unless names, shapes and kinds are exactly the wanted ones and every value is possible.

    Possible values are finite in float32, as which they are used, and variances of batch norm not below zero.

    Args:
        tensors: what a file holds.
        wanted: the state dict it is for; dtypes may differ, as shipped weights are float16.
        what, remedy: how messages begin and end.
    """
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        raise WeightsError(
            f"{what}: {len(missing)} tensors missing {missing[:3]}, {len(extra)} unknown {extra[:3]}; {remedy}"
        )
    # Files are written in one precision; a header that lies about one tensor would turn its bits into other numbers.
    if len(precisions := {str(value.dtype) for value in tensors.values() if value.dtype in FLOATS}) > 1:
        raise WeightsError(f"{what}: expected floating-point tensors of one kind, got {sorted(precisions)}; {remedy}")
    for key, value in tensors.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(f"{what}: {key} is {tuple(value.shape)}, expected {tuple(wanted[key].shape)}; {remedy}")
        kinds = FLOATS if wanted[key].is_floating_point() else (wanted[key].dtype,)
        if value.dtype not in kinds:
            raise WeightsError(f"{what}: {key} is {value.dtype}, expected {wanted[key].dtype}; {remedy}")
        if value.numel() == 0:
            continue
        low, high = (extreme.item() for extreme in torch.aminmax(value.float()))
        # the extremes are finite only if all are, and take an eighteenth of the time of isfinite().all()
        if not (math.isfinite(low) and math.isfinite(high)):
            raise WeightsError(f"{what}: {key} holds values that are not finite; {remedy}")
        if key.endswith("running_var") and low < 0:
            raise WeightsError(f"{what}: {key} holds negative variances; {remedy}")
