"""Nights that do not go the usual way: backfilled, without photos, with late photos, and failing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import BACKFILLED, YESTERDAY, day
from tests.e2e.driver import DAG, Driver, Night

pytestmark = [pytest.mark.live, pytest.mark.slow]


def task_tries(driver: Driver, run_id: str) -> dict[str, tuple[str, int]]:
    path = f"{DAG}/dagRuns/{run_id.replace('+', '%2B')}/taskInstances"
    tasks = driver.api("GET", path)["task_instances"]
    return {task["task_id"]: (task["state"], task["try_number"]) for task in tasks}


# --- backfill, no photos, late photos ------------------------------------------------------------------------------


def test_a_backfill_of_three_dates_publishes_three_nights(backfill: list[dict[str, Any]], driver: Driver) -> None:
    assert [(run["partition_key"], run["state"]) for run in backfill] == [(date, "success") for date in BACKFILLED]
    published = driver.sql(
        "SELECT run_date::text, photos, classified, rejected, unchanged FROM reporting.runs "
        "WHERE state = 'published' AND run_date = ANY (%s::date[]) ORDER BY run_date",
        (list(BACKFILLED),),
    )
    assert published == [
        (BACKFILLED[0], 0, 0, 0, 0),
        (BACKFILLED[1], 3, 3, 0, 0),
        (BACKFILLED[2], 5, 0, 2, 3),  # two of its own, and the three of the day before once more
    ]


def test_a_night_without_photos_says_so(backfill: list[dict[str, Any]], driver: Driver) -> None:
    report = driver.refund("report", "--date", BACKFILLED[0])
    assert "so there was nothing to sort" in report.out
    states = task_tries(driver, backfill[0]["dag_run_id"])
    assert states["persist"][0] == states["generate_report"][0] == states["alert_on_drift"][0] == "success"
    assert states["shards.validate"][0] == "skipped"


def test_late_photos_come_in_with_the_next_night(late_night: Night, driver: Driver) -> None:
    last_run = late_night.last_run
    assert last_run["state"] == "success"
    assert (last_run["photos"], last_run["classified"], last_run["unchanged"]) == (7, 2, 5)
    rows = driver.sql("SELECT photo_date::text, run_date::text FROM reporting.photos WHERE refund_id = 'R-late'")
    assert rows == [(BACKFILLED[-1], day(9))] * 2


def test_the_counts_of_every_night_add_up(late_night: Night, driver: Driver) -> None:
    rows = driver.sql(
        "SELECT run_id, adds_up, manifest, outcomes FROM reporting.reconciliation WHERE run_date <= %s", (YESTERDAY,)
    )  # without the night that the schedule begins at 02:00
    assert len(rows) == 7  # three of yesterday, three backfilled, the late one
    assert [row for row in rows if not row[1] or row[2] != row[3]] == []


# --- failing nights ------------------------------------------------------------------------------------------------


def test_an_unknown_model_fails_the_night_at_once_and_in_words(unknown_model_night: Night, driver: Driver) -> None:
    assert unknown_model_night.last_run["state"] == "failed"
    assert unknown_model_night.last_run["photos"] is None
    assert unknown_model_night.answer.out.startswith("failed: nothing was published, ")
    out = " ".join(unknown_model_night.answer.out.split())
    assert "health_check: HealthCheckError: the night cannot start, 1 fault found: 1. no model is registered as " in out
    assert "'nosuch@1'; build one with: refund model build (see: refund model list)" in out
    tries = task_tries(driver, unknown_model_night.run_id)
    assert tries["health_check"] == ("failed", 1)  # a wrong set-up is not tried again
    assert tries["fetch"][0] == "upstream_failed"
    assert tries["alert_on_drift"] == ("failed", 1)


def test_failed_nights_of_one_date_are_one_alert_which_a_good_one_closes(
    unknown_model_night: Night, altered_model_night: Night, late_night: Night, driver: Driver
) -> None:
    (alert,) = driver.sql(
        "SELECT severity, seen_count, run_id, acknowledged_by, message, alert_id FROM refund.alert "
        "WHERE rule = 'failed_night' AND run_date = %s",
        (day(9),),
    )
    assert alert[:4] == ("critical", 2, altered_model_night.run_id, "refund_nightly")
    assert "not published" in alert[4]
    assert "health_check" in alert[4]
    closed = driver.sql(
        "SELECT actor FROM refund.audit WHERE action = 'alert.resolve' AND subject = %s", (f"alert {alert[5]}",)
    )
    assert closed == [("refund_nightly",)]


def test_an_altered_model_fails_the_night_in_words(altered_model_night: Night, driver: Driver) -> None:
    assert altered_model_night.last_run["state"] == "failed"
    out = " ".join(altered_model_night.answer.out.split())
    assert "health_check: HealthCheckError: the night cannot start, 1 fault found: 1." in out
    assert "was altered" in out
    assert "refund model build" in out
    assert task_tries(driver, altered_model_night.run_id)["health_check"] == ("failed", 1)


def test_failed_nights_publish_nothing(altered_model_night: Night, unknown_model_night: Night, driver: Driver) -> None:
    failed = [altered_model_night.run_id, unknown_model_night.run_id]
    assert driver.sql("SELECT count(*) FROM refund.run_photo WHERE run_id = ANY (%s)", (failed,)) == [(0,)]
    assert driver.sql("SELECT count(*) FROM refund.run WHERE run_id = ANY (%s)", (failed,)) == [(0,)]


def test_after_failed_nights_a_good_one_works(late_night: Night, driver: Driver) -> None:
    assert set(task_tries(driver, late_night.run_id).values()) == {("success", 1)}
    assert driver.sql("SELECT count(*) FROM refund.alert WHERE run_id = %s", (late_night.run_id,)) == [(0,)]
