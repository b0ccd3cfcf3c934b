"""`hubmodels cutout`: what masks show, cut out of their photos. Heavy imports wait."""

from __future__ import annotations

import argparse
import collections
import sys
from pathlib import Path

from hubmodels.commands.mask_options import add_mask_options
from hubmodels.commands.model_options import label_names
from hubmodels.ctrl_c import INTERRUPTED
from hubmodels.files import FULL, make_folder
from hubmodels.paths import printable


def add_cutout(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    cutout = commands.add_parser(
        "cutout",
        help="cut out of photos what their masks show",
        description="Write NAME_cutout.png for each photo with a mask: what the mask shows on transparent ground, in "
        "the photo's own size. Masks that were corrected by hand count as they are.",
    )
    add_mask_options(cutout)
    cutout.add_argument("--out", type=Path, required=True, metavar="DIR", help="where cut-outs go")
    cutout.add_argument(
        "--label",
        type=label_names,
        default=[],
        metavar="LABEL,...",
        help="labels to cut out, such as dress; all but the background unless given",
    )
    cutout.add_argument("--hard", action="store_true", help="every pixel as it is or not at all, instead of soft edges")
    cutout.add_argument(
        "--resume",
        action="store_true",
        help="leave out photos whose cut-outs are there, of the same photo and mask and made in the same way",
    )
    cutout.set_defaults(handler=write_cutouts)


def write_cutouts(arguments: argparse.Namespace) -> int:
    """Cut out what `arguments` name; returns the exit status: 1 if a photo was left out because it or its mask is bad.

    Raises:
        ValueError: no such label.
        OSError, HubmodelsError: as of `examples_of` and `make_folder`.
    """
    from tqdm import tqdm

    from hubmodels.commands.mask_source import examples_of
    from hubmodels.cutting import Fate, cut_out, place_of
    from hubmodels.errors import ImageError

    found, labels = examples_of(arguments)
    wanted = arguments.label or list(labels.names[1:])
    for name in wanted:
        labels.id_of(name)
    make_folder(arguments.out)
    fates: collections.Counter[Fate] = collections.Counter()
    status = 1 if found.closed else 0
    try:
        for example in (bar := tqdm(found.examples, unit="photo", desc="cut out")):
            place = place_of(example, arguments.out)
            try:
                fate = cut_out(example, place, labels, wanted, soft=not arguments.hard, resume=arguments.resume)
            except (ImageError, OSError) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                status = 1
                bar.write(f"hubmodels: {printable(error)}", file=sys.stderr)
                continue
            fates[fate] += 1
            if fate is Fate.KEPT:
                bar.write(f"kept: {printable(place)} was not made by hubmodels; its photo is left out", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; the same call with --resume goes on", file=sys.stderr)
        status = INTERRUPTED
    except OSError as error:
        print(f"\nhubmodels: --out {arguments.out} can take no more: {error.strerror}", file=sys.stderr)
        status = 2
    if fates[Fate.DONE]:
        print(f"{fates[Fate.DONE]} were cut out already", file=sys.stderr)
    if fates[Fate.EMPTY]:
        print(f"{fates[Fate.EMPTY]} show none of {', '.join(wanted)}, and have no cut-out", file=sys.stderr)
    print(f"{fates[Fate.CUT]} of {len(found.examples)} photos cut out, in {arguments.out}")
    return status
