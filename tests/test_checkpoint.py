"""Checkpoints: whole or as before, without code in them, and what is taken out of them for export and for new runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest
import torch

from hubmodels.entries import ENTRIES
from hubmodels.errors import OutputError
from hubmodels.hub import read_weights
from hubmodels.networks import build_network
from tests.tiny_runs import TINY
from training.average import main as average
from training.checkpoint import load_checkpoint, load_run, save_checkpoint
from training.engine import network_for, select_tasks, task_rows
from training.errors import DataError, run_command
from training.export import export, export_folder, to_float16
from training.import_checkpoint import main as import_checkpoint
from training.recipe import label_counts
from training.seeds import score_seeds
from training.segmenters import load_segmenter


def test_a_kill_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint({"epoch": 1}, path)

    def half_written(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({"epoch": 2}, path)
    assert load_checkpoint(path) == {"epoch": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_that_does_not_fit_ends_a_command_in_one_line(tmp_path):
    """PyTorch's own error would hide the system's; of a full disk it comes likewise."""
    resource = pytest.importorskip("resource", reason="Unix alone limits the size of files")
    path, limits = tmp_path / "last.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    save_checkpoint({"epoch": 1}, path)

    def too_large() -> None:
        save_checkpoint({"weights": torch.zeros(100_000)}, path)

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(SystemExit, match=r"last\.pt: File too large; make room, or name another place$"):
            run_command(too_large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path) == {"epoch": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"x": subprocess.Popen}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match=r"bad\.pt: expected a checkpoint .*torch refuses \(Weights only load failed"):
        load_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    "content", [b"0.5\n", b"hello\n", b"\x80\x02e", b"\x80\x02J", b"X\xff\xff"], ids=lambda content: content.hex()
)
def test_files_of_other_kinds_are_no_checkpoints(tmp_path, content):
    (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"other\.pt: expected a checkpoint of training\.train.*torch refuses"):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize("main", [average, import_checkpoint])
def test_a_folder_is_no_place_for_a_checkpoint_and_that_is_said_before_the_work(tmp_path, main):
    """Of files that are not there it would be said while they are read."""
    with pytest.raises(
        OutputError, match=r"expected a file to write; got a folder: name a file in it, such as .*/\w+\.pt"
    ):
        main(["u2net", "none.pt", "--out", str(tmp_path)])
    assert not [*tmp_path.iterdir()] and not tmp_path.with_suffix(".tmp").exists()


def test_a_checkpoint_that_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="out"):
        save_checkpoint({"epoch": 1}, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("content", [{"w": torch.ones(1)}, {"recipe": {}}, torch.ones(1), []], ids=str)
def test_a_plain_state_dict_is_no_run(tmp_path, content):
    path = tmp_path / "plain.pt"
    torch.save(content, path)
    person = ENTRIES["deeplabv3plus_person"]
    for call in (
        lambda: load_run(path),
        lambda: average([str(path), str(path), "--out", str(tmp_path / "mean.pt")]),
        lambda: export(path, person),
        lambda: export_folder(path, tmp_path / "out"),
        lambda: load_segmenter(str(path), "person"),
        lambda: score_seeds(person, [path, path], data=tmp_path),
        lambda: network_for(dataclasses.replace(TINY, init=str(path))),
    ):
        with pytest.raises(
            DataError, match=r"plain\.pt: expected a checkpoint of training\.train; got a file without rec"
        ):
            call()


def test_exported_weights_answer_like_the_checkpoint(tmp_path, monkeypatch):
    """Of a network for both tasks, the rows of one; float16 on disk costs less than 1 % of the logits' range."""
    entry = ENTRIES["deeplabv3plus_person"]
    torch.manual_seed(0)
    both = build_network(entry.arch, num_classes=9, **entry.network).eval()
    recipe = {"tasks": ["fashion", "person"]}
    save_checkpoint({"recipe": recipe, "ema": both.state_dict()}, tmp_path / "best.pt")
    monkeypatch.setattr("training.export.WEIGHTS_FOLDER", tmp_path)
    path = export(tmp_path / "best.pt", entry)
    measured = json.loads((tmp_path / "manifest.json").read_text())[entry.name]
    assert measured["size_bytes"] == path.stat().st_size

    from safetensors.torch import load_file

    alone = build_network(entry.arch, num_classes=2, **entry.network).eval()
    alone.load_state_dict(load_file(path))
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected, got = both(x)[:, 7:], alone(x)
    assert (expected - got).abs().max() < 0.01 * (expected.max() - expected.min())


