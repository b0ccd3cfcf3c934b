"""Models in formats of others answer as they do here, at any size, and say what they are."""

from __future__ import annotations

import copy
import functools
import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from hubmodels import PERSON, Segmenter, model_export
from hubmodels.cli import main
from hubmodels.errors import ExportError
from hubmodels.model_export import FACTS, OPSET, export_model, program_bytes
from hubmodels.networks import build_network
from hubmodels.networks.tracing import least_px
from tests.conftest import ROOT
from tests.exporting import needs_onnx
from tests.test_folding import used

pytestmark = needs_onnx

NETWORKS = {
    "deeplabv3plus": {"arch": "deeplabv3plus", "backbone": "tf_efficientnet_lite0", "channels": 16},
    "deeplabv3": {
        "arch": "deeplabv3",
        "backbone": "tf_efficientnet_lite0",
        "channels": 16,
        "output_stride": 8,
        "dense_upsampling": True,
    },
    "u2net_small": {"arch": "u2net_small"},
}
SIZES = [(1, 64, 96), (2, 96, 64), (1, 33, 50), (3, 50, 133), (1, 256, 190)]  # on the grid and off it; none was traced


class Tiny(nn.Module):
    """A network that is quick to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.conv(x))


@pytest.fixture
def tiny() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(used(Tiny()), PERSON, name="tiny").eval()


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=list(NETWORKS))
def exported(request, tmp_path_factory):
    """A model with its .onnx and .pt2; untrained, but with batch norms as after a training. Traced only once."""
    torch.manual_seed(0)
    network = used(build_network(num_classes=2, **request.param))
    with torch.no_grad():  # untrained networks answer nearly the same for every pixel, or amplify rounding
        last = network.outconv if "u2net" in request.param["arch"] else network.classifier
        last.weight.mul_(0.3 / network(torch.rand(1, 3, 64, 64)).std())
        if "dense_upsampling" in request.param:  # which starts at zero
            nn.init.normal_(network.dense_upsampling.weight, std=0.01)
    model = Segmenter(network, PERSON, name="untrained").eval()
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_export, "trace", functools.cache(model_export.trace))
        files = [
            export_model(model, folder / f"model{suffix}", format=format, facts={"weights_sha256": "ab" * 32})
            for format, suffix in (("onnx", ".onnx"), ("torch", ".pt2"))
        ]
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.pt2"]
    return model, *files


def photos(model, n, h, w):
    """Noise and the model's answer, which varies by far more than the tolerance."""
    x = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(h))
    with torch.inference_mode():
        expected = model(x).numpy()
    assert expected.std() > 0.1
    return x, expected


@pytest.fixture(scope="module")
def session(exported):
    import onnxruntime

    return onnxruntime.InferenceSession(exported[1], providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def program(exported):
    """The .pt2 as a callable, and what it says about itself."""
    extra = {FACTS: ""}
    module = torch.export.load(exported[2], extra_files=extra).module()
    return module, json.loads(extra[FACTS])


@pytest.mark.parametrize("n, h, w", [*SIZES, (1, 32, 32)])
def test_onnx_runtime_answers_as_pytorch_does_at_any_size(exported, session, n, h, w):
    x, expected = photos(exported[0], n, h, w)
    (logits,) = session.run(None, {"image": x.numpy()})
    assert logits.dtype == np.float32 and logits.shape == expected.shape
    assert np.abs(logits - expected).max() < 1e-3


def test_the_program_of_torch_export_answers_the_same_at_any_size_and_refuses_too_small_ones(exported, program):
    least = least_px(exported[0].network)
    assert f"H and W at least {least};" in program[1]["input"]
    for n, h, w in [*SIZES, (1, least, least)]:
        x, expected = photos(exported[0], n, h, w)
        with torch.inference_mode():
            assert np.abs(program[0](x).numpy() - expected).max() < 1e-3
    with pytest.raises(AssertionError, match=">= 32"):
        program[0](torch.rand(1, 3, 20, 40))
    if least > 32:
        with pytest.raises(RuntimeError):
            program[0](torch.rand(1, 3, least - 1, 64))


def test_the_files_say_what_they_are_and_not_where_they_were_made(exported, session, program):
    import onnx

    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["labels"]) == ["background", "person"]
    assert told["opset"] == str(OPSET) and told["weights_sha256"] == "ab" * 32
    assert told["name"] == "untrained" and "normalisation is inside" in told["input"]
    proto = onnx.load(exported[1])
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", OPSET)]
    assert [session.get_inputs()[0].shape, session.get_outputs()[0].shape] == [["N", 3, "H", "W"], ["N", 2, "H", "W"]]
    assert "H and W at least 32;" in told["input"]
    assert program[1] | {"input": told["input"]} == {key: value for key, value in told.items() if key != "opset"}
    for path in exported[1:]:
        data = path.read_bytes()
        assert not any(place in data for place in (str(ROOT).encode(), b"site-packages", b"tracing.py"))


def test_batch_norms_and_computed_paddings_are_gone(exported):
    import onnx

    kinds = [node.op_type for node in onnx.load(exported[1]).graph.node]
    assert "BatchNormalization" not in kinds and kinds.count("Conv") > 40


def test_hooks_within_are_exported_and_half_precision_becomes_float32(person, tmp_path):
    model = copy.deepcopy(person)
    model.network.aspp.project[0].register_forward_hook(lambda _, __, y: y.clamp(-0.05, 0.05))
    x = torch.rand(1, 3, 64, 96)
    for each in (model, copy.deepcopy(person).bfloat16()):
        path = export_model(each, tmp_path / "model.pt2", format="torch")
        with torch.inference_mode():
            answer, expected = torch.export.load(path).module()(x), each.float()(x)
        assert (answer - expected).abs().max() < 1e-3


def test_what_answers_otherwise_is_not_written(tiny, tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"what was there before")
    other = Segmenter(used(Tiny()), PERSON, name="other").eval()
    with torch.no_grad():
        other.network.conv.weight.mul_(1.1)
    monkeypatch.setattr(model_export, "trace", lambda _: real(other.network))
    real = sys.modules["hubmodels.networks.tracing"].trace
    with pytest.raises(ExportError, match="differ by up to"):
        export_model(tiny, path, format="torch")
    assert path.read_bytes() == b"what was there before" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_traced_is_said(tmp_path):
    class Strange(Tiny):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)

    with pytest.raises(ExportError, match="odd: PyTorch cannot trace it"):
        export_model(Segmenter(Strange(), PERSON, name="odd").eval(), tmp_path / "odd.pt2", format="torch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path, format, message",
    [
        ("x.pt2", "onnx", r"format onnx must end in \.onnx; got 'x\.pt2'"),
        ("x.pt", "torch", r"must end in \.pt2"),
        ("x.tflite", "tflite", "must be one of onnx, torch"),
    ],
)
def test_wrong_formats_and_suffixes_are_refused(tiny, path, format, message):
    with pytest.raises(ValueError, match=message):
        export_model(tiny, path, format=format)


def test_an_old_pytorch_says_from_which_one_on_it_works(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(model_export, "can_trace", lambda: False)
    with pytest.raises(ExportError, match=r"cannot trace networks for any size; 2\.10 can"):
        export_model(tiny, tmp_path / "x.pt2", format="torch")


def test_training_mode_is_refused(tiny):
    with pytest.raises(ValueError, match="eval"):
        program_bytes(tiny.train(), {})


def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    assert main(["export", "deeplabv3plus_person", "--out", str(tmp_path / "x.onnx")]) == 2
    said = capsys.readouterr().err
    assert "pip install onnxscript" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
