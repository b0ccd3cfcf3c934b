"""`hubmodels cutout`: what masks show, cut out of their photos. Heavy imports wait."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubmodels.files import make_folder
from hubmodels.mask_options import add_mask_options
from hubmodels.model_options import label_names
from hubmodels.paths import is_folder

if TYPE_CHECKING:
    from PIL import Image

    from hubmodels.labels import LabelSet
    from hubmodels.mask_search import Example

CUTOUT = "_cutout.png"  # what a cut-out is called, behind the photo's name


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
    cutout.set_defaults(handler=write_cutouts)


def write_cutouts(arguments: argparse.Namespace) -> int:
    """Cut out what `arguments` name; returns the exit status: 1 if a photo was left out because it or its mask is bad.

    Raises:
        ValueError: no such label, or cut-outs would lie among the photos, where they would be taken for some.
        OSError, HubmodelsError: as of `examples_of` and `make_folder`.
    """
    _check_place(arguments.photos, arguments.out)

    from tqdm import tqdm

    from hubmodels.errors import ImageError
    from hubmodels.export import save_image
    from hubmodels.mask_source import examples_of

    examples, labels = examples_of(arguments)
    ids = [labels.id_of(name) for name in arguments.label] or list(range(1, len(labels)))
    make_folder(arguments.out)
    done = failed = 0
    bar = tqdm(examples, unit="photo", desc="cut out")
    for example in bar:
        try:
            picture = _cut(example, labels, ids, soft=not arguments.hard)
        except (ImageError, OSError) as error:  # of reading; where nothing can be written, going on makes no sense
            failed += 1
            bar.write(f"hubmodels: {error}", file=sys.stderr)
            continue
        save_image(picture, arguments.out / _name(example))
        done += 1
    print(f"{done} of {len(examples)} photos cut out, in {arguments.out}")
    return 1 if failed else 0


def _cut(example: Example, labels: LabelSet, ids: Sequence[int], *, soft: bool) -> Image.Image:
    """The cut-out of a photo. Raises ImageError or OSError if it or its mask cannot be used."""
    import numpy as np

    from hubmodels.images import read_image
    from hubmodels.mask_source import read_mask
    from hubmodels.render import cutout

    photo = read_image(example.photo)
    shown = np.isin(read_mask(example, labels, (photo.shape[0], photo.shape[1])), ids)
    return cutout(photo, shown, soft=soft)


def _name(example: Example) -> Path:
    """Where the cut-out of a photo goes, below --out: called as its mask, in which photos of one name differ."""
    from hubmodels.result_files import MASK

    mask = example.mask.name
    return Path(example.name).parent / f"{mask.removesuffix(MASK if mask.endswith(MASK) else '.png')}{CUTOUT}"


def _check_place(sources: Sequence[str], out: Path) -> None:
    """Raise ValueError if `out` lies in a source, or is one: the next search would find cut-outs as photos."""
    real = Path(os.path.realpath(out))
    for source in sources:
        if is_folder(source) and real.is_relative_to(os.path.realpath(source)):
            raise ValueError(
                f"--out {out} lies in {source}, where cut-outs would be taken for photos: choose a folder beside it"
            )
