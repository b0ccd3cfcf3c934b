"""A page on how well a published model does and where it fails: `python -m training.report NAME`.

Writes DIR/index.html, one file with its pictures inside: scores, a table of labels, the confusion matrix, the mean
error map, and the 12 worst photos beside truth and prediction. DIR is runs/report_NAME, with _test, the preset,
_settings or _augmented appended for other reports than the plain one on the validation split. A page on the test split
is for reading only: nothing may be chosen by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hubmodels.entries import Entry
from hubmodels.files import make_folder, write_bytes
from hubmodels.labels import LabelSet
from hubmodels.metrics import Scores
from hubmodels.refine import Refinement
from hubmodels.settings_files import check_tuned_for, read_settings
from training.arguments import count
from training.data import load_fashionista
from training.errors import CommandError, run_command
from training.evaluate import Answer, add_options, answers, subject
from training.report_page import NOTES, Photo, Report, page
from training.segmenters import trained_entry
from training.timing import machine


def measure(found: Iterable[Answer], labels: LabelSet) -> tuple[Scores, list[Photo], float]:
    """Scores over all photos, every photo with its own scores, and the median of seconds per photo."""
    total, photos, seconds = Scores(len(labels)), [], []
    for answer in found:
        truth = answer.sample.labels[labels.task]
        own = Scores.of_photo(truth, answer.predicted, num_classes=len(labels))
        total.include(own)
        photos.append(Photo(answer.sample.name, answer.sample.image, truth, answer.predicted, own))
        seconds.append(answer.seconds)
    return total, photos, float(np.median(seconds))


def settings_for(entry: Entry, *, preset: str, file: Path | None) -> Refinement | None:
    """The post-processing asked for; None is none.

    Args:
        entry: whose task presets are made for.
        preset: a name of `PRESETS`.
        file: JSON of `Refinement.to_dict()`, instead of a preset.

    Raises:
        CommandError: both are given, or the file cannot be read or does not hold settings.
    """
    if file is None:
        return None if preset == "off" else Refinement.preset(preset, task=entry.task)
    if preset != "off":
        raise CommandError(f"expected a preset or a file of settings; got both {preset!r} and {file}: leave out one")
    try:
        values, task = read_settings(file)
        check_tuned_for(file, task, entry.task, entry.labels, model=entry.name)
    except (FileNotFoundError, ValueError) as error:  # which names the file
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{file}: expected a JSON file of settings; got {error.strerror or error}") from error
    return Refinement.from_dict(values)


def describe(refinement: Refinement | None) -> str:
    """Post-processing in words: the settings that are not at their defaults."""
    other = {} if refinement is None else refinement.changes()
    return ", ".join(f"{name}={value!r}" for name, value in other.items()) or "none"


def default_folder(name: str, arguments: argparse.Namespace) -> Path:
    """runs/report_NAME, with what differs from a plain report on val appended, so that none replaces another."""
    parts = [name] + ["test"] * (arguments.split == "test")
    parts += [arguments.preset] * (arguments.preset != "off") + ["settings"] * (arguments.settings is not None)
    parts += ["augmented"] * (arguments.flip or arguments.scales != [1.0])
    return Path("runs") / f"report_{'_'.join(parts)}"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__)
    parser.add_argument("name", help="an entry of hubmodels")
    parser.add_argument("--split", choices=sorted(NOTES, reverse=True), default="val", help="photos (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where index.html goes (runs/report_NAME...)")
    parser.add_argument(
        "--settings", type=Path, metavar="JSON", help="post-processing as Refinement.to_dict() writes it"
    )
    parser.add_argument("--limit", type=count, help="use so many photos")
    add_options(parser)
    arguments = parser.parse_args(argv)
    entry = trained_entry(arguments.name)
    refinement = settings_for(entry, preset=arguments.preset, file=arguments.settings)
    if refinement is not None and not entry.is_network:
        raise CommandError(f"{entry.name} comes with post-processing of its own: leave out --preset and --settings")
    out = make_folder(arguments.out or default_folder(entry.name, arguments))
    model, made_for = subject(entry)
    refinement = refinement or made_for
    samples = load_fashionista(arguments.data, arguments.split, [entry.task], limit=arguments.limit)
    found = answers(model, samples, refinement=refinement, flip=arguments.flip, scales=arguments.scales)
    scores, photos, seconds = measure(found, entry.labels)
    sizes = ", ".join(f"{scale:g}" for scale in arguments.scales)
    facts = {
        "model": f"{entry.name}: {entry.title}",
        "weights": f"sha256 {entry.sha256[:12]}",
        "photos": f"{len(photos)} of the Fashionista {arguments.split} split",
        "post-processing": describe(refinement),
        "passes of the network": f"at size {sizes}" + (", each also mirrored" if arguments.flip else ""),
        "time": f"{seconds:.2f} s per photo in the median, on {machine()}",
    }
    report = Report(entry.name, arguments.split, entry.labels, facts, scores, photos)
    write_bytes(page(report).encode(), out / "index.html")
    print(f"{out / 'index.html'}: mIoU {100 * scores.miou:.1f} on {len(photos)} photos of {arguments.split}")


if __name__ == "__main__":
    run_command(main)
