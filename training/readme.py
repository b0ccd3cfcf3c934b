"""Render the README's tables and picture from ENTRIES and the results files: `python -m training.readme`."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubmodels.entries import DEFAULTS, ENTRIES, Entry, list_models
from hubmodels.entry_docs import markdown_table
from hubmodels.files import write_bytes
from hubmodels.refine import PRESETS
from hubmodels.score_names import SCORES
from training.errors import run_command
from training.evaluate import RESULTS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / ".github" / "astronaut.jpg"

# What the predecessor reports on all 240 test photos: network -> task -> (mIoU, pixel accuracy), in percent.
PREDECESSOR = {
    "DeepLabv3 on ResNet-101": {"fashion": ("54.2", "94.2"), "person": ("95.7", "98.5")},
    "DeepLabv3+ on ResNet-101": {"fashion": ("51.5", "93.4"), "person": ("94.8", "-")},
    "U-2-Net": {"fashion": ("never trained", "-"), "person": ("about 96", "about 99")},
}


def comparison_table() -> str:
    """Ours beside the predecessor's, both without test-time augmentation and without post-processing."""
    rows = [("network", "photos", "fashion mIoU", "fashion accuracy", "person mIoU", "person accuracy"), ("---",) * 6]
    for network, scores in PREDECESSOR.items():
        rows.append((f"predecessor: {network}", "240", *scores["fashion"], *scores["person"]))
    for network, models in shelf().items():
        images = {str(entry.metrics["images"]) for entry in models.values()}
        cells = [
            f"{100 * models[task].metrics[key]:.1f}" if task in models else "-"
            for task in ("fashion", "person")
            for key in ("miou", "pixel_accuracy")
        ]
        rows.append((f"**hubmodels: {network}**", ", ".join(sorted(images)), *cells))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shelf() -> dict[str, dict[str, Entry]]:
    """Network as its entries' titles call it -> task -> entry, for trained networks with scores."""
    found: dict[str, dict[str, Entry]] = {}
    for name in list_models():
        entry = ENTRIES[name]
        if entry.metrics:
            found.setdefault(entry.title.split(",")[0], {})[entry.task] = entry
    return found


def label_table() -> str:
    """IoU of every label of the default fashion model."""
    entry = ENTRIES[DEFAULTS["fashion"]]
    names = entry.labels.names
    rows = [names, ("---",) * len(names), tuple(f"{100 * entry.metrics['iou'][name]:.1f}" for name in names)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def crf_table() -> str:
    """Our CRF beside pydensecrf2, from the results file that `make bench` writes."""
    rows = [("CRF", "iterations", "set-up, ms", "iterations, ms", "total, ms", "labels equal"), ("---",) * 6]
    for row in json.loads((RESULTS / "bench_crf.json").read_text())["rows"]:
        if "equal_labels" in row:  # crfseg has no appearance kernel: its answer is another one
            times = (f"{row[key]:.0f}" for key in ("setup_ms", "iterations_ms", "total_ms"))
            rows.append((row["name"], str(row["iterations"]), *times, f"{100 * row['equal_labels']:.2f} %"))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


STAGES = ("crf", "threshold", "superpixels", "clean-up", "crf and superpixels", "crf and clean-up", "all")


def tune_table() -> str:
    """The best setting of every stage on val, from the results files that `python -m training.tune refine` writes."""
    rows = [("stages", "task", *SCORES.values(), "best settings of those tried"), ("---",) * 6]
    for task, name in DEFAULTS.items():
        result = json.loads((RESULTS / f"tune_refine_{name}.json").read_text())
        found = {"off": result["off"], **{stage: result["best"][stage] for stage in STAGES if stage in result["best"]}}
        for stage, row in found.items():
            scores = (f"{100 * row[key]:.2f}" for key in SCORES)
            settings = ", ".join(f"`{key}={value!r}`" for key, value in row.get("settings", {}).items())
            rows.append((stage, task, *scores, settings))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def with_presets() -> list[str]:
    """The defaults, then other models whose presets were scored."""
    scored = [name for name in list_models() if (RESULTS / f"{name}_gentle.json").is_file()]
    return [*DEFAULTS.values(), *(name for name in scored if name not in DEFAULTS.values())]


def preset_table() -> str:
    """Test scores without and with every preset, from the results files that `python -m training.evaluate` writes."""
    rows = [("model", "preset", *SCORES.values()), ("---",) * 5]
    for name in with_presets():
        for preset in PRESETS:
            file = f"{name}.json" if preset == "off" else f"{name}_{preset}.json"
            result = json.loads((RESULTS / file).read_text())
            scores = (f"{100 * result[key]:.1f}" for key in SCORES)
            rows.append((f"`{name}`", preset, *scores))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def half_table() -> str:
    """Test scores of the default networks in single and half precision."""
    rows = [("precision", "task", *SCORES.values()), ("---",) * 5]
    for task, name in DEFAULTS.items():
        for precision, suffix in (("float32", ""), ("bfloat16", "_bf16")):
            result = json.loads((RESULTS / f"{name}{suffix}.json").read_text())
            cells = (f"{100 * result[key]:.2f}" for key in SCORES)
            rows.append((precision, task, *cells))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def regions_table() -> str:
    """The network, the plain vote and the region classifier, from the file that `training.train_regions` writes."""
    result = json.loads((RESULTS / "regions_deeplabv3plus_fashion.json").read_text())
    rows = [("split", "decided by", *SCORES.values()), ("---",) * 5]
    kinds = {"network": "pixel", "vote": "superpixel, plain vote", "regions": "superpixel, classifier"}
    for split in ("val", "test"):
        for kind, words in kinds.items():
            scores = (f"{100 * result[split][kind][key]:.1f}" for key in SCORES)
            rows.append((f"{split}, {result[split]['images']} photos", words, *scores))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def refine_table() -> str:
    """Times of the stages and sliders, from the results file that `make bench` writes."""
    result = json.loads((RESULTS / "bench_refine.json").read_text())
    rows = [("stage", "ms", "slider", "ms"), ("---",) * 4]
    stages = [(name, f"{value:.1f}") for name, value in result["stages_ms"].items() if name != "superpixels"]
    sliders = [(name, f"{value:.1f}") for name, value in result["sliders_ms"].items()]
    for stage, slider in itertools.zip_longest(stages, sliders, fillvalue=("", "")):
        rows.append((*stage, *slider))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def speed_tables() -> str:
    """Every trained network beside the predecessor's, from the results file that `make bench` writes.

    Models that were timed later are in a table of their own: times of two runs do not compare.
    """
    every = _speed_table(json.loads((RESULTS / "bench_models.json").read_text())["rows"])
    added = RESULTS / "bench_models_added.json"
    if not added.is_file():
        return every
    later = json.loads(added.read_text())
    machine, names = later["machine"], f"`training/results/{added.name}`"
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['instructions']}"
    return f"{every}\n\nA later run, on another machine ({where}; {names}):\n\n{_speed_table(later['rows'])}"


