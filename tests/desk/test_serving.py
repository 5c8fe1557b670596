"""The desk as a real browser gets it: what `tests.desk.serving` promises the tests of pages."""

from __future__ import annotations

from typing import Any

from tests.desk.conftest import DeskWorld
from tests.desk.serving import serve, watched


def test_a_page_is_served_below_the_prefix_and_nothing_is_asked_of_anyone_else(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser, width=390, scheme="dark") as seen:
        seen.page.goto(f"{url}/nothing")
        assert seen.page.inner_text("h1") == "Something is wrong"
        assert seen.overflow_px <= 0
        assert seen.strangers(url) == []
        seen.page.evaluate("fetch('http://stranger.invalid/').catch(() => 0)")
        assert any("Content Security Policy" in told for told in seen.complaints)
