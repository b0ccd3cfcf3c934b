"""Render the README's tables and picture from ENTRIES and the results files: `python -m training.readme`."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Mapping
from typing import Any

from hubmodels.entries import DEFAULTS, ENTRIES, Entry, list_models
from hubmodels.entry_docs import markdown, markdown_table, rounded
from hubmodels.files import write_bytes
from hubmodels.refine import PRESETS
from hubmodels.score_names import SCORES
from training.errors import run_command
from training.files import RESULTS, ROOT, read_json

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
    head = ("network", "photos", "fashion mIoU", "fashion accuracy", "person mIoU", "person accuracy")
    rows = [
        (f"predecessor: {network}", "240", *scores["fashion"], *scores["person"])
        for network, scores in PREDECESSOR.items()
    ]
    for network, models in shelf().items():
        images = {str(entry.metrics["images"]) for entry in models.values()}
        cells = [
            f"{100 * models[task].metrics[key]:.1f}" if task in models else "-"
            for task in ("fashion", "person")
            for key in ("miou", "pixel_accuracy")
        ]
        rows.append((f"**hubmodels: {network}**", ", ".join(sorted(images)), *cells))
    return markdown(head, rows)


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
    return markdown(entry.labels.names, [[f"{100 * entry.metrics['iou'][name]:.1f}" for name in entry.labels.names]])


def result(name: str) -> Any:
    """What training/results/NAME.json holds."""
    return read_json(RESULTS / f"{name}.json")


def percents(scores: Mapping[str, float], digits: int = 1) -> list[str]:
    """The cells of `SCORES`."""
    return [f"{100 * scores[key]:.{digits}f}" for key in SCORES]


def crf_table() -> str:
    """Our CRF beside pydensecrf2, from the results file that `make bench` writes."""
    head = ("CRF", "iterations", "set-up, ms", "iterations, ms", "total, ms", "labels equal")
    rows = []
    for row in result("bench_crf")["rows"]:
        if "equal_labels" in row:  # crfseg has no appearance kernel: its answer is another one
            times = (f"{row[key]:.0f}" for key in ("setup_ms", "iterations_ms", "total_ms"))
            rows.append((row["name"], str(row["iterations"]), *times, f"{100 * row['equal_labels']:.2f} %"))
    return markdown(head, rows)


STAGES = ("crf", "threshold", "superpixels", "clean-up", "crf and superpixels", "crf and clean-up", "all")


def tune_table() -> str:
    """The best setting of every stage on val, from the results files that `python -m training.tune refine` writes."""
    head = ("stages", "task", *SCORES.values(), "best settings of those tried")
    rows = []
    for task, name in DEFAULTS.items():
        tried = result(f"tune_refine_{name}")
        found = {"off": tried["off"], **{stage: tried["best"][stage] for stage in STAGES if stage in tried["best"]}}
        for stage, row in found.items():
            settings = ", ".join(f"`{key}={value!r}`" for key, value in row.get("settings", {}).items())
            rows.append((stage, task, *percents(row, 2), settings))
    return markdown(head, rows)


def scored(suffix: str) -> list[str]:
    """Models with a results file NAME_SUFFIX.json, the tasks' defaults first."""
    found = [name for name in list_models() if (RESULTS / f"{name}_{suffix}.json").is_file()]
    return sorted(found, key=lambda name: name not in DEFAULTS.values())


def preset_table() -> str:
    """Test scores without and with every preset, from the results files that `python -m training.evaluate` writes."""
    rows = [
        (f"`{name}`", preset, *percents(result(name if preset == "off" else f"{name}_{preset}")))
        for name in scored("gentle")
        for preset in PRESETS
    ]
    return markdown(("model", "preset", *SCORES.values()), rows)


KNOWN = ("", "_gentle")  # ways of asking whose scores are there with and without knowing what a photo shows


def known_table() -> str:
    """Test scores without and with that, from the results files that `python -m training.evaluate --known` writes."""
    rows = [
        (f"`{name}`", way.strip("_") or "off", told, *percents(result(f"{name}{way}{suffix}")))
        for name in scored("known")
        for way in KNOWN
        for told, suffix in (("nothing", ""), ("absent labels", "_known"))
    ]
    return markdown(("model", "preset", "told", *SCORES.values()), rows)


