"""torch.hub as users call it: from GitHub's cache, from a path, from any folder, offline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hubmodels.entries import ENTRIES, list_models
from tests.conftest import BLOCK_NETWORK, ROOT

EACH_ARCH = sorted({ENTRIES[name].arch: name for name in list_models()}.values())  # a model of every architecture


@pytest.fixture(scope="module")
def hub_home(tmp_path_factory) -> Path:
    """A TORCH_HOME that looks as after a download from GitHub, whose archives are without the large weights."""
    home = tmp_path_factory.mktemp("torch_home")
    target = home / "hub" / "someone_hubmodels_v1.0"
    for name in ("hubconf.py", "hubmodels"):
        source = ROOT / name
        target.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("large"))
        else:
            shutil.copy2(source, target / name)
    return home


def run(script: str, *, cwd: Path, home: Path) -> str:
    """Run a script in a fresh interpreter without network, apart from the installed package."""
    environment = {**os.environ, "TORCH_HOME": str(home), "HF_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_NETWORK + script], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_list_shows_every_entry_and_nothing_else(hub_home, tmp_path):
    script = "import torch; print(sorted(torch.hub.list('someone/hubmodels:v1.0', trust_repo=True)))"
    assert run(script, cwd=tmp_path, home=hub_home).strip() == repr(sorted([*ENTRIES, "segmenter"]))


def test_help_gives_shapes_ranges_labels_scores_and_licence(hub_home, tmp_path):
    script = "import torch; print(torch.hub.help('someone/hubmodels:v1.0', 'deeplabv3plus_fashion', trust_repo=True))"
    text = run(script, cwd=tmp_path, home=hub_home)
    entry = ENTRIES["deeplabv3plus_fashion"]
    for part in ("(N, 3, H, W)", "0..1", "6 dress", f"{100 * entry.metrics['miou']:.1f} mIoU", entry.license):
        assert part in text


LOAD = """
import warnings, torch
warnings.simplefilter("error")
for name in {names}:
    model = torch.hub.load({repo!r}, name, source={source!r}{more})
    assert isinstance(model, torch.nn.Module) and not model.training
    logits = model(torch.rand(2, 3, 45, 70))
    assert logits.shape == (2, len(model.labels), 45, 70) and logits.dtype == torch.float32
    import hubmodels
    print(name, hubmodels.__file__)
regions = torch.hub.load({repo!r}, "regions_fashion", source={source!r}{more})
assert not regions.training and regions(torch.rand(3, len(regions.features))).shape == (3, 7)
"""


def test_every_entry_loads_from_the_github_cache(hub_home, tmp_path):
    names = [name for name in list_models() if not ENTRIES[name].large]
    script = LOAD.format(
        names=names,
        repo="someone/hubmodels:v1.0",
        source="github",
        more=", trust_repo=True, skip_validation=True",
    )
    out = run(script, cwd=tmp_path, home=hub_home)
    assert out.count("\n") == len(names)


OWN = """
import builtins
assert getattr(builtins, "asked_for", False), "another module was imported"
"""
AFTERWARDS = """
import builtins, importlib
builtins.asked_for = True
for name in {own}:
    assert importlib.import_module(name).__file__ == {folder!r} + "/" + name + ".py", name
"""


def test_entries_load_from_a_local_path_beside_packages_with_common_names(hub_home, tmp_path):
    """Without importing them, and without taking their place: they are there when the program asks for them."""
    own = ("training", "tests", "utils", "demo", "models")
    for name in own:
        (tmp_path / f"{name}.py").write_text(OWN)
    script = LOAD.format(names=EACH_ARCH, repo=str(ROOT), source="local", more="")
    script += AFTERWARDS.format(own=own, folder=str(tmp_path))
    assert str(ROOT / "hubmodels") in run(script, cwd=tmp_path, home=hub_home)


def test_a_package_that_is_imported_already_is_named(hub_home, tmp_path):
    """Python keeps it, so models and weights are that version's."""
    script = f"import sys, warnings; sys.path.insert(0, {str(ROOT)!r}); import hubmodels, torch\n"
    script += "warnings.simplefilter('error')\n"
    script += "try: torch.hub.load({!r}, 'deeplabv3plus_person', source='local')\n"
    script += "except RuntimeWarning as warning: print(warning)\n"
    clone = next((hub_home / "hub").iterdir())
    said = run(script.format(str(clone)), cwd=tmp_path, home=hub_home)
    assert said.startswith(f"models come from {ROOT / 'hubmodels'}, which this program has imported already")
    assert str(clone / "hubmodels") in said
    assert not run(script.format(str(ROOT)), cwd=tmp_path, home=hub_home)


