"""Many photos: which are found, and what the results of each are called. Nothing that somebody made is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubmodels.photo_search import PhotoSearch, listed
from hubmodels.result_files import ENDS, MASK, OVERLAY, is_anothers


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
        drawn: files called NAME_mask.png, NAME_overlay.jpg or NAME_cutout.png that hubmodels did not write, beside
            their photo or where its result would go. They are not taken for photos.
        orphans: masks that somebody changed, under a name that photos have shared since: nothing tells whose they are.
    """

    jobs: list[Job]
    unread: str
    closed: list[str]
    kept: list[Path]
    drawn: list[Path]
    orphans: list[Path]


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
    found = search.photos_of(sources)
    drawn = _named_as_results(photo for photo, _ in found)
    chosen = _each_once((photo, folder) for photo, folder in found if photo not in drawn)
    named = list(zip(chosen, result_names(chosen), strict=True))
    jobs = [Job.of(photo, Path(out) / folder, name) for (photo, folder), name in named]
    places = {path.absolute() for job in jobs for path in (job.mask, job.overlay)}
    drawn |= {job.photo for job in jobs if job.photo.absolute() in places}  # in a folder for results
    planned = [job for job in jobs if job.photo not in drawn]
    if not planned:
        raise ValueError(search.nothing_found())
    in_the_way = {job: _in_the_way(job) for job in planned}
    return Plan(
        jobs=[job for job, file in in_the_way.items() if file is None],
        unread=search.unread(),
        closed=search.closed,
        kept=[file for file in in_the_way.values() if file is not None],
        drawn=sorted(drawn),
        orphans=sorted(_orphans(named, Path(out)) - drawn),
    )


def _named_as_results(files: Iterable[Path]) -> set[Path]:
    """Those that have the name of a result of another one, beside it."""
    files = set(files)
    names = {(file.parent, name) for file in files for name in (file.stem, file.name)}
    return {
        file
        for file in files
        for end in ENDS
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
        raise ValueError(
            f"photos of different folders would write results of one name: {listed(clashes)}; "
            "rename one of each or label the folders apart"
        )
    return once


def result_names(found: Sequence[tuple[Path, Path]]) -> list[str]:
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


def _orphans(named: Iterable[tuple[tuple[Path, Path], str]], out: Path) -> set[Path]:
    """Masks by somebody else, called as photos would be that share their name."""
    masks = {out / folder / f"{photo.stem}{MASK}" for (photo, folder), name in named if name != photo.stem}
    return set(filter(is_anothers, masks))


def _in_the_way(job: Job) -> Path | None:
    """What a result of a photo would replace though it is none: a photo, or a mask drawn by hand.

    Where nothing can be looked up, nothing can be replaced either: writing will tell.
    """
    return next(filter(is_anothers, (job.mask, job.overlay)), None)
