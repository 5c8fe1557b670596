"""The page Tonight in a real browser: it fits and is quiet, a report is kept in, alerts and runs go by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from refund.store.alerts import acknowledge
from tests.desk.airflow_standin import Airflow
from tests.desk.conftest import DeskWorld
from tests.desk.serving import Watched, serve, watched
from tests.desk.test_tonight import FAILED, desk_at, four_nights
from tests.night.conftest import DAY, World

FOCUSED = "document.activeElement.id || document.activeElement.dataset.acknowledge || document.activeElement.tagName"


@pytest.fixture(scope="module")
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    four_nights(shared_world)
    with desk_at(shared_world) as made:
        yield made


@pytest.fixture(scope="module")
def url(desk: DeskWorld, airflow: Airflow) -> Iterator[str]:
    with serve(desk.app, airflow=airflow.app) as address:
        yield address


@pytest.fixture(autouse=True)
def _calm(airflow: Airflow, desk: DeskWorld) -> None:
    """Each test finds an Airflow without runs, and ana signed in."""
    airflow.is_paused, airflow.refuses = False, None
    airflow.runs.clear()
    airflow.states.clear()
    airflow.asked.clear()
    desk.sign_in("ana")


def opened(seen: Watched, address: str) -> Any:
    """The page, and its report where it has one, with everything loaded."""
    seen.page.goto(address)
    seen.page.wait_for_load_state("networkidle")
    return seen.page


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_it_fits_and_asks_nobody_else_and_axe_finds_nothing_serious(browser: Any, url: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with watched(browser, scheme=scheme) as seen:
        for path in ("/tonight", f"/tonight?date={FAILED}"):
            page = opened(seen, f"{url}{path}")
            assert seen.overflow_px <= 0
            page.set_viewport_size({"width": 390, "height": 900})
            assert seen.overflow_px <= 0
            found = Axe().run(page).response["violations"]
            assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
            page.set_viewport_size({"width": 1280, "height": 900})
        assert seen.complaints == []
        assert seen.strangers(url) == []


def test_the_report_is_shown_with_its_style_drawings_and_all(browser: Any, url: str) -> None:
    with watched(browser) as seen:
        page = opened(seen, f"{url}/tonight")
        report = page.frames[1]
        assert report.url == f"{url}/reports/{DAY}/page"
        assert report.inner_text("h1") == page.inner_text(".sentence")
        assert report.evaluate("getComputedStyle(document.querySelector('.cards')).display") == "grid"
        assert report.evaluate("document.querySelector('svg').getBoundingClientRect().width") > 300
        assert seen.complaints == []


@pytest.mark.slow
def test_a_script_in_a_report_does_not_run(browser: Any, url: str, desk: DeskWorld) -> None:
    objects = desk.services.objects
    row = desk.services.repository.get_report(run_date=DAY)
    assert row is not None
    key = row.html_uri.removeprefix(objects.uri(""))
    kept = objects.get(key)
    objects.put(
        key,
        b"<h1>harmless</h1><script>document.querySelector('h1').textContent = 'ran'</script>"
        b"<img src='data:,' onerror=\"document.querySelector('h1').textContent = 'ran'\">"
        b"<img src='http://stranger.invalid/x.png'>",
    )
    try:
        for path in ("/tonight", f"/reports/{DAY}/page"):
            with watched(browser) as seen:
                page = opened(seen, f"{url}{path}")
                assert page.frames[-1].inner_text("h1") == "harmless"
                assert any("Content Security Policy" in told for told in seen.complaints)
    finally:
        objects.put(key, kept, content_type="text/html; charset=utf-8")


def alert_of(desk: DeskWorld, day: Any) -> int:
    """The number of the night's one alert, open."""
    ((number,),) = desk.world.rows(f"SELECT alert_id FROM refund.alert WHERE run_date = '{day}'")
    return int(number)


def test_an_alert_is_taken_by_keyboard_and_where_somebody_was_faster_that_is_told(
    browser: Any, url: str, desk: DeskWorld
) -> None:
    first, second = alert_of(desk, FAILED), alert_of(desk, DAY - timedelta(days=3))
    with watched(browser) as seen:
        page = opened(seen, f"{url}/tonight?date={FAILED}")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED) == str(first):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#said:text-is('Alert {first} is yours.')")  # for some seconds
        assert page.inner_text(f"#alert-{first} .taken").startswith("✓ taken by ana, ")
        assert page.evaluate(FOCUSED) == f"alert-{first}"
        assert seen.complaints == []

        acknowledge(desk.services.database, [second], by="<b>ben", at=desk.services.now())
        page.click(f"[data-acknowledge='{second}']")
        page.wait_for_selector(f"#alert-{second} .taken")
        assert page.inner_text(f"#alert-{second} .taken") == "✓ taken by <b>ben, 2026-11-23, 06:00 UTC"
        assert page.inner_text("#said").startswith(f"<b>ben took alert {second} at 2026-11-23 06:00 UTC.")


