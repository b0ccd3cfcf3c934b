"""Many photos: label them as planned, go on after a bad one, and after a stop where it was.

Results say how they were made (`hubmodels.result_files`), and are taken for done only if they are those of this very
photo, made just so.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubmodels.absent import names_of_absent
from hubmodels.errors import ImageError, RegionsError
from hubmodels.files import FULL
from hubmodels.images import read_image
from hubmodels.in_order import in_order
from hubmodels.model_export import describe
from hubmodels.paths import exists
from hubmodels.planning import Job
from hubmodels.refine import Refinement
from hubmodels.result import Segmentation
from hubmodels.result_files import (
    is_whole,
    note_in,
    note_of,
    short_note,
    write_results,
)
from hubmodels.segmenter import Segmenter

NAME_BYTES = 255  # of a file, on nearly every file system
# What PyTorch and ONNX Runtime say in a RuntimeError, on CPU and GPU; other such errors are faults, and end the run.
NO_MEMORY = ("out of memory", "allocate memory", "bad allocation", "bad_alloc")


@dataclass(frozen=True)
class Outcome:
    """What became of a job: shares of the photo by label, or the reason why there are none."""

    job: Job
    areas: dict[str, float] | None
    error: str | None = None


def how_made(model: Segmenter, settings: Refinement, *, absent: Collection[str] = ()) -> dict[str, Any]:
    """What masks say about how they were made, and what must be the same to leave a photo out; JSON-able."""
    facts: dict[str, Any] = {**describe(model), "settings": settings.to_dict()}
    if left_out := names_of_absent(model.labels, absent):
        facts["absent"] = list(left_out)
    if settings.vote == "classifier" and model.region_classifier is not None:
        facts["regions_sha256"] = hashlib.sha256(model.region_classifier().to_bytes()).hexdigest()
    return facts


def is_done(job: Job, made_by: Mapping[str, Any]) -> bool:
    """Whether both results of a job are there and whole, of the photo as it is now and made as `made_by` says."""
    said = note_in(job.mask)
    try:
        if said is None or not is_whole(job.overlay):
            return False
        return said == note_of(job.photo, made_by) and note_in(job.overlay) == short_note(said)
    except OSError:  # a result is missing, or the photo cannot be read, which labelling it will report
        return False


def run(
    model: Segmenter,
    jobs: Iterable[Job],
    made_by: Mapping[str, Any],
    *,
    refinement: Refinement | None = None,
    absent: Collection[str] = (),
) -> Iterator[Outcome]:
    """Label every photo in turn; one that cannot be read, is too large for the memory there is or falls into too many
    superpixels, or whose results cannot be written is reported.

    While a photo is labelled, the next is read and the results of the last are written.

    Args:
        model: labels the photos.
        jobs: what `plan` found.
        made_by: all that decides what comes out, as of `how_made`; masks hold it in a text chunk.
        refinement: post-processing.
        absent: labels that none of the photos shows.

    Yields:
        One Outcome per job, in their order, once its files are written.

    Raises:
        OSError: the disk is full or cannot be written, so that going on makes no sense.
        KeyboardInterrupt: as it comes, after the outcome of the photo whose results were being written.
    """
    predict = functools.partial(model.predict, refinement=refinement, absent=absent)
    with ThreadPoolExecutor(2, "hubmodels-files") as files:
        last: tuple[Job, Future[dict[str, float]]] | None = None
        try:
            for job, reading in in_order(files, functools.partial(_read, made_by=made_by), jobs, ahead=1):
                writing = _label(predict, job, reading, files)
                if last is not None:
                    outcome, last = _outcome(*last), None
                    yield outcome
                last = job, writing
        except KeyboardInterrupt:
            if last is not None:
                yield _outcome(*last)
            raise
        if last is not None:
            yield _outcome(*last)


def _read(job: Job, made_by: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """What the mask of a photo says, and the photo."""
    if (size := max(len(os.fsencode(path.name)) for path in (job.mask, job.overlay))) > NAME_BYTES:
        raise ImageError(f"its results would have names of {size} bytes, of {NAME_BYTES} at most: shorten its")
    note = note_of(job.photo, made_by)  # before it is read: if it changes meanwhile, it will not be taken for done
    return note, read_image(job.photo)


def _label(
    predict: Callable[[np.ndarray], Segmentation],
    job: Job,
    reading: Future[tuple[str, np.ndarray]],
    files: Executor,
) -> Future[dict[str, float]]:
    """Label a photo; what writes its results then, or an error that is raised in its turn."""
    try:
        note, photo = reading.result()
        result = predict(photo)
    except Exception as error:
        failed: Future[dict[str, float]] = Future()
        failed.set_exception(error)
        return failed
    # Without the probabilities, which are not written: they take 28 bytes a pixel at seven labels.
    light = dataclasses.replace(result, probs=np.broadcast_to(np.float32(0), result.probs.shape))
    return files.submit(_write, light, job, note)


def _write(result: Segmentation, job: Job, note: str) -> dict[str, float]:
    """Write the results of a photo; returns the shares of its labels."""
    write_results(result, job.mask, job.overlay, note=note)
    return result.areas()


def _outcome(job: Job, writing: Future[dict[str, float]]) -> Outcome:
    """What became of a job, once its results are written or it failed; raises what `run` raises."""
    try:
        return Outcome(job, writing.result())
    except (ImageError, RegionsError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        return Outcome(job, None, error=_reason(job, error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        return Outcome(job, None, error=f"{job.photo}: needs more memory than there is; make a smaller copy")


def _reason(job: Job, error: Exception) -> str:
    """Why a photo has no results, with its name."""
    if job.photo.is_symlink() and not exists(job.photo):
        return f"{job.photo}: is a link to a file that is not there"
    text = str(error)
    if isinstance(error, PermissionError) and not os.access(job.mask.parent, os.W_OK | os.X_OK):
        text = f"{job.mask.parent} cannot be written; change its permissions or choose another --out"
    return text if str(job.photo) in text else f"{job.photo}: {text}"
