"""Train a recipe: `python -m training.train training/recipes/NAME.toml [--resume]`.

Writes runs/NAME/last.pt (everything needed to go on), runs/NAME/best.pt (best averaged weights on val) and
runs/NAME/log.jsonl. Views, order and dropout are functions of (seed, epoch, step), so a run that was stopped and
resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from training.allocator import keep_freed_memory
from training.checkpoint import load_checkpoint, save_checkpoint
from training.crf_layer import crf_layers, learnt_values, refined
from training.data import DATA_ROOT, Sample, load_fashionista, load_sources
from training.ema import Ema
from training.engine import network_for, pretrained_parameters, task_rows, validate
from training.folder import load_folder
from training.losses import deeply_supervised, soft_cross_entropy
from training.optimizers import build_optimizer
from training.recipe import Recipe, read_recipe
from training.schedules import lr_factor
from training.soft_labels import with_soft_labels
from training.transforms import batch_views

log = logging.getLogger("training")
CHECKPOINT_SECONDS = 300


class Run:
    """The state of one run, and how it is saved and restored."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.net = network_for(recipe)
        forward = self.net.forward_sides if recipe.deep_supervision else self.net
        self.forward = torch.compile(forward) if recipe.compile else forward
        self.crfs = crf_layers(recipe.label_counts, recipe.crf)
        self.ema = Ema(self.net, recipe.ema_decay)
        groups = self._parameter_groups()
        self.optimizer = build_optimizer(recipe.optimizer, groups, weight_decay=recipe.weight_decay)
        self.scores: list[float] = []  # on val, after every epoch
        self.epoch = self.step_in_epoch = 0
        self.best = -1.0
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
        """Write a checkpoint; `last.pt` can be resumed."""
        state = {
            "recipe": self.recipe.to_dict(),
            "net": self.net.state_dict(),
            "ema": self.ema.net.state_dict(),
            "crfs": self.crfs.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "best": self.best,
            "scores": self.scores,
        }
        if name != "last.pt":
            state = {key: state[key] for key in ("recipe", "ema", "crfs", "epoch", "best")}
        save_checkpoint(state, self.folder / name)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on where `last.pt` stopped."""
        state = load_checkpoint(self.folder / "last.pt")
        self.net.load_state_dict(state["net"])
        self.ema.net.load_state_dict(state["ema"])
        self.crfs.load_state_dict(state.get("crfs", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step_in_epoch, self.best = state["epoch"], state["step_in_epoch"], state["best"]
        self.scores = state.get("scores", [])
        log.info("resumed at epoch %d, step %d", self.epoch, self.step_in_epoch)


def epoch_order(count: int, recipe: Recipe, epoch: int) -> list[np.ndarray]:
    """Batches of sample indices; the last incomplete batch is dropped (batch norm needs company)."""
    order = np.random.default_rng((recipe.seed, epoch)).permutation(count)
    batches = max(1, count // recipe.batch_size)
    return [order[i * recipe.batch_size : (i + 1) * recipe.batch_size] for i in range(batches)]


def repeated(samples: list[Sample], repeat: dict[str, int]) -> list[Sample]:
    """Photos of a source listed as often as the recipe says."""
    return [s for s in samples for _ in range(repeat.get(s.name.split("/")[0], 1))]


def train_step(run: Run, samples: list[Sample], indices: np.ndarray, *, step: int, steps: int) -> float:
    """One optimizer step; returns the loss."""
    recipe = run.recipe
    images, labels, soft = batch_views(samples, indices, recipe.augment, seed=recipe.seed, epoch=run.epoch)
    torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout
    answer = run.forward(images)
    maps = answer if recipe.deep_supervision else [answer]
    loss = torch.zeros(())
    for task, rows in task_rows(recipe.label_counts).items():
        weight = recipe.class_weight.get(task)
        class_weight = torch.tensor(weight) if weight else None
        answers = [refined(run.crfs, task, logits[:, rows], images) for logits in maps]
        part = deeply_supervised(answers, labels[task], recipe.loss, class_weight)
        if task in soft:
            taught = torch.stack([soft_cross_entropy(answer, soft[task]) for answer in answers]).mean()
            part = part + recipe.soft_weight * taught
        loss = loss + recipe.task_weight.get(task, 1.0) * part
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.lr * group["factor"] * lr_factor(recipe, step, steps, run.scores)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), 5.0)
    run.optimizer.step()
    run.ema.update(run.net, step)
    return float(loss.detach())


def load_photos(recipe: Recipe, data: Path, *, limit: int | None = None) -> tuple[list[Sample], list[Sample]]:
    """The photos of a recipe for training and for validation."""
    if recipe.folder:
        train, val = (
            load_folder(Path(recipe.folder), split, recipe.tasks[0], limit=limit) for split in ("train", "val")
        )
        return train, val
    val = load_fashionista(data, "val", recipe.tasks, limit=limit)
    return load_sources(data, recipe.sources, recipe.tasks, limit=limit), val


def set_train_mode(run: Run) -> None:
    """Training mode, with batch norm kept fixed if the recipe says so."""
    run.net.train()
    if run.recipe.freeze_batch_norm:
        for module in run.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def train(recipe: Recipe, *, folder: Path, data: Path, resume: bool = False, limit: int | None = None) -> Run:
    """Run a recipe to its end, or go on with it.

    Args:
        recipe: what to do.
        folder: where checkpoints and the log go.
        data: the data root.
        resume: continue from `folder`/last.pt.
        limit: use so many photos per source and split; for tests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, folder)
    if resume:
        run.resume()
    samples, val = load_photos(recipe, data, limit=limit)
    if recipe.soft_labels:
        samples = with_soft_labels(samples, Path(recipe.soft_labels), confidence=recipe.soft_confidence)
    samples = repeated(samples, recipe.repeat)
    steps_per_epoch = len(epoch_order(len(samples), recipe, 0))
    log.info("%d photos, %d steps an epoch, %d val photos", len(samples), steps_per_epoch, len(val))

    while run.epoch < recipe.epochs:
        started, losses = time.monotonic(), []
        set_train_mode(run)
        batches = epoch_order(len(samples), recipe, run.epoch)[run.step_in_epoch :]
        for indices in tqdm(batches, desc=f"epoch {run.epoch + 1}/{recipe.epochs}", unit="step", mininterval=10):
            step = run.epoch * steps_per_epoch + run.step_in_epoch
            losses.append(train_step(run, samples, indices, step=step, steps=recipe.epochs * steps_per_epoch))
            run.step_in_epoch += 1
            if time.monotonic() - run.saved_at > CHECKPOINT_SECONDS:
                run.save()
        run.epoch, run.step_in_epoch = run.epoch + 1, 0
        _close_epoch(run, val, losses, seconds=time.monotonic() - started)
    return run


