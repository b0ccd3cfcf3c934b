"""The scores that results files, tables and cards tell, in their order. Without NumPy: hubconf imports it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What `hubmodels.metrics.Scores` and results files call a score -> its title in tables.
SCORES: Mapping[str, str] = MappingProxyType(
    {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "boundary_f": "boundary F"}
)
