"""Post-processing in one fixed order: dense CRF, superpixel vote, region clean-up. A stage at 0 is the identity."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hubmodels.refine.merge import RegionGraph, merge_regions
from hubmodels.refine.regions import clean_regions
from hubmodels.refine.settings import PRESETS, REFERENCE_PX, SETTINGS, Refinement, settings_of
from hubmodels.refine.superpixels import PreparedSuperpixels, superpixels
from hubmodels.refine.vote import decide, vote

if TYPE_CHECKING:
    from hubmodels.refine.crf import DenseCRF, log_probabilities
    from hubmodels.refine.lattice import PermutohedralLattice
    from hubmodels.refine.prepared_crf import PreparedCRF
    from hubmodels.refine.region_classifier import RegionClassifier, load_region_classifier
    from hubmodels.refine.tuner import Tuner, refine

# Name -> module. What needs PyTorch is imported on first use, so that settings alone cost nothing.
_HEAVY = {
    "DenseCRF": "crf",
    "PreparedCRF": "prepared_crf",
    "log_probabilities": "crf",
    "PermutohedralLattice": "lattice",
    "RegionClassifier": "region_classifier",
    "load_region_classifier": "region_classifier",
    "Tuner": "tuner",
    "refine": "tuner",
}

__all__ = [
    "PRESETS",
    "REFERENCE_PX",
    "SETTINGS",
    "DenseCRF",
    "PermutohedralLattice",
    "PreparedCRF",
    "PreparedSuperpixels",
    "Refinement",
    "RegionClassifier",
    "RegionGraph",
    "Tuner",
    "clean_regions",
    "decide",
    "load_region_classifier",
    "log_probabilities",
    "merge_regions",
    "refine",
    "settings_of",
    "superpixels",
    "vote",
]


if not TYPE_CHECKING:  # or else type checkers would take any name

    def __getattr__(name: str) -> Any:
        if name not in _HEAVY:
            raise AttributeError(f"module 'hubmodels.refine' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"hubmodels.refine.{_HEAVY[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
