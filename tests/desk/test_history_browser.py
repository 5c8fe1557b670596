"""The history and a photo's page in a real browser: filters, pages, pictures, the table, on a desk and a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refund.desk import history_page
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.history_world import HOSTILE_KEY, page_of, tell
from tests.desk.serving import serve, watched
from tests.e2e.driver import await_that
from tests.night.conftest import World


@pytest.fixture(scope="module")
def told(shared_world: World) -> Iterator[DeskWorld]:
    """A desk over two nights, where ana is signed in."""
    tell(shared_world)
    with desk_in(shared_world) as made:
        made.sign_in("ana")
        yield made


@pytest.fixture(scope="module")
def url(told: DeskWorld) -> Iterator[str]:
    with serve(told.app) as address:
        yield address


def await_pictures(page: Any) -> None:
    """Wait until every picture of the page was decoded by the browser."""
    page.wait_for_load_state("networkidle")
    await_that(lambda: bool(page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")))


def test_somebody_filters_opens_a_photo_and_comes_back_to_the_filtered_list(browser: Any, url: str) -> None:
    with watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/history")
        page.get_by_label("Refund id").fill("R-1")
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_url("**/history?*refund_id=R-1*")
        assert "category=" not in page.url  # what is not filled in is not sent
        assert page.locator("tbody tr").count() == 3
        page.locator("#statistics", has_text="of 3").wait_for()
        assert page.locator("#counts").inner_text().startswith("Photos 1 to 3 of 3 · 100% to review · mean confidence ")
        await_pictures(page)
        page.get_by_role("link", name="photo 4.jpg").click()
        page.get_by_role("heading", name="photo 4.jpg").wait_for()
        await_pictures(page)
        page.get_by_role("link", name="History", exact=True).nth(1).click()
        page.wait_for_url("**/history?*refund_id=R-1*")
        assert page.locator("tbody tr").count() == 3
        assert seen.complaints == []
        assert seen.strangers(url) == []


@pytest.mark.slow
def test_somebody_pages_through_by_keyboard(browser: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_page, "PAGE_SIZE", 4)
    with watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/history")
        assert page.locator("tbody tr").count() == 4
        page.get_by_role("link", name="Next").focus()
        page.keyboard.press("Enter")
        page.get_by_text("Page 2", exact=True).wait_for()
        assert "Photos 5 to 8" in page.locator("#counts").inner_text()
        page.get_by_role("link", name="Previous").click()
        page.get_by_text("Page 1", exact=True).wait_for()
        assert seen.complaints == []


def test_the_table_is_downloaded_with_the_filters_of_the_page(browser: Any, url: str, tmp_path: Path) -> None:
    with watched(browser, accept_downloads=True) as seen:
        seen.page.goto(f"{url}/history?refund_id=R-1&date_from=2026-11-01&date_to=2026-11-30")
        with seen.page.expect_download() as started:
            seen.page.get_by_role("link", name="Download as CSV").click()
        assert started.value.suggested_filename == "refund-nights-2026-11-01-2026-11-30.csv"
        started.value.save_as(tmp_path / "table.csv")
        lines = (tmp_path / "table.csv").read_text(encoding="utf-8-sig").splitlines()
        assert [len(lines), lines[0].startswith("run_date,photo_date,photo_id,key,refund_id,")] == [4, True]


@pytest.mark.slow
def test_trials_ask_for_no_refund(browser: Any, url: str) -> None:
    with watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/history?refund_id=R-1")
        page.get_by_label("Show").select_option("trials")
        assert page.get_by_label("Refund id").is_disabled()
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_url("**source=trials*")
        assert page.locator("tbody tr").count() == 2
        assert seen.complaints == []


@pytest.mark.slow
def test_a_picture_that_cannot_be_had_says_so(browser: Any, url: str, told: DeskWorld) -> None:
    told.world.services.objects.delete("incoming/2026-11-21/R-2/photo 6.jpg")
    told.app.state.desk.close()  # and with it the pictures in memory
    with watched(browser) as seen:
        for path in ("/history?text=photo+6", page_of(told.world, "photo 6.jpg")):
            seen.page.goto(url + path)
            seen.page.locator("[data-picture] .none", has_text="no picture").wait_for()
        assert all("404" in told for told in seen.complaints)


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1280, "light", marks=pytest.mark.slow), (390, "dark")])
def test_pages_fit_the_window_and_axe_finds_nothing_serious(
    browser: Any, url: str, told: DeskWorld, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    paths = (
        "/history?text=jpg",
        "/history?source=trials",
        "/history?text=nothing-like-it",
        page_of(told.world, "photo 1.jpg"),
        page_of(told.world, HOSTILE_KEY),
        page_of(told.world, "notes.jpg"),
        page_of(told.world, "replaced.jpg", newest=False),
    )
    with watched(browser, width=width, scheme=scheme) as seen:
        for path in paths:
            seen.page.goto(url + path)
            if path.startswith("/history/"):
                seen.page.locator("summary").click()
            assert (path, seen.overflow_px) == (path, 0)
            found = Axe().run(seen.page).response["violations"]
            assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
        assert seen.strangers(url) == []
        assert [text for text in seen.complaints if "404" not in text] == []
