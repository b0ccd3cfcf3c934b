"""U-2-Net: the published structure, its sides and their loss, training it, and the authors' weights from ONNX."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import zipfile

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hubmodels.networks import build_network
from hubmodels.networks.u2net import ResidualU, U2Net
from tests.conftest import ROOT
from tests.drawn_data import draw_data
from training.checkpoint import save_checkpoint
from training.engine import network_for, pretrained_parameters, select_tasks
from training.errors import DataError, RecipeError
from training.losses import cross_entropy, deeply_supervised
from training.recipe import Recipe, read_recipe
from training.train import Run, train
from training.transforms import Augment
from training.u2net_onnx import (
    WHEEL_MODELS,
    batch_norms,
    calibrate_batch_norm,
    network_from_onnx,
    packaged_onnx,
    read_convolutions,
)

RECIPE = Recipe(
    name="tiny",
    tasks=("person",),
    arch="u2net_small",
    augment=Augment(crop_hw=(64, 48), scale=(0.9, 1.1)),
    epochs=1,
    init="random",
    sources=("fashionista",),
    deep_supervision=True,
    batch_size=2,
    eval_long_side_px=64,
    compile=False,
)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_network("u2net_small", num_classes=2).eval()


@pytest.fixture(scope="module")
def onnx_path():
    """u2netp.onnx of the `train` extra, where it can be read and run."""
    for module in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install '.[train]'")
    try:
        return packaged_onnx()
    except DataError as error:
        pytest.skip(str(error))


def published_names() -> set[str]:
    """Names of the authors' tensors, written down from fig. 5 and table 1: 112 blocks, six sides and their fusion."""
    heights = {"stage1": 7, "stage2": 6, "stage3": 5, "stage4": 4, "stage5": 4}
    heights |= {f"{stage}d": height for stage, height in heights.items()} | {"stage6": 4}
    tensors = ["conv_s1.weight", "conv_s1.bias"]
    tensors += [f"bn_s1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    names = {
        f"{head}.{kind}" for head in ("outconv", *(f"side{i}" for i in range(1, 7))) for kind in ("weight", "bias")
    }
    for stage, height in heights.items():
        blocks = ["in", *(str(i) for i in range(1, height + 1)), *(f"{i}d" for i in range(1, height))]
        names |= {f"{stage}.rebnconv{block}.{tensor}" for block in blocks for tensor in tensors}
    return names


@pytest.mark.parametrize("options, parameters", [({}, 44_009_869), ({"small": True}, 1_131_181)], ids=["full", "small"])
def test_names_and_parameter_counts_are_those_of_the_release(options, parameters):
    with torch.device("meta"):
        net = U2Net(num_classes=1, **options)
    assert set(net.state_dict()) == published_names() and len(batch_norms(net)) == 112
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_channels_are_those_of_table_1():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in U2Net(num_classes=1).state_dict().items()}
    assert shapes["stage1.rebnconvin.conv_s1.weight"] == (64, 3, 3, 3)
    assert shapes["stage4.rebnconv3.conv_s1.weight"] == (128, 128, 3, 3)
    assert shapes["stage5d.rebnconvin.conv_s1.weight"] == (512, 1024, 3, 3)
    assert shapes["stage1d.rebnconv1d.conv_s1.weight"] == (64, 32, 3, 3)
    assert [shapes[f"side{i}.weight"][1] for i in range(1, 7)] == [64, 64, 128, 256, 512, 512]
    assert shapes["outconv.weight"] == (1, 6, 1, 1)


