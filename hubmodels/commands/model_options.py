"""Which model a command means: its options, and what they say once they are checked."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hubmodels.entries import DEFAULTS, Entry
from hubmodels.labels import TASKS, LabelSet
from hubmodels.model_names import find_model

if TYPE_CHECKING:
    from hubmodels.segmenter import Segmenter

MODEL_HELP = "a model of `hubmodels list`, a folder that save_pretrained wrote, or USER/NAME on the Hugging Face Hub"
REVISION_HELP = "branch, tag or commit of the repository on the Hub"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that `chosen_model` and `load_chosen` read."""
    parser.add_argument("--task", choices=sorted(DEFAULTS), help="what to label (fashion)")
    parser.add_argument("--model", metavar="MODEL", help=f"{MODEL_HELP}, instead of the task's default")
    parser.add_argument("--revision", metavar="REV", help=REVISION_HELP)
    parser.add_argument("--device", default="cpu", help="where the network runs, such as cuda (%(default)s)")


def label_names(text: str) -> list[str]:
    """What an option that takes names of labels was given: "pants, t-shirt"."""
    return [name.strip() for name in text.split(",")]


def add_absent_option(parser: argparse.ArgumentParser) -> None:
    """The option for labels that photos do not show."""
    parser.add_argument(
        "--absent",
        type=label_names,
        default=[],
        metavar="LABEL,...",
        help="labels that none of these photos shows, such as dress: the others share what is taken for them",
    )


def chosen_model(arguments: argparse.Namespace) -> tuple[str, Entry | None]:
    """The model's name, and its row if it is a published one; nothing heavy is imported.

    Raises:
        ModelNotFoundError, WeightsError, ValueError: as of `find_model`; or an architecture without weights.
    """
    name = arguments.model or DEFAULTS[arguments.task or "fashion"]
    source = find_model(name, revision=arguments.revision)
    if not isinstance(source, Entry):
        return name, None
    if not source.is_trained:
        raise ValueError(f"{name} is an architecture to train, without weights that label; see `hubmodels list`")
    return name, source


def load_chosen(arguments: argparse.Namespace, name: str) -> Segmenter:
    """The model on its device.

    Raises:
        ValueError: no such device.
        HubmodelsError: as of `hubmodels.load`.
    """
    from hubmodels.hub import load_model

    check_device(arguments.device)
    return load_model(name, device=arguments.device, revision=arguments.revision)


def check_device(name: str) -> None:
    """Raise ValueError unless tensors can be put on a device of this name."""
    import torch

    try:
        torch.zeros(1, device=name).cpu()  # what labelling does with every answer
    except (RuntimeError, AssertionError) as error:  # the latter: PyTorch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} is not to be had: {reason}; expected cpu, or cuda where there is a GPU"
        ) from error


def published_task(name: str, labels: LabelSet, arguments: argparse.Namespace) -> str | None:
    """The published task with these very labels, whose presets a model may use; None: there is none.

    Raises:
        ValueError: another task was asked for.
    """
    task = next((task for task, each in TASKS.items() if (task, each.names) == (labels.task, labels.names)), None)
    if arguments.task not in (None, task):
        raise ValueError(
            f"model {name} labels {task or ', '.join(labels.names)}, not {arguments.task}; leave out --task or --model"
        )
    return task
