"""The state of a training run: what it holds, and how it is saved and gone on with."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

from hubmodels.files import write_bytes
from training.answers import Answers
from training.checkpoint import load_checkpoint, load_run, save_checkpoint
from training.crf_layer import crf_layers
from training.data import Sample
from training.ema import Ema
from training.engine import network_for, pretrained_parameters
from training.errors import DataError, RecipeError
from training.optimizers import build_optimizer
from training.photos import Names, check_same_photos, digest, seen_before, warn_of_seen
from training.processes import check_batch, join_processes
from training.provenance import provenance
from training.recipe import Recipe

log = logging.getLogger("training")
OF_BEST = ("recipe", "ema", "crfs", "epoch", "best", "val", "photos", "provenance")  # what best.pt has of last.pt


class Run:
    """The state of one run, and how it is saved and restored."""

    def __init__(
        self, recipe: Recipe, folder: Path, *, mixed_precision: str | None = None, going_on: bool = False
    ) -> None:
        """What a run starts with, or with `going_on` what `resume` fills: what it started from is not read then."""
        self.accelerator = join_processes(mixed_precision or recipe.mixed_precision)
        check_batch(recipe.batch_size, recipe.name, self.accelerator)
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        start = dataclasses.replace(recipe, init="random") if going_on else recipe
        self.net = network_for(start).to(self.accelerator.device)
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
        # one that it started from trains on. "train_sha256" and "val_sha256": what they hold.
        self.photos: Names = {}
        self.provenance = "" if going_on else provenance(recipe)
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
        self.provenance = state["provenance"] if "provenance" in state else provenance(self.recipe)
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._drop_later_rows()
        log.info("resumed at epoch %d, step %d", self.epoch, self.step_in_epoch)

    def start(self, *, resume: bool = False) -> None:
        """Take away the rows of a run that was killed before its first checkpoint: they come again.

        Args:
            resume: the run was to go on, and may have been killed between the two checkpoints of its first epoch.

        Raises:
            RecipeError: the folder has a checkpoint, which this run would replace.
        """
        if (path := self.folder / "last.pt").is_file():
            raise RecipeError(
                f"recipe {self.recipe.name!r}: expected a folder without a run; got {path}: go on with it by --resume, "
                f"or remove {self.folder} to start again"
            )
        kept = sorted(self.folder.glob("best*.pt"))
        if kept and not (resume and all(load_run(path).get("epoch") == 1 for path in kept)):
            raise RecipeError(
                f"recipe {self.recipe.name!r}: expected a folder without a run; got {kept[0]}, whose last.pt is gone: "
                "it cannot go on, and is not replaced. Give another --runs, or move it"
            )
        self._drop_later_rows()
        self.photos = {"seen": seen_before(self.recipe)}

    def note_photos(self, train: list[Sample], val: list[Sample]) -> None:
        """Note which photos the run is on, for its checkpoints; warns if val photos were trained on before.

        Raises:
            DataError: the run goes on, and has had others.
        """
        now = {"train": [sample.name for sample in train], "val": [sample.name for sample in val]}
        now |= {"train_sha256": list(map(digest, train)), "val_sha256": list(map(digest, val))}
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
    """The epoch of a row of log.jsonl; infinity if a kill cut it, or somebody wrote into it."""
    try:
        return float(json.loads(row)["epoch"])
    except (ValueError, TypeError, KeyError):
        return math.inf
