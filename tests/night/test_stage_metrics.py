"""What a night keeps of its stages: every photo once, whatever was tried again, and of failed nights what is there."""

from __future__ import annotations

import json
import logging

import pytest

from refund.monitor.latency import Latencies
from refund.night.alert_on_drift import NightFailedError, raise_alerts
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.persist import persist_run
from refund.night.services import RunLayout, ShardLayout
from refund.night.stage_metrics import ShardStages, save_unfinished, shard_metrics
from refund.night.staged import STAGE_FILE
from refund.night.validate import validate_shard
from tests.night.conftest import World, fill

WHOLE = ShardStages(
    photos=10,
    validated={"seconds": 2.0, "rejected": 1, "latencies": Latencies.of([5.0] * 10).to_json()},
    classified={"seconds": 1.0, "classified": 9, "latencies": Latencies.of([3.0] * 9).to_json()},
)
NOT_CLASSIFIED = ShardStages(photos=8, validated={"seconds": 1.5, "rejected": 2}, classified=None)
NOT_VALIDATED = ShardStages(photos=6, validated=None, classified=None)


def test_photos_of_shards_that_never_succeeded_count_as_failed_where_they_failed() -> None:
    metrics = shard_metrics([WHOLE, NOT_CLASSIFIED, NOT_VALIDATED])
    validate, classify = metrics["validate"], metrics["classify"]
    assert (validate.seconds, validate.photos, validate.failed) == (3.5, 24, 1 + 2 + 6)
    assert (classify.seconds, classify.photos, classify.failed) == (1.0, 9 + 6, 6)


def test_a_shard_whose_latencies_cannot_be_read_costs_only_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = shard_metrics([WHOLE, NOT_CLASSIFIED])["validate"]
    assert metrics.latencies is not None
    assert (metrics.photos, metrics.latencies.photos) == (18, 10)
    assert "The latencies of a shard are left out: latencies read {counts, max_ms}, got None" in caplog.text


def test_a_night_keeps_each_stage_and_a_task_that_ran_twice_counts_once(world: World) -> None:
    fill(world)
    world.put("R-9/notes.jpg", b"this is not an image")
    run = world.start("r1", shard_size=4)
    for uri in fetch_manifest(run, world.services):
        for _ in range(2):
            validate_shard(uri, run=run, services=world.services)
            classify_shard(uri, run=run, services=world.services)
        validated = json.loads(world.services.staging.read_file(f"{ShardLayout(uri).pack}/{STAGE_FILE}"))
        assert Latencies.from_json(validated["latencies"]).photos == validated["photos"]
    world.finish(run)
    assert world.rows(
        "SELECT stage, photos, failed, round(error_rate::numeric, 3)::float8, photos_per_second > 0, "
        "p50_ms > 0 AND p50_ms <= p95_ms AND p95_ms <= p99_ms AND p99_ms <= max_ms, seconds > 0, synthetic "
        "FROM reporting.stage_metrics ORDER BY stage"
    ) == [
        ("classify", 6, 0, 0, True, True, True, False),
        ("fetch", 7, 0, 0, True, None, True, False),
        ("generate_report", 7, 0, 0, True, None, True, False),
        ("health_check", None, None, None, None, None, True, False),
        ("persist", 7, 0, 0, True, None, True, False),
        ("validate", 7, 1, 0.143, True, True, True, False),
    ]
    assert world.rows(
        "SELECT photos_per_second > 0, round(error_rate::numeric, 3)::float8, stage_metrics -> 'validate' ->> 'failed' "
        "FROM reporting.runs"
    ) == [(True, 0.143, "1")]


def test_a_night_without_photos_has_figures_but_no_rates(world: World) -> None:
    world.night("r1")
    assert world.rows(
        "SELECT photos, failed, photos_per_second, error_rate, p50_ms, max_ms "
        "FROM reporting.stage_metrics WHERE stage = 'validate'"
    ) == [(0, 0, None, None, None, None)]
    assert world.rows("SELECT photos_per_second, error_rate FROM reporting.runs") == [(None, None)]


def test_a_night_that_failed_halfway_keeps_what_its_shards_left(world: World) -> None:
    fill(world)
    run = world.start("r1", shard_size=3)
    first, _ = fetch_manifest(run, world.services)
    validate_shard(first, run=run, services=world.services)
    with pytest.raises(NightFailedError):
        raise_alerts(run, world.services, task_states={"shards.validate_1": "failed"})
    assert world.rows(
        "SELECT stage, photos, failed FROM reporting.stage_metrics WHERE stage IN ('validate', 'classify') ORDER BY 1"
    ) == [("classify", 3, 3), ("validate", 6, 3)]
    assert world.rows("SELECT error_rate FROM reporting.runs") == [(1.0,)]


def test_figures_that_cannot_be_do_not_fail_a_published_night(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("R-9/notes.jpg", b"this is not an image")
    run = world.start("r1")
    world.stage(run)
    pack = ShardLayout(RunLayout(staging=world.services.staging, run_id="r1").shard(0)).pack
    stage = json.loads(world.services.staging.read_file(f"{pack}/{STAGE_FILE}"))
    world.services.staging.write_file(f"{pack}/{STAGE_FILE}", json.dumps(stage | {"photos": 0}).encode())
    with caplog.at_level(logging.WARNING):
        assert persist_run(run, world.services)["rejected"] == 1
    assert "The figures of the shards are left out: of its photos a stage fails from none to all" in caplog.text
    assert world.rows("SELECT state, stage_metrics ? 'validate', stage_metrics ? 'persist' FROM refund.run") == [
        ("published", False, True)
    ]


def test_figures_that_cannot_be_had_do_not_hide_the_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    fill(world)
    run = world.start("r1")
    save_unfinished("r1", world.services)  # nothing is staged yet
    (shard,) = fetch_manifest(run, world.services)
    validate_shard(shard, run=run, services=world.services)
    world.services.staging.write_file(f"{ShardLayout(shard).pack}/{STAGE_FILE}", b"no JSON")
    with caplog.at_level(logging.WARNING):
        save_unfinished("r1", world.services)
    assert "No figures of the stages of r1: " in caplog.text
    assert world.rows("SELECT count(*) FROM reporting.stage_metrics WHERE stage = 'validate'") == [(0,)]


def test_killed_after_the_commit_the_figures_are_kept_by_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world)
    run = world.start("r1", shard_size=3)
    world.stage(run)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(world.services.repository), "set_stage_metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            persist_run(run, world.services)
    assert world.rows("SELECT state, stage_metrics ? 'validate' FROM refund.run") == [("published", False)]
    persist_run(run, world.services)
    assert world.rows(
        "SELECT stage, photos, failed FROM reporting.stage_metrics WHERE stage IN ('validate', 'classify') ORDER BY 1"
    ) == [("classify", 6, 0), ("validate", 6, 0)]
    persist_run(run, world.services)  # its staged files are gone by now
    assert world.rows("SELECT count(*) FROM reporting.stage_metrics WHERE stage = 'validate'") == [(1,)]
