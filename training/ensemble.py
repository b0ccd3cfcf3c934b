"""Several published models as one: `python -m training.ensemble OUT NAME NAME... --input-px PX`.

Their probabilities are averaged (hubmodels.networks.ensemble). OUT is a folder for `hubmodels.load`, `hubmodels label`
and `hubmodels export`; the weights in it are those of the members, which are not trained any further. With --publish,
OUT is a row of ENTRIES with that architecture, and its weights file is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from hubmodels.config import MEMBERS, ModelConfig, config_of
from hubmodels.entries import ENTRIES, Entry, find_entry
from hubmodels.hub import read_weights
from hubmodels.segmenter import Segmenter
from training.arguments import working_px
from training.errors import DataError, run_command
from training.export import publish_network


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
        alone = config_of(entry).build()
        state |= {f"members.{index}.{key}": value for key, value in read_weights(entry, alone).items()}
    network = config.build()
    network.load_state_dict(state)
    return Segmenter.from_network(network, config)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ensemble", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT", help="a folder, or with --publish the name of a row")
    parser.add_argument("members", nargs="+", metavar="NAME", help="a published network")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--input-px", type=working_px, help="long side at which photos go through all of them")
    how.add_argument("--publish", action="store_true", help="write the weights of the row, at whose input_px they work")
    arguments = parser.parse_args(argv)
    if not arguments.publish and arguments.out in ENTRIES:
        parser.error(f"OUT is a folder, before the names of the members; got the model {arguments.out}: name a folder")
    if len(arguments.members) not in MEMBERS:
        parser.error(f"an ensemble is of {MEMBERS[0]} to {MEMBERS[-1]} networks; got {len(arguments.members)}")
    members = [find_entry(name) for name in arguments.members]
    if arguments.publish:
        entry = find_entry(arguments.out)
        model = ensemble_of(members, name=entry.name, input_px=entry.input_px)
        path = publish_network(model.network.state_dict(), entry)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; now run: python -m training.evaluate {entry.name}")
        return
    folder = Path(arguments.out)
    model = ensemble_of(members, name=folder.name, input_px=arguments.input_px)
    data = "what its members were: " + "; ".join(f"{each.name}, {each.data}" for each in members)
    model.save_pretrained(folder, license=members[0].license.lower(), data=data)
    print(f"{folder}: {' + '.join(arguments.members)}; use: hubmodels.load({str(folder)!r})")


if __name__ == "__main__":
    run_command(main)
