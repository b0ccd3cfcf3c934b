"""The import graph is the one that ALLOWED draws: arrows go down only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Part -> the parts of hubmodels it imports, no more and no less. A part is a module, or a package seen from outside.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "score_names": set(),
    "metrics": {"score_names"},
    "labels": set(),
    "checks": {"errors"},
    "colour_profiles": set(),
    "absent": {"labels"},
    "bands": set(),
    "bootstrap": {"metrics"},
    "masks": {"errors", "images", "labels", "metrics"},
    "jpeg_scans": set(),
    "containers": set(),
    "avif_frames": {"containers"},
    "images": {"avif_frames", "colour_profiles", "containers", "errors", "jpeg_scans", "paths"},
    "render": {"labels", "soft_edges"},
    "soft_edges": {"refine.settings"},
    "export": {"files", "labels"},
    "result": {"coco", "export", "labels", "render"},
    "weights": set(),
    "entries": {"labels", "errors", "paths"},
    "entry_docs": {"entries", "score_names"},
    "files": {"errors", "paths"},
    "paths": set(),
    "config": {"entries", "errors", "labels", "networks", "networks.backbones", "networks.deeplab"},
    "weights_files": {"checks", "entries", "errors"},
    "remote": {"errors", "files"},
    "model_names": {"entries", "errors", "remote", "paths"},
    "card_scores": {"files", "labels", "score_names"},
    "cards": {"card_scores", "config", "entries", "entry_docs", "labels", "score_names"},
    "saved_regions": {"errors", "labels", "refine", "weights_files"},
    "pretrained": {
        "cards",
        "checks",
        "config",
        "errors",
        "files",
        "labels",
        "model_names",
        "model_upload",
        "onnx_network",  # its answer to saving is another than that of networks of one's own
        "refine",  # its region classifier is saved and loaded along
        "remote",
        "saved_regions",
        "weights_files",
    },
    "model_upload": {"cards", "remote"},
    "networks": set(),
    "networks.backbones": {"networks.efficientnet_lite"},
    "networks.efficientnet_lite": set(),
    "networks.dilation": set(),
    "networks.folding": {"networks.dilation"},
    "networks.grid": set(),
    "networks.tracing": {"networks.folding", "networks.grid", "networks.u2net"},
    "networks.deeplab": {"networks.backbones", "networks.grid"},
    "networks.u2net": {"networks.backbones", "networks.grid"},
    "networks.ensemble": set(),
    "refine.simd": set(),
    "refine.compiled": set(),
    "refine.filter_loops": {"refine.compiled", "refine.simd"},
    "refine.lattice_loops": {"refine.compiled"},
    "refine.kernels": {"refine.filter_loops", "refine.lattice_loops", "refine.simd", "refine.threads"},
    "refine.threads": set(),
    "refine.resize_loops": {"refine.compiled", "refine.simd"},
    "refine.resizing": {"refine.resize_loops", "refine.simd", "refine.threads"},
    "refine.lattice": {"refine.compiled", "refine.kernels"},
    "refine.photo_kernels": {"refine.lattice"},
    "refine.mean_field": {"bands", "refine.lattice", "refine.photo_kernels", "refine.resizing"},
    "refine.prepared_crf": {"refine.crf_checks", "refine.mean_field"},
    "refine.crf": {
        "refine.crf_checks",
        "refine.lattice",
        "refine.mean_field",
        "refine.photo_kernels",
        "refine.prepared_crf",
    },
    "refine.crf_checks": set(),
    "refine.islands": set(),
    "refine.regions": {"refine.islands"},
    "refine.settings": set(),
    "refine.memory": set(),
    "refine.stopwatch": set(),
    "refine.felzenszwalb_loops": {"refine.compiled"},
    "refine.touching": set(),
    "refine.region_means": set(),
    "refine.felzenszwalb": {
        "refine.compiled",
        "refine.felzenszwalb_loops",
        "refine.region_means",
        "refine.touching",
    },
    "refine.superpixels": {"refine.felzenszwalb", "refine.settings"},
    "refine.region_features": {"refine.region_means", "refine.settings"},
    "refine.merge_loops": {"refine.compiled"},
    "refine.merge": {
        "refine.compiled",
        "refine.merge_loops",
        "refine.region_features",
        "refine.region_means",
        "refine.touching",
    },
    "refine.region_classifier": {"checks", "errors", "refine.region_features"},
    "refine.vote": {"refine.region_means"},
    "refine.tuner": {
        "errors",
        "refine.crf",
        "refine.mean_field",
        "refine.memory",
        "refine.merge",
        "refine.photo_kernels",
        "refine.prepared_crf",
        "refine.region_classifier",
        "refine.regions",
        "refine.settings",
        "refine.stopwatch",
        "refine.superpixels",
        "refine.vote",
    },
    "refine": {
        "refine.crf",
        "refine.lattice",
        "refine.merge",
        "refine.prepared_crf",
        "refine.region_classifier",
        "refine.regions",
        "refine.settings",
        "refine.superpixels",
        "refine.tuner",
        "refine.vote",
    },
    "segmenter": {
        "absent",
        "bands",
        "config",
        "errors",
        "images",
        "labels",
        "networks.folding",
        "networks.grid",
        "pretrained",
        "refine",
        "refine.settings",
        "result",
    },
    "hub": {
        "config",
        "entries",
        "errors",
        "labels",
        "model_names",
        "networks",
        "refine",
        "remote",
        "runtime",
        "saved_regions",
        "segmenter",
        "weights_files",
    },
    "onnx_network": {"errors"},
    "model_export": {"", "errors", "files", "labels", "networks.grid", "networks.tracing", "onnx_network", "segmenter"},
    "runtime": {"", "errors", "files", "model_export", "networks.folding", "onnx_network", "segmenter"},
    "result_files": {"export", "files", "result"},
    "photo_search": {"images", "result_files", "paths"},
    "planning": {"photo_search", "result_files"},
    "batch": {
        "absent",
        "errors",
        "files",
        "images",
        "in_order",
        "model_export",
        "paths",
        "planning",
        "refine",
        "result",
        "result_files",
        "segmenter",
    },
    "publish": {"cards", "config", "entries", "export", "files", "hub", "model_upload", "remote", "weights_files"},
    "app": set(),
    "page_options": set(),
    "app.memory": set(),
    "app.examples": set(),
    "app.controls": {"labels", "refine"},
    "app.studio": {
        "absent",
        "app.memory",
        "page_options",
        "masks",
        "labels",
        "entries",
        "errors",
        "hub",
        "images",
        "refine",
        "result",
        "runtime",  # says which runtime a model got, and whether its network has to be exported first
        "segmenter",
        "weights_files",
    },
    "app.views": {"export", "labels", "metrics", "refine", "refine.region_means", "render", "result"},
    "app.workers": set(),
    "app.internals": set(),
    "app.busy": {"app.internals"},
    "app.strangers": {"app.internals"},
    "app.health": set(),
    "app.uploads": set(),
    "app.compare": set(),
    "app.links": {"app.controls", "app.examples", "app.views", "entries", "refine"},
    "app.snippets": {"refine"},
    "app.downloads": {"app.studio", "app.views", "export", "refine", "result", "settings_files"},
    "app.texts": {"app.studio", "entries", "entry_docs", "masks"},
    "app.guard": {
        "app.texts",
        "app.uploads",  # whose files a caller may name
        "app.workers",
        "errors",
        "files",
        "paths",
    },
    "app.menus": {"app.controls", "app.studio", "app.texts", "entries", "refine"},
    "app.api": {"app.downloads", "app.guard", "app.studio", "app.views", "entries", "refine"},
    "app.handlers": {
        "app.compare",
        "app.controls",
        "app.downloads",
        "app.guard",
        "app.links",
        "app.menus",
        "app.snippets",
        "app.studio",
        "app.texts",
        "app.views",
        "entries",
        "errors",
        "masks",
        "refine",
        "result",
    },
    "app.look": set(),
    "app.components": {
        "app.controls",
        "app.downloads",
        "app.examples",
        "app.look",
        "app.menus",
        "app.studio",
        "app.texts",
        "app.views",
        "entries",
        "refine",
    },
    "app.page": {
        "app.api",
        "app.busy",
        "app.components",
        "app.controls",
        "app.downloads",
        "app.examples",
        "app.guard",
        "app.handlers",
        "app.internals",
        "app.look",
        "app.menus",
        "app.studio",
        "app.texts",
        "app.views",
        "refine",
    },
    "app.exports": {"", "app.examples", "app.studio", "errors", "files", "runtime"},
    "app.server": {
        "",
        "app.busy",
        "app.examples",
        "app.exports",
        "app.health",
        "app.look",
        "page_options",
        "app.page",
        "app.strangers",
        "app.studio",
        "app.uploads",
        "errors",
        "refine",
        "remote",
    },
    "app.space": {"", "entries", "errors", "remote"},
    "commands.model_options": {"entries", "hub", "labels", "model_names", "segmenter"},
    "settings_files": {"files", "labels", "refine.settings", "paths"},
    "commands.label": {
        "paths",
        "absent",
        "batch",
        "planning",
        "ctrl_c",
        "files",
        "labels",
        "commands.model_options",
        "refine.settings",
        "runtime",
        "segmenter",
        "settings_files",
    },
    "tuning": {
        "bootstrap",
        "errors",
        "images",
        "labels",
        "mask_search",
        "masks",
        "metrics",
        "refine",
        "segmenter",
    },
    "mask_search": {"paths", "photo_search", "planning", "result_files"},
    "outlines": set(),
    "coco": {"labels", "outlines"},
    "labelled_photos": {"errors", "images", "labels", "mask_search", "masks"},
    "coco_dataset": {"coco", "labelled_photos", "labels"},
    "areas_table": {"labelled_photos", "labels"},
    "commands.coco": {"coco", "coco_dataset", "files", "commands.mask_options", "commands.mask_source"},
    "commands.areas": {"areas_table", "files", "commands.mask_options", "commands.mask_source"},
    "commands.mask_options": {"labels", "commands.model_options"},
    "commands": set(),
    "commands.mask_source": {
        "paths",
        "entries",
        "hub",
        "labelled_photos",
        "labels",
        "mask_search",
        "model_names",
        "result_files",
    },
    "cutting": {"images", "labels", "mask_search", "masks", "render", "result_files"},
    "in_order": set(),
    "commands.cutout": {
        "paths",
        "ctrl_c",
        "cutting",
        "errors",
        "files",
        "in_order",
        "mask_search",
        "commands.mask_options",
        "commands.mask_source",
        "commands.model_options",
    },
    "ctrl_c": set(),
    "commands.tune": {
        "paths",
        "absent",
        "ctrl_c",
        "result_files",
        "files",
        "labels",
        "mask_search",
        "commands.mask_source",
        "commands.model_options",
        "refine.settings",
        "segmenter",
        "settings_files",
        "tuning",
    },
    "__main__": {"cli"},
    "cli": {
        "paths",
        "",
        "page_options",
        "app.server",
        "app.space",
        "cards",
        "commands.areas",
        "commands.coco",
        "ctrl_c",
        "commands.cutout",
        "entries",
        "entry_docs",
        "errors",
        "hub",
        "commands.label",
        "model_export",
        "model_names",
        "commands.model_options",
        "publish",
        "commands.tune",
        "weights_files",
    },
}
ALLOWED["networks"] = {"networks.deeplab", "networks.ensemble", "networks.u2net"}


def part_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "hubmodels").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path, package: str) -> set[str]:
    """Dotted modules of `package` that a file imports anywhere, type checking blocks and function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the package"
            module = node.module or ""
            # one by one: `from hubmodels import __version__, remote` imports from the package and a part of it
            found |= {full if is_module(full := f"{module}.{alias.name}") else module for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load":
            # refine.compiled.load imports what it names; hubmodels.load names models
            names = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
            found |= {name for name in names if is_module(str(name))}
    return {name for name in found if name.split(".")[0] == package}


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def files() -> list[Path]:
    return sorted((ROOT / "hubmodels").rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=part_of)
def test_a_part_imports_what_is_allowed_and_no_permission_is_left_over(path):
    part = part_of(path)
    if part == "":
        pytest.skip("hubmodels/__init__.py names the public parts, imported on first use")
    assert part in ALLOWED, f"new part {part!r}: say in ALLOWED what it may import"
    imported = {name.removeprefix("hubmodels").lstrip(".") for name in imports_of(path, "hubmodels")}
    assert imported <= ALLOWED[part], f"{part} must not import {sorted(imported - ALLOWED[part])}"
    unused = sorted(ALLOWED[part] - imported)
    assert imported == ALLOWED[part], f"{part} imports {unused} no more: take that out of ALLOWED"


def test_the_design_has_no_part_that_is_gone():
    assert ALLOWED.keys() <= {part_of(path) for path in files()}


def test_the_design_has_no_cycle():
    list(TopologicalSorter(ALLOWED).static_order())


def test_hubmodels_never_imports_training_or_the_faces():
    for path in files():
        for package in ("training", "tests", "demo", "hubconf"):
            assert not imports_of(path, package), f"{path} imports {package}"
