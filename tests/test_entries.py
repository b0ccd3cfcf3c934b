"""The rows of facts, and everything that must agree with them."""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

import hubmodels
from hubmodels.config import ModelConfig
from hubmodels.entries import DEFAULTS, ENTRIES, by_name, find_entry, list_models
from hubmodels.entry_docs import entry_docstring, entry_facts, markdown_table
from hubmodels.errors import ModelNotFoundError
from hubmodels.hub import WEIGHTS_FOLDER, load_regions
from hubmodels.labels import TASKS, LabelSet
from hubmodels.networks import ARCHITECTURES
from hubmodels.refine import PRESETS
from tests.conftest import ROOT
from training.readme import KNOWN, PICTURE, README, rendered, scored

RESULTS = ROOT / "training" / "results"
SHIPPED_BYTES_MAX, LARGE_BYTES_MAX = 12_000_000, 100_000_000  # the latter is what git hosts take in one file


TRAINED = {name: entry for name, entry in ENTRIES.items() if entry.is_trained}


@pytest.fixture(params=TRAINED.values(), ids=list(TRAINED))
def entry(request):
    return request.param


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - set(TRAINED)))
def test_rows_without_weights_say_so_and_build_offline(name):
    entry = ENTRIES[name]
    assert "not trained" in entry.title and name not in list_models() and not entry.metrics
    assert (ROOT / entry.recipe.split()[-1]).is_file()
    assert "through timm" in entry_docstring(entry) and "no weights of ours" in entry_facts(entry)
    model = hubmodels.load(name, pretrained=False)
    assert len(model.labels) == 7 and not model.training


def test_rows_are_complete(entry):
    assert entry.arch in ARCHITECTURES or not entry.is_network
    assert entry.task in TASKS
    assert len(entry.sha256) == 64 and entry.license == "Apache-2.0" and "research data" in entry.data
    assert entry.title and entry.paper
    if entry.arch == "ensemble":
        assert "training.ensemble" in entry.recipe  # tests/test_ensemble.py runs it
    elif entry.is_network:
        assert (ROOT / entry.recipe.split()[-1]).is_file(), "the recipe a row names must exist"
    else:
        _, _, module, network, *_ = entry.recipe.split()
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file() and ENTRIES[network].regions == entry.name


def test_the_weights_are_those_of_the_row(entry):
    path = WEIGHTS_FOLDER / entry.weights_file
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry.sha256
    assert len(data) == entry.size_bytes <= (LARGE_BYTES_MAX if entry.large else SHIPPED_BYTES_MAX)
    network = hubmodels.load(entry.name).network if entry.is_network else load_regions(entry.name)
    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    with safe_open(path, "pt") as file:
        assert set(file.metadata()) == {"hubmodels"}
        facts = json.loads(file.metadata()["hubmodels"])
        assert facts.get("settings", facts)["labels"] == list(entry.labels.names)
        kinds = {file.get_slice(key).get_dtype() for key in file.keys()}
    assert kinds == ({"F16", "I64"} if entry.is_network else {"F32"})


def test_scores_are_those_that_evaluate_wrote_for_these_very_weights(entry):
    result = json.loads((RESULTS / f"{entry.name}.json").read_text())
    assert result["sha256"] == entry.sha256
    assert {key: result[key] for key in entry.metrics} == dict(entry.metrics)
    assert result["images"] == 120 and result["data"] == "Fashionista test split"


def test_scores_follow_from_the_confusion_matrix(entry):
    result = json.loads((RESULTS / f"{entry.name}.json").read_text())
    confusion = result["confusion"]
    hits = [confusion[i][i] for i in range(len(confusion))]
    unions = [sum(confusion[i]) + sum(row[i] for row in confusion) - hits[i] for i in range(len(confusion))]
    assert sum(map(sum, confusion)) == 120 * 600 * 400
    assert result["miou"] == pytest.approx(sum(h / u for h, u in zip(hits, unions, strict=True)) / len(hits), abs=1e-5)
    assert result["pixel_accuracy"] == pytest.approx(sum(hits) / (120 * 600 * 400), abs=1e-5)


@pytest.mark.parametrize("name", DEFAULTS.values())
def test_half_precision_was_scored_with_these_weights_and_costs_little(name):
    full, half = (json.loads((RESULTS / f"{name}{suffix}.json").read_text()) for suffix in ("", "_bf16"))
    assert half["sha256"] == ENTRIES[name].sha256 and half["images"] == full["images"]
    assert half["confusion"] != full["confusion"]  # it was another computation
    for key in ("miou", "pixel_accuracy", "boundary_f"):
        assert half[key] == pytest.approx(full[key], abs=0.005)


@pytest.mark.parametrize("name", scored("gentle"))
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"off"}))
def test_presets_were_scored_with_these_weights_and_the_settings_they_have_now(name, preset):
    result = json.loads((RESULTS / f"{name}_{preset}.json").read_text())
    assert result["sha256"] == ENTRIES[name].sha256 and result["images"] == 120
    assert result["refinement"] == hubmodels.Refinement.preset(preset, task=ENTRIES[name].task).to_dict()


@pytest.mark.parametrize("way", KNOWN)
@pytest.mark.parametrize("name", scored("known"))
def test_knowing_what_a_photo_shows_was_scored_with_these_weights_and_pays(name, way):
    told, plain = (json.loads((RESULTS / f"{name}{way}{suffix}.json").read_text()) for suffix in ("_known", ""))
    assert told["known"] is True and told["sha256"] == ENTRIES[name].sha256 and told["images"] == 120
    assert told.get("refinement") == plain.get("refinement")
    assert told["miou"] > plain["miou"] and told["pixel_accuracy"] > plain["pixel_accuracy"]
    assert len(scored("known")) > 1 and scored("known")[0] == DEFAULTS["fashion"]


