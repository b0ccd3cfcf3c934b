"""Losses against values worked out by hand, and what they have in common."""

from __future__ import annotations

import math

import pytest
import torch

from hubmodels.metrics import IGNORE
from training.losses import (
    LOSSES,
    combined,
    cross_entropy,
    dice,
    generalized_cross_entropy,
    lovasz_softmax,
    soft_jaccard,
)


def pixels(*probabilities: float) -> torch.Tensor:
    """Two-class logits (1, 2, 1, n) whose softmax gives class 1 these probabilities."""
    p = torch.tensor(probabilities)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def labels(*ids: int) -> torch.Tensor:
    return torch.tensor(ids)[None, None]


def test_cross_entropy_by_hand():
    # true class probabilities .5 and .75
    expected = -(math.log(0.5) + math.log(0.75)) / 2
    assert cross_entropy(pixels(0.5, 0.75), labels(0, 1)).item() == pytest.approx(expected)


def test_weighted_cross_entropy_by_hand():
    # class weights 1 and 3: weighted mean
    expected = -(1 * math.log(0.5) + 3 * math.log(0.75)) / 4
    loss = cross_entropy(pixels(0.5, 0.75), labels(0, 1), torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(expected)


def test_generalized_cross_entropy_by_hand():
    # true class probabilities .5 and .75
    expected = ((1 - 0.5**0.7) / 0.7 + (1 - 0.75**0.7) / 0.7) / 2
    assert generalized_cross_entropy(pixels(0.5, 0.75), labels(0, 1)).item() == pytest.approx(expected)
    assert generalized_cross_entropy(pixels(0.5, 0.75), labels(0, 1), q=1.0).item() == pytest.approx(0.375)


def test_generalized_cross_entropy_learns_least_where_it_is_surest_that_the_label_is_wrong():
    def pull(logit: float) -> float:
        logits = torch.tensor([logit, 0.0])[None, :, None, None].requires_grad_()
        generalized_cross_entropy(logits, labels(1)).backward()
        return logits.grad.abs().max().item()

    assert pull(1.0) > pull(5.0) > pull(20.0) > pull(200.0) == 0.0


def test_dice_by_hand():
    # class 0: overlap .5, total (.5 + .25) + 1; class 1: overlap .75, total (.5 + .75) + 1
    expected = 1 - (2 * 0.5 / 1.75 + 2 * 0.75 / 2.25) / 2
    assert dice(pixels(0.5, 0.75), labels(0, 1), smooth=0).item() == pytest.approx(expected)


def test_soft_jaccard_by_hand():
    # class 0: .5 / (.75 + 1 - .5); class 1: .75 / (1.25 + 1 - .75)
    expected = 1 - (0.5 / 1.25 + 0.75 / 1.5) / 2
    assert soft_jaccard(pixels(0.5, 0.75), labels(0, 1), smooth=0).item() == pytest.approx(expected)


def test_dice_counts_only_classes_that_are_present():
    # class 1 alone is there: overlap .75 + .5, total .75 + .5 + 2
    expected = 1 - 2 * 1.25 / 3.25
    assert dice(pixels(0.75, 0.5), labels(1, 1), smooth=0).item() == pytest.approx(expected)


def test_lovasz_by_hand():
    # Errors of either class are .5 (pixel 0) and .25 (pixel 1), each class has one true pixel.
    # Class 0, sorted (true, false): Jaccard losses 1 - 0/1 = 1, then 1 - 0/2 = 1: gradient (1, 0) -> .5
    # Class 1, sorted (false, true): 1 - 1/2 = .5, then 1 - 0/2 = 1: gradient (.5, .5) -> .375
    loss = lovasz_softmax(pixels(0.5, 0.75), labels(0, 1))
    assert loss.item() == pytest.approx((0.5 + 0.375) / 2)


def test_lovasz_of_hard_predictions_is_the_jaccard_loss():
    """Berman et al. 2018: the extension agrees with the set function on its corners."""
    hard = pixels(*(0.999999 if p else 0.000001 for p in (1, 1, 0, 0, 1)))
    truth = labels(1, 0, 0, 0, 1)
    iou = ((2 / 3) + (2 / 3)) / 2  # class 1: 2 of 3, class 0: 2 of 3
    assert lovasz_softmax(hard, truth).item() == pytest.approx(1 - iou, abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
class TestEveryLoss:
    def test_undecided_pixels_do_not_count(self, loss):
        torch.manual_seed(0)
        logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
        wide = torch.cat([logits, torch.randn(2, 3, 4, 2)], dim=3)
        wide_target = torch.cat([target, torch.full((2, 4, 2), IGNORE)], dim=2)
        torch.testing.assert_close(loss(wide, wide_target), loss(logits, target))

    def test_is_zero_with_a_gradient_when_no_pixel_is_decided(self, loss):
        logits = torch.randn(1, 3, 2, 2, requires_grad=True)
        value = loss(logits, torch.full((1, 2, 2), IGNORE))
        value.backward()
        assert value.item() == 0 and not logits.grad.any()

    def test_falls_towards_zero_as_the_prediction_becomes_right(self, loss):
        target = torch.randint(0, 3, (1, 6, 6), generator=torch.Generator().manual_seed(1))
        right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
        values = [loss(strength * right, target).item() for strength in (0, 2, 20)]
        assert values[0] > values[1] > values[2] >= -1e-6 and values[2] < 1e-3

    def test_gradient_is_finite(self, loss):
        logits = (100 * torch.randn(1, 3, 5, 5)).requires_grad_()
        loss(logits, torch.randint(0, 3, (1, 5, 5))).backward()
        assert torch.isfinite(logits.grad).all()


def test_lovasz_on_a_sub_grid_sees_every_other_pixel():
    logits, target = torch.randn(1, 2, 8, 8), torch.randint(0, 2, (1, 8, 8))
    expected = lovasz_softmax(logits[:, :, ::2, ::2], target[:, ::2, ::2])
    torch.testing.assert_close(lovasz_softmax(logits, target, max_pixels=16), expected)
    assert lovasz_softmax(logits, target, max_pixels=32) == lovasz_softmax(logits, target)  # up to about twice as many


def test_losses_add_up_by_their_weights():
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    total = combined(logits, target, {"cross_entropy": 1.0, "dice": 0.5, "lovasz": 0.0})
    torch.testing.assert_close(total, cross_entropy(logits, target) + 0.5 * dice(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["generalized_cross_entropy", "dice", "soft_jaccard", "lovasz"])
def test_half_precision_has_the_gradient_of_full(name, dtype):
    """Thousands of pixels are counted, where bfloat16 counts to 256."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 60, 50, generator=random).to(dtype)
    truth = torch.randint(0, 7, (2, 60, 50), generator=random)
    exact, half = logits.double().requires_grad_(), logits.requires_grad_()
    for each in (exact, half):
        LOSSES[name](each, truth).backward()
    cosine = torch.nn.functional.cosine_similarity(exact.grad.flatten(), half.grad.double().flatten(), dim=0)
    assert half.grad.dtype == dtype and cosine > 0.999
