"""ONNX Runtime behind the interface of a Segmenter: the same answers, a cache that heals, PyTorch where it fails."""

from __future__ import annotations

import copy
import pickle
import shutil
import sys
import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch import nn

import hubmodels
from hubmodels import PERSON, Refinement, Segmenter, runtime
from hubmodels.cli import main
from hubmodels.entries import find_entry
from hubmodels.errors import ExportError
from hubmodels.onnx_network import OnnxNetwork
from hubmodels.runtime import best_runtime, cache_folder, choose_runtime, prepared_path, with_runtime
from tests.exporting import needs_onnx
from tests.test_folding import used
from tests.test_model_export import Tiny

pytestmark = needs_onnx

NAME = "deeplabv3plus_person"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, person):
    """A cache folder with the exported network, as the command writes it."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBMODELS_CACHE", str(folder))
        path = prepared_path(person)
        assert main(["export", NAME, "--out", str(path)]) == 0
    return folder, path.name


@pytest.fixture
def cache(exported, tmp_path, monkeypatch):
    """A cache of this test's own that holds the exported network; whoever exports again fails the test."""
    shutil.copytree(exported[0], tmp_path / "cache")
    monkeypatch.setenv("HUBMODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "onnx_bytes", lambda *_: pytest.fail("exported again"))
    return tmp_path / "cache" / "onnx" / exported[1]


@pytest.fixture
def onnx(cache) -> Segmenter:
    return hubmodels.load(NAME, runtime="onnx")


@pytest.fixture
def without_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed


def test_probabilities_are_those_of_pytorch_within_a_thousandth(onnx, person, astronaut):
    assert isinstance(onnx.network, OnnxNetwork) and onnx.network.metadata["weights_sha256"] == find_entry(NAME).sha256
    for photo in (astronaut, astronaut[:301, :207], astronaut[:20, :9]):
        assert_allclose(onnx.probabilities(photo), person.probabilities(photo), rtol=0, atol=1e-3)
    photo = astronaut[:200, 100:300]
    options = {"flip": True, "scales": (0.5, 1.0)}
    assert_allclose(onnx.probabilities(photo, **options), person.probabilities(photo, **options), rtol=0, atol=1e-3)


def test_predict_and_tune_work_as_with_pytorch(onnx, person, astronaut):
    settings = Refinement(crf_iterations=2, min_region_px=100)
    photo = astronaut[:256, 100:356]
    ours, theirs = onnx.predict(photo, refinement=settings), person.predict(photo, refinement=settings)
    assert (ours.labels == theirs.labels).mean() > 0.999  # ties of 1e-3 may fall to either side
    assert_array_equal(onnx.tune(photo).refine(settings).labels, ours.labels)


def test_tensors_of_any_size_go_through(onnx, person):
    x = torch.rand(2, 3, 45, 70)
    with torch.inference_mode():
        torch.testing.assert_close(onnx(x), person(x), rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="at least 32"):
        onnx(torch.rand(1, 3, 20, 40))


def test_it_is_for_inference_only(onnx):
    assert onnx.state_dict() == {} and not onnx.training
    with pytest.raises(RuntimeError, match="runtime='torch'"):
        onnx.train()
    with pytest.raises(RuntimeError, match="no gradients"):
        onnx(torch.rand(1, 3, 32, 32, requires_grad=True))


def test_copies_and_pickles_work(onnx, astronaut):
    expected = onnx.predict(astronaut[:80, :60]).probs
    for again in (copy.deepcopy(onnx), pickle.loads(pickle.dumps(onnx))):
        assert_array_equal(again.predict(astronaut[:80, :60]).probs, expected)
        assert again.network.metadata == onnx.network.metadata and not again.training


def test_saving_it_says_what_to_load_instead(onnx, tmp_path):
    with pytest.raises(ValueError, match="load it with runtime='torch' to save it"):
        onnx.save_pretrained(tmp_path)


def test_it_uses_as_many_threads_as_pytorch(cache):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        options = OnnxNetwork(cache.read_bytes())._session.get_session_options()
    finally:
        torch.set_num_threads(before)
    assert options.intra_op_num_threads == 1 and options.inter_op_num_threads == 1


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"<html>"])
def test_a_damaged_file_is_made_anew(cache, person, astronaut, monkeypatch, damage):
    good = cache.read_bytes()
    cache.write_bytes(damage(good))
    monkeypatch.setattr(runtime, "onnx_bytes", lambda *_: good)
    model = with_runtime(person, "onnx")
    assert cache.read_bytes() == good and [path.name for path in cache.parent.iterdir()] == [cache.name]
    photo = astronaut[:64, :64]
    assert_allclose(model.probabilities(photo), person.probabilities(photo), rtol=0, atol=1e-3)


