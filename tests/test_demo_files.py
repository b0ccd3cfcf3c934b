"""Files of visitors go when their time has come: uploads, results, and what broken uploads left."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import gradio_client
import pytest
from PIL import Image

from hubmodels import Refinement
from hubmodels.app import texts
from hubmodels.app.studio import Studio
from hubmodels.app.uploads import delete_aborted
from tests.page_server import GRADIO_MARKS, get, served_here

NAME = "deeplabv3plus_person"
SCHEDULE = {"clean_every_s": 1, "file_age_s": 4}  # an answer has to come within the age, on a busy machine too

pytestmark = GRADIO_MARKS


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def test_uploads_and_results_are_deleted_on_schedule_and_the_page_goes_on(tmp_path, astronaut):
    photo, folder = tmp_path / "photo.png", tmp_path / "gradio"
    Image.fromarray(astronaut).resize((64, 96)).save(photo)
    studio = Studio([NAME])
    studio.whole(photo, NAME, Refinement())  # loads the network: no file gets old while it waits for that
    with served_here(studio, tmp_path, **SCHEDULE) as page:
        examples = files(folder)
        assert examples

        def ask() -> dict[str, float]:
            uploaded = gradio_client.handle_file(photo)
            *_, report = page.client.predict(photo=uploaded, model=NAME, api_name="/segment")
            return report["areas"]

        areas = ask()
        (upload,) = folder.rglob("photo.png")
        assert {path.name for path in files(folder) - examples} == {"photo.png", "labels.png", "overlay.jpg"}
        wait_for(lambda: files(folder) == examples, lambda: files(folder) - examples)
        for example in examples:  # of every visitor, so they stay
            assert get(f"{page.url}/gradio_api/file={example}")[0] == 200
        asked = {"photo": {"path": str(upload), "meta": {"_type": "gradio.FileData"}}, "model": NAME}
        event = json.loads(get(f"{page.url}/gradio_api/call/v2/segment", asked)[1])["event_id"]
        assert texts.GONE.encode() in get(f"{page.url}/gradio_api/call/segment/{event}")[1]
        assert ask() == areas


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Gradio does not close the file of a broken upload
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_broken_upload_leaves_is_deleted_too(tmp_path):
    folder = tmp_path / "gradio"
    with served_here(Studio([NAME]), tmp_path, **SCHEDULE) as page:
        before = files(folder)
        address = urlsplit(page.url)
        head = (
            "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=cut\r\n\r\n"
            '--cut\r\nContent-Disposition: form-data; name="files"; filename="holiday.png"\r\n\r\n'
        )
        with socket.create_connection((address.hostname, address.port)) as visitor:
            visitor.sendall(head.encode() + bytes(100_000))
            wait_for(lambda: len(files(folder)) > len(before), lambda: "nothing came")
        wait_for(lambda: files(folder) == before, lambda: files(folder) - before)


def test_uploads_that_go_on_are_left_alone(tmp_path):
    (tmp_path / "tmpabc_01xy").write_bytes(b"half a photo")
    (tmp_path / "tmpdir_0000").mkdir()
    (tmp_path / "digest").mkdir()
    (tmp_path / "digest" / "tmp.png").write_bytes(b"a photo that is on Gradio's list")
    assert delete_aborted(tmp_path, age_s=60) == 0
    assert delete_aborted(tmp_path, age_s=-1) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"digest", "tmpdir_0000"}
    assert files(tmp_path) == {tmp_path / "digest" / "tmp.png"}
    assert delete_aborted(tmp_path / "missing", age_s=-1) == 0


def test_files_of_other_programs_are_left_alone(tmp_path, monkeypatch):
    for name in ("tmp.txt", "tmpreport.csv", "tmpABCDEFGH", "tmp12345678.png", "tmux-0"):
        (tmp_path / name).touch()
    assert delete_aborted(tmp_path, age_s=-1) == 0
    (tmp_path / "tmpabc_01xy").touch()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a host that gives uploads no folder of their own
    assert delete_aborted(tmp_path, age_s=-1) == delete_aborted(tmp_path / "link", age_s=-1) == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    assert delete_aborted(tmp_path, age_s=-1) == 1
