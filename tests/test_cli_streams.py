"""The command as a process: how it ends where nobody listens, a disk is full, or Ctrl-C comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import hubmodels
from hubmodels.cli import main
from tests.conftest import ROOT


@pytest.fixture
def photos(tmp_path, astronaut) -> Path:
    """A folder with a.png."""
    (tmp_path / "in").mkdir()
    Image.fromarray(astronaut[:256, :256]).save(tmp_path / "in" / "a.png")
    return tmp_path / "in"


@pytest.mark.parametrize("call", [["list"], ["--help"], ["card", "deeplabv3plus_person"]])
def test_a_reader_that_ends_early_is_no_matter(call):
    """As `hubmodels list | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    command, buffered = [sys.executable, "-m", "hubmodels", *call], {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, cwd=ROOT, env=buffered, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_files_cannot_speak_to_the_terminal(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a\x1b[31m\nhubmodels: 5 photos labelled.jpg").write_bytes(b"no photo")
    assert main(["label", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--task", "person"]) == 1
    said = capsys.readouterr().err
    assert r"a\x1b[31m\nhubmodels: 5 photos labelled.jpg: not an image" in said and "\x1b[31m" not in said
    assert main(["label", "no\x1b[31msuch", "--out", str(tmp_path / "out")]) == 2
    assert r"no\x1b[31msuch" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_in_words():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hubmodels", "list"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2 and "what it prints cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams_stop_nothing(photos, tmp_path, stream, monkeypatch, capsys):
    """As services leave them; Python has None in their place then."""
    monkeypatch.setattr(sys, stream, None)
    assert main(["label", str(photos), "--out", str(tmp_path / "out"), "--task", "person", "--runtime", "torch"]) == 0
    assert (tmp_path / "out" / "a_mask.png").exists()
    getattr(sys, stream).close()  # what stands in for it, which a process of its own would keep to its end


def test_ctrl_c_ends_any_command_in_one_line(photos, tmp_path, monkeypatch, capsys):
    """Such as while the model is loaded."""

    def stopping(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hubmodels.hub.load_model", stopping)
    assert main(["label", str(photos), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.strip() == "hubmodels: stopped"


def test_the_installed_command_answers():
    done = subprocess.run([sys.executable, "-m", "hubmodels", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"hubmodels {hubmodels.__version__}"
