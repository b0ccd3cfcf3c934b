"""Values that weights cannot have are found, whatever file they come from."""

from __future__ import annotations

import pytest
import torch

from hubmodels import WeightsError
from hubmodels.checks import check_tensors


def test_values_must_be_finite_as_they_are_used():
    wanted = {"weight": torch.zeros(1)}
    check_tensors({"weight": torch.full((1,), 1e30, dtype=torch.float64)}, wanted, what="it", remedy="again")
    with pytest.raises(WeightsError, match="it: weight holds values that are not finite; again"):
        check_tensors({"weight": torch.full((1,), 1e300, dtype=torch.float64)}, wanted, what="it", remedy="again")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_impossible_value_among_many_is_found(wrong, dtype):
    values = torch.linspace(-2, 2, 70_001).to(dtype)
    check_tensors({"weight": values}, {"weight": values}, what="it", remedy="again")
    for place in (0, 31_415, 70_000):
        holed = values.clone()
        holed[place] = wrong
        with pytest.raises(WeightsError, match="it: weight holds values that are not finite; again"):
            check_tensors({"weight": holed}, {"weight": values}, what="it", remedy="again")


def test_variances_are_not_below_zero():
    wanted = {"norm.running_var": torch.ones(3)}
    check_tensors({"norm.running_var": torch.tensor([0.0, 1, 2])}, wanted, what="it", remedy="again")
    with pytest.raises(WeightsError, match=r"it: norm\.running_var holds negative variances; again"):
        check_tensors({"norm.running_var": torch.tensor([1.0, -1e-6, 2])}, wanted, what="it", remedy="again")
