"""`python demo.py` as a visitor meets it: a real server, Debian's chromium, nothing but loopback."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels import FASHION, Refinement
from hubmodels.app import texts
from hubmodels.app.controls import CONTROLS
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.views import SIDES, STYLES
from hubmodels.entries import DEFAULTS, ENTRIES, list_models
from hubmodels.export import indexed_png
from tests.chromium import WAIT_MS, Browser, Page, choose, expect, running_browser, set_number
from tests.page_server import running_demo

CLOTHES, PEOPLE = DEFAULTS["fashion"], DEFAULTS["person"]
NAMELESS = """() => [...document.querySelectorAll('main button, main input, main textarea')]
    .filter(e => e.offsetParent && !(e.innerText || e.ariaLabel || e.title || (e.labels && e.labels.length)))
    .map(e => e.outerHTML.slice(0, 200))"""  # what a screen reader could not announce
SPEECHLESS = "() => [...document.querySelectorAll('main img')].filter(e => e.offsetParent && !e.alt).length"
INK = "element => getComputedStyle(element).color"
GROUND = """element => {
  const clear = colour => colour === 'transparent' || colour.endsWith(', 0)');
  while (clear(getComputedStyle(element).backgroundColor)) element = element.parentElement;
  return getComputedStyle(element).backgroundColor;
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running demo.py; what it logs must hold no traceback, and no name of a visitor's file."""
    models = [name for name in list_models() if not ENTRIES[name].large]  # those of a wheel: large ones warm up slowly
    with running_demo(tmp_path_factory.mktemp("server"), "--models", *models) as (url, _, log):
        yield url
    text = log.read_text()
    assert "Loading models: 1 of" in text
    assert "Traceback" not in text and "holiday" not in text, text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def visit(server: str, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page and wait for the example's result; in the end nothing may have gone wrong or out."""
    pages: list[Page] = []
    trouble: list[str] = []
    hosts: set[str | None] = set()

    def note_request(url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob"):
            hosts.add(urlsplit(url).hostname)

    def open_page(width: int = 1280, query: str = "", *, result: bool = True) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: note_request(request.url))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.goto(f"{server}/{query}")
        if result:
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


def wait_for_shares(page: Page, wanted: list[str]) -> None:
    expect(page.locator("#legend .share")).to_have_text(wanted, timeout=WAIT_MS)


def wait_until(page: Page, condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, what
        page.wait_for_timeout(50)


def text_of(page: Page, name: str) -> str:
    return page.locator(f"#{name} pre").inner_text()


def picture(page: Page, side: str) -> np.ndarray:
    """Pixels of one of the two pictures, as the browser got them."""
    import base64

    data = str(page.locator(f"#compare img.{side}").get_attribute("src")).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert not shown.getexif() and "comment" not in shown.info
        return np.asarray(shown.convert("RGB"))


def upload(page: Page, path: Path) -> None:
    """Put a photo in the place of the one that is there."""
    page.locator("#photo").get_by_label(re.compile("Clear|Remove")).first.click()
    page.locator("#photo input[type=file]").set_input_files(path)


@pytest.fixture(scope="module")
def expected(studio: Studio, astronaut: np.ndarray) -> Callable[..., list[str]]:
    def shares_of(
        pixels: np.ndarray = astronaut, model: str = CLOTHES, absent: Sequence[str] = (), **settings: Any
    ) -> list[str]:
        analysis = studio.analyse(Photo.of(pixels), model, Refinement(**settings), absent=absent)
        return [texts.percent(share) for share in analysis.final.areas().values()]

    return shares_of


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_example_is_there_at_first_sight(visit, width, theme, expected, astronaut):
    page = visit(width, f"?__theme={theme}")
    assert shares(page) == expected()
    expect(page.locator("#legend .summary")).to_contain_text("is background")
    expect(page.locator("#legend .times")).to_contain_text("Time on the server")
    assert np.abs(picture(page, "left").astype(int) - astronaut).mean() < 3  # JPEG
    assert picture(page, "right").shape == astronaut.shape
    assert page.evaluate(OVERFLOW) <= 0
    ground = page.locator("#legend").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) / 3 < 80) == (theme == "dark"), ground
    assert page.evaluate(NAMELESS) == [] and page.evaluate(SPEECHLESS) == 0
    if width < 500:  # the sliders stand right below the picture they change
        tops = [page.locator(name).bounding_box()["y"] for name in ("#photo", "#compare", "#tune", "#legend")]
        assert tops == sorted(tops)
        for title in ("CRF: strengths", "Superpixels: method", "Ground truth", "Copy as code"):
            page.get_by_role("button", name=re.compile(title)).click()
        page.wait_for_timeout(500)
        assert page.evaluate(OVERFLOW) <= 0  # nor with everything open
        assert page.evaluate(NAMELESS) == []


def test_every_slider_works_by_keyboard(visit, expected):
    """Each key press arrives in the copied command; the shares are those of the settings."""
    page = visit()
    for section in ("CRF: strengths", "Superpixels: method", "Clean-up: more"):
        page.get_by_role("button", name=re.compile(section)).click()
    now: dict[str, Any] = {}
    for control in CONTROLS.values():
        if control.choices or control.name == "person_threshold":  # that one is for another task
            continue
        slider = page.locator(f"#{control.name} input[type=range]")
        assert slider.get_attribute("aria-label")
        slider.focus()
        slider.press("ArrowRight" if control.default < control.maximum else "ArrowLeft")
        now[control.name] = control.clamp(slider.input_value())
        assert now[control.name] != control.default
        option = f"--{control.name.replace('_', '-')} {now[control.name]:g}"
        wait_until(page, lambda option=option: option in text_of(page, "link").replace("=", " ").replace("_", "-")
                   .replace("&", " --"), option)  # fmt: skip
    wait_for_shares(page, expected(**now))
    page.locator("#crf_iterations").hover()
    assert "usual" in page.locator("#crf_iterations").get_attribute("title")


def test_numbers_reset_and_presets(visit, expected):
    page = visit()
    off = shares(page)
    set_number(page, "min_region_px", 99999)
    expect(page.locator("#min_region_px input[type=number]")).to_have_value("1000")
    wait_for_shares(page, expected(min_region_px=1000))
    page.get_by_role("button", name=re.compile("CRF: strengths")).click()
    for name, typed, used in (
        ("crf_iterations", "2.7", "3"),
        ("crf_iterations", "", "0"),
        ("crf_appearance_sigma_px", "2.77777777", "2.777778"),
        ("crf_appearance_sigma_px", "", "80"),
        ("opacity", "33.4", "33"),
    ):
        set_number(page, name, typed)
        expect(page.locator(f"#{name} input[type=number]")).to_have_value(used)
        link_says = f"{name}={used}" if typed else ""  # a default is left out
        wait_until(page, lambda name=name, says=link_says: says in (link := text_of(page, "link")) and bool(says) == (
            f"{name}=" in link), f"{name} {used}")  # fmt: skip
    page.locator("#min_region_px [data-testid=reset-button]").click()
    wait_for_shares(page, off)
    for preset in ("Gentle", "Strong", "Off"):
        page.get_by_role("button", name=preset, exact=True).click()
        settings = Refinement.preset(preset.lower(), task="fashion")
        wait_for_shares(page, expected(**{k: getattr(settings, k) for k in CONTROLS}))
    page.get_by_role("button", name="Gentle", exact=True).click()
    choose(page, "style", "Labels")
    wait_until(page, lambda: "style=labels" in text_of(page, "link"), "the view")
    page.get_by_role("button", name="Reset", exact=True).click()
    wait_for_shares(page, off)
    expect(page.locator("#style input").first).to_have_value("Overlay")
    wait_until(page, lambda: text_of(page, "link").endswith("example=astronaut"), "the link")


def test_the_task_changes_model_labels_and_controls(visit, expected):
    page = visit()
    expect(page.locator("#person_threshold")).to_have_count(0)
    page.get_by_label("Person", exact=True).check()
    wait_for_shares(page, expected(model=PEOPLE))
    expect(page.locator("#model input")).to_have_value(re.compile(rf"^{PEOPLE} · [\d.]+ mIoU · [\d.]+ MB"))
    assert page.locator("#legend .name").all_inner_texts() == ["background", "person"]
    set_number(page, "person_threshold", 0.2)
    wait_for_shares(page, expected(model=PEOPLE, person_threshold=0.2))
    page.get_by_label("Fashion", exact=True).check()
    expect(page.locator("#legend .share")).to_have_count(7, timeout=WAIT_MS)


def test_labels_that_the_photo_does_not_show_are_left_out(visit, expected):
    page = visit()
    boxes = page.locator("#absent")
    boxes.get_by_label("hair").check()
    boxes.get_by_label("dress").check()
    wait_for_shares(page, expected(absent=["hair", "dress"]))
    wait_until(page, lambda: "absent=hair%2Cdress" in text_of(page, "link"), "the link")
    again = visit(query="?" + text_of(page, "link").partition("?")[2])
    expect(again.locator("#absent").get_by_label("dress")).to_be_checked(timeout=WAIT_MS)
    wait_for_shares(again, expected(absent=["hair", "dress"]))
    again.get_by_role("button", name="Reset", exact=True).click()
    wait_for_shares(again, expected())
    expect(again.locator("#absent").get_by_label("dress")).not_to_be_checked()
    again.get_by_label("Person", exact=True).check()
    expect(again.locator("#absent")).to_be_hidden(timeout=WAIT_MS)  # of two labels none can be left out


def test_the_vote_in_the_menu_is_the_one_that_is_used(visit):
    page = visit(query="?vote=classifier&superpixel_scale=60&example=astronaut")
    page.get_by_role("button", name=re.compile("Superpixels: method")).click()
    vote = page.get_by_label("Vote", exact=True)
    expect(vote).to_have_value("classifier")
    page.get_by_label("Person", exact=True).check()
    expect(vote).to_have_value("probability", timeout=WAIT_MS)
    said = f"{PEOPLE} has no region classifier"
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text(said, timeout=WAIT_MS)
    wait_until(page, lambda: f"model={PEOPLE}" in text_of(page, "link"), "the model")
    page.get_by_label("Fashion", exact=True).check()
    choose(page, "vote", "majority")
    wait_until(page, lambda: "vote=majority" in text_of(page, "link"), "the vote")
    page.get_by_label("Person", exact=True).check()
    wait_until(page, lambda: f"model={PEOPLE}" in text_of(page, "link"), "the model")
    expect(vote).to_have_value("majority")  # which every model can do
    other = visit(query="?vote=classifier&model=u2net_small_fashion&example=astronaut")
    expect(other.locator("#legend .note")).to_contain_text("no region classifier", timeout=WAIT_MS)


def test_what_a_photo_does_not_show_is_not_said_of_the_next_one(visit, expected, tmp_path, astronaut):
    example = EXAMPLES["camera"].pixels()
    page = visit(query="?example=camera&absent=skin,dress")  # which changes the photo as well
    skin = page.locator("#absent").get_by_label("skin")
    for _ in range(2):
        wait_for_shares(page, expected(example, absent=["skin", "dress"]))
        expect(skin).to_be_checked()
        page.reload()
    wait_for_shares(page, expected(example, absent=["skin", "dress"]))
    page.get_by_role("button", name="Astronaut").click()
    wait_for_shares(page, expected())
    expect(skin).not_to_be_checked()
    skin.check()
    wait_for_shares(page, expected(absent=["skin"]))
    Image.fromarray(astronaut[:300]).save(tmp_path / "a.png")
    upload(page, tmp_path / "a.png")
    wait_for_shares(page, expected(astronaut[:300]))
    expect(skin).not_to_be_checked()


def test_any_two_sides_are_compared_in_any_view(visit, studio, astronaut):
    page = visit(query="?crf_iterations=3&superpixel_scale=60&min_region_px=100&example=astronaut")
    settings = Refinement(crf_iterations=3, superpixel_scale=60, min_region_px=100)
    analysis = studio.analyse(Photo.of(astronaut), CLOTHES, settings)
    choose(page, "style", "Labels")
    wait_until(page, lambda: "labels" in page.locator("#compare figcaption").inner_text(), "the view")
    palette = np.array(FASHION.palette, np.uint8)
    for side, stage in (("Raw network", "network"), ("After CRF", "crf"), ("After superpixels", "superpixels")):
        choose(page, "left", side)
        expect(page.locator("#compare figcaption span").first).to_contain_text(side, timeout=WAIT_MS)
        assert_array_equal(picture(page, "left"), palette[analysis.stage(stage).labels])
    assert_array_equal(picture(page, "right"), palette[analysis.final.labels])
    choose(page, "right", SIDES["other"])
    other = [name for name in studio.models_of("fashion") if name != CLOTHES][-1]
    expect(page.locator("#compare figcaption span").last).to_contain_text(other, timeout=WAIT_MS)
    expect(page.locator("#other-model")).to_be_visible()
    choose(page, "right", SIDES["final"])
    for style in STYLES.values():
        choose(page, "style", style)
        expect(page.locator("#compare figcaption span").last).to_contain_text(f"Final · {style.lower()}")
        expect(page.locator("#opacity")).to_be_visible(visible=style == "Overlay")
    choose(page, "style", "Cut-out")
    choose(page, "cut-label", "hair")
    choose(page, "ground", "Colour")
    expect(page.locator("#ground-colour")).to_be_visible()
    wait_until(page, lambda: "ground=colour" in text_of(page, "link"), "the ground")
    hard = picture(page, "right")
    assert hard[~analysis.final.mask("hair")].mean() > 250  # white, but for JPEG's ringing
    choose(page, "edges", "Soft")
    wait_until(page, lambda: "edges=soft" in text_of(page, "link"), "the edges")
    soft = picture(page, "right").astype(int)
    assert 100 < (abs(soft - hard).max(-1) > 40).sum() < analysis.final.mask("hair").sum()


def test_the_handle_moves_by_keys_and_both_layouts_work(visit):
    page = visit()
    handle = page.get_by_label("Place of the dividing line, percent")
    handle.focus()
    for _ in range(10):
        handle.press("ArrowRight")
    place = "() => getComputedStyle(document.querySelector('#compare img.left')).clipPath"
    assert "40%" in page.evaluate(place)
    set_number(page, "min_region_px", 500)
    wait_until(page, lambda: "min_region_px=500" in text_of(page, "link"), "the slider")
    assert "40%" in page.evaluate(place) and handle.input_value() == "60"  # it stays where it was put
    choose(page, "layout-choice", "Two-up")
    expect(page.locator("#compare .two-up")).to_be_visible(timeout=WAIT_MS)
    left, right = (page.locator(f"#compare img.{side}").bounding_box() for side in ("left", "right"))
    assert left["x"] + left["width"] <= right["x"] and left["width"] == pytest.approx(right["width"], abs=2)


def test_a_ground_truth_makes_a_tuning_bench(visit, studio, astronaut, tmp_path):
    truth = studio.analyse(Photo.of(astronaut), CLOTHES, Refinement(min_region_px=300)).final.labels
    indexed_png(truth, FASHION).convert("RGB").save(tmp_path / "mask.png")  # by its colours
    Image.fromarray(truth[:10]).save(tmp_path / "cut.png")
    page = visit()
    page.get_by_role("button", name=re.compile("Ground truth")).click()
    page.locator("#truth input[type=file]").set_input_files(tmp_path / "mask.png")
    first = page.locator("#scores tr", has_text="mIoU").locator("td").first
    expect(first).not_to_have_text("100.00", timeout=WAIT_MS)
    set_number(page, "min_region_px", 300)
    expect(first).to_have_text("100.00", timeout=WAIT_MS)
    for score in ("boundary F", "IoU hair"):
        expect(page.locator("#scores tr", has_text=score).locator("td").first).to_have_text("100.00")
    choose(page, "left", SIDES["truth"])
    choose(page, "style", "Labels")
    wait_until(page, lambda: "style=labels" in text_of(page, "link"), "the view")
    assert_array_equal(picture(page, "left"), np.array(FASHION.palette, np.uint8)[truth])
    page.locator("#truth").get_by_label(re.compile("Clear|Remove")).first.click()
    expect(page.locator("#scores table")).to_have_count(0, timeout=WAIT_MS)
    page.locator("#truth input[type=file]").set_input_files(tmp_path / "cut.png")
    expect(page.locator("#legend .note").first).to_contain_text("the mask is 512x10, the photo 512x512")
    page.locator("#truth").get_by_label(re.compile("Clear|Remove")).first.click()
    page.locator("#truth input[type=file]").set_input_files(tmp_path / "mask.png")
    expect(page.locator("#scores table")).to_have_count(1, timeout=WAIT_MS)
    page.get_by_role("button", name="Photographer").click()  # a photo of the same size
    expect(page.locator("#scores table")).to_have_count(0, timeout=WAIT_MS)
    expect(page.locator("#truth img")).to_have_count(0)


def test_focus_by_keyboard_is_seen(visit):
    page = visit()
    outline = "element => getComputedStyle(element).outlineStyle + getComputedStyle(element).outlineWidth"
    for control in ("#min_region_px input[type=range]", "#task input[type=radio]"):
        found = page.locator(control).first
        found.press("ArrowRight")
        assert page.locator(f"{control.split()[0]} input:focus").evaluate(outline) == "solid3px", control


def test_a_link_brings_back_what_was_seen(visit):
    page = visit()
    page.get_by_label("Person", exact=True).check()
    expect(page.locator("#legend .share")).to_have_count(2, timeout=WAIT_MS)
    page.get_by_role("button", name="Strong", exact=True).click()
    choose(page, "style", "Boundaries")
    set_number(page, "person_threshold", 0.4)
    wait_until(page, lambda: "style=boundaries" in (link := text_of(page, "link")) and "=0.4" in link, "the link")
    link, seen = text_of(page, "link"), shares(page)
    assert urlsplit(link).hostname == "127.0.0.1" and "example=astronaut" in link
    other = visit(query="?" + urlsplit(link).query)
    wait_for_shares(other, seen)
    wait_until(other, lambda: text_of(other, "link") == link, "the same link")
    other.get_by_role("button", name=re.compile("Clean-up: more")).click()
    expect(other.get_by_label("Keep only the largest part")).to_be_checked()
    strong = Refinement.preset("strong", task="person")
    expect(other.locator("#crf_iterations input[type=number]")).to_have_value(str(strong.crf_iterations))
    own = visit(query="?" + urlsplit(link).query.replace("&example=astronaut", ""), result=False)
    expect(own.locator("#compare .notice")).to_contain_text("settings, not a photo", timeout=WAIT_MS)
    own.get_by_role("button", name="Astronaut").click()
    wait_for_shares(own, seen)


def test_a_link_to_a_model_that_is_no_default_keeps_it(visit, expected):
    name = "deeplabv3plus_person"
    assert name not in DEFAULTS.values()
    page = visit(query=f"?task=person&model={name}&example=astronaut")
    wait_for_shares(page, expected(model=name))
    page.wait_for_timeout(1000)  # whatever else answers on load
    expect(page.get_by_label("Model", exact=True)).to_have_value(re.compile(f"^{name}"))
    assert f"model={name}" in text_of(page, "link")


def test_a_phone_photo_stands_upright_and_takes_nothing_along(visit, tmp_path, astronaut, expected):
    upright = np.ascontiguousarray(astronaut[:, 100:400])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    exif[0x010E] = "secret place"
    Image.fromarray(np.rot90(upright)).save(tmp_path / "holiday.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "holiday.jpg") as saved:
        pixels = np.rot90(np.asarray(saved), 3)
    page = visit()
    upload(page, tmp_path / "holiday.jpg")
    wait_for_shares(page, expected(pixels))
    assert picture(page, "left").shape == (512, 300, 3)
    assert "example" not in text_of(page, "link") and "holiday" not in page.locator("#answer").inner_text()
    for kind in ("Labels", "Overlay", "Cut-out"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind).click()
        assert b"secret" not in download.value.path().read_bytes()


def test_a_broken_photo_is_explained_and_the_page_goes_on(visit, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"no photo at all")
    page = visit()
    before = shares(page)
    upload(page, tmp_path / "holiday.jpg")
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("This photo cannot be read: not an image of a known kind", timeout=WAIT_MS)
    assert not re.search(r"[Tt]raceback|holiday|/tmp|/gradio", notice.inner_text())
    expect(page.locator("#compare img")).to_have_count(0)  # not the result of the photo before
    for part in ("#details", "#take", "#code"):
        expect(page.locator(part)).to_be_hidden()
    page.get_by_role("button", name="Astronaut").click()
    wait_for_shares(page, before)


def test_results_can_be_taken_away(visit, tmp_path, fashion, astronaut):
    settings = Refinement(min_region_px=500, crf_iterations=2)
    page = visit(query="?crf_iterations=2&min_region_px=500&example=astronaut&style=cutout&label=hair")
    wanted = fashion.predict(astronaut, refinement=settings)

    def take(button: str) -> tuple[str, Path]:
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path.name, path

    name, path = take("Labels (PNG)")
    with Image.open(path) as shown:
        assert (name, shown.mode) == ("labels.png", "P")
        assert_array_equal(np.asarray(shown), wanted.labels)
    name, path = take("Cut-out (PNG)")
    with Image.open(path) as shown:
        assert (name, shown.mode) == ("hair.png", "RGBA")
        assert_array_equal(np.asarray(shown)[..., 3] > 0, wanted.mask("hair"))
    assert take("Overlay (JPEG)")[0] == "overlay.jpg"
    _, path = take("Settings (JSON)")
    assert Refinement.from_dict(json.loads(path.read_text())) == settings
    _, path = take("Probabilities (NPZ, up to 800 px)")
    with np.load(path, allow_pickle=False) as arrays:
        assert_array_equal(arrays["labels"], wanted.labels)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chosen_tab_can_be_read(visit, theme):
    page = visit(query=f"?__theme={theme}")
    page.get_by_role("button", name=re.compile("Copy as code")).click()
    tab = page.locator("#code [role=tab][aria-selected=true]")
    colour, ground = (luminance(tab.evaluate(shade)) for shade in (INK, GROUND))
    assert (max(colour, ground) + 0.05) / (min(colour, ground) + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(...)`, as WCAG 2.2 defines it."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_what_is_on_screen_can_be_copied_as_code(visit):
    page = visit(query="?crf_iterations=2&example=astronaut")
    wait_until(page, lambda: "crf_iterations=2" in text_of(page, "link"), "the link")
    page.get_by_role("button", name=re.compile("Copy as code")).click()
    assert "crf_iterations=2" in text_of(page, "python") and CLOTHES in text_of(page, "python")
    page.get_by_role("tab", name="CLI").click()
    assert "--crf-iterations 2" in text_of(page, "command")
    page.get_by_role("tab", name="API").click()
    assert "crf_iterations=2" in text_of(page, "client") and '"crf_iterations": 2' in text_of(page, "curl")


def test_clearing_the_photo_invites_another(visit):
    page = visit()
    page.locator("#photo").get_by_label(re.compile("Clear|Remove")).first.click()
    expect(page.locator("#compare .notice")).to_contain_text("Add a photo of a person", timeout=WAIT_MS)
    expect(page.locator("#compare img")).to_have_count(0)


def test_visitors_with_different_photos_see_their_own(visit, tmp_path, astronaut, expected):
    """Both at once, each again and again."""
    photos = {"a": np.ascontiguousarray(astronaut[:300, :300]), "b": np.ascontiguousarray(astronaut[100:420, 150:400])}
    pages = {name: visit() for name in photos}
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        upload(pages[name], tmp_path / f"{name}.png")
    for value in (100, 400):
        for page in pages.values():
            set_number(page, "min_region_px", value)
        for name, page in pages.items():
            wait_for_shares(page, expected(photos[name], min_region_px=value))
            assert np.abs(picture(page, "left").astype(int) - photos[name]).mean() < 4
