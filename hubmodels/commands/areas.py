"""`hubmodels areas`: how much of many photos their labels take, as a table. Heavy imports wait."""

from __future__ import annotations

import argparse
from pathlib import Path

from hubmodels.commands.mask_options import add_mask_options
from hubmodels.files import make_place, write_bytes


def add_areas(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    areas = commands.add_parser(
        "areas",
        help="write which share of each photo its labels take, as a table",
        description="Write a CSV table with a row for each photo that has a mask: its name, its size, and the share of "
        "each label in 0..1, to sort and choose photos by. Masks that were corrected by hand count as they are.",
    )
    add_mask_options(areas)
    areas.add_argument("--out", type=Path, required=True, metavar="CSV", help="where the table goes")
    areas.set_defaults(handler=write_areas)


def write_areas(arguments: argparse.Namespace) -> int:
    """Write what `arguments` name; returns the exit status: 1 if a photo was left out because it or its mask is bad."""
    make_place(arguments.out, example="areas.csv")

    from hubmodels.areas_table import areas_csv
    from hubmodels.commands.mask_source import examples_of, labelled_with_bar

    masked, labels = examples_of(arguments)
    failures: list[str] = []
    table = areas_csv(labelled_with_bar(masked, labels, failures), labels)
    write_bytes(table.encode("utf-8", "surrogateescape"), arguments.out)  # names of files are bytes of any kind
    print(f"{len(masked.examples) - len(failures)} photos, shares of {labels.task}, {arguments.out}")
    return 1 if failures or masked.closed else 0
