"""One network out of several runs from the same start: `python -m training.average CHECKPOINT... --out FILE`.

The mean of their weights (Wortsman et al. 2022, Model soups): runs that start from the same trained network and differ
in seed or settings end close enough together for it, and the mean is often better than any of them at the cost of one.
Means and variances of batch norm are averaged too.

With --with-start the network that the first run started from counts as one more (Wortsman et al. 2022, Robust
fine-tuning of zero-shot models): a short training then keeps what the start knew.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hubmodels.files import make_place
from training.checkpoint import averaged_weights, load_run, save_checkpoint
from training.engine import network_for
from training.errors import DataError, run_command
from training.recipe import Recipe

State = dict[str, torch.Tensor]


def mean_of(states: Sequence[State]) -> State:
    """The mean of every floating-point tensor, computed in float64; integer ones are the first's.

    Raises:
        DataError: fewer than two, or names or shapes differ.
    """
    if len(states) < 2:
        raise DataError(f"expected two or more networks; got {len(states)}")
    first = states[0]
    shapes = {key: value.shape for key, value in first.items()}
    for index, state in enumerate(states[1:], 2):
        if {key: value.shape for key, value in state.items()} != shapes:
            raise DataError(f"checkpoint {index} has other names or shapes than the first: not the same network")
    return {
        key: torch.stack([state[key].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for key, value in first.items()
    }


def check_alike(recipes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs whose weights do not mean the same: equal names and shapes are not enough.

    Raises:
        DataError: they differ in tasks, labels or network, or in how its batch norms are kept.
    """
    keys = ["tasks", "classes", "arch", "network"]
    if not recipes[0].get("arch", "").startswith("deeplab"):
        keys.append("freeze_batch_norm")  # U-2-Net, alone or in an ensemble: frozen ones are part of convolutions
    for key in keys:
        values = [recipe.get(key) or None for recipe in recipes]  # absent from older checkpoints
        if any(value != values[0] for value in values):
            raise DataError(f"expected runs with one value of {key}; got {values}: not the same network")


def _together(saved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all runs together were trained on, in words and by the names of photos; nothing of runs that do not say."""
    texts = dict.fromkeys(each["provenance"] for each in saved if "provenance" in each)
    seen = {name for each in saved for name in each.get("photos", {}).get("seen", [])}
    found = {"provenance": "; and ".join(texts), "photos": {"seen": sorted(seen)} if seen else None}
    return {key: value for key, value in found.items() if value}


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="of training.train, of the same recipe or alike")
    parser.add_argument("--with-start", action="store_true", help="average with what the first run started from, too")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    make_place(arguments.out, example="mean.pt")
    saved = [load_run(path) for path in arguments.checkpoints]
    check_alike([each["recipe"] for each in saved])
    states = [averaged_weights(each, path) for each, path in zip(saved, arguments.checkpoints, strict=True)]
    if arguments.with_start:  # built as the run built it, with frozen batch norms folded or not
        recipe = Recipe.from_dict(saved[0]["recipe"])
        torch.manual_seed(recipe.seed)  # heads that are new are the same random ones
        states.append(network_for(recipe).state_dict())
    save_checkpoint({"recipe": saved[0]["recipe"], "ema": mean_of(states), **_together(saved)}, arguments.out)
    print(f"{arguments.out}: mean of {len(states)} networks")


if __name__ == "__main__":
    run_command(main)
