"""What a photo is known not to show: such labels get no probability, and the others share it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from hubmodels.labels import LabelSet

SMALLEST_SUM = 1e-30  # of the labels that are left: with less than that nothing is known of a pixel


def ids_of_absent(labels: LabelSet, absent: Collection[str]) -> tuple[int, ...]:
    """Ids of the labels that a photo does not show, each once, in rising order.

    Args:
        labels: those of the model.
        absent: names of some of them.

    Raises:
        TypeError: no names.
        ValueError: no such label, the background, or all labels but the background.
    """
    if isinstance(absent, (str, bytes)) or not isinstance(absent, Collection):
        raise TypeError(f"absent must be a list of label names, such as {[labels.names[-1]]}; got {absent!r:.100}")
    ids = sorted({labels.id_of(name) for name in absent})
    if 0 in ids:
        raise ValueError(f"absent may not name {labels.names[0]}, which stands for all that has no other label")
    if len(ids) == len(labels) - 1:
        raise ValueError(f"absent leaves none of {', '.join(labels.names[1:])} to look for; name fewer")
    return tuple(ids)


def names_of_absent(labels: LabelSet, absent: Collection[str]) -> tuple[str, ...]:
    """The same labels by name, in the order of their ids; raises what `ids_of_absent` raises."""
    return tuple(labels.names[index] for index in ids_of_absent(labels, absent))


def leave_out_(probs: np.ndarray, ids: Collection[int]) -> np.ndarray:
    """Take some labels out of probabilities, as a softmax over the others would have it.

    Pixels on which the others have no probability to share become background.

    Args:
        probs: (C, H, W) float32, each pixel summing to 1; written into.
        ids: labels to take out, none of them 0.

    Returns:
        `probs` itself.
    """
    if ids:
        probs[list(ids)] = 0
        total = probs.sum(0)
        unknown = total < SMALLEST_SUM
        probs[0, unknown] = total[unknown] = 1
        probs /= total
    return probs
