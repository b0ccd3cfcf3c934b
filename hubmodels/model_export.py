"""Models in formats of others: ONNX, and programs of torch.export. Normalisation is inside, photos may have any size.

Exported by PyTorch's own exporter from a traced graph, and checked against the model before anything is written.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hubmodels import __version__
from hubmodels.errors import ExportError
from hubmodels.files import write_bytes
from hubmodels.labels import hex_colour
from hubmodels.networks.grid import GRID_PX
from hubmodels.networks.tracing import least_px, trace
from hubmodels.onnx_network import INPUT, OUTPUT, OnnxNetwork
from hubmodels.segmenter import Segmenter

OPSET = 18  # of ONNX, from 2022: ONNX Runtime 1.14 and newer
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FACTS = "hubmodels.json"  # in a .pt2 file: what an .onnx file has as metadata
TOLERANCE = 1e-3  # between the model's logits and those of what was exported
CHECKED_SHAPES = ((1, 3, 64, 96), (2, 3, 75, 50))


def export_model(
    model: Segmenter, path: str | Path, *, format: str = "onnx", facts: Mapping[str, str] | None = None
) -> Path:
    """Write a model as a file that runs without hubmodels.

    Args:
        model: in eval mode.
        path: of the file to write, ending in .onnx or .pt2; written at once or not at all.
        format: "onnx", or "torch" for a program that `torch.export.load` reads.
        facts: more for its metadata, such as the digest of the weights the model was loaded from.

    Raises:
        ValueError: another format, or a suffix that belongs to another.
        ImportError: a package of the extra `onnx` is not installed.
        ExportError: it cannot be exported, or what was exported answers otherwise.
    """
    path = Path(path)
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    if path.suffix != FORMATS[format]:
        raise ValueError(f"a file of format {format} must end in {FORMATS[format]}; got {path.name!r}")
    write = onnx_bytes if format == "onnx" else program_bytes
    return write_bytes(write(model, describe(model, **(facts or {}))), path)


def describe(model: Segmenter, **more: str) -> dict[str, str]:
    """What an exported file says about itself."""
    labels = model.labels
    return {
        "hubmodels": __version__,
        "name": model.name,
        "task": labels.task,
        "labels": json.dumps(labels.names),
        "palette": json.dumps(list(map(hex_colour, labels.palette))),
        "input": input_text(GRID_PX),
        "input_px": str(model.input_px),
        "network_sha256": network_digest(model.network),
        "output": f"{OUTPUT}: (N, {len(labels)}, H, W) float32; softmax over axis 1 gives probabilities",
        **more,
    }


def input_text(least_px: int) -> str:
    """What goes into an exported network."""
    return f"{INPUT}: (N, 3, H, W) float32 RGB in 0..1, H and W at least {least_px}; normalisation is inside"


def network_digest(network: nn.Module) -> str:
    """sha256 of all that a network is: its modules with their options, and every tensor, non-persistent ones too."""
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def onnx_bytes(model: Segmenter, facts: dict[str, str]) -> bytes:
    """The model as an ONNX file of opset `OPSET` with `facts` as metadata.

    Raises:
        ImportError, ExportError: as of `export_model`.
    """
    _require_packages()
    import onnx

    program = _trace(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch to itself
            exported: Any = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
        proto = exported.model_proto
        _tidy(proto, {**facts, "opset": str(OPSET)})
        onnx.checker.check_model(proto, full_check=True)
        data = proto.SerializeToString()
    except Exception as error:  # the exporter raises whatever went wrong inside
        raise ExportError(f"{model.name}: PyTorch cannot export it to ONNX: {error!s:.300}") from error
    _check(model, OnnxNetwork(data))
    return data


def program_bytes(model: Segmenter, facts: dict[str, str]) -> bytes:
    """The model as a file for `torch.export.load`, with `facts` as the extra file `FACTS`.

    Raises:
        ExportError: as of `export_model`.
    """
    program = _trace(model)
    _check(model, program.module())
    buffer = io.BytesIO()
    said = {**facts, "input": input_text(least_px(model.network))}  # ONNX Runtime takes the network's own least size
    torch.export.save(program, buffer, extra_files={FACTS: json.dumps(said, sort_keys=True)})
    return buffer.getvalue()


def missing_packages() -> list[str]:
    """Those of the extra `onnx` that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def _require_packages() -> None:
    """Raise ImportError with the line that installs what is missing."""
    if missing := missing_packages():
        raise ImportError(f"export to ONNX needs {', '.join(missing)}: pip install {' '.join(missing)}")


def can_trace() -> bool:
    """Whether this PyTorch traces networks for any size: 2.9 does, 2.10 converts them to ONNX too."""
    return "prefer_deferred_runtime_asserts_over_guards" in inspect.signature(torch.export.export).parameters


def _trace(model: Segmenter) -> torch.export.ExportedProgram:
    if model.training:
        raise ValueError("expected a model in eval mode; call model.eval() first")
    if not can_trace():
        raise ExportError(f"PyTorch {torch.__version__} cannot trace networks for any size; 2.10 can")
    try:
        return trace(model.network)
    except Exception as error:  # torch.export raises whatever went wrong inside
        raise ExportError(f"{model.name}: PyTorch cannot trace it: {error!s:.300}") from error


def _tidy(proto: Any, facts: dict[str, str]) -> None:
    """Names of source files go, facts come, and sizes get names that say what they are."""
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, proto.graph):
        del part.metadata_props[:]
        part.doc_string = ""
    del proto.graph.value_info[:]  # sizes of every map in terms of the input's; runtimes infer what they need
    del proto.metadata_props[:]
    proto.producer_name, proto.producer_version = "hubmodels", __version__
    for key, value in sorted(facts.items()):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
            value.type.tensor_type.shape.dim[axis].dim_param = name


@torch.inference_mode()
def _check(model: Segmenter, exported: nn.Module) -> None:
    """Raise ExportError unless both answer the same to noise."""
    generator = torch.Generator().manual_seed(0)
    like = next(model.network.parameters(), torch.empty(0))
    # What is exported computes in float32, also of a model in half precision.
    network = model.network if like.dtype == torch.float32 else copy.deepcopy(model.network).float()
    for shape in CHECKED_SHAPES:
        x = torch.rand(shape, generator=generator)
        expected = network(x.to(like.device)).cpu()
        worst = float((exported(x) - expected).abs().max())
        if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ExportError(f"{model.name}: logits of the exported network differ by up to {worst:.2g}")
