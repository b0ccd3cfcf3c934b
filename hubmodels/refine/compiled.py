"""Loops that Numba compiles: how a function becomes one, and whether this machine has Numba at all."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


def jit(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the GIL and, where a cache folder can be written, only once per machine.

    Without Numba a function stays as it is: what has no other way then runs its loops as plain Python.
    """
    try:
        from numba import njit  # half a second: only what is compiled waits for it
    except ImportError:
        return function
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no locator: neither this folder nor the user's cache folder is writable
        return njit(nogil=True, error_model="numpy")(function)


@cache
def load(module: str, *, without: str) -> ModuleType | None:
    """A module of compiled loops, imported at first use; None, logged once, where Numba cannot be imported.

    Args:
        module: its dotted name.
        without: what runs in its place and how much slower, for the log.
    """
    try:
        importlib.import_module("numba")  # loops without vectors would be imported, and run as they are
        return importlib.import_module(module)
    except ImportError as error:
        logger.warning("%s: %s; `pip install numba` speeds this up", without, error)
        return None
