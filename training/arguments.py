"""Values of command lines, refused by the parser before any work."""

from __future__ import annotations

import argparse

from hubmodels.config import INPUT_PX


def count(text: str) -> int:
    """How many: a whole number of 1 or more.

    Raises:
        ArgumentTypeError: it is something else.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more; got {text!r}")
    return number


def working_px(text: str) -> int:
    """A working size of networks, in pixels.

    Raises:
        ArgumentTypeError: it is something else.
    """
    if not text.isdecimal() or int(text) not in INPUT_PX:
        raise argparse.ArgumentTypeError(f"expected pixels in {INPUT_PX[0]}..{INPUT_PX[-1]}; got {text!r}")
    return int(text)


def scale(text: str) -> float:
    """A multiple of the working size that `Segmenter.predict` takes.

    Raises:
        ArgumentTypeError: it is something else.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.25 <= number <= 2:
        raise argparse.ArgumentTypeError(f"expected a number in 0.25..2; got {text!r}")
    return number
