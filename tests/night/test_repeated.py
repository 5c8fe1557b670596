"""Tasks killed, cleared and repeated in the middle of a night, and staged files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from refund.errors import (
    FatalRunError,
    ReconciliationError,
    StagingCorruptError,
    StagingMissingError,
)
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.persist import persist_run
from refund.night.services import NightRun, RunLayout
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.store.staging import Staging
from tests.night.conftest import DAY, World, fill


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


class _OvertakenStaging(Staging):
    """Staging in which another try of the same task publishes, and clears up, just before the first file is read."""

    def __init__(self, root: str, *, other_try: Callable[[], object]) -> None:
        super().__init__(root)
        self._other_try: Callable[[], object] | None = other_try

    def read_file(self, uri: str) -> bytes:
        other_try, self._other_try = self._other_try, None
        if other_try is not None:
            other_try()
        return super().read_file(uri)


def test_persist_whose_files_go_because_an_unseen_try_published_has_nothing_to_do(world: World) -> None:
    fill(world)
    run = world.start("r1")
    world.stage(run)
    counts: list[dict[str, int]] = []
    staging = _OvertakenStaging(
        world.services.settings.staging_root, other_try=lambda: counts.append(persist_run(run, world.services))
    )
    second = persist_run(run, replace(world.services, staging=staging))
    assert counts == [second]
    assert second["classified"] == 6
    assert world.rows("SELECT state FROM reporting.runs") == [("published",)]
