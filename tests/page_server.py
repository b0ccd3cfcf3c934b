"""A running page for tests: in this process for the API, as `python demo.py` for browsers and load."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT
from tests.page_examples import PEOPLE

if TYPE_CHECKING:
    from hubmodels.app.studio import Studio

# Gradio 6.31 counts its events with what pandas 3.1 calls outdated, and leaves event loops open.
GRADIO_MARKS = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    pytest.mark.usefixtures("quiet_gradio"),
]
START_S = 300  # importing torch and Gradio on a machine that is busy with other work


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def no_stray_event_loops() -> Iterator[None]:
    """Gradio opens an event loop for each lock and never closes it; since Python 3.10 locks need none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradio.queueing.safe_get_lock", asyncio.Lock)
        patch.setattr("gradio.utils.safe_get_lock", asyncio.Lock)
        patch.setattr("gradio.utils.safe_get_stop_event", asyncio.Event)
        yield


def get(url: str, body: object = None) -> tuple[int, bytes]:
    """Status and content of an answer; with `body`, of a POST of it as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@contextmanager
def served_here(studio: Studio, folder: Path, **options: Any) -> Iterator[SimpleNamespace]:
    """The page served by this process on loopback, files in `folder`: its url without a slash, page and client.

    With logins, the client has the first one.

    `options` are those of `hubmodels.app.server.start`.
    """
    import gradio_client

    from hubmodels.app.server import start

    with pytest.MonkeyPatch.context() as patch, no_stray_event_loops():
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setattr(tempfile, "tempdir", str(folder))  # where Gradio's client leaves an empty folder for each file
        options = {"queue_size": 16, "concurrency": 1, "quiet": True, "server_name": "127.0.0.1", **options}
        page, _ = start(studio, server_port=free_port(), **options)  # Gradio's own search for one leaves sockets open
        client = gradio_client.Client(
            page.local_url,
            auth=next(iter(options.get("auth") or ()), None),
            download_files=folder / "answers",
            analytics_enabled=False,
            verbose=False,
        )
        try:
            yield SimpleNamespace(url=page.local_url.rstrip("/"), page=page, client=client, folder=folder)
        finally:
            client.close()
            page.close()


def ask(served: SimpleNamespace, path: Any, model: str = PEOPLE, **settings: Any) -> tuple[str, str, dict[str, Any]]:
    """What /segment answers to the photo in a file: paths of mask and overlay, and the report."""
    import gradio_client

    photo = path if isinstance(path, dict) else gradio_client.handle_file(path)
    return served.client.predict(photo=photo, model=model, **settings, api_name="/segment")


def is_well(served: SimpleNamespace) -> bool:
    """The server goes on answering."""
    status, body = get(f"{served.url}/health")
    return status == 200 and json.loads(body)["status"] == "ok"


@contextmanager
def running_demo(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """Address, process and log of `python demo.py`, on a host that says where to listen and asks for reports.

    PyTorch runs the networks unless `options` say otherwise: exporting all of them would take a minute.
    """
    port, log = free_port(), folder / "log.txt"
    env = os.environ | {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "True",
    }
    with log.open("wb") as out:
        call = [sys.executable, str(ROOT / "demo.py"), "--runtime", "torch", *options]
        process = subprocess.Popen(call, cwd=folder, env=env, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_S
        while "Running on" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process, log
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(20)