def test_float16_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="1e\\+06 does not fit"):
        to_float16({"w": torch.tensor([1e6])})
    small = to_float16({"bn.running_var": torch.tensor([1e-12]), "n": torch.tensor(3)})
    assert small["bn.running_var"] > 0 and small["n"].dtype == torch.int64


def test_tasks_are_selected_by_their_rows():
    state = {
        "classifier.weight": torch.arange(9.0)[:, None],
        "classifier.bias": torch.arange(9.0),
        "other": torch.ones(1),
    }
    person = select_tasks(state, label_counts(["fashion", "person"]), {"person": 2})
    assert person["classifier.bias"].tolist() == [7, 8] and person["other"] == 1
    swapped = select_tasks(state, label_counts(["fashion", "person"]), label_counts(["person", "fashion"]))
    assert swapped["classifier.bias"].tolist() == [7, 8, 0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(KeyError, match="not trained for task 'person'"):
        select_tasks(state, {"fashion": 7}, {"person": 2})
    assert task_rows(label_counts(["person", "fashion"])) == {"person": slice(0, 2), "fashion": slice(2, 9)}


def test_rows_of_dense_upsampling_go_with_their_task():
    """It has several channels for each label, those of a label one after the other."""
    state = {
        "classifier.weight": torch.arange(9.0)[:, None],
        "classifier.bias": torch.arange(9.0),
        "dense_upsampling.bias": torch.arange(36.0),
    }
    both = label_counts(["fashion", "person"])
    assert select_tasks(state, both, {"person": 2})["dense_upsampling.bias"].tolist() == list(range(28, 36))
    swapped = select_tasks(state, both, label_counts(["person", "fashion"]))["dense_upsampling.bias"]
    assert swapped.tolist() == [*range(28, 36), *range(28)]
    fill = {key: -torch.ones(len(value) * 7 // 9, *value.shape[1:]) for key, value in state.items()}
    other = select_tasks(state, {"mine": 9}, {"fashion": 7}, fill=fill)
    assert other["dense_upsampling.bias"].tolist() == [-1] * 28 and other["classifier.bias"].tolist() == [-1] * 7


def test_a_run_can_give_dense_upsampling_to_a_network_that_had_none():
    """It starts at zero, so that the answers of tasks that the network knows do not change."""
    entry = ENTRIES["deeplabv3plus_person"]
    recipe = dataclasses.replace(TINY, init=entry.name, network={**entry.network, "dense_upsampling": True})
    net = network_for(recipe)
    published = build_network(entry.arch, num_classes=2, **entry.network)
    published.load_state_dict(read_weights(entry, published))
    assert net.dense_upsampling.weight.shape == (9 * 16, 128, 3, 3) and not net.dense_upsampling.weight.any()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(x)[:, 7:], published.eval()(x), atol=1e-4, rtol=1e-4)


def test_a_run_can_start_from_a_published_model():
    entry = ENTRIES["deeplabv3plus_person"]
    recipe = dataclasses.replace(TINY, init=entry.name, network=dict(entry.network))
    torch.manual_seed(0)
    net = network_for(recipe)
    published = build_network(entry.arch, num_classes=2, **entry.network)
    wanted = read_weights(entry, published)
    assert torch.equal(net.classifier.weight[7:], wanted["classifier.weight"])  # rows of person; fashion stays random
    assert torch.equal(net.aspp.project[0].weight, wanted["aspp.project.0.weight"])
