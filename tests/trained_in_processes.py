"""Started by test_accelerate under `accelerate launch`: each process writes down what it ended with.

A run through two epochs; then the same one, stopped in the middle of its first epoch and resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import training.train
from training.recipe import read_recipe
from training.train import Run, train


class Stopped(Exception):
    pass


def end_of(run: Run) -> dict:
    parts = {"net": run.net, "ema": run.ema.net, "crfs": run.crfs}
    return {"scores": run.scores, **{name: dict(part.state_dict()) for name, part in parts.items()}}


def main(recipe_path: Path, data: Path, out: Path) -> None:
    recipe = read_recipe(recipe_path)
    whole = train(recipe, folder=out / "whole", data=data)
    rank = whole.accelerator.process_index
    torch.save(end_of(whole), out / f"whole{rank}.pt")

    real, steps = training.train.train_step, []

    def stop_after_two(*args, **kwargs):
        if len(steps) == 2:
            raise Stopped
        steps.append(1)
        return real(*args, **kwargs)

    training.train.train_step = stop_after_two
    try:
        train(recipe, folder=out / "parts", data=data, checkpoint_seconds=0)
    except Stopped:
        pass
    else:
        raise AssertionError("the first epoch must have more than two steps")
    whole.accelerator.wait_for_everyone()  # the first process has written last.pt
    training.train.train_step = real
    resumed = train(recipe, folder=out / "parts", data=data, resume=True)
    torch.save(end_of(resumed), out / f"parts{rank}.pt")
    whole.accelerator.end_training()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
