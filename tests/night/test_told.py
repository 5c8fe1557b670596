"""What the health check, the alerts and the tasks tell when something is wrong with a night."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from refund.errors import (
    BucketMissingError,
    HealthCheckError,
    ModelArtefactError,
    ReconciliationError,
    RetriableRunError,
)
from refund.night.alert_message import AlertMessage
from refund.night.alert_on_drift import NightFailedError, alert_overdue, alert_reconciliation, raise_alerts
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.generate_report import write_report
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun, open_services
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.settings import S3Access
from refund.store.database import Database
from refund.store.examples import example_keys, example_rejections
from refund.store.repository import Repository
from tests.night.conftest import DAY, World, fill
from tests.store.factories import rows


def test_the_health_check_lists_everything_at_once(world: World) -> None:
    bad_s3 = S3Access(bucket="no-such-bucket", endpoint_url=world.s3.endpoint_url, access_key="a", secret_key="b")
    run = NightRun(run_id="r1", run_date=DAY, params=NightParams(model="tiny@99"))
    with (
        open_services(settings=world.services.settings, s3=bad_s3, database=world.roles.app) as services,
        pytest.raises(HealthCheckError) as caught,
    ):
        check_health(run, services, plugin_errors={"desk.py": "No module named 'x'"})
    text = str(caught.value)
    assert text.startswith("the night cannot start, 3 faults found:")
    assert "bucket 'no-such-bucket' does not exist at" in text
    assert "no model is registered as 'tiny@99'" in text
    assert "Airflow could not import the plugin desk.py: No module named 'x'" in text
    assert world.rows("SELECT count(*) FROM refund.run") == [(0,)]


def test_an_unmigrated_database_is_a_fault_with_its_fix(world: World, empty_database: object) -> None:
    run = NightRun(run_id="r1", run_date=DAY, params=NightParams())
    roles = empty_database
    with (
        open_services(settings=world.services.settings, s3=world.s3, database=roles.app) as services,  # type: ignore[attr-defined]
        pytest.raises(HealthCheckError, match="run: refund migrate"),
    ):
        check_health(run, services, plugin_errors={})


def test_an_s3_server_that_is_down_is_a_fault_of_the_moment(world: World) -> None:
    down = S3Access(bucket="b", endpoint_url="http://127.0.0.1:9", access_key="a", secret_key="b")
    run = NightRun(run_id="r1", run_date=DAY, params=NightParams())
    with (
        open_services(settings=world.services.settings, s3=down, database=world.roles.app) as services,
        pytest.raises(
            RetriableRunError, match=r"^S3 at http://127\.0\.0\.1:9 did not list bucket 'b': .*The task retries"
        ),
    ):
        check_health(run, services, plugin_errors={})


def test_a_clock_that_is_wrong_is_a_fault(world: World) -> None:
    late = replace(world.services, now=lambda: datetime.now(UTC) - timedelta(hours=1))
    run = NightRun(run_id="r1", run_date=DAY, params=NightParams())
    with pytest.raises(HealthCheckError, match=r"clock and Postgres's differ by 3\d{3} s"):
        check_health(run, late, plugin_errors={})


def test_an_altered_model_file_is_refused(world: World) -> None:
    fill(world, 1)
    artefact = next(item.key for item in world.services.objects.list("models/") if item.key.endswith(".tflite"))
    body = bytearray(world.services.objects.get(artefact))
    body[-1] ^= 1
    world.services.objects.put(artefact, bytes(body), content_type="application/octet-stream")
    run = NightRun(run_id="r1", run_date=DAY, params=NightParams())
    with pytest.raises(HealthCheckError, match="SHA-256"):
        check_health(run, world.services, plugin_errors={})


def test_a_model_altered_after_the_health_check_is_refused_too(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    validate_shard(shard, run=run, services=world.services)
    (cached,) = (path for path in world.services.settings.cache_folder.rglob("*.tflite"))
    cached.write_bytes(cached.read_bytes()[:-1] + b"\0")
    artefact = next(item.key for item in world.services.objects.list("models/") if item.key.endswith(".tflite"))
    world.services.objects.put(artefact, b"altered", content_type="application/octet-stream")
    with pytest.raises(ModelArtefactError):
        classify_shard(shard, run=run, services=world.services)


def test_a_missing_bucket_has_a_text(world: World) -> None:
    with (
        open_services(
            settings=world.services.settings,
            s3=S3Access(bucket="gone", endpoint_url=world.s3.endpoint_url, access_key="a", secret_key="b"),
            database=world.roles.app,
        ) as services,
        pytest.raises(BucketMissingError, match="create it, or correct"),
    ):
        services.objects.check_bucket()


def test_a_failed_night_raises_an_alert_and_ends_red(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    with pytest.raises(NightFailedError, match=r"the night failed in fetch, persist"):
        raise_alerts(run, world.services, task_states={"fetch": "failed", "persist": "upstream_failed", "x": "success"})
    assert world.rows("SELECT rule, severity FROM refund.alert ORDER BY rule") == [("failed_night", "critical")]
    assert world.rows("SELECT state FROM reporting.runs") == [("failed",)]
    world.start("r1")
    assert world.rows("SELECT state FROM reporting.runs") == [("running",)]


def test_a_run_that_fails_again_is_told_again_and_closed_once_it_ends_well(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    channel = Sent()
    (began,) = world.rows("SELECT started_at FROM refund.run")[0]

    def fails(begun_at: datetime) -> None:
        then = replace(world.services, now=lambda: begun_at + timedelta(minutes=1))
        again = replace(run, begun_at=begun_at)
        for _ in range(2):  # its last task is tried again: no other sighting
            with pytest.raises(NightFailedError):
                raise_alerts(again, then, task_states={"fetch": "failed"}, channels={"smtp": channel})

    fails(began)
    assert len(channel.subjects) == 1
    fails(began + timedelta(days=5))  # long after, cleared by whoever mended it
    assert len(channel.subjects) == 2
    assert world.rows("SELECT rule, seen_count FROM refund.alert") == [("failed_night", 2)]

    cleared = replace(run, begun_at=began + timedelta(days=5, hours=1))
    world.stage(cleared)
    persist_run(cleared, world.services)  # and no report
    raise_alerts(cleared, world.services, task_states={}, channels={"smtp": channel})
    query = "SELECT rule, acknowledged_by FROM refund.alert ORDER BY rule"
    assert world.rows(query) == [("failed_night", "refund_nightly"), ("missing_report", None)]
    write_report(cleared, world.services)
    raise_alerts(
        replace(cleared, begun_at=began + timedelta(days=5, hours=2)), world.services, task_states={"fetch": "success"}
    )
    assert world.rows(query) == [("failed_night", "refund_nightly"), ("missing_report", "refund_nightly")]
    with pytest.raises(NightFailedError):
        raise_alerts(cleared, world.services, task_states={"generate_report": "failed"})
    assert world.rows(query) == [("failed_night", None), ("missing_report", "refund_nightly")]


class Sent:
    """A channel that keeps the subjects of what it is sent."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def send(self, message: AlertMessage) -> None:
        self.subjects.append(message.subject)


