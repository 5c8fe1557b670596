"""The page Tonight on real stores: what it says of published, failed, running and missing nights, and of none."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from refund.lifecycle.demo import load_demo
from refund.lifecycle.demo_plan import DemoPlan
from refund.night.alert_on_drift import NightFailedError, raise_alerts
from refund.night.services import NightRun
from refund.params import NightParams
from refund.report.figures import ReportFigures
from refund.report.sentence import reconciliation_sentences, summary_sentence
from refund.store.alerts import acknowledge, raise_alert
from refund.store.database import Database
from refund.store.records import Alert
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import DAY, World, fill
from tests.night.factories import jpeg
from tests.postgres import free_port

MORNING = datetime(2026, 11, 23, 6, tzinfo=UTC)  # the desk's clock
HOSTILE = '<img src=x onerror="alert(1)">\u202egpj.exe'
FAILED, RUNNING, UNSEEN, MISSING = (DAY + timedelta(days=days) for days in (-1, -2, -3, 1))


@contextmanager
def desk_at(world: World, **over: Any) -> Iterator[DeskWorld]:
    """A desk whose clock says `MORNING`."""
    with desk_in(replace(world, services=replace(world.services, now=lambda: MORNING, **over))) as desk:
        yield desk


def fail(world: World, run: NightRun, *tasks: str) -> None:
    """End the run as Airflow would after these tasks failed."""
    with pytest.raises(NightFailedError):
        raise_alerts(run, world.services, task_states=dict.fromkeys(tasks, "failed"))


def four_nights(world: World) -> None:
    """A night that was published, one that failed, one at work, and one whose health check failed."""
    fill(world, 6)
    world.put("R-9/broken.jpg", jpeg(9)[:500])
    world.night("run-published")
    fail(world, world.start("run failed/1", day=FAILED), "fetch", "persist")
    world.start("run-going", day=RUNNING)
    fail(world, NightRun(run_id="run-unseen", run_date=UNSEEN, params=NightParams()), "health_check")


def text_of(body: str) -> str:
    """What a reader sees, spaces folded."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def nights(shared_world: World) -> Iterator[DeskWorld]:
    four_nights(shared_world)
    with desk_at(shared_world) as desk:
        yield desk


