"""Training in several processes, in half precision and after kill -9, by the commands that users type."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from numpy.testing import assert_allclose

from hubmodels.metrics import IGNORE, Scores
from tests.conftest import ROOT
from tests.drawn_data import draw_data
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import RecipeError
from training.launch import missing_processes
from training.processes import add_up, check_batch, check_photos, check_started, dropout_seed, pixel_factors, share
from training.recipe import read_recipe
from training.train import Run, train

ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1", "--nproc_per_node", "2"]
PATIENCE_S = 600  # for a subprocess; seconds on a quiet machine

# Nothing here depends on who else is in the batch: no batch norm, no dropout, and cross-entropy is a mean over pixels.
# Views leave the photo and tags stay undecided, so that shares differ in the number of pixels that count.
ALONE = """
tasks = ["fashion"]
arch = "u2net_small"
epochs = 2
init = "random"
sources = ["fashionista", "ccp"]
deep_supervision = true
freeze_batch_norm = true
optimizer = "sgd"
schedule = "poly"
lr = 0.05
weight_decay = 0.0
batch_size = 4
eval_long_side_px = 64
compile = false
[crf]
iterations = 1
lr_factor = 10000.0
appearance_sigma_px = 20.0
smoothness_sigma_px = 2.0
[augment]
crop_hw = [64, 48]
scale = [0.5, 1.2]
"""

# All that may differ between one process and two: batch norm, dropout, Dice, views that leave the photo.
TOGETHER = """
tasks = ["fashion", "person"]
arch = "deeplabv3plus"
epochs = 2
init = "random"
repeat = { fashionista = 2 }
loss = { cross_entropy = 1.0, dice = 0.5 }
schedule = "plateau"
plateau_epochs = 1
lr = 3e-3
batch_size = 4
eval_long_side_px = 64
compile = false
[network]
channels = 8
decoder_channels = 8
low_channels = 8
[augment]
crop_hw = [64, 48]
scale = [0.9, 1.1]
"""


@pytest.fixture(autouse=True)
def one_thread():
    """As OMP_NUM_THREADS says to subprocesses: bits depend on how sums are cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_state():
    """Precision belongs to the whole Python process, and can be set once."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Four photos to train on, three for val."""
    splits = {"train": [1, 2, 3, 4], "val": [5, 6, 7]}
    return draw_data(tmp_path_factory.mktemp("drawn") / "data", np.random.default_rng(0), count=7, splits=splits)


def recipe_file(folder, text):
    path = folder / "drawn.toml"
    path.write_text(text)
    return path


def start(call, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(ROOT / "no-settings")}
    if call[:2] == TORCHRUN[:2]:
        environment["ACCELERATE_USE_CPU"] = "true"
    return subprocess.Popen([sys.executable, *call], cwd=ROOT, env=environment, text=True, **options)


def finish(call):
    process = start(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-6000:]
    return out + errors


def command(recipe, drawn, runs, *options):
    return ["-m", "training.train", str(recipe), "--data", str(drawn), "--runs", str(runs), *options]


