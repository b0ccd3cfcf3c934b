"""The command, as a user calls it."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels.cli import build_parser, main
from hubmodels.commands.label import _refinement, _say_what_does_nothing
from hubmodels.entries import DEFAULTS, ENTRIES
from hubmodels.files import write_bytes
from hubmodels.hub import with_labels
from hubmodels.labels import LabelSet
from hubmodels.refine.settings import PRESETS, SETTINGS
from hubmodels.segmenter import Segmenter
from hubmodels.settings_files import read_settings
from tests.conftest import ROOT
from tests.folders import names

RESULTS = ("mask.png", "overlay.jpg")


@pytest.fixture
def photos(tmp_path, astronaut):
    """a.png and more/{b.jpg, deep/a.png, notes.txt}"""
    deep = tmp_path / "in" / "more" / "deep"
    deep.mkdir(parents=True)
    Image.fromarray(astronaut[:256, :256]).save(tmp_path / "in" / "a.png")
    Image.fromarray(astronaut[:200, 100:300]).save(deep.parent / "b.jpg")
    Image.fromarray(astronaut[256:, :256]).save(deep / "a.png")
    (deep.parent / "notes.txt").write_text("not a photo")
    return tmp_path / "in"


def test_a_mask_and_an_overlay_per_photo_and_a_summary(photos, tmp_path, capsys, fashion, astronaut):
    out = tmp_path / "out"
    assert main(["label", str(photos / "a.png"), str(photos / "more"), "--task", "fashion", "--out", str(out)]) == 0
    assert names(out) == [
        "a_mask.png", "a_overlay.jpg", "b_mask.png", "b_overlay.jpg", "deep/a_mask.png", "deep/a_overlay.jpg",
    ]  # fmt: skip
    expected = fashion.predict(astronaut[:256, :256]).labels
    assert_array_equal(np.asarray(Image.open(out / "a_mask.png")), expected)
    said = capsys.readouterr()
    assert "3 of 3 photos labelled" in said.out and "mean area: background" in said.out
    assert "3/3" in said.err  # the progress bar


@pytest.fixture(scope="module")
def person():
    """What `--task person` stands for."""
    return hubmodels.load(DEFAULTS["person"])


def test_settings_reach_the_result(photos, tmp_path, person, astronaut):
    out = tmp_path / "out"
    call = ["label", str(photos / "a.png"), "--task", "person", "--out", str(out)]
    assert main([*call, "--crf-iterations", "2", "--superpixel-scale", "200", "--min-region-px", "500"]) == 0
    settings = hubmodels.Refinement(crf_iterations=2, superpixel_scale=200, min_region_px=500)
    expected = person.predict(astronaut[:256, :256], refinement=settings).labels
    assert_array_equal(np.asarray(Image.open(out / "a_mask.png")), expected)


def test_half_precision(photos, tmp_path, person, astronaut, monkeypatch, capsys):
    """Where the processor is known to emulate it, that is said."""
    out = tmp_path / "out"
    for capability, said in (("AVX512", False), ("AVX2", True)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        assert main(["label", str(photos / "a.png"), "--task", "person", "--bf16", "--out", str(out)]) == 0
        assert ("does not compute in bf16" in capsys.readouterr().err) == said
    expected = copy.deepcopy(person).to(torch.bfloat16).predict(astronaut[:256, :256]).labels
    assert_array_equal(np.asarray(Image.open(out / "a_mask.png")), expected)


def test_settings_come_from_a_file_and_options_go_on_top(photos, tmp_path, person, astronaut):
    tuned = hubmodels.Refinement(person_threshold=0.3, min_region_px=900, keep_largest=True)
    (tmp_path / "tuned.json").write_text(json.dumps(tuned.to_dict()))
    call = ["label", str(photos / "a.png"), "--task", "person", "--out", str(tmp_path / "out")]
    assert main([*call, "--settings", str(tmp_path / "tuned.json"), "--min-region-px", "50"]) == 0
    settings = dataclasses.replace(tuned, min_region_px=50)
    expected = person.predict(astronaut[:256, :256], refinement=settings).labels
    assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a_mask.png")), expected)


def test_every_setting_has_an_option():
    values = {name: s.choices[-1] if s.choices else s.high for name, s in SETTINGS.items()}
    options = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    arguments = build_parser().parse_args(["label", "a.jpg", "--out", "o", *options])
    wanted = hubmodels.Refinement(**values)
    assert _refinement(arguments, "person") == wanted
    assert all(
        type(getattr(wanted, name)) is type(getattr(arguments, name)) for name, s in SETTINGS.items() if s.choices
    )


@pytest.mark.parametrize(
    "options, said",
    [
        (["--merge", "cut", "--vote", "majority"], "--merge, --vote without --superpixel-scale"),
        (
            ["--superpixel-sigma", "1", "--keep-confident", "0.9"],
            "--superpixel-sigma, --keep-confident without",
        ),
        (["--crf-smoothness-weight", "1"], "--crf-smoothness-weight without --crf-iterations"),
        (["--superpixel-scale", "9", "--merge-clusters", "9"], "--merge-clusters without --merge"),
        (
            ["--crf-appearance-weight", "1", "--merge-threshold", "9"],
            "--crf-iterations; --merge-threshold without --superpixel-scale\n",  # and not without --merge as well
        ),
        (["--superpixel-scale", "9", "--merge", "cut", "--merge-threshold", "9", "--vote", "majority"], None),
        (["--merge", "off", "--crf-iterations", "2", "--crf-smoothness-weight", "1"], None),
        (["--preset", "gentle", "--crf-smoothness-weight", "1", "--min-region-px", "9"], None),
        (["--settings", "idle.json"], None),
        (["--superpixel-scale", "60", "--superpixel-foreground", "true"], "--superpixel-foreground with two labels"),
        (["--superpixel-scale", "60", "--superpixel-foreground", "true", "--vote", "classifier"], None),
    ],
)
def test_options_that_do_nothing_are_named(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    Path("idle.json").write_text('{"merge": "cut", "crf_smoothness_weight": 1}')
    arguments = build_parser().parse_args(["label", "a.jpg", "--out", "o", *options])
    values = None if arguments.settings is None else read_settings(arguments.settings)[0]
    _say_what_does_nothing(arguments, _refinement(arguments, "person", values), labels=2)
    error = capsys.readouterr().err
    assert error == "" if said is None else error.startswith("these options do nothing: ") and said in error
    assert error.count("\n") == (said is not None)


def test_the_commands_of_the_readme_are_understood():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", readme, re.S) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("hubmodels ")]
    assert {command[0] for command in commands} >= {"demo", "info", "label", "list", "space", "tune"}
    for command in commands:
        build_parser().parse_args(command)  # ends the test if it is not


def test_a_preset_is_that_of_the_task():
    for task in DEFAULTS:
        for preset in PRESETS:
            arguments = build_parser().parse_args(["label", "a.jpg", "--out", "o", "--preset", preset])
            assert _refinement(arguments, task) == hubmodels.Refinement.preset(preset, task=task)


def test_a_bad_photo_is_reported_and_the_rest_goes_on(photos, tmp_path, capsys, person):
    (photos / "more" / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    out = tmp_path / "out"
    assert main(["label", str(photos / "more"), "--task", "person", "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "broken.jpg" in said.err and "2 of 3 photos labelled" in said.out
    assert "broken_mask.png" not in names(out)
    share = np.mean([person.predict(photos / "more" / name).areas()["person"] for name in ("b.jpg", "deep/a.png")])
    (told,) = re.findall(r"mean area: .*person ([\d.]+) %", said.out)
    assert float(told) == pytest.approx(100 * share, abs=0.06)  # of those that were labelled


@pytest.fixture
def quick(monkeypatch):
    """A small network, so that many photos take no time."""
    monkeypatch.setattr("hubmodels.segmenter.working_size", lambda *_, **__: (32, 32))
    return ["--task", "person", "--runtime", "torch"]


def test_results_that_cannot_be_written_are_reported_and_the_rest_goes_on(tmp_path, quick, capsys):
    """A name as long as names may be, and one that is longer once it is that of an overlay."""
    (tmp_path / "in").mkdir()
    long = "n" * (255 - len("_overlay.jpg"))
    for name in ("a", long, f"{long}n", "z"):
        Image.new("L", (40, 32)).save(tmp_path / "in" / f"{name}.png")
    assert main(["label", str(tmp_path / "in"), *quick, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert re.search(r"hubmodels: .*nn\.png: ", said.err) and "3 of 4 photos labelled" in said.out
    assert set(names(tmp_path / "out")) == {f"{name}_{of}" for name in ("a", long, "z") for of in RESULTS}


def test_a_photo_wider_than_a_jpeg_can_be_has_a_smaller_overlay(tmp_path, quick):
    Image.new("L", (66_000, 32)).save(tmp_path / "wide.png")
    assert main(["label", str(tmp_path / "wide.png"), *quick, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out/wide_mask.png") as mask, Image.open(tmp_path / "out/wide_overlay.jpg") as overlay:
        assert mask.size == (66_000, 32) and overlay.size == (65_500, 32)


@pytest.mark.parametrize("allocate", [torch.empty, np.empty], ids=["torch", "numpy"])
def test_a_photo_too_large_for_the_memory_is_reported_and_the_rest_goes_on(
    photos, tmp_path, quick, monkeypatch, capsys, allocate
):
    predict, photos_seen = Segmenter.predict, []

    def greedy(self, photo, **options):
        photos_seen.append(photo)
        if len(photos_seen) == 1:
            allocate(2**55)
        return predict(self, photo, **options)

    monkeypatch.setattr(Segmenter, "predict", greedy)
    out = tmp_path / "out"
    assert main(["label", str(photos / "a.png"), str(photos / "more/b.jpg"), *quick, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "a.png: needs more memory than there is" in said.err and "Traceback" not in said.err
    assert said.out.startswith("1 of 2 photos labelled") and names(out) == ["b_mask.png", "b_overlay.jpg"]


def test_other_faults_of_the_network_are_not_taken_for_a_lack_of_memory(photos, tmp_path, quick, monkeypatch):
    def broken(self, photo, **options):
        raise RuntimeError("size of tensor a must match")

    monkeypatch.setattr(Segmenter, "predict", broken)
    with pytest.raises(RuntimeError, match="must match"):
        main(["label", str(photos), *quick, "--out", str(tmp_path / "out")])


def test_a_full_disk_ends_the_run(photos, tmp_path, quick, monkeypatch, capsys):
    """With what was done until then, and how to go on once there is room."""
    written = []

    def full(data: bytes, path: Path) -> Path:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write_bytes(data, path)

    out, call = tmp_path / "out", ["label", str(photos), *quick, "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr("hubmodels.result_files.write_bytes", full)
        assert main(call) == 2
    said = capsys.readouterr()
    assert said.err.count("No space left") == 1 and "Errno" not in said.err
    assert f"--out {out} can take no more results: No space left on device; the same call with --resume" in said.err
    assert said.out.startswith("1 of 3 photos labelled") and names(out) == ["a_mask.png", "a_overlay.jpg"]
    assert main([*call, "--resume"]) == 0
    assert "1 of 3 photos are labelled already" in capsys.readouterr().err


def test_list_and_info_print_the_table(capsys):
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    listed = {line.split()[0] for line in table.splitlines()[1:]}
    assert listed == set(hubmodels.list_models()) and "mIoU" in table
    assert main(["info", "deeplabv3plus_person"]) == 0
    facts = capsys.readouterr().out
    entry = ENTRIES["deeplabv3plus_person"]
    assert entry.sha256 in facts and f"{100 * entry.metrics['miou']:.1f} mIoU" in facts


@pytest.mark.parametrize(
    "call, message",
    [
        (["info", "deeplab_person"], "did you mean"),
        (["label", "none.jpg", "--out", "o"], "none.jpg"),
        (["label", ".", "--out", "o", "--model", "deeplabv3plus_person", "--task", "fashion"], "leave out"),
        (["label", ".", "--out", "o", "--min-region-px", "-5"], "min_region_px"),
        (["label", ".", "--out", "o", "--vote", "loudly"], "vote must be one of"),
        (["label", ".", "--out", "o", "--settings", "none.json"], "none.json"),
        (["label", ".", "--out", "o", "--settings", "list.json"], "expected a JSON object"),
        (["label", ".", "--out", "o", "--settings", "broken.json"], "broken.json: expected a JSON file"),
        (
            ["label", ".", "--out", "o", "--settings", "text.json"],
            "text.json: crf_iterations must be a number",
        ),
        (["export", "deeplabv3_resnet101", "--out", "x.onnx"], "an architecture to train, without weights"),
        (["space", "o", "--private"], "--private is for --push"),
        (["publish", "deeplabv3plus_person", "user", "--dry-run"], "user: expected user/name"),
        (
            ["label", ".", "--out", "o", "--task", "fashion", "--person-threshold", "0.4"],
            "person_threshold is for two labels, but deeplabv3plus_fashion has 7",
        ),
        (
            "label . --out o --model u2net_small_fashion --superpixel-scale 60 --vote classifier".split(),
            "vote 'classifier' needs a model with a region classifier; u2net_small_fashion has none",
        ),
        (["label", ".", "--out", "o", "--device", "gpu"], "--device gpu is not to be had"),
        (["label", ".", "--out", "o", "--device", "cuda:99"], "--device cuda:99 is not to be had"),
        (["label", ".", "--out", "o", "--device", "meta"], "--device meta is not to be had"),
        (["label", ".", "--out", "o", "--runtime", "onnx", "--bf16"], "leave out --bf16 and --device"),
        (["label", ".", "--out", "o", "--runtime", "onnx", "--device", "cuda"], "leave out --bf16 and --device"),
        (["label", ".", "--out", "o", "--model", "deeplabv3_resnet101"], "an architecture to train"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(call, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "text.json").write_text('{"crf_iterations": "5"}')
    assert main(call) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said


def test_a_missing_extra_is_said_in_one_line(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)  # as if scikit-learn were not installed
    call = ["label", str(photos / "a.png"), "--out", str(tmp_path / "out"), "--superpixel-scale", "100"]
    assert main([*call, "--merge", "kmeans"]) == 2
    said = capsys.readouterr().err
    assert "pip install scikit-learn" in said and "Traceback" not in said


@pytest.fixture(scope="module")
def folders(tmp_path_factory, fashion):
    """A published model that was saved, and one for labels of one's own."""
    folder = tmp_path_factory.mktemp("saved")
    fashion.save_pretrained(folder / "published")
    with_labels(fashion, LabelSet.custom(["nothing", "hat", "bag"])).save_pretrained(folder / "own")
    return folder


