"""The parts of a run that training and export share: networks, tasks, validation."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from hubmodels.checks import check_tensors
from hubmodels.config import config_of
from hubmodels.entries import ENTRIES, list_models
from hubmodels.hub import read_weights
from hubmodels.metrics import Scores
from hubmodels.networks import build_network, is_head
from hubmodels.networks.dilation import use_space_to_batch
from hubmodels.segmenter import photo_logits
from training.checkpoint import load_run
from training.data import Sample
from training.errors import DataError, RecipeError
from training.frozen_norms import fold_frozen_batch_norms
from training.imagenet import PACKAGED, start_from_imagenet
from training.recipe import Recipe, trained_counts
from training.weight_gradients import use_product_gradients

log = logging.getLogger("training")


def task_rows(counts: Mapping[str, int]) -> dict[str, slice]:
    """Which output channels belong to which task, from their numbers of labels."""
    rows, start = {}, 0
    for task, count in counts.items():
        rows[task] = slice(start, start + count)
        start = rows[task].stop
    return rows


def network_for(recipe: Recipe) -> nn.Module:
    """The network of a recipe with its starting weights, channels last."""
    backbone = recipe.network.get("backbone", "tf_efficientnet_lite0")
    packaged = backbone in PACKAGED
    options = {"pretrained_backbone": True} if recipe.init == "imagenet" and not packaged else {}
    net = build_network(recipe.arch, num_classes=recipe.num_classes, **recipe.network, **options)
    if recipe.init == "imagenet" and packaged:
        start_from_imagenet(net.backbone, backbone)
    elif recipe.init not in ("imagenet", "random"):
        start = {
            key: value.float() if value.is_floating_point() else value
            for key, value in starting_weights(recipe, net).items()
        }
        remedy = "recipes start from networks of their own arch and [network]"
        check_tensors(start, net.state_dict(), what=f"recipe {recipe.name!r}: init {recipe.init!r}", remedy=remedy)
        net.load_state_dict(start)
    use_space_to_batch(net)  # PyTorch's backward pass for dilated depthwise convolutions is slow on CPUs
    if recipe.freeze_batch_norm:
        fold_frozen_batch_norms(net)
    if not recipe.compile:  # U-2-Net; with compiled networks it was not tried
        use_product_gradients(net)
    return net.to(memory_format=torch.channels_last)


def pretrained_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Parameters that other training has shaped before: those of the backbone; without one, all but the heads."""
    if hasattr(net, "backbone"):
        return list(net.backbone.parameters())
    return [parameter for name, parameter in net.named_parameters() if not is_head(name)]


def _checkpoint_named(init: str) -> Path:
    """The checkpoint that a recipe starts from. Raises DataError where there is none, with what may have been meant."""
    path = Path(init)
    if path.is_file():
        return path
    near = difflib.get_close_matches(init, list_models(), n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    found = "a folder, no checkpoint" if path.is_dir() else "no checkpoint there"
    raise DataError(f"{init}: {found}{meant or '; expected the best.pt of a run, or the name of a published model'}")


def starting_weights(recipe: Recipe, net: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a published model or averaged ones of an earlier run.

    Classifier rows are matched by task; rows of new tasks stay random, as do those of a task whose labels are others or
    in another order, and heads that go as a whole. From a published model of another architecture come the backbone and
    what else has its name and shape, but no classifier.

    Raises:
        RecipeError: a published model without weights, or with no part in common with the network.
        DataError: no such checkpoint, or one that is damaged.
    """
    if recipe.init in ENTRIES:
        entry = ENTRIES[recipe.init]
        if not (entry.is_network and entry.is_trained):
            raise RecipeError(
                f"recipe {recipe.name!r}: init {recipe.init!r} has no weights of a network; use 'imagenet', or one of "
                f"{', '.join(list_models())}"
            )
        published = config_of(entry).build()
        state, tasks = read_weights(entry, published), {entry.task: len(entry.labels)}
        if entry.arch != recipe.arch:
            own = net.state_dict()
            shared = {
                key: value
                for key, value in state.items()
                if not is_head(key) and key in own and own[key].shape == value.shape
            }
            if not shared:
                raise RecipeError(
                    f"recipe {recipe.name!r}: init {recipe.init!r} has no part in common with {recipe.arch}"
                )
            return own | shared
    else:
        checkpoint = load_run(_checkpoint_named(recipe.init))
        old = checkpoint["recipe"]
        state, tasks = checkpoint["ema"], trained_counts(checkpoint)
        names = tuple(old.get("classes", ()))  # of the one task of a folder; older checkpoints may not say them
        if names and recipe.classes and names != recipe.classes:
            log.info("%s: of other labels, %s: the classifier starts anew", recipe.init, ", ".join(names))
            tasks = {f"{task} of other labels": count for task, count in tasks.items()}
    own = net.state_dict()
    dense = {key: value for key, value in own.items() if key.startswith("dense_upsampling.")}  # zero, if it is new
    return dense | select_tasks(state, tasks, recipe.label_counts, fill=own)


def select_tasks(
    state: dict[str, torch.Tensor],
    old: Mapping[str, int],
    new: Mapping[str, int],
    *,
    fill: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """A state dict whose classifier answers the tasks `new`, from one that answers `old`, each with its label count.

    Raises:
        KeyError: a new task is not among the old ones and `fill` gives no rows for it.
    """
    old_rows, new_rows = task_rows(old), task_rows(new)
    state = dict(state)
    if old_rows == new_rows:
        return state
    if "classifier.weight" not in state:  # U-2-Net's last layer mixes all channels, ensembles have more: as a whole
        if fill is None:
            raise KeyError(f"the checkpoint was trained for {list(old_rows)}, not for {list(new_rows)}")
        return state | {key: fill[key] for key in state if is_head(key)}
    for key in [key for key in state if is_head(key)]:
        channels = len(state[key]) // sum(old.values())  # of each label: several with dense upsampling
        parts = []
        for task, rows in new_rows.items():
            if task in old_rows and _length(old_rows[task]) == _length(rows):
                parts.append(state[key][_times(old_rows[task], channels)])
            elif fill is not None:
                parts.append(fill[key][_times(rows, channels)])
            else:
                raise KeyError(f"the checkpoint was not trained for task {task!r}")
        state[key] = torch.cat(parts).clone()
    return state


def _times(rows: slice, factor: int) -> slice:
    return slice(rows.start * factor, rows.stop * factor)


def _length(rows: slice) -> int:
    return rows.stop - rows.start


@torch.inference_mode()
def validate(
    net: nn.Module,
    samples: list[Sample],
    tasks: Mapping[str, int],
    *,
    long_side_px: int,
    crfs: nn.ModuleDict | None = None,
) -> dict[str, Scores]:
    """Scores of every task, each with its label count, on labelled photos, after the tasks' CRFs if any are given.

    Without boundary F, which takes longer than the network: no epoch is chosen by it.
    """
    rows = task_rows(tasks)
    scores = {task: Scores(_length(part)) for task, part in rows.items()}
    for sample in tqdm(samples, desc="validate", unit="photo", leave=False):
        logits = photo_logits(net, sample.image, long_side_px=long_side_px)
        for task, part in rows.items():
            answer = logits[part]
            if crfs is not None and task in crfs:
                answer = crfs[task](answer[None], torch.tensor(sample.image, device=answer.device)[None])[0]
            predicted = answer.argmax(0).cpu().numpy().astype(np.uint8)
            scores[task].add(sample.labels[task], predicted, with_boundary=False)
    return scores
