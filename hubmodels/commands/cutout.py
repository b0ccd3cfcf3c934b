"""`hubmodels cutout`: what masks show, cut out of their photos. Heavy imports wait."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hubmodels.commands.mask_options import add_mask_options
from hubmodels.commands.model_options import label_names
from hubmodels.ctrl_c import INTERRUPTED
from hubmodels.files import FULL, make_folder
from hubmodels.paths import printable

if TYPE_CHECKING:
    from hubmodels.mask_search import Example

MAX_THREADS = 4  # each takes up to some 1.5 GB, for a photo as large as any that is read


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
    from hubmodels.commands.mask_source import examples_of
    from hubmodels.cutting import Fate, cut_out, place_of

    found, labels = examples_of(arguments)
    wanted = arguments.label or list(labels.names[1:])
    for name in wanted:
        labels.id_of(name)
    make_folder(arguments.out)
    fates: list[Fate] = []  # also of photos that were under way when the others were given up

    def cut(example: Example) -> str:
        place = place_of(example, arguments.out)
        fate = cut_out(example, place, labels, wanted, soft=not arguments.hard, resume=arguments.resume)
        fates.append(fate)
        kept = f"kept: {printable(place)} was not made by hubmodels; its photo is left out"
        return kept if fate is Fate.KEPT else ""

    status = _cut_all(cut, found.examples, arguments.out)
    count = collections.Counter(fates)
    if count[Fate.DONE]:
        print(f"{count[Fate.DONE]} were cut out already", file=sys.stderr)
    if count[Fate.EMPTY]:
        print(f"{count[Fate.EMPTY]} show none of {', '.join(wanted)}, and have no cut-out", file=sys.stderr)
    print(f"{count[Fate.CUT]} of {len(found.examples)} photos cut out, in {arguments.out}")
    return 1 if found.closed and status == 0 else status


def _cut_all(cut: Callable[[Example], str], examples: Sequence[Example], out: Path) -> int:
    """Call `cut` for every photo, on a few threads, and say what it returns; returns the exit status."""
    from tqdm import tqdm

    from hubmodels.errors import ImageError
    from hubmodels.in_order import in_order

    status, threads = 0, min(MAX_THREADS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads, "hubmodels-cutouts") as pool,
        contextlib.closing(in_order(pool, cut, examples, ahead=threads)) as answers,
    ):
        try:
            for example, answer in tqdm(answers, total=len(examples), unit="photo", desc="cut out"):
                try:
                    said = answer.result()
                except MemoryError:
                    place = printable(example.photo)
                    status, said = 1, f"hubmodels: {place}: needs more memory than there is; make a smaller copy"
                except (ImageError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in FULL:
                        raise
                    status, said = 1, f"hubmodels: {printable(error)}"
                if said:
                    tqdm.write(said, file=sys.stderr)
        except KeyboardInterrupt:  # said before what is under way is done
            print("\nstopped; the same call with --resume goes on", file=sys.stderr)
            status = INTERRUPTED
        except OSError as error:
            print(f"\nhubmodels: --out {out} can take no more: {error.strerror}", file=sys.stderr)
            status = 2
    return status