def test_counts_that_do_not_agree_raise_one_alert_whoever_finds_it(world: World) -> None:
    fill(world, 2)
    run = world.start("r1")
    alert_reconciliation(run, world.services, ReconciliationError("nothing was published: the tasks report 3 of 2"))
    with pytest.raises(NightFailedError):
        raise_alerts(run, world.services, task_states={"persist": "failed"})
    query = "SELECT rule, seen_count, message FROM refund.alert ORDER BY rule DESC"
    (rule, seen, message), (other, _, _) = world.rows(query)
    assert (rule, seen, other) == ("reconciliation", 1, "failed_night")
    assert message.startswith(
        f"Reconciliation failed for the night of {DAY}: nothing was published: the tasks report 3 of 2. Nothing of it "
        "is published. Expected: every photo"
    )


def test_dates_that_no_night_looked_at_are_told(world: World) -> None:
    fill(world, 1, day=DAY - timedelta(days=9))
    fill(world, 1, day=DAY - timedelta(days=3))
    world.night("r1", day=DAY - timedelta(days=2))
    world.night("r2")
    told = f"photos of {DAY - timedelta(days=9)} lie in the bucket and no night has looked at them; run: refund night"
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs WHERE run_id = 'r2'")
    assert len(notes) == 1
    assert notes[0].startswith(told)
    query = "SELECT rule, seen_count FROM refund.alert WHERE rule <> 'no_photos'"
    assert world.rows(query) == [("overlooked_photos", 2)]
    ((sql,),) = world.rows("SELECT details ->> 'sql' FROM refund.alert WHERE rule = 'overlooked_photos'")
    assert Repository(Database(world.roles.analyst)).select(sql)[1][0][1:3] == ("r1", "published")


