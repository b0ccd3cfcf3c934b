"""What a visitor sees when no more calls may wait, and how it goes on from there."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio_client
import pytest
from gradio_client.utils import QueueError
from PIL import Image

from hubmodels.app import texts
from hubmodels.app.downloads import KINDS
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.views import STYLES
from tests.chromium import WAIT_MS, Browser, Download, Page, choose, expect, running_browser, set_number
from tests.page_server import GRADIO_MARKS, get, served_here

NAME, DEFAULT = "deeplabv3plus_person", "u2net_small_person"
WAIT_S = WAIT_MS / 1000

pytestmark = GRADIO_MARKS


class HeldStudio(Studio):
    """A studio whose answers can be held back, and which notes the models that were asked."""

    def __init__(self) -> None:
        super().__init__([NAME, DEFAULT])
        self.asked: list[str] = []
        self.may_answer, self.was_asked = threading.Event(), threading.Event()
        self.may_answer.set()

    def analyse(self, photo: Photo, name: str, *args: Any, **options: Any) -> Any:
        self.was_asked.set()
        assert self.may_answer.wait(WAIT_S)
        self.asked.append(name)
        return super().analyse(photo, name, *args, **options)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SimpleNamespace]:
    studio = HeldStudio()
    with served_here(studio, tmp_path, queue_size=1) as served:
        try:
            yield SimpleNamespace(studio=studio, url=served.url, client=served.client)
        finally:
            studio.may_answer.set()


@pytest.fixture
def browser(server: SimpleNamespace) -> Iterator[Browser]:
    """After the server: no other event loop may be started beside playwright's."""
    with running_browser() as browser:
        yield browser


def fill_queue(server: SimpleNamespace, photo: Path) -> list[Any]:
    """One call is under way and one waits, until `may_answer` is set."""
    server.studio.may_answer.clear()
    server.studio.was_asked.clear()
    asked = {"photo": gradio_client.handle_file(photo), "model": NAME, "api_name": "/segment"}
    jobs = [server.client.submit(**asked)]
    assert server.studio.was_asked.wait(WAIT_S)
    jobs.append(server.client.submit(**asked))
    wait_for_waiting(server)
    return jobs


