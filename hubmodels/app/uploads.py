"""Files of visitors: which paths are theirs to name, and what Gradio's own schedule of deleting does not see."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

UNFINISHED = "tmp" + 8 * "[a-z0-9_]"  # as Python's tempfile names files, for Gradio and for everybody else


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


def delete_aborted(folder: Path, *, age_s: float) -> int:
    """Delete files of uploads that were never finished; returns how many.

    Gradio writes an upload to `tmp...` in its folder and moves it once it is whole. If a visitor leaves before that,
    the file stays, and is on no list of files to delete.

    Args:
        folder: Gradio's folder of uploads. Nothing is deleted in the system's folder of temporary files, where a host
            may have put uploads too: other programs have files of such names there.
        age_s: seconds since the last byte came; younger files may belong to uploads that go on.
    """
    if folder.resolve() == Path(tempfile.gettempdir()).resolve():
        return 0
    deleted = 0
    for path in folder.glob(UNFINISHED):
        try:
            if path.is_file() and time.time() - path.stat().st_ctime > age_s:
                path.unlink()
                deleted += 1
        except OSError:  # finished in this moment, or another's
            continue
    return deleted
