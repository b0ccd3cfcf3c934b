"""The processes of a run: one, or those that `accelerate launch` started.

Every process holds the whole network and takes an equal share of each batch, in the order one process would; gradients
are averaged, so weights stay equal everywhere and a step is that of the whole batch. Against one process, these differ:

- Dice, Jaccard, Lovasz and class weights see each share by itself. Cross-entropy stays the mean over the batch's
  decided pixels: shares count by theirs.
- Batch norm normalises each share by itself, and keeps the running statistics of the first process's shares. Recipes
  with `freeze_batch_norm` do not care. nn.SyncBatchNorm would close the gap, but has no CPU code.
- Dropout draws other numbers.

Where none of that is used, results are equal up to the rounding of sums. `compile = true` works too: each process
compiles for itself. Device, gradient averaging and mixed precision are Accelerate's work; they were tried on CPUs
(gloo, float32 and bf16), and nothing on GPUs, so fp16 never.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from hubmodels.metrics import IGNORE, Scores
from training.errors import CommandError, RecipeError
from training.recipe import PRECISIONS

log = logging.getLogger("training")


def join_processes(mixed_precision: str | None = None) -> Accelerator:
    """This process's place among all of the run; only the first goes on logging.

    Args:
        mixed_precision: one of PRECISIONS; None: as `accelerate launch` says, and "no" without it.

    Raises:
        ValueError: an unknown precision, fp16 on a CPU, or processes that Accelerate would leave to themselves.
    """
    if mixed_precision is not None and mixed_precision not in PRECISIONS:
        raise ValueError(f"mixed precision must be one of {', '.join(PRECISIONS)}; got {mixed_precision!r}")
    accelerator = Accelerator(mixed_precision=mixed_precision)
    check_started(os.environ, accelerator.num_processes)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise CommandError("mixed precision fp16 needs a GPU, this run is on the CPU: use bf16 or no")
    if not accelerator.is_main_process:
        log.setLevel(logging.WARNING)
    elif accelerator.num_processes > 1:
        log.info("%d processes on %s", accelerator.num_processes, accelerator.device.type)
    return accelerator


def check_started(environment: Mapping[str, str], together: int) -> None:
    """Refuse processes that torchrun started and Accelerate leaves to themselves: they would write the same files.

    Raises:
        CommandError: torchrun started another number than work `together`.
    """
    started = int(environment.get("WORLD_SIZE", together))
    if "LOCAL_RANK" in environment and started != together:
        raise CommandError(
            f"{started} processes were started, Accelerate makes {together} of them work together: without GPUs, "
            "start them with `accelerate launch --cpu`, or set ACCELERATE_USE_CPU=true for torchrun"
        )


def check_batch(size: int, name: str, accelerator: Accelerator) -> None:
    """Refuse a batch of `size` photos that cannot be shared out equally.

    Raises:
        RecipeError: it is no multiple of the number of processes.
    """
    processes = accelerator.num_processes
    if size % processes:
        raise RecipeError(
            f"recipe {name!r}: batches must be a multiple of the {processes} processes; got {size} photos: "
            f"set batch_size to {size + -size % processes} or start another number of processes"
        )


def check_photos(count: int, batch_size: int, name: str, accelerator: Accelerator) -> None:
    """Refuse photos that are fewer than a batch, so all of them are one, if they cannot be shared out equally.

    Raises:
        RecipeError: `count` is less than `batch_size` and no multiple of the number of processes.
    """
    processes = accelerator.num_processes
    if count < batch_size and count % processes:
        filled = count - count % processes
        raise RecipeError(
            f"recipe {name!r}: expected photos for a batch of {batch_size}, or a multiple of the {processes} "
            f"processes; got {count}: {f'set batch_size to {filled}, ' if filled else ''}start one process, or add "
            "photos"
        )


def share(batch: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """This process's part of a batch of indices, whose size has passed `check_batch` or `check_photos`."""
    size = len(batch) // accelerator.num_processes
    return batch[accelerator.process_index * size :][:size]


def dropout_seed(seed: int, step: int, accelerator: Accelerator) -> int:
    """A seed for one step in one process; in the first it is that of a run in one process."""
    return seed * 1_000_003 + step + accelerator.process_index * 1_000_000_007


def pixel_factors(
    labels: Mapping[str, torch.Tensor], soft: Mapping[str, torch.Tensor], accelerator: Accelerator
) -> dict[str, tuple[float, float]]:
    """What to multiply the losses of this share by, so that their mean over processes is one over the batch's pixels.

    Args:
        labels: task -> (N, H, W) label ids of the share, IGNORE where undecided.
        soft: task -> (N, C, H, W) soft labels, zero where there are none.

    Returns:
        task -> factors of the loss on labels and of that on soft labels; 1 in one process, and with equal counts.
    """
    if accelerator.num_processes == 1:
        return dict.fromkeys(labels, (1.0, 1.0))
    counts = torch.tensor(
        [[float((labels[t] != IGNORE).sum()), float(soft[t].sum()) if t in soft else 0.0] for t in labels],
        device=accelerator.device,
    )
    factors = counts * accelerator.num_processes / accelerator.reduce(counts, "sum").clamp_min(1)
    return {task: (hard, taught) for task, (hard, taught) in zip(labels, factors.tolist(), strict=True)}


def add_up(scores: Mapping[str, Scores], accelerator: Accelerator) -> None:
    """Sum confusion matrices and counts over processes that each scored other photos; boundaries are left alone."""
    if accelerator.num_processes == 1:
        return
    for each in scores.values():
        counts = torch.tensor([*each.confusion.flat, each.images], device=accelerator.device)
        *confusion, each.images = accelerator.reduce(counts, "sum").tolist()
        each.confusion = np.array(confusion, np.int64).reshape(each.confusion.shape)


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers: running statistics are those of its own share until then."""
    broadcast(list(module.buffers()))
