"""A night from listing to report on real stores, without Airflow: what is published, what a second run changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from refund.errors import (
    BucketMissingError,
    FatalRunError,
    HealthCheckError,
    ModelArtefactError,
    ReconciliationError,
    RetriableRunError,
    StagingCorruptError,
    StagingMissingError,
)
from refund.night.alert_on_drift import NightFailedError, night_alerts, raise_alerts
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun, RunLayout, open_services
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.settings import S3Access
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg, write_model


def fill(world: World, count: int = 6, *, day: date = DAY) -> list[str]:
    return [world.put(f"R-{seed // 2}/{seed}.jpg", jpeg(seed), day=day) for seed in range(count)]


def test_every_photo_gets_one_outcome_and_the_analyst_sees_it(world: World) -> None:
    fill(world)
    world.put("R-9/notes.jpg", b"this is not an image")
    world.put("R-9/small.jpg", jpeg(1, width=20, height=20))
    world.put("R-9/empty.jpg", b"")
    counts = world.night("r1", shard_size=4)
    assert counts == {"photos": 9, "classified": 6, "rejected": 3, "unchanged": 0}
    assert world.rows("SELECT reason, key FROM reporting.rejections ORDER BY reason") == [
        ("empty_file", "incoming/2026-11-21/R-9/empty.jpg"),
        ("not_an_image", "incoming/2026-11-21/R-9/notes.jpg"),
        ("too_small", "incoming/2026-11-21/R-9/small.jpg"),
    ]
    assert world.rows("SELECT adds_up, manifest FROM reporting.reconciliation") == [(True, 9)]
    assert world.rows(
        "SELECT count(*) FROM reporting.photos WHERE outcome = 'classified' AND final_category <> ''"
    ) == [(6,)]
    quarantined = [item.key for item in world.services.objects.list("quarantine/")]
    assert "quarantine/2026-11-21/not_an_image/incoming/2026-11-21/R-9/notes~82ec5ace.jpg" in quarantined
    assert len(quarantined) == 3
    assert list(Path(url2pathname(urlsplit(world.services.staging.root).path)).iterdir()) == []  # nothing stays behind


def test_the_report_lies_in_postgres_in_s3_and_on_disk(world: World) -> None:
    fill(world)
    world.night("manual__2026-11-22T02:00:00+00:00")
    report = world.services.repository.get_report(run_date=DAY)
    assert report is not None
    assert report.body["counts"] == {"photos": 6, "classified": 6, "rejected": 0, "unchanged": 0}
    assert report.body["drift"]["status"] == "no_reference"
    page = Path(world.services.report_copy(report.html_uri)).read_text(encoding="utf-8")
    assert "<html" in page
    key = report.html_uri.removeprefix(f"s3://{world.s3.bucket}/")
    assert world.services.objects.get(key).decode() == page
    assert world.rows("SELECT status FROM reporting.drift") == [("no_reference",)]


def test_a_night_without_photos_succeeds_and_says_so(world: World) -> None:
    assert world.night("r1") == {"photos": 0, "classified": 0, "rejected": 0, "unchanged": 0}
    report = world.services.repository.get_report(run_date=DAY)
    assert report is not None
    assert world.rows("SELECT run_date, photos FROM reporting.last_complete_night") == [(DAY, 0)]


def test_a_second_run_of_the_date_changes_no_row(world: World) -> None:
    fill(world)
    world.put("R-9/notes.jpg", b"this is not an image")
    world.night("r1")
    before = world.snapshot()
    counts = world.night("r2")
    assert counts == {"photos": 7, "classified": 0, "rejected": 0, "unchanged": 7}
    assert world.snapshot() == before


def test_the_same_run_cleared_after_publishing_changes_no_row(world: World) -> None:
    fill(world)
    first = world.night("r1")
    before = world.snapshot(), world.rows("SELECT * FROM refund.run_photo ORDER BY photo_id")
    assert world.night("r1") == first
    assert (world.snapshot(), world.rows("SELECT * FROM refund.run_photo ORDER BY photo_id")) == before


def test_another_threshold_supersedes_decisions_and_keeps_predictions(world: World) -> None:
    fill(world)
    world.night("r1", review_threshold=0.0)
    predictions = world.rows("SELECT * FROM refund.prediction ORDER BY photo_id")
    counts = world.night("r2", review_threshold=1.0)
    assert counts["classified"] == 6
    assert world.rows("SELECT * FROM refund.prediction ORDER BY photo_id") == predictions
    assert world.rows("SELECT run_id, superseded_by, count(*) FROM refund.decision GROUP BY 1, 2 ORDER BY 1") == [
        ("r1", "r2", 6),
        ("r2", None, 6),
    ]
    assert world.rows("SELECT count(*), min(run_id) FROM reporting.photos") == [(6, "r2")]


def test_another_model_supersedes_decisions(world: World, tmp_path: Path) -> None:
    fill(world)
    world.night("r1")
    write_model(tmp_path / "other", version="2", seed=1)
    other = world.services.registry.register(tmp_path / "other", created_by="test").model
    assert world.night("r2", model=other)["classified"] == 6
    assert world.rows("SELECT DISTINCT model FROM reporting.photos") == [("tiny@2",)]
    assert world.rows("SELECT count(*) FROM refund.prediction") == [(12,)]


def test_a_cleared_run_keeps_the_model_it_began_with(world: World, tmp_path: Path) -> None:
    fill(world)
    run = world.start("r1")
    write_model(tmp_path / "other", version="2", seed=1)
    other = world.services.registry.register(tmp_path / "other", created_by="test").model
    world.services.registry.promote("champion", other, by="test", reason="better")
    world.start("r1")
    world.stage(run)
    world.finish(run)
    assert world.rows("SELECT DISTINCT model FROM reporting.photos") == [("tiny@1",)]


def test_force_classifies_again(world: World) -> None:
    fill(world)
    world.night("r1")
    assert world.night("r2", force=True)["classified"] == 6


def test_a_dry_run_publishes_nothing(world: World) -> None:
    fill(world)
    world.put("R-9/notes.jpg", b"this is not an image")
    counts = world.night("r1", dry_run=True)
    assert counts == {"photos": 7, "classified": 6, "rejected": 1, "unchanged": 0}
    assert world.rows("SELECT count(*) FROM refund.photo") == [(0,)]
    assert world.rows("SELECT state, photos FROM reporting.runs") == [("dry_run", 7)]
    assert list(world.services.objects.list("quarantine/")) == []
    assert list(world.services.objects.list("reports/")) == []


def test_late_photos_come_in_with_the_next_night_and_are_counted_there(world: World) -> None:
    fill(world, 2)
    world.night("r1")
    world.put("R-7/late.jpg", jpeg(70))
    fill(world, 3, day=DAY + timedelta(days=1))
    counts = world.night("r2", day=DAY + timedelta(days=1))
    assert counts == {"photos": 6, "classified": 4, "rejected": 0, "unchanged": 2}
    assert world.rows("SELECT photo_date, run_date FROM reporting.photos WHERE refund_id = 'R-7'") == [
        (DAY, DAY + timedelta(days=1))
    ]


def test_photos_in_no_date_folder_are_not_overlooked(world: World) -> None:
    world.services.objects.put("incoming/lost.jpg", jpeg(1), content_type="image/jpeg")
    world.services.objects.put("incoming/misc/lost too.jpg", jpeg(2), content_type="image/jpeg")
    assert world.night("r1")["classified"] == 2
    assert world.rows("SELECT DISTINCT photo_date FROM reporting.photos") == [(date(1970, 1, 1),)]
    assert world.night("r2")["unchanged"] == 2


def test_a_photo_overwritten_under_its_key_is_a_new_version(world: World) -> None:
    world.put("R-1/a.jpg", jpeg(1))
    world.night("r1")
    world.put("R-1/a.jpg", jpeg(2))
    assert world.night("r2")["classified"] == 1
    assert world.rows("SELECT count(*) FROM refund.photo") == [(2,)]
    assert world.rows("SELECT count(*), min(run_id) FROM reporting.photos") == [(1, "r2")]


def test_a_photo_deleted_after_listing_is_rejected_as_vanished(world: World) -> None:
    key = fill(world, 3)[0]
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    world.services.objects.delete(key)
    validate_shard(shard, run=run, services=world.services)
    classify_shard(shard, run=run, services=world.services)
    assert world.finish(run) == {"photos": 3, "classified": 2, "rejected": 1, "unchanged": 0}
    assert world.rows("SELECT reason, quarantine_key FROM reporting.rejections") == [("vanished", None)]


def test_declared_categories_are_compared(world: World) -> None:
    fill(world, 4)
    world.services.objects.put(
        f"incoming/{DAY}/_refunds.csv",
        b"refund_id,declared_category\nR-0,religious_ceremonial\nR-1,no_such_bin\n",
        content_type="text/csv",
    )
    world.night("r1", review_threshold=0.0)
    mismatched = world.rows(
        "SELECT refund_id FROM reporting.review_queue WHERE 'declared_mismatch' = ANY (review_reasons)"
    )
    assert mismatched == [("R-0",), ("R-0",)]
    assert world.rows("SELECT matches_declared FROM reporting.refunds WHERE refund_id = 'R-0'") == [(False,)]
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs")
    assert "declares departments that the taxonomy does not have, ignored: 'no_such_bin'" in notes[0]


def test_broken_declarations_are_noted_and_cost_nothing_else(world: World) -> None:
    fill(world, 2)
    world.services.objects.put(f"incoming/{DAY}/_refunds.csv", b"what,ever\n1,2\n", content_type="text/csv")
    assert world.night("r1")["classified"] == 2
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs")
    assert "_refunds.csv was ignored: it has the columns ['what', 'ever']" in notes[0]


# --- what an operator sees when something is wrong -----------------------------------------------------------------


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
    from dataclasses import replace

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


# --- killed in the middle -------------------------------------------------------------------------------------------


def test_each_stage_may_be_repeated_before_publishing(world: World) -> None:
    fill(world)
    run = world.start("r1", shard_size=3)
    world.stage(run)
    world.stage(run)  # cleared from fetch on
    for shard in fetch_manifest(run, world.services):
        validate_shard(shard, run=run, services=world.services)
        validate_shard(shard, run=run, services=world.services)
        classify_shard(shard, run=run, services=world.services)
        classify_shard(shard, run=run, services=world.services)
    assert world.finish(run)["classified"] == 6


def test_classify_without_its_pack_says_which_task_to_clear(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    with pytest.raises(StagingMissingError, match="Clear the run from the task fetch on"):
        classify_shard(shard, run=run, services=world.services)


def test_persist_without_its_plan_publishes_nothing(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    with pytest.raises(StagingMissingError):
        persist_run(run, world.services)
    assert world.rows("SELECT state FROM reporting.runs") == [("running",)]


def test_a_prediction_that_is_missing_stops_the_night(world: World) -> None:
    fill(world)
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    validate_shard(shard, run=run, services=world.services)
    classify_shard(shard, run=run, services=world.services)
    import pyarrow.parquet as pq

    from refund.night.services import ShardLayout
    from refund.night.staged import PREDICTIONS_FILE, STAGE_FILE

    layout = ShardLayout(shard)
    with world.services.staging.readable_folder(layout.predictions) as folder:
        table = pq.read_table(folder / PREDICTIONS_FILE)
        stage = (folder / STAGE_FILE).read_bytes()
    with world.services.staging.writable_folder(layout.predictions) as folder:
        pq.write_table(table.slice(1), folder / PREDICTIONS_FILE)
        (folder / STAGE_FILE).write_bytes(stage)
    with pytest.raises(ReconciliationError, match="1 accepted but without a prediction"):
        persist_run(run, world.services)
    assert world.rows("SELECT count(*) FROM refund.photo") == [(0,)]


def test_a_failed_night_raises_an_alert_and_ends_red(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    with pytest.raises(NightFailedError, match=r"the night failed in fetch, persist"):
        raise_alerts(run, world.services, task_states={"fetch": "failed", "persist": "upstream_failed", "x": "success"})
    assert world.rows("SELECT rule, severity FROM refund.alert ORDER BY rule") == [
        ("failed_night", "critical"),
        ("missing_report", "warning"),
    ]
    assert world.rows("SELECT state FROM reporting.runs") == [("failed",)]
    world.start("r1")
    assert world.rows("SELECT state FROM reporting.runs") == [("running",)]


def test_a_good_night_raises_no_alert() -> None:
    assert (
        night_alerts(failed_tasks=[], published=True, dry_run=False, has_report=True, drift={"category_shares": "ok"})
        == []
    )


def test_drift_raises_an_alert() -> None:
    (alert,) = night_alerts(
        failed_tasks=[], published=True, dry_run=False, has_report=True, drift={"category_shares": "drift"}
    )
    assert (alert.rule, alert.severity) == ("drift:category_shares", "warning")


def test_dates_that_no_night_looked_at_are_told(world: World) -> None:
    fill(world, 1, day=DAY - timedelta(days=9))
    fill(world, 1, day=DAY - timedelta(days=3))
    world.night("r1", day=DAY - timedelta(days=2))
    world.night("r2")
    told = f"photos of {DAY - timedelta(days=9)} lie in the bucket and no night has looked at them; run: refund night"
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs WHERE run_id = 'r2'")
    assert len(notes) == 1
    assert notes[0].startswith(told)
    assert world.rows("SELECT rule, seen_count FROM refund.alert") == [("overlooked_photos", 2)]


def test_nights_side_by_side_leave_each_photo_to_its_own_night(world: World) -> None:
    """As a backfill runs them: the later date finishes first."""
    fill(world, 2)
    fill(world, 3, day=DAY + timedelta(days=1))
    first = world.start("r1")
    assert world.night("r2", day=DAY + timedelta(days=1))["photos"] == 3
    world.stage(first)
    assert world.finish(first) == {"photos": 2, "classified": 2, "rejected": 0, "unchanged": 0}
    assert world.rows("SELECT run_date, sum(photos)::int FROM reporting.daily_categories GROUP BY 1 ORDER BY 1") == [
        (DAY, 2),
        (DAY + timedelta(days=1), 3),
    ]
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs WHERE run_id = 'r2'")
    assert notes == [f"late photos of {DAY} were left to the night of {DAY}, which was under way"]


def test_a_run_that_began_under_another_taxonomy_stops(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    validate_shard(shard, run=run, services=world.services)
    with world.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET taxonomy_version = 'older'")
    with pytest.raises(FatalRunError, match="this run began with taxonomy older, this worker has"):
        classify_shard(shard, run=run, services=world.services)


def test_a_run_keeps_the_threshold_it_began_with(world: World) -> None:
    fill(world, 2)
    world.stage(world.start("r1", review_threshold=1.0))
    again = NightRun(run_id="r1", run_date=DAY, params=NightParams(review_threshold=0.0))
    world.stage(again)
    persist_run(again, world.services)
    assert world.rows("SELECT DISTINCT kind, threshold FROM refund.decision") == [("review", 1.0)]


def test_a_plan_that_does_not_add_up_publishes_nothing(world: World) -> None:
    fill(world, 2)
    run = world.start("r1")
    world.stage(run)
    plan = RunLayout(staging=world.services.staging, run_id="r1").plan
    world.services.staging.write_file(plan, b'{"shards": 1, "photos": 3, "unchanged": 0}')
    with pytest.raises(ReconciliationError, match="3 photos but 2 classified"):
        persist_run(run, world.services)
    world.services.staging.write_file(plan, b'{"shards": 1, "pho')
    with pytest.raises(StagingCorruptError, match="cannot be read as JSON"):
        persist_run(run, world.services)
    assert world.rows("SELECT count(*) FROM refund.photo") == [(0,)]


def test_a_dry_run_killed_after_its_end_may_be_repeated(world: World) -> None:
    fill(world, 2)
    run = world.start("r1", dry_run=True)
    world.stage(run)
    first = persist_run(run, world.services)
    assert persist_run(run, world.services) == first
