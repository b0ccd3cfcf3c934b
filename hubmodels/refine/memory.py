"""A bounded memory of what was computed last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LastUsed(Generic[Value]):
    """Results by key; the least recently used one goes first. Callers share them: nobody may write into them.

    Args:
        size: how many are kept, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Hashable, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """What is remembered under `key`, else what `compute` returns."""
        if key not in self._items:
            while len(self._items) >= self._size:
                self._items.popitem(last=False)  # before the next is made, so that there is never one too many
            self._items[key] = compute()
        self._items.move_to_end(key)
        return self._items[key]