def test_every_task_has_a_default():
    assert set(DEFAULTS) == set(TASKS)
    assert all(ENTRIES[name].task == task for task, name in DEFAULTS.items())
    assert list_models("person") == [name for name in list_models() if name.endswith("person")]


def test_a_folder_is_told_from_a_mistyped_name(tmp_path, monkeypatch):
    (tmp_path / "my_model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"'my_model' is a folder.*a published model here"):
        find_entry("my_model")


def test_a_repeated_name_is_refused():
    row = next(iter(ENTRIES.values()))
    with pytest.raises(ValueError, match="same name"):
        by_name(row, row)


def test_the_readme_is_rendered_from_these_rows():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert rendered(text) == text, "run: python -m training.readme"
    assert markdown_table(ENTRIES.values()) in text


def test_the_readme_names_the_default_models():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    named = " and ".join(f"`{DEFAULTS[task]}` for `{task}`" for task in TASKS)
    assert f"The default models are {named}." in text


def test_the_readme_picture_is_there():
    assert PICTURE.relative_to(ROOT).as_posix() in README.read_text(encoding="utf-8") and PICTURE.is_file()


def test_hub_help_is_rendered_from_the_row(entry):
    text = entry_docstring(entry)
    assert entry.title in text and entry.license in text and f"{100 * entry.metrics['miou']:.1f} mIoU" in text


def test_labels_check_themselves():
    with pytest.raises(ValueError, match="one colour per label"):
        LabelSet("x", ("a", "b"), ((0, 0, 0),))
    with pytest.raises(ValueError, match="differ"):
        LabelSet("x", ("a", "a"), ((0, 0, 0), (1, 1, 1)))
    for colour in ((256, 0, 0), (0, -1, 0), (0.5, 0, 0), (0, 0), "red", 7):
        with pytest.raises(ValueError, match=r"three whole numbers in 0\.\.255; got"):
            LabelSet("x", ("a", "b"), ((0, 0, 0), colour))
    assert LabelSet("x", ("a", "b"), [[0, 0, 0], np.uint8([1, 2, 3])]).palette == ((0, 0, 0), (1, 2, 3))
    for names in (["a", "b"], np.array(["a", "b"])):
        made = LabelSet("x", names, ((0, 0, 0), (1, 1, 1)))
        assert made == LabelSet("x", ("a", "b"), ((0, 0, 0), (1, 1, 1))) and hash(made) and type(made.names[0]) is str
    for names, message in (("ab", "names in a list or tuple; got 'ab'"), (2, "got 2"), ((None, "b"), "text; got None")):
        with pytest.raises(TypeError, match=message):
            LabelSet("x", names, ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match=r"no label 'shirt'.*t-shirt"):
        hubmodels.FASHION.id_of("shirt")
    for count in (1, 257):
        with pytest.raises(ValueError, match=f"2 to 256 labels.*got {count}"):
            LabelSet.custom(count)


def test_labels_of_ones_own_have_colours_that_differ():
    assert len(set(LabelSet.custom(256).palette)) == 256


def test_import_is_light():
    """Nothing heavy at import: it takes far less than the half second that would be felt."""
    script = """
import sys, time
start = time.process_time()
import hubmodels
seconds = time.process_time() - start
heavy = {"torch", "numpy", "PIL", "timm", "skimage", "scipy", "numba", "gradio"} & set(sys.modules)
assert not heavy, heavy
assert seconds < 0.5, seconds
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_every_public_name_is_there():
    assert all(getattr(hubmodels, name) is not None for name in hubmodels.__all__)
    assert set(hubmodels.__all__) <= set(dir(hubmodels))
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = hubmodels.laod


@pytest.mark.parametrize("path", ["hubmodels/__init__.py", "hubmodels/refine/__init__.py"])
def test_type_checkers_see_the_names_and_no_function_that_takes_any(path):
    """`__getattr__` is for the running program: with it, a misspelt name would count as right."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    blocks = {ast.unparse(node.test): node.body for node in tree.body if isinstance(node, ast.If)}
    assert "__getattr__" not in [getattr(node, "name", "") for node in tree.body]
    assert "__getattr__" in [getattr(node, "name", "") for node in blocks["not TYPE_CHECKING"]]
    imports = [node for node in [*tree.body, *blocks["TYPE_CHECKING"]] if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name for node in imports for alias in node.names}
    module = importlib.import_module(path.removesuffix("/__init__.py").replace("/", "."))
    assert set(module.__all__) <= seen | {"__version__"}


@pytest.mark.parametrize("name", ["errors.ImageError", "refine.DenseCRF", "runtime.RUNTIMES"])
def test_documented_modules_need_no_import_of_their_own(name):
    subprocess.run([sys.executable, "-c", f"import hubmodels; hubmodels.{name}"], cwd=ROOT, check=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda entry: pickle.loads(pickle.dumps(entry))])
def test_rows_are_values(copied):
    for name, entry in ENTRIES.items():
        other = copied(entry)
        assert other == entry and {entry: name}[other] == name
        with pytest.raises(TypeError):
            other.network["channels"] = 1


def test_a_misspelt_task_is_refused():
    with pytest.raises(ValueError, match="no task 'clothes'; expected fashion or person"):
        list_models("clothes")


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES.values() if entry.is_network], ids=lambda entry: entry.name
)
def test_every_network_can_start_one_for_as_many_labels_as_a_mask_holds(entry):
    labels = LabelSet.custom([f"label {index}" for index in range(256)])
    assert len(ModelConfig(entry.name, entry.arch, entry.network, labels, entry.input_px).labels) == 256
