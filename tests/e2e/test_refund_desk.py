"""The desk as people use it: a real browser, Airflow's own login, a night run from the page, photos reviewed by keys.

The tests stand in the order in which a clerk would go. Where ``REFUND_DESK_PICTURES`` names a folder, pictures of the
pages are left there: those of docs/desk/ are made so.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refund.local.samples import write_samples
from tests.e2e.conftest import day
from tests.e2e.driver import Driver, await_that

pytestmark = [pytest.mark.live, pytest.mark.slow]

NIGHT = day(30)  # far from the dates of other tests
PAGES = ("tonight", "try", "history", "review")
LOOKS = {  # name: window and colours
    "": {"viewport": {"width": 1280, "height": 900}},
    "-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "-phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
}
PATIENCE_MS = 120_000
# Playwright's own wait for a condition evaluates text in the page, which the desk's policy forbids.
PICTURES = "[...document.images].map((image) => image.loading === 'lazy' || image.naturalWidth > 0)"


def serious(page: Any) -> list[str]:
    """What axe-core calls serious or critical on the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def uncertain(number: int) -> bytes:
    """A small piece of a sample, of which no network can be sure."""
    from PIL import Image
    from skimage import data

    pixels = (data.coffee, data.gravel, data.brick, data.text)[number % 4]()
    image = Image.fromarray(pixels).convert("RGB")
    left, top = 17 * number % (image.width - 130), 29 * number % (image.height - 130)
    body = io.BytesIO()
    image.crop((left, top, left + 120, top + 120)).save(body, "JPEG", quality=85)
    return body.getvalue()


@pytest.fixture(scope="module")
def handed_in(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples and a dozen uncertain photos, uploaded for the night."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    for number in range(12):
        path = folder / f"R-20{number // 3:02}" / f"piece-{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(uncertain(number))
    driver.refund("upload", folder, "--date", NIGHT)
    return folder


@pytest.fixture(scope="module")
def signed_in(driver: Driver, browser: Any) -> Iterator[Any]:
    """A browser's context in which the clerk has logged in, through Airflow's own page, on the way to the desk."""
    import json

    password = json.loads((driver.home / "secrets.json").read_text())["airflow_passwords"]["clerk"]
    context = browser.new_context(base_url=driver.access.airflow_url)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/refund/tonight")
    assert "/auth/login" in page.url
    page.fill('[name="username"]', "clerk")
    page.fill('[name="password"]', password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/refund/tonight")
    yield context
    context.close()


@pytest.fixture
def page(signed_in: Any, driver: Driver) -> Iterator[Any]:
    """A page of the clerk; it may not complain, nor ask anybody else for anything."""
    opened = signed_in.new_page()
    complaints: list[str] = []
    strangers: list[str] = []
    # a refused photo's status is told by the browser itself; everything else is ours
    opened.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    own = (driver.access.airflow_url, "data:", "blob:")
    opened.on("request", lambda request: strangers.append(request.url) if not request.url.startswith(own) else None)
    yield opened
    opened.close()
    assert [text for text in complaints if "the server responded with a status of 4" not in text] == []
    assert strangers == []


def test_the_navigation_of_airflow_leads_to_the_desk(signed_in: Any, driver: Driver) -> None:
    page = signed_in.new_page()
    page.goto("/")
    page.get_by_role("link", name="Refund desk").first.click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Try photos").wait_for()
    page.close()


def test_a_night_is_run_from_the_page_and_its_report_read(page: Any, driver: Driver, handed_in: Path) -> None:
    driver.api("PATCH", "/api/v2/dags/refund_nightly", json={"is_paused": False})
    page.goto("/refund/tonight")
    page.fill("#run-date", NIGHT)
    page.click("#run-ask button")
    page.click("#run-yes")
    page.wait_for_url(f"**/refund/tonight?date={NIGHT}", timeout=900_000)  # the page follows the run to its end
    page.get_by_text("Adds up").wait_for()
    page.wait_for_load_state("networkidle")
    (report,) = [frame for frame in page.frames if f"/reports/{NIGHT}/page" in frame.url]
    assert "33 photos" in report.inner_text("h1")
    assert "33 photos" in page.inner_text(".sentence")


def test_one_photo_is_tried(page: Any, handed_in: Path) -> None:
    page.goto("/refund/try")
    page.set_input_files("#photos", str(handed_in / "R-1001" / "front.jpg"))
    page.click("#go")
    page.get_by_text("Kitchen").first.wait_for()


def test_a_batch_with_a_broken_file_costs_that_file_alone(page: Any, handed_in: Path) -> None:
    page.goto("/refund/try")
    names = ("R-1002/dial.png", "R-1010/truncated.jpg", "R-1003/tripod.jpg")
    page.set_input_files("#photos", [str(handed_in / name) for name in names])
    page.click("#go")
    cards = page.locator("#cards > li")
    assert cards.count() == 3
    for number, what in enumerate((".verdict", ".problem", ".verdict")):
        cards.nth(number).locator(what).wait_for()


def test_ten_photos_are_reviewed_by_keyboard_and_one_taken_back(page: Any, driver: Driver, handed_in: Path) -> None:
    def reviews() -> list[Any]:
        """Of whatever night: photos of other tests may wait as well."""
        return driver.sql("SELECT review_id FROM refund.review WHERE reviewed_by = 'clerk'")

    page.goto("/refund/review")
    page.locator("#photo img").first.wait_for()
    for done in range(10):
        page.keyboard.press("Enter")
        await_that(lambda done=done: len(reviews()) == done + 1)
    page.keyboard.press("u")
    await_that(lambda: len(reviews()) == 9)


def test_the_history_finds_a_photo_and_tells_its_story(page: Any, handed_in: Path) -> None:
    page.goto(f"/refund/history?date_from={NIGHT}&date_to={NIGHT}&text=front")
    page.get_by_role("link", name="front.jpg").first.click()
    page.wait_for_url("**/refund/history/*/*")
    await_that(lambda: all(page.evaluate(PICTURES)))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", [*PAGES, "photo"])
def test_every_page_is_fit_to_be_seen(
    name: str, look: str, signed_in: Any, driver: Driver, browser: Any, handed_in: Path, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("REFUND_DESK_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(
        base_url=driver.access.airflow_url, storage_state=signed_in.storage_state(), **LOOKS[look]
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    open_page(page, name, handed_in)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert serious(page) == []
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=str(folder / f"{name}{look}.png"), full_page=name not in ("tonight", "history"))
    context.close()


def open_page(page: Any, name: str, handed_in: Path) -> None:
    """Open a page with something in it."""
    if name == "photo":
        page.goto(f"/refund/history?date_from={NIGHT}&date_to={NIGHT}&text=front")
        page.get_by_role("link", name="front.jpg").first.click()
        page.wait_for_url("**/refund/history/*/*")
    elif name == "try":
        page.goto("/refund/try")
        names = ("R-1001/front.jpg", "R-1010/truncated.jpg", "R-1003/tripod.jpg")
        page.set_input_files("#photos", [str(handed_in / each) for each in names])
        page.click("#go")
        page.locator("#cards > li").nth(2).locator(".verdict").wait_for()
    elif name == "review":
        page.goto("/refund/review")
        page.locator("#photo img").first.wait_for()
    else:
        query = f"?date={NIGHT}" if name == "tonight" else f"?date_from={NIGHT}&date_to={NIGHT}"
        page.goto(f"/refund/{name}{query}")
    page.wait_for_load_state("networkidle")
    await_that(lambda: all(page.evaluate(PICTURES)))
