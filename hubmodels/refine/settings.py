"""Refinement: the settings of every stage, as one value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from inspect import cleandoc
from types import MappingProxyType
from typing import Any

import numpy as np

REFERENCE_PX = 600 * 400  # sizes in `Refinement` are those of a photo with so many pixels
SCHEMA_VERSION = 1
METHODS = ("felzenszwalb", "slic", "quickshift", "watershed")
MERGES = ("off", "cut", "hierarchical", "kmeans")
VOTES = ("probability", "majority", "classifier")
STAGES = ("crf", "decision", "superpixels", "clean-up")  # in the order in which they run


# Preset -> task -> settings that differ from off; chosen on the validation split (training/results/tune_*.json).
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "off": {"fashion": {}, "person": {}},
    "gentle": {
        "fashion": {"crf_iterations": 10, "min_region_px": 50},
        "person": {
            "crf_iterations": 2,
            "crf_appearance_weight": 1.5,
            "crf_appearance_sigma_px": 30.0,
            "crf_appearance_sigma_colour": 10.0,
            "min_region_px": 50,
        },
    },
    "strong": {
        "fashion": {
            "crf_iterations": 10,
            "superpixel_scale": 60.0,
            "keep_confident": 0.9,
            "min_region_px": 200,
        },
        "person": {
            "crf_iterations": 2,
            "crf_appearance_weight": 1.5,
            "crf_appearance_sigma_px": 30.0,
            "crf_appearance_sigma_colour": 10.0,
            "keep_largest": True,
            "fill_holes_px": 400,
            "min_region_px": 200,
        },
    },
}


@dataclass(frozen=True)
class Setting:
    """What one field of `Refinement` means and accepts.

    Attributes:
        stage: the one of STAGES that it belongs to.
        help: one line for command lines, tooltips and documentation: what it does, its unit, usual values.
        low, high: the range of a number.
        whole: only whole numbers.
        choices: the only values, instead of a range.
    """

    stage: str
    help: str
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


def _number(stage: str, default: float, low: float, high: float, help: str) -> Any:
    return field(default=default, metadata={"setting": Setting(stage, help, low, high)})


def _whole(stage: str, default: int, low: int, high: int, help: str) -> Any:
    return field(default=default, metadata={"setting": Setting(stage, help, low, high, whole=True)})


def _one_of(stage: str, default: Any, choices: tuple[Any, ...], help: str) -> Any:
    return field(default=default, metadata={"setting": Setting(stage, help, choices=choices)})


def checked_settings(settings: object) -> Refinement:
    """`settings`, once it is certain that they are some.

    Raises:
        TypeError: something else; the message says how to make settings of it.
    """
    if isinstance(settings, Refinement):
        return settings
    hints: dict[type, str] = {str: "Refinement.preset(name, task=...)", dict: "Refinement.from_dict(values)"}
    hint = f": use {hints[type(settings)]}" if type(settings) in hints else ""
    raise TypeError(f"expected a Refinement; got {type(settings).__name__}{hint}")


@dataclass(frozen=True)
class Refinement:
    """Settings of every stage, in the order in which they run; the default changes nothing.

    Sizes and reaches are those of a 600x400 photo and grow with the photo, areas with its area and lengths with the
    square root of it, so a setting tuned on a preview means the same on the original. NumPy scalars become Python's.

    Raises:
        ValueError: a value out of range or not among the choices.
        TypeError: a value that is not a number, or a setting that does not exist.

    Settings, with their range or choices and default:
    """

    # 1. Dense CRF on probabilities
    crf_iterations: int = _whole("crf", 0, 0, 20, "rounds of the dense CRF; 0 is off, 5 to 10 is usual")
    crf_appearance_weight: float = _number(
        "crf", 3.0, 0, 100, "CRF: pull of pixels of similar place and colour, nats; 1 to 10 is usual"
    )
    crf_appearance_sigma_px: float = _number("crf", 80.0, 1, 500, "CRF: reach of that pull, pixels; 30 to 100 is usual")
    crf_appearance_sigma_colour: float = _number(
        "crf",
        5.0,
        1,
        200,
        "CRF: colour difference it spans, steps of 0..255; 3 to 20 is usual, less keeps faint edges",
    )
    crf_smoothness_weight: float = _number(
        "crf", 3.0, 0, 100, "CRF: pull of near pixels whatever their colour, nats; 1 to 5 is usual"
    )
    crf_smoothness_sigma_px: float = _number("crf", 3.0, 0.5, 100, "CRF: reach of that pull, pixels; 1 to 5 is usual")
    # 2. From probabilities to labels
    person_threshold: float = _number(
        "decision", 0.5, 0, 1, "probability above which a pixel is person, 0.3 to 0.7 is usual; only with two labels"
    )
    # 3. Superpixels, merged, that vote on one label each
    superpixel_scale: float = _number(
        "superpixels", 0.0, 0, 10_000, "size of superpixels; 0 is off, 50 to 400 is usual"
    )
    superpixel_method: str = _one_of("superpixels", "felzenszwalb", METHODS, "how superpixels are cut")
    superpixel_sigma: float = _number(
        "superpixels", 0.8, 0, 20, "smoothing before superpixels are cut, pixels; 0.5 to 2 is usual"
    )
    superpixel_min_size_px: int = _whole(
        "superpixels", 20, 0, 10_000, "superpixels with fewer pixels join a neighbour; 10 to 100 is usual"
    )
    superpixel_foreground: bool = _one_of(
        "superpixels",
        False,
        (False, True),
        "cut up only what is not background, so that no superpixel crosses its outline; idle with two labels",
    )
    merge: str = _one_of(
        "superpixels",
        "off",
        MERGES,
        "join adjacent superpixels by a threshold (cut, hierarchical) or clusters (kmeans) of colour",
    )
    merge_threshold: float = _number(
        "superpixels",
        8.0,
        0,
        200,
        "colour difference below which they join, Lab units; 2 is barely seen, 5 to 20 is usual",
    )
    merge_clusters: int = _whole("superpixels", 40, 1, 1000, "clusters of colour for merge kmeans; 10 to 100 is usual")
    vote: str = _one_of(
        "superpixels", "probability", VOTES, "by summed probability, by majority of pixels, or a trained classifier"
    )
    keep_confident: float = _number(
        "superpixels", 0.0, 0, 1, "pixels of at least this probability keep their label; 0 is off, 0.8 to 0.95 is usual"
    )
    # 4. Clean-up of regions of one label
    min_region_px: int = _whole(
        "clean-up",
        0,
        0,
        REFERENCE_PX,
        "smaller regions take the label around them, pixels; 0 is off, 50 to 1000 is usual",
    )
    fill_holes_px: int = _whole(
        "clean-up",
        0,
        0,
        REFERENCE_PX,
        "smaller holes inside of a label are filled, pixels; 0 is off, 50 to 1000 is usual",
    )
    keep_largest: bool = _one_of(
        "clean-up", False, (False, True), "keep only the largest part of what is not background"
    )
    connectivity: int = _one_of("clean-up", 4, (4, 8), "neighbours over which a region holds together")

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if isinstance(value, np.generic):
                value = value.item()
                object.__setattr__(self, name, value)  # or else `to_dict` would hold what JSON does not know
            setting.check(name, value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def changes(self) -> dict[str, Any]:
        """The settings that are not at their defaults, in the order of SETTINGS."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Refinement, name)}

    def check_for(self, model: str, labels: int, *, has_region_classifier: bool) -> None:
        """Raise ValueError for settings that a model does not take, before any photo is labelled.

        Args:
            model: how the message calls it.
            labels: how many it has.
            has_region_classifier: whether superpixels can vote by it.
        """
        if self.superpixel_scale and self.vote == "classifier" and not has_region_classifier:
            raise ValueError(
                f"vote 'classifier' needs a model with a region classifier; {model} has none: choose another vote"
            )
        if labels != 2 and self.person_threshold != Refinement.person_threshold:
            raise ValueError(f"person_threshold is for two labels, but {model} has {labels}; leave it out")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Refinement:
        """The settings that `to_dict` or a file of settings has; what is not named keeps its default.

        Raises:
            TypeError: no mapping.
            ValueError: another schema version, an unknown setting, or a value out of range or of another type.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"settings must be a mapping, as to_dict() gives it; got {type(values).__name__}")
        values = dict(values)
        values.pop("task", None)  # for which files of settings say they were tuned
        version = values.pop("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(f"settings have schema version {version!r}; this release reads {SCHEMA_VERSION}")
        if unknown := set(values) - set(SETTINGS):
            raise ValueError(f"unknown settings {sorted(unknown, key=str)}; expected some of {sorted(SETTINGS)}")
        try:
            return cls(**values)
        except TypeError as error:  # a mistake in the code that calls the class, but here one in a file
            raise ValueError(str(error)) from error

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


# Field of `Refinement` -> what it means and accepts.
SETTINGS: Mapping[str, Setting] = MappingProxyType({each.name: each.metadata["setting"] for each in fields(Refinement)})


def settings_of(*stages: str) -> tuple[str, ...]:
    """The fields of `Refinement` that belong to some of STAGES, in their order; ValueError for another stage."""
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ValueError(f"expected stages of {', '.join(STAGES)}; got {unknown[0]!r}")
    return tuple(name for name, setting in SETTINGS.items() if setting.stage in stages)


def _describe(name: str, setting: Setting) -> str:
    """One line of the class's documentation."""
    accepts = ", ".join(map(str, setting.choices)) if setting.choices else f"{setting.low:g}..{setting.high:g}"
    return f"{name} ({accepts}; {getattr(Refinement, name)}): {setting.help}."


# The texts live beside the fields, for tooltips and command lines too; help(Refinement) shows them from there. Python
# takes the indentation out of docstrings from 3.13 on.
_LINES = [_describe(*item) for item in SETTINGS.items()]
Refinement.__doc__ = "\n".join([cleandoc(Refinement.__doc__ or ""), "", *_LINES])
