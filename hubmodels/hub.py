"""Load published models. Weights are untrusted until their digest, keys, shapes and values have been checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from hubmodels.entries import Entry, find_entry
from hubmodels.errors import WeightsError
from hubmodels.networks import build_network
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
    network = build_network(entry.arch, num_classes=len(entry.labels), **entry.network)
    if pretrained:
        network.load_state_dict(read_weights(entry, network))
    # Depthwise convolutions run about three times as fast on CPU with channels last.
    network = network.to(memory_format=torch.channels_last).to(device)
    return Segmenter(network, entry.labels, name=entry.name, input_px=entry.input_px).eval()


def weights_path(entry: Entry) -> Path:
    """Where the weights of an entry are: in the folder HUBMODELS_WEIGHTS names, if they are there, else as shipped.

    Raises:
        WeightsError: in neither place.
    """
    override = os.environ.get("HUBMODELS_WEIGHTS")
    places = [Path(override)] if override else []
    places.append(WEIGHTS_FOLDER)
    for place in places:
        if (path := place / entry.filename).is_file():
            return path
    raise WeightsError(
        f"{entry.name}: no {entry.filename} in {' or '.join(map(str, places))}; "
        "reinstall hubmodels, or set HUBMODELS_WEIGHTS to a folder that holds it"
    )


def read_weights(entry: Entry, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State dict for `network` in float32, checked against the entry's digest and the network's names and shapes.

    Raises:
        WeightsError: says what was expected, what was found, and the remedy.
    """
    path = weights_path(entry)
    data = path.read_bytes()  # read once, so that what was hashed is what is parsed
    remedy = f"restore {path} from a release, or reinstall hubmodels"
    if data.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{entry.name}: {path} is a Git LFS pointer, not weights; run 'git lfs pull'")
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise WeightsError(f"{entry.name}: sha256 is {digest[:12]}, expected {entry.sha256[:12]}; {remedy}")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise WeightsError(f"{entry.name}: {path} is not a safetensors file ({error}); {remedy}") from error
    check_tensors(tensors, network, what=entry.name, remedy=remedy)
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def check_tensors(tensors: dict[str, torch.Tensor], network: torch.nn.Module, *, what: str, remedy: str) -> None:
    """Raise WeightsError unless names and shapes are exactly the network's and every value is finite."""
    wanted = network.state_dict()
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        raise WeightsError(
            f"{what}: {len(missing)} tensors missing {missing[:3]}, {len(extra)} unknown {extra[:3]}; {remedy}"
        )
    for key, value in tensors.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(f"{what}: {key} is {tuple(value.shape)}, expected {tuple(wanted[key].shape)}; {remedy}")
        if not torch.isfinite(value).all():
            raise WeightsError(f"{what}: {key} holds values that are not finite; {remedy}")