def test_alerts_of_drift_show_photos_that_speak_for_it(world: World) -> None:
    keys = fill(world, 6)
    world.put("R-9/bad.jpg", b"no photo")
    world.night("r1")
    ((category, photos), *_) = world.rows("SELECT category, count(*) FROM refund.decision GROUP BY 1 ORDER BY 2 DESC")
    up = {"category": category, "tonight_share": 0.9, "reference_share": 0.1}
    down = {"category": "gone", "tonight_share": 0.1, "reference_share": 0.9}
    for measure, details in {
        "category_shares": {"moves": [down, up]},
        "largest_move": {"moves": [down], "tonight_value": 0.1, "reference_value": 0.9},
        "volume": {"tonight_value": 7, "reference_value": 900},
        "rejection_rate": {"tonight_value": 0.1, "reference_value": 0.9},
    }.items():
        drifted(world, measure, details)
    raise_alerts(world.start("r1"), world.services, task_states={})
    told = dict(world.rows("SELECT rule, details FROM refund.alert"))
    assert len(told["drift:category_shares"]["examples"]) == photos
    assert told["drift:largest_move"]["examples"] == told["drift:category_shares"]["examples"]
    assert told["drift:largest_move"]["examples_are"] == (
        f"photos of {category}, which grew most while gone shrank, surest first"
    )
    assert len(told["drift:volume"]["examples"]) == len(keys) + 1
    assert told["drift:volume"]["examples_are"] == "photos of the night, any"
    assert told["drift:rejection_rate"]["examples"] == []
    assert told["drift:rejection_rate"]["no_examples"].startswith("None: fewer photos were rejected")


def test_a_photo_that_was_overwritten_is_no_example(world: World) -> None:
    for run_id in ("r1", "r2"):
        key = world.put("R-9/bad.jpg", f"no photo, {run_id}".encode())
        world.night(run_id)
    standing = "SELECT count(*) FROM refund.run_photo WHERE outcome = 'rejected' AND superseded_by IS NULL"
    assert world.rows(standing) == [(2,)], "the first version keeps its outcome, as history"
    database = world.services.database
    assert [key for key, _ in example_rejections(database, run_date=DAY, count=10)] == [key]
    assert example_keys(database, run_date=DAY, count=10) == [key]


def drifted(world: World, measure: str, details: dict[str, Any]) -> None:
    """Have the first night's drift row say that it drifted so."""
    rows(
        world.roles.owner,
        f"UPDATE refund.drift SET status = 'drift', details = '{json.dumps(details)}' "
        f"WHERE run_id = 'r1' AND measure = '{measure}' RETURNING 1",
    )


def test_a_run_that_is_late_again_after_it_was_cleared_is_seen_again(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    (began,) = world.rows("SELECT started_at FROM refund.run")[0]
    for begun_at in (None, began, began + timedelta(days=5)):
        alert_overdue(run_id=run.run_id, run_date=DAY, begun_at=begun_at, services=world.services)
    assert world.rows("SELECT rule, seen_count, last_seen_at FROM refund.alert") == [
        ("overdue", 2, began + timedelta(days=5))
    ]
