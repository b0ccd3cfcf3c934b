"""`python demo.py` as a visitor meets it: a real server, Debian's chromium, nothing but loopback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import demo
from hubmodels import Refinement

from .conftest import ROOT

CHROMIUM = "/usr/bin/chromium"
START_S = 300  # importing torch and Gradio on a machine that is busy with other work
WAIT_MS = 60_000
NAMELESS = """() => [...document.querySelectorAll('main button, main input')]
    .filter(e => e.offsetParent && !(e.innerText || e.ariaLabel || e.title || (e.labels && e.labels.length)))
    .map(e => e.outerHTML.slice(0, 200))"""  # what a screen reader could not announce

try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    pytest.skip("playwright is not installed: pip install 'hubmodels[dev]'", allow_module_level=True)
if not shutil.which(CHROMIUM):
    pytest.skip(f"no {CHROMIUM}: apt-get install chromium", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running demo.py; what it logs must hold no traceback, and no name of a visitor's file."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    log = folder / "log.txt"
    # As on a host that says where to listen, and that would like to hear from its servers.
    env = os.environ | {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "True",
    }
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, ROOT / "demo.py"], cwd=folder, env=env, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_S
        while "Running on" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(20)
    text = log.read_text()
    assert "Loading models: 1 of" in text
    assert "Traceback" not in text and "holiday" not in text, text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(server: str, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page and wait for the example's result; in the end nothing may have gone wrong or out."""
    pages: list[Page] = []
    trouble: list[str] = []
    hosts: set[str | None] = set()

    def note_request(url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob"):
            hosts.add(urlsplit(url).hostname)

    def open_page(width: int = 1280, query: str = "") -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: note_request(request.url))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.goto(f"{server}/{query}")
        expect(page.locator("#compare img")).to_have_count(2, timeout=WAIT_MS)
        expect(page.locator("#legend li")).not_to_have_count(0, timeout=WAIT_MS)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert pages and hosts == {"127.0.0.1"}
    assert not trouble


def shares(page: Page) -> list[str]:
    """The legend's numbers."""
    return page.locator("#legend .share").all_inner_texts()


def wait_for_change(page: Page, before: list[str]) -> list[str]:
    deadline = time.monotonic() + WAIT_MS / 1000
    while (now := shares(page)) == before or not now:
        assert time.monotonic() < deadline, f"the result stayed {before}"
        page.wait_for_timeout(50)
    return now


def expected_shares(photo: Any, model: str, **settings: float) -> list[str]:
    areas = demo.analyse(photo, model, **settings).segmentation.areas()
    return [demo.percent(share) for share in areas.values()]


def wait_for_shares(page: Page, wanted: list[str]) -> None:
    expect(page.locator("#legend .share")).to_have_text(wanted, timeout=WAIT_MS)


def clear(page: Page) -> None:
    page.locator("#photo").get_by_label(re.compile("Clear|Remove")).first.click()


def upload(page: Page, path: Path) -> None:
    """Put a photo in the place of the one that is there."""
    clear(page)
    page.locator("#photo input[type=file]").set_input_files(path)


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_example_is_there_at_first_sight(visit, width, theme, astronaut):
    page = visit(width, f"?__theme={theme}")
    assert shares(page) == expected_shares(astronaut, "deeplabv3plus_fashion")
    expect(page.locator("#legend .summary")).to_contain_text("is background")
    sizes = page.locator("#compare img").evaluate_all("all => all.map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[512, 512], [512, 512]]
    left, right = page.locator("#compare img").evaluate_all("all => all.map(i => i.src)")
    assert left != right
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    ground = page.locator("#legend").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) / 3 < 80) == (theme == "dark"), ground
    assert page.evaluate(NAMELESS) == []
    if width < 500:  # the sliders stand right below the picture they change
        tops = [page.locator(name).bounding_box()["y"] for name in ("#photo", "#compare", "#tune", "#legend")]
        assert tops == sorted(tops)


