"""A night from listing to report on real stores, without Airflow: what is published, what a second run changes."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.validate import validate_shard
from tests.night.conftest import DAY, World, fill
from tests.night.factories import jpeg, write_model


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
    assert {result["status"] for result in report.body["drift"]} == {"no_reference"}
    page = Path(world.services.report_copy(report.html_uri)).read_text(encoding="utf-8")
    assert "<html" in page
    key = report.html_uri.removeprefix(f"s3://{world.s3.bucket}/")
    assert world.services.objects.get(key).decode() == page
    assert world.rows("SELECT DISTINCT status FROM reporting.drift") == [("no_reference",)]


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
