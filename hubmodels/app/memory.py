"""What the server remembers of photos: bounded in number, in cost and in age, and shared by all visitors."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedMemory(Generic[Value]):
    """Results by key. The least recently used go first; those not used for a while go by `expire`.

    Args:
        max_items: how many are kept.
        max_cost: sum of costs that is kept; a single result beyond it is kept alone.
        max_age_s: seconds after its last use in which a result may be forgotten.
        clock: seconds, never going back.
    """

    def __init__(
        self, *, max_items: int, max_cost: float, max_age_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_items, self._max_cost, self._max_age_s = max_items, max_cost, max_age_s
        self._clock = clock
        self._items: OrderedDict[Hashable, tuple[Value, float, float]] = OrderedDict()  # value, cost, last use
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable, compute: Callable[[], Value], *, cost: float = 1.0) -> Value:
        """What is remembered under `key`, else what `compute` returns, which is then remembered at `cost`."""
        with self._lock:
            if key in self._items:
                value, cost, _ = self._items[key]
                self._remember(key, value, cost)
                return value
        value = compute()  # outside of the lock: known photos need not wait for a network
        with self._lock:
            self._remember(key, value, cost)
            while len(self._items) > 1 and self._is_full():
                self._items.popitem(last=False)
        return value

    def expire(self) -> int:
        """Forget what was not used for `max_age_s`; returns how many results that were."""
        with self._lock:
            oldest = self._clock() - self._max_age_s
            old = [key for key, (_, _, used) in self._items.items() if used < oldest]
            for key in old:
                del self._items[key]
        return len(old)

    def _remember(self, key: Hashable, value: Value, cost: float) -> None:
        self._items[key] = (value, cost, self._clock())
        self._items.move_to_end(key)

    def _is_full(self) -> bool:
        return len(self._items) > self._max_items or sum(cost for _, cost, _ in self._items.values()) > self._max_cost