def _speed_table(found: list[dict[str, Any]]) -> str:
    slowest = found[0]["ms"][found[0]["name"]]
    times = "PyTorch, ms|in bf16, ms|ONNX Runtime, ms|at 600x400, ms|times faster"
    head = f"network|runs at|{times}|parameters|weights|peak memory".split("|")
    rows: list[Sequence[str]] = [head, ("---",) * len(head)]
    for way, ms in found[0]["ms"].items():
        rows.append((way, "600x400", f"{ms:.0f}", "-", "-", f"{ms:.0f}", f"{slowest / ms:.0f}", *_sizes(found[0])))
    for row in found[1:]:
        ms = row["ms"]
        full = f"{ms['torch, 600x400']:.0f} / {ms['onnx, 600x400']:.0f}"
        ways = ("torch", "torch, bf16", "onnx")
        faster = " / ".join(f"{slowest / ms[way]:.0f}" for way in ways)
        size = "{}x{}".format(*row["input_hw"])
        rows.append((row["name"], size, *(f"{ms[way]:.0f}" for way in ways), full, faster, *_sizes(row)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _sizes(row: dict[str, Any]) -> tuple[str, str, str]:
    peaks = " / ".join(f"{row['process'][each]['peak_mb']:.0f}" for each in ("torch", "onnx") if each in row["process"])
    return f"{row['parameters'] / 1e6:.1f} M", f"{row['size_bytes'] / 1e6:.1f} MB", f"{peaks} MB"


def seeds_table() -> str:
    """Mean and standard deviation over seeds of one recipe, from the files that `python -m training.seeds` writes."""
    rows = [("model", "split", "seeds", *SCORES.values()), ("---",) * 6]
    for path in sorted(RESULTS.glob("seeds_*.json")):
        result = json.loads(path.read_text())
        for split in ("val", "test"):
            found = result[split]
            cells = (f"{100 * found[key]['mean']:.2f} ± {100 * found[key]['standard_deviation']:.2f}" for key in SCORES)
            name = path.stem.removeprefix("seeds_")
            rows.append((f"`{name}`", f"{split}, {found['images']} photos", str(len(result["runs"])), *cells))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


BLOCKS = {
    "seeds": seeds_table,
    "speed": speed_tables,
    "half": half_table,
    "presets": preset_table,
    "regions": regions_table,
    "tune": tune_table,
    "stages": refine_table,
    "crf": crf_table,
    "models": lambda: markdown_table(ENTRIES.values()),
    "comparison": comparison_table,
    "labels": label_table,
}


def rendered(text: str) -> str:
    """The README with every block between `<!-- NAME -->` and `<!-- /NAME -->` written anew."""
    for name, render in BLOCKS.items():
        block = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        if len(block.findall(text)) != 1:
            raise ValueError(f"README.md: expected one block {name!r}")
        text = block.sub(render().replace("\\", r"\\") + "\n", text)
    return text


def draw_picture() -> None:
    """The astronaut, person and fashion labels, and a cut-out, side by side."""
    from PIL import Image
    from skimage import data

    import hubmodels
    from hubmodels.export import save_image

    photo = data.astronaut()
    person = hubmodels.load(DEFAULTS["person"]).predict(photo)
    fashion = hubmodels.load(DEFAULTS["fashion"]).predict(photo)
    cutout = Image.new("RGBA", (photo.shape[1], photo.shape[0]), "white")
    cutout.alpha_composite(person.cutout("person"))
    panels = [Image.fromarray(photo), person.overlay(), cutout, fashion.overlay()]
    width, height = panels[0].size
    sheet = Image.new("RGB", (width * len(panels) + 8 * (len(panels) - 1), height), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel.convert("RGB"), (index * (width + 8), 0))
    save_image(sheet.resize((sheet.width // 2, sheet.height // 2)), PICTURE, quality=88)


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(prog="python -m training.readme", description=__doc__).parse_args()
    write_bytes(rendered(README.read_text(encoding="utf-8")).encode(), README)
    draw_picture()


if __name__ == "__main__":
    run_command(main)
