"""Freed memory stays with the process: a training step on CPU asks for the same large tensors again and again.

By default glibc gives every large tensor back to the system when it is freed and asks for zeroed pages at the next
step; touching those pages anew takes a third of the time of a step of U-2-Net.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; returns whether it did. Elsewhere nothing happens.

    The process then never shrinks below its peak, which a training run reaches in its first step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST_INT, M_TOP_PAD: 64 * 2**20}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
