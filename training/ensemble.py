"""Make the weights of an ensemble from those of published models: `python -m training.ensemble NAME MEMBER...`.

The members are entries of the same labels, in the order of the ensemble's row. They are not trained any further, and
their values go into the new file bit by bit. Run it again when a member has new weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from hubmodels.entries import Entry, find_entry
from hubmodels.hub import read_weights
from hubmodels.networks import build_network
from training.errors import DataError
from training.export import publish_network


def member_of(entry: Entry) -> dict[str, object]:
    """How the row of an ensemble describes a member."""
    return {"arch": entry.arch, **entry.network}


def combined_weights(ensemble: Entry, members: Sequence[Entry]) -> dict[str, torch.Tensor]:
    """The state dict of an ensemble, in float32.

    Raises:
        DataError: the row is no ensemble, or one of other members or labels.
        WeightsError: the weights of a member are missing or not its own.
    """
    wanted = [dict(each) for each in ensemble.network.get("members", ())]
    if wanted != [member_of(each) for each in members]:
        raise DataError(f"{ensemble.name} has members {wanted}; got {[member_of(each) for each in members]}")
    if others := [each.name for each in members if each.labels != ensemble.labels]:
        raise DataError(f"{ensemble.name} answers {ensemble.labels.names}; {', '.join(others)} answer otherwise")
    state = {}
    for index, entry in enumerate(members):
        network = build_network(entry.arch, num_classes=len(entry.labels), **entry.network)
        state |= {f"members.{index}.{key}": value for key, value in read_weights(entry, network).items()}
    return state


def combine(ensemble: Entry, members: Sequence[Entry]) -> Path:
    """Write the weights file of an ensemble and its row in the manifest; returns the file's path."""
    return publish_network(combined_weights(ensemble, members), ensemble)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ensemble", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="the entry whose weights these are")
    parser.add_argument("members", nargs="+", metavar="MEMBER", help="an entry of a single network")
    arguments = parser.parse_args(argv)
    path = combine(find_entry(arguments.name), [find_entry(name) for name in arguments.members])
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; now run: python -m training.evaluate {arguments.name}")


if __name__ == "__main__":
    main()
