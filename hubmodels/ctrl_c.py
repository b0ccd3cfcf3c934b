"""Ctrl-C as the wish to end with what there is: what is under way is done first, and a second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # what shells say of a command that was ended by Ctrl-C


@contextmanager
def stops_on_ctrl_c(*, is_worth_it: Callable[[], bool], say: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; once it is set, or where there is nothing yet to end with, Ctrl-C ends as ever.

    Nothing changes where Ctrl-C is ignored or handled otherwise, or outside the main thread, which alone may handle it.

    Args:
        is_worth_it: whether there is something to end with.
        say: called when the event has been set.
    """
    stop = threading.Event()

    def asked(number: int, frame: Any) -> None:
        if stop.is_set() or not is_worth_it():
            signal.default_int_handler(number, frame)
        stop.set()
        say()

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return
    signal.signal(signal.SIGINT, asked)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
