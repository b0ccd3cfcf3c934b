"""A Hugging Face Space: a folder that runs the page there, and its upload."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from hubmodels import __version__, remote
from hubmodels.entries import LICENSE, RESEARCH_DATA
from hubmodels.errors import WeightsError

PACKAGE = Path(__file__).resolve().parent.parent
DEMO = '''"""A page to try the models: `python demo.py`, then open the address it prints; `--help` lists the options."""

from hubmodels.app.server import main

if __name__ == "__main__":
    main()
'''
# What pyproject.toml asks for, with the extras of the page and of ONNX Runtime, but for Gradio, whose version is in the
# front matter. A Space has two slow cores: there ONNX Runtime pays, though networks are exported at every start, as the
# disk of a Space is empty then.
REQUIREMENTS = (
    "torch>=2.10",
    "huggingface_hub>=1.16.4,<3",
    "timm>=1.0.12",
    "safetensors>=0.4.3",
    "numpy>=1.26",
    "pillow>=11.3",
    "scikit-image>=0.24",
    "scipy>=1.11.1",
    "numba>=0.60",
    "tqdm>=4.66",
    "scikit-learn>=1.4",
    "onnx>=1.17",
    "onnxscript>=0.5",
    "onnxruntime>=1.20.1",
)
MARK = "<!-- Written by `hubmodels space`, which replaces this folder when it is called again. -->"
GITIGNORE = "__pycache__/\n.gradio/\n"


def write_space(out: Path, *, title: str = "hubmodels") -> list[Path]:
    """Write a complete Space: README.md with its front matter, requirements.txt, demo.py and the package with weights.

    Args:
        out: a folder that does not exist, is empty, or holds a Space of an earlier call, which is replaced.
        title: what the Space is called.

    Returns:
        The files, relative to `out`.

    Raises:
        ValueError: `out` holds something else or this very package, or the title has more than one line.
    """
    if "\n" in title or not title.strip():
        raise ValueError(f"title must be one line; got {title!r}")
    if PACKAGE.is_relative_to(out.resolve()):
        raise ValueError(f"{out} is where hubmodels runs from, and would be replaced; choose another folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not _is_space(out):
        raise ValueError(f"{out} is not empty and holds no Space written before; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "README.md": _readme(title),
        "requirements.txt": "\n".join(REQUIREMENTS) + "\n",
        "demo.py": DEMO,
        ".gitignore": GITIGNORE,
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    new = out / ".hubmodels.new"
    if new.exists():  # of a call that was stopped
        shutil.rmtree(new)
    left_out = shutil.ignore_patterns(
        "__pycache__", "*.pyc", ".*", "large"
    )  # large weights: slow on a Space's two cores
    shutil.copytree(PACKAGE, new, ignore=left_out)
    if (out / "hubmodels").exists():
        shutil.rmtree(out / "hubmodels")
    new.rename(out / "hubmodels")
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


def _is_space(folder: Path) -> bool:
    readme = folder / "README.md"
    return readme.is_file() and MARK in readme.read_text(encoding="utf-8")


def _readme(title: str) -> str:
    return f"""---
title: {_quoted(title)}
emoji: 👗
colorFrom: green
colorTo: blue
sdk: gradio
sdk_version: {gradio_version()}
python_version: "3.11"
app_file: demo.py
pinned: false
license: {LICENSE.lower()}
short_description: Labels for every pixel of a photo of a person
suggested_hardware: cpu-basic
startup_duration_timeout: 30m
---

# {title}

Labels for every pixel of a photo of a person, by hubmodels {__version__}: drag the sliders, compare, take the result
with you as a file or as code. Everything runs on this machine's CPU, with the weights that are in `hubmodels/weights`.

The models were {RESEARCH_DATA}: check whether your use of them is covered.

{MARK}
"""


def _quoted(text: str) -> str:
    """YAML in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def gradio_version() -> str:
    """The installed Gradio's version, with which the page was tried.

    Raises:
        ImportError: Gradio is not installed.
    """
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise ImportError(
            "a Space names the version of Gradio, which is not installed: pip install 'hubmodels[demo]'"
        ) from None


def push_space(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a written Space, making it if it does not exist; returns the address of the commit.

    The token is that of `hf auth login`, or HF_TOKEN.

    Args:
        folder: what `write_space` wrote.
        repo: `user/name`.
        private: only for you to see.

    Raises:
        OSError: offline was asked for, `repo` is not `user/name`, or the Hub cannot be reached or refuses.
    """
    try:
        return remote.upload(folder, repo, message=f"hubmodels {__version__}", private=private, space_sdk="gradio")
    except WeightsError as error:
        raise OSError(f"not uploaded: {error}; the Space is complete in {folder}") from error
