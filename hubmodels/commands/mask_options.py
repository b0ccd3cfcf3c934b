"""The options of commands that take photos and their masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from hubmodels.commands.model_options import MODEL_HELP
from hubmodels.labels import TASKS


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """The options that `hubmodels.commands.mask_source.examples_of` reads."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    parser.add_argument(
        "--masks",
        type=Path,
        required=True,
        metavar="DIR",
        help="NAME_mask.png as `hubmodels label` writes it, or NAME.png, for a photo NAME",
    )
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--task", choices=sorted(TASKS), help="what masks show that do not say it themselves")
    labels.add_argument("--model", metavar="MODEL", help=f"whose labels such masks have: {MODEL_HELP}")
