"""Opens pages in a headless Chromium that is installed, by Playwright; tests that need it are skipped without one."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Return $CHROMIUM, or the first of Chromium's usual names on the path."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


def needs_browser(test: object) -> object:
    """Skip a test where Chromium or Playwright is not installed; Playwright's own browsers are not asked for."""
    no_chromium = pytest.mark.skipif(
        find_chromium() is None,
        reason="no Chromium found: install it (Debian: apt-get install chromium), or set CHROMIUM to its path",
    )
    no_playwright = pytest.mark.skipif(
        find_spec("playwright") is None, reason="Playwright is not installed: pip install playwright"
    )
    return no_chromium(no_playwright(test))


@contextmanager
def opened_browser(
    width: int = 1280, height: int = 800, arguments: Sequence[str] = (), *, offline: bool = False
) -> Iterator[tuple["Page", list[str]]]:
    """Yield a page in a browser of its own, and the list of its errors.

    Args:
        arguments: further arguments of Chromium's command line.
        offline: whether the browser has no network.
    """
    with opened_chromium(arguments) as chromium, opened_page(chromium, width, height, offline=offline) as opened:
        yield opened


@contextmanager
def opened_chromium(arguments: Sequence[str] = ()) -> Iterator["Browser"]:
    """Yield a browser, which takes two seconds to start; `asyncio.run` fails in this thread as long as it is open."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_chromium(), chromium_sandbox=os.geteuid() != 0, args=[*arguments]
        )
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened_page(
    chromium: "Browser", width: int = 1280, height: int = 800, *, offline: bool = False
) -> Iterator[tuple["Page", list[str]]]:
    """Yield a page that shares no cookies, storage or scripts with others of its browser, and the list of its errors.

    Errors are exceptions that no script caught, and what the page logs as an error.
    """
    context = chromium.new_context(viewport={"width": width, "height": height}, offline=offline)
    try:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        yield page, errors
    finally:
        context.close()


def wait_for(page: "Page", script: str, timeout_s: float = 60.0) -> None:
    """Wait until an expression is true in JavaScript's sense.

    Playwright's own wait evaluates the text inside the page, which a page's Content-Security-Policy may forbid.
    """
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(script):
        assert time.monotonic() < deadline, f"still not true: {script}"
        page.wait_for_timeout(5)
