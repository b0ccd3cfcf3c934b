"""What runs the network of a Segmenter: PyTorch, or ONNX Runtime, which is faster on CPU.

ONNX Runtime needs an exported network. It is made at the first use, which takes some ten seconds, and kept in a cache
folder: HUBMODELS_CACHE, else hubmodels in XDG_CACHE_HOME or ~/.cache. One with modules of your own is made for every
Segmenter, as nothing tells whether their code is still what it was.
"""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from pathlib import Path

import torch

from hubmodels import __version__
from hubmodels.errors import ExportError
from hubmodels.files import write_bytes
from hubmodels.model_export import describe, missing_packages, network_digest, onnx_bytes
from hubmodels.networks.folding import is_plain
from hubmodels.onnx_network import OnnxNetwork
from hubmodels.segmenter import Segmenter

RUNTIMES = ("auto", "onnx", "torch")
FORMAT = 2  # of exported networks: raise it when the same weights are exported to another graph, or files may be wrong
WORTH_PHOTOS = 500  # about here an export, 7 s for the default network, is won back in the same run


def best_runtime() -> str:
    """The faster of those installed: "onnx" or "torch". Loading with "auto" uses it wherever that works."""
    return "torch" if importlib.util.find_spec("onnxruntime") is None else "onnx"


def with_runtime(model: Segmenter, runtime: str, *, photos: int | None = None) -> Segmenter:
    """The model, run by another runtime. Results are the same within 1e-3.

    Args:
        model: on CPU, in float32 and in eval mode for ONNX Runtime.
        runtime: "torch", which is the model itself; "onnx"; or "auto", which is "onnx" where that works, and else the
            model itself, with a warning if something failed.
        photos: how many photos are to be labelled, if that is known: for few, "auto" exports no network, but uses
            one that is there.

    Raises:
        ValueError: no such runtime, or for "onnx" a model that is not on CPU, or not in float32.
        ImportError: "onnx", but a package is not installed.
        ExportError: "onnx", but the model cannot be exported.
    """
    if choose_runtime(model, runtime, photos=photos) == "torch":
        return model
    try:
        return _onnx_segmenter(model)
    except (ExportError, ImportError) as error:
        if runtime != "auto":
            raise
        warnings.warn(f"PyTorch runs the network, as ONNX Runtime cannot: {error}", RuntimeWarning, stacklevel=2)
        return model


def choose_runtime(model: Segmenter, runtime: str, *, photos: int | None = None) -> str:
    """What `with_runtime` would try: "onnx" or "torch". Arguments and ValueErrors are the same."""
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}")
    weights = list(model.network.parameters())
    on_cpu = all(each.device.type == "cpu" for each in weights)
    if runtime == "onnx" and not on_cpu:
        raise ValueError("runtime 'onnx' runs on CPU; leave out the device, or use runtime 'torch'")
    in_full = all(each.dtype == torch.float32 for each in weights)
    if runtime == "onnx" and not in_full:
        raise ValueError("runtime 'onnx' computes in float32; leave out half precision, or use runtime 'torch'")
    if runtime != "auto":
        return runtime
    if not on_cpu or not in_full or best_runtime() != "onnx":
        return "torch"
    is_worth_it = (photos is None or photos >= WORTH_PHOTOS) and not missing_packages()
    return "onnx" if is_worth_it or is_prepared(model) else "torch"


def runtime_of(model: Segmenter) -> str:
    """What runs the network of a model: "onnx" or "torch"."""
    return "onnx" if isinstance(model.network, OnnxNetwork) else "torch"


def cache_folder() -> Path:
    """Where exported networks are kept.

    Raises:
        ExportError: nowhere, as neither a variable names a folder nor the user has a home, as in some containers.
    """
    if folder := os.environ.get("HUBMODELS_CACHE"):
        return Path(folder).expanduser() / "onnx"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hubmodels" / "onnx"
    except RuntimeError as error:
        raise ExportError(
            "exported networks are kept in the user's home, and there is none: set HUBMODELS_CACHE"
        ) from error


def prepared_path(model: Segmenter) -> Path:
    """Where the exported network of a model is, if it was exported before; other weights have another path."""
    name = re.sub(r"[^a-z0-9]+", "-", model.name.lower())[:60]
    return cache_folder() / f"{name}-{network_digest(model.network)[:32]}-{__version__}-{FORMAT}.onnx"


def is_prepared(model: Segmenter) -> bool:
    """Whether the model was exported before and is still in the cache folder."""
    try:
        return is_plain(model.network) and prepared_path(model).is_file()
    except ExportError:
        return False


def _onnx_segmenter(model: Segmenter) -> Segmenter:
    return Segmenter(
        _prepared(model),
        model.labels,
        name=model.name,
        input_px=model.input_px,
        region_classifier=model.region_classifier,
    ).eval()


def _prepared(model: Segmenter) -> OnnxNetwork:
    """The exported network, from the cache if it is there and sound, else made and kept."""
    if not is_plain(model.network):
        return OnnxNetwork(onnx_bytes(model, describe(model)))
    path, facts = prepared_path(model), describe(model)
    if path.is_file():
        try:
            network = OnnxNetwork(path.read_bytes())
            if network.metadata.get("network_sha256") == facts["network_sha256"]:
                return network
        except (ExportError, OSError):  # damaged, or gone by now: it is made anew, and replaces what is there
            pass
    data = onnx_bytes(model, facts)
    try:
        write_bytes(data, path)
    except OSError as error:
        warnings.warn(f"the exported network cannot be kept in {path.parent}: {error}", RuntimeWarning, stacklevel=2)
    return OnnxNetwork(data)
