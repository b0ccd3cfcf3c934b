"""Load models by name: published ones, folders, and repositories of the Hugging Face Hub."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from hubmodels import remote
from hubmodels.config import NAME_LENGTH_MAX, WEIGHTS, ModelConfig, config_of
from hubmodels.entries import Entry, find_entry, list_models
from hubmodels.errors import ModelNotFoundError, WeightsError
from hubmodels.labels import LabelSet
from hubmodels.model_names import find_model
from hubmodels.networks import is_head
from hubmodels.refine import RegionClassifier
from hubmodels.saved_regions import LoadedOnce, check_made_for
from hubmodels.segmenter import Segmenter
from hubmodels.weights_files import (
    WEIGHTS_FOLDER,
    find_weights,
    is_verified,
    most_bytes,
    parse_tensors,
    places,
    read_file,
    read_verified,
)

CLASSIFIER_BYTES_MAX = 64_000_000  # room for the classifier of ImageNet's labels in timm's files, which is not used


def load_model(
    name: str | Path,
    *,
    pretrained: bool = True,
    device: str | torch.device = "cpu",
    num_classes: int | None = None,
    labels: Sequence[str] | LabelSet | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    runtime: str = "torch",
) -> Segmenter:
    """A model in eval mode.

    Args:
        name: one of `hubmodels.list_models()`; a folder that `save_pretrained` wrote; or a repository "user/name" of
            the Hugging Face Hub, also written "hf://user/name". A published name comes first, then a folder.
        pretrained: load the weights; False leaves the network as initialised.
        device: where it goes.
        num_classes: start of a model for other labels, to be trained: keeps all pretrained weights but those of the
            layers that answer for labels, which are initialised anew (from PyTorch's global random state).
        labels: these labels, or their names, the background first; "label 0", "label 1", ... unless given.
        revision: branch, tag or commit of a repository.
        token: of the Hub, for private repositories.
        runtime: "torch"; "onnx", which is faster on CPU and cannot be trained; or "auto", the faster that works.
            `hubmodels.runtime` says more.

    Returns:
        A Segmenter, an nn.Module from (N, 3, H, W) float RGB in 0..1 to (N, C, H, W) logits.

    Raises:
        ModelNotFoundError: no such model.
        WeightsError: the weights are missing, damaged or not those of this model; or there is no connection.
        ValueError: options that contradict each other.
        TypeError: labels that are no names in an order.
        ImportError, ExportError: runtime "onnx" cannot be had.
    """
    custom = _custom_labels(num_classes, labels)
    source = find_model(name, revision=revision)
    if isinstance(source, Entry):
        model = _published(source, pretrained=pretrained)
    elif pretrained:
        model = Segmenter.from_pretrained(name, revision=revision, token=token)
    else:
        raise ValueError(f"pretrained=False is for published models; {name} is loaded with its weights")
    model = (with_labels(model, custom) if custom else model).to(device)
    if runtime == "torch":
        return model
    from hubmodels.runtime import with_runtime  # heavy, and most programs do not need it

    return with_runtime(model, runtime)


def _published(entry: Entry, *, pretrained: bool) -> Segmenter:
    if not entry.is_network:
        raise ModelNotFoundError(
            f"{entry.name} only decides on the superpixels of a network's answer: use it by "
            "Refinement(superpixel_scale=60, vote='classifier') with that network, or load it by torch.hub. "
            f"Networks: {', '.join(list_models())}"
        )
    config = config_of(entry)
    if pretrained and not entry.is_trained:
        network = network_with_backbone(entry)
    else:
        network = config.build()
        if pretrained:
            network.load_state_dict(read_weights(entry, network))
    regions = LoadedOnce(functools.partial(load_regions, entry.regions)) if entry.regions else None
    return Segmenter.from_network(network, config, region_classifier=regions)


def _custom_labels(num_classes: int | None, labels: Sequence[str] | LabelSet | None) -> LabelSet | None:
    if labels is None:
        return None if num_classes is None else LabelSet.custom(num_classes)
    custom = labels if isinstance(labels, LabelSet) else LabelSet.custom(labels)
    if num_classes not in (None, len(custom)):
        raise ValueError(f"num_classes is {num_classes}, but {len(custom)} labels were given")
    return custom


def with_labels(model: Segmenter, labels: LabelSet) -> Segmenter:
    """A model for other labels with the weights of `model`, but for the layers that answer for labels.

    Raises:
        ValueError: the model was made from a network of the caller's own.
    """
    if model.config is None:
        raise ValueError("this Segmenter was made from a network of your own: how to build it for other labels?")
    suffix = f"_{labels.task}"[: NAME_LENGTH_MAX // 2]
    name = model.name.removesuffix(suffix)[: NAME_LENGTH_MAX - len(suffix)] + suffix
    config = ModelConfig(name, model.config.arch, model.config.network, labels, model.input_px)
    network = config.build()
    fresh = network.state_dict()
    kept = {key: value for key, value in model.network.state_dict().items() if not is_head(key)}
    network.load_state_dict({**fresh, **kept})
    return Segmenter.from_network(network, config)


def network_with_backbone(entry: Entry) -> nn.Module:
    """The network of a row without weights of ours: the backbone's come from timm, the head is as initialised.

    Raises:
        WeightsError: they are neither in the cache of the Hub nor to be had, or damaged.
    """
    import timm

    backbone = entry.network["backbone"]
    what, hint = f"{entry.name}: timm's weights of {backbone}", "or pass pretrained=False"
    network = config_of(entry).build()
    body = network.get_submodule("backbone.body")
    wanted = body.state_dict()
    facts = timm.models.get_pretrained_cfg(backbone)
    if facts is None or not facts.hf_hub_id:
        raise WeightsError(f"{what}: timm names no repository of the Hub for them; {hint.removeprefix('or ')}")
    try:
        # timm would download by itself, but with retries that take half a minute, fall back to a pickled file, and
        # leave tensors that are missing as they are.
        path = remote.fetch(facts.hf_hub_id, WEIGHTS)
    except WeightsError as error:
        raise WeightsError(f"{what}: {error}; {hint}") from error
    remedy = f"delete {path.resolve()} to have it downloaded again, {hint}"
    data = read_file(path, most_bytes=most_bytes(wanted) + CLASSIFIER_BYTES_MAX, what=what, remedy=remedy)
    body.load_state_dict(parse_tensors(data, wanted, what=what, remedy=remedy, only_wanted=True))
    return network


def load_regions(name: str) -> RegionClassifier:
    """A published region classifier in eval mode, as `Refinement(vote="classifier")` uses it.

    Raises:
        ModelNotFoundError: no such entry, or a network.
        WeightsError: the weights are missing, damaged or not those of this entry.
    """
    entry = find_entry(name)
    if entry.is_network:
        raise ModelNotFoundError(f"{name} is a network, no region classifier: use hubmodels.load")
    classifier = RegionClassifier.from_bytes(read_verified(entry, weights_path(entry)), what=entry.name)
    check_made_for(classifier, entry.labels, what=name)
    return classifier


def weights_path(entry: Entry) -> Path:
    """The weights file of an entry: where `find_weights` finds it, else from `entry.hub_repo`, downloaded if need be.

    A file of the Hub's cache that is the entry's is used without a request.

    Raises:
        WeightsError: it is not to be had; says where it may come from.
    """
    if (path := find_weights(entry)) is not None:
        return path
    sought = f"{entry.name}: no {entry.filename} in {' or '.join(str(each.parent) for each in places(entry))}"
    if not entry.hub_repo:
        source = "clone the project with git" if entry.large else "reinstall hubmodels"
        raise WeightsError(f"{sought}; {source}, or set HUBMODELS_WEIGHTS to a folder that holds it")
    cached = remote.cached_file(entry.hub_repo, WEIGHTS)
    if cached is not None and is_verified(entry, cached):  # else the repository may hold newer ones by now
        return cached
    try:
        return remote.fetch(entry.hub_repo, WEIGHTS)
    except WeightsError as error:
        raise WeightsError(
            f"{sought}. {error}. A clone of the project with git has the file; or set HUBMODELS_WEIGHTS to a folder "
            "that holds it"
        ) from error


def read_weights(entry: Entry, network: nn.Module) -> dict[str, torch.Tensor]:
    """State dict for `network` in float32, checked against the entry's digest and the network's names and shapes.

    Raises:
        WeightsError: says what was expected, what was found, and the remedy.
    """
    remedy = f"restore {entry.filename} from a release, or reinstall hubmodels"
    data = read_verified(entry, weights_path(entry))
    return parse_tensors(data, network.state_dict(), what=entry.name, remedy=remedy)


__all__ = [
    "WEIGHTS_FOLDER",
    "load_model",
    "load_regions",
    "network_with_backbone",
    "read_weights",
    "weights_path",
    "with_labels",
]
