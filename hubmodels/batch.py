"""Many photos: plan what is made of each, label them, go on after a bad one, and after a stop where it was.

Results say how they were made (`hubmodels.result_files`), and are taken for done only if they are those of this very
photo, made just so.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hubmodels.errors import ImageError, RegionsError
from hubmodels.images import SUFFIXES, local_path, read_image
from hubmodels.paths import exists
from hubmodels.photo_search import PhotoSearch
from hubmodels.refine import Refinement
from hubmodels.result import Segmentation
from hubmodels.result_files import (
    MASK,
    OVERLAY,
    is_remains,
    is_result,
    is_whole,
    note_in,
    note_of,
    short_note,
    write_results,
)
from hubmodels.segmenter import Segmenter

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other photo's results could be written either
NAME_BYTES = 255  # of a file, on nearly every file system
# What PyTorch and ONNX Runtime say in a RuntimeError, on CPU and GPU; other such errors are faults, and end the run.
NO_MEMORY = ("out of memory", "allocate memory", "bad allocation", "bad_alloc")


@dataclass(frozen=True)
class Job:
    """One photo and the files made of it."""

    photo: Path
    mask: Path
    overlay: Path

    @classmethod
    def of(cls, photo: Path, folder: Path, name: str) -> Job:
        """The results of a photo in a folder, with how they begin: its name, unless others have the same."""
        return cls(photo, folder / f"{name}{MASK}", folder / f"{name}{OVERLAY}")


@dataclass(frozen=True)
class Plan:
    """What was found in the sources.

    Attributes:
        jobs: one per photo.
        unread: what folders hold that looks like photos and is not read, such as .heic: a line to print, or nothing.
        closed: of each folder that cannot be searched, the reason.
        kept: files that stand where a result would go and were not written by hubmodels, or changed since, such as
            masks corrected by hand. They are left alone, and their photos have no jobs.
        drawn: files called NAME_mask.png or NAME_overlay.jpg that hubmodels did not write, beside their photo or where
            its result would go. They are not taken for photos.
    """

    jobs: list[Job]
    unread: str
    closed: list[str]
    kept: list[Path]
    drawn: list[Path]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: shares of the photo by label, or the reason why there are none."""

    job: Job
    areas: dict[str, float] | None
    error: str | None = None


def plan(sources: Iterable[str | Path], out: str | Path) -> Plan:
    """One job per photo; folders are searched for photos at any depth, and their structure is kept.

    Linked folders are searched too. Results of before are no photos, wherever they lie, nor are masks that were drawn
    and lie beside their photos or among the results. What somebody else made is never replaced: its photo is left out.

    Args:
        sources: photos and folders; a file named on its own is taken whatever its suffix.
        out: where results go: NAME_mask.png and NAME_overlay.jpg. Photos of one folder that would share a NAME have the
            suffix in it, as in a.jpg_mask.png.

    Raises:
        FileNotFoundError: a source does not exist.
        ImageError: a source is an address or empty.
        ValueError: no photos, or photos of different folders whose results would have one name.
    """
    search = PhotoSearch()
    found = [each for source in map(local_path, sources) for each in search.photos_in(source)]
    drawn = _named_as_results(photo for photo, _ in found)
    chosen = _each_once((photo, folder) for photo, folder in found if photo not in drawn)
    named = zip(chosen, _names(chosen), strict=True)
    jobs = [Job.of(photo, Path(out) / folder, name) for (photo, folder), name in named]
    places = {path.absolute() for job in jobs for path in (job.mask, job.overlay)}
    drawn |= {job.photo for job in jobs if job.photo.absolute() in places}  # in a folder for results
    planned = [job for job in jobs if job.photo not in drawn]
    if not planned:
        expected = f"no photos found; expected files ending in {', '.join(sorted(SUFFIXES))}"
        raise ValueError("; ".join(filter(None, (expected, search.unread(), *search.closed))))
    in_the_way = {job: _in_the_way(job) for job in planned}
    return Plan(
        jobs=[job for job, file in in_the_way.items() if file is None],
        unread=search.unread(),
        closed=search.closed,
        kept=[file for file in in_the_way.values() if file is not None],
        drawn=sorted(drawn),
    )


def _named_as_results(files: Iterable[Path]) -> set[Path]:
    """Those that have the name of a result of another one, beside it."""
    files = set(files)
    names = {(file.parent, name) for file in files for name in (file.stem, file.name)}
    return {
        file
        for file in files
        for end in (MASK, OVERLAY)
        if file.name.endswith(end) and (file.parent, file.name.removesuffix(end)) in names
    }


