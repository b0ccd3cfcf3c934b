"""Pictures of the running page for the README: `python -m tests.screenshots` writes them to .github/."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.conftest import ROOT
from tests.page_server import running_demo

CHROMIUM = "/usr/bin/chromium"
SHOTS = {  # name -> width, theme, query
    "page": (1280, "light", "task=person&model=u2net_small_person&example=astronaut&crf_iterations=5"),
    "page-narrow": (390, "dark", "task=person&model=u2net_small_person&example=astronaut&layout=two-up&style=cutout"),
}


def shoot(page: Page, url: str, width: int, theme: str, query: str) -> Image.Image:
    """The page once its answer is there."""
    page.set_viewport_size({"width": width, "height": 900 if width > 500 else 1500})
    page.goto(f"{url}/?__theme={theme}&{query}")
    page.wait_for_selector("#compare img", timeout=120_000)
    page.wait_for_function("q => document.querySelector('#link pre')?.innerText.includes(q)", arg=query.split("&")[-1])
    page.wait_for_timeout(1500)  # fonts and the last of the animations
    page.wait_for_function("!document.querySelector('#compare .wrap:not(.hide)')")  # dimmed while an answer is awaited
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    """Serve the page, photograph it, and stop it again."""
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as (url, *_), sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        for name, shot in SHOTS.items():
            picture = shoot(page, url, *shot)
            picture.save(ROOT / ".github" / f"{name}.webp", quality=85, method=6)
        browser.close()


if __name__ == "__main__":
    main()
