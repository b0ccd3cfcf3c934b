"""Between strangers and the work: whose files they may name, which threads work, and what they read when it fails."""

from __future__ import annotations

import html
import logging
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.processing_utils import hash_bytes

from hubmodels import files
from hubmodels.app import texts
from hubmodels.app.uploads import own_upload
from hubmodels.app.workers import Workers
from hubmodels.errors import HubmodelsError, ImageError
from hubmodels.paths import home

Result = TypeVar("Result")

# Where files of the host are, as messages of errors may name them; not /, which is in other texts too.
PLACES = [
    str(place) for place in (Path(__file__).parents[2], home(), Path(tempfile.gettempdir())) if len(place.parts) > 1
]
LOG = logging.getLogger(__name__)


class Guard:
    """What every call of a stranger passes.

    Args:
        cache_dir: folder of visitors' files, uploads and results, which the server cleans; no other file is read.
        concurrency: heavy calls at a time.
    """

    def __init__(self, *, cache_dir: str, concurrency: int = 1) -> None:
        self._cache_dir = cache_dir
        self.workers = Workers(concurrency)

    def upload(self, payload: Any) -> str:
        """The path of an uploaded file, from what Gradio hands over as it came.

        Raises:
            FileNotFoundError: it is none of the visitors' files.
            ValueError: it is no file.
        """
        path, url = (payload.get("path"), payload.get("url")) if isinstance(payload, dict) else (payload, "")
        if not isinstance(path, str) or not path or str(url).startswith("data:"):  # passes by the limit on uploads
            raise ValueError("Send the photo as an uploaded file, not inside of the request.")
        return own_upload(path, Path(self._cache_dir))

    def answer(self, photo: Any, work: Callable[[Path], Result]) -> Result:
        """What `work` returns for a photo; a failure becomes a toast or an API error."""
        path = ""
        try:
            path = self.upload(photo)
            return self.workers.run(work, Path(path))
        except Exception as error:
            if not is_foreseen(error):
                log_failure(error)
            failure = refusal(self.sentence(error, path))
        raise failure from None

    def sentence(self, error: Exception, path: str = "") -> str:
        """What is said of a failure; of one that nobody foresaw, no more than that.

        Args:
            error: what was raised.
            path: of the photo on this server, which the sentence does not name.
        """
        if isinstance(error, FileNotFoundError):
            return texts.GONE
        if isinstance(error, ImageError):
            return f"This photo cannot be read: {str(error).removeprefix(f'{path}: ')}."
        text = str(error) if is_foreseen(error) else texts.FAILED
        # No message should name a place on the server, but strangers read them.
        return texts.FAILED if any(f"{place}{os.sep}" in text for place in (self._cache_dir, *PLACES)) else text

    def file(self, name: str, content: bytes) -> str:
        """Path of a file with the content, below a digest nobody guesses.

        Visitors with the same photo and settings share it, so it is renamed into place: written over, as Gradio's own
        function would, it is cut short for a visitor who is downloading it.
        """
        return str(files.write_bytes(content, Path(self._cache_dir) / hash_bytes(content) / name))


async def fetch_nothing(url: str, *args: Any, **options: Any) -> str:
    """Stands in the place of Gradio's download of addresses that callers name: this server visits none."""
    raise refusal("Upload the photo itself: this server fetches no addresses.")


def refusal(message: str) -> gr.Error:
    """What a visitor did wrong, as a toast or an API error."""
    return gr.Error(html.escape(message, quote=False), duration=10, print_exception=False)


def is_foreseen(error: Exception) -> bool:
    """Whether it says what a caller did wrong."""
    return isinstance(error, (HubmodelsError, FileNotFoundError, ValueError, TypeError))


def log_failure(error: Exception) -> None:
    """Where something failed, for the host; texts of errors hold names of visitors' files, so they are left out."""
    LOG.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