def test_blocks_dilate_where_they_no_longer_pool():
    pooled, dilated = ResidualU(7, 3, 2, 4), ResidualU(4, 3, 2, 4, dilated=True)

    def rates(block):
        return {name: getattr(block, name).conv_s1.dilation[0] for name, _ in block.named_children()}

    assert {name for name, rate in rates(pooled).items() if rate != 1} == {"rebnconv7"}
    assert rates(dilated) == {
        "rebnconvin": 1, "rebnconv1": 1, "rebnconv2": 2, "rebnconv3": 4, "rebnconv4": 8,
        "rebnconv3d": 4, "rebnconv2d": 2, "rebnconv1d": 1,
    }  # fmt: skip


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 32), (97, 130)])
def test_every_map_has_the_size_of_the_input_whatever_it_is(small, size):
    with torch.inference_mode():
        maps = small.forward_sides(torch.rand(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(2, 2, *size)] * 7


def test_any_size_is_seen_as_if_padded_to_the_grid(small):
    x = torch.rand(1, 3, 70, 45)
    with torch.inference_mode():
        whole = small(F.pad(x, (0, 19, 0, 26), mode="replicate"))
        torch.testing.assert_close(small(x), whole[..., :70, :45])


def test_the_first_map_fuses_the_other_six(small):
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        fused, *sides = small.forward_sides(x)
        torch.testing.assert_close(fused, small.outconv(torch.cat(sides, dim=1)))
        assert torch.equal(small(x), fused)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    net = build_network("u2net_small", num_classes=2).train()
    net(torch.rand(2, 3, 64, 64)).square().mean().backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []


def test_mean_and_deviation_are_applied_inside_and_not_stored(small):
    seen = []
    hook = small.stage1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        small(torch.full((1, 3, 32, 32), 0.5))
    hook.remove()
    expected = (0.5 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(seen[0][0, :, 0, 0], expected, rtol=1e-5)
    assert not {"mean", "std"} & set(small.state_dict())


def test_wrong_arguments_say_what_is_expected(small):
    with pytest.raises(ValueError, match="1 or more; got 0"):
        U2Net(num_classes=0, small=True)
    with pytest.raises(ValueError, match=r"H, W >= 32; got \(1, 3, 31, 64\)"):
        small(torch.rand(1, 3, 31, 64))


# Loss


def test_the_loss_of_several_maps_by_hand():
    """One pixel of class 1 whose probability the maps put at .5 and .8: the mean of two cross-entropies."""
    maps = [torch.tensor([1 - p, p]).log().view(1, 2, 1, 1) for p in (0.5, 0.8)]
    loss = deeply_supervised(maps, torch.ones(1, 1, 1, dtype=torch.long), {"cross_entropy": 2.0})
    assert loss.item() == pytest.approx(2 * -(math.log(0.5) + math.log(0.8)) / 2)


def test_cross_entropy_of_two_classes_is_the_binary_one_of_the_paper():
    """Of the logits' difference: softmax over (a, b) gives b the sigmoid of b - a."""
    logits, target = torch.randn(2, 2, 4, 5), torch.randint(0, 2, (2, 4, 5))
    binary = F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], target.float())
    torch.testing.assert_close(cross_entropy(logits, target), binary)


# Training


def test_training_moves_body_and_heads_and_every_side_is_asked(tmp_path):
    """Three drawn photos in batches of two: one step, then validation; a second epoch goes on from it."""
    drawn = draw_data(tmp_path / "data", np.random.default_rng(0))
    before = Run(RECIPE, tmp_path / "run").net.state_dict()
    run = train(dataclasses.replace(RECIPE, epochs=2), folder=tmp_path / "run", data=drawn)
    after = run.net.state_dict()
    still = [name for name, value in before.items() if value.is_floating_point() and torch.equal(value, after[name])]
    # A batch norm takes away what the bias of its convolution adds; those gradients are rounding errors.
    assert [name for name in still if not name.endswith("conv_s1.bias")] == []
    assert (tmp_path / "run" / "best.pt").is_file() and run.best >= 0


