"""Refinement: the settings of every stage, as one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

REFERENCE_PX = 600 * 400  # sizes in `Refinement` are those of a photo with so many pixels
SCHEMA_VERSION = 1

# Setting -> largest value. All start at 0, which is off.
LIMITS = {"crf_iterations": 20, "superpixel_scale": 10_000, "min_region_px": REFERENCE_PX}
WHOLE_NUMBERS = ("crf_iterations", "min_region_px")


@dataclass(frozen=True)
class Refinement:
    """Settings of every stage; the default changes nothing.

    Attributes:
        crf_iterations: mean-field iterations of the dense CRF, 0..20; 0 is off, 5 is usual.
        superpixel_scale: size of superpixels that vote on one label each; 0 is off, 50 to 400 is usual.
        min_region_px: regions with fewer pixels take the label around them; 0 is off, 50 to 1000 is usual.

    Sizes are those of a 600x400 photo and grow with the photo's area, so a setting means the same at any resolution.

    Raises:
        ValueError: a value out of range.
        TypeError: a value that is not a number, or a setting that does not exist.
    """

    crf_iterations: int = 0
    superpixel_scale: float = 0.0
    min_region_px: int = 0

    def __post_init__(self) -> None:
        for name, top in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number; got {type(value).__name__}")
            if not 0 <= value <= top:
                raise ValueError(f"{name} must be in 0..{top}; got {value}")
            if name in WHOLE_NUMBERS and value != int(value):
                raise ValueError(f"{name} must be a whole number; got {value}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Refinement:
        """The settings that `to_dict` wrote.

        Raises:
            ValueError: another schema version, an unknown setting, or a value out of range.
        """
        values = dict(values)
        version = values.pop("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"settings have schema version {version}; this release reads {SCHEMA_VERSION}")
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown settings {sorted(unknown)}; expected some of {sorted(known)}")
        return cls(**values)
