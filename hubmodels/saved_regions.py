"""The region classifier beside a saved model, so that `Refinement(vote="classifier")` works once it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubmodels.errors import WeightsError
from hubmodels.labels import LabelSet
from hubmodels.refine import RegionClassifier
from hubmodels.weights_files import check_digest, read_file

BYTES_MAX = 16_000_000  # room for the largest classifier that is read; ours takes 27 kB


class LoadedOnce:
    """A region classifier that is loaded when it is first asked for; unlike functools.cache it can be pickled."""

    def __init__(self, load: Callable[[], RegionClassifier]) -> None:
        self._load = load
        self._loaded: RegionClassifier | None = None

    def __call__(self) -> RegionClassifier:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded


def read_regions(path: Path | str, *, digest: str, labels: LabelSet, what: str) -> RegionClassifier:
    """The classifier in a file that was saved beside a model, in eval mode.

    Args:
        path: of the file, or why there is none.
        digest: sha256 of the file, of config.json.
        labels: the model's.
        what: how messages call the file.

    Raises:
        WeightsError: the file is missing, damaged, another one, or for other labels.
    """
    if isinstance(path, str):
        raise WeightsError(f"{path}; or choose another vote than 'classifier'")
    whole = path.resolve()
    remedy = f"restore {whole}, or delete it if the Hub has it, to have it downloaded again; or choose another vote"
    data = read_file(path, most_bytes=BYTES_MAX, what=what, remedy=remedy)
    check_digest(data, digest, what=what, remedy=remedy)
    classifier = RegionClassifier.from_bytes(data, what=what, remedy=remedy)
    check_made_for(classifier, labels, what=what)
    return classifier


def check_made_for(classifier: RegionClassifier, labels: LabelSet, *, what: str) -> None:
    """Raise WeightsError unless a classifier was made for these labels."""
    if classifier.settings.labels != labels.names:
        raise WeightsError(f"{what}: made for labels {classifier.settings.labels}, expected {labels.names}")
