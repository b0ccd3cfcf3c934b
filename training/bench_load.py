"""Time how long a program waits for hubmodels: `python -m training.bench_load`.

Every round starts fresh interpreters, as a program does: one that imports the package, and one for each model that has
imported PyTorch before the clock starts and then imports the package and loads the model. Files are in the disk's
cache, as the first round, which does not count, has read them. Medians are printed and written to a results file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from hubmodels.entries import DEFAULTS
from training.arguments import count
from training.files import RESULTS, ROOT, write_json
from training.timing import machine_facts

IMPORT = """
import time
start, worked = time.perf_counter(), time.process_time()
import hubmodels
print(time.perf_counter() - start, time.process_time() - worked)
"""
LOAD = """
import sys, time
import torch
torch.set_num_threads(int(sys.argv[2]))
start, worked = time.perf_counter(), time.process_time()
import hubmodels
hubmodels.load(sys.argv[1])
print(time.perf_counter() - start, time.process_time() - worked)
"""


def seconds(script: str, *arguments: str) -> tuple[float, float]:
    """Elapsed and processor seconds that a script measures in an interpreter of its own, without a network."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HUBMODELS_OFFLINE": "1"}
    call = [sys.executable, "-c", script, *arguments]
    told = subprocess.run(call, env=environment, check=True, capture_output=True, text=True).stdout
    elapsed, worked = map(float, told.split())
    return elapsed, worked


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--threads", type=count, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_load.json")
    arguments = parser.parse_args(argv)
    machine = machine_facts(threads=arguments.threads)
    times: dict[str, list[tuple[float, float]]] = {
        "import hubmodels": [],
        **{f"load {name}": [] for name in DEFAULTS.values()},
    }
    for number in range(arguments.rounds + 1):
        for what in times:
            name = what.partition("load ")[2]
            taken = seconds(LOAD, name, str(arguments.threads)) if name else seconds(IMPORT)
            if number:  # the first round fills the disk's cache
                times[what].append(taken)
    result = {
        "machine": machine,
        "rounds": arguments.rounds,
        "seconds": {what: round(statistics.median(e for e, _ in each), 4) for what, each in times.items()},
        # The processor's time says how far the machine was busy with something else: then it is far less.
        "processor_seconds": {what: round(statistics.median(w for _, w in each), 4) for what, each in times.items()},
    }
    write_json(result, arguments.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
