"""Serve the page: command line, warm-up, launch. Gradio, an extra, is imported by `start` first."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hubmodels import __version__
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.exports import exporting
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.uploads import claim_folder, delete, sweep
from hubmodels.errors import HubmodelsError
from hubmodels.page_options import CLEAN_EVERY_S, FILE_AGE_S, MAX_DISK_MB, add_options, logins
from hubmodels.refine import SETTINGS, Refinement
from hubmodels.remote import is_offline

LOG = logging.getLogger(__name__)
LAUNCH: dict[str, Any] = {
    "footer_links": ["api"],
    "max_file_size": "25mb",
    "run_history": False,  # Gradio would keep photos and results in the visitor's browser
    "show_error": False,  # texts of unforeseen errors hold paths; foreseen ones are gr.Error
    "ssr_mode": False,
    "enable_monitoring": False,
    "state_session_capacity": 200,
}


def require_gradio() -> None:
    """Raise ImportError with the command that installs Gradio, unless it is there."""
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the page needs Gradio, which is not installed: pip install 'hubmodels[demo]'")


def warm_up(studio: Studio) -> None:
    """Load every model, run every stage once and time the networks, so that no visitor waits for it.

    Stages are the same for all models of a task, so its default runs them for all: the page opens the sooner. Choices
    that do not work here are remembered as unavailable.
    """
    first, *_ = EXAMPLES.values()
    photo = Photo.of(first.pixels())
    everything = Refinement(
        crf_iterations=1, superpixel_scale=60, merge="cut", min_region_px=50, fill_holes_px=50, keep_largest=True
    )
    for i, name in enumerate(studio.models, 1):
        print(f"Loading models: {i} of {len(studio.models)}, {name}", flush=True)
        studio.analyse(photo, name, Refinement())
        studio.measure(name, photo)  # of a second pass: the first sets things up
    if waiting := len(studio.not_exported):
        print(f"PyTorch runs {waiting} of them until they are exported for ONNX Runtime, once", flush=True)
    print("Warming up post-processing", flush=True)
    for task in studio.tasks:
        studio.analyse(photo, studio.default_model(task), everything)
    small = Photo.of(np.array(Image.fromarray(photo.work).resize((96, 96))))
    name = studio.default_model()
    for field in ("superpixel_method", "merge", "vote"):
        for choice in SETTINGS[field].choices:
            chosen: dict[str, Any] = {"superpixel_scale": 60, field: choice}
            try:
                studio.analyse(small, name, Refinement(**chosen))
            except ImportError as error:  # an extra that only one choice needs
                print(f"{field} {choice} is not available: {error}", flush=True)
                studio.unavailable.setdefault(field, set()).add(choice)


def start(
    studio: Studio,
    *,
    queue_size: int,
    concurrency: int,
    clean_every_s: float = CLEAN_EVERY_S,
    file_age_s: float = FILE_AGE_S,
    max_disk_mb: float = MAX_DISK_MB,
    **where: Any,
) -> tuple[Any, str | None]:
    """Serve the page in the background; returns it and the public link, if one was asked for and is to be had.

    Args:
        studio, queue_size, concurrency: as of `hubmodels.app.page.build`.
        clean_every_s: once in so many seconds, files of visitors are deleted if they are old enough or too many.
        file_age_s: the age at which they are old enough.
        max_disk_mb: megabytes of them beyond which the oldest are deleted.
        where: address, port, link and logins, as Gradio's `launch` takes them.

    Raises:
        OSError: the address or port cannot be had, nor a folder for files of visitors.
    """
    from starlette.middleware import Middleware

    from hubmodels.app.health import Health
    from hubmodels.app.look import CSS, THEME
    from hubmodels.app.page import build
    from hubmodels.app.strangers import SmallBodies, forget_values

    folder = claim_folder()
    page = build(studio, queue_size=queue_size, concurrency=concurrency)
    health = Middleware(Health, tell=functools.partial(_state, studio, page))
    options = {
        "exception_handlers": {TypeError: _say_what_is_unknown},
        "middleware": [health, Middleware(SmallBodies)],
    }
    app, _, share_url = page.launch(
        prevent_thread_lock=True, theme=THEME, css=CSS, app_kwargs=options, **where, **LAUNCH
    )
    forget_values(app, page)
    limits = {"age_s": file_age_s, "max_bytes": 1e6 * max_disk_mb}
    arguments = (studio, page, folder, clean_every_s, limits)
    threading.Thread(target=_clean, args=arguments, daemon=True, name="clean").start()
    return page, share_url


async def _say_what_is_unknown(request: Any, error: Exception) -> Any:
    """Answer a call with a misspelt parameter, of which Gradio would make a status 500 and a traceback in the log."""
    from starlette.responses import JSONResponse

    said = str(error)
    if "/call/v2/" not in request.url.path or not said.startswith(("Parameter", "No value provided")):
        raise error
    return JSONResponse({"error": said}, status_code=422)


def _state(studio: Studio, page: Any) -> dict[str, Any]:
    """What /health tells."""
    from hubmodels.app.busy import waiting

    state = {"status": "ok", "version": __version__, "models": list(studio.models), "runtimes": studio.runtimes}
    return {**state, "waiting": waiting(page._queue), "remembered": studio.remembered}


def _clean(studio: Studio, page: Any, folder: Path, every_s: float, limits: dict[str, float]) -> None:
    """Forget old photos and delete old files of visitors, for as long as the page is served."""
    while page.is_running:
        try:
            studio.expire()
            sweep(folder, kept=_files_of_the_page(page), **limits)
            for known in page.temp_file_sets:  # Gradio's own lists, which would grow for ever
                known.difference_update([path for path in tuple(known) if not Path(path).exists()])
        except Exception as error:  # the next pass may well succeed; the text may hold names of visitors' files
            LOG.error("Files of visitors could not be deleted: %s. Next try in %g s", type(error).__name__, every_s)
        time.sleep(every_s)


def _files_of_the_page(page: Any) -> set[str]:
    """Files that all visitors share: the examples."""
    return {path for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}


def _delete_all(page: Any, folder: Path) -> None:
    """Delete the files of this server's visitors; other servers that share the folder have visitors of their own."""
    known = {path for each in page.temp_file_sets for path in tuple(each)}
    delete(known - _files_of_the_page(page), folder)


