"""Many photos: find them, label each, and go on after a bad one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hubmodels.errors import ImageError
from hubmodels.export import save_image
from hubmodels.images import SUFFIXES
from hubmodels.refine import Refinement
from hubmodels.segmenter import Segmenter


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

    Args:
        sources: photos and folders.
        out: where results go: NAME_mask.png and NAME_overlay.jpg.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: no photos, or two photos whose results would have one name.
    """
    out = Path(out)
    jobs: dict[Path, Job] = {}
    for source in map(Path, sources):
        for photo, name in _photos_in(source):
            stem = out / name.with_suffix("")
            job = Job(photo, stem.with_name(f"{stem.name}_mask.png"), stem.with_name(f"{stem.name}_overlay.jpg"))
            if (other := jobs.get(job.mask)) is not None and other.photo.resolve() != photo.resolve():
                raise ValueError(
                    f"{other.photo} and {photo} would both write {job.mask}; rename one or label them apart"
                )
            jobs[job.mask] = job
    if not jobs:
        raise ValueError(f"no photos found; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return list(jobs.values())


def _photos_in(source: Path) -> Iterator[tuple[Path, Path]]:
    """Pairs of photo and name relative to the output folder; a file named on its own is taken whatever its suffix."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path, path.relative_to(source)
    elif source.exists():
        yield source, Path(source.name)
    else:
        raise FileNotFoundError(f"{source}: no such photo or folder")


def run(model: Segmenter, jobs: Iterable[Job], *, refinement: Refinement | None = None) -> Iterator[Outcome]:
    """Label every photo in turn; a photo that cannot be read is reported and the rest goes on.

    Yields:
        One Outcome per job, as soon as its files are written.
    """
    for job in jobs:
        try:
            result = model.predict(job.photo, refinement=refinement)
        except (ImageError, OSError) as error:
            yield Outcome(job, None, error=str(error))
            continue
        result.save(job.mask)
        save_image(result.overlay(), job.overlay, quality=90)
        yield Outcome(job, result.areas())
