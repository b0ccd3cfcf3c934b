"""Photos found in folders at any depth; what labelling made of them before is none."""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hubmodels.images import SUFFIXES, UNREAD_SUFFIXES, local_path
from hubmodels.paths import exists, is_folder
from hubmodels.result_files import ENDS, is_result


@dataclass
class PhotoSearch:
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

    def nothing_found(self) -> str:
        """What to say where there is no photo."""
        expected = f"no photos found; expected files ending in {', '.join(sorted(SUFFIXES))}"
        return "; ".join(filter(None, (expected, self.unread(), *self.closed)))

    def photos_of(self, sources: Iterable[str | Path]) -> list[tuple[Path, Path]]:
        """Photos and, of each, its folder as seen from its source.

        Raises:
            FileNotFoundError: a source does not exist.
            ImageError: a source is an address or empty.
        """
        return [found for source in map(local_path, sources) for found in self.photos_in(source)]

    def photos_in(self, source: Path) -> Iterator[tuple[Path, Path]]:
        """Pairs of photo and its folder as seen from the source.

        Raises:
            FileNotFoundError: the source does not exist.
        """
        if not exists(source):
            raise FileNotFoundError(f"{source}: no such photo or folder")
        if not is_folder(source):
            if not is_result(source):
                yield source, Path()
            return
        for path in self._files_in(source):
            self.suffixes[path.suffix.lower()] += 1
            self.bare += not path.suffix and _begins_like_a_photo(path)
            if path.suffix.lower() in SUFFIXES and not is_result(path):
                yield path, path.relative_to(source).parent

    def _files_in(self, folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
        """Files at any depth in order of their names, without those that macOS adds beside each on foreign disks.

        Args:
            folder: where to look; links to folders are followed.
            above: the folders around it, as a link to one of them would go round for ever.
        """
        real = os.path.realpath(folder)
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


def listed(items: Sequence[str]) -> str:
    """The first few of many, and how many more there are."""
    return "; ".join(items[:3]) + (f"; and {len(items) - 3} more" if len(items) > 3 else "")


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
