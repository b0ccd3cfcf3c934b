"""Masks that a command takes instead of a model, and which labels they have."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator

from hubmodels.entries import Entry
from hubmodels.labelled_photos import LabelledPhoto, labelled
from hubmodels.labels import TASKS, LabelSet, colour_of_hex
from hubmodels.mask_search import Example, MaskedPhotos, find_examples
from hubmodels.model_names import find_model
from hubmodels.paths import printable
from hubmodels.result_files import note_in


def examples_of(arguments: argparse.Namespace) -> tuple[MaskedPhotos, LabelSet]:
    """Photos with masks that `arguments` name, as of `add_mask_options`, and what the masks show.

    Raises:
        ValueError: no mask says which labels it has and no option does; or they differ.
        FileNotFoundError, ImageError, ValueError: as of `find_examples`.
        HubmodelsError: as of `hubmodels.load`, for --model.
    """
    found = find_examples(arguments.photos, arguments.masks)
    say_what_is_left_out(found)
    labels = _labels_asked_for(arguments)
    named = check_masks_show(found.examples, labels, remedy="leave out --task and --model")
    if (labels := labels or named) is None:
        raise ValueError(
            f"no mask in {arguments.masks} says which labels it has; say --task {' or '.join(TASKS)}, or --model, with "
            "whose labels they were drawn"
        )
    return found, labels


def labelled_with_bar(masked: MaskedPhotos, labels: LabelSet, failures: list[str]) -> Iterator[LabelledPhoto]:
    """Photos with what their masks say, with a bar of progress; why others are left out is said, and in `failures`."""
    from tqdm import tqdm

    bar = tqdm(masked.examples, unit="photo", desc=labels.task)

    def note_failure(reason: str) -> None:
        failures.append(reason)
        bar.write(f"hubmodels: {printable(reason)}", file=sys.stderr)

    return labelled(bar, labels, failed=note_failure)


def say_what_is_left_out(found: MaskedPhotos) -> None:
    """Files of kinds that are not read, photos without a mask, and folders that cannot be searched."""
    if found.unread:
        print(found.unread, file=sys.stderr)
    if found.without:
        print(f"photos without a mask, which are left out: {found.without}", file=sys.stderr)
    for reason in found.closed:
        print(f"hubmodels: {printable(reason)}", file=sys.stderr)


def check_masks_show(examples: Iterable[Example], labels: LabelSet | None, *, remedy: str) -> LabelSet | None:
    """The labels that masks of `hubmodels label` say they have; None if no mask says so.

    Args:
        examples: photos and masks.
        labels: what they are to have, if that is known.
        remedy: what to do if they have others.

    Raises:
        ValueError: some have other labels than others, or than they are to have.
    """
    found: dict[tuple[str, ...], tuple[LabelSet, Example]] = {}
    for example in examples:
        if (note := note_in(example.mask)) is not None and (told := _labels_in(note)) is not None:
            found.setdefault(told.names, (told, example))
    if len(found) > 1:
        (one, here), (other, there) = list(found.values())[:2]
        raise ValueError(
            f"expected masks of the same labels; got {one.task} in {here.mask} and {other.task} in {there.mask}: "
            "name one folder of them"
        )
    for told, example in found.values():
        if labels is not None and told.names != labels.names:
            raise ValueError(
                f"{example.mask} says that it shows {told.task} ({', '.join(told.names):.200}), not {labels.task} "
                f"({', '.join(labels.names):.200}): {remedy}"
            )
        return told
    return None


def _labels_asked_for(arguments: argparse.Namespace) -> LabelSet | None:
    if arguments.model is None:
        return TASKS[arguments.task] if arguments.task else None
    source = find_model(arguments.model)
    if isinstance(source, Entry):
        return source.labels

    from hubmodels.hub import load_model  # brings PyTorch

    return load_model(arguments.model).labels


def _labels_in(note: str) -> LabelSet | None:
    """The labels that a mask's note tells; None if it is not as we write them, whoever wrote it."""
    try:
        facts = json.loads(note)
        palette = tuple(map(colour_of_hex, json.loads(facts["palette"])))
        return LabelSet(str(facts["task"]), tuple(map(str, json.loads(facts["labels"]))), palette)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
