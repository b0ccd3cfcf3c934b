"""The full U-2-Net out of a small one that computes the same: `python -m training.widen NAME --out FILE`.

Both have the same layers, and every width of the full one is a multiple of the small one's. So each channel is repeated
as often as it takes, and the weights that read it share its weight among the copies (Chen, Goodfellow & Shlens 2016,
Net2Net, section 2.1). Training a network of 44 million parameters then starts where the small one ended instead of
from nothing. A little noise on the weights lets the copies part.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

from hubmodels.entries import ENTRIES
from hubmodels.hub import read_weights
from hubmodels.networks import build_network
from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine import task_rows
from training.errors import DataError

# Convolutions whose input is two maps of one width, joined: on the way up inside a block, and at its start.
JOINED = re.compile(r"(rebnconv\d+d\.conv_s1|stage\dd\.rebnconvin\.conv_s1)\.weight$")

State = dict[str, torch.Tensor]


def widen(small: State, *, num_classes: int, noise: float = 0.0, seed: int = 0) -> State:
    """State dict of the full U-2-Net from one of the small U-2-Net.

    Args:
        small: weights of `u2net_small` with `num_classes` output channels.
        num_classes: output channels of both.
        noise: standard deviation of a random factor around 1 on every convolution weight; 0 keeps the function exactly.
        seed: of the noise.

    Raises:
        DataError: not the state dict of the small U-2-Net.
    """
    expected = build_network("u2net_small", num_classes=num_classes).state_dict()
    if {key: value.shape for key, value in small.items()} != {key: value.shape for key, value in expected.items()}:
        raise DataError(f"expected the weights of u2net_small with {num_classes} classes; got other names or shapes")
    generator = torch.Generator().manual_seed(seed)
    wide = {}
    for key, target in build_network("u2net", num_classes=num_classes).state_dict().items():
        value = small[key]
        if value.ndim == 4 and not key.startswith("outconv"):
            value = _repeat_inputs(value, target.shape[1], pieces=2 if JOINED.search(key) else 1)
        if value.ndim > 0 and value.shape[0] != target.shape[0]:
            value = value.repeat(target.shape[0] // value.shape[0], *[1] * (value.ndim - 1))
        if noise and value.ndim == 4:
            value = value * (1 + noise * torch.randn(value.shape, generator=generator))
        wide[key] = value.clone()
    return wide


def _repeat_inputs(weight: torch.Tensor, inputs: int, *, pieces: int) -> torch.Tensor:
    """(O, inputs, k, k) from (O, I, k, k): each of `pieces` joined maps was repeated, and its weight is shared."""
    times = inputs // weight.shape[1]
    return torch.cat([part.repeat(1, times, 1, 1) / times for part in weight.chunk(pieces, dim=1)], dim=1)


def small_weights(name: str) -> tuple[list[str], State]:
    """Tasks and weights of a published model or of a checkpoint.

    Raises:
        DataError: no such checkpoint.
        WeightsError: the published weights are not to be had.
    """
    if name in ENTRIES:
        entry = ENTRIES[name]
        return [entry.task], read_weights(entry, build_network(entry.arch, num_classes=len(entry.labels)))
    saved = load_checkpoint(Path(name))
    return list(saved["recipe"]["tasks"]), saved["ema"]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.widen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("small", help="an entry, or a checkpoint of training.train or training.import_checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--noise", type=float, default=0.01, help="relative noise on weights (default: %(default)s)")
    arguments = parser.parse_args(argv)
    tasks, state = small_weights(arguments.small)
    classes = max(rows.stop for rows in task_rows(tasks).values())
    state = widen(state, num_classes=classes, noise=arguments.noise)
    save_checkpoint({"recipe": {"tasks": list(tasks)}, "ema": state}, arguments.out)
    print(f'{arguments.out}: {len(state)} tensors; recipes start from it with init = "{arguments.out}"')


if __name__ == "__main__":
    main()