def rows_of(folder):
    """The log without the time it took."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_end(first, second):
    """Two folders of runs whose log and last checkpoint are equal, bit for bit."""
    assert rows_of(first) == rows_of(second)
    assert_same_bits(load_checkpoint(first / "last.pt"), load_checkpoint(second / "last.pt"))


def assert_same_bits(first, second, path=""):
    """Nested dicts and lists of tensors and plain values."""
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_same_bits(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same_bits(*pair, f"{path}/{index}")
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second, path


# Several processes


def test_two_processes_take_the_steps_of_one(drawn, tmp_path):
    """Where nothing depends on the company in a batch: the same curve and weights, up to the rounding of sums."""
    recipe = recipe_file(tmp_path, ALONE)
    one = train(read_recipe(recipe), folder=tmp_path / "one", data=drawn)
    printed = finish([*ACCELERATE, *command(recipe, drawn, tmp_path / "runs")])
    assert printed.count("2 processes on cpu") == printed.count('{"epoch": 2') == 1  # the second one is silent
    assert sorted(path.name for path in (tmp_path / "runs" / "drawn").iterdir()) == ["best.pt", "last.pt", "log.jsonl"]

    expected, got = rows_of(tmp_path / "one"), rows_of(tmp_path / "runs" / "drawn")
    assert [row["loss"] for row in got] == pytest.approx([row["loss"] for row in expected], abs=2e-4)
    for ours, theirs in zip(got, expected, strict=True):  # confusion matrices of all three val photos
        seen = ([math.nan if iou is None else iou for iou in each["fashion"]["iou"]] for each in (ours, theirs))
        assert_allclose(*seen, atol=0.2)

    start_weights = Run(one.recipe, tmp_path / "none").net.state_dict()
    state = load_checkpoint(tmp_path / "runs" / "drawn" / "last.pt")
    for name, value in one.net.named_parameters():
        moved, apart = ((value.detach() - other[name]).norm() for other in (start_weights, state["net"]))
        assert apart <= 1e-4 * moved + 1e-7, name
    moved = 3.0 - one.crfs.state_dict()["fashion.appearance_weight"]  # DenseCRF starts at 3
    apart = one.crfs.state_dict()["fashion.appearance_weight"] - state["crfs"]["fashion.appearance_weight"]
    assert abs(moved) > 1e-3 and abs(apart) < 0.01 * abs(moved)


def test_two_processes_end_with_equal_weights_and_resume(drawn, tmp_path):
    recipe = recipe_file(tmp_path, TOGETHER)
    train(read_recipe(recipe), folder=tmp_path / "one", data=drawn)
    finish([*TORCHRUN, "-m", "tests.trained_in_processes", str(recipe), str(drawn), str(tmp_path)])
    whole, other, parts, parts_of_other = (
        torch.load(tmp_path / name, weights_only=True) for name in ("whole0.pt", "whole1.pt", "parts0.pt", "parts1.pt")
    )
    assert_same_bits(whole, parts)
    assert_same_bits(other, parts_of_other)
    assert_same_bits(whole["ema"], other["ema"])
    assert whole["scores"] == other["scores"] and len(whole["scores"]) == 2  # both know what "plateau" looks at
    statistics = {name for name in whole["net"] if "running_" in name or "num_batches" in name}
    assert statistics and all(torch.equal(v, other["net"][k]) for k, v in whole["net"].items() if k not in statistics)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")

    losses = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("one", "whole")]
    assert_allclose(losses[1], losses[0], rtol=0.1)  # within noise; another seed moves them as much


@pytest.mark.parametrize(
    "call, count",
    [
        ("python -m accelerate.commands.launch --num_processes 2 --cpu -m training.train x.toml --resume", 2),
        ("/bin/python /bin/accelerate launch --cpu --num-processes=3 -m training.train x.toml", 3),
        ("python /bin/accelerate-launch --num_processes 2 --cpu --num_machines 1 -m training.train x.toml", 2),
        ("/bin/bash run.sh --num_processes 2", 0),
        ("python /bin/accelerate test --num_processes 2", 0),
        ("", 0),
    ],
)
def test_the_number_of_processes_is_read_where_it_was_typed(call, count):
    environment = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    assert missing_processes(environment, call.split()) == count
    for other in ({}, {"MASTER_ADDR": "127.0.0.1"}, {**environment, "LOCAL_RANK": "0"}):  # plain python, GPUs, torchrun
        assert missing_processes(other, call.split()) == 0


def test_the_number_of_processes_may_come_from_a_file(tmp_path):
    path = tmp_path / "settings.yaml"
    lines = ("compute_environment: LOCAL_MACHINE", "distributed_type: MULTI_CPU", "use_cpu: true", "num_processes: 4")
    path.write_text("\n".join(lines))
    environment = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    call = ["python", "/bin/accelerate", "launch", "--config_file", str(path), "-m", "training.train", "x.toml"]
    assert missing_processes(environment, call) == 4
    with pytest.raises(RecipeError, match="torchrun on each"):
        missing_processes(environment, [*call[:3], "--num_machines", "2", *call[3:]])


def test_processes_that_would_not_work_together_are_refused():
    torchrun = {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    check_started(torchrun, 2)
    check_started({"WORLD_SIZE": "2"}, 1)  # a cluster's variable, no launcher's
    with pytest.raises(ValueError, match=r"2 processes were started, Accelerate makes 1.*--cpu"):
        check_started(torchrun, 1)


def test_a_batch_is_shared_out_in_order():
    places = [SimpleNamespace(num_processes=3, process_index=index) for index in range(3)]
    assert [share(np.arange(6), place).tolist() for place in places] == [[0, 1], [2, 3], [4, 5]]
    check_batch(6, "x", places[0])
    with pytest.raises(RecipeError, match="multiple of the 3 processes; got 7 photos: set batch_size to 9"):
        check_batch(7, "x", places[0])
    for count, batch_size in ((6, 9), (9, 9), (10, 9), (3, 9)):
        check_photos(count, batch_size, "x", places[0])
    with pytest.raises(
        RecipeError, match=r"photos for a batch of 9, .* 3 processes; got 5: set batch_size to 3, start"
    ):
        check_photos(5, 9, "x", places[0])
    with pytest.raises(RecipeError, match="got 2: start one process, or add photos"):
        check_photos(2, 9, "x", places[0])
    seeds = {dropout_seed(seed, step, place) for seed in range(3) for step in range(50) for place in places}
    assert len(seeds) == 450 and dropout_seed(2, 5, places[0]) == 2 * 1_000_003 + 5


def test_shares_count_by_their_pixels():
    labels = {"person": torch.tensor([[[1, 0, IGNORE, IGNORE]]]), "fashion": torch.full((1, 1, 4), IGNORE)}
    soft = {"fashion": torch.full((1, 7, 1, 3), 1 / 7)}
    others = torch.tensor([[6.0, 0.0], [0.0, 1.0]])  # decided and taught pixels of the other process
    two = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda counts, how: counts + others)
    factors = pixel_factors(labels, soft, two)
    assert factors["person"] == (pytest.approx(2 * 2 / 8), 0) and factors["fashion"] == (0, pytest.approx(2 * 3 / 4))
    assert pixel_factors(labels, soft, SimpleNamespace(num_processes=1))["person"] == (1.0, 1.0)


def test_scores_of_all_processes_are_added_up():
    scores = {"person": Scores(2)}
    scores["person"].add(np.array([[0, 1]]), np.array([[1, 1]]), with_boundary=False)
    others = torch.tensor([7, 0, 0, 1, 3])  # confusion matrix, photos
    two = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda counts, how: counts + others)
    add_up(scores, two)
    assert scores["person"].confusion.tolist() == [[7, 1], [0, 2]] and scores["person"].images == 4
    assert scores["person"].confusion.dtype == np.int64


# Precision


def test_bf16_computes_in_half_precision_and_averages_in_full(drawn, tmp_path, fresh_state, monkeypatch):
    recipe = read_recipe(recipe_file(tmp_path, TOGETHER))
    in_half = dataclasses.replace(recipe, mixed_precision="bf16")
    seen, real = [], Run.__init__

    def listening(run, *args, **kwargs):
        real(run, *args, **kwargs)
        run.net.classifier.register_forward_hook(lambda module, inputs, answer: seen.append(answer.dtype))

    monkeypatch.setattr(Run, "__init__", listening)
    run = train(in_half, folder=tmp_path / "half", data=drawn)
    assert set(seen) == {torch.bfloat16}  # validation goes through the averaged copy
    for net in (run.net, run.ema.net):
        assert {value.dtype for value in net.state_dict().values()} == {torch.float32, torch.int64}
    AcceleratorState._reset_state(reset_partial_state=True)
    train(in_half, folder=tmp_path / "full", data=drawn, mixed_precision="no")  # the caller's word goes first
    losses = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("half", "full")]
    assert losses[0] != losses[1]
    assert_allclose(losses[0], losses[1], rtol=0.05)


def test_a_precision_that_cannot_work_says_why(drawn, tmp_path, fresh_state):
    recipe = read_recipe(recipe_file(tmp_path, TOGETHER))
    with pytest.raises(ValueError, match=r"no, bf16, fp16; got 'fp8'"):
        Run(recipe, tmp_path, mixed_precision="fp8")
    with pytest.raises(RecipeError, match=r"mixed_precision must be one of no, bf16, fp16; got 'half'"):
        dataclasses.replace(recipe, mixed_precision="half")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="fp16 needs a GPU"):
            Run(recipe, tmp_path, mixed_precision="fp16")


# Kills

# Writes half of the checkpoint that closes the second epoch, and waits for its end.
HALF_WRITTEN = """
import io, signal, sys, torch, training.train
real = torch.save
def save(state, file):
    if not (file.name.endswith("last.tmp") and state["epoch"] == 2):
        return real(state, file)
    whole = io.BytesIO()
    real(state, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    print("half written", flush=True)
    signal.pause()
torch.save = save
training.train.main(sys.argv[1:])
"""


def test_a_killed_run_resumes_and_ends_with_the_same_bits(drawn, tmp_path):
    """Killed within an epoch, and while writing a checkpoint."""
    recipe = recipe_file(tmp_path, TOGETHER.replace("fashionista = 2", "fashionista = 5"))  # 6 steps an epoch
    whole = tmp_path / "whole"
    train(read_recipe(recipe), folder=whole, data=drawn)

    killed, last = tmp_path / "killed" / "drawn", tmp_path / "killed" / "drawn" / "last.pt"
    call = command(recipe, drawn, tmp_path / "killed")
    with (tmp_path / "errors.txt").open("w+") as errors:
        process = start([*call, "--checkpoint-seconds", "0"], stderr=errors)
        deadline = time.monotonic() + PATIENCE_S
        while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()  # SIGKILL
        process.wait()
        errors.seek(0)
        assert last.is_file(), errors.read()
    state = load_checkpoint(last)
    assert 0 < state["step_in_epoch"] <= 6 and len(state["losses"]) == state["step_in_epoch"]
    finish([*call, "--resume"])
    assert_same_end(killed, whole)

    half = tmp_path / "half" / "drawn"
    call = ["-c", HALF_WRITTEN, *command(recipe, drawn, tmp_path / "half")[2:]]
    with (tmp_path / "errors.txt").open("w+") as errors:
        process = start(call, stdout=subprocess.PIPE, stderr=errors)
        said = process.stdout.readline()  # empty if it died before
        process.kill()
        process.communicate()
        errors.seek(0)
        assert said == "half written\n", errors.read()
    assert [row["epoch"] for row in rows_of(half)] == [1, 2]
    with pytest.raises(RuntimeError):
        torch.load(half / "last.tmp", weights_only=True)
    assert load_checkpoint(half / "last.pt")["epoch"] == 1
    train(read_recipe(recipe), folder=half, data=drawn, resume=True)
    assert_same_end(half, whole)  # the second epoch is in the log once
    kept = ["best.pt", "best_fashion.pt", "best_person.pt", "last.pt", "log.jsonl"]  # no temporary file
    assert sorted(path.name for path in half.iterdir()) == kept


def test_a_checkpoint_from_before_several_processes_resumes(tmp_path):
    recipe = read_recipe(recipe_file(tmp_path, TOGETHER))
    run = Run(recipe, tmp_path)
    run.step_in_epoch = 1
    run.save()
    state = load_checkpoint(tmp_path / "last.pt")
    del state["losses"], state["scores"]
    save_checkpoint(state, tmp_path / "last.pt")
    again = Run(recipe, tmp_path)
    again.resume()
    assert again.step_in_epoch == 1 and again.losses == []
    assert {name.split(".")[0] for name in state["net"]} == {"backbone", "aspp", "low", "decoder", "classifier"}
