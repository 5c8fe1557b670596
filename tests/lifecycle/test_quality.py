"""A week of published nights, some of it reviewed: the estimate is of all decisions, is stored, and may alert."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refund.lifecycle.quality import measure_quality, record_quality, tell_quality
from refund.lifecycle.reviews import import_reviews
from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from tests.conftest import REPOSITORY, Roles
from tests.store.factories import MODEL, OTHER_MODEL, Photo, night, register_models, rows

NOW = datetime(2026, 11, 23, 6, 0, 30, tzinfo=UTC)
CATEGORIES = ["shoes", "clothing", "media", "electronics", "toys_games", "furniture"]


@pytest.fixture
def services(database: Roles) -> Iterator[Services]:
    """The database of this module; audits are wanted in small numbers."""
    register_models(database)
    settings = Settings(quality_min_audits=50, audit_share=0.3)
    with open_services(settings=settings, s3=S3Access(bucket="b"), database=database.app) as opened:
        object.__setattr__(opened, "now", lambda: NOW)
        yield opened


def photos_of(name: str, *, count: int, auto_accuracy: float, seed: int) -> tuple[list[Photo], dict[str, str]]:
    """A population, three quarters decided alone, and the right category of each key."""
    random = np.random.default_rng(seed)
    photos, truth = [], {}
    for number in range(count):
        auto = number % 4 != 0
        right = CATEGORIES[int(random.integers(6))]
        agrees = random.random() < (auto_accuracy if auto else 0.5)
        said = right if agrees else CATEGORIES[(CATEGORIES.index(right) + int(random.integers(1, 6))) % 6]
        key = f"incoming/2026-11-21/{name}/{number}.jpg"
        photos.append(
            Photo(key=key, category=said, kind="auto" if auto else "review", reasons=() if auto else ("low_score",))
        )
        truth[key] = right
    return photos, truth


def review(
    services: Services, folder: Path, truth: dict[str, str], keys: list[str], *, chosen_by: str = "", by: str = "anna"
) -> None:
    path = folder / "reviews.csv"
    lines = [f"{key},{truth[key]},{by},{chosen_by}" for key in keys]
    path.write_text("\n".join(["key,category,reviewed_by,chosen_by", *lines]), encoding="utf-8")
    import_reviews(path, services=services, by="test")


def keys_of(roles: Roles, name: str, condition: str) -> list[str]:
    return [
        key
        for (key,) in rows(
            roles.app,
            "SELECT p.key FROM refund.decision d JOIN refund.photo p USING (photo_date, photo_id) "
            f"WHERE p.key LIKE %s AND d.superseded_by IS NULL AND ({condition}) ORDER BY p.key",
            f"incoming/2026-11-21/{name}/%",
        )
    ]


def test_the_estimate_covers_the_truth_where_the_unweighted_mean_does_not(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    week = date(2026, 11, 8)
    photos, truth = photos_of("truth", count=1_200, auto_accuracy=0.95, seed=3)
    night(database.app, "truth", *photos, run_date=week, audit_share=0.15)
    accuracy = np.mean([photo.category == truth[photo.key] for photo in photos])
    audits = keys_of(database, "truth", "d.audit")
    queue = keys_of(database, "truth", "d.kind = 'review'")
    review(services, tmp_path, truth, audits)
    review(services, tmp_path, truth, queue[:270])
    (row,) = measure_quality(week, services)
    assert (row.model, row.decisions, row.auto, row.queue) == (MODEL, 1_200, 900, 300)
    assert (row.audits, row.audits_reviewed, row.queue_reviewed) == (len(audits), len(audits), 270)
    assert 100 < len(audits) < 170
    assert row.accuracy_low < accuracy < row.accuracy_high
    assert row.macro_f1_low < row.macro_f1 < row.macro_f1_high
    said = {photo.key: photo.category for photo in photos}
    unweighted = np.mean([said[key] == truth[key] for key in [*audits, *queue[:270]]])
    assert unweighted < row.accuracy_low - 0.1

    # somebody looks for mistakes of the machine, and finds them: the estimate must not move
    mistakes = [key for key in keys_of(database, "truth", "d.kind = 'auto' AND NOT d.audit") if said[key] != truth[key]]
    assert mistakes
    review(services, tmp_path, truth, mistakes)
    review(services, tmp_path, truth, queue[270:], chosen_by="search")
    assert measure_quality(week, services) == [row]

    # one audit is corrected: the latest verdict counts
    first = next(key for key in audits if said[key] == truth[key])
    review(services, tmp_path, {first: "pet_supplies"}, [first], by="bob")
    (corrected,) = measure_quality(week, services)
    assert corrected.audits_reviewed == row.audits_reviewed
    assert corrected.accuracy == pytest.approx(row.accuracy - 900 / 1_200 / len(audits))


def test_what_is_outside_window_superseded_or_made_up_does_not_count(services: Services, database: Roles) -> None:
    week = date(2026, 10, 11)
    photos = [Photo(key=f"incoming/2026-11-21/window/{number}.jpg") for number in range(6)]
    night(database.app, "window-1", photos[0], run_date=week - timedelta(days=7))
    night(database.app, "window-2", photos[1], photos[2], run_date=week - timedelta(days=6))
    night(database.app, "window-3", photos[3], run_date=week, model=OTHER_MODEL)
    night(database.app, "window-4", photos[2], photos[4], run_date=week)  # decides one of the second night anew
    night(database.app, "window-5", replace(photos[4], etag="new"), run_date=week)  # and a photo is replaced
    night(database.app, "window-6", photos[5], run_date=week + timedelta(days=1))
    found = {row.model: row.decisions for row in measure_quality(week, services)}
    assert found == {MODEL: 3, OTHER_MODEL: 1}
    with services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET synthetic = true WHERE run_id = 'window-3'")
    assert [row.model for row in measure_quality(week, services)] == [MODEL]
    assert measure_quality(date(2025, 1, 5), services) == []


def test_too_few_audits_are_the_normal_state_and_read_so(
    services: Services, database: Roles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    week = date(2026, 9, 6)
    truths: dict[str, str] = {}
    for day in range(7):
        photos, truth = photos_of(f"few/{day}", count=40, auto_accuracy=1.0, seed=day)
        night(database.app, f"few-{day}", *photos, run_date=week - timedelta(days=day), audit_share=0.1)
        truths |= truth
    review(services, tmp_path, truths, keys_of(database, "few", "d.audit OR d.kind = 'review'"))
    calm = replace(services, settings=replace(services.settings, audit_share=0.1))
    with caplog.at_level(logging.INFO, logger="refund.lifecycle.quality"):
        statuses = record_quality(week, calm, run_id="quality-few", at=NOW)
    assert statuses == {MODEL: "insufficient_data"}
    (row,) = measure_quality(week, calm)
    assert row.audits == row.audits_reviewed > 10
    assert caplog.records[-1].levelno == logging.INFO
    text = caplog.records[-1].getMessage()
    assert text == tell_quality(row)
    assert (
        f"Audits: {row.audits} of the 50 wanted are reviewed; {row.audits} were marked in 7 days. This is the" in text
    )
    assert "the normal state at so few photos, not a fault." in text
    assert "set quality_window_days to" in text
    assert rows(database.app, "SELECT count(*) FROM refund.alert WHERE run_id = 'quality-few'") == [(0,)]


def test_a_queue_that_is_only_begun_gives_figures_and_no_alert(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    week = date(2026, 11, 29)
    photos, truth = photos_of("begun", count=240, auto_accuracy=1.0, seed=2)
    night(database.app, "begun", *photos, run_date=week, audit_share=0.5)
    review(services, tmp_path, truth, keys_of(database, "begun", "d.audit"))
    review(services, tmp_path, truth, keys_of(database, "begun", "d.kind = 'review'")[:3])
    assert record_quality(week, services, run_id="quality-begun", at=NOW) == {MODEL: "insufficient_data"}
    (row,) = measure_quality(week, services)
    assert row.audits_reviewed >= row.required_audits
    assert row.accuracy_low < row.required_accuracy  # what would be an alert
    assert " 3 of 60 in the queue are reviewed, 50 are wanted: refund review queue. Audits: " in tell_quality(row)
    assert rows(database.app, "SELECT count(*) FROM refund.alert WHERE run_id = 'quality-begun'") == [(0,)]


def test_without_any_review_it_says_what_is_missing(services: Services, database: Roles) -> None:
    week = date(2026, 8, 2)
    photos, _ = photos_of("silent", count=8, auto_accuracy=1.0, seed=1)
    night(database.app, "silent", *photos, run_date=week)
    (row,) = measure_quality(week, services)
    assert (row.status, row.accuracy, row.macro_f1_high) == ("insufficient_data", None, None)
    assert tell_quality(row) == (
        f"{MODEL}, 7 days to 2026-08-02: insufficient_data. Nothing can be said yet: no review of the automatic "
        "decisions (6, refund review queue --audit) and none of the decisions sent to people (2, refund review queue). "
        "Audits: 0 of the 6 wanted are reviewed; 0 were marked in 1 day. This is the normal state at so few decisions, "
        "not a fault; for more audits raise audit_share (now 0.3)."
    )


def test_a_week_is_stored_once_and_a_low_one_raises_one_alert(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    week = date(2026, 7, 5)
    photos, truth = photos_of("low", count=200, auto_accuracy=0.7, seed=9)
    night(database.app, "low", *photos, run_date=week, audit_share=1.0)
    review(services, tmp_path, truth, keys_of(database, "low", "true"))
    for _ in range(2):  # a task tried again
        assert record_quality(week, services, run_id="quality-1", at=NOW) == {MODEL: "low"}
    alert = "SELECT rule, severity, run_id, run_date, message, seen_count FROM refund.alert WHERE rule = 'accuracy'"
    ((rule, severity, run_id, run_date, message, seen_count),) = rows(database.app, alert)
    assert (rule, severity, run_id, run_date, seen_count) == ("accuracy", "warning", "quality-1", week, 1)
    assert message.startswith(f"{MODEL}, 7 days to 2026-07-05: low. Accuracy ")
    assert "required 80.0%" in message
    assert message.endswith("Look at the categories in reporting.model_quality; go back with: refund model rollback")
    ((sql,),) = rows(database.app, "SELECT details ->> 'sql' FROM refund.alert WHERE rule = 'accuracy'")
    assert len(rows(database.analyst, sql)) == 1
    stored = rows(
        database.analyst,
        "SELECT status, accuracy, accuracy_low, decisions, audits, audits_reviewed, details FROM "
        "reporting.model_quality WHERE week_ending = %s",
        week,
    )
    accuracy = np.mean([photo.category == truth[photo.key] for photo in photos])
    assert stored[0][:6] == ("low", pytest.approx(accuracy), pytest.approx(accuracy), 200, 150, 150)
    assert len(stored) == 1
    assert {row["category"] for row in stored[0][6]["categories"]} == set(CATEGORIES)
    assert stored[0][6]["strata"]["auto"]["decisions"] == 150


# --- the DAG -------------------------------------------------------------------------------------------------------

RUN = """
import json, sys
sys.path.insert(0, {dags!r})
import airflow.sdk
import refund_quality
heavy = [name for name in {heavy!r} if name in sys.modules]
dag = refund_quality.refund_quality()
from types import SimpleNamespace
from datetime import UTC, datetime
from airflow.sdk.execution_time import context as execution
task = dag.task_dict["measure_quality"]
run = SimpleNamespace(run_id="scheduled__1", run_after=datetime(2026, 6, 8, 6, 0, tzinfo=UTC), logical_date=None)
answers = []
for params in ({{"week_ending": None}}, {{"week_ending": "2026-06-01"}}):
    with execution.set_current_context({{"dag_run": run, "params": params}}):
        answers.append(task.python_callable())
