"""Time the page's sliders on the server, from event to answer: `python -m training.bench_page`.

Each round sets a value that was not tried before, as a hand on a slider does, and counts all that the server does for
it: stages, pictures, texts and links. The photo has 600x400 pixels, as in the promise that the bars below make. What
ran the network is in the results: ONNX Runtime where it is installed, as for the page itself, unless --runtime says.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from hubmodels.app.guard import Guard
from hubmodels.app.handlers import Handlers
from hubmodels.app.server import warm_up
from hubmodels.app.studio import Studio
from training.arguments import count
from training.files import RESULTS, write_json
from training.timing import machine_facts

MODEL = "deeplabv3plus_fashion"
TUNED = {"crf_iterations": 5, "superpixel_scale": 60, "min_region_px": 100, "fill_holes_px": 100}
BARS_MS = {"min_region_px": 150, "opacity": 150, "crf_iterations, one more": 250, "first answer": 2000}  # p95


def steps(rounds: int) -> dict[str, Iterator[dict[str, Any]]]:
    """Slider -> its settings round by round; each differs from the last by one small step of the slider."""
    return {
        "min_region_px": ({**TUNED, "min_region_px": 100 + 10 * i} for i in range(1, rounds + 1)),
        "opacity": ({**TUNED, "opacity": i % 101} for i in range(1, rounds + 1)),
        "superpixel_scale": ({**TUNED, "superpixel_scale": 60 + 2 * i} for i in range(1, rounds + 1)),
    }


def timed(handlers: Handlers, path: Path, values: dict[str, Any]) -> float:
    """Milliseconds of one answer of the page."""
    request: Any = SimpleNamespace(headers={}, query_params={})
    start = time.perf_counter()
    pictures, *_ = handlers.update({"path": str(path)}, MODEL, None, request, **values)
    took = 1e3 * (time.perf_counter() - start)
    if "<img" not in pictures:
        raise RuntimeError(f"the page answered with a notice: {pictures}")
    return took


def measure(rounds: int, folder: Path, runtime: str) -> tuple[dict[str, list[float]], str]:
    """Milliseconds of every round, by slider; and what ran the network, "torch" or "onnx"."""
    studio = Studio([MODEL], runtime=runtime)
    warm_up(studio)
    handlers = Handlers(studio, Guard(cache_dir=str(folder)), examples={})
    photo = np.asarray(Image.fromarray(data.astronaut()).resize((400, 600)))
    path = folder / "photo.jpg"
    Image.fromarray(photo).save(path, quality=92)
    timed(handlers, path, TUNED)
    times = {name: [timed(handlers, path, values) for values in each] for name, each in steps(rounds).items()}
    more, first = [], []
    for i in range(max(1, rounds // 8)):  # new photos, as a photo's iterations are remembered once they were made
        fresh = folder / f"{i}.jpg"
        Image.fromarray(np.roll(photo, i + 1, axis=1)).save(fresh, quality=92)
        first.append(timed(handlers, fresh, {}))
        timed(handlers, fresh, {**TUNED, "crf_iterations": 1})
        more += [timed(handlers, fresh, {**TUNED, "crf_iterations": n}) for n in range(2, 12)]
    return {**times, "crf_iterations, one more": more, "first answer": first}, studio.runtimes[MODEL]


def main() -> None:
    """Measure, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=count, default=40)
    parser.add_argument("--threads", type=count, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--runtime", choices=("auto", "torch", "onnx"), default="auto", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_page.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = machine_facts(threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        times, runtime = measure(options.rounds, Path(folder), options.runtime)
    rows = {
        name: {"p50_ms": round(float(np.percentile(each, 50)), 1), "p95_ms": round(float(np.percentile(each, 95)), 1),
               "rounds": len(each), "bar_ms": BARS_MS.get(name)}
        for name, each in times.items()
    }  # fmt: skip
    print(f"{MODEL} run by {runtime}")
    for name, row in rows.items():
        bar = f", bar {row['bar_ms']} ms" if row["bar_ms"] else ""
        print(f"{name}: p50 {row['p50_ms']} ms, p95 {row['p95_ms']} ms of {row['rounds']}{bar}")
    result = {"photo": "600x400", "model": MODEL, "runtime": runtime, "machine": facts, "sliders": rows}
    write_json(result, options.out)


if __name__ == "__main__":
    main()