def test_every_entry_loads_with_empty_caches_and_without_a_network(tmp_path):
    """Rows without weights of ours build; their backbone's weights are timm's, so with pretrained=True they say so."""
    home = tmp_path / "home"
    home.mkdir()
    rows = [name for name, entry in ENTRIES.items() if not entry.is_trained]
    script = (
        LOAD.format(names=list_models(), repo=str(ROOT), source="local", more="")
        + f"""
for name in {rows!r}:
    assert not torch.hub.load({str(ROOT)!r}, name, source="local", pretrained=False).training
    try:
        torch.hub.load({str(ROOT)!r}, name, source="local")
    except hubmodels.WeightsError as error:
        print("said:", error)
"""
    )
    out = run(script, cwd=tmp_path, home=home)
    assert out.count("hubmodels/__init__.py") == len(list_models())
    assert rows and out.count("said: ") == out.count("or pass pretrained=False") == len(rows)
    assert [path.name for path in home.rglob("*") if path.is_file()] == []


def test_the_checkout_works_by_its_relative_path_and_after_a_change_of_folder(hub_home, tmp_path):
    script = (
        "import os, torch; m = torch.hub.load('.', 'segmenter', name='deeplabv3plus_person', source='local');"
        f"os.chdir({str(tmp_path)!r}); m2 = torch.hub.load({str(ROOT)!r}, 'deeplabv3plus_person', source='local');"
        "print(m.labels.names)"
    )
    assert "person" in run(script, cwd=ROOT, home=hub_home)


def test_an_unknown_model_names_the_known_ones(hub_home, tmp_path):
    script = f"""
import torch
from importlib import import_module
try:
    torch.hub.load({str(ROOT)!r}, "segmenter", name="deeplab", source="local")
except LookupError as error:
    print(type(error).__name__, error)
"""
    out = run(script, cwd=tmp_path, home=hub_home)
    assert out.startswith("ModelNotFoundError") and "deeplabv3plus_fashion" in out


def test_other_labels_keep_all_weights_but_the_classifiers(hub_home, tmp_path):
    script = f"""
import re, warnings, torch
warnings.simplefilter("error")
for name in {EACH_ARCH!r}:
    published = torch.hub.load({str(ROOT)!r}, name, source="local")
    model = torch.hub.load({str(ROOT)!r}, name, source="local", skip_validation=True, num_classes=12)
    assert model.labels.names == tuple(f"label {{i}}" for i in range(12)) and not model.training
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 12, 64, 64)
    old, new = published.network.state_dict(), model.network.state_dict()
    changed = {{key for key in new if not torch.equal(new[key], old[key])}}
    alone = {{re.sub(r"^members\\.[0-9]+\\.", "", key) for key in changed}}  # in an ensemble, within each member
    heads = ("classifier.", "dense_upsampling.", "side", "outconv.")
    assert alone and all(key.startswith(heads) for key in alone), changed
    named = torch.hub.load({str(ROOT)!r}, name, source="local", labels=["nothing", "hat", "bag"])
    assert named.labels.names == ("nothing", "hat", "bag") and len(set(named.labels.palette)) == 3
    print(name)
"""
    assert run(script, cwd=tmp_path, home=hub_home).split() == EACH_ARCH


def test_no_parameter_is_one_that_torch_hub_takes_for_itself():
    import inspect

    import torch

    import hubconf

    taken = set(inspect.signature(torch.hub.load).parameters) - {"kwargs"}
    for name in ("segmenter", *ENTRIES):
        assert not taken & set(inspect.signature(getattr(hubconf, name)).parameters), name


def test_a_missing_package_is_named_with_its_pip_line(hub_home, tmp_path):
    script = f"""
import importlib.util, torch
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("safetensors", "skimage") else real(name, *rest)
for name in ("deeplabv3plus_person", "regions_fashion"):
    try:
        torch.hub.load({str(ROOT)!r}, name, source="local")
    except ModuleNotFoundError as error:
        print(error)
"""
    out = run(script, cwd=tmp_path, home=hub_home)
    assert out.count("pip install safetensors scikit-image") == 2


def test_importing_hubconf_imports_nothing_heavy(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import hubconf
print({{"torch", "numpy", "timm", "PIL", "huggingface_hub"}} & set(sys.modules))
"""
    assert run(script, cwd=tmp_path, home=tmp_path).strip() == "set()"