def test_heads_and_body_are_groups_of_their_own(tmp_path):
    run = Run(dataclasses.replace(RECIPE, backbone_lr_factor=0.25), tmp_path)
    body, heads = run.optimizer.param_groups
    assert (body["factor"], heads["factor"]) == (0.25, 1.0)
    assert {id(p) for p in body["params"]} == {id(p) for p in pretrained_parameters(run.net)}
    assert len(body["params"]) == 4 * 112 and len(heads["params"]) == 2 * 7


def test_another_task_keeps_the_body_and_begins_with_new_heads(tmp_path, small):
    path = tmp_path / "imported.pt"
    save_checkpoint({"recipe": {"tasks": ["person"]}, "ema": small.state_dict()}, path)
    same = network_for(dataclasses.replace(RECIPE, init=str(path)))
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in same.state_dict().items())
    other = network_for(dataclasses.replace(RECIPE, init=str(path), tasks=("fashion",)))
    assert torch.equal(other.stage3.rebnconvin.conv_s1.weight, small.stage3.rebnconvin.conv_s1.weight)
    assert other.outconv.weight.shape == (7, 42, 1, 1)
    with pytest.raises(KeyError, match=r"trained for \['person'\], not for \['fashion'\]"):
        select_tasks(small.state_dict(), {"person": 2}, {"fashion": 7})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"init": "imagenet"}, r"no weights for U-2-Net.*import_checkpoint"),
        ({"tasks": ["person", "fashion"]}, "one task.*'person', 'fashion'"),
        ({"arch": "deeplabv3"}, "deep_supervision needs arch u2net.*'deeplabv3'"),
        (
            {
                "arch": "ensemble",
                "network": {"members": [{"arch": "u2net_small"}, {"arch": "u2net_small"}]},
                "init": "imagenet",
                "deep_supervision": False,
            },
            "is for one network, not for an ensemble",
        ),
    ],
)
def test_a_recipe_that_cannot_work_says_why(change, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(RECIPE.to_dict() | change)


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("u2net_small_person", "runs/u2netp/imported.pt"),
        ("u2net_small_fashion", "u2net_small_person"),
        ("u2net_person_fashionista", "runs/u2net_authors/imported.pt"),
        ("u2net_person", "runs/u2net_person_fashionista/best.pt"),
        ("u2net_fashion_ccp", "runs/u2net_person/mean.pt"),
        ("u2net_fashion", "runs/u2net_fashion_ccp/best.pt"),
    ],
)
def test_recipes_supervise_every_depth(name, init):
    recipe = read_recipe(ROOT / "training" / "recipes" / f"{name}.toml")
    assert recipe.deep_supervision and recipe.init == init


# The authors' weights


def square(photo: np.ndarray, *, side_px: int) -> torch.Tensor:
    x = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(x, (side_px, side_px), mode="bilinear", antialias=True)


def test_the_network_answers_like_onnx_runtime_before_and_after_calibration(onnx_path, astronaut):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    net, x = network_from_onnx(onnx_path, small=True), square(astronaut, side_px=320)
    wanted = session.run(None, {session.get_inputs()[0].name: ((x - net.mean) / net.std).numpy()})

    def largest_difference():
        with torch.inference_mode():
            got = [logits.sigmoid().numpy() for logits in net.forward_sides(x)]
        return max(float(np.abs(a - b).max()) for a, b in zip(got, wanted, strict=True))

    assert largest_difference() < 1e-3  # measured 1e-4: 119 convolutions, each with its own rounding
    calibrate_batch_norm(net, [astronaut], long_side_px=96)
    assert largest_difference() < 1e-3


def test_calibrated_batch_norms_survive_training_mode(onnx_path, astronaut):
    """Neutral ones rescale every map by the batch; this is what they are calibrated for."""
    neutral, calibrated = network_from_onnx(onnx_path, small=True), network_from_onnx(onnx_path, small=True)
    photos = [np.ascontiguousarray(astronaut[:, ::step]) for step in (1, -1)]
    calibrate_batch_norm(calibrated, photos, long_side_px=160)
    x = torch.cat([square(photo, side_px=160) for photo in photos])
    with torch.no_grad():
        wanted = neutral(x).sigmoid()
        differences = [(net.train()(x).sigmoid() - wanted).abs().mean().item() for net in (calibrated, neutral)]
    assert differences[0] < 0.02 and differences[1] > 0.1


