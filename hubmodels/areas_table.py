"""How much of each photo its labels take, as a table that spreadsheets read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import numpy as np

from hubmodels.labelled_photos import LabelledPhoto
from hubmodels.labels import LabelSet


def areas_csv(photos: Iterable[LabelledPhoto], label_set: LabelSet) -> str:
    """A row for each photo: name, width and height in pixels, upright, and the share of each label in 0..1.

    Undecided pixels count among all, so the shares of a row sum to 1 only if there are none.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["photo", "width", "height", *label_set.names])
    for name, labels in photos:
        height, width = labels.shape
        counts = np.bincount(labels.ravel(), minlength=len(label_set))[: len(label_set)]
        table.writerow([name, width, height, *(f"{count / labels.size:.6f}" for count in counts.tolist())])
    return text.getvalue()
