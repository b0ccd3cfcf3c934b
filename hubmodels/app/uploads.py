"""What Gradio's own schedule does not see: files of uploads that broke off."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

UNFINISHED = "tmp" + 8 * "[a-z0-9_]"  # as Python's tempfile names files, for Gradio and for everybody else


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
