"""Many photos: find them, label each, go on after a bad one, and after a stop where it was.

Every result says how it was made: a mask in a text chunk, an overlay in a comment. So a result is known wherever it
lies, and is taken for done only if it is that of this very photo, made just so.
"""

from __future__ import annotations

import collections
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hubmodels.errors import ImageError, RegionsError
from hubmodels.export import fit_jpeg, indexed_png, save_image
from hubmodels.images import SUFFIXES, UNREAD_SUFFIXES
from hubmodels.refine import Refinement
from hubmodels.segmenter import Segmenter

MASK, OVERLAY = "_mask.png", "_overlay.jpg"  # what results are called, behind the photo's name
# What whole files of these kinds begin and end with: PNG's signature and last chunk, JPEG's first markers and its last.
ENDS = {
    MASK: (b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"),
    OVERLAY: (b"\xff\xd8\xff", b"\xff\xd9"),
}
MADE_BY = "hubmodels"  # text chunk of a mask, and first word of an overlay's comment
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other photo's results could be written either
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
        kept: files where results would go that are none, such as masks corrected by hand; their photos have no jobs.
        drawn: files named as results that are none, beside their photo or where its result would be; no photos either.
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
        ValueError: no photos, or photos of different folders whose results would have one name.
    """
    search = _Search()
    found = [each for source in map(Path, sources) for each in search.photos_in(source)]
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


def find_photos(sources: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Photos and, of each, its folder as seen from its source; searched as `plan` does, whatever results there are.

    Raises:
        FileNotFoundError: a source does not exist.
    """
    search = _Search()
    return [found for source in map(Path, sources) for found in search.photos_in(source)]


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
            photos = list({photo.resolve(): photo for photo in photos}.values())
            if len({photo.parent.resolve() for photo in photos}) > 1:
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
    """What a result of a photo would replace though it is none: a photo, or a mask drawn by hand."""
    for path in (job.mask, job.overlay):
        if (path.exists() or path.is_symlink()) and not is_result(path) and not _is_remains(path):
            return path
    return None


@dataclass
class _Search:
    """A walk through folders, and what it finds beside photos.

    Attributes:
        suffixes: suffix -> number of files in folders.
        bare: number of files without suffix that begin like a photo.
        closed: as of `Plan`.
    """

    suffixes: collections.Counter[str] = field(default_factory=collections.Counter)
    bare: int = 0
    closed: list[str] = field(default_factory=list)

    def unread(self) -> str:
        """What was found that looks like photos and is not read, and what to do about it; empty if there is nothing."""
        found = [f"{self.suffixes[suffix]} {suffix}" for suffix in sorted(UNREAD_SUFFIXES & set(self.suffixes))]
        remedies = ["convert them to JPEG first"] if found else []
        if self.bare:
            found.append(f"{self.bare} without a suffix that {'begin' if self.bare > 1 else 'begins'} like JPEG or PNG")
            remedies.append("name those without a suffix .jpg or .png" if remedies else "name them .jpg or .png")
        return f"files of these kinds are not read: {', '.join(found)}; {' and '.join(remedies)}" if found else ""

    def photos_in(self, source: Path) -> Iterator[tuple[Path, Path]]:
        """Pairs of photo and its folder as seen from the source.

        Raises:
            FileNotFoundError: the source does not exist.
        """
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such photo or folder")
        if not source.is_dir():
            if not is_result(source):
                yield source, Path()
            return
        for path in self._files_in(source):
            self.suffixes[path.suffix.lower()] += 1
            self.bare += not path.suffix and _begins_like_a_photo(path)
            if path.suffix.lower() in SUFFIXES and not is_result(path):
                yield path, path.relative_to(source).parent

    def _files_in(self, folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
        """Files at any depth in order of their names, without those that macOS adds beside each on foreign disks.

        Args:
            folder: where to look; links to folders are followed.
            above: the folders around it, as a link to one of them would go round for ever.
        """
        real = folder.resolve()
        if real in above or folder.name == "__MACOSX":
            return
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            self.closed.append(f"{folder}: cannot be searched for photos ({error.strerror})")
            return
        for path in paths:
            kind = _kind(path)
            if kind == stat.S_IFDIR:
                yield from self._files_in(path, above | {real})
            elif kind in (stat.S_IFREG, None) and not path.name.startswith("._"):
                yield path


def _kind(path: Path) -> int | None:
    """File, folder or what else, as of `stat.S_IFMT`; None: only opening it will tell what is wrong with it."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError:  # such as a link to nothing
        return None


def _begins_like_a_photo(path: Path) -> bool:
    """Whether a file begins as JPEG or PNG does."""
    try:
        with path.open("rb") as file:
            first = file.read(max(len(begin) for begin, _ in ENDS.values()))
    except OSError:
        return False
    return any(first.startswith(begin) for begin, _ in ENDS.values())


def is_result(path: Path) -> bool:
    """Whether a file was written by `run`. An overlay without a comment is known by the mask beside it."""
    if path.name.endswith(OVERLAY):
        mask = path.with_name(f"{path.name.removesuffix(OVERLAY)}{MASK}")
        return _note_in(path) is not None or _note_in(mask) is not None
    return path.name.endswith(MASK) and _note_in(path) is not None


def _is_remains(path: Path) -> bool:
    """Whether a file with the name of a result is what a crash or a broken copy left of one, before it could say so.

    It is empty, nothing but zeros, or begins as a result does and ends before its end. Of a file by somebody else the
    end may be followed by more, so the whole of it is searched.
    """
    begin, end = ENDS[MASK if path.name.endswith(MASK) else OVERLAY]
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if not data.strip(b"\0"):
        return True
    return begin.startswith(data[: len(begin)]) and end not in data


def _is_whole(path: Path) -> bool:
    """Whether a result ends as whole ones do; nothing is decoded. OSError if it cannot be read, or is shorter yet."""
    _, end = ENDS[MASK if path.name.endswith(MASK) else OVERLAY]
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def _note_in(path: Path) -> str | None:
    """What a result says of how it was made: a mask the note itself, an overlay its digest. None: it is no result."""
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as picture:
            if picture.format == "PNG":
                return picture.info.get(MADE_BY)
            comment = picture.info.get("comment", b"").decode("ascii")
    except Exception:  # none there, or none of ours: what is damaged makes Pillow raise anything
        return None
    return comment if comment.startswith(f"{MADE_BY} ") else None


def _note(photo: Path, made_by: Mapping[str, Any]) -> str:
    """What the mask of a photo says: how it was made, and of which photo; JSON."""
    with photo.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps({**made_by, "photo_sha256": digest}, sort_keys=True)


def _short(note: str) -> str:
    """The note of an overlay, as comments of JPEG hold 65533 bytes at most, and many labels take more."""
    return f"{MADE_BY} {hashlib.sha256(note.encode()).hexdigest()}"


def is_done(job: Job, made_by: Mapping[str, Any]) -> bool:
    """Whether both results of a job are there and whole, of the photo as it is now and made as `made_by` says."""
    said = _note_in(job.mask)
    try:
        if said is None or not (_is_whole(job.mask) and _is_whole(job.overlay)):
            return False
        return said == _note(job.photo, made_by) and _note_in(job.overlay) == _short(said)
    except OSError:  # a result is missing, or the photo cannot be read, which labelling it will report
        return False


def run(
    model: Segmenter, jobs: Iterable[Job], made_by: Mapping[str, Any], *, refinement: Refinement | None = None
) -> Iterator[Outcome]:
    """Label every photo in turn; one that cannot be read, is too large for the memory there is or falls into too many
    superpixels, or whose results cannot be written is reported.

    Args:
        model, jobs: as of `plan`.
        made_by: all that decides what comes out, JSON-able; masks hold it in the text chunk MADE_BY.
        refinement: post-processing.

    Yields:
        One Outcome per job, as soon as its files are written.

    Raises:
        OSError: the disk is full or cannot be written, so that going on makes no sense.
    """
    for job in jobs:
        try:
            outcome = Outcome(job, _label(model, job, refinement, made_by))
        except (ImageError, RegionsError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            outcome = Outcome(job, None, error=_reason(job, error))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
                raise
            outcome = Outcome(job, None, error=f"{job.photo}: needs more memory than there is; make a smaller copy")
        yield outcome


def _reason(job: Job, error: Exception) -> str:
    """Why a photo has no results, with its name."""
    if job.photo.is_symlink() and not job.photo.exists():
        return f"{job.photo}: is a link to a file that is not there"
    text = str(error)
    return text if str(job.photo) in text else f"{job.photo}: {text}"


def _label(model: Segmenter, job: Job, refinement: Refinement | None, made_by: Mapping[str, Any]) -> dict[str, float]:
    """Write the results of one photo; returns the shares of its labels. Nothing of it is kept for the next."""
    note = _note(job.photo, made_by)  # before it is read: if it changes meanwhile, it will not be taken for done
    result = model.predict(job.photo, refinement=refinement)
    info = PngInfo()
    info.add_text(MADE_BY, note)
    # The mask last: its name is the shorter one, and without it nothing passes for a result in full.
    save_image(fit_jpeg(result.overlay()), job.overlay, quality=90, comment=_short(note))
    save_image(indexed_png(result.labels, result.label_set), job.mask, pnginfo=info)
    return result.areas()
