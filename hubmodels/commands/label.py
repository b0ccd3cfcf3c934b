"""`hubmodels label`: many photos from the command line. Heavy imports wait until the call is known to make sense."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmodels.absent import ids_of_absent
from hubmodels.commands.model_options import (
    add_absent_option,
    add_model_options,
    check_device,
    chosen_model,
    load_chosen,
    published_task,
)
from hubmodels.ctrl_c import INTERRUPTED
from hubmodels.files import FULL, make_folder
from hubmodels.labels import TASKS, LabelSet
from hubmodels.paths import printable
from hubmodels.refine.settings import PRESETS, SETTINGS, Refinement, Setting, settings_of
from hubmodels.settings_files import check_tuned_for, read_settings

if TYPE_CHECKING:
    from hubmodels.batch import Outcome
    from hubmodels.planning import Job, Plan
    from hubmodels.segmenter import Segmenter

# Setting that is off by default -> those that do nothing without it. Each stage begins with the one that turns it on.
NEEDED_BY = {
    "crf_iterations": settings_of("crf")[1:],
    "superpixel_scale": settings_of("superpixels")[1:],
    "merge": ("merge_threshold", "merge_clusters"),
}


def add_label(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    label = commands.add_parser("label", help="label photos: an indexed PNG and an overlay for each")
    label.add_argument("sources", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    label.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    add_model_options(label)
    add_absent_option(label)
    label.add_argument(
        "--runtime",
        choices=("auto", "torch", "onnx"),
        default="auto",
        help="what runs the network; auto (the default) is ONNX Runtime where it is installed and pays",
    )
    label.add_argument(
        "--bf16",
        action="store_true",
        help="PyTorch in half precision, for processors that compute in bf16; U-2-Net gains most",
    )
    label.add_argument(
        "--resume",
        action="store_true",
        help="leave out photos whose results are there, made of the same file by the same model and settings",
    )
    _add_refinement(label)
    label.set_defaults(handler=label_photos)


def _add_refinement(parser: argparse.ArgumentParser) -> None:
    """An option for every setting of `Refinement`, over a preset or a file of settings."""
    group = parser.add_argument_group(
        "post-processing", "off unless asked for; sizes are those of a 600x400 photo and grow with the photo"
    )
    start = group.add_mutually_exclusive_group()
    start.add_argument("--preset", choices=sorted(PRESETS), help="settings chosen on the validation split")
    start.add_argument("--settings", type=Path, metavar="JSON", help="settings as Refinement.to_dict() writes them")
    for name, setting in SETTINGS.items():
        # argparse formats help texts with %; values are checked by Refinement itself, which says more.
        group.add_argument(
            _option(name),
            type=_parse_setting(setting),
            metavar="|".join(map(str, setting.choices)).lower() or "N",
            help=setting.help.replace("%", "%%"),
        )


def _option(name: str) -> str:
    """What the option of a setting is called."""
    return f"--{name.replace('_', '-')}"


def _parse_setting(setting: Setting) -> Callable[[str], Any]:
    """How the value of an option is read; what it may be is for `Refinement` to check."""

    def number(text: str) -> Any:
        try:
            return int(text)
        except ValueError:
            return float(text)

    def choice(text: str) -> Any:
        return next((each for each in setting.choices if str(each).lower() == text.lower()), text)

    return choice if setting.choices else number


def _refinement(arguments: argparse.Namespace, task: str | None, values: Mapping[str, Any] | None = None) -> Refinement:
    """The task's preset, None: without one, or what the file of settings says, with the options given on top."""
    if values is None:
        values = Refinement.preset(arguments.preset, task=task).to_dict() if arguments.preset and task else {}
    given = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    return Refinement.from_dict({**values, **given})


def label_photos(arguments: argparse.Namespace) -> int:
    """Label what `arguments` name; returns the exit status."""
    # Read once, as it may be a pipe.
    values, tuned_for = (None, None) if arguments.settings is None else read_settings(arguments.settings)
    wanted = arguments.task
    if arguments.model is None and wanted is None:
        arguments.task = tuned_for
    name, entry = chosen_model(arguments)

    def settings_for(labels: LabelSet | None, *, has_region_classifier: bool = False) -> Refinement:
        if labels is None:
            return _refinement(arguments, None, values)
        task = _task_of(name, labels, arguments)
        if wanted is None:
            anyway = f"say --task {task}" if task else 'take "task" out of the file'
            check_tuned_for(arguments.settings, tuned_for, task, labels, model=name, anyway=anyway)
        settings = _refinement(arguments, task, values)
        settings.check_for(name, len(labels), has_region_classifier=has_region_classifier)
        ids_of_absent(labels, arguments.absent)
        return settings

    # The labels of a folder or repository are known only once it is loaded; wrong settings are found before.
    if entry is None:
        settings = settings_for(None)
    else:
        settings = settings_for(entry.labels, has_region_classifier=entry.regions is not None)
    if arguments.runtime == "onnx" and (arguments.bf16 or arguments.device != "cpu"):
        raise ValueError("--runtime onnx computes in float32 on the CPU; leave out --bf16 and --device")

    import torch  # heavy imports only once the call is known to make sense

    from hubmodels.planning import plan

    check_device(arguments.device)
    found = plan(arguments.sources, arguments.out)
    _say_what_is_left_out(found)
    make_folder(arguments.out)
    model = load_chosen(arguments, name)
    if arguments.bf16:
        model = model.to(torch.bfloat16)
        # Other processors may or may not compute in it; of x86 without AVX-512 it is known.
        if arguments.device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
            print("this processor does not compute in bf16: without --bf16 it is many times faster", file=sys.stderr)
    if entry is None:
        settings = settings_for(model.labels, has_region_classifier=model.region_classifier is not None)
    status = _label_planned(arguments, found.jobs, model, settings)
    return 1 if found.closed and status == 0 else status