def wait_for_waiting(server: SimpleNamespace) -> None:
    """Until a call waits for another."""
    deadline = time.monotonic() + WAIT_S
    while json.loads(get(f"{server.url}/health")[1])["waiting"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_told(page: Page) -> None:
    """A toast says that the server is busy, and so does a notice in the place of the pictures."""
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text(texts.BUSY, timeout=WAIT_MS)
    expect(page.locator("#compare").get_by_role("alert")).to_contain_text(texts.NO_ANSWER, timeout=WAIT_MS)
    expect(page.locator("#compare img")).to_have_count(0)
    assert "currently busy" not in page.locator("body").inner_text()  # Gradio's own words


def test_a_page_asks_once_when_it_opens_and_once_for_another_photo(server, browser):
    """Each call more would be a place in the queue of a busy server."""
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
    page.wait_for_timeout(1000)  # whatever else is asked
    assert server.studio.asked == [DEFAULT]
    page.locator("#examples button").last.click()
    expect(page.locator("#link")).to_contain_text(f"example={list(EXAMPLES)[-1]}", timeout=WAIT_MS)
    page.wait_for_timeout(1000)
    assert server.studio.asked == [DEFAULT] * 2


def test_a_link_asks_once_and_for_its_own_model(server, browser):
    """What it sets counts as changed, one control after the other."""
    page = browser.new_page()
    page.goto(f"{server.url}/?model={NAME}&example=camera&crf_iterations=1&style=labels")
    expect(page.locator("#link pre")).to_contain_text(f"model={NAME}", timeout=WAIT_MS)
    page.wait_for_timeout(1000)
    assert server.studio.asked == [NAME]
    expect(page.locator("#link pre")).to_contain_text("style=labels")
    set_number(page, "crf_iterations", 2)
    expect(page.locator("#link pre")).to_contain_text("crf_iterations=2", timeout=WAIT_MS)


def test_a_server_that_cannot_be_reached_leaves_no_old_pictures(server, browser):
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
    page.route("**/queue/join*", lambda route: route.abort())
    set_number(page, "min_region_px", 500)
    expect(page.locator("#compare").get_by_role("alert")).to_contain_text(texts.NO_ANSWER, timeout=WAIT_MS)
    expect(page.locator("#compare img")).to_have_count(0)
    page.unroute("**/queue/join*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)


def test_a_visitor_is_told_that_the_server_is_busy_and_can_try_again(server, browser, tmp_path, astronaut):
    Image.fromarray(astronaut[:96, :64]).save(tmp_path / "photo.png")
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
    jobs = fill_queue(server, tmp_path / "photo.png")

    expect(page.locator("#cut-label")).to_be_hidden()
    choose(page, "style", STYLES["cutout"])
    is_told(page)
    expect(page.locator("#cut-label")).to_be_visible(timeout=WAIT_MS)  # nothing is computed for it
    set_number(page, "min_region_px", 500)
    is_told(page)
    late = browser.new_page()
    late.goto(server.url)
    is_told(late)
    asked = {"photo": gradio_client.handle_file(tmp_path / "photo.png"), "model": NAME}
    with pytest.raises(QueueError):
        server.client.predict(**asked, api_name="/segment")
    status, answer = get(f"{server.url}/gradio_api/call/v2/segment", {"photo": None, "model": NAME})
    assert status == 503 and json.loads(answer) == {"detail": texts.BUSY}

    server.studio.may_answer.set()
    assert [Path(job.result(WAIT_S)[0]).name for job in jobs] == ["labels.png"] * 2
    for each in (page, late):
        each.get_by_role("button", name="Try again").click()
        expect(each.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
    expect(page.locator("#link pre")).to_contain_text("min_region_px=500")


def test_a_button_says_that_its_file_is_prepared_and_keeps_the_focus(server, browser):
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
    button = page.locator("#take-labels")
    expect(button).to_be_visible(timeout=WAIT_MS)
    server.studio.may_answer.clear()
    button.focus()
    button.press("Enter")
    expect(button).to_have_text(texts.PREPARING, timeout=WAIT_MS)
    expect(button).to_be_focused()
    with page.expect_download(timeout=WAIT_MS):
        server.studio.may_answer.set()
    expect(button).to_have_text(KINDS["labels"], timeout=WAIT_MS)
    expect(button).to_be_focused()
    page.route("**/queue/join*", lambda route: route.fulfill(status=429, json={"detail": texts.BUSY}))
    button.press("Enter")
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text(texts.BUSY, timeout=WAIT_MS)
    expect(button).to_have_text(KINDS["labels"], timeout=WAIT_MS)
    expect(button).to_be_focused()


def test_files_asked_for_at_once_all_come(server, browser):
    """Each with what was asked for, once, and none in the place of another; which comes first is up to the browser."""
    page = browser.new_page()
    page.goto(server.url)
    expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
    came: list[Download] = []
    page.on("download", lambda file: came.append(file))  # its bytes later: waiting here, another is told of first
    for px in (100, 200):
        set_number(page, "min_region_px", px)
        expect(page.locator("#link pre")).to_contain_text(f"min_region_px={px}", timeout=WAIT_MS)
        server.studio.was_asked.clear()
        server.studio.may_answer.clear()
        page.locator("#take-labels").click()
        assert server.studio.was_asked.wait(WAIT_S)
        page.locator("#take-settings").click()
        wait_for_waiting(server)
        server.studio.may_answer.set()
        deadline = time.monotonic() + WAIT_S
        while len(came) < 2 and time.monotonic() < deadline:
            page.wait_for_timeout(50)
        page.wait_for_timeout(500)  # whatever else comes
        assert sorted(file.suggested_filename for file in came) == ["labels.png", "settings.json"]
        files = {file.suggested_filename: file.path().read_bytes() for file in came}
        came.clear()
        assert json.loads(files["settings.json"])["min_region_px"] == px
        with Image.open(io.BytesIO(files["labels.png"])) as labels:
            assert labels.mode == "P"