def page(desk: DeskWorld, path: str = "/tonight", *, may_write: bool = True) -> str:
    answer = desk.sign_in("ana", may_write=may_write).get(path, headers={"accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_the_newest_night_says_what_it_came_to_and_whether_it_adds_up(nights: DeskWorld) -> None:
    report = nights.services.repository.get_report(run_date=DAY)
    assert report is not None
    figures = ReportFigures.from_dict(report.body)
    body = page(nights)
    said = text_of(body)
    assert "<h1>Tonight</h1>" in body
    assert summary_sentence(figures) in said
    assert reconciliation_sentences(figures.reconciliation) in said
    assert "✓ Adds up" in said
    assert "Photos of the night 7" in said
    assert "Could not be used 1 14.3% of the night" in said
    assert "Against other nights No reference yet" in said
    assert "Mix of goods No reference yet no earlier night to compare with" in said
    assert "Made-up" not in said


def test_the_report_stands_in_a_frame_that_may_do_nothing(nights: DeskWorld) -> None:
    body = page(nights)
    frame = re.search(r"<iframe[^>]*>", body)
    assert frame is not None
    assert frame[0] == (
        '<iframe src="/refund/reports/2026-11-21/page" sandbox="" title="Morning report of Saturday 21 November 2026">'
    )
    assert 'href="/refund/reports/2026-11-21/page"' in body
    assert 'href="/refund/reports/2026-11-21/table.csv"' in body


def test_the_calendar_tells_every_night_in_words_and_leads_to_it(nights: DeskWorld) -> None:
    cells = dict(re.findall(r'<a class="day [a-z ]*" href="([^"]*)"[^>]* aria-label="([^"]*)"', page(nights)))
    assert cells == {
        "/refund/tonight?date=2026-11-18": "Wednesday 18 November 2026, failed, 1 open alert",
        "/refund/tonight?date=2026-11-19": "Thursday 19 November 2026, at work",
        "/refund/tonight?date=2026-11-20": "Friday 20 November 2026, failed, 1 open alert",
        "/refund/tonight?date=2026-11-21": "Saturday 21 November 2026, published, 7 photos",
        "/refund/tonight?date=2026-11-22": "Sunday 22 November 2026, not run",
    }


def test_the_calendar_turns_to_other_months(nights: DeskWorld) -> None:
    body = page(nights, "/tonight?month=2026-07")
    assert re.findall(r"<caption>([^<]*)</caption>", body) == ["June 2026", "July 2026"]
    assert "date=2026-11-21&amp;month=2026-06" in body
    assert "date=2026-11-21&amp;month=2026-08" in body
    assert "Later" not in page(nights, "/tonight?month=2026-11")
    page(nights, "/tonight?date=9999-12-31&month=9999-12")  # the end of all calendars


def test_a_failed_night_says_so_and_where_to_look(nights: DeskWorld) -> None:
    body = page(nights, f"/tonight?date={FAILED}")
    said = text_of(body)
    assert "<h1>Night of Friday 20 November 2026</h1>" in body
    assert "The night of Friday 20 November 2026 failed: nothing of it is published." in said
    assert 'href="/dags/refund_nightly/runs/run%20failed%2F1" target="_top"' in body
    assert "The last complete night is Saturday 21 November 2026 ." in said
    assert "The night of 2026-11-20 failed in fetch, persist." in said
    assert "<iframe" not in body


def test_a_night_whose_health_check_failed_is_failed_too(nights: DeskWorld) -> None:
    said = text_of(page(nights, f"/tonight?date={UNSEEN}"))
    assert "The night of Wednesday 18 November 2026 failed: nothing of it is published." in said
    assert "It failed before it began: its health check says what was missing." in said


def test_a_night_at_work_a_missing_one_and_one_to_come(nights: DeskWorld) -> None:
    said = text_of(page(nights, f"/tonight?date={RUNNING}"))
    assert "At work" in said
    assert "The night of Thursday 19 November 2026 is at work; nothing of it is published yet." in said
    said = text_of(page(nights, f"/tonight?date={MISSING}"))
    assert "No run of the night of Sunday 22 November 2026 was published or is at work." in said
    assert 'value="2026-11-22"' in page(nights, f"/tonight?date={MISSING}")
    said = text_of(page(nights, "/tonight?date=2026-11-25"))
    assert "The night of Wednesday 25 November 2026 has not come yet." in said


def test_a_date_is_run_by_those_who_may_and_the_others_are_told_whom_to_ask(nights: DeskWorld) -> None:
    body = page(nights)
    assert 'id="run-date" name="run_date" required min="1971-01-01" max="2026-11-23" value="2026-11-22">' in body
    assert "disabled" not in body
    body = page(nights, may_write=False)
    assert body.count("disabled") == 4  # date, button and two alerts
    said = text_of(body)
    assert "for the permission “can edit on Refund Desk” where it keeps such permissions; to run a night," in said
    assert "for the right to edit the DAG refund_nightly." in said


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("date=2026-13-01", "date: run date must read YYYY-MM-DD, for example 2026-11-21; got '2026-13-01'"),
        ("date=<b>", "date: run date must read YYYY-MM-DD, for example 2026-11-21; got '<b>'"),
        ("date=0", "date: run date must read YYYY-MM-DD, for example 2026-11-21; got '0'"),
        ("month=2026-1", "month: expected YYYY-MM, for example 2026-11; got '2026-1'"),
        ("month=2026-13", "month: run date must read YYYY-MM-DD, for example 2026-11-21; got '2026-13-01'"),
    ],
)
def test_what_is_no_date_is_told(nights: DeskWorld, query: str, message: str) -> None:
    answer = nights.sign_in("ana").get(f"/tonight?{query}", headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert message in text_of(answer.text)
    assert "<b>" not in answer.text


def test_alerts_are_shown_gravest_first_with_who_took_them_and_never_as_html(nights: DeskWorld) -> None:
    database = nights.services.database
    for number, (rule, severity) in enumerate((("drift:volume", "warning"), ("<i>rule", "critical"), ("old", "info"))):
        raise_alert(
            database,
            Alert(
                rule=rule,
                dedupe_key=f"{rule}/2026-11-17",
                severity=severity,
                run_id="r",
                run_date=date(2026, 11, 17),
                message=f"{HOSTILE} {number}",
                details={"examples": [HOSTILE], "sql": f"SELECT '{HOSTILE}'", "action": HOSTILE},
            ),
            at=MORNING,
        )
    ids = dict(nights.world.rows("SELECT rule, alert_id FROM refund.alert"))
    acknowledge(database, [ids["old"]], by="<s>eve", at=MORNING)
    try:
        body = page(nights, "/tonight?date=2026-11-17")
        assert not {tag for tag in ("<img", "<i>", "<s>") if tag in body}
        assert "\u202e" not in text_of(body).replace(f"SELECT '{HOSTILE}'", "")
        said = text_of(body)
        assert said.index("critical") < said.index("warning")
        assert "✓ taken by <s>eve , 23 Nov, 06:00 UTC" in said
        assert f'data-acknowledge="{ids["drift:volume"]}"' in body
        assert f'data-acknowledge="{ids["old"]}"' not in body
        assert "2 open alerts of other nights" in said
    finally:
        with Database(nights.world.roles.owner).connect() as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM refund.alert WHERE run_date = '2026-11-17'")


def test_before_the_first_night_it_says_how_to_begin_and_made_up_nights_are_marked(world: World) -> None:
    with desk_at(world) as desk:
        said = text_of(page(desk))
        assert "No night has run yet." in said
        assert "To see one now, run a date that has photos." in said
        plan = DemoPlan(nights=2, photos=20, ending=DAY, seed=3)
        load_demo(plan, desk.services, by="test", pictures=(), tell=lambda _: None)
        body = page(desk)
        assert "Made-up night of the demo: nothing of it happened" in text_of(body)
        assert 'aria-label="Saturday 21 November 2026, published, ' in body
        assert ', made up"' in body
        _forget_reports(world)
        body = page(desk)
        said = text_of(body)
        assert "The night of Saturday 21 November 2026 is published. Its report is not there yet." in said
        assert "✓ Adds up This run listed" in said
        assert "Photos listed" in said
        assert "<iframe" not in body


def test_without_a_database_it_says_that_something_is_down(nights: DeskWorld) -> None:
    down = Database(replace(nights.world.roles.app, port=free_port()))
    with desk_at(nights.world, database=down) as desk:
        answer = desk.sign_in("ana").get("/tonight", headers={"accept": "text/html"})
    assert answer.status_code == 503
    assert "The desk cannot reach or use a part that it needs." in text_of(answer.text)


def _forget_reports(world: World) -> None:
    with Database(world.roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM refund.report")
