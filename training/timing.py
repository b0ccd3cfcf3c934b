"""Timing that withstands a busy machine: every round runs all contenders one after the other, medians are compared."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def medians_ms(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of every contender, after one run of each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(each) for name, each in times.items()}


def machine() -> str:
    """Where something was measured, in a line; `machine_facts` says more, for results that are times alone."""
    return f"{os.cpu_count()} cores, {platform.machine()}, PyTorch {_torch_version()}"


def machine_facts(*, threads: int) -> dict[str, Any]:
    """What a results file says about where it was measured."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": _torch_version(),
        "numba": metadata.version("numba"),
    }


def _torch_version() -> str:
    return metadata.version("torch").split("+")[0]  # without how it was built


def processor() -> str:
    """The processor's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