def test_a_date_is_run_after_a_second_question_and_followed_to_its_end(
    browser: Any, url: str, airflow: Airflow
) -> None:
    with watched(browser) as seen:
        seen.page.clock.install()
        page = opened(seen, f"{url}/tonight")
        page.fill("#run-date", str(DAY))
        page.press("#run-date", "Enter")
        assert page.inner_text("#run-question").startswith(f"Run the night of {DAY} now? It was published before: ")
        assert page.evaluate(FOCUSED) == "run-yes"
        page.keyboard.press("Escape")
        assert not page.is_visible("#run-confirm")
        assert airflow.asked == []

        page.keyboard.press("Enter")  # the focus is back on the button
        page.keyboard.press("Enter")
        page.wait_for_selector("#run-answer .badge.good")
        assert airflow.asked == [{"logical_date": None, "partition_key": str(DAY), "conf": {"run_date": str(DAY)}}]
        assert page.inner_text("#run-answer") == f"✓ started The night of {DAY} is queued: its run in Airflow."
        link = page.get_attribute("#run-answer a", "href")
        assert link == "/dags/refund_nightly/runs/manual__1"
        page.wait_for_selector("#progress-said:text('waits for its turn')")

        airflow.runs["manual__1"]["state"] = "running"
        airflow.states |= {"health_check": ["success"], "fetch": ["success"], "shards.validate": ["success", "running"]}
        page.clock.run_for(3500)
        page.wait_for_selector("#progress-said:text('is at work: read')")
        steps = page.inner_text("#progress-steps").split("\n")
        assert steps == [
            *("✓ Check", "✓ List the photos", "… Read 1 of 2", "○ Classify", "○ Publish", "○ Report", "○ Alerts"),
        ]
        assert page.get_attribute("#progress-link", "href") == link

        airflow.runs["manual__1"]["state"] = "success"
        with page.expect_navigation(url=f"{url}/tonight"):
            page.clock.run_for(3500)
        page.wait_for_load_state("networkidle")
        assert not page.is_visible("#progress")
        # the test's own clock is a script, which the report's frame lets as little in as any other
        assert [told for told in seen.complaints if "frame is sandboxed" not in told] == []


@pytest.mark.slow
def test_a_run_that_goes_already_is_followed(browser: Any, url: str, airflow: Airflow) -> None:
    airflow.begin("scheduled__1", state="running", run_date="2026-11-22")
    with watched(browser) as seen:
        page = opened(seen, f"{url}/tonight")
        page.wait_for_selector("#progress-said:text('The night of 2026-11-22 is at work')")
        assert page.get_attribute("#progress-link", "href") == "/dags/refund_nightly/runs/scheduled__1"


@pytest.mark.slow
def test_what_airflow_refuses_is_told_and_a_paused_dag_is_not_asked(browser: Any, url: str, airflow: Airflow) -> None:
    with watched(browser) as seen:
        page = opened(seen, f"{url}/tonight")

        def told(kind: str) -> str:
            page.click("#run-ask button")
            page.click("#run-yes")
            page.wait_for_selector(f"#run-answer .{kind}")
            assert not page.is_visible("#run-confirm")
            return str(page.inner_text("#run-answer"))

        for status, detail, text in (
            (403, "Forbidden", "Airflow does not let you run refund_nightly. Ask an administrator of this Airflow"),
            (409, "it <b>exists", "Airflow has such a run already: it <b>exists. Look at its runs."),
            (404, "no such DAG", "Airflow knows no refund_nightly: no such DAG. Look for import errors."),
            (400, "bad run date", "Airflow refused (400): bad run date"),
            (
                422,
                [{"msg": "Input should be a date", "loc": ["body"]}],
                "Airflow refused (422): Input should be a date",
            ),
        ):
            airflow.refuses = (status, detail)
            assert told("problem").startswith(text)
        airflow.refuses, airflow.is_paused = None, True
        assert told("note").startswith("refund_nightly is paused in Airflow, so a run would only wait.")
        assert page.get_attribute("#run-answer a", "href") == "/dags/refund_nightly"
        assert airflow.asked == []


@pytest.mark.slow
def test_a_link_to_airflow_leads_out_of_the_frame_that_airflow_shows_the_desk_in(browser: Any, url: str) -> None:
    with watched(browser) as seen:
        page = opened(seen, f"{url.removesuffix('/refund')}/framed")
        page.frames[1].click("summary:text('run of this night')")
        page.frames[1].click("a:text('run-published')")
        page.wait_for_url("**/dags/refund_nightly/runs/run-published")