def test_a_saved_folder_labels_like_the_model_in_it(photos, tmp_path, folders, astronaut, capsys):
    call = ["label", str(photos / "a.png"), "--model", str(folders / "own"), "--out", str(tmp_path / "out")]
    assert main([*call, "--preset", "off", "--crf-iterations", "2"]) == 0
    model, settings = hubmodels.load(folders / "own"), hubmodels.Refinement(crf_iterations=2)
    expected = model.predict(astronaut[:256, :256], refinement=settings)
    assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a_mask.png")), expected.labels)
    share = 100 * expected.areas()["hat"]
    assert f"hat {share:.1f} %" in capsys.readouterr().out


def test_a_folder_with_the_labels_of_a_task_has_its_presets(photos, tmp_path, folders, fashion, astronaut):
    call = ["label", str(photos / "a.png"), "--model", str(folders / "published"), "--out", str(tmp_path / "out")]
    assert main([*call, "--task", "fashion", "--preset", "gentle"]) == 0
    settings = hubmodels.Refinement.preset("gentle", task="fashion")
    expected = fashion.predict(astronaut[:256, :256], refinement=settings).labels
    assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a_mask.png")), expected)


def test_a_saved_folder_takes_no_settings_of_another_task(photos, tmp_path, folders, capsys):
    (tmp_path / "tuned.json").write_text('{"task": "person", "min_region_px": 50}')
    call = ["label", str(photos / "a.png"), "--out", str(tmp_path / "out"), "--settings", str(tmp_path / "tuned.json")]
    for model, message in (
        ("published", "published labels fashion; choose another model, or say --task fashion"),
        ("own", 'own labels nothing, hat, bag; choose another model, or take "task" out of the file'),
    ):
        assert main([*call, "--model", str(folders / model)]) == 2
        said = capsys.readouterr().err
        assert re.search(rf"tuned\.json was tuned for person, but .*{message} to take", said) and said.count("\n") == 1
    assert main([*call, "--model", str(folders / "published"), "--task", "fashion"]) == 0


