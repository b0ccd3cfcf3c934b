"""Time superpixels, votes, clean-up and the tuner's sliders on one photo: `python -m training.bench_refine`.

Stages run alternately with what they replace (scikit-image's Felzenszwalb, loops over pixels and segments), so that a
busy machine is busy for all. Medians are printed and written to a results file. Sliders are timed as users move them:
each round sets a value that was not tried before on a tuner that has answered already.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.segmentation import felzenszwalb

from hubmodels.hub import load_model
from hubmodels.refine import REFERENCE_PX, Refinement, Tuner, clean_regions, vote
from hubmodels.refine.felzenszwalb import FelzenszwalbGraph
from hubmodels.refine.merge import RegionGraph
from training.arguments import count
from training.bench_crf import load
from training.files import RESULTS, write_json
from training.timing import machine_facts, medians_ms

MODEL, SCALE = "deeplabv3plus_fashion", 100.0


def stage_times(photo: np.ndarray, probs: np.ndarray, rounds: int) -> dict[str, float]:
    """Milliseconds of every stage and of what it replaces."""
    graph = FelzenszwalbGraph(photo, sigma=0.8)
    segments = graph.segments(SCALE, 20)
    labels = probs.argmax(0).astype(np.uint8)
    regions = RegionGraph(segments, photo)
    scaled = photo.astype(np.float32) / 255
    runs: dict[str, Callable[[], Any]] = {
        "felzenszwalb, prepare the graph": lambda: FelzenszwalbGraph(photo, sigma=0.8),
        "felzenszwalb, a new scale": lambda: graph.segments(SCALE, 20),
        "felzenszwalb, scikit-image": lambda: felzenszwalb(scaled, scale=SCALE, sigma=0.8, min_size=20),
        "merge, prepare the graph": lambda: RegionGraph(segments, photo),
        "merge, cut, with a new graph": lambda: RegionGraph(segments, photo).cut(8.0),
        "merge, hierarchical, with a new graph": lambda: RegionGraph(segments, photo).hierarchical(8.0),
        "merge, a new threshold of cut": lambda: regions.cut(8.0),
        "merge, kmeans": lambda: regions.kmeans(40),
        "vote": lambda: vote(probs, segments),
        "clean-up": lambda: clean_regions(labels, min_region_px=200),
        "clean-up, with holes": lambda: clean_regions(labels, min_region_px=200, fill_holes_px=400),
    }
    times = medians_ms(runs, rounds)
    return {**times, "superpixels": float(segments.max() + 1)}


def loop_times(photo: np.ndarray, probs: np.ndarray, rounds: int) -> dict[str, float]:
    """Ours beside the predecessor's formulation, loops over pixels in Python (tests/reference.py); few rounds."""
    from tests import reference  # the checkout's; it is no part of the package

    segments = FelzenszwalbGraph(photo, sigma=0.8).segments(SCALE, 20)
    labels = probs.argmax(0).astype(np.uint8)
    return medians_ms(
        {
            "vote": lambda: vote(probs, segments),
            "vote, loops": lambda: reference.vote_by_pixel(probs, segments),
            "clean-up": lambda: clean_regions(labels, min_region_px=200),
            "clean-up, loops": lambda: reference.clean_regions(labels, 200, 4),
        },
        rounds,
    )


SLIDERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "min_region_px": lambda n: {"min_region_px": 100 + 10 * n},
    "superpixel_scale": lambda n: {"superpixel_scale": 60.0 + 5 * n},
    "merge_threshold": lambda n: {"merge_threshold": 5 + n / 4},
    "crf_iterations, one more": lambda n: {"crf_iterations": 2 + n},
    "unchanged": lambda n: {},
}


def slider_times(photo: np.ndarray, probs: np.ndarray, rounds: int) -> dict[str, float]:
    """Median milliseconds from a new value of one slider to labels, with vote, merge and clean-up on."""
    start = Refinement(superpixel_scale=SCALE, merge="cut", min_region_px=200, crf_iterations=1)
    times = {}
    for name, change in SLIDERS.items():
        tuner, seconds = Tuner(probs, photo), []
        tuner.refine(start)
        for number in range(rounds):
            settings = dataclasses.replace(start, **change(number))
            begun = time.perf_counter()
            tuner.refine(settings)
            seconds.append(time.perf_counter() - begun)
        times[name] = 1e3 * statistics.median(seconds)
    return times


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=9)
    parser.add_argument("--threads", type=count, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_refine.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    machine = machine_facts(threads=arguments.threads)
    photo, _ = load(None, (600, 400), 1)
    assert photo.shape[0] * photo.shape[1] == REFERENCE_PX
    probs = load_model(MODEL).probabilities(photo)
    result = {
        "machine": machine,
        "settings": {"photo": "skimage.data.astronaut", "hw": [600, 400], "model": MODEL, "scale": SCALE},
        "stages_ms": stage_times(photo, probs, arguments.rounds),
        "sliders_ms": slider_times(photo, probs, arguments.rounds),
        "loops_ms": loop_times(photo, probs, 3),
    }
    write_json(result, arguments.out)
    for part in ("stages_ms", "sliders_ms", "loops_ms"):
        print(part, *(f"{name:40}{value:10.2f}" for name, value in result[part].items()), sep="\n")


if __name__ == "__main__":
    main()
