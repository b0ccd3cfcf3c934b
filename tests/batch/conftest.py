"""A folder of drawn photos, and `hubmodels label` on it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hubmodels
from hubmodels.cli import main
from hubmodels.entries import DEFAULTS


@pytest.fixture
def photos(tmp_path, rng):
    """a.png and more/{b.jpg, deep/a.png, notes.txt}, no two alike."""
    deep = tmp_path / "in" / "more" / "deep"
    deep.mkdir(parents=True)
    for path in (tmp_path / "in" / "a.png", deep.parent / "b.jpg", deep / "a.png"):
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(path)
    (deep.parent / "notes.txt").write_text("not a photo")
    return tmp_path / "in"


@pytest.fixture
def call(monkeypatch, capsys):
    """`hubmodels label` with a small network, so that many photos take no time -> status, stdout, stderr."""
    monkeypatch.setattr("hubmodels.segmenter.working_size", lambda *_, **__: (32, 32))

    def label(*arguments: str | Path) -> tuple[int, str, str]:
        status = main(["label", "--task", "person", "--runtime", "torch", *map(str, arguments)])
        return (status, *capsys.readouterr())

    return label


@pytest.fixture
def left_out(call):
    """How many photos `--resume` leaves out, of how many; the others are labelled."""

    def resume(*arguments: str | Path) -> tuple[int, int]:
        status, _, said = call(*arguments, "--resume")
        assert status == 0
        done, planned = re.search(r"(\d+) of (\d+) photos are labelled already", said).groups()
        return int(done), int(planned)

    return resume


@pytest.fixture(scope="module")
def person():
    """What `--task person` stands for."""
    return hubmodels.load(DEFAULTS["person"])
