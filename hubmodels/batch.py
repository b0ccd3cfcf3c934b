"""Many photos: find them, label each, go on after a bad one, and after a stop where it was."""

from __future__ import annotations

import collections
import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hubmodels.errors import ImageError
from hubmodels.export import indexed_png, save_image
from hubmodels.images import SUFFIXES, UNREAD_SUFFIXES
from hubmodels.refine import Refinement
from hubmodels.segmenter import Segmenter

MASK, OVERLAY = "_mask.png", "_overlay.jpg"  # what results are called, behind the photo's name
MADE_BY = "hubmodels"  # text chunk of a mask
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other photo's results could be written either


@dataclass(frozen=True)
class Job:
    """One photo and the files made of it."""

    photo: Path
    mask: Path
    overlay: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: shares of the photo by label, or the reason why there are none."""

    job: Job
    areas: dict[str, float] | None
    error: str | None = None


def plan(sources: Iterable[str | Path], out: str | Path) -> list[Job]:
    """One job per photo; folders are searched for photos at any depth, and their structure is kept.

    Linked folders are searched too. Results of before are no photos where `out` is a folder inside of a source.

    Args:
        sources: photos and folders.
        out: where results go: NAME_mask.png and NAME_overlay.jpg.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: no photos, two photos whose results would have one name, or a photo that results would overwrite.
    """
    out = Path(out)
    jobs: dict[Path, Job] = {}
    for source in map(Path, sources):
        for photo, name in _photos_in(source, out):
            stem = out / name.with_suffix("")
            job = Job(photo, stem.with_name(f"{stem.name}{MASK}"), stem.with_name(f"{stem.name}{OVERLAY}"))
            if (other := jobs.get(job.mask)) is not None and other.photo.resolve() != photo.resolve():
                raise ValueError(
                    f"{other.photo} and {photo} would both write {job.mask}; rename one or label them apart"
                )
            jobs[job.mask] = job
    if not jobs:
        raise ValueError(f"no photos found; expected files ending in {', '.join(sorted(SUFFIXES))}")
    _check_apart(jobs.values(), out)
    return list(jobs.values())


def _check_apart(jobs: Iterable[Job], out: Path) -> None:
    """Raise ValueError if a photo is where a result will be: a mask drawn by hand, or a result of before."""
    photos = {job.photo.resolve(): job.photo for job in jobs}
    for job in jobs:
        for result in (job.mask, job.overlay):
            if (photo := photos.get(result.resolve())) is not None:
                raise ValueError(
                    f"{photo} is among the photos, and a result of {job.photo} would replace it; "
                    f"choose another folder for results than {out}"
                )


def _photos_in(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Pairs of photo and name relative to the output folder; a file named on its own is taken whatever its suffix."""
    if source.is_dir():
        inside = source.resolve() in out.resolve().parents
        for path in _files_in(source):
            is_result = inside and path.name.endswith((MASK, OVERLAY)) and out.resolve() in path.resolve().parents
            if path.suffix.lower() in SUFFIXES and not is_result:
                yield path, path.relative_to(source)
    elif source.exists():
        yield source, Path(source.name)
    else:
        raise FileNotFoundError(f"{source}: no such photo or folder")


def _files_in(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Files at any depth in order of their names, without those that macOS adds beside each on foreign disks.

    Args:
        folder: where to look; links to folders are followed.
        above: the folders around it, as a link to one of them would go round for ever.
    """
    real = folder.resolve()
    if real in above or folder.name == "__MACOSX":
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files_in(path, above | {real})
        elif path.is_file() and not path.name.startswith("._"):
            yield path


def unread(sources: Iterable[str | Path]) -> dict[str, int]:
    """Suffix -> number of files in folders that are photos of kinds which cannot be read, such as .heic."""
    files = (path for source in map(Path, sources) if source.is_dir() for path in _files_in(source))
    counts = collections.Counter(path.suffix.lower() for path in files)
    return {suffix: counts[suffix] for suffix in sorted(UNREAD_SUFFIXES & set(counts))}


def is_done(job: Job, note: str) -> bool:
    """Whether the results of a job are there, made as `note` says of a photo that has not changed since."""
    try:
        with Image.open(job.mask, formats=["PNG"]) as mask:
            same = mask.info.get(MADE_BY) == note
        # The overlay is written last.
        return same and job.overlay.stat().st_mtime >= job.photo.stat().st_mtime
    except (OSError, SyntaxError, ValueError):  # none, or none of ours
        return False


def run(
    model: Segmenter, jobs: Iterable[Job], *, refinement: Refinement | None = None, note: str | None = None
) -> Iterator[Outcome]:
    """Label every photo in turn; one that cannot be read or whose results cannot be written is reported.

    Args:
        model, jobs: as of `plan`.
        refinement: post-processing.
        note: how they are made, for the text chunk MADE_BY of the masks.

    Yields:
        One Outcome per job, as soon as its files are written.

    Raises:
        OSError: the disk is full or cannot be written, so that going on makes no sense.
    """
    for job in jobs:
        try:
            outcome = Outcome(job, _label(model, job, refinement, note))
        except (ImageError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            text = str(error)
            outcome = Outcome(job, None, error=text if str(job.photo) in text else f"{job.photo}: {text}")
        yield outcome


def _label(model: Segmenter, job: Job, refinement: Refinement | None, note: str | None) -> dict[str, float]:
    """Write the results of one photo; returns the shares of its labels. Nothing of it is kept for the next."""
    result = model.predict(job.photo, refinement=refinement)
    info = PngInfo()
    if note is not None:
        info.add_text(MADE_BY, note)
    save_image(indexed_png(result.labels, result.label_set), job.mask, pnginfo=info)
    save_image(result.overlay(), job.overlay, quality=90)
    return result.areas()
