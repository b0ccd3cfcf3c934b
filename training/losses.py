"""Segmentation losses. Each takes logits (N, C, H, W) and int64 labels (N, H, W), and skips pixels labelled IGNORE.

Every loss is a mean, so weights between losses mean the same at any crop size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

from hubmodels.metrics import IGNORE


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy over decided pixels, optionally weighted by class (C,); 0 if no pixel counts."""
    decided = target != IGNORE
    if not decided.any() or (weight is not None and not weight[target[decided]].any()):
        return logits.sum() * 0  # the weighted mean would be 0 / 0
    return F.cross_entropy(logits, target, weight=weight, ignore_index=IGNORE)


def generalized_cross_entropy(logits: torch.Tensor, target: torch.Tensor, *, q: float = 0.7) -> torch.Tensor:
    """Mean of (1 - p^q) / q over decided pixels, p the probability of the true class (Zhang and Sabuncu 2018, eq. 6).

    Bounded by 1 / q: pixels that a network is sure are labelled wrong hardly teach it. Towards q = 0 it is
    cross-entropy, at 1 the mean absolute error. 0 if no pixel counts.
    """
    decided = target != IGNORE
    if not decided.any():
        return logits.sum() * 0
    true = target.masked_fill(~decided, 0).unsqueeze(1)
    log_p = _exact(logits).log_softmax(1).gather(1, true)[:, 0][decided]
    # Not as p ** q, whose gradient is no number where p is 0.
    return (1 - (q * log_p).exp()).mean() / q


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy to probabilities (N, C, H, W) over the pixels where they sum to 1; 0 if there are none.

    Elsewhere they must be zero. Up to a constant this is the divergence of student from teacher (Hinton et al. 2015,
    at temperature 1).
    """
    covered = target.sum(1)
    if not covered.any():
        return logits.sum() * 0
    return -(target * logits.log_softmax(1)).sum() / covered.sum()


def _exact(logits: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: sums over pixels, such as their number, do not fit its few digits."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _decided(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and one-hot labels (N, C, H, W), both zero where the label is IGNORE."""
    mask = (target != IGNORE).unsqueeze(1)
    probs = _exact(logits).softmax(1) * mask
    one_hot = F.one_hot(target.masked_fill(target == IGNORE, 0), logits.shape[1]).movedim(-1, 1) * mask
    return probs, one_hot.to(probs.dtype)


def _mean_over_present(score: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
    """1 - mean of a per-class score over the classes that occur in the batch."""
    present = one_hot.sum((0, 2, 3)) > 0
    if not present.any():
        return score.sum() * 0
    return 1 - score[present].mean()


def dice(logits: torch.Tensor, target: torch.Tensor, *, smooth: float = 1.0) -> torch.Tensor:
    """Soft Dice loss over the classes present in the batch.

    After Milletari et al. 2016, but with plain sums of both in the denominator where they have sums of squares.
    """
    probs, one_hot = _decided(logits, target)
    overlap = (probs * one_hot).sum((0, 2, 3))
    total = probs.sum((0, 2, 3)) + one_hot.sum((0, 2, 3))
    return _mean_over_present((2 * overlap + smooth) / (total + smooth), one_hot)


def soft_jaccard(logits: torch.Tensor, target: torch.Tensor, *, smooth: float = 1.0) -> torch.Tensor:
    """Soft intersection-over-union loss over the classes present in the batch."""
    probs, one_hot = _decided(logits, target)
    overlap = (probs * one_hot).sum((0, 2, 3))
    union = probs.sum((0, 2, 3)) + one_hot.sum((0, 2, 3)) - overlap
    return _mean_over_present((overlap + smooth) / (union + smooth), one_hot)


def lovasz_softmax(logits: torch.Tensor, target: torch.Tensor, *, max_pixels: int = 250_000) -> torch.Tensor:
    """Lovasz-softmax over the classes present in the batch (Berman et al. 2018, eq. 11).

    Pixels are sorted once per class, which takes longer than the network's forward pass on large batches; beyond about
    twice `max_pixels` every second, third, ... pixel of each row and column stands for all, whichever comes nearest to
    that number.
    """
    step = max(1, round((target.numel() / max_pixels) ** 0.5))
    logits, target = logits[:, :, ::step, ::step], target[:, ::step, ::step]
    decided = target != IGNORE
    labels = target[decided]
    if labels.numel() == 0:
        return logits.sum() * 0
    probs = _exact(logits).softmax(1).movedim(1, -1)[decided]
    losses = []
    for index in labels.unique():
        truth = (labels == index).to(probs.dtype)
        errors, order = (truth - probs[:, index]).abs().sort(descending=True)
        sorted_truth = truth[order]
        intersection = sorted_truth.sum() - sorted_truth.cumsum(0)
        union = sorted_truth.sum() + (1 - sorted_truth).cumsum(0)
        jaccard = 1 - intersection / union
        gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(torch.dot(errors, gradient))
    return torch.stack(losses).mean()


def combined(
    logits: torch.Tensor, target: torch.Tensor, weights: Mapping[str, float], class_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted sum of losses by their names in LOSSES; zero weights cost nothing."""
    total = logits.sum() * 0
    for name, factor in weights.items():
        if factor:
            loss = (
                cross_entropy(logits, target, class_weight) if name == "cross_entropy" else LOSSES[name](logits, target)
            )
            total = total + factor * loss
    return total


def deeply_supervised(
    maps: Sequence[torch.Tensor],
    target: torch.Tensor,
    weights: Mapping[str, float],
    class_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean of the combined loss over several maps of logits for the same labels (Qin et al. 2020, eq. 1).

    The paper adds them, all with weight 1. Their mean is the same to Adam, and learning curves and the clipping of
    gradients stay comparable with networks that answer once.
    """
    return torch.stack([combined(logits, target, weights, class_weight) for logits in maps]).mean()


LOSSES = {
    "cross_entropy": cross_entropy,
    "generalized_cross_entropy": generalized_cross_entropy,
    "dice": dice,
    "soft_jaccard": soft_jaccard,
    "lovasz": lovasz_softmax,
}