@contextmanager
def _sigterm_ends_like_ctrl_c() -> Iterator[None]:
    """Services are stopped by SIGTERM, which would end the process before it deletes anything."""
    if threading.current_thread() is not threading.main_thread():  # only that one may say what signals do
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def serve(options: argparse.Namespace) -> int:
    """Warm up and serve until Ctrl-C or SIGTERM; `options` as `add_options` defines them.

    Raises:
        ImportError: Gradio is not installed, or ONNX Runtime if that is asked for.
        HubmodelsError, ValueError: a model or login makes no sense.
        OSError: the address or port cannot be had, nor a folder for files of visitors.
    """
    require_gradio()
    if options.share and is_offline():
        raise ValueError("--share asks Gradio's service for a link, and HUBMODELS_OFFLINE or HF_HUB_OFFLINE forbids it")
    allowed = logins(options.auth)
    studio = Studio(options.models, max_megapixels=options.max_megapixels, runtime=options.runtime)
    warm_up(studio)
    with _sigterm_ends_like_ctrl_c():
        page, share_url = start(
            studio,
            queue_size=options.queue_size,
            concurrency=options.concurrency,
            max_disk_mb=options.max_disk_mb,
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=allowed,
        )
        if options.share and not share_url:
            print("No public link: Gradio's sharing service cannot be reached. The local address works.", flush=True)
        with exporting(studio, say=partial(print, flush=True)):
            page.block_thread()
        _delete_all(page, claim_folder())
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """`python demo.py`."""
    parser = argparse.ArgumentParser(description="Serve the hubmodels page.")
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        serve(options)
    except OSError as error:
        raise SystemExit(f"The page cannot be served: {error}") from None
    except (HubmodelsError, ValueError, ImportError) as error:
        raise SystemExit(f"demo.py: {error}") from None