@pytest.mark.parametrize("control", demo.CONTROLS, ids=lambda control: control.name)
def test_every_slider_works_by_keyboard_number_and_reset(visit, control, astronaut):
    page = visit()
    model, off = "deeplabv3plus_fashion", shares(page)
    page.get_by_role("slider", name=f"range slider for {control.label}").press("ArrowRight")
    wait_for_shares(page, expected_shares(astronaut, model, **{control.name: control.step}))
    number = page.locator(f"#{control.name} input[type=number]")
    number.fill(str(control.maximum // 2))
    number.press("Tab")
    halfway = expected_shares(astronaut, model, **{control.name: control.maximum // 2})
    assert halfway != off  # else the slider shows nothing
    wait_for_shares(page, halfway)
    page.locator(f"#{control.name} [data-testid=reset-button]").click()
    wait_for_shares(page, off)


def test_a_number_beyond_the_range_is_brought_back(visit, astronaut):
    page = visit()
    number = page.locator("#min_region_px input[type=number]")
    number.fill("99999")
    number.press("Tab")
    expect(number).to_have_value("1000")
    wait_for_shares(page, expected_shares(astronaut, "deeplabv3plus_fashion", min_region_px=1000))


def test_the_task_changes_model_and_labels(visit, astronaut):
    page = visit()
    page.get_by_label("Person").check()
    wait_for_shares(page, expected_shares(astronaut, "deeplabv3plus_person"))
    expect(page.get_by_label("Model")).to_have_value(re.compile("^deeplabv3plus_person"))
    assert page.locator("#legend .name").all_inner_texts() == ["background", "person"]
    page.get_by_label("Fashion").check()
    expect(page.locator("#legend .share")).to_have_count(7, timeout=WAIT_MS)


def test_a_phone_photo_stands_upright(visit, tmp_path, astronaut):
    upright = np.ascontiguousarray(astronaut[:, 100:400])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    exif[0x010E] = "secret place"
    Image.fromarray(np.rot90(upright)).save(tmp_path / "holiday.jpg", exif=exif, quality=95)
    page = visit()
    before = shares(page)
    upload(page, tmp_path / "holiday.jpg")
    wait_for_change(page, before)
    wait_for_shares(page, expected_shares(tmp_path / "holiday.jpg", "deeplabv3plus_fashion"))
    images = page.locator("#compare img")
    assert images.evaluate_all("all => all.map(i => [i.naturalWidth, i.naturalHeight])") == [[300, 512]] * 2
    for source in images.evaluate_all("all => all.map(i => i.src)"):
        assert b"secret" not in page.request.get(source).body()


def test_a_broken_photo_is_explained_and_the_page_goes_on(visit, tmp_path, astronaut):
    (tmp_path / "holiday.jpg").write_bytes(b"no photo at all")
    page = visit()
    before = shares(page)
    upload(page, tmp_path / "holiday.jpg")
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text("This photo cannot be read: not an image of a known kind", timeout=WAIT_MS)
    assert not re.search(r"[Tt]raceback|holiday|/tmp|/gradio", toast.inner_text())
    expect(page.locator("#legend .notice")).to_contain_text("cannot be read")  # not the result of the photo before
    expect(page.locator("#compare img")).to_have_count(0)
    expect(page.locator("#mask")).to_be_hidden()
    page.get_by_role("button", name="Astronaut").click()
    wait_for_shares(page, before)


def test_the_labels_can_be_downloaded(visit, tmp_path, fashion, astronaut):
    page = visit()
    before = shares(page)
    number = page.locator("#min_region_px input[type=number]")
    number.fill("500")
    number.press("Tab")
    wait_for_change(page, before)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download labels (PNG)").click()
    assert download.value.suggested_filename == "labels.png"
    download.value.save_as(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.mode == "P"
        wanted = fashion.predict(astronaut, refinement=Refinement(min_region_px=500)).labels
        assert_array_equal(np.asarray(picture), wanted)


def test_clearing_the_photo_invites_another(visit):
    page = visit()
    clear(page)
    expect(page.locator("#legend .notice")).to_contain_text("Add a photo of a person", timeout=WAIT_MS)
    expect(page.locator("#compare img")).to_have_count(0)
