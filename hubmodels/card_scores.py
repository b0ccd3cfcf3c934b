"""Scores of one's own model for its card: as `python -m training.evaluate` writes them, or measured elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hubmodels.files import read_json
from hubmodels.labels import LabelSet
from hubmodels.score_names import SCORES

DATA_LENGTH_MAX = 200


def read_scores(source: Mapping[str, Any] | str | Path, labels: LabelSet) -> dict[str, Any]:
    """Scores, checked.

    Args:
        source: a mapping, or a JSON file that holds one: `data`, what was labelled, such as "my_photos val split"; one
            or more of `miou`, `pixel_accuracy`, `boundary_f`, each in 0..1, and `iou`, of labels by name; and perhaps
            `images`, the number of photos, and `boundary_px`. Other keys are left out.
        labels: the model's.

    Returns:
        Those keys alone; labels without a score (NaN, as they did not occur) are left out of `iou`.

    Raises:
        ValueError: a score out of range or of an unknown label, no score at all, or nothing said of the photos.
        OSError: the file cannot be read.
    """
    where, values = ("metrics", source) if isinstance(source, Mapping) else (str(source), _read_scores(Path(source)))
    scores: dict[str, Any] = {key: _share(f"{where}: {key}", values[key]) for key in SCORES if key in values}
    iou = values.get("iou", {})
    if not isinstance(iou, Mapping) or not set(iou) <= set(labels.names):
        raise ValueError(f"{where}: iou must be of labels among {', '.join(labels.names)}; got {list(iou)!r:.200}")
    measured = {name: iou[name] for name in labels.names if name in iou and iou[name] == iou[name]}  # NaN is not
    scores["iou"] = {name: _share(f"{where}: iou of {name}", value) for name, value in measured.items()}
    if not scores["iou"] and len(scores) == 1:
        raise ValueError(f"{where}: expected one or more of {', '.join(SCORES)}, iou; got {list(values)!r:.200}")
    for key in ("images", "boundary_px"):
        if key in values:
            count = _plain(values[key])
            if type(count) is not int or count < 1:
                raise ValueError(f"{where}: {key} must be a whole number above 0; got {count!r:.100}")
            scores[key] = count
    data = values.get("data")
    if not isinstance(data, str) or not 1 <= len(data) <= DATA_LENGTH_MAX or not data.isprintable():
        raise ValueError(
            f'{where}: its key data must say in a line what the scores are of, such as "my 40 test photos"; '
            f"got {data!r:.100}"
        )
    return {**scores, "data": data}


def _read_scores(path: Path) -> Mapping[str, Any]:
    values = read_json(path, what="scores")
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object of scores; got {type(values).__name__}")
    return values


def _plain(value: Any) -> Any:
    """A number of Python's own for one of NumPy's; others as they are."""
    return value.item() if isinstance(value, np.generic) else value


def _share(what: str, value: Any) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{what} must be in 0..1 (of percentages, the hundredth); got {value!r:.100}")
    return float(value)
