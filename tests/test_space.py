"""`hubmodels space`: a complete folder for Hugging Face, and its upload."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubmodels.app import space
from hubmodels.cli import main
from hubmodels.entries import ENTRIES
from tests.conftest import BLOCK_NETWORK, ROOT
from tests.hub_server import LoopbackHub


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
    for entry in (entry for entry in ENTRIES.values() if entry.is_trained and not entry.large):
        assert (written / "hubmodels" / "weights" / entry.filename).stat().st_size == entry.size_bytes
    names = {path.name for path in written.iterdir()}
    assert names == {"README.md", "requirements.txt", "demo.py", ".gitignore", "hubmodels"}
    assert not list(written.rglob("__pycache__"))


def test_requirements_are_those_of_the_package(written):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["demo"], *extras["onnx"]}
    wanted = {item for item in wanted if not item.startswith("gradio")} - {"torch>=2.4"}
    assert "torch>=2.10" in wanted  # that the extra onnx asks for
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


def test_a_space_never_replaces_the_package_that_writes_it(monkeypatch, written):
    """As when `hubmodels space .` is called inside of a clone of a Space, where the package runs from."""
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    monkeypatch.setattr(space, "PACKAGE", written / "hubmodels")
    for out in (written, written / "hubmodels", written / "hubmodels" / "..", written.parent):
        with pytest.raises(ValueError, match="is where hubmodels runs from"):
            space.write_space(out)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_somebodys_own_space_with_a_demo_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("---\napp_file: demo.py\n---\n# Mine")
    with pytest.raises(ValueError, match="holds no Space written before"):
        space.write_space(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_call_that_was_stopped_is_gone_on_with(tmp_path, monkeypatch):
    out = tmp_path / "space"

    def stopped(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(space.shutil, "copytree", stopped)
        space.write_space(out)
    assert Path("demo.py") in space.write_space(out) and not (out / ".hubmodels.new").exists()


PUSH = """
import sys
from pathlib import Path
from hubmodels.app import space
from hubmodels.cli import main
space.PACKAGE = Path(sys.argv[1])  # a small one
sys.exit(main(["space", sys.argv[2], *sys.argv[3:]]))
"""


@pytest.fixture
def push(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`hubmodels space` with a token, in a process of its own: the client reads HF_ENDPOINT when it is imported."""
    package = tmp_path / "package"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text('"""A small package."""\n')
    (package / "weights" / "a.safetensors").write_bytes(bytes(range(256)))

    def run(endpoint: str, *options: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home")}
        call = [sys.executable, "-c", PUSH, str(package), str(tmp_path / "space"), *options]
        return subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


def test_push_makes_and_fills_the_space(push, tmp_path):
    with LoopbackHub() as hub:
        done = push(hub.endpoint, "--push", "me/page", "--private")
        assert done.returncode == 0, done.stderr
        (made,) = hub.made
        assert (made["name"], made["type"], made["sdk"]) == ("page", "space", "gradio")
        assert made.get("private") or made.get("visibility") == "private"
        (files,) = hub.commits["me/page"].values()
    written = {str(path.relative_to(tmp_path / "space")): path for path in (tmp_path / "space").rglob("*")}
    assert files == {name: path.read_bytes() for name, path in written.items() if path.is_file()}
    assert {"README.md", "demo.py", "hubmodels/weights/a.safetensors"} <= set(files)
    assert f"uploaded to {hub.endpoint}" in done.stdout
    assert any(request.startswith("POST /api/spaces/me/page/commit") for request in hub.requests)


@pytest.mark.parametrize("repo", ["page", "a/b/c", "/b", "me/"])
def test_push_needs_a_user_and_a_name(tmp_path, repo):
    with pytest.raises(OSError, match="expected user/name"):
        space.push_space(tmp_path, repo)


@pytest.mark.parametrize("repo, words", [("me/page", "cannot be reached"), ("forbidden/page", "no write access")])
def test_what_keeps_a_space_from_being_uploaded_is_said(push, tmp_path, repo, words):
    with LoopbackHub() as hub:
        done = push("http://127.0.0.1:9" if repo == "me/page" else hub.endpoint, "--push", repo)
    assert done.returncode == 2 and words in done.stderr and str(tmp_path / "space") in done.stderr
    assert "Traceback" not in done.stderr and (tmp_path / "space" / "demo.py").is_file()


@pytest.mark.parametrize("variable", ["HUBMODELS_OFFLINE", "HF_HUB_OFFLINE"])
def test_nothing_is_sent_while_offline(tmp_path, monkeypatch, capsys, variable):
    import huggingface_hub

    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: pytest.fail("the Hub was asked"))
    assert main(["space", str(tmp_path / "space"), "--push", "me/page"]) == 2
    assert "nothing is sent while HUBMODELS_OFFLINE" in capsys.readouterr().err
    assert (tmp_path / "space" / "demo.py").is_file()
