"""Weights that come with a clone alone: whatever lacks them works with the rest."""

from __future__ import annotations

import shutil

from hubmodels.app.space import write_space
from hubmodels.app.studio import Studio
from hubmodels.weights_files import WEIGHTS_FOLDER


def test_the_page_serves_the_models_whose_weights_are_here(tmp_path, monkeypatch):
    for name in ("u2net_small_person", "deeplabv3_person"):
        shutil.copy(WEIGHTS_FOLDER / f"{name}.safetensors", tmp_path)
    monkeypatch.setattr("hubmodels.weights_files.WEIGHTS_FOLDER", tmp_path)
    assert Studio().models == ("deeplabv3_person", "u2net_small_person")


def test_a_space_is_written_without_them(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "weights" / "large").mkdir(parents=True)
    for name in ("weights/small.safetensors", "weights/large/big.safetensors"):
        (package / name).write_bytes(b"weights")
    monkeypatch.setattr("hubmodels.app.space.PACKAGE", package)
    written = {str(path) for path in write_space(tmp_path / "space")}
    assert "hubmodels/weights/small.safetensors" in written
    assert not any("large" in path for path in written)
