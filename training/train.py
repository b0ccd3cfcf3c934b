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
import json
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

from hubmodels.files import write_bytes
from hubmodels.metrics import Scores
from training.allocator import keep_freed_memory
from training.answers import Answers
from training.checkpoint import load_checkpoint, save_checkpoint
from training.crf_layer import crf_layers, learnt_values
from training.data import DATA_ROOT, Sample
from training.ema import Ema
from training.engine import network_for, pretrained_parameters, validate
from training.errors import DataError, DivergedError, RecipeError, run_command
from training.launch import start_all_processes
from training.losses import deeply_supervised, soft_cross_entropy
from training.optimizers import build_optimizer
from training.photos import (
    Names,
    check_same_photos,
    load_photos,
    names_of,
    seen_before,
    warn_of_seen,
    warn_of_unseen,
)
from training.processes import (
    add_up,
    check_batch,
    dropout_seed,
    join_processes,
    pixel_factors,
    share,
    share_buffers,
)
from training.provenance import provenance
from training.recipe import PRECISIONS, Recipe, read_recipe
from training.schedules import lr_factor
from training.soft_labels import with_soft_labels
from training.transforms import batch_views

log = logging.getLogger("training")
CHECKPOINT_SECONDS = 300
OF_BEST = ("recipe", "ema", "crfs", "epoch", "best", "val", "photos", "provenance")  # what best.pt has of last.pt


