"""Where the weights of an entry are, and what a file of weights must satisfy before it is used.

Files are untrusted until their digest, names, shapes, kinds and values have been checked. Nothing but safetensors is
read, so nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load

from hubmodels.checks import check_tensors
from hubmodels.entries import Entry
from hubmodels.errors import WeightsError

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
HEADER_BYTES_MAX = 4_000_000  # names, shapes and metadata of a file; ours have 60 000
BYTES_PER_VALUE_MAX = 8


def places(entry: Entry) -> list[Path]:
    """Where the file of an entry may be, in the order in which it is sought."""
    override = os.environ.get("HUBMODELS_WEIGHTS")
    shipped = WEIGHTS_FOLDER / entry.weights_file
    return [Path(override).expanduser() / entry.filename, shipped] if override else [shipped]


def find_weights(entry: Entry) -> Path | None:
    """The file of an entry: in the folder that HUBMODELS_WEIGHTS names if it is there, else as shipped, else None."""
    return next((path for path in places(entry) if path.is_file()), None)


def sha256(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_file(path: Path, *, most_bytes: int, what: str, remedy: str) -> bytes:
    """The bytes of a file, unless it is larger than it can rightly be.

    Raises:
        WeightsError: no regular file, not readable, or too large; found before its content is read.
    """
    try:
        if not path.is_file():
            found = "is no regular file" if path.exists() else "is missing"
            raise WeightsError(f"{what}: {path} {found}; {remedy}")
        if (size := path.stat().st_size) > most_bytes:
            raise WeightsError(f"{what}: {path} has {size:,} bytes, expected {most_bytes:,} at most; {remedy}")
        with path.open("rb") as file:
            return file.read(most_bytes)
    except OSError as error:
        raise WeightsError(f"{what}: {path} cannot be read ({error}); {remedy}") from error


def check_digest(data: bytes, expected: str, *, what: str, remedy: str) -> None:
    """Raise WeightsError unless `data` has the digest `expected`."""
    if (digest := sha256(data)) != expected:
        raise WeightsError(
            f"{what}: {kind_of(data)}sha256 is {digest[:12]}, expected {expected[:12]}; {_lfs_remedy(data)}{remedy}"
        )


def parse_tensors(
    data: bytes, wanted: Mapping[str, torch.Tensor], *, what: str, remedy: str, only_wanted: bool = False
) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, floating point as float32.

    Args:
        data: the file.
        wanted: a state dict with the names, shapes and kinds that it must have.
        what, remedy: how messages begin and end.
        only_wanted: leave out other tensors instead of refusing them.

    Raises:
        WeightsError: says what was expected, what was found, and the remedy.
    """
    try:
        tensors = load(data)
    except Exception as error:  # a header that lies makes safetensors or PyTorch raise nearly anything
        reason = kind_of(data) or f"not a safetensors file ({error}); "
        raise WeightsError(f"{what}: {reason}{_lfs_remedy(data)}{remedy}") from error
    if only_wanted:
        tensors = {key: value for key, value in tensors.items() if key in wanted}
    check_tensors(tensors, wanted, what=what, remedy=remedy)
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def most_bytes(wanted: Mapping[str, torch.Tensor]) -> int:
    """Bytes that a file with these tensors has at most."""
    return HEADER_BYTES_MAX + BYTES_PER_VALUE_MAX * sum(value.numel() for value in wanted.values())


def read_verified(entry: Entry, path: Path) -> bytes:
    """The weights file of an entry, once its digest was found to be the entry's.

    Raises:
        WeightsError: says what was expected, what was found, and the remedy.
    """
    remedy = f"restore {path.resolve()} from a release, or delete it to have it downloaded again"
    if path.is_relative_to(WEIGHTS_FOLDER):
        remedy = f"restore {path} from a release, or reinstall hubmodels"
    # Read once, so that what was hashed is what is parsed.
    data = read_file(path, most_bytes=max(entry.size_bytes, 1) + HEADER_BYTES_MAX, what=entry.name, remedy=remedy)
    check_digest(data, entry.sha256, what=entry.name, remedy=remedy)
    return data


def is_verified(entry: Entry, path: Path) -> bool:
    """Whether a file is the entry's."""
    try:
        read_verified(entry, path)
    except WeightsError:
        return False
    return True


def verify_shipped(entries: Iterable[Entry]) -> Iterator[tuple[str, bool, str]]:
    """Hash the weights of all rows that have some, and look for files that belong to no row.

    Yields:
        name, whether all is well, and one line about it. Large weights that are not here are well: they come from a
        clone or from the Hub, and are checked then.
    """
    known = set()
    for entry in entries:
        known.add(WEIGHTS_FOLDER / entry.weights_file)
        if not entry.is_trained:
            continue
        path = find_weights(entry)
        if path is None:
            yield entry.name, entry.large, "not here; checked when it is loaded" if entry.large else "missing"
            continue
        try:
            read_verified(entry, path)
        except WeightsError as error:
            yield entry.name, False, str(error)
        else:
            yield entry.name, True, f"sha256 {entry.sha256} {path}"
    for path in sorted(WEIGHTS_FOLDER.rglob("*.safetensors")):
        if path not in known:
            yield path.name, False, f"{path} belongs to no published model"


def kind_of(data: bytes) -> str:
    """What a file is that takes the place of weights now and then, with "; " after it; "" if it is none of these."""
    start = data[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not weights; "
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not weights; "
    if start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"pk\x03\x04")):
        return "a pickled checkpoint, which is never read; "
    return "" if data else "an empty file; "


def _lfs_remedy(data: bytes) -> str:
    return "run 'git lfs pull', or " if data.startswith(b"version https://git-lfs") else ""
