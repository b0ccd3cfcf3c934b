"""The threads on which photos are analysed: as many as heavy calls may run at a time, and always the same ones.

Gradio calls functions from dozens of threads. Each thread that ran a network would keep its own pool of OpenMP threads
and its own arenas of memory: one to two gigabytes after some hundred photos.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Workers:
    """Runs functions on a few threads of its own.

    Args:
        count: how many threads, 1 or more.
    """

    def __init__(self, count: int = 1) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="analysis")

    def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """What `work` returns or raises. It must not call `run` itself: with one thread it would wait for itself."""
        return self._pool.submit(work, *args, **kwargs).result()
