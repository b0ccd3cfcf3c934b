"""ENTRIES: one frozen row of facts per published model.

What a person decides (architecture, labels, licence, recipe) is written here. What a command measures (digest, size,
parameters, scores) is read from weights/manifest.json, which `python -m training.export` and
`python -m training.evaluate` write; nobody types a score.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from types import MappingProxyType
from typing import Any

from hubmodels.errors import ModelNotFoundError
from hubmodels.labels import FASHION, PERSON, TASKS, LabelSet
from hubmodels.paths import is_folder

LICENSE = "Apache-2.0"
REGION_CLASSIFIER = "region_classifier"  # the `arch` of rows that are no network
RESEARCH_DATA = "trained on Fashionista and Clothing Co-Parsing photos, which are research data"
FASHIONISTA_DATA = "trained on Fashionista photos, which are research data"
U2NET_START = "started from the U-2-Net authors' Apache-2.0 weights (DUTS photos)"
U2NET_DATA = f"{U2NET_START}; {FASHIONISTA_DATA}"
U2NET_CCP_DATA = f"{U2NET_START}; {RESEARCH_DATA}"


def _read_manifest() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files("hubmodels.weights").joinpath("manifest.json").read_text(encoding="utf-8")
    return MappingProxyType(json.loads(text))


_MANIFEST = _read_manifest()


@dataclass(frozen=True)
class Entry:
    """A published model.

    Attributes:
        name: what `hubmodels.load` and torch.hub call it.
        title: one line for tables and menus.
        arch: a key of `hubmodels.networks.ARCHITECTURES`.
        labels: the labels it answers with.
        network: keyword arguments of the architecture.
        input_px: photos go through the network with this long side, in pixels.
        recipe: the command that makes the weights, the last one where a training has stages.
        regions: the entry of the region classifier that was trained on its answers, for `vote="classifier"`.
        large: the weights are in weights/large, which is part of a clone but neither of the wheel nor of the archive
            that torch.hub downloads; without them they come from `hub_repo`.
        hub_repo: "user/name" of the repository on the Hugging Face Hub with the same weights; "" is none.
        paper: where the architecture comes from.
        license: licence of the weights.
        data: what it was trained on.
    """

    name: str
    title: str
    arch: str
    labels: LabelSet
    network: Mapping[str, Any] = field(hash=False)
    input_px: int
    recipe: str
    paper: str
    license: str = LICENSE
    data: str = RESEARCH_DATA
    regions: str | None = None
    large: bool = False
    hub_repo: str = ""
    measured: Mapping[str, Any] = field(init=False, repr=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", MappingProxyType(dict(self.network)))
        object.__setattr__(self, "measured", MappingProxyType(dict(_MANIFEST.get(self.name, {}))))

    def __reduce__(self) -> tuple[functools.partial[Entry], tuple[()]]:
        """Copies and pickles are made anew: mappings that cannot be written to allow neither."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return functools.partial(type(self), **{**given, "network": dict(self.network)}), ()

    @property
    def task(self) -> str:
        """Name of the task, `person` or `fashion`."""
        return self.labels.task

    @property
    def is_network(self) -> bool:
        """Whether it labels photos; a region classifier only decides on superpixels of a network's answer."""
        return self.arch != REGION_CLASSIFIER

    @property
    def is_trained(self) -> bool:
        """Whether there are weights of ours; without, a row is an architecture with a backbone and a recipe."""
        return "sha256" in self.measured

    @property
    def filename(self) -> str:
        """File name of the weights."""
        return f"{self.name}.safetensors"

    @property
    def weights_file(self) -> str:
        """Where the weights lie below hubmodels/weights in a clone."""
        return f"large/{self.filename}" if self.large else self.filename

    @property
    def sha256(self) -> str:
        """Digest of the weights file, 64 hexadecimal digits."""
        return str(self.measured["sha256"])

    @property
    def size_bytes(self) -> int:
        """Size of the weights file."""
        return int(self.measured["size_bytes"])

    @property
    def parameters(self) -> int:
        """Number of learned values."""
        return int(self.measured["parameters"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Scores on the public test split, as in training/results/NAME.json; empty before they are measured."""
        return MappingProxyType(dict(self.measured.get("metrics", {})))


def by_name(*entries: Entry) -> Mapping[str, Entry]:
    """Entries by name, in alphabetical order; a repeated name is refused."""
    table = {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}
    if len(table) != len(entries):
        raise ValueError("two entries have the same name")
    return MappingProxyType(table)


_LITE0 = MappingProxyType({"backbone": "tf_efficientnet_lite0", "channels": 128, "decoder_channels": 128})
_LITE2 = MappingProxyType({"backbone": "tf_efficientnet_lite2", "channels": 256, "decoder_channels": 128})
_BOTH = MappingProxyType({"members": tuple({"arch": "deeplabv3plus", **each} for each in (_LITE0, _LITE2))})
_V3_LITE0 = MappingProxyType({"backbone": "tf_efficientnet_lite0", "channels": 128, "output_stride": 8})
_RESNET101 = MappingProxyType({"backbone": "resnet101", "channels": 256})
_U2NET_PAPER = "Qin et al. 2020, U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection"
_V3_PAPER = "Chen et al. 2017, Rethinking Atrous Convolution for Semantic Image Segmentation"
_V3PLUS_PAPER = "Chen et al. 2018, Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation"

ENTRIES: Mapping[str, Entry] = by_name(
    Entry(
        name="deeplabv3plus_fashion",
        title="DeepLabv3+ on EfficientNet-Lite0, seven clothing labels",
        arch="deeplabv3plus",
        labels=FASHION,
        network=_LITE0,
        input_px=544,
        recipe="python -m training.train training/recipes/deeplabv3plus_last.toml",
        paper=_V3PLUS_PAPER,
        regions="regions_fashion",
    ),
    Entry(
        name="deeplabv3plus_person",
        title="DeepLabv3+ on EfficientNet-Lite0, person and background",
        arch="deeplabv3plus",
        labels=PERSON,
        network=_LITE0,
        input_px=576,
        recipe="python -m training.train training/recipes/deeplabv3plus_person_more.toml",
        paper=_V3PLUS_PAPER,
    ),
    Entry(
        name="deeplabv3plus_lite2_fashion",
        title="DeepLabv3+ on EfficientNet-Lite2, seven clothing labels",
        arch="deeplabv3plus",
        labels=FASHION,
        network=_LITE2,
        input_px=576,
        recipe="python -m training.train training/recipes/deeplabv3plus_lite2_last.toml",
        paper=_V3PLUS_PAPER,
        large=True,
    ),
    Entry(
        name="deeplabv3plus_lite2_person",
        title="DeepLabv3+ on EfficientNet-Lite2, person and background",
        arch="deeplabv3plus",
        labels=PERSON,
        network=_LITE2,
        input_px=576,
        recipe="python -m training.train training/recipes/deeplabv3plus_lite2_person_more.toml",
        paper=_V3PLUS_PAPER,
        large=True,
    ),
    Entry(
        name="deeplabv3_fashion",
        title="DeepLabv3 on EfficientNet-Lite0, seven clothing labels",
        arch="deeplabv3",
        labels=FASHION,
        network=_V3_LITE0,
        input_px=576,
        recipe="python -m training.train training/recipes/deeplabv3_last.toml",
        paper=_V3_PAPER,
    ),
    Entry(
        name="deeplabv3_person",
        title="DeepLabv3 on EfficientNet-Lite0 with dense upsampling, person and background",
        arch="deeplabv3",
        labels=PERSON,
        network=MappingProxyType({**_V3_LITE0, "dense_upsampling": True}),
        input_px=576,
        recipe="python -m training.train training/recipes/deeplabv3_person_end.toml",
        paper=_V3_PAPER,
    ),
    Entry(
        name="deeplabv3_resnet101",
        title="DeepLabv3 on ResNet-101 as published, ImageNet backbone, head not trained",
        arch="deeplabv3",
        labels=FASHION,
        network=MappingProxyType({**_RESNET101, "output_stride": 8, "separable": False}),
        input_px=600,
        recipe="python -m training.train training/recipes/deeplabv3_resnet101.toml",
        paper=_V3_PAPER,
        data="its backbone on ImageNet by timm's authors, whose terms apply to it",
    ),
    Entry(
        name="deeplabv3plus_resnet101",
        title="DeepLabv3+ on ResNet-101, ImageNet backbone, head not trained",
        arch="deeplabv3plus",
        labels=FASHION,
        network=MappingProxyType({**_RESNET101, "decoder_channels": 256}),
        input_px=600,
        recipe="python -m training.train training/recipes/deeplabv3plus_resnet101.toml",
        paper=_V3PLUS_PAPER,
        data="its backbone on ImageNet by timm's authors, whose terms apply to it",
    ),
    Entry(
        name="ensemble_fashion",
        title="DeepLabv3+ on EfficientNet-Lite0 and on EfficientNet-Lite2 together, seven clothing labels",
        arch="ensemble",
        labels=FASHION,
        network=_BOTH,
        input_px=576,
        recipe="python -m training.ensemble ensemble_fashion deeplabv3plus_fashion deeplabv3plus_lite2_fashion"
        " --publish",
        paper=_V3PLUS_PAPER,
        large=True,
    ),
    Entry(
        name="regions_fashion",
        title="Region classifier on the superpixels of deeplabv3plus_fashion",
        arch=REGION_CLASSIFIER,
        labels=FASHION,
        network=MappingProxyType({}),
        input_px=0,
        recipe="python -m training.train_regions deeplabv3plus_fashion --scale 60",
        paper="a perceptron on region features, of this project",
        data=FASHIONISTA_DATA,
    ),
    Entry(
        name="u2net_fashion",
        title="U-2-Net, seven clothing labels",
        arch="u2net",
        labels=FASHION,
        network=MappingProxyType({}),
        input_px=384,
        recipe="python -m training.train training/recipes/u2net_fashion_taught_again.toml",
        paper=_U2NET_PAPER,
        data=U2NET_CCP_DATA,
        large=True,
    ),
    Entry(
        name="u2net_person",
        title="U-2-Net, person and background",
        arch="u2net",
        labels=PERSON,
        network=MappingProxyType({}),
        input_px=384,
        recipe="python -m training.train training/recipes/u2net_person.toml",
        paper=_U2NET_PAPER,
        data=U2NET_CCP_DATA,
        large=True,
    ),
    Entry(
        name="u2net_small_fashion",
        title="U-2-Net small, seven clothing labels",
        arch="u2net_small",
        labels=FASHION,
        network=MappingProxyType({}),
        input_px=384,
        recipe="python -m training.train training/recipes/u2net_small_fashion_taught_again.toml",
        paper=_U2NET_PAPER,
        data=U2NET_CCP_DATA,
    ),
    Entry(
        name="u2net_small_person",
        title="U-2-Net small, person and background",
        arch="u2net_small",
        labels=PERSON,
        network=MappingProxyType({}),
        input_px=384,
        recipe="python -m training.train training/recipes/u2net_small_person.toml",
        paper=_U2NET_PAPER,
        data=U2NET_DATA,
    ),
)

DEFAULTS: Mapping[str, str] = MappingProxyType({"fashion": "deeplabv3plus_fashion", "person": "u2net_small_person"})


def list_models(task: str | None = None) -> list[str]:
    """Names of the networks with weights of ours in alphabetical order, all or those of one task.

    Raises:
        ValueError: another task than "fashion" or "person".
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"no task {task!r}; expected {' or '.join(sorted(TASKS))}")
    return [
        name for name, entry in ENTRIES.items() if entry.is_network and entry.is_trained and task in (None, entry.task)
    ]


def find_entry(name: str) -> Entry:
    """The row of a model.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest and all known ones.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    if isinstance(name, str) and is_folder(name):
        raise ModelNotFoundError(
            f"{name!r:.200} is a folder, of a saved model perhaps; expected the name of a published model here. "
            "Folders go to `hubmodels label`, `tune` and `export`, and to hubmodels.load"
        )
    near = difflib.get_close_matches(name[:200], ENTRIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ModelNotFoundError(f"no model named {name!r:.200}{hint} Known models: {', '.join(ENTRIES)}")
