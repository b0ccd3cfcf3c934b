"""The page on ONNX Runtime: exported once while it is served, told by /health, and code that gives its labels."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio_client
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from hubmodels.app import snippets
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.exports import exporting
from hubmodels.app.server import warm_up
from hubmodels.app.studio import Photo, Studio
from hubmodels.hub import load_model
from hubmodels.onnx_network import OnnxNetwork
from hubmodels.refine import Refinement
from tests.conftest import BLOCK_NETWORK, ROOT
from tests.exporting import needs_onnx
from tests.page_server import GRADIO_MARKS, get, served_here

NAME = "deeplabv3plus_fashion"
PERSONS = "u2net_small_person"
TUNED = Refinement(crf_iterations=2, superpixel_scale=60, min_region_px=200)

pytestmark = [*GRADIO_MARKS, needs_onnx]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for exported networks that is empty at first."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBMODELS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the server says of the export."""
    return []


@pytest.fixture(scope="module")
def exported(cache: Path, said: list[str]) -> Studio:
    """The first start on a machine: nothing is exported yet, and PyTorch answers until it is."""
    studio = Studio([NAME], runtime="auto")
    studio.model(NAME)
    assert studio.not_exported == [NAME] and studio.runtimes == {NAME: "torch"}
    with exporting(studio, say=said.append) as thread:
        assert thread is not None
        thread.join()
    return studio


@pytest.fixture
def photo(astronaut: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(astronaut[:256, 100:356])


def test_the_network_is_exported_once(exported, cache, said, monkeypatch):
    assert isinstance(exported.model(NAME).network, OnnxNetwork) and exported.runtimes == {NAME: "onnx"}
    assert said == [f"{NAME}: ONNX Runtime runs the network from now on"] and exported.speeds[NAME] > 0
    assert len(list(cache.rglob("*.onnx"))) == 1 and exported.not_exported == []
    monkeypatch.setattr("hubmodels.runtime.onnx_bytes", lambda *_: pytest.fail("exported again"))
    again = Studio([NAME], runtime="auto")  # the next start
    again.model(NAME)
    assert again.runtimes == {NAME: "onnx"}
    with exporting(again, say=said.append) as thread:
        assert thread is None


def test_a_first_start_says_that_pytorch_runs_meanwhile(cache, capsys, monkeypatch):
    monkeypatch.setenv("HUBMODELS_CACHE", str(cache / "empty"))
    monkeypatch.setattr("hubmodels.runtime.onnx_bytes", lambda *_: pytest.fail("exported before the page opens"))
    warm_up(Studio([NAME], runtime="auto"))
    assert capsys.readouterr().out.splitlines() == [
        f"Loading models: 1 of 1, {NAME}",
        "PyTorch runs 1 of them until they are exported for ONNX Runtime, once",
        "Warming up post-processing",
    ]


def test_a_server_that_stops_ends_the_export(cache, monkeypatch):
    monkeypatch.setenv("HUBMODELS_CACHE", str(cache / "stopped"))
    begun: list[subprocess.Popen[str]] = []

    class Noted(subprocess.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.append(self)

    monkeypatch.setattr("hubmodels.app.exports.subprocess.Popen", Noted)
    studio = Studio([NAME, PERSONS], runtime="auto")
    for name in studio.models:
        studio.model(name)
    with exporting(studio, say=pytest.fail) as thread:
        while not begun:
            thread.join(0.01)
    assert not thread.is_alive() and len(begun) == 1 and begun[0].returncode == -signal.SIGKILL
    assert studio.runtimes == dict.fromkeys(studio.models, "torch") and not list((cache / "stopped").rglob("*.onnx"))


def test_a_network_that_cannot_be_exported_stays_with_pytorch(cache, monkeypatch):
    monkeypatch.setenv("HUBMODELS_CACHE", str(cache / "failed"))
    monkeypatch.setattr("hubmodels.app.exports.EXPORT", "raise SystemExit('no room')")
    studio, told = Studio([NAME], runtime="auto"), []
    studio.model(NAME)
    with exporting(studio, say=told.append) as thread:
        thread.join()
    assert told == [f"{NAME}: PyTorch runs the network, as it could not be exported: no room"]
    assert studio.runtimes == {NAME: "torch"}


def test_without_a_place_to_keep_them_nothing_is_exported(cache, monkeypatch):
    (cache / "file").write_text("no folder")
    monkeypatch.setenv("HUBMODELS_CACHE", str(cache / "file"))
    monkeypatch.setattr("hubmodels.app.exports.subprocess.Popen", lambda *_, **__: pytest.fail("exported in vain"))
    studio, told = Studio([NAME], runtime="auto"), []
    studio.model(NAME)
    with exporting(studio, say=told.append) as thread:
        thread.join()
    assert len(told) == 1 and "file" in told[0] and "expected a folder to write into" in told[0]


def test_probabilities_are_those_of_pytorch_and_labels_but_for_ties(exported, fashion):
    pixels = EXAMPLES["astronaut"].pixels()
    final = exported.analyse(Photo.of(pixels), NAME, Refinement()).final
    wanted = fashion.predict(pixels)
    assert_allclose(final.probs, wanted.probs, rtol=0, atol=1e-3)
    differ = final.labels != wanted.labels
    ranked = np.sort(wanted.probs, axis=0)
    assert (ranked[-1] - ranked[-2])[differ].max(initial=0) < 2e-3  # only where two labels are as likely
    assert differ.mean() < 1e-3  # measured: none, as probabilities differ by 1e-5


def test_the_copied_python_gives_the_labels_on_screen(exported, cache, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    on_screen = exported.analyse(exported.open(tmp_path / "photo.jpg"), NAME, TUNED).final
    code = snippets.python(NAME, TUNED, runtime=exported.runtimes[NAME])
    assert f"hubmodels.load({NAME!r}, runtime='auto')" in code
    assert "runtime" not in snippets.python(NAME, TUNED)
    environment = {"PYTHONPATH": str(ROOT), "HUBMODELS_CACHE": str(cache)}
    environment |= {k: v for k, v in os.environ.items() if k == "OMP_NUM_THREADS"}
    call = [sys.executable, "-c", BLOCK_NETWORK + code]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "labels.png") as picture:
        assert_array_equal(np.asarray(picture), on_screen.labels)


def test_the_server_says_what_runs_the_networks(exported, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with served_here(exported, tmp_path) as page:
        assert json.loads(get(f"{page.url}/health")[1])["runtimes"] == {NAME: "onnx"}
        uploaded = gradio_client.handle_file(tmp_path / "photo.png")
        mask, *_ = page.client.predict(photo=uploaded, model=NAME, **dataclasses.asdict(TUNED), api_name="/segment")
    with Image.open(mask) as picture:
        assert_array_equal(np.asarray(picture), exported.analyse(Photo.of(photo), NAME, TUNED).final.labels)


def test_what_cannot_be_served_is_refused_or_replaced(monkeypatch):
    with pytest.raises(ValueError, match="runtime must be one of auto, onnx, torch"):
        Studio([NAME], runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    studio = Studio([NAME], runtime="auto")
    assert type(studio.model(NAME).network) is type(load_model(NAME).network) and studio.runtimes == {NAME: "torch"}
    assert studio.not_exported == []
    with pytest.raises(ImportError, match="pip install"):
        Studio([NAME], runtime="onnx").model(NAME)