class Run:
    """The state of one run, and how it is saved and restored."""

    def __init__(self, recipe: Recipe, folder: Path, *, mixed_precision: str | None = None) -> None:
        self.accelerator = join_processes(mixed_precision or recipe.mixed_precision)
        check_batch(recipe.batch_size, recipe.name, self.accelerator)
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.net = network_for(recipe).to(self.accelerator.device)
        self.crfs = crf_layers(recipe.label_counts, recipe.crf).to(self.accelerator.device)
        self.ema = Ema(self.net, recipe.ema_decay)
        groups = self._parameter_groups()
        self.optimizer = build_optimizer(recipe.optimizer, groups, weight_decay=recipe.weight_decay)
        # What Accelerate wraps, for training steps alone; all else uses the parts themselves.
        self.model, self.stepper = self.accelerator.prepare(Answers(recipe, self.net, self.crfs), self.optimizer)
        self.losses: list[float] = []  # of this epoch's steps
        self.scores: list[float] = []  # on val, after every epoch
        self.val: dict[str, Any] = {}  # after the last epoch that ended: task -> scores, as a model card takes them
        self.epoch = self.step_in_epoch = 0
        self.best = -1.0
        self.best_by_task = dict.fromkeys(recipe.tasks, -1.0)
        # Names of photos: of this run's "train" and "val" in their order, and "seen", sorted: those that this run or
        # one that it started from trains on.
        self.photos: Names = {}
        self.provenance = provenance(recipe)
        self.saved_at = time.monotonic()

    def _parameter_groups(self) -> list[dict]:
        pretrained = pretrained_parameters(self.net)
        known = {id(p) for p in pretrained}
        rest = [p for p in self.net.parameters() if id(p) not in known]
        factor = self.recipe.backbone_lr_factor
        groups = [{"params": pretrained, "factor": factor, "lr": 0.0}, {"params": rest, "factor": 1.0, "lr": 0.0}]
        if self.crfs:  # strengths are of another magnitude than a network's weights, and have no reason to be near zero
            strengths = {"params": list(self.crfs.parameters()), "factor": self.recipe.crf.get("lr_factor", 25.0)}
            groups.append({**strengths, "lr": 0.0, "weight_decay": 0.0})
        return groups

    def save(self, name: str = "last.pt") -> None:
        """Write a checkpoint, in the first process; `last.pt` can be resumed."""
        self.saved_at = time.monotonic()
        if not self.accelerator.is_main_process:
            return
        state = {
            "recipe": self.recipe.to_dict(),
            "net": self.net.state_dict(),
            "ema": self.ema.net.state_dict(),
            "crfs": self.crfs.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "best": self.best,
            "best_by_task": self.best_by_task,
            "losses": self.losses,
            "scores": self.scores,
            "val": {} if self.step_in_epoch else self.val,  # of these very weights, or of none
            "photos": self.photos,
            "provenance": self.provenance,
        }
        if self.accelerator.scaler is not None:  # of fp16
            state["scaler"] = self.accelerator.scaler.state_dict()
        if name != "last.pt":
            state = {key: state[key] for key in OF_BEST}
        save_checkpoint(state, self.folder / name)

    def resume(self) -> None:
        """Go on where `last.pt` stopped; every process reads it.

        Raises:
            DataError: it is missing, damaged, or not of `save`.
            RecipeError: it is of a run with other settings.
        """
        path = self.folder / "last.pt"
        state = load_checkpoint(path)
        if missing := {"recipe", "net", "ema", "optimizer", "epoch", "step_in_epoch", "best"} - set(state):
            raise DataError(f"{path}: expected the last.pt of a run; got a file without {', '.join(sorted(missing))}")
        if changed := self.recipe.differences(state["recipe"]):
            listed = ", ".join(f"{key} ({was!r} there, {now!r} here)" for key, (was, now) in changed.items())
            raise RecipeError(
                f"recipe {self.recipe.name!r}: {path} is of a run with other settings: {listed}; set them back to go "
                "on with it, or give the recipe another name and start without --resume"
            )
        self.net.load_state_dict(state["net"])
        self.ema.net.load_state_dict(state["ema"])
        self.crfs.load_state_dict(state.get("crfs", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step_in_epoch, self.best = state["epoch"], state["step_in_epoch"], state["best"]
        self.best_by_task |= state.get("best_by_task", {})
        self.scores, self.losses = state.get("scores", []), state.get("losses", [])
        self.val, self.photos = state.get("val", {}), state.get("photos", {})
        self.provenance = state.get("provenance", self.provenance)
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._drop_later_rows()
        log.info("resumed at epoch %d, step %d", self.epoch, self.step_in_epoch)

    def start(self) -> None:
        """Take away the rows of a run that was killed before its first checkpoint: they come again.

        Raises:
            RecipeError: the folder has a checkpoint, which this run would replace.
        """
        if (path := self.folder / "last.pt").is_file():
            raise RecipeError(
                f"recipe {self.recipe.name!r}: expected a folder without a run; got {path}: go on with it by --resume, "
                f"or remove {self.folder} to start again"
            )
        self._drop_later_rows()
        self.photos = {"seen": seen_before(self.recipe)}

    def note_photos(self, train: list[Sample], val: list[Sample]) -> None:
        """Note which photos the run is on, for its checkpoints; warns if val photos were trained on before.

        Raises:
            DataError: the run goes on, and has had others.
        """
        now = {"train": [sample.name for sample in train], "val": [sample.name for sample in val]}
        if "train" in self.photos:  # not in older checkpoints
            check_same_photos(now, self.photos, self.recipe)
        seen = self.photos.get("seen", [])
        if self.accelerator.is_main_process:
            warn_of_seen(now["val"], seen, self.recipe)
        self.photos = {**now, "seen": sorted({*seen, *now["train"]})}

    def log_row(self, row: dict[str, Any]) -> None:
        """Append to log.jsonl, in the first process."""
        log.info(json.dumps(row))
        if self.accelerator.is_main_process:
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _drop_later_rows(self) -> None:
        """Take away the row of an epoch that was logged but not saved any more, whole or cut: it comes again."""
        path = self.folder / "log.jsonl"
        if not (self.accelerator.is_main_process and path.is_file()):
            return
        text = path.read_text()
        rows = text.splitlines()
        while rows and _epoch_of(rows[-1]) > self.epoch:
            rows.pop()
        kept = "".join(f"{row}\n" for row in rows)
        if kept != text:
            write_bytes(kept.encode(), path)


def _epoch_of(row: str) -> float:
    """The epoch of a row of log.jsonl; infinity if a kill cut it."""
    try:
        return json.loads(row)["epoch"]
    except ValueError:
        return math.inf


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
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, folder, mixed_precision=mixed_precision)
    if resume and (folder / "last.pt").exists():
        run.resume()
    else:
        if resume and run.accelerator.is_main_process:  # by a script that always says so, before the first checkpoint
            log.warning("%s: no checkpoint to go on from: started from the beginning", folder / "last.pt")
        run.start()
    samples, val = load_photos(recipe, data, limit=limit)
    if recipe.soft_labels:
        samples = with_soft_labels(samples, Path(recipe.soft_labels), confidence=recipe.soft_confidence)
    run.note_photos(samples, val)
    unseen = warn_of_unseen(samples, val, recipe) if run.accelerator.is_main_process else {}
    samples = repeated(samples, recipe.repeat)
    first_epoch = epoch_order(len(samples), recipe, 0)
    steps_per_epoch = len(first_epoch)
    check_batch(len(first_epoch[0]), recipe.name, run.accelerator)  # fewer photos than batch_size are one batch
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
            "iou": [round(100 * float(v), 1) for v in s.iou],
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
    names = names_of(recipe, task)
    photos = recipe.folder_name if recipe.folder else "Fashionista"
    return {
        "miou": round(scores.miou, 5),
        "pixel_accuracy": round(scores.pixel_accuracy, 5),
        "iou": {name: round(float(v), 5) for name, v in zip(names, scores.iou, strict=True) if not np.isnan(v)},
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
    parser.add_argument("--limit", type=int, help="use only so many photos per source and split")
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
