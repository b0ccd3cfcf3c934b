"""`hubmodels coco`: masks of many photos in one file of COCO's format. Heavy imports wait."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hubmodels.commands.mask_options import add_mask_options
from hubmodels.files import make_place, write_bytes


def add_coco(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    coco = commands.add_parser(
        "coco",
        help="write photos and their masks as a file of COCO's format",
        description="Write the masks of photos as annotations of COCO: one for each label that a photo shows, "
        "run-length encoded or as polygons, with area and box. Masks that were corrected by hand count as they are.",
    )
    add_mask_options(coco)
    coco.add_argument("--out", type=Path, required=True, metavar="JSON", help="where the annotations go")
    coco.add_argument(
        "--polygons",
        action="store_true",
        help="outlines instead of run lengths, for programs that do not read these",
    )
    coco.add_argument(
        "--tolerance-px",
        type=float,
        default=0.0,
        metavar="PX",
        help="with --polygons: leave out corners as far as outlines stay so near to where they were, in pixels of the "
        "photo, for outlines that are edited by hand; 0, every pixel as it is, unless given, 0.5 to 2 are usual",
    )
    coco.set_defaults(handler=write_coco)


def write_coco(arguments: argparse.Namespace) -> int:
    """Write what `arguments` name; returns the exit status: 1 if a photo was left out because it or its mask is bad."""
    make_place(arguments.out, example="annotations.json")

    from hubmodels.coco import require_pycocotools
    from hubmodels.coco_dataset import dataset
    from hubmodels.commands.mask_source import examples_of, labelled_with_bar

    require_pycocotools()
    masked, labels = examples_of(arguments)
    failures: list[str] = []
    photos = labelled_with_bar(masked, labels, failures)
    found = dataset(photos, labels, polygons=arguments.polygons, tolerance_px=arguments.tolerance_px)
    write_bytes(json.dumps(found, separators=(",", ":")).encode() + b"\n", arguments.out)
    print(f"{len(found['images'])} photos, {len(found['annotations'])} annotations of {labels.task}, {arguments.out}")
    return 1 if failures or masked.closed else 0
