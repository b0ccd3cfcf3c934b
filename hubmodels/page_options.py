"""Options of the page's command line, without anything heavy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

MAX_MEGAPIXELS = 26.0  # what phones and cameras call 24: 5712x4284, 6016x4016, 6240x4160
CLEAN_EVERY_S, FILE_AGE_S = 60, 3000  # together: no visitor's file outlives an hour
MAX_DISK_MB = 2000.0  # eighty uploads of the largest size


def _port(text: str) -> int:
    """A port, checked before models are loaded for minutes."""
    port = int(text)
    if not 1 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"expected 1..65535; got {port}")
    return port


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `python demo.py` and `hubmodels demo`."""
    parser.add_argument("--host", help="address to listen at; GRADIO_SERVER_NAME or 127.0.0.1 unless given")
    parser.add_argument("--port", type=_port, help="GRADIO_SERVER_PORT or the first free one from 7860 unless given")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link, good for a week at most")
    parser.add_argument("--auth", action="append", metavar="USER:PASSWORD", help="let only them in; may be repeated")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="models to serve; all trained ones unless given")
    parser.add_argument(
        "--runtime",
        choices=("auto", "torch", "onnx"),
        default="auto",
        help="what runs the networks: onnx exports each before the page opens, auto (the default) while it is open and "
        "uses PyTorch until then or where ONNX Runtime is not installed",
    )
    parser.add_argument(
        "--max-megapixels",
        type=_positive(float),
        default=MAX_MEGAPIXELS,
        help="larger photos are refused (%(default)s)",
    )
    parser.add_argument(
        "--queue-size",
        type=_positive(int),
        default=32,
        help="heavy calls that may wait; others hear 'busy' (%(default)s)",
    )
    parser.add_argument(
        "--max-disk-mb",
        type=_positive(float),
        default=MAX_DISK_MB,
        help="megabytes of visitors' files, looked at once a minute; beyond, the oldest are deleted (%(default)s)",
    )
    parser.add_argument("--concurrency", type=_positive(int), default=1, help="heavy calls at a time (%(default)s)")


def _positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"expected a positive number; got {text!r}")
        return value

    return parse


def logins(pairs: Sequence[str] | None) -> list[tuple[str, str]] | None:
    """Users and passwords of `--auth`; None for none. Raises ValueError for what is no USER:PASSWORD."""
    if not pairs:
        return None
    split = [tuple(pair.split(":", 1)) for pair in pairs]
    if any(len(login) != 2 or not all(login) for login in split):
        raise ValueError("--auth must be USER:PASSWORD, both not empty")
    return split  # type: ignore[return-value]