def test_the_file_of_another_network_is_not_used(cache, monkeypatch):
    """A copied or renamed file has the name that is looked for, but says that it was made of other weights."""
    other = hubmodels.load("deeplabv3plus_fashion")
    assert prepared_path(other) != cache
    shutil.copy(cache, prepared_path(other))
    monkeypatch.setattr(runtime, "onnx_bytes", raise_export_error)
    with pytest.raises(ExportError, match="the exporter gave up"):
        with_runtime(other, "onnx")


def raise_export_error(*_):
    raise ExportError("the exporter gave up")


def test_every_change_of_a_network_changes_the_name_of_its_file():
    def path(**options):
        torch.manual_seed(0)
        network = hubmodels.networks.build_network(
            "deeplabv3", num_classes=2, backbone="tf_efficientnet_lite0", channels=8, **options
        )
        return network.eval()

    def name_of(network):
        return prepared_path(Segmenter(network, PERSON, name="x").eval())

    paths = [name_of(path()), name_of(path(output_stride=8))]  # equal weights, other dilations
    for change in (lambda n: n.backbone.mean.add_(0.1), lambda n: n.classifier.bias.data.add_(0.1)):
        network = path()
        change(network)
        paths.append(name_of(network))
    assert len(set(paths)) == 4 and name_of(path()) == paths[0]


class Multiplying(nn.Module):
    """What it computes hangs on more than its modules and weights."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.conv, self.factor = nn.Conv2d(3, 2, 1), factor

    def forward(self, x):
        return self.factor * self.conv(x)


def test_a_network_of_ones_own_is_never_taken_from_the_cache(tmp_path, monkeypatch, astronaut):
    """Its code may have changed since, as by `%autoreload`, and no digest would tell."""
    monkeypatch.setenv("HUBMODELS_CACHE", str(tmp_path))
    photo = astronaut[:64, :64]
    for factor in (2.0, -3.0):
        torch.manual_seed(0)
        model = Segmenter(Multiplying(factor), PERSON, name="own").eval()
        with_onnx = with_runtime(model, "onnx")
        assert isinstance(with_onnx.network, OnnxNetwork)
        assert_allclose(with_onnx.probabilities(photo), model.probabilities(photo), rtol=0, atol=1e-3)
    assert list(tmp_path.iterdir()) == [] and not runtime.is_prepared(model)


@pytest.mark.parametrize("change", ["hook", "forward"])
@pytest.mark.parametrize("first", ["plain", "changed"])
def test_what_a_hook_does_is_neither_kept_nor_left_out(tmp_path, monkeypatch, astronaut, change, first):
    """The cache is everybody's who loads the same weights, and these are the same."""
    monkeypatch.setenv("HUBMODELS_CACHE", str(tmp_path))
    plain = Segmenter(nn.Sequential(nn.Conv2d(3, 2, 1)), PERSON, name="small").eval()
    changed, photo = copy.deepcopy(plain), astronaut[:64, :64]
    if change == "hook":
        changed.network.register_forward_hook(lambda _, __, logits: logits.flip(1))
    else:
        changed.network.forward = lambda x: changed.network[0](x).flip(1)
    for model in (plain, changed) if first == "plain" else (changed, plain):
        with_onnx = with_runtime(model, "onnx")
        assert_allclose(with_onnx.probabilities(photo), model.probabilities(photo), rtol=0, atol=1e-3)
    assert_allclose(plain.probabilities(photo), changed.probabilities(photo)[::-1], rtol=0, atol=1e-6)
    assert runtime.is_prepared(plain) and not runtime.is_prepared(changed)
    assert len(list((tmp_path / "onnx").iterdir())) == 1


