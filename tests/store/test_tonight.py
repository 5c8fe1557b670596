"""A night's runs and the calendar on a real Postgres."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from refund.store.alerts import list_alerts, raise_alert, resolve_alerts
from refund.store.database import Database
from refund.store.records import Alert
from refund.store.tonight import CalendarDay, calendar_days, get_night, get_reconciliation, night_span
from tests.conftest import Roles
from tests.store.factories import NOON
from tests.store.known_nights import FIRST, LAST, load

BEFORE, AHEAD = FIRST - timedelta(days=1), LAST + timedelta(days=1)


@pytest.fixture
def database(roles: Roles) -> Database:
    """The known nights: a published one, one that is published and made up, too."""
    load(roles)
    return Database(roles.app)


def failed(run_date: date, *, synthetic: bool = False) -> Alert:
    key = f"failed_night/{run_date}/{synthetic}"
    return Alert(
        rule="failed_night", dedupe_key=key, severity="critical", run_id="none", run_date=run_date, message="m"
    )


def change(roles: Roles, statement: str, *values: Any) -> None:
    with Database(roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)


def day(run_date: date, state: str, photos: int | None, **over: Any) -> CalendarDay:
    values = {"drift": False, "open_alerts": 0, "synthetic": False}
    return CalendarDay(run_date=run_date, state=state, photos=photos, **values | over)


def test_the_span_reaches_from_the_oldest_night_to_the_newest_real_one(roles: Roles, database: Database) -> None:
    assert night_span(database) == (FIRST, LAST)
    change(roles, "UPDATE refund.run SET run_date = %s WHERE run_id = 'r3'", AHEAD)
    assert night_span(database) == (FIRST, LAST), "a made-up night is not the newest where there are real ones"
    raise_alert(database, failed(AHEAD), at=NOON)
    assert night_span(database) == (FIRST, AHEAD), "a night that failed before it began is one"


def test_there_is_no_span_before_the_first_night(roles: Roles) -> None:
    assert night_span(Database(roles.app)) is None
    night = get_night(Database(roles.app), LAST)
    assert (night.state, night.runs, night.published, night.last_complete) == ("missing", (), None, None)
    assert calendar_days(Database(roles.app), first=FIRST, last=LAST) == []


def test_a_night_is_what_its_real_runs_came_to(roles: Roles, database: Database) -> None:
    night = get_night(database, LAST)
    assert [run.run_id for run in night.runs] == ["r2", "r3"], "the made-up one last"
    assert [run.run_id for run in night.real_runs] == ["r2"]
    assert night.published is night.runs[0]
    assert night.state == "published"
    assert night.last_complete == LAST
    counts = night.published.counts
    assert counts is not None
    assert (counts.photos, counts.classified, counts.rejected, counts.unchanged) == (9, 8, 1, 0)
    sums = get_reconciliation(database, "r2")
    assert sums is not None
    assert (sums.manifest, sums.adds_up) == (9, True)
    assert get_reconciliation(database, "none") is None

    for state in ("running", "failed"):
        change(roles, "UPDATE refund.run SET state = %s, published_at = NULL WHERE run_id = 'r2'", state)
        night = get_night(database, LAST)
        assert (night.state, night.published, night.last_complete) == (state, None, FIRST)
    change(roles, "UPDATE refund.run SET state = 'dry_run' WHERE run_id = 'r2'")
    assert get_night(database, LAST).published == get_night(database, LAST).runs[1], "the made-up one is left"


def test_a_night_that_failed_unseen_is_failed_until_a_later_run_goes_well(database: Database) -> None:
    raise_alert(database, failed(BEFORE), at=NOON)
    assert get_night(database, BEFORE).state == "failed"
    assert calendar_days(database, first=BEFORE, last=BEFORE) == [day(BEFORE, "failed", None, open_alerts=1)]
    later = NOON + timedelta(hours=1)
    resolve_alerts(database, run_id="r", run_date=BEFORE, rules=["failed_night"], before=later, at=later)
    assert get_night(database, BEFORE).state == "missing"
    assert calendar_days(database, first=BEFORE, last=BEFORE) == [day(BEFORE, "missing", None)]


def test_the_calendar_has_a_row_for_each_night_that_left_a_trace(roles: Roles, database: Database) -> None:
    both = [day(FIRST, "published", 4), day(LAST, "published", 9, drift=True, open_alerts=1)]
    assert calendar_days(database, first=BEFORE, last=AHEAD) == both
    assert calendar_days(database, first=LAST, last=LAST) == both[1:]
    change(roles, "UPDATE refund.report SET body = '{\"night_photos\": 12}' WHERE run_id = 'r2'")
    assert calendar_days(database, first=LAST, last=LAST)[0].photos == 12, "what stands for the night, by its report"
    for state in ("running", "failed"):
        change(roles, "UPDATE refund.run SET state = %s WHERE run_id = 'r1'", state)
        assert calendar_days(database, first=FIRST, last=FIRST) == [day(FIRST, state, None)]
    change(roles, "UPDATE refund.run SET synthetic = true WHERE run_id = 'r2'")
    change(roles, "DELETE FROM refund.alert WHERE NOT synthetic")
    made_up = calendar_days(database, first=LAST, last=LAST)
    assert [(each.state, each.synthetic) for each in made_up] == [("published", True)]


def test_alerts_are_listed_by_night(database: Database) -> None:
    assert {alert.run_date for alert in list_alerts(database, acknowledged=True)} == {FIRST, LAST}
    assert [alert.rule for alert in list_alerts(database, acknowledged=True, run_date=FIRST)] == ["failed_night"]
    assert list_alerts(database, run_date=FIRST) == [], "somebody took it"
