"""A small network that decides on the label of each superpixel from what the region looks like and where it lies."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from hubmodels.checks import check_tensors
from hubmodels.errors import WeightsError
from hubmodels.refine.region_features import feature_names, region_features

FORMAT_VERSION = 1
REMEDY = "train it again with python -m training.train_regions, or restore the file from a release"
HIDDEN_MAX, LABELS_MAX = 1024, 256  # so that a made-up header cannot ask for more than a few MB
SMALLEST_PROB = 1e-12  # keeps the logarithm finite; far below what can win a vote
SMALLEST_STD = 1e-3  # a feature that hardly varies is not blown up


@dataclass(frozen=True)
class RegionSettings:
    """The superpixels that a classifier was trained on, to be used with it.

    Attributes:
        method: how `superpixels` finds them.
        scale: its scale, at a photo of `REFERENCE_PX` pixels.
        labels: the names of the labels.
    """

    method: str
    scale: float
    labels: tuple[str, ...]


class RegionClassifier(nn.Module):
    """Corrects the superpixel vote of a network: label logits from the features of a region.

    Logits are the logarithm of the region's mean probabilities plus a correction by a small perceptron, whose last
    layer starts at zero. So an untrained classifier decides exactly as `vote` does.

    Args:
        settings: the superpixels and labels it is for.
        hidden: width of both hidden layers.
        dropout: share of hidden values that training drops.

    Buffers: `mean` and `std` (F,) float32, the features' own over the training regions; see `standardise`.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: RegionSettings, *, hidden: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.settings, self.hidden = settings, hidden
        self.num_classes = len(settings.labels)
        self.features = feature_names(self.num_classes)
        self.register_buffer("mean", torch.zeros(len(self.features)))
        self.register_buffer("std", torch.ones(len(self.features)))
        last = nn.Linear(hidden, self.num_classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(
            nn.Linear(len(self.features), hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
            last,
        )  # fmt: skip

    def standardise(self, features: torch.Tensor, areas: torch.Tensor) -> None:
        """Take mean and standard deviation from training regions.

        Args:
            features: (R, F) float32.
            areas: (R,) weights of the regions, such as pixels.
        """
        share = (areas / areas.sum()).double()[:, None]
        mean = (share * features).sum(0)
        self.mean.copy_(mean)
        self.std.copy_((share * (features - mean) ** 2).sum(0).sqrt().clamp_min(SMALLEST_STD))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Label logits of regions.

        Args:
            features: (R, F) float32, rows of `region_features`, not standardised.

        Returns:
            (R, C) float32 logits.

        Raises:
            ValueError: another number of features.
        """
        if features.ndim != 2 or features.shape[1] != len(self.features):
            raise ValueError(
                f"features must be (R, {len(self.features)}) for {self.num_classes} labels; "
                f"got {tuple(features.shape)}: take them from region_features"
            )
        voted = features[:, -self.num_classes :].clamp_min(SMALLEST_PROB).log()
        return voted + self.correction((features - self.mean) / self.std)

    @torch.inference_mode()
    def vote(self, image: np.ndarray, segments: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """One label per region, the lower id on a tie; none whose probability is 0 everywhere.

        Dropout is on in training mode: call `eval()` before.

        Args:
            image: (H, W, 3) uint8 sRGB.
            segments: (H, W) int region ids, consecutive from 0.
            probs: (C, H, W) float probabilities.

        Returns:
            (H, W) uint8 label ids.

        Raises:
            ValueError: sizes disagree, or another number of labels.
        """
        if len(probs) != self.num_classes:
            names = ", ".join(self.settings.labels)
            raise ValueError(f"probs must hold {self.num_classes} labels ({names}); got {len(probs)}: wrong model?")
        features = torch.from_numpy(region_features(image, segments, probs)).to(self.mean.device)
        logits = self(features)
        logits[:, (features[:, -self.num_classes :] == 0).all(0)] = -math.inf
        return logits.argmax(1).cpu().numpy().astype(np.uint8)[segments]

    def to_bytes(self) -> bytes:
        """A safetensors file: float32 tensors, settings and feature names in its header."""
        facts = {
            "format_version": FORMAT_VERSION,
            "features": self.features,
            "hidden": self.hidden,
            "settings": asdict(self.settings),
        }
        state = {key: value.detach().cpu().float().contiguous() for key, value in self.state_dict().items()}
        # One key only: with several, their order and so the digest would vary from run to run.
        return save(state, metadata={"hubmodels": json.dumps(facts, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str = "region classifier", remedy: str = REMEDY) -> RegionClassifier:
        """The classifier that `to_bytes` wrote, in eval mode.

        Args:
            data: the file; untrusted until it has been checked.
            what, remedy: how messages begin and end.

        Raises:
            WeightsError: not such a file, for other features than this release computes, or damaged.
        """
        try:
            tensors = load(data)
        except Exception as error:  # a header that lies makes safetensors or PyTorch raise nearly anything
            raise WeightsError(f"{what}: not a safetensors file ({error!s:.200}); {remedy}") from error
        facts = _read_facts(data)
        try:
            version, features, hidden = facts["format_version"], tuple(facts["features"]), facts["hidden"]
            values = facts["settings"]
            method, scale, labels = values["method"], float(values["scale"]), tuple(map(str, values["labels"]))
            if not (isinstance(method, str) and 0 <= scale < math.inf and type(hidden) is int and hidden > 0):
                raise ValueError(f"method {method!r:.50}, scale {scale}, hidden {hidden!r:.50}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WeightsError(f"{what}: its header does not describe a region classifier; {remedy}") from error
        if version != FORMAT_VERSION:
            raise WeightsError(f"{what}: format version is {version}, this release reads {FORMAT_VERSION}; {remedy}")
        settings = RegionSettings(method, scale, labels)
        expected = feature_names(len(labels))
        if features != expected:
            raise WeightsError(
                f"{what}: made for {len(features)} features {features[:3]}..., "
                f"this release computes {len(expected)} {expected[:3]}...; {remedy}"
            )
        # Before a network of that width is built.
        if "correction.0.bias" not in tensors or hidden != tensors["correction.0.bias"].numel():
            raise WeightsError(f"{what}: header says {hidden} hidden values, its tensors differ; {remedy}")
        if hidden > HIDDEN_MAX or len(labels) > LABELS_MAX:
            raise WeightsError(
                f"{what}: {hidden} hidden values and {len(labels)} labels, expected {HIDDEN_MAX} and {LABELS_MAX} at "
                f"most; {remedy}"
            )
        classifier = cls(settings, hidden=hidden)
        check_tensors(tensors, classifier.state_dict(), what=what, remedy=remedy)
        if not (tensors["std"].float() > 0).all():
            raise WeightsError(f"{what}: std must be above 0; got {float(tensors['std'].min()):g}; {remedy}")
        classifier.load_state_dict(tensors)
        return classifier.eval()


def load_region_classifier(path: str | Path) -> RegionClassifier:
    """The classifier in a safetensors file, in eval mode.

    Raises:
        WeightsError: the file is missing, or not that of a region classifier of this release.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; make it with python -m training.train_regions")
    return RegionClassifier.from_bytes(path.read_bytes(), what=str(path))


def _read_facts(data: bytes) -> dict[str, Any]:
    """Our part of a safetensors header, {} if it has none; `data` has been parsed by safetensors before."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        facts = json.loads(header.get("__metadata__", {}).get("hubmodels", "{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
