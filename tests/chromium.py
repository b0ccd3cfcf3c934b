"""Debian's chromium for tests of the page; whoever imports this is skipped where a part of it is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 60_000

try:
    from playwright.sync_api import Browser, Download, Page, expect, sync_playwright
except ImportError:
    pytest.skip("playwright is not installed: pip install 'hubmodels[dev]'", allow_module_level=True)
if not shutil.which(CHROMIUM):
    pytest.skip(f"no {CHROMIUM}: apt-get install chromium", allow_module_level=True)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def set_number(page: Page, name: str, value: object) -> None:
    """Type a value into the box beside a slider."""
    number = page.locator(f"#{name} input[type=number]")
    number.fill(str(value))
    number.press("Tab")


def choose(page: Page, name: str, option: str) -> None:
    """Choose in a menu."""
    page.locator(f"#{name} input").first.click()
    page.get_by_role("option", name=option, exact=True).click()
    expect(page.get_by_role("option")).to_have_count(0)  # the list fades out, and another one may hold the same names


__all__ = ["CHROMIUM", "WAIT_MS", "Browser", "Download", "Page", "choose", "expect", "running_browser", "set_number"]
