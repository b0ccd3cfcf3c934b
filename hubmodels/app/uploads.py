"""Files of visitors: where they are, which paths are theirs to name, and when they are deleted.

Gradio's own schedule is not used: it goes through lists that grow meanwhile and ends for good at the first upload that
comes in the middle, it knows nothing of files from before a crash, and it leaves folders and unfinished uploads.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

FOLDER_VARIABLE = "GRADIO_TEMP_DIR"
# What lies in the folder: uploads that come in, named by Python's tempfile, and a folder for each whole file, named by
# the digest of its content. Nothing else is ever deleted, so a folder with other things in it loses none of them.
_UNFINISHED = re.compile("tmp[a-z0-9_]{8}")
_DIGEST = re.compile("[0-9a-f]{64}")
BLOCK_BYTES = 4096  # the least that a file or folder takes, on most file systems


def claim_folder() -> Path:
    """The folder of uploads and results, made if it is missing; Gradio is told of it by the environment.

    It is the one in GRADIO_TEMP_DIR if the host set that, else one of this user's alone: Gradio's own default is shared
    by all its pages of all users. The system's folder of temporary files is never taken as it is: other programs have
    files there.

    Raises:
        OSError: the folder cannot be made, or is somebody else's.
    """
    shared = Path(tempfile.gettempdir())
    if (said := os.environ.get(FOLDER_VARIABLE)) and Path(said).resolve() != shared.resolve():
        Path(said).mkdir(parents=True, exist_ok=True)
        return Path(said)
    user = getattr(os, "getuid", getpass.getuser)()
    folder = shared / f"hubmodels-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()  # anybody can make a folder, or a link, of this name there
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != user):
        raise OSError(f"{folder} must be a folder of user {user}; got another's or a link: set {FOLDER_VARIABLE}")
    folder.chmod(0o700)
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def own_upload(path: str, folder: Path) -> str:
    """`path`, once it is certain that it is a file in Gradio's folder of uploads and results.

    Gradio looks only at paths in a dict that says that it is a file, and callers say what they like.

    Raises:
        FileNotFoundError: it is anywhere else, of another kind, or gone; which of them is nobody's business.
    """
    try:
        real = Path(path).resolve()
        if real.is_relative_to(folder.resolve()) and real.is_file():  # no pipe, which would never end
            return str(real)
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, or a link to itself
        pass
    raise FileNotFoundError("no upload of this server")


def sweep(folder: Path, *, age_s: float, max_bytes: float = math.inf, kept: Collection[str] = ()) -> int:
    """Delete files of visitors that are old, and the oldest beyond a number of bytes; returns how many.

    Folders that have been empty for as long go too; younger ones may be those of an upload that is about to fill it.

    Args:
        folder: of uploads and results. Nothing is deleted in the system's folder of temporary files.
        age_s: seconds since a file came there or its last byte was written; older files are deleted.
        max_bytes: on the disk, of all files but those kept, together; beyond it, the oldest are deleted until the rest
            fits.
        kept: paths of files that stay. They count as new from now on, for other servers that share the folder too.
    """
    folder = folder.resolve()
    if folder == Path(tempfile.gettempdir()).resolve():
        return 0
    stay = {os.path.realpath(path) for path in kept}
    for path in stay:
        _renew(path)
    found = sorted(each for each in _files(folder) if each[2] not in stay)
    now, total, deleted = time.time(), sum(size for _, size, _ in found), 0
    for changed_s, size, path in found:  # the oldest first
        if now - changed_s <= age_s and total <= max_bytes:
            break
        with contextlib.suppress(OSError):  # gone in this moment, or another user's
            Path(path).unlink()
            total -= size
            deleted += 1
            if Path(path).parent != folder:
                Path(path).parent.rmdir()
    for entry in _entries(folder):
        with contextlib.suppress(OSError):  # above all: it is not empty
            if _DIGEST.fullmatch(entry.name) and now - entry.stat(follow_symlinks=False).st_ctime > age_s:
                Path(entry.path).rmdir()
    return deleted


def delete(paths: Collection[str], folder: Path) -> None:
    """Delete files of a server that ends, and their folders; what is not in `folder` stays."""
    for path in paths:
        with contextlib.suppress(OSError):
            real = Path(own_upload(path, folder))
            real.unlink()
            real.parent.rmdir()


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Of each file of a visitor: seconds of the clock at its last change, bytes on the disk, path."""
    for entry in _entries(folder):
        candidates = [entry] if _UNFINISHED.fullmatch(entry.name) else []
        if _DIGEST.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            candidates = _entries(Path(entry.path))
        for each in candidates:
            with contextlib.suppress(OSError):  # moved or deleted in this moment
                status = each.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield status.st_ctime, _bytes_on_disk(status), each.path


def _bytes_on_disk(status: os.stat_result) -> int:
    """What a file and its folder take, of which many small ones take far more than they hold."""
    return max(status.st_size, getattr(status, "st_blocks", 0) * 512, BLOCK_BYTES) + BLOCK_BYTES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _renew(path: str) -> None:
    """Let a file count as new. What is remembered of it stays good, as that asks when its content changed."""
    with contextlib.suppress(OSError):
        status = Path(path).stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
