"""One network out of several runs from the same start: `python -m training.average CHECKPOINT... --out FILE`.

The mean of their weights (Wortsman et al. 2022, Model soups): runs that start from the same trained network and differ
in seed or settings end close enough together for it, and the mean is often better than any of them at the cost of one.
Means and variances of batch norm are averaged too.

With --with-start the network that the first run started from counts as one more (Wortsman et al. 2022, Robust
fine-tuning of zero-shot models): a short training then keeps what the start knew.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine import network_for
from training.errors import DataError
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


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="of training.train, of the same recipe or alike")
    parser.add_argument("--with-start", action="store_true", help="average with what the first run started from, too")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    saved = [load_checkpoint(path) for path in arguments.checkpoints]
    tasks = {tuple(each["recipe"]["tasks"]) for each in saved}
    if len(tasks) != 1:
        raise DataError(f"checkpoints of different tasks: {sorted(tasks)}")
    states = [each["ema"] for each in saved]
    if arguments.with_start:  # built as the run built it, with frozen batch norms folded or not
        states.append(network_for(Recipe.from_dict(saved[0]["recipe"])).state_dict())
    save_checkpoint({"recipe": saved[0]["recipe"], "ema": mean_of(states)}, arguments.out)
    print(f"{arguments.out}: mean of {len(states)} networks")


if __name__ == "__main__":
    main()
