"""Work on many things at once whose results are wanted one by one, in the order of the things."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Generator[tuple[Item, Future[Result]], None, None]:
    """Each item with what `work` makes of it, in their order.

    Args:
        pool: where the work is done.
        work: called once for each item.
        items: taken one by one, as results are.
        ahead: how many of them are begun before the result of the one in turn is taken, so that memory is bounded.
    """
    begun: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            begun.append((item, pool.submit(work, item)))
            if len(begun) > ahead:
                yield begun.popleft()
        while begun:
            yield begun.popleft()
    finally:  # nobody takes these any more
        for _, future in begun:
            future.cancel()
