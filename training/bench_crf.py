"""Time our CRF against pydensecrf2 and crfseg on one photo: `python -m training.bench_crf`.

Every round runs all implementations one after the other, so that a busy machine is busy for each of them; the
medians of the rounds are printed and written to a results file. crfseg has no appearance kernel, only smoothing in
a window of 11 x 11 pixels: its time is shown for scale, its labels are not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hubmodels.refine.crf import DenseCRF
from hubmodels.refine.photo_kernels import forget_spatial_lattices
from training.arguments import count
from training.files import RESULTS, write_json
from training.timing import machine_facts

APPEARANCE, SMOOTHNESS = (10.0, 80.0, 13.0), (3.0, 3.0)  # weight, sigma px, sigma colour; weight, sigma px
CLASSES = 7

Parts = tuple[float, float, Any]  # seconds of set-up, seconds of iterations, (C, H, W) distribution


def load(photo: Path | None, hw: tuple[int, int], classes: int) -> tuple[np.ndarray, Tensor]:
    """A photo (H, W, 3) uint8 and logits (1, C, H, W) of a doubtful network: blurred colour clusters plus noise."""
    if photo is None:
        from skimage import data

        picture = Image.fromarray(data.astronaut())
    else:
        picture = Image.open(photo).convert("RGB")
    pixels = np.array(picture.resize((hw[1], hw[0]), Image.Resampling.BICUBIC))
    rng = np.random.default_rng(0)
    centres = torch.from_numpy(rng.uniform(0, 255, (classes, 3, 1, 1)).astype(np.float32))
    distance = (torch.from_numpy(pixels).permute(2, 0, 1)[None] - centres).square().sum(dim=1).sqrt()
    noise = torch.from_numpy(rng.normal(0, 0.5, (classes, *hw)).astype(np.float32))
    return pixels, F.avg_pool2d(-distance[None] / 20, 15, 1, 7, count_include_pad=False) + noise


def ours(pixels: np.ndarray, logits: Tensor, iterations: int, *, cached: bool) -> Parts:
    """`cached`: the smoothness lattice is there from an earlier photo of the same size."""
    if not cached:
        forget_spatial_lattices()
    crf = DenseCRF(
        iterations,
        appearance_weight=APPEARANCE[0], appearance_sigma_px=APPEARANCE[1], appearance_sigma_colour=APPEARANCE[2],
        smoothness_weight=SMOOTHNESS[0], smoothness_sigma_px=SMOOTHNESS[1], reference_hw=None, exact=True,
    )  # fmt: skip
    image = torch.from_numpy(pixels)
    start = time.perf_counter()
    photo = crf.photo(image)
    ready = time.perf_counter()
    with torch.inference_mode():
        refined = crf(logits, [photo])
    done = time.perf_counter()
    return ready - start, done - ready, refined[0].softmax(dim=0).numpy()


def pydensecrf2(pixels: np.ndarray, logits: Tensor, iterations: int) -> Parts:
    from pydensecrf import densecrf

    classes, height, width = logits.shape[1:]
    energy = np.ascontiguousarray(-logits.log_softmax(dim=1)[0].reshape(classes, -1).numpy())
    start = time.perf_counter()
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(energy)
    crf.addPairwiseGaussian(sxy=SMOOTHNESS[1], compat=SMOOTHNESS[0])
    crf.addPairwiseBilateral(sxy=APPEARANCE[1], srgb=APPEARANCE[2], rgbim=pixels, compat=APPEARANCE[0])
    ready = time.perf_counter()
    q = np.array(crf.inference(iterations))
    done = time.perf_counter()
    return ready - start, done - ready, q.reshape(classes, height, width)


def crfseg(pixels: np.ndarray, logits: Tensor, iterations: int) -> Parts:
    from crfseg import CRF

    start = time.perf_counter()
    crf = CRF(2, n_iter=iterations, returns="proba", smoothness_weight=SMOOTHNESS[0], smoothness_theta=SMOOTHNESS[1])
    ready = time.perf_counter()
    with torch.no_grad():
        q = crf(logits)
    done = time.perf_counter()
    return ready - start, done - ready, q[0].numpy()


def contenders() -> dict[str, Callable[..., Parts]]:
    """Ours and whatever else is installed."""
    found: dict[str, Callable[..., Parts]] = {
        "hubmodels": lambda *args: ours(*args, cached=True),
        "hubmodels, first photo of its size": lambda *args: ours(*args, cached=False),
    }
    for name, run in (("pydensecrf2", pydensecrf2), ("crfseg", crfseg)):
        try:
            found[f"{name} {metadata.version(name)}"] = run
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed: pip install {name}")
    return found


def measure(pixels: np.ndarray, logits: Tensor, iterations: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each contender: median milliseconds, and how its answer compares with ours."""
    runs = contenders()
    outputs = {name: run(pixels, logits, iterations)[2] for name, run in runs.items()}  # warm-up
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            setup, steps, _ = run(pixels, logits, iterations)
            times[name].append((setup, steps))
    mine = outputs["hubmodels"]
    rows = []
    for name in runs:
        setup, steps = (statistics.median(each) * 1e3 for each in zip(*times[name], strict=True))
        total = statistics.median(map(sum, times[name])) * 1e3
        row = {"name": name, "iterations": iterations, "setup_ms": setup, "iterations_ms": steps, "total_ms": total}
        if not name.startswith("crfseg"):
            row["equal_labels"] = float((outputs[name].argmax(0) == mine.argmax(0)).mean())
            row["largest_difference"] = float(np.abs(outputs[name] - mine).max())
        rows.append({key: round(value, 7) if isinstance(value, float) else value for key, value in row.items()})
    return rows


HEADER = f"{'':36}{'iter.':>6}{'set-up':>9}{'steps':>9}{'total':>9}  {'equal labels':>12}{'max |dQ|':>10}"


def line(row: dict[str, Any]) -> str:
    times = "".join(f"{row[key]:9.1f}" for key in ("setup_ms", "iterations_ms", "total_ms"))
    same = f"{row['equal_labels']:14.4%}{row['largest_difference']:10.1e}" if "equal_labels" in row else ""
    return f"{row['name']:36}{row['iterations']:6d}{times}{same}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, help="default: scikit-image's astronaut")
    parser.add_argument("--size", type=count, nargs=2, default=(600, 400), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=count, default=9)
    parser.add_argument("--iterations", type=count, nargs="+", default=(5, 10))
    parser.add_argument("--threads", type=count, default=os.cpu_count(), help="ours and crfseg's; pydensecrf2 has one")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_crf.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pixels, logits = load(args.photo, tuple(args.size), CLASSES)
    machine = machine_facts(threads=args.threads)
    settings = {"photo": str(args.photo or "skimage.data.astronaut"), "hw": list(args.size), "classes": CLASSES}
    settings |= {"appearance": APPEARANCE, "smoothness": SMOOTHNESS, "rounds": args.rounds}
    print(json.dumps(machine | settings), HEADER, sep="\n", flush=True)
    rows = []
    for iterations in args.iterations:
        rows += measure(pixels, logits, iterations, args.rounds)
        print("\n".join(map(line, rows[-len(contenders()) :])), flush=True)
    write_json({"machine": machine, "settings": settings, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
