"""Networks as graphs: traced once by torch.export, for photos of any size and number."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

from hubmodels.networks.folding import fold_batch_norms, is_plain, replace_module
from hubmodels.networks.grid import GRID_PX
from hubmodels.networks.u2net import U2Net

SAME_PADDED = ("SameConv2d", "Conv2dSame")  # convolutions padded as in TensorFlow: ours, and timm's
TRACED_SHAPE = (2, 3, 90, 70)  # neither 1, which is always traced as a constant, nor square, nor on the grid


def trace(network: nn.Module) -> ExportedProgram:
    """The graph of an eval network: (N, 3, H, W) float32 RGB in 0..1 -> (N, C, H, W) float32 logits, any N, H, W.

    H and W are `least_px` or more; smaller ones are refused when it runs. Batch norms are folded if the
    network `is_plain`, normalisation is part of the graph. Nothing in it tells where it was made.

    Raises:
        ValueError: the network is in training mode.
    """
    if any(module.training for module in network.modules()):
        raise ValueError("expected a network in eval mode; call network.eval() first")
    shapes = {0: Dim("n", min=1), 2: Dim("h", min=GRID_PX), 3: Dim("w", min=GRID_PX)}
    x = torch.zeros(TRACED_SHAPE)
    with torch.inference_mode(False), torch.no_grad():
        # What has to be known about sizes is checked when the graph runs, not proved beforehand: the prover is weak.
        program = export(
            AnySize(_traceable(network)).eval(),
            (x,),
            dynamic_shapes=(shapes,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    _out_of_place(program.graph_module)
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):  # names of files, among others
            node.meta.pop(key, None)
    return program


def least_px(network: nn.Module) -> int:
    """The smallest height and width that the graph of a network takes.

    At 32 the deepest map of U-2-Net is a single pixel, whose size would be traced as a constant.
    """
    return GRID_PX + any(isinstance(module, U2Net) for module in network.modules())


class AnySize(nn.Module):
    """A network that gets sizes on the grid only: others are padded as the network itself would, and cropped after.

    Written with operators whose sizes torch.export can reason about.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, C, H, W)."""
        height, width = x.shape[2:]
        rows, columns = (
            torch.arange((size + GRID_PX - 1) // GRID_PX * GRID_PX, device=x.device).clamp(max=size - 1)
            for size in (height, width)
        )
        logits = self.network(x.index_select(2, rows).index_select(3, columns))  # replicates the last row and column
        logits = torch.ops.aten.narrow_copy(logits, 2, 0, height)
        return torch.ops.aten.narrow_copy(logits, 3, 0, width)


class PaddedConv2d(nn.Sequential):
    """A convolution with "same" padding as TensorFlow does it, for sizes that are whole multiples of its stride.

    Then the padding is a constant: what the kernel covers beyond its stride, the odd pixel at the end.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        totals = [
            max((kernel - 1) * dilation + 1 - stride, 0)
            for kernel, dilation, stride in zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
        ]
        top, left = (total // 2 for total in totals)
        padding = (left, totals[1] - left, top, totals[0] - top)
        plain = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # a pair, as PyTorch stores it
            conv.stride,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        plain.weight, plain.bias = conv.weight, conv.bias
        super().__init__(nn.ZeroPad2d(padding), plain)


def _out_of_place(graph: torch.fx.GraphModule) -> None:
    """Activations that overwrite what nothing else reads become ordinary ones, which exporters handle far quicker."""
    aten = torch.ops.aten
    ordinary = {
        aten.relu_.default: aten.relu.default,
        aten.relu6_.default: aten.relu6.default,
        aten.hardtanh_.default: aten.hardtanh.default,
        aten.hardswish_.default: aten.hardswish.default,
    }
    for node in graph.graph.nodes:
        if node.target in ordinary and len(node.args[0].users) == 1:
            node.target = ordinary[node.target]
    graph.recompile()


def _traceable(network: nn.Module) -> nn.Module:
    """A copy for sizes on the grid, on CPU in float32, that is quick to trace: it computes no paddings."""
    network = copy.deepcopy(network).cpu().float()
    if is_plain(network):
        network = fold_batch_norms(network)
    for name, module in list(network.named_modules()):
        if type(module).__name__ in SAME_PADDED:
            assert isinstance(module, nn.Conv2d)
            replace_module(network, name, PaddedConv2d(module))
    return network.to(memory_format=torch.contiguous_format).eval()
