"""What Gradio's own schedule does not see: files of uploads that broke off."""

from __future__ import annotations

import time
from pathlib import Path


def delete_aborted(folder: Path, *, age_s: float) -> int:
    """Delete files of uploads that were never finished; returns how many.

    Gradio writes an upload to `tmp...` in its folder and moves it once it is whole. If a visitor leaves before that,
    the file stays, and is on no list of files to delete.

    Args:
        folder: Gradio's folder of uploads.
        age_s: seconds since the last byte came; younger files may belong to uploads that go on.
    """
    deleted = 0
    for path in folder.glob("tmp*"):
        try:
            if path.is_file() and time.time() - path.stat().st_ctime > age_s:
                path.unlink()
                deleted += 1
        except OSError:  # finished in this moment, or another's
            continue
    return deleted
