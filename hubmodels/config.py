"""config.json: all that is needed to build a Segmenter before its weights are read. Untrusted, so checked in full."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from hubmodels.entries import Entry
from hubmodels.errors import WeightsError
from hubmodels.labels import LabelSet, colour_of_hex, hex_colour
from hubmodels.networks import build_network
from hubmodels.networks.backbones import BACKBONES
from hubmodels.networks.deeplab import CHANNELS, LOW_STRIDE, OUTPUT_STRIDE

FORMAT_VERSION = 1
CONFIG_BYTES_MAX = 200_000  # 256 labels with long names need a tenth
NAME_LENGTH_MAX = 100
INPUT_PX = range(32, 4097)
_COLOUR = re.compile(r"#[0-9a-f]{6}")

# What each option may be. Widths are bounded so that a made-up file cannot ask for more than about 300 MB of weights.
OPTIONS: Mapping[str, tuple[Any, ...] | range] = MappingProxyType(
    {
        "backbone": tuple(BACKBONES),
        "output_stride": (8, 16, 32),
        "channels": range(1, 1025),
        "decoder_channels": range(1, 1025),
        "low_channels": range(1, 513),
        "separable": (False, True),
        "dense_upsampling": (False, True),
    }
)
ARCH_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "deeplabv3": ("backbone", "output_stride", "channels", "separable", "dense_upsampling"),
        "deeplabv3plus": (
            "backbone",
            "output_stride",
            "channels",
            "decoder_channels",
            "low_channels",
            "dense_upsampling",
        ),
        "ensemble": ("members",),
        "u2net": (),
        "u2net_small": (),
    }
)
DENSE_WEIGHTS_MAX = 40_000_000  # of dense upsampling, for the same bound; room for 256 labels in all that is published
MEMBERS = range(2, 5)  # of an ensemble; each may be as large as any other network
# Files of a saved model. The Hub knows weights by this name, in repositories of others too.
WEIGHTS, CONFIG = "model.safetensors", "config.json"
REGIONS = "region_classifier.safetensors"  # beside the weights, if the model has a region classifier
KEYS = frozenset(
    ("format_version", "library_name", "name", "arch", "network", "task", "id2label", "label2id", "palette", "input_px",
     "weights_sha256")
)  # fmt: skip
OPTIONAL_KEYS = frozenset(("region_classifier",))


@dataclass(frozen=True)
class ModelConfig:
    """What a saved model is.

    Attributes:
        name: what messages and pages call it.
        arch: a key of `hubmodels.networks.ARCHITECTURES`.
        network: keyword arguments of the architecture.
        labels: the labels it answers with.
        input_px: photos go through the network with this long side, in pixels.

    Raises:
        ValueError: says which value was expected and which was given.
    """

    name: str
    arch: str
    network: Mapping[str, Any]
    labels: LabelSet
    input_px: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", _plain(self.network))
        _check_name("name", self.name)
        _check_name("task", self.labels.task)
        _check_network(self.arch, self.network)
        for member in self.network.get("members", [{"arch": self.arch, **self.network}]):
            _check_dense_upsampling(member, len(self.labels))
        for label in self.labels.names:
            _check_name("a label", label)
        if type(self.input_px) is not int or self.input_px not in INPUT_PX:
            raise ValueError(f"input_px must be in {_text(INPUT_PX)}; got {self.input_px!r:.100}")

    def build(self, *, num_classes: int | None = None) -> nn.Module:
        """The network as initialised, without weights; `num_classes` other than the number of labels if given."""
        return build_network(self.arch, num_classes=num_classes or len(self.labels), **self.network)

    def meta_state_dict(self) -> dict[str, torch.Tensor]:
        """The state dict of the network without memory for its values: names, shapes and dtypes."""
        with torch.device("meta"):
            return self.build().state_dict()

    def to_json(self, *, weights_sha256: str, regions_sha256: str | None = None) -> str:
        """The text of config.json; label keys are those of transformers.

        Args:
            weights_sha256: digest of the model.safetensors beside it.
            regions_sha256: digest of the region classifier beside it, the file `REGIONS`; None if there is none.
        """
        values: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "library_name": "hubmodels",
            "name": self.name,
            "arch": self.arch,
            "network": _plain(self.network),
            "task": self.labels.task,
            "id2label": self.labels.id2label,
            "label2id": self.labels.label2id,
            "palette": list(map(hex_colour, self.labels.palette)),
            "input_px": self.input_px,
            "weights_sha256": weights_sha256,
        }
        if regions_sha256 is not None:
            values["region_classifier"] = {"file": REGIONS, "sha256": regions_sha256}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def config_of(entry: Entry) -> ModelConfig:
    """What a published network is; its `build` makes the network without weights."""
    return ModelConfig(entry.name, entry.arch, entry.network, entry.labels, entry.input_px)


def parse_config(data: bytes, *, what: str) -> tuple[ModelConfig, str, str | None]:
    """The model that a config.json describes, the digest of its weights, and that of its region classifier or None.

    Args:
        data: the file.
        what: how messages call it.

    Raises:
        WeightsError: says which value was expected and which was found.
    """
    remedy = "save the model again with save_pretrained of this release"
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{what}: config.json is not JSON ({error!s:.200}); {remedy}") from error
    try:
        if not isinstance(values, dict):
            raise ValueError(f"expected an object; got {type(values).__name__}")
        if (version := values.get("format_version")) != FORMAT_VERSION:
            raise ValueError(f"format_version is {version!r:.100}, this release reads {FORMAT_VERSION}")
        missing, unknown = sorted(KEYS - set(values)), sorted(set(values) - KEYS - OPTIONAL_KEYS)[:3]
        if missing or unknown:
            raise ValueError(f"missing keys {missing}, unknown keys {unknown!r:.200}")
        digest = _digest("weights_sha256", values["weights_sha256"])
        regions = _regions(values["region_classifier"]) if "region_classifier" in values else None
        if not isinstance(values["network"], dict):
            raise ValueError(f"network must be an object; got {type(values['network']).__name__}")
        config = ModelConfig(
            name=values["name"],
            arch=_string("arch", values["arch"]),
            network=values["network"],
            labels=_labels(values),
            input_px=values["input_px"],
        )
    except ValueError as error:
        raise WeightsError(f"{what}: config.json: {error}; {remedy}") from error
    return config, digest, regions


def _plain(network: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them: the members of an ensemble are mappings too."""
    members = network.get("members")
    if not isinstance(members, (list, tuple)):
        return dict(network)
    return {**network, "members": [dict(each) if isinstance(each, Mapping) else each for each in members]}


