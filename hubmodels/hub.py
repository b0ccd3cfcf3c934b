"""Load published models. Weights are untrusted until their digest, keys, shapes and values have been checked."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from hubmodels.checks import check_tensors
from hubmodels.entries import Entry, find_entry, list_models
from hubmodels.errors import ModelNotFoundError, WeightsError
from hubmodels.networks import build_network
from hubmodels.refine import RegionClassifier
from hubmodels.segmenter import Segmenter

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


def load_model(name: str, *, pretrained: bool = True, device: str | torch.device = "cpu") -> Segmenter:
    """A published model in eval mode.

    Args:
        name: one of `hubmodels.list_models()`.
        pretrained: load the shipped weights; False leaves the network as initialised.
        device: where it goes.

    Returns:
        A Segmenter, an nn.Module from (N, 3, H, W) float RGB in 0..1 to (N, C, H, W) logits.

    Raises:
        ModelNotFoundError: no such model.
        WeightsError: the weights are missing, damaged or not those of this model.
    """
    entry = find_entry(name)
    if not entry.is_network:
        raise ModelNotFoundError(
            f"{name} only decides on the superpixels of a network's answer: use it by Refinement(vote='classifier') "
            f"with that network, or get it by load_regions. Networks: {', '.join(list_models())}"
        )
    if pretrained and not entry.is_trained:
        network = network_with_backbone(entry)
    else:
        network = build_network(entry.arch, num_classes=len(entry.labels), **entry.network)
        if pretrained:
            network.load_state_dict(read_weights(entry, network))
    # Depthwise convolutions run about three times as fast on CPU with channels last.
    network = network.to(memory_format=torch.channels_last).to(device)
    return Segmenter(
        network,
        entry.labels,
        name=entry.name,
        input_px=entry.input_px,
        region_classifier=functools.cache(functools.partial(load_regions, entry.regions)) if entry.regions else None,
    ).eval()


def network_with_backbone(entry: Entry) -> torch.nn.Module:
    """The network of a row without weights of ours: the backbone's come from timm, the head is as initialised.

    Raises:
        WeightsError: they are neither in the cache of the Hub nor to be had.
    """
    try:
        return build_network(entry.arch, num_classes=len(entry.labels), pretrained_backbone=True, **entry.network)
    except (OSError, RuntimeError) as error:  # whatever the Hub's client raises is one of these
        raise WeightsError(
            f"{entry.name}: timm's weights of {entry.network['backbone']} are neither cached nor reachable ({error}); "
            "connect once, or pass pretrained=False"
        ) from error


def load_regions(name: str) -> RegionClassifier:
    """A published region classifier in eval mode, as `Refinement(vote="classifier")` uses it.

    Raises:
        ModelNotFoundError: no such entry, or a network.
        WeightsError: the weights are missing, damaged or not those of this entry.
    """
    entry = find_entry(name)
    if entry.is_network:
        raise ModelNotFoundError(f"{name} is a network, no region classifier: use hubmodels.load")
    classifier = RegionClassifier.from_bytes(read_verified(entry), what=entry.name)
    if classifier.settings.labels != entry.labels.names:
        raise WeightsError(f"{name}: made for labels {classifier.settings.labels}, expected {entry.labels.names}")
    return classifier


def weights_path(entry: Entry) -> Path:
    """Where the weights of an entry are: in the folder HUBMODELS_WEIGHTS names, if they are there, else as shipped.

    Raises:
        WeightsError: in neither place.
    """
    override = os.environ.get("HUBMODELS_WEIGHTS")
    places = [Path(override)] if override else []
    places.append(WEIGHTS_FOLDER / "large" if entry.large else WEIGHTS_FOLDER)
    for place in places:
        if (path := place / entry.filename).is_file():
            return path
    raise WeightsError(
        f"{entry.name}: no {entry.filename} in {' or '.join(map(str, places))}; "
        "reinstall hubmodels, or set HUBMODELS_WEIGHTS to a folder that holds it"
    )


def read_verified(entry: Entry) -> bytes:
    """The weights file of an entry, once its digest was found to be the entry's.

    Raises:
        WeightsError: says what was expected, what was found, and the remedy.
    """
    path = weights_path(entry)
    data = path.read_bytes()  # read once, so that what was hashed is what is parsed
    if data.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{entry.name}: {path} is a Git LFS pointer, not weights; run 'git lfs pull'")
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise WeightsError(
            f"{entry.name}: sha256 is {digest[:12]}, expected {entry.sha256[:12]}; restore {path} from a release, "
            "or reinstall hubmodels"
        )
    return data


def read_weights(entry: Entry, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State dict for `network` in float32, checked against the entry's digest and the network's names and shapes.

    Raises:
        WeightsError: says what was expected, what was found, and the remedy.
    """
    remedy = f"restore {entry.filename} from a release, or reinstall hubmodels"
    try:
        tensors = load(read_verified(entry))
    except SafetensorError as error:
        raise WeightsError(f"{entry.name}: not a safetensors file ({error}); {remedy}") from error
    check_tensors(tensors, network.state_dict(), what=entry.name, remedy=remedy)
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