def test_settings_may_come_through_a_pipe(photos, tmp_path, folders):
    """As of `--settings <(jq ... tuned.json)`, also for a model whose labels are known only once it is loaded."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=('{"min_region_px": 50}',), daemon=True)
    writer.start()
    call = ["label", str(photos / "a.png"), "--out", str(tmp_path / "out"), "--settings", str(tmp_path / "pipe")]
    assert main([*call, "--model", str(folders / "own")]) == 0
    with Image.open(tmp_path / "out" / "a_mask.png") as mask:
        assert json.loads(mask.info["hubmodels"])["settings"]["min_region_px"] == 50


@pytest.mark.parametrize(
    "options, message",
    [
        (["--preset", "gentle"], "chosen for person and fashion, but .*own labels nothing, hat, bag; leave it out"),
        (["--task", "person"], "own labels nothing, hat, bag, not person; leave out --task"),
        (["--revision", "main"], "own is a folder"),
        (["--min-region-px", "-5"], "min_region_px"),
        (["--person-threshold", "0.4"], "person_threshold is for two labels, but .*own has 3"),
        (
            ["--superpixel-scale", "60", "--vote", "classifier"],
            "a region classifier; .*own has none",
        ),
    ],
)
def test_what_a_folder_cannot_do_is_said_before_anything_is_labelled(
    photos, tmp_path, folders, capsys, options, message
):
    call = ["label", str(photos), "--model", str(folders / "own"), "--out", str(tmp_path / "out")]
    assert main([*call, *options]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1
    assert not (tmp_path / "out").is_dir() or names(tmp_path / "out") == []


def test_a_mistyped_name_is_found_before_anything_heavy_is_imported():
    script = """