def _close_epoch(run: Run, val: list[Sample], losses: list[float], *, seconds: float) -> None:
    """Validate the averaged weights, log, and keep the best on val (mean mIoU of the recipe's tasks)."""
    recipe = run.recipe
    scores = validate(run.ema.net, val, recipe.label_counts, long_side_px=recipe.eval_long_side_px, crfs=run.crfs)
    mean = float(np.mean([s.miou for s in scores.values()]))
    row = {"epoch": run.epoch, "loss": round(float(np.mean(losses)), 4), "seconds": round(seconds)}
    for task, s in scores.items():
        row[task] = {
            "miou": round(100 * s.miou, 2),
            "accuracy": round(100 * s.pixel_accuracy, 2),
            "iou": [round(100 * float(v), 1) for v in s.iou],
        }
    if run.crfs:
        row["crf"] = learnt_values(run.crfs)
    log.info(json.dumps(row))
    with (run.folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    run.scores.append(mean)
    if mean > run.best:
        run.best = mean
        run.save("best.pt")
    run.save()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a TOML file of training/recipes")
    parser.add_argument("--resume", action="store_true", help="go on from runs/NAME/last.pt")
    parser.add_argument("--data", type=Path, default=DATA_ROOT, help="data root (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="photos and masks of one's own, instead of the recipe's folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    parser.add_argument("--limit", type=int, help="use only so many photos per source and split")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    keep_freed_memory()
    recipe = read_recipe(arguments.recipe, folder=arguments.folder)
    train(
        recipe, folder=arguments.runs / recipe.name, data=arguments.data, resume=arguments.resume, limit=arguments.limit
    )


if __name__ == "__main__":
    main()
