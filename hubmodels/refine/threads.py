"""Python threads for compiled loops, which hold no GIL.

Numba's own threads are not used: its default layers either abort when two threads call them at once (a web demo does)
or after a fork (a data loader does). The number of threads is `torch.get_num_threads()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None  # a forked child inherits the pool's bookkeeping but none of its threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """The jobs' results; all run at the same time, the first one in the calling thread."""
    global _pool
    if len(jobs) > 1 and _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="hubmodels-crf")
    waiting = [_pool.submit(job) for job in jobs[1:]] if _pool is not None and len(jobs) > 1 else []
    first = jobs[0]()
    return [first, *(future.result() for future in waiting)]


def parts_of(count: int, *, least: int = 4096) -> list[tuple[int, int]]:
    """Equal ranges of `count` pixels or rows, one for each thread; a part under `least` is not worth one."""
    number = max(1, min(torch.get_num_threads(), count // least))
    edges = [count * i // number for i in range(number + 1)]
    return list(pairwise(edges))
