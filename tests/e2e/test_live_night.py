"""A night through Airflow's own scheduler, started from the command line: what it publishes, and what runs again.

The tests stand in the order of the nights: those of the first night look at the tables before the second one runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from refund import keys
from refund.params import parse_run_date
from tests.e2e.conftest import SHARED_IMAGES, YESTERDAY
from tests.e2e.driver import DAG, Driver, Night, await_that

pytestmark = pytest.mark.live

LAST_RUN_KEYS = [
    "run_id", "run_date", "state", "photos", "classified", "rejected", "unchanged", "model", "report", "seconds",
]  # fmt: skip


def expected_counts(verdicts: dict[str, str | None]) -> tuple[int, int, int]:
    rejected = sum(reason is not None for reason in verdicts.values())
    return len(verdicts), len(verdicts) - rejected, rejected


# --- the first night -----------------------------------------------------------------------------------------------


def test_the_first_night_succeeds_and_says_so_to_a_machine(
    first_night: Night, driver: Driver, verdicts: dict[str, str | None]
) -> None:
    last_run = first_night.last_run
    assert list(last_run) == LAST_RUN_KEYS
    assert (last_run["state"], last_run["run_date"], last_run["model"]) == ("success", YESTERDAY, driver.model)
    assert (last_run["photos"], last_run["classified"], last_run["rejected"]) == expected_counts(verdicts)
    assert last_run["unchanged"] == 0
    assert last_run["seconds"] > 0


def test_and_to_a_person(first_night: Night) -> None:
    counts = "{photos} photos, {classified} classified, {rejected} rejected, {unchanged} unchanged"
    assert f"success: {counts.format(**first_night.last_run)}" in first_night.answer.out
    assert first_night.last_run["report"] in first_night.answer.out
    assert first_night.run_id in first_night.answer.err


def test_a_fresh_stack_runs_yesterday_once(first_night: Night, runs_after_first: list[dict[str, Any]]) -> None:
    """Unpausing brings the scheduled run of last night; the command takes it instead of starting a second one."""
    assert [(run["dag_run_id"], run["run_type"], run["partition_key"]) for run in runs_after_first] == [
        (first_night.run_id, "scheduled", YESTERDAY)
    ]


def test_labelled_photos_get_their_class(first_night: Night, driver: Driver) -> None:
    if not SHARED_IMAGES.is_dir():
        pytest.skip("../shared is not there: photographs with labels lie beside the checkout, not in it")
    rows = driver.sql(
        "SELECT key, class_id FROM reporting.photos WHERE outcome = 'classified' AND refund_id <> 'R-odd'",
        role=driver.access.analyst,
    )
    assert len(rows) == 250
    hits = sum(Path(key).name.partition("_")[0] == class_id for key, class_id in rows)
    assert hits / len(rows) >= 0.83, hits


def test_every_photo_has_its_verdict(first_night: Night, driver: Driver, verdicts: dict[str, str | None]) -> None:
    prefix = f"incoming/{YESTERDAY}/"
    rows = driver.sql("SELECT key, outcome, rejection_reason FROM reporting.photos WHERE photo_date = %s", (YESTERDAY,))
    assert {key.removeprefix(prefix): reason for key, _, reason in rows} == verdicts
    assert all((outcome == "rejected") == (reason is not None) for _, outcome, reason in rows)


def test_a_rejected_photo_is_explained_and_kept_aside(first_night: Night, driver: Driver) -> None:
    rows = driver.sql("SELECT key, reason, detail, quarantine_key FROM reporting.rejections")
    assert rows
    assert all(detail for _, _, detail, _ in rows)
    with driver.services() as services:
        for key, _, _, quarantine_key in rows:
            aside, original = services.objects.head(quarantine_key), services.objects.head(key)
            assert aside is not None
            assert original is not None
            assert aside.size_bytes == original.size_bytes


def test_predictions_carry_the_model_and_scores_in_order(first_night: Night, driver: Driver) -> None:
    rows = driver.sql("SELECT model, confidence, top_k FROM refund.prediction")
    assert {model for model, _, _ in rows} == {driver.model}
    for _, confidence, top in rows:
        scores = [entry["confidence"] for entry in top]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert abs(scores[0] - confidence) < 1e-5


def test_the_report_lies_on_disk_and_in_the_bucket(first_night: Night, driver: Driver) -> None:
    page = Path(first_night.last_run["report"])
    assert page.is_relative_to(driver.home / "reports" / YESTERDAY)
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    folder = keys.report_prefix(run_date=parse_run_date(YESTERDAY), run_id=first_night.run_id)
    with driver.services() as services:
        assert services.objects.get(f"{folder}report.html") == page.read_bytes()
        assert services.objects.get(f"{folder}report.csv") == page.with_name("report.csv").read_bytes()


def test_the_report_agrees_with_what_an_analyst_counts(first_night: Night, driver: Driver) -> None:
    ((figures,),) = driver.sql("SELECT body FROM refund.report WHERE run_id = %s", (first_night.run_id,))
    assert figures == driver.refund("report", "--date", YESTERDAY, "--json").json
    last_run = first_night.last_run
    assert figures["counts"] == {name: last_run[name] for name in ("photos", "classified", "rejected", "unchanged")}
    counted = driver.refund(
        "sql",
        f"SELECT category, photos, auto, review FROM reporting.daily_categories WHERE run_date = '{YESTERDAY}'",
        "--json",
    ).json
    shown = [{name: row[name] for name in ("category", "photos", "auto", "review")} for row in figures["categories"]]
    assert sorted(shown, key=json.dumps) == sorted(counted, key=json.dumps)
    reasons = driver.sql("SELECT reason, count(*) FROM reporting.rejections GROUP BY reason")
    assert {row["reason"]: row["photos"] for row in figures["rejections"]} == dict(reasons)
    assert figures["review_queue_count"] == driver.sql("SELECT count(*) FROM reporting.review_queue")[0][0]
    assert sum(row["share"] for row in figures["categories"]) == pytest.approx(1.0)


def test_a_monitor_is_told_whether_last_night_is_complete(first_night: Night, driver: Driver) -> None:
    late = driver.refund("check", "--by", "02:00", "--json", code=1).json  # the test's night began after that
    assert (late["run_date"], late["complete"], late["late"]) == (YESTERDAY, False, True)
    done = driver.refund("check", "--by", "02:00", "--allow-late", "--json").json
    assert (done["run_date"], done["complete"]) == (YESTERDAY, True)
    by = "00:00" if datetime.now(UTC).hour < 2 else "23:59"  # asks for the night after, or before, that one
    missing = driver.refund("check", "--by", by, code=1)
    assert "is not published, expected by 20" in missing.out
    assert f" {by} UTC; no run of it has begun. Look at refund_nightly in Airflow" in missing.out


# --- what Airflow keeps of it --------------------------------------------------------------------------------------


def test_airflow_found_no_import_error(first_night: Night, driver: Driver) -> None:
    assert driver.api("GET", "/api/v2/plugins/importErrors") == {"import_errors": [], "total_entries": 0}
    assert driver.api("GET", "/api/v2/importErrors")["total_entries"] == 0
    plugins = driver.api("GET", "/api/v2/plugins")["plugins"]
    assert [plugin["name"] for plugin in plugins if plugin["name"] == "refund"] == ["refund"]


def test_the_dag_processor_parses_the_dag_in_under_a_second(first_night: Night, driver: Driver) -> None:
    """By its own figure, which is wall time: on a busy machine the quickest of some parses is what the DAG costs."""
    assert min(parse_seconds(driver, at_most=4)) < 1


def test_no_task_was_tried_twice(first_night: Night, driver: Driver) -> None:
    path = f"{DAG}/dagRuns/{first_night.run_id.replace('+', '%2B')}/taskInstances"
    tasks = driver.api("GET", path)["task_instances"]
    assert {task["task_id"] for task in tasks} == {
        "health_check", "fetch", "shards.validate", "shards.classify", "persist", "generate_report", "alert_on_drift",
    }  # fmt: skip
    assert {(task["state"], task["try_number"]) for task in tasks} == {("success", 1)}


def test_xcoms_hold_only_uris_counts_and_versions(first_night: Night, driver: Driver) -> None:
    entries = driver.airflow_sql("SELECT task_id, value::text FROM xcom")
    assert {task_id for task_id, _ in entries} >= {"health_check", "fetch", "shards.validate", "persist"}
    for task_id, text in entries:
        assert len(text) < 1000, (task_id, text)
        for value in leaves(json.loads(text)):
            is_uri = isinstance(value, str) and value.startswith(("file:///", "s3://"))
            is_version = value == driver.model or task_id == "health_check"
            assert isinstance(value, int) or is_uri or is_version, (task_id, value)


def test_no_secret_is_in_xcoms_templates_or_logs(first_night: Night, driver: Driver) -> None:
    secrets = json.loads((driver.home / "secrets.json").read_text())
    values = [*secrets.pop("airflow_passwords").values(), *secrets.values()]
    tables = "\n".join(
        row[0]
        for table in ("xcom", "rendered_task_instance_fields", "dag_run", "log", "serialized_dag", "dag_code")
        for row in driver.airflow_sql(f"SELECT to_jsonb(t)::text FROM {table} t")
    )
    assert first_night.run_id in tables
    logs = [path for path in (driver.home / "airflow" / "logs").rglob("*.log") if path.is_file()]
    assert any("validate" in str(path) for path in logs)
    for place, text in [("tables", tables), *((str(path), path.read_text(errors="replace")) for path in logs)]:
        assert not [value for value in values if value in text], place


# --- the same date again -------------------------------------------------------------------------------------------


def test_a_second_run_of_the_date_changes_no_row(
    second_night: Night, rows_after_first: dict[str, str], rows_after_second: dict[str, str]
) -> None:
    assert rows_after_second == rows_after_first
    assert second_night.run_id.startswith("manual__")
    last_run = second_night.last_run
    assert (last_run["state"], last_run["unchanged"]) == ("success", last_run["photos"])
    assert (last_run["classified"], last_run["rejected"]) == (0, 0)


def test_another_threshold_supersedes_decisions_and_keeps_predictions(
    strict_night: Night, first_night: Night, driver: Driver
) -> None:
    assert strict_night.last_run["classified"] == first_night.last_run["classified"]
    assert strict_night.last_run["unchanged"] == first_night.last_run["rejected"]  # a reason of the photo's own stands
    live = driver.sql(
        "SELECT run_id, threshold, count(*), count(*) FILTER (WHERE kind = 'review' OR score >= threshold) "
        "FROM refund.decision WHERE photo_date = %s AND superseded_by IS NULL GROUP BY 1, 2",
        (YESTERDAY,),
    )
    count = first_night.last_run["classified"]
    assert [(run_id, round(threshold, 4), *counts) for run_id, threshold, *counts in live] == [
        (strict_night.run_id, 0.99, count, count)
    ]
    superseded = driver.sql(
        "SELECT run_id, superseded_by, count(*) FROM refund.decision WHERE superseded_by IS NOT NULL GROUP BY 1, 2"
    )
    assert superseded == [(first_night.run_id, strict_night.run_id, count)]
    by_run = driver.sql("SELECT run_id, count(*) FROM refund.prediction WHERE photo_date = %s GROUP BY 1", (YESTERDAY,))
    assert by_run == [(first_night.run_id, count)]  # the same model says the same: written once


def parse_seconds(driver: Driver, *, at_most: int) -> Iterator[float]:
    """How long the dag-processor took, parse after parse, until one took less than a second."""
    for _ in range(at_most):
        dag = driver.api("GET", DAG)
        yield dag["last_parse_duration"]
        if dag["last_parse_duration"] < 1:
            return
        driver.api("PUT", f"/api/v2/parseDagFile/{dag['file_token']}")
        await_that(lambda parsed=dag["last_parsed_time"]: driver.api("GET", DAG)["last_parsed_time"] != parsed)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]
