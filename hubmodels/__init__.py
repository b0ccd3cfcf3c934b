"""Labels for every pixel of a photo of a person.

>>> import hubmodels
>>> seg = hubmodels.load("deeplabv3plus_fashion").predict("photo.jpg")
>>> seg.save("labels.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubmodels import errors as errors
    from hubmodels import refine as refine
    from hubmodels import runtime as runtime
    from hubmodels.entries import ENTRIES, Entry, list_models
    from hubmodels.errors import HubmodelsError, ImageError, ModelNotFoundError, WeightsError
    from hubmodels.hub import load_model as load
    from hubmodels.images import read_image
    from hubmodels.labels import FASHION, PERSON, LabelSet
    from hubmodels.refine import Refinement
    from hubmodels.result import Segmentation
    from hubmodels.segmenter import PhotoTuner, Segmenter

__version__ = "0.1.0"

_MODULES = ("errors", "refine", "runtime")  # read as hubmodels.refine without an import of its own

# Name -> (module, attribute there). Imported on first use, so that `import hubmodels` costs nothing.
_PUBLIC = {
    "ENTRIES": ("entries", "ENTRIES"),
    "Entry": ("entries", "Entry"),
    "list_models": ("entries", "list_models"),
    "HubmodelsError": ("errors", "HubmodelsError"),
    "ImageError": ("errors", "ImageError"),
    "ModelNotFoundError": ("errors", "ModelNotFoundError"),
    "WeightsError": ("errors", "WeightsError"),
    "load": ("hub", "load_model"),
    "read_image": ("images", "read_image"),
    "FASHION": ("labels", "FASHION"),
    "PERSON": ("labels", "PERSON"),
    "LabelSet": ("labels", "LabelSet"),
    "Refinement": ("refine", "Refinement"),
    "Segmentation": ("result", "Segmentation"),
    "PhotoTuner": ("segmenter", "PhotoTuner"),
    "Segmenter": ("segmenter", "Segmenter"),
}

__all__ = [
    "ENTRIES",
    "FASHION",
    "PERSON",
    "Entry",
    "HubmodelsError",
    "ImageError",
    "LabelSet",
    "ModelNotFoundError",
    "PhotoTuner",
    "Refinement",
    "Segmentation",
    "Segmenter",
    "WeightsError",
    "list_models",
    "load",
    "read_image",
]


if not TYPE_CHECKING:  # or else type checkers would take any name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"hubmodels.{name}")
        if name not in _PUBLIC:
            raise AttributeError(f"module 'hubmodels' has no attribute {name!r}")
        module, attribute = _PUBLIC[name]
        value = getattr(importlib.import_module(f"hubmodels.{module}"), attribute)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
