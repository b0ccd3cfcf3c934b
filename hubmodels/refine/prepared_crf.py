"""A dense CRF under a slider: every iteration of one photo is computed once."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from hubmodels.refine.crf_checks import checked_iterations
from hubmodels.refine.mean_field import MeanField, Unaries, enlarge_change, enlarged_probs

KEPT_ITERATIONS = 12  # distributions kept by a PreparedCRF, 4 * C * H * W bytes each: 81 MB at 600x400, 7 classes


class PreparedCRF:
    """The CRF of one photo, for interactive use. Made by `DenseCRF.prepare`.

    `refine(t)` computes only iterations that it has not kept: the same or fewer cost a copy, more cost the new
    ones. At most `keep` states of 4 * C * h * w bytes (h, w: the working size) are kept beside the logits and the
    photo's kernels; past that they thin out evenly, and what went is recomputed from the nearest earlier one. For 7
    classes and the default 12 that is 81 MB at 600x400 and never above 202 MB (at `max_pixels`), briefly twice that
    while new ones are computed. Safe to use from several threads. Copies and pickles start with no state kept.
    """

    def __init__(self, unaries: Unaries, steps: MeanField, *, iterations: int, keep: int = KEPT_ITERATIONS) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1; got {keep}")
        self._default, self._keep = iterations, keep
        self._unaries, self._steps = unaries, steps
        self._lock = threading.Lock()
        self._states: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which is of one process, and the states, which can be computed again."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_states")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _states={})

    @property
    def kept_iterations(self) -> list[int]:
        """Which iterations are free."""
        return [0, *sorted(self._states)]

    @property
    def nbytes(self) -> int:
        """Bytes of the kept states."""
        return sum(state.numel() * state.element_size() for state in self._states.values())

    @torch.no_grad()
    def refine(self, iterations: int | None = None) -> Tensor:
        """Refined logits (C, H, W) after so many iterations (default: the CRF's); the prepared logits for 0."""
        iterations = self._default if iterations is None else checked_iterations(iterations)
        if iterations == 0:
            return self._unaries.logits().clone()
        state = self._state(iterations)
        refined = enlarge_change(self._unaries.logits(), self._unaries.working, state, self._steps.photo)
        return refined.clone() if refined is state else refined  # kept states are nobody's to write into

    @torch.no_grad()
    def refine_probs(self, iterations: int | None = None) -> Tensor:
        """Probabilities (C, H, W) after so many iterations, float32 or float64: the softmax of `refine`, but for a
        photo beyond the working size in half the memory."""
        iterations = self._default if iterations is None else checked_iterations(iterations)
        if iterations == 0:
            return self._unaries.logits().softmax(0)
        return enlarged_probs(self._unaries, self._state(iterations), self._steps.photo)

    def _state(self, iterations: int) -> Tensor:
        """Logits (C, h, w) after one iteration or more, at the working size; kept, so not to be written into."""
        with self._lock:
            known = max((t for t in self._states if t <= iterations), default=0)
            state = self._states.get(known, self._unaries.working)
            if known < iterations:
                wanted = min(iterations - known, self._keep)  # there is no room for more
                states = self._steps.run(state, iterations - known, keep=wanted)
                self._states |= dict(zip(range(iterations - wanted + 1, iterations + 1), states, strict=True))
            result = self._states[iterations]
            self._forget(newest=iterations)
        return result

    def _forget(self, newest: int) -> None:
        """Drop the states whose neighbours are nearest, so that what remains is spread over the range."""
        while len(self._states) > self._keep:
            times = [0, *sorted(self._states)]
            after = [*times[2:], times[-1] + 1]
            gaps = {b: (c - a, b) for a, b, c in zip(times[:-1], times[1:], after, strict=True)}
            gaps.pop(newest, None)
            del self._states[min(gaps, key=gaps.__getitem__)]
