"""Cut-outs of photos as files. What somebody else made is never replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np

from hubmodels.images import read_image
from hubmodels.labels import LabelSet
from hubmodels.mask_search import Example
from hubmodels.masks import read_mask
from hubmodels.render import cutout
from hubmodels.result_files import CUTOUT, MASK, is_anothers, note_in, note_of, write_cutout


class Fate(Enum):
    """What became of a photo."""

    CUT = "cut out"
    DONE = "cut out already"
    EMPTY = "shows none of the labels"
    KEPT = "a file by somebody else stands where its cut-out would go"


def place_of(example: Example, out: Path) -> Path:
    """Where the cut-out of a photo goes: called as its mask, in which photos of one name differ."""
    mask = example.mask.name
    name = mask.removesuffix(MASK if mask.endswith(MASK) else ".png")
    return out / Path(example.name).parent / f"{name}{CUTOUT}"


def cut_out(
    example: Example, place: Path, labels: LabelSet, wanted: Sequence[str], *, soft: bool, resume: bool = False
) -> Fate:
    """Write the cut-out of a photo, or none where its mask shows nothing of it.

    Args:
        example: the photo and its mask.
        place: of `place_of`.
        labels: what the mask shows.
        wanted: names of labels to cut out.
        soft: as of `hubmodels.render.cutout`.
        resume: leave a cut-out alone that was made of the same photo and mask in the same way.

    Raises:
        ImageError, OSError: the photo or its mask cannot be used, or the file cannot be written.
    """
    if is_anothers(place):
        return Fate.KEPT
    mask_sha256 = hashlib.sha256(example.mask.read_bytes()).hexdigest()
    how = {"cut_out": sorted(wanted), "labels": labels.names, "soft": soft, "mask_sha256": mask_sha256}
    note = note_of(example.photo, how)
    if resume and note_in(place) == note:
        return Fate.DONE
    photo = read_image(example.photo)
    shown = np.isin(read_mask(example.mask, labels, (photo.shape[0], photo.shape[1])), list(map(labels.id_of, wanted)))
    if not shown.any():
        place.unlink(missing_ok=True)  # of a mask that showed something
        return Fate.EMPTY
    write_cutout(cutout(photo, shown, soft=soft), place, note=note)
    return Fate.CUT
