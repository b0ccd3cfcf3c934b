"""Make shipped weights of a run: `python -m training.export RUN/best.pt NAME`, or a folder for `hubmodels.load` of any
run of one task: `python -m training.export RUN/best.pt --folder OUT`.

Takes the averaged weights, keeps the output rows of the entry's task, stores them as float16 safetensors in
hubmodels/weights, and notes digest, size and parameter count in manifest.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save

from hubmodels.checks import check_tensors
from hubmodels.config import config_of
from hubmodels.entries import Entry, find_entry
from hubmodels.files import write_bytes
from hubmodels.hub import WEIGHTS_FOLDER
from hubmodels.refine import RegionClassifier
from hubmodels.segmenter import Segmenter
from training.checkpoint import averaged_weights, load_run
from training.engine import select_tasks
from training.errors import CommandError, DataError, run_command
from training.files import update_json
from training.provenance import of_stage
from training.recipe import Recipe, trained_counts
from training.segmenters import segmenter_of

FORMAT_VERSION = 1


def to_float16(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floating-point tensors as float16, contiguous; integer ones unchanged.

    Raises:
        ValueError: a value does not fit float16. A batch norm's variance that would vanish is kept positive.
    """
    out = {}
    for key, value in state.items():
        value = value.detach().cpu()
        if value.is_floating_point():
            half = value.half()
            if not torch.isfinite(half).all():
                raise ValueError(f"{key}: largest value {float(value.abs().max()):g} does not fit float16")
            if key.endswith("running_var") and (half <= 0).any():
                # A variance below float16's smallest number belongs to a dead channel; keep it positive.
                half = half.clamp_min(torch.finfo(torch.float16).smallest_normal)
            value = half
        out[key] = value.contiguous()
    return out


def export(checkpoint: Path, entry: Entry) -> Path:
    """Write the weights file of `entry` and its row in the manifest; returns the file's path.

    Args:
        checkpoint: of `training.train`; for a region classifier the file of `training.train_regions`.
        entry: whose weights these are.

    Raises:
        DataError: no such checkpoint, or it was not trained for the entry's task.
        WeightsError: it is of another network than the entry's.
    """
    if not entry.is_network:
        if not checkpoint.is_file():
            raise DataError(f"{checkpoint}: no file of training.train_regions there")
        data = checkpoint.read_bytes()
        return _publish(data, entry, RegionClassifier.from_bytes(data, what=str(checkpoint)))
    saved = load_run(checkpoint)
    state = averaged_weights(saved, checkpoint)
    try:
        state = select_tasks(state, trained_counts(saved), {entry.task: len(entry.labels)})
    except KeyError as error:
        raise DataError(f"{checkpoint}: {error.args[0]}; entry {entry.name} is of {entry.task}") from error
    return publish_network(state, entry)


def publish_network(state: dict[str, torch.Tensor], entry: Entry) -> Path:
    """Write the weights file of a network's row, in float16, and its row in the manifest; returns the file's path.

    Args:
        state: state dict of the network that the row describes.
        entry: whose weights these are.

    Raises:
        WeightsError: names or shapes are not those of the row's network.
        ValueError: a value does not fit float16.
    """
    state = to_float16(state)
    network = config_of(entry).build()
    check_tensors(state, network.state_dict(), what=entry.name, remedy="do the weights come from this entry's recipe?")
    facts = {
        "format_version": FORMAT_VERSION,
        "name": entry.name,
        "arch": entry.arch,
        "labels": entry.labels.names,
        "license": entry.license,
    }
    # One key only: with several, their order and so the digest would vary from run to run.
    data = save(state, metadata={"hubmodels": json.dumps(facts, sort_keys=True)})
    return _publish(data, entry, network)


def export_folder(checkpoint: Path, folder: Path, *, license: str = "") -> Segmenter:
    """Write config.json, model.safetensors and a model card that `hubmodels.load(folder)` reads; returns the model.

    The card says what the model was trained on, and its scores on val if they are those of these weights alone.

    Args:
        checkpoint: of `training.train`.
        folder: where the files go.
        license: of the weights, as the Hub spells it.

    Raises:
        CommandError: the run has several tasks.
    """
    saved = load_run(checkpoint)
    recipe = saved["recipe"]
    if len(recipe["tasks"]) != 1:
        raise CommandError(f"{checkpoint} answers {list(recipe['tasks'])}; a folder is for a run of one task")
    model = segmenter_of(saved, checkpoint, task=recipe["tasks"][0])
    data = saved.get("provenance") or of_stage(Recipe.from_dict(recipe))  # older checkpoints know no earlier stage
    val = saved.get("val", {}).get(model.labels.task)  # absent from older checkpoints, and from one within an epoch
    measured = None if saved.get("crfs") else val or None  # labels after a CRF are not those of the network alone
    if (folder / "classes.json").exists() or (folder / "images").exists():
        raise CommandError(f"{folder} holds photos to train on; expected a folder for the model alone")
    model.save_pretrained(folder, license=license, data=data, metrics=measured)
    return model


def _publish(data: bytes, entry: Entry, network: torch.nn.Module) -> Path:
    """Write the file and what the manifest says of it."""
    path = WEIGHTS_FOLDER / entry.weights_file
    write_bytes(data, path)
    measured = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    # Scores of earlier weights would be wrong for these: `python -m training.evaluate` writes new ones.
    update_json(WEIGHTS_FOLDER / "manifest.json", {entry.name: measured})
    return path


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("name", nargs="?", help="the entry whose weights these are")
    where.add_argument("--folder", type=Path, help="write a folder for hubmodels.load instead")
    parser.add_argument("--license", default="", help="with --folder: of the weights, for the card, such as apache-2.0")
    arguments = parser.parse_args(argv)
    if arguments.folder is not None:
        model = export_folder(arguments.checkpoint, arguments.folder, license=arguments.license)
        names = ", ".join(model.labels.names)
        print(f"{arguments.folder}: labels {names}; use: hubmodels.load({str(arguments.folder)!r})")
        return
    path = export(arguments.checkpoint, find_entry(arguments.name))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; now run: python -m training.evaluate {arguments.name}")


if __name__ == "__main__":
    run_command(main)
