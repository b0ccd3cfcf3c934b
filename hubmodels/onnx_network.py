"""A network that ONNX Runtime runs, behind the interface of an nn.Module; on CPU and for inference only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hubmodels.errors import ExportError

PIP_LINE = "pip install onnxruntime"
INPUT, OUTPUT = "image", "logits"


class OnnxNetwork(nn.Module):
    """An exported network: (N, 3, H, W) float RGB in 0..1 -> (N, C, H, W) float32 logits, on CPU.

    Args:
        data: the ONNX file. It is untrusted: no extensions are loaded, and nothing but it is read.

    Attributes:
        metadata: what the file says about itself.

    Raises:
        ImportError: onnxruntime is not installed.
        ExportError: not an ONNX file, or one of another kind.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data, self._session = data, _open(data)
        names = [each.name for each in (*self._session.get_inputs(), *self._session.get_outputs())]
        if names != [INPUT, OUTPUT]:
            raise ExportError(f"expected an ONNX file with input {INPUT!r} and output {OUTPUT!r}; got {names}")
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch, of the dtype and on the device of `x`.

        Raises:
            RuntimeError: a gradient is asked for.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("ONNX Runtime computes no gradients; load the model with runtime='torch'")
        array = x.detach().to("cpu", torch.float32).contiguous().numpy()
        return torch.from_numpy(self._session.run([OUTPUT], {INPUT: array})[0]).to(x)

    def __reduce__(self) -> tuple[type[OnnxNetwork], tuple[bytes]]:
        """Copies and pickles open the file anew, as a session is of one process."""
        return type(self), (self._data,)

    def train(self, mode: bool = True) -> OnnxNetwork:
        """Only eval mode exists."""
        if mode:
            raise RuntimeError("ONNX Runtime cannot train; load the model with runtime='torch'")
        return super().train(mode)


def _open(data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"runtime 'onnx' needs onnxruntime: {PIP_LINE}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Threads sleep when there is nothing to do: post-processing runs right after the network, on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a class of its own for every kind of failure
        raise ExportError(f"ONNX Runtime cannot read the exported network: {error!s:.300}") from error
