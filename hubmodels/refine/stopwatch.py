"""Where the time of nested stages goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by stage; a stage inside of another is counted for itself alone.

    Attributes:
        seconds: what ran, in the order in which it ended. A stage that was not entered is not there.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = [0.0]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside under `name`."""
        self._inside.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inside.pop()
            self._inside[-1] += took
