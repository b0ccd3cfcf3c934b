"""What pip installs works on its own: the wheel carries the weights and nothing else from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from hubmodels.entries import ENTRIES
from tests.conftest import BLOCK_NETWORK, ROOT

IN_THE_WHEEL = [name for name, entry in ENTRIES.items() if entry.is_trained and not entry.large]
NETWORKS = [name for name in IN_THE_WHEEL if ENTRIES[name].is_network]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves its files, and those of modules deleted since would be in the next wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    links = {"copy_function": os.symlink, "ignore": shutil.ignore_patterns("__pycache__")}  # weights are large
    shutil.copytree(ROOT / "hubmodels", source / "hubmodels", **links)
    call = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(call, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_with_its_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name for name in names if name.endswith(".safetensors")}
    assert shipped == {f"hubmodels/weights/{ENTRIES[name].filename}" for name in IN_THE_WHEEL}
    assert {"hubmodels/py.typed", "hubmodels/weights/manifest.json", "hubmodels/refine/__init__.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"hubmodels"}


def test_the_wheel_holds_every_module_and_no_other(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hubmodels").rglob("*.py")}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")} == modules


def test_the_installed_wheel_predicts_without_the_checkout_and_without_a_network(wheel, tmp_path):
    site = tmp_path / "site"
    call = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(call, check=True, capture_output=True)
    script = f"""
import sys
sys.path.insert(0, {str(site)!r})
import numpy as np, hubmodels
assert hubmodels.__file__.startswith({str(site)!r}), hubmodels.__file__
for name in {NETWORKS}:
    seg = hubmodels.load(name).predict(np.full((64, 48, 3), 120, np.uint8))
    print(name, seg.labels.shape)
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_NETWORK + script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(64, 48)") == len(NETWORKS)


def test_hubconf_checks_what_it_needs_by_declared_names():
    import importlib.util
    import tomllib

    import hubconf

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {item.split(">")[0].split("<")[0] for item in project["dependencies"]}
    assert set(hubconf._PACKAGES.values()) | set(hubconf.dependencies) <= declared
    assert all(importlib.util.find_spec(name) for name in hubconf._PACKAGES)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"pip install {' '.join([*hubconf.dependencies, *hubconf._PACKAGES.values()])}`" in readme
    for extra in project["optional-dependencies"].keys() - {"dev", "oracle"}:
        assert f"| `{extra}` |" in readme


def test_training_says_which_extra_it_needs():
    code = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'psutil' else find(name, *rest)\n"
        "import training.recipe"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ModuleNotFoundError: training needs psutil: in a clone, pip install -e '.[train]'" in done.stderr


def test_the_top_level_holds_the_agreed_names_only():
    agreed = {
        "hubmodels", "demo.py", "hubconf.py", "training", "tests", "pyproject.toml", "README.md",
        "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md",
    }  # fmt: skip
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert {name.split("/")[0] for name in listed if not name.startswith(".")} <= agreed