def _each_once(found: Iterable[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Photos and their folders, each photo once, however often and by whatever path to its folder it was found.

    Raises:
        ValueError: photos of different folders would have results of one name.
    """
    alike: dict[tuple[Path, str], list[Path]] = {}
    for photo, folder in found:
        alike.setdefault((folder, photo.stem), []).append(photo)
    once, clashes = [], []
    for (folder, _), photos in alike.items():
        if len(photos) > 1:
            photos = list({os.path.realpath(photo): photo for photo in photos}.values())
            if len({os.path.realpath(photo.parent) for photo in photos}) > 1:
                clashes.append(" and ".join(map(str, photos)))
        once += [(photo, folder) for photo in photos]
    if clashes:
        more = f"; and {len(clashes) - 3} more such names" if len(clashes) > 3 else ""
        raise ValueError(
            f"photos of different folders would write results of one name: {'; '.join(clashes[:3])}{more}; "
            "rename one of each or label the folders apart"
        )
    return once


def _names(found: Sequence[tuple[Path, Path]]) -> list[str]:
    """How the results of photos are to begin: the photo's name without suffix, with it, or with it and a number.

    The shortest that is the photo's own, also for file systems on which case makes no difference. A name is text:
    pathlib takes that of `..jpg` for another folder.

    Args:
        found: photos, each once, and their folders.
    """
    lengths = [0] * len(found)
    while True:
        names = [_name(photo, length) for (photo, _), length in zip(found, lengths, strict=True)]
        alike: dict[tuple[str, str], list[int]] = {}
        for index, ((_, folder), name) in enumerate(zip(found, names, strict=True)):
            alike.setdefault((str(folder).casefold(), name.casefold()), []).append(index)
        clashes = [indices for indices in alike.values() if len(indices) > 1]
        if not clashes:
            return names
        for indices in clashes:
            # Numbers only where suffixes do not help, as for a.jpg and A.jpg; in order, so that they stay the same.
            without = [index for index in indices if lengths[index] == 0]
            for index in without or sorted(indices, key=lambda index: str(found[index][0]))[1:]:
                lengths[index] += 1


def _name(photo: Path, length: int) -> str:
    return (photo.stem, photo.name)[length] if length < 2 else f"{photo.name}_{length}"


def _in_the_way(job: Job) -> Path | None:
    """What a result of a photo would replace though it is none: a photo, or a mask drawn by hand.

    Where nothing can be looked up, nothing can be replaced either: writing will tell.
    """
    for path in (job.mask, job.overlay):
        if os.path.lexists(path) and not is_result(path) and not is_remains(path):
            return path
    return None


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
    model: Segmenter, jobs: Iterable[Job], made_by: Mapping[str, Any], *, refinement: Refinement | None = None
) -> Iterator[Outcome]:
    """Label every photo in turn; one that cannot be read, is too large for the memory there is or falls into too many
    superpixels, or whose results cannot be written is reported.

    While a photo is labelled, the next is read and the results of the last are written.

    Args:
        model, jobs: as of `plan`.
        made_by: all that decides what comes out, JSON-able; masks hold it in a text chunk.
        refinement: post-processing.

    Yields:
        One Outcome per job, in their order, once its files are written.

    Raises:
        OSError: the disk is full or cannot be written, so that going on makes no sense.
        KeyboardInterrupt: as it comes, after the outcome of the photo whose results were being written.
    """
    with ThreadPoolExecutor(2, "hubmodels-files") as files:
        last: tuple[Job, Future[dict[str, float]]] | None = None
        try:
            for job, reading in _read_ahead(files, jobs, made_by):
                writing = _label(model, job, reading, refinement, files)
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


def _read_ahead(
    files: Executor, jobs: Iterable[Job], made_by: Mapping[str, Any]
) -> Iterator[tuple[Job, Future[tuple[str, np.ndarray]]]]:
    """Jobs and what `_read` makes of each, begun when the job before is taken."""
    ahead: tuple[Job, Future[tuple[str, np.ndarray]]] | None = None
    for job in jobs:
        reading = job, files.submit(_read, job, made_by)
        if ahead is not None:
            yield ahead
        ahead = reading
    if ahead is not None:
        yield ahead


def _read(job: Job, made_by: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """What the mask of a photo says, and the photo."""
    if (size := max(len(os.fsencode(path.name)) for path in (job.mask, job.overlay))) > NAME_BYTES:
        raise ImageError(f"its results would have names of {size} bytes, of {NAME_BYTES} at most: shorten its")
    note = note_of(job.photo, made_by)  # before it is read: if it changes meanwhile, it will not be taken for done
    return note, read_image(job.photo)


def _label(
    model: Segmenter,
    job: Job,
    reading: Future[tuple[str, np.ndarray]],
    refinement: Refinement | None,
    files: Executor,
) -> Future[dict[str, float]]:
    """Label a photo; what writes its results then, or an error that is raised in its turn."""
    try:
        note, photo = reading.result()
        result = model.predict(photo, refinement=refinement)
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