def test_many_at_once_leave_one_whole_file(cache, person, monkeypatch):
    good = cache.read_bytes()
    cache.unlink()
    monkeypatch.setattr(runtime, "onnx_bytes", lambda *_: good)
    models: list[Segmenter] = []
    threads = [threading.Thread(target=lambda: models.append(with_runtime(person, "onnx"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 4 and cache.read_bytes() == good
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_where_nothing_can_be_kept_it_is_said_and_works(cache, person, tmp_path, monkeypatch):
    good = cache.read_bytes()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HUBMODELS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(runtime, "onnx_bytes", lambda *_: good)
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        model = with_runtime(person, "onnx")
    assert isinstance(model.network, OnnxNetwork)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HUBMODELS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own" / "onnx"
    monkeypatch.delenv("HUBMODELS_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "hubmodels" / "onnx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "hubmodels" / "onnx"
    monkeypatch.setenv("HUBMODELS_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own" / "onnx"


def test_a_user_without_a_home_gets_pytorch_and_the_remedy(person, monkeypatch):
    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HUBMODELS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert choose_runtime(person, "auto", photos=1) == "torch"
    with pytest.warns(RuntimeWarning, match="set HUBMODELS_CACHE"):
        assert with_runtime(person, "auto") is person
    with pytest.raises(ExportError, match="set HUBMODELS_CACHE"):
        with_runtime(person, "onnx")


def test_without_onnxruntime_onnx_is_refused_with_the_remedy_and_auto_is_pytorch(cache, without_onnxruntime, person):
    assert best_runtime() == "torch"
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        hubmodels.load(NAME, runtime="onnx")
    assert with_runtime(person, "auto") is person


def test_auto_takes_onnx_runtime_where_that_works(cache, person):
    assert best_runtime() == "onnx"
    assert isinstance(with_runtime(person, "auto").network, OnnxNetwork)
    assert with_runtime(person, "torch") is person


def test_auto_exports_for_many_photos_only(cache, person, monkeypatch):
    assert choose_runtime(person, "auto", photos=1) == "onnx"  # it is there already
    cache.unlink()
    assert choose_runtime(person, "auto", photos=1) == "torch"
    assert choose_runtime(person, "onnx", photos=1) == "onnx"
    assert choose_runtime(person, "auto", photos=1000) == choose_runtime(person, "auto") == "onnx"
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # what is there could be used, but not made
    assert choose_runtime(person, "auto", photos=1000) == "torch"


def test_auto_never_fails_where_pytorch_works(cache, person, monkeypatch):
    cache.unlink()
    monkeypatch.setattr(runtime, "onnx_bytes", raise_export_error)
    with pytest.warns(RuntimeWarning, match="as ONNX Runtime cannot: the exporter gave up"):
        assert with_runtime(person, "auto") is person
    with pytest.raises(ExportError):
        with_runtime(person, "onnx")


def test_models_on_other_devices_stay_there():
    model = Segmenter(used(Tiny()).to("meta"), PERSON, name="tiny").eval()
    assert with_runtime(model, "auto") is model
    with pytest.raises(ValueError, match="runs on CPU"):
        with_runtime(model, "onnx")


def test_models_in_half_precision_stay_with_pytorch():
    model = Segmenter(used(Tiny()).to(torch.bfloat16), PERSON, name="tiny").eval()
    assert with_runtime(model, "auto") is model
    with pytest.raises(ValueError, match="float32; leave out half precision"):
        with_runtime(model, "onnx")


def test_unknown_runtimes_are_refused():
    with pytest.raises(ValueError, match="auto, onnx, torch; got 'tensorrt'"):
        hubmodels.load(NAME, runtime="tensorrt")


def test_another_kind_of_onnx_file_is_refused():
    import onnx

    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "other", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 18)])
    with pytest.raises(ExportError, match="expected an ONNX file with input 'image'"):
        OnnxNetwork(model.SerializeToString())


@pytest.mark.parametrize("choice, passes", [("auto", 1), ("onnx", 1), ("torch", 0)])
def test_the_command_uses_it(cache, person, astronaut, tmp_path, monkeypatch, choice, passes):
    calls = []
    real = OnnxNetwork.forward
    monkeypatch.setattr(OnnxNetwork, "forward", lambda self, x: calls.append(1) or real(self, x))
    photo = astronaut[:256, 100:356]
    Image.fromarray(photo).save(tmp_path / "a.png")
    call = ["label", str(tmp_path / "a.png"), "--model", NAME, "--out", str(tmp_path / "out")]
    assert main([*call, "--runtime", choice]) == 0
    assert len(calls) == passes
    labels = np.asarray(Image.open(tmp_path / "out" / "a_mask.png"))
    assert (labels == person.predict(photo).labels).mean() > 0.999