def half_table() -> str:
    """Test scores of the default networks in single and half precision."""
    rows = [
        (precision, task, *percents(result(f"{name}{suffix}"), 2))
        for task, name in DEFAULTS.items()
        for precision, suffix in (("float32", ""), ("bfloat16", "_bf16"))
    ]
    return markdown(("precision", "task", *SCORES.values()), rows)


def regions_table() -> str:
    """The network, the plain vote and the region classifier, from the file that `training.train_regions` writes."""
    found = result("regions_deeplabv3plus_fashion")
    kinds = {"network": "pixel", "vote": "superpixel, plain vote", "regions": "superpixel, classifier"}
    rows = [
        (f"{split}, {found[split]['images']} photos", words, *percents(found[split][kind]))
        for split in ("val", "test")
        for kind, words in kinds.items()
    ]
    return markdown(("split", "decided by", *SCORES.values()), rows)


def refine_table() -> str:
    """Times of the stages and sliders, from the results file that `make bench` writes."""
    found = result("bench_refine")
    stages = [(name, f"{value:.1f}") for name, value in found["stages_ms"].items() if name != "superpixels"]
    sliders = [(name, f"{value:.1f}") for name, value in found["sliders_ms"].items()]
    rows = [(*stage, *slider) for stage, slider in itertools.zip_longest(stages, sliders, fillvalue=("", ""))]
    return markdown(("stage", "ms", "slider", "ms"), rows)


def speed_tables() -> str:
    """Every trained network beside the predecessor's, from the results file that `make bench` writes.

    Models that were timed later are in a table of their own: times of two runs do not compare.
    """
    tables = [_speed_table(result("bench_models")["rows"])]
    for path in sorted(RESULTS.glob("bench_models_added*.json")):
        later = result(path.stem)
        machine = later["machine"]
        where = f"{machine['processor']}, {machine['cores']} cores, {machine['instructions']}"
        tables.append(f"A later run, on another machine ({where}; `training/results/{path.name}`):")
        tables.append(_speed_table(later["rows"]))
    return "\n\n".join(tables)


def _speed_table(found: list[dict[str, Any]]) -> str:
    slowest = found[0]["ms"][found[0]["name"]]
    times = ("PyTorch, ms", "in bf16, ms", "ONNX Runtime, ms", "at 600x400, ms", "times faster")
    rows = [
        (way, "600x400", f"{ms:.0f}", "-", "-", f"{ms:.0f}", f"{slowest / ms:.0f}", *_sizes(found[0]))
        for way, ms in found[0]["ms"].items()
    ]
    for row in found[1:]:
        if row["parameters"] != ENTRIES[row["name"]].parameters:  # another network had this name
            continue
        ms = row["ms"]
        full = f"{ms['torch, 600x400']:.0f} / {ms['onnx, 600x400']:.0f}"
        ways = ("torch", "torch, bf16", "onnx")
        faster = " / ".join(f"{slowest / ms[way]:.0f}" for way in ways)
        size = "{}x{}".format(*row["input_hw"])
        rows.append((row["name"], size, *(f"{ms[way]:.0f}" for way in ways), full, faster, *_sizes(row)))
    return markdown(("network", "runs at", *times, "parameters", "weights", "peak memory"), rows)


def _sizes(row: dict[str, Any]) -> tuple[str, str, str]:
    peaks = " / ".join(f"{row['process'][each]['peak_mb']:.0f}" for each in ("torch", "onnx") if each in row["process"])
    return rounded(row["parameters"]), f"{rounded(row['size_bytes'])}B", f"{peaks} MB"


def seeds_table() -> str:
    """Mean and standard deviation over seeds of one recipe, from the files that `python -m training.seeds` writes."""
    rows = []
    for path in sorted(RESULTS.glob("seeds_*.json")):
        spread = read_json(path)
        for split in ("val", "test"):
            found = spread[split]
            cells = (f"{100 * found[key]['mean']:.2f} ± {100 * found[key]['standard_deviation']:.2f}" for key in SCORES)
            name = path.stem.removeprefix("seeds_")
            rows.append((f"`{name}`", f"{split}, {found['images']} photos", str(len(spread["runs"])), *cells))
    return markdown(("model", "split", "seeds", *SCORES.values()), rows)


BLOCKS = {
    "seeds": seeds_table,
    "speed": speed_tables,
    "half": half_table,
    "presets": preset_table,
    "known": known_table,
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