def test_calibration_by_hand():
    """A batch norm that sees 0 and 2 in one photo, 4 and 6 in the other: mean 3, variance 5."""
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))
    nn.init.zeros_(net[0].bias)
    net[0].weight.data = torch.tensor([255.0, 0, 0]).view(1, 3, 1, 1)  # the red channel in 0..255
    photos = []
    for low, high in ((0, 2), (4, 6)):
        photo = np.full((32, 32, 3), low, np.uint8)
        photo[16:] = high
        photos.append(photo)
    calibrate_batch_norm(net, photos, long_side_px=32)
    norm = net[1]
    values = [norm.running_mean, norm.running_var, norm.bias, norm.weight**2 - norm.eps]
    assert [value.item() for value in values] == pytest.approx([3, 5, 3, 5], rel=1e-5)
    with pytest.raises(ValueError, match="at least one photo"):
        calibrate_batch_norm(net, [])


def test_an_onnx_file_of_another_network_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    weight, bias = np.zeros((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)
    tensors = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")]
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], tensors)
    path = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    assert [w.shape for w, _ in read_convolutions(path)] == [(4, 3, 3, 3)]
    with pytest.raises(DataError, match=r"other\.onnx: expected the 119 convolutions.*got 1"):
        network_from_onnx(path, small=True)
    path.write_bytes(b"\xff\xff not onnx")
    with pytest.raises(DataError, match="not an ONNX file"):
        network_from_onnx(path, small=True)
    del node.input[2]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], tensors)), str(path))
    with pytest.raises(DataError, match="no stored weight and bias"):
        network_from_onnx(path, small=True)


def test_the_full_network_is_read_from_a_wheel_with_known_content_only(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    convs = [m for m in U2Net(num_classes=1, small=False).modules() if isinstance(m, torch.nn.Conv2d)]
    nodes, tensors = [], []
    for index, conv in enumerate(convs):
        for kind, shape in (("w", conv.weight.shape), ("b", conv.bias.shape)):
            values = np.full(tuple(shape), index + (kind == "b") / 2, np.float32)
            tensors.append(onnx.numpy_helper.from_array(values, f"{kind}{index}"))
        nodes.append(onnx.helper.make_node("Conv", ["x", f"w{index}", f"b{index}"], [f"y{index}"]))
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], tensors)).SerializeToString()
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("rembg/u2net.onnx", model)
    with pytest.raises(DataError, match=r"some-1\.0.*expected u2net\.onnx.*download the wheel again"):
        network_from_onnx(wheel, small=False)
    monkeypatch.setitem(WHEEL_MODELS, "u2net.onnx", hashlib.sha256(model).hexdigest())
    net = network_from_onnx(wheel, small=False)
    got = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.weight.min().item(), c.weight.max().item(), c.bias.max().item()) for c in got] == [
        (index, index, index + 0.5) for index in range(len(convs))
    ]
    with pytest.raises(DataError, match="convolutions of u2net_small in order"):
        network_from_onnx(wheel, small=True)


def test_a_wheel_without_a_model_is_refused(tmp_path):
    pytest.importorskip("onnx")
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("rembg/other.onnx", b"")
    with pytest.raises(DataError, match=r"expected one of \['u2net\.onnx'\].*got none"):
        read_convolutions(wheel)
    wheel.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"some-1\.0.*cannot be read"):
        read_convolutions(wheel)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("training.u2net_onnx.PACKAGE", "no-such-package")
    with pytest.raises(DataError, match="pip install no-such-package"):
        packaged_onnx()