print(json.dumps({{"heavy": heavy, "answers": answers, "catchup": dag.catchup, "retries": task.retries,
                  "schedule": dag.timetable.expression, "params": dag.params.dump()}}))
"""


@pytest.mark.slow
def test_the_dag_parses_light_and_its_task_measures_the_week_before(
    database: Roles, services: Services, tmp_path: Path
) -> None:
    from tests.test_plugin import HEAVY

    night(database.app, "dag-1", Photo(key="incoming/2026-11-21/dag/1.jpg"), run_date=date(2026, 6, 7))
    access = database.app
    environ: dict[str, Any] = {
        "conn_type": "postgres", "host": access.host, "port": access.port, "schema": access.database,
        "login": access.user, "password": access.password,
    }  # fmt: skip
    s3 = {"conn_type": "aws", "extra": {"service_config": {"s3": {"bucket_name": "b"}}}}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REFUND", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(dags=str(REPOSITORY / "dags"), heavy=[*HEAVY, "sklearn"])],
        env=clean
        | {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_REFUND_DB": json.dumps(environ),
            "AIRFLOW_CONN_REFUND_S3": json.dumps(s3),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["heavy"] == []
    assert answer["answers"] == [{MODEL: "insufficient_data"}, {}]
    assert (answer["catchup"], answer["retries"], answer["schedule"]) == (False, 3, "0 6 * * 1")
    assert answer["params"] == {"week_ending": None}
    weeks = "SELECT week_ending FROM refund.quality WHERE week_ending BETWEEN '2026-06-01' AND '2026-06-30'"
    assert rows(database.app, weeks) == [(date(2026, 6, 7),)]
