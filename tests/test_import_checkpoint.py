"""Original checkpoints, drawn at random, answer the same after the import; what else comes in a file is refused."""

from __future__ import annotations

import dataclasses
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

import hubmodels
from hubmodels.errors import WeightsError
from hubmodels.networks import build_network
from tests.drawn_data import draw_data
from tests.test_u2net import RECIPE, onnx_path  # noqa: F401
from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine import network_for
from training.errors import DataError
from training.export import export_folder
from training.import_checkpoint import (
    TORCHVISION_DEEPLABV3,
    calibration_photos,
    import_file,
    import_torchvision_deeplabv3,
    import_u2net,
    main,
    read_state,
    voc_person,
)
from training.segmenters import load_segmenter


def randomised(net: nn.Module, *, seed: int = 0) -> nn.Module:
    """Batch norms with statistics and weights of their own, so that none can be mixed up; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return randomised(build_network("u2net_small", num_classes=1))


def test_an_imported_u2net_gives_the_sigmoid_as_its_second_probability(original, tmp_path):
    torch.save(original.state_dict(), tmp_path / "u2netp.pth")
    out = tmp_path / "run" / "imported.pt"
    main(["u2net_small", str(tmp_path / "u2netp.pth"), "--out", str(out)])
    net = network_for(dataclasses.replace(RECIPE, init=str(out))).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for theirs, ours in zip(original.forward_sides(x), net.forward_sides(x), strict=True):
            torch.testing.assert_close(ours.softmax(1)[:, 1], theirs.sigmoid()[:, 0], atol=1e-5, rtol=0)
            assert not ours[:, 0].any()
    model = load_segmenter(str(out), "person")
    assert model.input_px == 320
    torch.testing.assert_close(model(x), net(x), atol=1e-4, rtol=0)
    export_folder(out, tmp_path / "folder")
    loaded = hubmodels.load(tmp_path / "folder")
    assert loaded.name == "imported" and loaded.labels.names == ("background", "person")
    old = load_checkpoint(out) | {"recipe": {"tasks": ["person"]}}  # as it was written before
    save_checkpoint(old, out)
    with pytest.raises(DataError, match=r"imported\.pt: .* it lacks name, arch, network, eval_long_side_px: if "):
        export_folder(out, tmp_path / "folder")


def test_the_full_network_is_imported_too():
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in build_network("u2net", num_classes=2).state_dict().items()}
    got = import_u2net(build_network("u2net", num_classes=1).state_dict(), small=False)
    assert {name: value.shape for name, value in got.items()} == wanted


def test_old_files_do_not_count_batches(original):
    state = {name: value for name, value in original.state_dict().items() if "num_batches" not in name}
    assert len(import_u2net(state, small=True)) == len(original.state_dict())


def test_a_file_of_the_other_size_is_refused_with_a_remedy(original, tmp_path):
    torch.save(original.state_dict(), tmp_path / "u2net.pth")
    with pytest.raises(WeightsError, match=r"u2net\.pth: .* expected .*is it a checkpoint of the other"):
        import_file("u2net", str(tmp_path / "u2net.pth"))


@pytest.mark.parametrize(
    "content, message",
    [
        ({"weight": subprocess.Popen}, "expected a plain state dict.*torch refuses"),
        (nn.Conv2d(1, 1, 1), "expected a plain state dict.*torch refuses"),
        ({"epoch": 3, "w": torch.zeros(1)}, r"got \['Tensor', 'int'\]"),
        ([torch.zeros(1)], "got list"),
    ],
    ids=["code", "module", "not only tensors", "list"],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=message):
        read_state(tmp_path / "bad.pth")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.pth: no checkpoint there"):
        read_state(tmp_path / "none.pth")
    for content in (b"", b"not a checkpoint", b"PK\x03\x04 half an archive"):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.pth: expected a plain state dict"):
            read_state(tmp_path / "bad.pth")


@pytest.fixture(scope="module")
def torchvision_net():
    from torchvision.models.segmentation import deeplabv3_resnet101

    torch.manual_seed(0)
    return randomised(deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)).double()


def test_torchvisions_deeplabv3_answers_the_same(torchvision_net):
    """In float64: random weights make logits of 1e5, where float32 rounds to 1e-2."""
    net = build_network("deeplabv3", num_classes=21, **TORCHVISION_DEEPLABV3).eval().double()
    net.load_state_dict(import_torchvision_deeplabv3(torchvision_net.state_dict()))
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        theirs = torchvision_net((x - net.backbone.mean) / net.backbone.std)["out"]  # it expects normalised colours
        ours = net(x)
    assert theirs.std() > 1  # a constant answer would prove nothing
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_of_torchvisions_classes_background_and_person_are_kept(torchvision_net, monkeypatch):
    monkeypatch.setattr("training.import_checkpoint.read_state", lambda path: torchvision_net.state_dict())  # 480 MB
    state = import_file("deeplabv3_resnet101", "voc.pth")
    assert torch.equal(state["classifier.weight"], torchvision_net.state_dict()["classifier.4.weight"][[0, 15]])
    with pytest.raises(DataError, match=r"expected 21 classes.*got 2"):
        voc_person(state)
    with pytest.raises(DataError, match=r"expected torchvision's deeplabv3_resnet101; it has no tensor.*convs\.4"):
        import_torchvision_deeplabv3(state)


def test_a_tensor_too_many_is_refused(torchvision_net):
    state = torchvision_net.state_dict() | {"classifier.9.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 unknown \['classifier\.9\.weight'\]"):
        import_torchvision_deeplabv3(state)


def test_the_packaged_onnx_is_imported_and_marks_the_astronaut(onnx_path, tmp_path, astronaut, monkeypatch):  # noqa: F811
    monkeypatch.setattr("training.import_checkpoint.calibration_photos", lambda data: [astronaut[::4, ::4]])  # quick
    out = tmp_path / "imported.pt"
    main(["u2net_small", "onnx", "--out", str(out)])
    net = network_for(dataclasses.replace(RECIPE, init=str(out))).eval()
    x = torch.tensor(astronaut).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        person = net(nn.functional.interpolate(x, (320, 320), mode="bilinear", antialias=True)).softmax(1)[0, 1]
    assert person[40:100, 120:160].mean() > 0.95 and person[:, :80][:120].mean() < 0.05  # her face; the flag


def test_without_the_data_photos_of_scikit_image_calibrate(tmp_path):
    photos = calibration_photos(tmp_path)
    assert len(photos) == 4 and all(photo.dtype == np.uint8 and photo.shape[2] == 3 for photo in photos)


def test_photos_of_the_train_split_calibrate(tmp_path):
    drawn = draw_data(tmp_path, np.random.default_rng(0))
    photos = calibration_photos(drawn)
    assert [photo.shape for photo in photos] == [(64, 48, 3)] * 3  # of at most 16, those that there are
