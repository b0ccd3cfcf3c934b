"""Several published models as one: `python -m training.ensemble OUT NAME NAME... --input-px PX`.

Their probabilities are averaged (hubmodels.networks.ensemble). OUT is a folder for `hubmodels.load`, `hubmodels label`
and `hubmodels export`; the weights in it are those of the members, which are not trained any further.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from hubmodels.config import ModelConfig
from hubmodels.entries import Entry, find_entry
from hubmodels.hub import read_weights
from hubmodels.networks import build_network
from hubmodels.segmenter import Segmenter
from training.errors import DataError


def ensemble_of(members: Sequence[Entry], *, name: str, input_px: int) -> Segmenter:
    """A model in eval mode that answers with the mean of the members' probabilities.

    Args:
        members: rows of networks with weights and the same labels, two to four.
        name: what the model is called.
        input_px: photos go through all members with this long side, in pixels; the members' own may differ.

    Raises:
        DataError: a row is no network with weights, or the labels differ.
        ValueError: too few or too many members, or `input_px` out of range.
        WeightsError: the weights of a member are missing or not its own.
    """
    if unfit := [each.name for each in members if not (each.is_network and each.is_trained)]:
        raise DataError(f"an ensemble is of networks with weights; {', '.join(unfit)} is none: see `hubmodels list`")
    if len({each.labels.names for each in members}) > 1:
        tasks = ", ".join(f"{each.name}: {each.task}" for each in members)
        raise DataError(f"members must answer with the same labels; got {tasks}")
    labels = members[0].labels
    options = [{"arch": each.arch, **each.network} for each in members]
    config = ModelConfig(name, "ensemble", {"members": options}, labels, input_px)
    state: dict[str, torch.Tensor] = {}
    for index, entry in enumerate(members):
        alone = build_network(entry.arch, num_classes=len(labels), **entry.network)
        state |= {f"members.{index}.{key}": value for key, value in read_weights(entry, alone).items()}
    network = config.build()
    network.load_state_dict(state)
    network = network.to(memory_format=torch.channels_last)  # as `load` does
    return Segmenter(network, labels, name=name, input_px=input_px, config=config).eval()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ensemble", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("members", nargs="+", metavar="NAME", help="a published network")
    parser.add_argument("--input-px", type=int, required=True, help="long side at which photos go through all of them")
    arguments = parser.parse_args(argv)
    members = [find_entry(name) for name in arguments.members]
    model = ensemble_of(members, name=arguments.folder.name, input_px=arguments.input_px)
    data = "what its members were: " + "; ".join(f"{each.name}, {each.data}" for each in members)
    model.save_pretrained(arguments.folder, license=members[0].license.lower(), data=data)
    print(f"{arguments.folder}: {' + '.join(arguments.members)}; use: hubmodels.load({str(arguments.folder)!r})")


if __name__ == "__main__":
    main()
