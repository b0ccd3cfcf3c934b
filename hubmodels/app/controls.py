"""One row per control of post-processing; texts, ranges and defaults come from `Refinement` itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hubmodels.labels import LabelSet
from hubmodels.refine import SETTINGS, Refinement


@dataclass(frozen=True)
class Control:
    """A slider, menu or checkbox for the field `name` of `Refinement`.

    Attributes:
        name: the field.
        label: what visitors read.
        section: where it stands on the page: a key of SECTIONS.
        maximum: end of the slider, where the library takes values beyond what is useful.
        step: distance of two values.
    """

    name: str
    label: str
    section: str
    maximum: float = 0
    step: float = 1

    @property
    def info(self) -> str:
        """What it does, its unit and usual values, as a sentence."""
        text = SETTINGS[self.name].help.removeprefix("CRF: ")
        return f"{text[0].upper()}{text[1:]}."

    @property
    def default(self) -> Any:
        """What the library does unless told otherwise."""
        return getattr(Refinement(), self.name)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a menu; empty for a slider."""
        return SETTINGS[self.name].choices

    @property
    def minimum(self) -> float:
        """Start of the slider."""
        return SETTINGS[self.name].low

    @property
    def whole(self) -> bool:
        """Whether only whole numbers make sense."""
        return SETTINGS[self.name].whole

    def clamp(self, value: Any) -> Any:
        """`value`, perhaps a text, brought to what the control can show; its default if there is no sense in it.

        The number box beside a slider shows values between its steps too.
        """
        if self.choices:
            found = [choice for choice in self.choices if str(choice).lower() == str(value).lower()]
            return found[0] if found else self.default
        try:
            number = float(value)
        except (TypeError, ValueError):
            return self.default
        if not math.isfinite(number):
            return self.default
        number = min(max(number, self.minimum), self.maximum)
        return round(number) if self.whole else round(number, 6)


SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "main": "Post-processing",
        "crf": "CRF: strengths and widths",
        "superpixels": "Superpixels: method, merge and vote",
        "cleaning": "Clean-up: more",
    }
)

CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        control.name: control
        for control in (
            Control("crf_iterations", "CRF iterations", "main", 20),
            Control("superpixel_scale", "Superpixel scale", "main", 400, 10),
            Control("min_region_px", "Smallest region, pixels", "main", 1000, 10),
            Control("fill_holes_px", "Fill holes up to, pixels", "main", 1000, 10),
            Control("person_threshold", "Person threshold", "main", 1, 0.01),
            Control("crf_appearance_weight", "Strength by place and colour", "crf", 20, 0.5),
            Control("crf_appearance_sigma_px", "Reach, pixels", "crf", 200, 1),
            Control("crf_appearance_sigma_colour", "Colour span, steps of 0..255", "crf", 60, 1),
            Control("crf_smoothness_weight", "Strength by place alone", "crf", 20, 0.5),
            Control("crf_smoothness_sigma_px", "Reach of that, pixels", "crf", 20, 0.5),
            Control("superpixel_method", "Method", "superpixels"),
            Control("superpixel_sigma", "Smoothing before, pixels", "superpixels", 5, 0.1),
            Control("superpixel_min_size_px", "Smallest superpixel, pixels", "superpixels", 500, 5),
            Control("superpixel_foreground", "Only inside of the person", "superpixels"),
            Control("merge", "Merge", "superpixels"),
            Control("merge_threshold", "Merge below this colour difference, Lab", "superpixels", 50, 0.5),
            Control("merge_clusters", "Clusters for merge kmeans", "superpixels", 200, 1),
            Control("vote", "Vote", "superpixels"),
            Control("keep_confident", "Keep pixels surer than", "superpixels", 1, 0.01),
            Control("keep_largest", "Keep only the largest part", "cleaning"),
            Control("connectivity", "Neighbours that hold a region together", "cleaning"),
        )
    }
)


def absent_from(value: Any, labels: LabelSet) -> tuple[str, ...]:
    """Labels of a model that a photo does not show, from checked boxes or the text of a link.

    What makes no sense is ignored, and so are all labels at once: nothing would be left to look for.
    """
    named = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()
    found = tuple(name for name in labels.names[1:] if name in named)
    return found if len(found) < len(labels) - 1 else ()


def settings_from(values: Mapping[str, Any]) -> Refinement:
    """Settings of the page, from values of its controls; those out of range are clamped, others ignored."""
    return Refinement(**{name: control.clamp(values[name]) for name, control in CONTROLS.items() if name in values})
