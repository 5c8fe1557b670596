"""A real headless Chromium for tests of pages: the one that the machine has, driven by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

NO_BROWSER = "no Chromium is here: tests of pages need one (Debian: apt-get install chromium)"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# No request but the page's own: without these Chromium looks up its maker's hosts at every start.
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)


def find_chromium() -> str | None:
    """The path of the machine's Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def chromium(executable: str) -> Iterator[Any]:
    """A running browser (Playwright's `Browser`), ended afterwards."""
    from playwright.sync_api import sync_playwright

    arguments = [*_QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # root has no sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