def _label_planned(arguments: argparse.Namespace, jobs: list[Job], model: Segmenter, settings: Refinement) -> int:
    """Label those of the jobs that are left to do; returns the exit status."""
    from hubmodels.batch import how_made, is_done, run
    from hubmodels.runtime import choose_runtime, is_prepared, with_runtime

    _say_what_does_nothing(arguments, settings, labels=len(model.labels))
    # Of PyTorch's network: what ONNX Runtime runs has another digest.
    made_by = how_made(model, settings, absent=arguments.absent)
    if arguments.resume:
        planned, jobs = len(jobs), [job for job in jobs if not is_done(job, made_by)]
        print(f"{planned - len(jobs)} of {planned} photos are labelled already", file=sys.stderr)
    if jobs and choose_runtime(model, arguments.runtime, photos=len(jobs)) == "onnx" and not is_prepared(model):
        print(f"{model.name}: exporting the network for ONNX Runtime, once", file=sys.stderr)
    model = with_runtime(model, arguments.runtime, photos=len(jobs))
    outcomes = run(model, jobs, made_by, refinement=settings, absent=arguments.absent)
    return _label_all(outcomes, jobs, model, arguments.out)


def _say_what_does_nothing(arguments: argparse.Namespace, settings: Refinement, *, labels: int) -> None:
    """Options of the command line whose stage is off; presets and files may well hold such settings."""
    given = {name for name in SETTINGS if getattr(arguments, name) is not None and getattr(settings, name) != "off"}
    idle = []
    for switch, names in NEEDED_BY.items():
        options = ", ".join(_option(name) for name in names if name in given)
        if options and getattr(settings, switch) == getattr(Refinement(), switch):
            idle.append(f"{options} without {_option(switch)}")
            given -= set(names)
    if labels == 2 and "superpixel_foreground" in given and settings.vote != "classifier":
        idle.append(f"{_option('superpixel_foreground')} with two labels")
    if idle:
        print(f"these options do nothing: {'; '.join(idle)}", file=sys.stderr)


def _say_what_is_left_out(found: Plan) -> None:
    """Files of kinds that are not read, files by somebody else, and folders that cannot be searched."""
    if found.unread:
        print(found.unread, file=sys.stderr)
    if found.drawn:
        print(
            f"{_counted(found.drawn, 'file')} taken for masks, overlays or cut-outs of photos, not for photos",
            file=sys.stderr,
        )
    if found.kept:
        count = len(found.kept)
        print(
            f"kept: {_counted(found.kept, 'file')} not made by hubmodels, so "
            f"{f'their {count} photos are' if count > 1 else 'its photo is'} left out: move what shall be made anew, "
            "or choose another --out",
            file=sys.stderr,
        )
    if found.orphans:
        print(
            f"{_counted(found.orphans, 'mask')} not made by hubmodels, and photos share the name: give it that of its "
            "photo, as in a.jpg_mask.png, or it counts for none",
            file=sys.stderr,
        )
    for reason in found.closed:
        print(f"hubmodels: {printable(reason)}", file=sys.stderr)


def _counted(paths: list[Path], what: str) -> str:
    """How many there are, the first few of them, and the verb: "4 files (a, b, c and 1 more) were"."""
    named = ", ".join(map(printable, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    return f"{len(paths)} {what}{'s' if len(paths) > 1 else ''} ({named}) {'were' if len(paths) > 1 else 'was'}"


def _label_all(outcomes: Iterator[Outcome], jobs: list[Job], model: Segmenter, out: Path) -> int:
    """Label every photo, with a bar of progress and a summary; returns the exit status."""
    from tqdm import tqdm

    started, done, failed, stopped, status = time.monotonic(), 0, 0, "", 0
    totals = dict.fromkeys(model.labels.names, 0.0)
    try:
        for outcome in tqdm(outcomes, total=len(jobs), unit="photo", desc=model.name):
            if outcome.areas is None:
                failed += 1
                tqdm.write(f"hubmodels: {printable(outcome.error)}", file=sys.stderr)
                continue
            done += 1
            for name, share in outcome.areas.items():
                totals[name] += share
    except KeyboardInterrupt:
        stopped, status = "stopped", INTERRUPTED
    except OSError as error:
        if error.errno not in FULL:
            raise
        stopped, status = f"hubmodels: --out {out} can take no more results: {error.strerror}", 2
    if stopped:
        print(f"\n{stopped}; the same call with --resume goes on", file=sys.stderr)
    seconds = time.monotonic() - started
    print(f"{done} of {len(jobs)} photos labelled in {seconds:.1f} s, results in {out}")
    if done:
        print("mean area: " + ", ".join(f"{name} {100 * share / done:.1f} %" for name, share in totals.items()))
    return status or (1 if failed else 0)


def _task_of(name: str, labels: LabelSet, arguments: argparse.Namespace) -> str | None:
    """The published task whose presets a model may use, as of `published_task`; ValueError also for other presets."""
    task = published_task(name, labels, arguments)
    if task is None and arguments.preset not in (None, "off"):
        raise ValueError(
            f"--preset {arguments.preset} was chosen for {' and '.join(TASKS)}, but {name} labels "
            f"{', '.join(labels.names)}; leave it out, or give --settings or single options"
        )
    return task
