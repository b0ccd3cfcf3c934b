"""Train a recipe: `python -m training.train training/recipes/NAME.toml [--resume]`.

In several processes, each on its share of every batch (see training.processes): the same after `accelerate launch
--num_processes 2 --cpu -m`, or without `--cpu` on GPUs.

Writes runs/NAME/last.pt (everything needed to go on; no run is started in a folder that has one), runs/NAME/best.pt
(best averaged weights on val; with several tasks also best_TASK.pt, as their best epochs differ and each is exported
alone) and runs/NAME/log.jsonl. Views, order and dropout are functions of (seed, epoch, step), so a run that was stopped
and resumed ends with the same weights as one that was not; one with other photos than it had is not gone on with. Where
there is no last.pt yet, --resume starts the run, so that a script may always say it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from hubmodels.files import make_folder
from hubmodels.metrics import Scores
from training.allocator import keep_freed_memory
from training.arguments import count
from training.crf_layer import learnt_values
from training.data import DATA_ROOT, Sample
from training.engine import validate
from training.errors import DivergedError, run_command
from training.launch import start_all_processes
from training.losses import deeply_supervised, soft_cross_entropy
from training.photos import load_photos, names_of, warn_of_unseen
from training.processes import add_up, check_photos, dropout_seed, pixel_factors, share, share_buffers
from training.recipe import PRECISIONS, Recipe, read_recipe
from training.run import Run
from training.schedules import lr_factor
from training.soft_labels import with_soft_labels
from training.transforms import batch_views

log = logging.getLogger("training")
CHECKPOINT_SECONDS = 300


def epoch_order(count: int, recipe: Recipe, epoch: int) -> list[np.ndarray]:
    """Batches of sample indices; the last incomplete batch is dropped (batch norm needs company)."""
    order = np.random.default_rng((recipe.seed, epoch)).permutation(count)
    batches = max(1, count // recipe.batch_size)
    return [order[i * recipe.batch_size : (i + 1) * recipe.batch_size] for i in range(batches)]


def repeated(samples: list[Sample], repeat: dict[str, int]) -> list[Sample]:
    """Photos of a source listed as often as the recipe says."""
    return [s for s in samples for _ in range(repeat.get(s.name.split("/")[0], 1))]


def train_step(run: Run, samples: list[Sample], indices: np.ndarray, *, step: int, steps: int) -> float:
    """One optimizer step on a batch, of which each process takes its share; returns the mean loss of all.

    Raises:
        DivergedError: that loss or a gradient is not finite; no step is taken then.
    """
    recipe, device = run.recipe, run.accelerator.device
    own = share(indices, run.accelerator)
    images, labels, soft = batch_views(
        samples, own, recipe.augment, seed=recipe.seed, epoch=run.epoch, garments=recipe.garments
    )
    torch.manual_seed(dropout_seed(recipe.seed, step, run.accelerator))
    factors = pixel_factors(labels, soft, run.accelerator)
    loss = torch.zeros((), device=device)
    for task, answers in run.model(images.to(device)).items():
        weight = recipe.class_weight.get(task)
        class_weight = torch.tensor(weight, device=device) if weight else None
        hard, taught = factors[task]
        part = hard * deeply_supervised(answers, labels[task].to(device), recipe.loss, class_weight)
        if task in soft:
            target = soft[task].to(device)
            mean = torch.stack([soft_cross_entropy(answer, target) for answer in answers]).mean()
            part = part + taught * recipe.soft_weight * mean
        loss = loss + recipe.task_weight.get(task, 1.0) * part
    mean_loss = float(run.accelerator.reduce(loss.detach(), "mean"))  # not finite in one process, not finite in all
    if not math.isfinite(mean_loss):
        raise _diverged(run, "loss", mean_loss)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.lr * group["factor"] * lr_factor(recipe, step, steps, run.scores)
    run.stepper.zero_grad(set_to_none=True)
    run.accelerator.backward(loss)
    norm = float(run.accelerator.clip_grad_norm_(run.net.parameters(), 5.0))
    if run.accelerator.scaler is None:  # that of fp16 skips steps that are not finite itself, and goes on smaller
        for strength in run.crfs.parameters():  # which are not clipped
            if strength.grad is not None:
                norm = math.hypot(norm, float(strength.grad.norm()))
        if not math.isfinite(norm):
            raise _diverged(run, "norm of the gradients", norm)
    run.stepper.step()
    run.ema.update(run.net, step)
    return mean_loss


def _diverged(run: Run, what: str, got: float) -> DivergedError:
    return DivergedError(
        f"recipe {run.recipe.name!r}: expected a finite {what}; got {got} in step {run.step_in_epoch + 1} of epoch "
        f"{run.epoch + 1}, of which nothing is saved: try a lower lr, and other weights of losses and classes"
    )


def set_train_mode(run: Run) -> None:
    """Training mode, with batch norm kept fixed if the recipe says so."""
    run.net.train()
    if run.recipe.freeze_batch_norm:
        for module in run.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def train(
    recipe: Recipe,
    *,
    folder: Path,
    data: Path,
    resume: bool = False,
    limit: int | None = None,
    mixed_precision: str | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Run:
    """Run a recipe to its end, or go on with it.

    Args:
        recipe: what to do.
        folder: where checkpoints and the log go; all processes of a run must see it.
        data: the data root.
        resume: continue from `folder`/last.pt if it is there, and start otherwise.
        limit: use so many photos per source and split; for tests.
        mixed_precision: "no", "bf16" or "fp16"; None: as `accelerate launch` says. Averaged weights stay float32.
        checkpoint_seconds: least time between two checkpoints within an epoch.

    Raises:
        RecipeError: a batch cannot be shared out equally to the processes, the folder has a run and `resume` is not
            set, or it is set and that run had other settings.
        DataError: data or the checkpoint to go on from is missing or wrong, or that run had other photos.
        OutputError: nothing can be written into the folder.
    """
    make_folder(folder)
    going_on = resume and (folder / "last.pt").exists()
    run = Run(recipe, folder, mixed_precision=mixed_precision, going_on=going_on)
    if going_on:
        run.resume()
    else:
        if resume and run.accelerator.is_main_process:  # by a script that always says so, before the first checkpoint
            log.warning("%s: no checkpoint to go on from: started from the beginning", folder / "last.pt")
        run.start(resume=resume)
    samples, val = load_photos(recipe, data, limit=limit)
    if recipe.soft_labels:
        samples = with_soft_labels(samples, Path(recipe.soft_labels), confidence=recipe.soft_confidence)
    run.note_photos(samples, val)
    unseen = warn_of_unseen(samples, val, recipe) if run.accelerator.is_main_process else {}
    samples = repeated(samples, recipe.repeat)
    check_photos(len(samples), recipe.batch_size, recipe.name, run.accelerator)
    steps_per_epoch = len(epoch_order(len(samples), recipe, 0))
    log.info("%d photos, %d steps an epoch, %d val photos", len(samples), steps_per_epoch, len(val))

    while run.epoch < recipe.epochs:
        started = time.monotonic()
        set_train_mode(run)
        batches = epoch_order(len(samples), recipe, run.epoch)[run.step_in_epoch :]
        title, quiet = f"epoch {run.epoch + 1}/{recipe.epochs}", not run.accelerator.is_main_process
        for indices in tqdm(batches, desc=title, unit="step", mininterval=10, disable=quiet):
            step = run.epoch * steps_per_epoch + run.step_in_epoch
            run.losses.append(train_step(run, samples, indices, step=step, steps=recipe.epochs * steps_per_epoch))
            run.step_in_epoch += 1
            if time.monotonic() - run.saved_at > checkpoint_seconds:
                run.save()
        run.epoch, run.step_in_epoch = run.epoch + 1, 0
        _close_epoch(run, val, seconds=time.monotonic() - started)
    if run.accelerator.is_main_process:
        _warn_of_missed(run, unseen)
    return run


def _warn_of_missed(run: Run, unseen: Mapping[str, set[str]]) -> None:
    """Log which labels were never found, but for those `unseen` of task, of which it was said at the start."""
    for task, found in run.val.items():
        if missed := [name for name, iou in found.get("iou", {}).items() if iou == 0 and name not in unseen[task]]:
            log.warning(
                "%s: no pixel of %s was labelled right on the val photos after the last epoch; more epochs or more "
                "photos may help",
                task,
                ", ".join(missed),
            )


def _close_epoch(run: Run, val: list[Sample], *, seconds: float) -> None:
    """Validate the averaged weights, log, and keep the best on val (mean mIoU of the recipe's tasks, and each alone).

    Val photos are shared out too, and their confusion matrices added up.
    """
    recipe, place = run.recipe, run.accelerator
    share_buffers(run.ema.net)
    own = val[place.process_index :: place.num_processes]
    scores = validate(run.ema.net, own, recipe.label_counts, long_side_px=recipe.eval_long_side_px, crfs=run.crfs)
    add_up(scores, place)
    mean = float(np.mean([s.miou for s in scores.values()]))
    row = {"epoch": run.epoch, "loss": round(float(np.mean(run.losses)), 4), "seconds": round(seconds)}
    for task, s in scores.items():
        row[task] = {
            "miou": round(100 * s.miou, 2),
            "accuracy": round(100 * s.pixel_accuracy, 2),
            "iou": [round(100 * float(v), 1) if np.isfinite(v) else None for v in s.iou],  # JSON knows no NaN
        }
    if run.crfs:
        row["crf"] = learnt_values(run.crfs)
    run.log_row(row)
    run.losses = []
    run.scores.append(mean)
    run.val = {task: _val_scores(recipe, task, s) for task, s in scores.items()}
    if mean >= run.best:  # of equals the one that was trained longer, as when small labels are not found yet
        run.best = mean
        run.save("best.pt")
    for task, s in scores.items():
        if s.miou >= run.best_by_task[task]:
            run.best_by_task[task] = s.miou
            if len(scores) > 1:
                run.save(f"best_{task}.pt")
    run.save()


def _val_scores(recipe: Recipe, task: str, scores: Scores) -> dict[str, Any]:
    """Scores on val under the keys of `training.evaluate`, without labels that did not occur; {} if nothing did."""
    if not scores.confusion.any():
        return {}
    photos = recipe.folder_name if recipe.folder else "Fashionista"
    return {
        **scores.summary(names_of(recipe, task)),
        "images": int(scores.images),
        "data": f"validation photos of {photos}, by which the epoch was chosen",
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a TOML file of training/recipes")
    parser.add_argument("--resume", action="store_true", help="go on from runs/NAME/last.pt; start if there is none")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="photos and masks of one's own, instead of the recipe's folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    parser.add_argument("--limit", type=count, help="use only so many photos per source and split")
    parser.add_argument("--seed", type=int, help="instead of the recipe's; the run is called NAME_seedN")
    parser.add_argument("--init", help="instead of the recipe's, such as the earlier stage of the same seed")
    parser.add_argument("--mixed-precision", choices=PRECISIONS, help="instead of what the recipe or the launcher says")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=CHECKPOINT_SECONDS,
        help="least time between two checkpoints within an epoch (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    start_all_processes("training.train", sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    recipe = read_recipe(arguments.recipe, folder=arguments.folder)
    if arguments.seed is not None:
        recipe = dataclasses.replace(recipe, name=f"{recipe.name}_seed{arguments.seed}", seed=arguments.seed)
    if arguments.init is not None:
        recipe = dataclasses.replace(recipe, init=arguments.init)
    run = train(
        recipe,
        folder=arguments.runs / recipe.name,
        data=arguments.data,
        resume=arguments.resume,
        limit=arguments.limit,
        mixed_precision=arguments.mixed_precision,
        checkpoint_seconds=arguments.checkpoint_seconds,
    )
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()


if __name__ == "__main__":
    run_command(main)
