"""The API of the page: what the library answers, calls that can be copied, and a word when it is busy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import gradio_client
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels.app
from hubmodels import Refinement
from hubmodels.app import snippets
from tests.conftest import ROOT
from tests.page_examples import CLOTHES, PEOPLE
from tests.page_server import GRADIO_MARKS, ask, get, served_here

pytestmark = GRADIO_MARKS


def test_the_api_answers_like_the_library(api, photo, person, small):
    mask, overlay, report = ask(api, photo, min_region_px=200)
    wanted = person.predict(small, refinement=Refinement(min_region_px=200))
    with Image.open(mask) as picture:
        assert picture.mode == "P" and not picture.getexif()
        assert_array_equal(np.asarray(picture), wanted.labels)
    with Image.open(overlay) as picture:
        assert picture.size == (64, 96)
    assert report["areas"] == wanted.areas() and report["model"] == PEOPLE
    assert Refinement.from_dict(report["settings"]) == Refinement(min_region_px=200)
    plain, *_ = ask(api, photo)  # settings are optional: all off
    with Image.open(plain) as picture:
        assert_array_equal(np.asarray(picture), person.predict(small).labels)


def test_labels_that_a_photo_does_not_show_are_left_out(api, photo, fashion, small):
    said = {"photo": gradio_client.handle_file(photo), "model": CLOTHES, "api_name": "/segment"}
    mask, _, report = api.client.predict(**said, absent=["skin", "dress"])
    wanted = fashion.predict(small, absent=["skin", "dress"])
    with Image.open(mask) as picture:
        assert_array_equal(np.asarray(picture), wanted.labels)
    assert report["areas"] == wanted.areas() and report["absent"] == ["skin", "dress"]
    for absent, words in ((["hat"], "no label 'hat'"), ("dress", "list of label names"), (3, "list of label names")):
        with pytest.raises(gradio_client.exceptions.AppError, match=words):
            api.client.predict(**said, absent=absent)


def test_health_is_told_from_the_first_request_on(studio, tmp_path, monkeypatch):
    """A probe that comes at once must not take the server for another one."""
    seen = []

    def late(app: Any, page: Any) -> None:
        seen.append(get(f"{page.local_url}health")[0])

    monkeypatch.setattr(
        "hubmodels.app.strangers.forget_values", late
    )  # the first thing that is done after the port is open
    with served_here(studio, tmp_path):
        assert seen == [200]


def test_models_and_health_are_told(api):
    assert {model["name"] for model in api.client.predict(api_name="/models")} == set(hubmodels.list_models())
    status, body = get(f"{api.url}/health")
    assert status == 200 and set(json.loads(body)) == {
        "status", "version", "models", "runtimes", "waiting", "remembered",
    }  # fmt: skip


def test_the_copied_api_calls_run(api, photo, person, small, tmp_path):
    settings = Refinement(crf_iterations=1, keep_largest=True, person_threshold=0.4)
    wanted = person.predict(small, refinement=settings)
    Path(photo).rename(tmp_path / "photo.jpg")  # the name in the snippets; what counts is the content
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        scope: dict[str, Any] = {}
        exec(snippets.client(api.url, PEOPLE, settings), scope)
        scope["client"].close()
    with Image.open(scope["mask"]) as picture:
        assert_array_equal(np.asarray(picture), wanted.labels)
    call = ["bash", "-euc", snippets.curl(api.url, PEOPLE, settings)]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "event: complete" in done.stdout, done.stdout + done.stderr
    mask, _, report = json.loads(done.stdout.partition("event: complete")[2].partition("data: ")[2].splitlines()[0])
    assert report["areas"] == wanted.areas()
    status, content = get(mask["url"])
    (tmp_path / "labels.png").write_bytes(content)
    with Image.open(tmp_path / "labels.png") as picture:
        assert status == 200
        assert_array_equal(np.asarray(picture), wanted.labels)


def test_the_copied_api_calls_log_in_where_that_is_asked_for(studio, photo, small, person, tmp_path):
    user, password = "me", "pass:w&r d"

    def filled(code: str) -> str:
        return code.replace("'USER'", repr(user)).replace("'PASSWORD'", repr(password))

    wanted = person.predict(small).areas()
    Path(photo).rename(tmp_path / "photo.jpg")
    with served_here(studio, tmp_path, auth=[(user, password)]) as page, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        scope: dict[str, Any] = {}
        exec(filled(snippets.client(page.url, PEOPLE, Refinement(), login=True)), scope)
        scope["client"].close()
        assert scope["report"]["areas"] == wanted
        code = snippets.curl(page.url, PEOPLE, Refinement(), login=True)
        done = subprocess.run(["bash", "-euc", filled(code)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "event: complete" in done.stdout, done.stdout + done.stderr
        assert json.dumps(wanted) in done.stdout
        done = subprocess.run(["bash", "-euc", code], capture_output=True, text=True, timeout=120)
        assert done.returncode and "error: 400" in done.stderr  # as copied, with USER and PASSWORD


def test_the_readme_shows_the_calls_that_run():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for snippet in (snippets.client, snippets.curl):
        assert snippet("http://127.0.0.1:7860", CLOTHES, Refinement(crf_iterations=5)) in readme


def test_results_are_found_by_nobody_else(api, photo):
    """Files of answers lie under digests of their content; pictures of the page travel inside of the answer."""
    mask, *_ = ask(api, photo)
    folders = [path.parent.name for path in (api.folder / "gradio").rglob("labels.png")]
    assert folders and all(len(name) == 64 for name in folders)
    assert Path(mask).is_file()


def test_visitors_hear_when_the_server_is_busy(studio, tmp_path, photo):
    """With room for one waiting call, more at a time are refused with a clear message and the rest succeeds."""
    with served_here(studio, tmp_path, queue_size=1) as busy:
        uploaded = gradio_client.handle_file(photo)
        jobs = [busy.client.submit(photo=uploaded, model=PEOPLE, api_name="/segment") for _ in range(12)]
        errors = [error for job in jobs if (error := job.exception(timeout=120))]
        assert 0 < len(errors) < len(jobs)
        assert all("Queue is full" in str(error) for error in errors)
