"""What masks say of their photos, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from hubmodels.errors import ImageError
from hubmodels.images import upright_size
from hubmodels.labels import LabelSet
from hubmodels.mask_search import Example
from hubmodels.masks import read_mask


class LabelledPhoto(NamedTuple):
    """A photo's name, and its (H, W) uint8 label ids, upright as EXIF turns it; 255 is undecided."""

    name: str
    labels: np.ndarray


def labelled(
    examples: Iterable[Example], label_set: LabelSet, *, failed: Callable[[str], None]
) -> Iterator[LabelledPhoto]:
    """Photos with what their masks say; one that cannot be used is reported and left out.

    Args:
        examples: photos and masks, as of `find_examples`.
        label_set: what the masks show.
        failed: told the reason of each photo that is left out.
    """
    for example in examples:
        try:
            labels = read_mask(example.mask, label_set, upright_size(example.photo))
        except (ImageError, OSError) as error:
            failed(str(error))  # names the file
            continue
        yield LabelledPhoto(example.name, labels)