def _check_network(arch: str, network: Mapping[str, Any]) -> None:
    """Raise ValueError unless an architecture has these options and values."""
    if arch not in ARCH_OPTIONS:
        raise ValueError(f"arch must be one of {', '.join(ARCH_OPTIONS)}; got {arch!r:.100}")
    if unknown := sorted(set(network) - set(ARCH_OPTIONS[arch]))[:3]:
        raise ValueError(f"{arch} has no options {unknown!r:.200}; it has {list(ARCH_OPTIONS[arch])}")
    if arch == "ensemble":
        return _check_members(network.get("members"))
    for key, value in network.items():
        allowed = OPTIONS[key]
        # True equals 1 in Python, yet is no number of channels.
        if type(value) is not type(allowed[0]) or value not in allowed:
            raise ValueError(f"{key} must be in {_text(allowed)}; got {value!r:.100}")


def _check_members(members: Any) -> None:
    if not isinstance(members, list) or len(members) not in MEMBERS:
        raise ValueError(f"members must be a list of {_text(MEMBERS)} networks; got {members!r:.100}")
    for member in members:
        if not isinstance(member, dict):
            raise ValueError(f"a member must be an object with its arch and options; got {member!r:.100}")
        options = dict(member)
        arch = _string("arch of a member", options.pop("arch", None))
        if arch == "ensemble":
            raise ValueError("a member of an ensemble must be a single network; got an ensemble")
        _check_network(arch, options)


def _check_dense_upsampling(network: Mapping[str, Any], labels: int) -> None:
    """Raise ValueError if a network, checked already, would give too many weights to its last convolution."""
    if not network.get("dense_upsampling"):
        return
    if network["arch"] == "deeplabv3plus":
        stride, inputs = LOW_STRIDE, network.get("decoder_channels", CHANNELS)
    else:
        stride, inputs = network.get("output_stride", OUTPUT_STRIDE), network.get("channels", CHANNELS)
    most = DENSE_WEIGHTS_MAX // (9 * inputs * stride**2)  # a 3x3 convolution to stride x stride channels for each label
    if labels > most:
        raise ValueError(
            f"dense_upsampling from {inputs} channels at stride {stride} is for up to {most} labels; got {labels}: "
            "leave it off, or take fewer channels or a smaller stride"
        )


def _digest(key: str, value: Any) -> str:
    if not (isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")):
        raise ValueError(f"{key} must be 64 hexadecimal digits; got {value!r:.100}")
    return value


def _regions(value: Any) -> str:
    if not isinstance(value, dict) or set(value) != {"file", "sha256"} or value["file"] != REGIONS:
        raise ValueError(f'region_classifier must be {{"file": "{REGIONS}", "sha256": ...}}; got {value!r:.200}')
    return _digest("region_classifier: sha256", value["sha256"])


def _labels(values: Mapping[str, Any]) -> LabelSet:
    names, ids, palette = values["id2label"], values["label2id"], values["palette"]
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise ValueError('id2label must map "0", "1", ... to names')
    ordered = tuple(_string("a label", names[str(index)]) for index in range(len(names)))
    if ids != {name: index for index, name in enumerate(ordered)}:
        raise ValueError("label2id must be the inverse of id2label")
    if not isinstance(palette, list) or not all(isinstance(c, str) and _COLOUR.fullmatch(c) for c in palette):
        raise ValueError('palette must be a list of colours like "#e69f00"')
    colours = tuple(map(colour_of_hex, palette))
    return LabelSet(task=_string("task", values["task"]), names=ordered, palette=colours)


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text; got {value!r:.100}")
    return value


def _check_name(key: str, value: Any) -> None:
    """Names appear on pages, in terminals and in file names of others: one line of printable text."""
    text = _string(key, value)
    if not 1 <= len(text) <= NAME_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"{key} must be 1 to {NAME_LENGTH_MAX} printable characters; got {text!r:.100}")


def _text(allowed: tuple[Any, ...] | range) -> str:
    return f"{allowed[0]}..{allowed[-1]}" if isinstance(allowed, range) else repr(list(allowed))
