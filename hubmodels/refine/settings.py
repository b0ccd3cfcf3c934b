"""Refinement: the settings of every stage, as one value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

REFERENCE_PX = 600 * 400  # sizes in `Refinement` are those of a photo with so many pixels
SCHEMA_VERSION = 1
METHODS = ("felzenszwalb", "slic", "quickshift", "watershed")
MERGES = ("off", "cut", "hierarchical", "kmeans")
VOTES = ("probability", "majority", "classifier")


# Preset -> task -> settings that differ from off; chosen on the validation split (training/results/tune_*.json).
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "off": {"fashion": {}, "person": {}},
}


@dataclass(frozen=True)
class Setting:
    """What one field of `Refinement` accepts: numbers from `low` to `high`, only whole ones, or one of `choices`."""

    low: float = 0
    high: float = 0
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def check(self, name: str, value: object) -> None:
        """Raise TypeError or ValueError, saying what was expected, unless `value` is accepted."""
        if self.choices:
            if isinstance(value, bool) != isinstance(self.choices[0], bool) or value not in self.choices:
                raise ValueError(f"{name} must be one of {list(self.choices)}; got {value!r}")
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number; got {type(value).__name__}")
        if not self.low <= value <= self.high:  # NaN fails as well
            raise ValueError(f"{name} must be in {self.low:g}..{self.high:g}; got {value}")
        if self.whole and value != math.floor(value):
            raise ValueError(f"{name} must be a whole number; got {value}")


def _number(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"accepts": Setting(low, high)})


def _whole(default: int, low: int, high: int) -> Any:
    return field(default=default, metadata={"accepts": Setting(low, high, whole=True)})


def _one_of(default: Any, *choices: Any) -> Any:
    return field(default=default, metadata={"accepts": Setting(choices=choices)})


@dataclass(frozen=True)
class Refinement:
    """Settings of every stage, in the order in which they run; the default changes nothing.

    1. Dense CRF (`DenseCRF`), on probabilities. Off at 0 iterations.
        crf_iterations: mean-field iterations, 0..20; 5 is usual.
        crf_appearance_weight: strength of the kernel between pixels of similar place and colour, in nats.
        crf_appearance_sigma_px: its reach in pixels.
        crf_appearance_sigma_colour: its reach in steps of 0..255 sRGB; small values follow faint edges.
        crf_smoothness_weight: strength of the kernel between near pixels, in nats.
        crf_smoothness_sigma_px: its reach in pixels.
    2. Decision.
        person_threshold: with two labels, the probability above which a pixel is `person`; 0.5 is the argmax.
    3. Superpixels that vote on one label each (`superpixels`, `merge_regions`, `vote`). Off at scale 0.
        superpixel_scale: size; 50 to 400 is usual.
        superpixel_method: felzenszwalb, slic, quickshift or watershed.
        superpixel_sigma: smoothing before, in pixels.
        superpixel_min_size_px: smaller ones join a neighbour.
        superpixel_foreground: cut up only what is not background, so that superpixels never cross its outline.
        merge: off; cut or hierarchical joins adjacent superpixels nearer than `merge_threshold`; kmeans joins
            adjacent ones of the same of `merge_clusters` clusters of colour.
        merge_threshold: colour difference in Lab units (Delta E 1976); 2 is barely seen, 5 to 20 is usual.
        merge_clusters: number of clusters.
        vote: by summed probability, by majority of pixels, or by the trained region classifier of the model.
        keep_confident: pixels whose highest probability is at least this keep their label; 0 is off: all may change.
    4. Clean-up of regions of one label (`clean_regions`).
        min_region_px: regions with fewer pixels take the label around them; 0 is off, 50 to 1000 is usual.
        fill_holes_px: regions with fewer pixels that lie inside of one other label are filled with it; 0 is off.
        keep_largest: with two labels, only the largest region of `person` stays.
        connectivity: whether regions hold together over 4 or 8 neighbours.

    Sizes and reaches are those of a 600x400 photo and grow with the photo, areas with its area and lengths with the
    square root of it, so a setting tuned on a preview means the same on the original.

    Raises:
        ValueError: a value out of range or not among the choices.
        TypeError: a value that is not a number, or a setting that does not exist.
    """

    crf_iterations: int = _whole(0, 0, 20)
    crf_appearance_weight: float = _number(10.0, 0, 100)
    crf_appearance_sigma_px: float = _number(80.0, 1, 500)
    crf_appearance_sigma_colour: float = _number(13.0, 1, 200)
    crf_smoothness_weight: float = _number(3.0, 0, 100)
    crf_smoothness_sigma_px: float = _number(3.0, 0.5, 100)
    person_threshold: float = _number(0.5, 0, 1)
    superpixel_scale: float = _number(0.0, 0, 10_000)
    superpixel_method: str = _one_of("felzenszwalb", *METHODS)
    superpixel_sigma: float = _number(0.8, 0, 20)
    superpixel_min_size_px: int = _whole(20, 0, 10_000)
    superpixel_foreground: bool = _one_of(False, False, True)
    merge: str = _one_of("off", *MERGES)
    merge_threshold: float = _number(8.0, 0, 200)
    merge_clusters: int = _whole(40, 1, 1000)
    vote: str = _one_of("probability", *VOTES)
    keep_confident: float = _number(0.0, 0, 1)
    min_region_px: int = _whole(0, 0, REFERENCE_PX)
    fill_holes_px: int = _whole(0, 0, REFERENCE_PX)
    keep_largest: bool = _one_of(False, False, True)
    connectivity: int = _one_of(4, 4, 8)

    def __post_init__(self) -> None:
        for name, accepts in SETTINGS.items():
            accepts.check(name, getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Refinement:
        """The settings that `to_dict` wrote; what is not named keeps its default.

        Raises:
            ValueError: another schema version, an unknown setting, or a value out of range.
        """
        values = dict(values)
        version = values.pop("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"settings have schema version {version}; this release reads {SCHEMA_VERSION}")
        if unknown := set(values) - set(SETTINGS):
            raise ValueError(f"unknown settings {sorted(unknown)}; expected some of {sorted(SETTINGS)}")
        return cls(**values)

    @classmethod
    def preset(cls, name: str, *, task: str) -> Refinement:
        """Settings chosen on the validation split for a task: `off`, `gentle` or `strong`.

        Raises:
            ValueError: an unknown preset or task; the message lists the choices.
        """
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; expected one of {list(PRESETS)}")
        if task not in PRESETS[name]:
            raise ValueError(f"no preset for task {task!r}; expected one of {list(PRESETS[name])}")
        return cls(**PRESETS[name][task])


# Field of `Refinement` -> what it accepts.
SETTINGS: Mapping[str, Setting] = MappingProxyType({each.name: each.metadata["accepts"] for each in fields(Refinement)})