import sys
from hubmodels.cli import main
assert main(["label", ".", "--out", "o", "--model", "deeplabv3plus_persn"]) == 2
assert main(["label", ".", "--out", "o", "--model", "weights/mine"]) == 2
assert main(["label", ".", "--out", "o", "--revision", "main"]) == 2
assert main(["export", "deeplabv3plus_persn", "--out", "x.onnx"]) == 2
assert not {"torch", "timm", "huggingface_hub"} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second, third, fourth = done.stderr.splitlines()
    assert "did you mean 'deeplabv3plus_person'?" in first and first == fourth
    assert "weights/mine: no such folder" in second and "pinned weights" in third


@pytest.mark.parametrize(
    "out, reason", [("file", "File exists"), ("file/out", "Not a directory"), ("closed", "denied")]
)
def test_a_folder_for_results_that_cannot_be_used_is_found_before_the_model_is_loaded(
    photos, tmp_path, monkeypatch, capsys, out, reason
):
    def closed(**_: object) -> None:  # tests may run as somebody who may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("tempfile.TemporaryFile", closed)
    monkeypatch.setattr("hubmodels.hub.load_model", lambda *_, **__: pytest.fail("loaded"))
    assert main(["label", str(photos), "--out", str(tmp_path / out)]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"{out}: expected a folder to write into; got .*{reason}", said) and said.count("\n") == 1
