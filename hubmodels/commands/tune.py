"""`hubmodels tune`: post-processing for one's own photos, from some that have masks. Heavy imports wait."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmodels.absent import ids_of_absent
from hubmodels.commands.model_options import (
    add_absent_option,
    add_model_options,
    chosen_model,
    load_chosen,
    published_task,
)
from hubmodels.ctrl_c import INTERRUPTED, stops_on_ctrl_c
from hubmodels.files import make_place, write_bytes
from hubmodels.paths import printable
from hubmodels.refine.settings import PRESETS, Refinement
from hubmodels.settings_files import check_tuned_for, encoded_settings, read_settings

if TYPE_CHECKING:
    from hubmodels.labels import LabelSet
    from hubmodels.mask_search import Example
    from hubmodels.segmenter import Segmenter
    from hubmodels.tuning import Trials

SCORES = {"miou": "mIoU", "pixel_accuracy": "accuracy", "boundary_f": "boundary F"}
FEW = 20  # photos; with fewer even a draw of them all may mislead
ROWS = {
    "none": "no post-processing",
    "best": "best settings, on the photos they were chosen on",
    "cross_validated": "the same choice, on photos that had no say in it",
}


def add_tune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    tune = commands.add_parser(
        "tune",
        help="choose post-processing on photos that have masks",
        description="Try over three hundred settings of post-processing on photos that have masks, and write the best "
        "ones for `hubmodels label --settings`, if they are better than none by more than chance.",
    )
    tune.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    tune.add_argument(
        "--masks",
        type=Path,
        required=True,
        metavar="DIR",
        help="NAME.png or NAME_mask.png for a photo NAME: label ids (255: undecided), the colours of the labels, or of "
        "two labels black and white",
    )
    tune.add_argument("--out", type=Path, required=True, metavar="JSON", help="where the settings go")
    tune.add_argument("--report", type=Path, metavar="JSON", help="where the scores go, if they are to be kept")
    tune.add_argument(
        "--settings", type=Path, nargs="+", default=[], metavar="JSON", help="settings to try too, such as the page's"
    )
    tune.add_argument(
        "--share",
        type=_share,
        default=0.9,
        help="of draws of photos in which the settings must be better than none, 0.5 to 1 (%(default)s)",
    )
    add_model_options(tune)
    add_absent_option(tune)
    tune.set_defaults(handler=tune_on_photos)


def _share(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0.5 to 1; got {text}")
    return value


def tune_on_photos(arguments: argparse.Namespace) -> int:
    """Tune on what `arguments` name; returns the exit status: 1 if a photo was left out because it is damaged or
    its folder cannot be searched.

    Stopped by Ctrl-C it chooses on the photos that have been scored, and returns INTERRUPTED.
    """
    name, entry = chosen_model(arguments)
    if entry is not None:
        published_task(name, entry.labels, arguments)
        ids_of_absent(entry.labels, arguments.absent)
    own = {path: read_settings(path) for path in arguments.settings}
    for path in filter(None, (arguments.out, arguments.report)):
        make_place(path, example="tuned.json")
    if arguments.report is not None and arguments.report.resolve() == arguments.out.resolve():
        raise ValueError(f"--report must be another file than --out; got {arguments.out} for both")

    # Heavy imports only once the call is known to make sense.
    from hubmodels.commands.mask_source import check_masks_show, say_what_is_left_out
    from hubmodels.mask_search import find_examples
    from hubmodels.tuning import candidates, conclude, measure

    masked = find_examples(arguments.photos, arguments.masks)
    say_what_is_left_out(masked)
    # Each photo once, by its first name: under another one it would be judged by settings chosen on itself.
    examples = list({os.path.realpath(each.photo): each for each in reversed(masked.examples)}.values())[::-1]
    _say_who_drew(examples)
    model = load_chosen(arguments, name)
    check_masks_show(examples, model.labels, remedy="name the --task or --model that they are of")
    task = published_task(name, model.labels, arguments)
    left_out = ids_of_absent(model.labels, arguments.absent)
    settings = [Refinement.preset(preset, task=task) for preset in PRESETS] if task else []
    settings += _check_own(own, task, model, name)
    progress = _Progress(examples, title=model.name)
    with stops_on_ctrl_c(is_worth_it=progress.can_end, say=progress.say_it_stops) as stop:
        settings += candidates(model.labels)
        trials = measure(model, progress.until(stop), settings, failed=progress.note_failure, absent=arguments.absent)
    found = conclude(trials, model.labels, share=arguments.share)
    chosen = Refinement.from_dict(found["best"]) if found["taken"] else Refinement()
    write_bytes(encoded_settings(chosen, task), arguments.out)
    if arguments.report is not None:
        facts = {"model": name, **({} if entry is None else {"sha256": entry.sha256})}
        told = {"told_absent": arguments.absent} if arguments.absent else {}
        whole = {**facts, **told, **found, "rows": trials.rows()}
        write_bytes(json.dumps(whole, indent=1).encode() + b"\n", arguments.report)
    _tell(found, arguments, name)
    _say_what_is_not_absent(trials, model.labels, left_out)
    if progress.begun < len(examples):
        print(f"stopped: chosen on {found['photos']} of {len(examples)} photos", file=sys.stderr)
        return INTERRUPTED
    return 1 if progress.failed or masked.closed else 0


class _Progress:
    """Photos as they are tried: a bar of progress, reasons of those left out, and when Ctrl-C may end it.

    Attributes:
        begun: photos that were handed out.
        failed: those of them that were left out.
    """

    def __init__(self, examples: Sequence[Example], *, title: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(examples, unit="photo", desc=title)
        self.begun = self.failed = 0

    def until(self, stop: threading.Event) -> Iterator[Example]:
        """The examples, no further ones once `stop` is set."""
        for example in self._bar:
            if stop.is_set():
                return
            self.begun += 1
            yield example

    def can_end(self) -> bool:
        """Whether there is enough to choose on without the photo that is under way."""
        return self.begun - 1 - self.failed >= 2

    def note_failure(self, reason: str) -> None:
        """Say why a photo is left out."""
        self.failed += 1
        self._bar.write(f"hubmodels: {printable(reason)}", file=sys.stderr)

    def say_it_stops(self) -> None:
        """Say what Ctrl-C leads to."""
        self._bar.write(
            "hubmodels: stops after this photo, to choose on those scored; Ctrl-C again: now", file=sys.stderr
        )


def _check_own(
    own: Mapping[Path, tuple[dict[str, Any], str | None]], task: str | None, model: Segmenter, name: str
) -> list[Refinement]:
    """Settings of files for a model; ValueError names a file whose settings are not for it."""
    found = []
    for path, (values, tuned_for) in own.items():
        check_tuned_for(path, tuned_for, task, model.labels, model=name)
        settings = Refinement.from_dict(values)
        try:
            has_classifier = model.region_classifier is not None
            settings.check_for(name, len(model.labels), has_region_classifier=has_classifier)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        found.append(settings)
    return found


def _say_who_drew(examples: list[Example]) -> None:
    """Masks that say themselves that nobody has."""
    from hubmodels.result_files import is_result

    if made := sum(is_result(example.mask) for example in examples):
        print(
            f"{made} of {len(examples)} masks are as hubmodels wrote them: if nobody has looked at them, scores say "
            "how well it agrees with itself",
            file=sys.stderr,
        )


def _say_what_is_not_absent(trials: Trials, labels: LabelSet, left_out: Sequence[int]) -> None:
    """Masks that show a label which --absent takes away: one of the two is wrong."""
    shown = trials.confusion[0].sum(2)[:, list(left_out)] > 0
    for index, count in zip(left_out, shown.sum(0).tolist(), strict=True):
        if count:
            print(f"note: {labels.names[index]} is on {count} of the masks, though --absent says that none shows it")


def _tell(found: Mapping[str, Any], arguments: argparse.Namespace, name: str) -> None:
    """The scores as tables, and what was decided."""
    width = max(map(len, ROWS.values()))
    print(f"{found['photos']} photos, {found['settings_tried']} settings")
    print(f"{'':{width}}" + "".join(f"{title:>12}" for title in SCORES.values()))
    for row, title in ROWS.items():
        print(f"{title:{width}}" + "".join(f"{_percent(found['scores'][row][key]):>12}" for key in SCORES))
    print("IoU by label, without and with the best settings:")
    for label, (before, after) in found["iou"].items():
        print(f"  {label:20}{_percent(before):>8}{_percent(after):>8}")
    if unknown := [label for label in found["absent"] if label not in arguments.absent]:
        print(f"note: no photo shows {', '.join(unknown)}: not in mIoU, and nothing is known of it")
    for label in found["vanished"]:
        print(f"note: the best settings leave less than half of the pixels of {label}")
    if found["photos"] < FEW:
        print(f"note: {found['photos']} photos are few to choose by; {FEW} or more say what holds for others too")
    settings = ", ".join(f"{key}={value}" for key, value in found["best"].items()) or "none"
    print(f"best settings: {settings}")
    share = f"{100 * (found['share'] or 0):.0f} %"
    wanted = f"{100 * arguments.share:.0f} %"
    if found["taken"]:
        print(
            f"better than none in {share} of 10,000 draws of these photos ({wanted} wanted): {arguments.out} has them"
        )
        call = ["hubmodels", "label", "FOLDER", "--out", "OUT", "--model", name, "--settings", str(arguments.out)]
        print(shlex.join([*call, *(["--absent", ",".join(arguments.absent)] if arguments.absent else [])]))
    else:
        print(
            f"not better than none by more than chance: in {share} of 10,000 draws of these photos, {wanted} wanted. "
            f"{arguments.out} turns all post-processing off; more photos with masks would tell smaller gains, and "
            "--share asks for less"
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
