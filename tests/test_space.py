"""`hubmodels space`: a complete folder for Hugging Face, and its upload."""

from __future__ import annotations

import functools
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import hubmodels
from hubmodels.app import space
from hubmodels.cli import main
from hubmodels.entries import ENTRIES
from tests.conftest import BLOCK_NETWORK, ROOT


@pytest.fixture
def written(tmp_path: Path) -> Path:
    assert main(["space", str(tmp_path / "space"), "--title", 'Labels: "all" of them']) == 0
    return tmp_path / "space"


def front_matter(folder: Path) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")  # comes with huggingface_hub
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert "hubmodels" in text and "research data" in text
    return yaml.safe_load(header)


def test_the_front_matter_says_how_to_run_it(written):
    header = front_matter(written)
    assert header["title"] == 'Labels: "all" of them' and header["license"] == "apache-2.0"
    assert (header["sdk"], header["app_file"]) == ("gradio", "demo.py")
    assert header["python_version"] == "3.11" and isinstance(header["python_version"], str)
    assert header["sdk_version"] == space.gradio_version()
    assert len(header["short_description"]) <= 60  # the Hub's limit


def test_the_folder_is_complete_and_holds_nothing_else(written):
    assert (written / "demo.py").read_text() == (ROOT / "demo.py").read_text()
    for entry in (entry for entry in ENTRIES.values() if entry.is_trained):
        assert (written / "hubmodels" / "weights" / entry.filename).stat().st_size == entry.size_bytes
    names = {path.name for path in written.iterdir()}
    assert names == {"README.md", "requirements.txt", "demo.py", ".gitignore", "hubmodels"}
    assert not list(written.rglob("__pycache__"))


def test_requirements_are_those_of_the_package(written):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = [item for item in project["optional-dependencies"]["demo"] if not item.startswith("gradio")]
    wanted = {*project["dependencies"], *extra}
    assert set((written / "requirements.txt").read_text().splitlines()) == wanted


def test_the_folder_runs_on_its_own_and_offline(written):
    script = (
        BLOCK_NETWORK
        + """
import numpy as np, demo, hubmodels
from hubmodels.app.studio import Studio, Photo
assert hubmodels.__file__.startswith(sys.path[0]), hubmodels.__file__
photo = Photo.of(np.full((64, 48, 3), 120, np.uint8))
analysis = Studio().analyse(photo, hubmodels.list_models()[0], hubmodels.Refinement())
print(analysis.final.labels.shape)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(written)!r})\n{script}"],
        cwd=written.parent,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "(64, 48)" in done.stdout, done.stderr


def test_writing_again_replaces_the_folder_and_nothing_of_others_is_touched(written, tmp_path, capsys):
    (written / "hubmodels" / "old.py").write_text("")
    assert main(["space", str(written)]) == 0
    assert not (written / "hubmodels" / "old.py").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    capsys.readouterr()
    assert main(["space", str(tmp_path / "mine")]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert main(["space", str(tmp_path / "new"), "--title", "two\nlines"]) == 2


def test_push_makes_and_fills_the_space(tmp_path, monkeypatch, capsys):
    calls: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        endpoint = "https://hub"

        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def upload_folder(self, **options: Any) -> None:
            calls.append((options["repo_id"], options))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert main(["space", str(tmp_path / "space"), "--push", "me/page", "--private"]) == 0
    (made, options), (filled, upload) = calls
    assert made == filled == "me/page" and upload["repo_type"] == "space"
    assert options == {"repo_type": "space", "space_sdk": "gradio", "private": True, "exist_ok": True}
    assert upload["folder_path"] == tmp_path / "space" and hubmodels.__version__ in upload["commit_message"]
    assert "https://hub/spaces/me/page" in capsys.readouterr().out


@pytest.mark.parametrize("repo", ["page", "a/b/c", "/b", "me/"])
def test_push_needs_a_user_and_a_name(tmp_path, repo):
    with pytest.raises(ValueError, match="USER/NAME"):
        space.push_space(tmp_path, repo)


@pytest.mark.parametrize("variable", ["HUBMODELS_OFFLINE", "HF_HUB_OFFLINE"])
def test_nothing_is_sent_while_offline(tmp_path, monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("the Hub was asked"))
    assert main(["space", str(tmp_path / "space"), "--push", "me/page"]) == 2
    assert "nothing is sent while HUBMODELS_OFFLINE" in capsys.readouterr().err
    assert (tmp_path / "space" / "demo.py").is_file()


def test_a_hub_out_of_reach_is_said(tmp_path, monkeypatch, capsys):
    unreachable = functools.partial(huggingface_hub.HfApi, endpoint="http://127.0.0.1:9", token="hf_x")
    monkeypatch.setattr(huggingface_hub, "HfApi", unreachable)
    assert main(["space", str(tmp_path / "space"), "--push", "me/page"]) == 2
    said = capsys.readouterr().err
    assert "cannot be reached" in said and str(tmp_path / "space") in said
    assert (tmp_path / "space" / "demo.py").is_file()
