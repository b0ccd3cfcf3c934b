"""The page on ONNX Runtime: exported once, told by /health, the same probabilities, and code that gives its labels."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gradio_client
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from hubmodels.app import snippets
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.server import warm_up
from hubmodels.app.studio import Photo, Studio
from hubmodels.hub import load_model
from hubmodels.onnx_network import OnnxNetwork
from hubmodels.refine import Refinement
from tests.conftest import BLOCK_NETWORK, ROOT
from tests.page_server import GRADIO_MARKS, get, served_here

NAME = "deeplabv3plus_fashion"
EXPORTING = f"{NAME}: exporting the network for ONNX Runtime, once"
TUNED = Refinement(crf_iterations=2, superpixel_scale=60, min_region_px=200)

pytestmark = GRADIO_MARKS


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for exported networks that is empty at first."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBMODELS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def exporting(cache: Path) -> Studio:
    """The first start on a machine: nothing is exported yet."""
    studio = Studio([NAME], runtime="auto")
    assert studio.will_export(NAME) and studio.runtimes == {}
    studio.model(NAME)
    return studio


@pytest.fixture
def photo(astronaut: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(astronaut[:256, 100:356])


def test_the_network_is_exported_once(exporting, cache, monkeypatch):
    assert isinstance(exporting.model(NAME).network, OnnxNetwork) and exporting.runtimes == {NAME: "onnx"}
    assert len(list(cache.rglob("*.onnx"))) == 1 and not exporting.will_export(NAME)
    monkeypatch.setattr("hubmodels.runtime.onnx_bytes", lambda *_: pytest.fail("exported again"))
    again = Studio([NAME], runtime="auto")  # the next start
    again.model(NAME)
    assert again.runtimes == {NAME: "onnx"}


def test_a_first_start_says_that_it_exports(cache, capsys, monkeypatch):
    """Here up to the export itself, which takes its time."""

    class Enough(Exception):
        pass

    def stop(*_: object) -> bytes:
        raise Enough

    monkeypatch.setenv("HUBMODELS_CACHE", str(cache / "empty"))
    monkeypatch.setattr("hubmodels.runtime.onnx_bytes", stop)
    with pytest.raises(Enough):
        warm_up(Studio([NAME], runtime="auto"))
    assert capsys.readouterr().out.splitlines() == [f"Loading models: 1 of 1, {NAME}", EXPORTING]


def test_probabilities_are_those_of_pytorch_and_labels_but_for_ties(exporting, fashion):
    pixels = EXAMPLES["astronaut"].pixels()
    final = exporting.analyse(Photo.of(pixels), NAME, Refinement()).final
    wanted = fashion.predict(pixels)
    assert_allclose(final.probs, wanted.probs, rtol=0, atol=1e-3)
    differ = final.labels != wanted.labels
    ranked = np.sort(wanted.probs, axis=0)
    assert (ranked[-1] - ranked[-2])[differ].max(initial=0) < 2e-3  # only where two labels are as likely
    assert differ.mean() < 1e-3  # measured: none, as probabilities differ by 1e-5


def test_the_copied_python_gives_the_labels_on_screen(exporting, cache, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    on_screen = exporting.analyse(exporting.open(tmp_path / "photo.jpg"), NAME, TUNED).final
    code = snippets.python(NAME, TUNED, runtime=exporting.runtimes[NAME])
    assert f"hubmodels.load({NAME!r}, runtime='auto')" in code
    assert "runtime" not in snippets.python(NAME, TUNED)
    environment = {"PYTHONPATH": str(ROOT), "HUBMODELS_CACHE": str(cache)}
    environment |= {k: v for k, v in os.environ.items() if k == "OMP_NUM_THREADS"}
    call = [sys.executable, "-c", BLOCK_NETWORK + code]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "labels.png") as picture:
        assert_array_equal(np.asarray(picture), on_screen.labels)


def test_the_server_says_what_runs_the_networks(exporting, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with served_here(exporting, tmp_path) as page:
        assert json.loads(get(f"{page.url}/health")[1])["runtimes"] == {NAME: "onnx"}
        uploaded = gradio_client.handle_file(tmp_path / "photo.png")
        mask, *_ = page.client.predict(photo=uploaded, model=NAME, **dataclasses.asdict(TUNED), api_name="/segment")
    with Image.open(mask) as picture:
        assert_array_equal(np.asarray(picture), exporting.analyse(Photo.of(photo), NAME, TUNED).final.labels)


def test_what_cannot_be_served_is_refused_or_replaced(monkeypatch):
    with pytest.raises(ValueError, match="runtime must be one of auto, onnx, torch"):
        Studio([NAME], runtime="tensorrt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    studio = Studio([NAME], runtime="auto")
    assert not studio.will_export(NAME)
    assert type(studio.model(NAME).network) is type(load_model(NAME).network) and studio.runtimes == {NAME: "torch"}
    with pytest.raises(ImportError, match="pip install"):
        Studio([NAME], runtime="onnx").model(NAME)
