"""Time every trained network on one photo of 600x400 beside the predecessor's: `python -m training.bench_models`.

Beside them runs torchvision's deeplabv3_resnet101 with random weights, which the predecessor used, as it comes and with
channels last. Every round runs all of them one after the other, so that a busy machine is busy for each; the medians
are printed and written to a results file. Timed is all from the photo to probabilities at its own size. Peak memory
is measured in a fresh process for each. With --only, a model that is new is timed without the others.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hubmodels.entries import ENTRIES, list_models
from hubmodels.hub import load_model
from hubmodels.networks.folding import fold_batch_norms
from hubmodels.runtime import with_runtime
from hubmodels.segmenter import Segmenter, photo_logits, working_size
from training.arguments import count
from training.bench_crf import load
from training.files import RESULTS, write_json
from training.timing import machine_facts, medians_ms

ADDED = RESULTS / "bench_models_added.json"
HW = (600, 400)
REFERENCE = "torchvision deeplabv3_resnet101"
CHANNELS_LAST = f"{REFERENCE}, channels last"
CLASSES = 7

Run = Callable[[], np.ndarray]


def reference_network(*, channels_last: bool) -> nn.Module:
    """The predecessor's network, with random weights: they have no influence on the time."""
    from torchvision.models.segmentation import deeplabv3_resnet101

    network = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    return network.to(memory_format=torch.channels_last) if channels_last else network


@torch.inference_mode()
def at_full_size(network: nn.Module, photo: np.ndarray, *, channels_last: bool) -> np.ndarray:
    """(C, H, W) probabilities of a photo that goes through the network as it is."""
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    logits = network(x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format))
    return (logits["out"] if isinstance(logits, dict) else logits)[0].softmax(0).numpy()


def at_own_size(network: nn.Module, photo: np.ndarray, long_side_px: int) -> np.ndarray:
    """As `Segmenter.probabilities`, but with the network as it is given."""
    return photo_logits(network, photo, long_side_px=long_side_px).softmax(0).numpy()


def contenders(model: Segmenter, photo: np.ndarray) -> dict[str, Run]:
    """All ways to run one model."""
    folded, onnx = fold_batch_norms(model.network), with_runtime(model, "onnx")
    half = copy.deepcopy(model).to(torch.bfloat16)
    return {
        "torch": lambda: model.probabilities(photo),
        "torch, bf16": lambda: half.probabilities(photo),
        "torch, not folded": lambda: at_own_size(model.network, photo, model.input_px),
        "onnx": lambda: onnx.probabilities(photo),
        "torch, 600x400": lambda: at_full_size(folded, photo, channels_last=True),
        "onnx, 600x400": lambda: at_full_size(onnx.network, photo, channels_last=False),
    }


def references(photo: np.ndarray) -> dict[str, Run]:
    """The predecessor's network in both layouts of memory."""
    return {
        name: functools.partial(at_full_size, reference_network(channels_last=last), photo, channels_last=last)
        for name, last in ((REFERENCE, False), (CHANNELS_LAST, True))
    }


def measure(name: str, runtime: str, threads: int) -> dict[str, float]:
    """Peak memory of a process that labels one photo; called in a process of its own."""
    torch.set_num_threads(threads)
    photo, _ = load(None, HW, 1)
    before = peak_mb()
    if name == REFERENCE:
        run: Run = functools.partial(at_full_size, reference_network(channels_last=False), photo, channels_last=False)
    else:
        run = functools.partial(load_model(name, runtime=runtime).probabilities, photo)
    run()
    return {"peak_mb": round(peak_mb()), "peak_mb_before_loading": round(before)}


def peak_mb() -> float:
    """Most memory this process has had, in MB.

    Linux counts what the parent had before it started this one as the child's in getrusage, but not in VmHWM.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1000
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measured_apart(name: str, runtime: str, threads: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    call = [sys.executable, "-m", "training.bench_models", "--measure", name, runtime, "--threads", str(threads)]
    done = subprocess.run(call, cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows(photo: np.ndarray, names: Sequence[str], rounds: int, threads: int) -> list[dict[str, Any]]:
    """One row a network, that of the predecessor first."""
    models = {name: load_model(name) for name in names}
    runs: dict[tuple[str, str], Run] = {(REFERENCE, way): run for way, run in references(photo).items()}
    for name, model in models.items():
        runs |= {(name, way): run for way, run in contenders(model, photo).items()}
    times = medians_ms({f"{name}|{way}": run for (name, way), run in runs.items()}, rounds)
    reference = reference_network(channels_last=False)
    found = [
        {
            "name": REFERENCE,
            "parameters": sum(each.numel() for each in reference.parameters()),
            "size_bytes": sum(each.numel() * each.element_size() for each in reference.state_dict().values()),
            "input_hw": list(HW),
        }
    ]
    for name, model in models.items():
        entry = ENTRIES[name]
        size = working_size(*HW, model.input_px)
        found.append(
            {
                "name": name,
                "parameters": entry.parameters,
                "size_bytes": entry.size_bytes,
                "input_hw": list(size),
            }
        )
    for row in found:
        row["ms"] = {way: round(times[f"{name}|{way}"], 1) for name, way in runs if name == row["name"]}
        runtimes = ("torch",) if row["name"] == REFERENCE else ("torch", "onnx")
        row["process"] = {each: measured_apart(row["name"], each, threads) for each in runtimes}
    return found


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=list_models(),
        help=f"time these alone beside the predecessor's, into {ADDED.name}: models that came after the last full run, "
        "on whatever machine there is",
    )
    parser.add_argument("--out", type=Path, help="another results file")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "RUNTIME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments.threads)))
        return
    torch.set_num_threads(arguments.threads)
    machine = machine_facts(threads=arguments.threads)
    photo, _ = load(None, HW, 1)
    found = rows(photo, arguments.only or list_models(), arguments.rounds, arguments.threads)
    settings = {"photo": "skimage.data.astronaut", "hw": list(HW), "rounds": arguments.rounds}
    write_json(
        {"machine": machine, "settings": settings, "rows": found},
        arguments.out or (ADDED if arguments.only else RESULTS / "bench_models.json"),
    )
    for row in found:
        print(row["name"], row["process"])
        print(*(f"  {way:40}{ms:10.1f} ms" for way, ms in row["ms"].items()), sep="\n")


if __name__ == "__main__":
    main()
