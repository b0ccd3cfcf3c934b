"""Code and files to take away give what is on screen."""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import FASHION, Refinement
from hubmodels.app import downloads, snippets
from hubmodels.app.controls import CONTROLS
from hubmodels.app.studio import Photo
from hubmodels.app.views import View
from hubmodels.cli import main as cli
from tests.conftest import BLOCK_NETWORK, ROOT, grid
from tests.page_examples import CLOTHES, PEOPLE, TUNED, drawn


@pytest.fixture
def photo_file(tmp_path: Path, astronaut: np.ndarray) -> Path:
    Image.fromarray(astronaut[:256, 100:356]).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def test_the_copied_python_gives_the_same_labels(studio, photo_file, tmp_path):
    absent = ["hair", "dress"]
    code = snippets.python(CLOTHES, TUNED, absent=absent, opacity=30)
    call = [sys.executable, "-c", BLOCK_NETWORK + code]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "labels.png") as picture:
        assert_array_equal(np.asarray(picture), studio.whole(photo_file, CLOTHES, TUNED, absent=absent).labels)
    assert (studio.whole(photo_file, CLOTHES, TUNED).labels == FASHION.id_of("hair")).any()
    assert (tmp_path / "overlay.jpg").is_file()


def test_the_copied_command_gives_the_same_labels(studio, photo_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(TUNED, person_threshold=0.3, connectivity=8)
    program, *arguments = snippets.command(PEOPLE, settings).split()
    assert program == "hubmodels" and cli(arguments) == 0
    with Image.open(tmp_path / "out" / "photo_mask.png") as picture:
        assert_array_equal(np.asarray(picture), studio.whole(photo_file, PEOPLE, settings).labels)


def test_the_copied_command_names_absent_labels(studio, photo_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, *arguments = snippets.command(CLOTHES, TUNED, absent=["t-shirt", "hair"]).split()
    assert cli([*arguments, "--runtime", "torch"]) == 0
    with Image.open(tmp_path / "out" / "photo_mask.png") as picture:
        wanted = studio.whole(photo_file, CLOTHES, TUNED, absent=["hair", "t-shirt"])
        assert_array_equal(np.asarray(picture), wanted.labels)


def test_copied_code_names_every_changed_setting():
    values = {name: c.choices[-1] if c.choices else c.maximum for name, c in CONTROLS.items()}
    changed = {name for name, value in values.items() if value != getattr(Refinement(), name)}
    scope: dict[str, object] = {}
    code = snippets.python(CLOTHES, Refinement(**values))
    exec(code[: code.index("seg =")].replace("hubmodels.load", "str"), scope)
    assert scope["settings"] == Refinement(**values)
    for text in (snippets.client("http://x", CLOTHES, Refinement(**values)), code):
        assert all(f"{name}=" in text for name in changed)
    assert "Refinement()" in snippets.python(CLOTHES, Refinement())


def test_copied_python_has_the_opacity_of_the_page_and_runs_without_onnx_runtime():
    code = {share: snippets.python(CLOTHES, Refinement(), opacity=share) for share in (0, 7, 55, 100)}
    for share, written in ((0, "0"), (7, "0.07"), (55, "0.55"), (100, "1")):
        assert f"overlay(opacity={written})" in code[share]
    assert snippets.python(CLOTHES, Refinement()) == code[55] and "runtime" not in code[55]
    assert f"load({CLOTHES!r}, runtime='auto')" in snippets.python(CLOTHES, Refinement(), runtime="onnx")


def test_names_and_addresses_are_words_of_their_own_in_copied_commands():
    absent = ["it's", "a bag; id"]
    words = shlex.split(snippets.command("my model", Refinement(), absent=absent))
    assert words[words.index("--model") + 1] == "my model" and words[words.index("--absent") + 1] == ",".join(absent)
    code = snippets.curl("http://[::1]:7860", "my model", Refinement(), absent=absent)
    assert code.startswith("SERVER='http://[::1]:7860'/gradio_api\n")
    (asked,) = (word for word in shlex.split(code) if word.startswith("$PHOTO"))
    assert json.loads(f"{{{asked.removeprefix('$PHOTO')}") == {"model": "my model", "absent": absent}


def test_files_hold_what_they_promise(studio, small):
    analysis = studio.analyse(Photo.of(small), CLOTHES, TUNED)
    seg = analysis.final
    name, content = downloads.labels_file(seg)
    assert content[24] == 8  # bits a pixel
    with Image.open(io.BytesIO(content)) as picture:
        assert (name, picture.mode) == ("labels.png", "P") and picture.getpalette()[3:6] == list(FASHION.palette[1])
        assert_array_equal(np.asarray(picture), seg.labels)
    name, content = downloads.cutout_file(seg, View(label="hair"))
    with Image.open(io.BytesIO(content)) as picture:
        assert (name, picture.mode) == ("hair.png", "RGBA")
        assert_array_equal(np.asarray(picture)[..., 3] > 0, seg.mask("hair"))
    name, content = downloads.probabilities_file(analysis)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == list(FASHION.names)
        assert_array_equal(arrays["labels"], seg.labels)
        assert (arrays["probs"].dtype, arrays["labels"].dtype) == (np.float16, np.uint8)
        assert np.abs(arrays["probs"].astype(float) - seg.probs).max() < 1e-3
    name, content = downloads.settings_file(TUNED, analysis.entry.task)
    assert Refinement.from_dict(json.loads(content)) == TUNED and json.loads(content)["task"] == "fashion"
    name, content = downloads.overlay_file(seg, View())
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (64, 96) and not picture.getexif()


def test_a_cut_out_has_the_name_of_its_label_if_there_is_such_a_label():
    seg = drawn(grid("012"))
    everything = [0, 255, 255]
    for label, name, shown in (
        ("hair", "hair", [0, 0, 255]),
        ("", "cutout", everything),
        ("../x", "cutout", everything),
    ):
        called, content = downloads.cutout_file(seg, View(label=label))
        with Image.open(io.BytesIO(content)) as picture:
            assert (called, np.asarray(picture)[0, :, 3].tolist()) == (f"{name}.png", shown)


def test_an_overlay_to_take_away_is_as_opaque_as_was_said():
    seg = drawn(np.ones((16, 16), np.uint8))
    for opacity, colour in ((0, (100, 100, 100)), (100, FASHION.palette[1])):
        _, content = downloads.overlay_file(seg, View(opacity=opacity))
        with Image.open(io.BytesIO(content)) as picture:
            assert np.abs(np.array(picture.getpixel((8, 8))) - colour).max() <= 3


@pytest.mark.parametrize(
    ("photo_size", "size"), [((600, 1200), (400, 800)), ((800, 40), (800, 40))], ids=["large", "largest whole"]
)
def test_probabilities_say_which_size_they_have(studio, tmp_path, astronaut, photo_size, size):
    height, width = photo_size
    Image.fromarray(astronaut).resize((width, height)).save(tmp_path / "photo.png")
    analysis = studio.analyse(studio.open(tmp_path / "photo.png"), CLOTHES, Refinement())
    _, content = downloads.probabilities_file(analysis)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert (tuple(arrays["size"]), tuple(arrays["photo_size"])) == (size, photo_size)
        assert arrays["probs"].shape == (7, *size) and arrays["labels"].shape == size
    assert "up to 800 px" in downloads.KINDS["probabilities"]


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((65_500, 2), (65_500, 2)), ((65_501, 4), (65_500, 4)), ((3, 131_000), (2, 65_500)), ((99_999, 1), (65_500, 1))],
    ids=["as long as can be", "longer", "higher", "thin"],
)
def test_overlays_longer_than_a_jpeg_can_be_are_scaled_down(size, fitted):
    seg = drawn(np.zeros(size[::-1], np.uint8))
    _, content = downloads.overlay_file(seg, View())
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == fitted and np.asarray(picture).mean() == 100
    _, content = downloads.labels_file(seg)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == size  # ids are at the photo's own size
