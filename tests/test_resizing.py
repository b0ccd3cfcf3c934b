"""Large photos' probabilities on their way to the CRF and back, against PyTorch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hubmodels.refine import DenseCRF, resizing
from hubmodels.refine.mean_field import PROBABILITY_FLOOR

SIZES = [((61, 47), (20, 15)), ((33, 8), (32, 3)), ((16, 250), (1, 9)), ((9, 40), (9, 40)), ((70, 9), (5, 1))]


def probabilities(labels: int, hw: tuple[int, int], *, seed: int = 0) -> Tensor:
    """Float32, some of them 0."""
    values = torch.rand(labels, *hw, generator=torch.Generator().manual_seed(seed)).pow(20)
    values[values < 1e-6] = 0
    values[0] += values.sum(0) == 0
    return values / values.sum(0)


@pytest.mark.parametrize(("full", "small"), SIZES)
@pytest.mark.parametrize("labels", [1, 2, 9])
def test_means_of_logarithms_are_those_of_adaptive_pooling(labels, full, small):
    probs = probabilities(labels, full)
    logs = probs.double().clamp_min(PROBABILITY_FLOOR).log()
    expected = F.adaptive_avg_pool2d(logs[None], small)[0]
    got = resizing.mean_logs(probs, small, floor=PROBABILITY_FLOOR)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)


def test_areas_of_thousands_of_zeros_do_not_underflow():
    got = resizing.mean_logs(torch.zeros(1, 90, 80), (1, 1), floor=PROBABILITY_FLOOR)
    assert got.item() == pytest.approx(torch.tensor(PROBABILITY_FLOOR).log().item(), rel=1e-6)


@pytest.mark.parametrize(("full", "small"), SIZES)
@pytest.mark.parametrize(("labels", "strength"), [(1, 1.0), (2, 1.0), (9, 4.0), (3, 100.0)])
def test_changed_probabilities_are_the_softmax_of_changed_logarithms(labels, strength, full, small):
    probs = probabilities(labels, full)
    change = strength * torch.randn(labels, *small, generator=torch.Generator().manual_seed(1))
    enlarged = F.interpolate(change.double()[None], full, mode="bilinear", align_corners=False)[0]
    expected = (probs.double().clamp_min(PROBABILITY_FLOOR).log() + enlarged).softmax(0)
    got = resizing.change_probs(probs, change, floor=PROBABILITY_FLOOR)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.sum(0), torch.ones(full), rtol=0, atol=1e-5)


def test_parts_of_several_threads_make_one_photo():
    probs, change = probabilities(4, (97, 50)), torch.randn(4, 40, 21)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            logs = resizing.mean_logs(probs, (40, 21), floor=PROBABILITY_FLOOR)
            results.append((logs, resizing.change_probs(probs, change, floor=PROBABILITY_FLOOR)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


def test_defaults_for_new_tensors_change_nothing():
    probs, change = probabilities(4, (40, 30)), torch.randn(4, 12, 9)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")  # as a GPU might be, whose tensors NumPy cannot see
        results = [
            resizing.mean_logs(probs, (12, 9), floor=PROBABILITY_FLOOR),
            resizing.change_probs(probs, change, floor=PROBABILITY_FLOOR),
        ]
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert all(each.dtype == torch.float32 and each.device.type == "cpu" for each in results)


@pytest.mark.parametrize(
    "probs",
    [torch.zeros(2, 9, 7), torch.zeros(2, 9, 9).double(), torch.zeros(9, 9, 2).permute(2, 0, 1)],
    ids=["narrow", "float64", "channels last"],
)
def test_what_the_loops_cannot_take_is_left_to_pytorch(probs):
    assert not resizing.takes(probs) and resizing.takes(torch.zeros(2, 9, 8))


@pytest.mark.parametrize("hw", [(60, 44), (200, 6)], ids=["compiled", "narrow"])
def test_a_crf_says_the_same_with_and_without_compiled_loops(hw):
    probs = probabilities(3, hw)
    image = torch.randint(0, 256, (3, *hw), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    answers = []
    for backend in ("numba", "torch"):
        crf = DenseCRF(max_pixels=500, backend=backend)
        answers.append(crf.prepare(crf.unaries_of_probs(probs), image).refine_probs(3))
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-5)
