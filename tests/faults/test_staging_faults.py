"""Staged files cut, missing, mixed up or edited."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refund.errors import RefundError
from refund.imaging.pack import PHOTOS_FILE, PIXELS_FILE
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun, RunLayout
from refund.night.staged import MANIFEST_FILE, PREDICTIONS_FILE, STAGE_FILE
from refund.night.validate import validate_shard
from refund.store.database import Database
from tests.faults.catalogue import Watch, fault
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, check_clean, fill, one_shard, said, undisturbed
from tests.night.conftest import DAY, World

SAME = "the rows of an undisturbed night"


def path(uri: str, *names: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path), *names)


def nothing_is_published(world: World) -> None:
    assert world.rows("SELECT count(*) FROM refund.run_photo") == [(0,)]
    assert world.rows("SELECT state FROM refund.run") == [("running",)]


def cut(file: Path) -> None:
    body = file.read_bytes()
    file.write_bytes(body[: len(body) // 2])


def damaged(
    world: World,
    watch: Watch,
    damage: Callable[[str, NightRun], None],
    *,
    cleared: Sequence[str],
    validated_only: bool = False,
) -> None:
    """Stage a night, damage it, see the task fail that comes next, clear what it names, and compare."""
    fill(world, 4)
    run = world.start(RUN_ID)
    shard = one_shard(world, run)
    validate_shard(shard, run=run, services=world.services)
    if not validated_only:
        classify_shard(shard, run=run, services=world.services)
    damage(shard, run)
    tasks: dict[str, Callable[[], Any]] = {
        "fetch": lambda: fetch_manifest(run, world.services),
        "validate": lambda: validate_shard(shard, run=run, services=world.services),
        "classify": lambda: classify_shard(shard, run=run, services=world.services),
        "persist": lambda: persist_run(run, world.services),
    }
    with pytest.raises(RefundError) as caught:
        tasks["classify" if validated_only else "persist"]()
    watch.check_seen(said(caught.value))
    nothing_is_published(world)
    for task in cleared:
        tasks[task]()
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


FROM_FETCH = ("fetch", "validate", "classify")
FROM_VALIDATE = ("validate", "classify")
CLEAR_FETCH = "clear the run from `fetch` on, as the text says"
CLEAR_VALIDATE = "clear the shard's `validate` with what follows, as the text says"


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a pack's `pixels.npy` is cut",
    seen="StagingCorruptError: … is not the (N, H, W, 3) uint8 array that validation writes: found … bytes where its "
    "header says …. Clear the shard's task validate, so that it is written again",
    recovery=CLEAR_VALIDATE,
    after=SAME,
)
def test_pixels_are_cut(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: cut(path(shard, "pack", PIXELS_FILE)),
        cleared=FROM_VALIDATE,
        validated_only=True,
    )


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a pack's `photos.parquet` is cut",
    seen="StagingCorruptError: … is not a whole Parquet file (…); clear the shard's task validate, so that it is "
    "written again",
    recovery=CLEAR_VALIDATE,
    after=SAME,
)
def test_facts_are_cut(world: World, watch: Watch) -> None:
    damaged(world, watch, lambda shard, run: cut(path(shard, "pack", PHOTOS_FILE)), cleared=FROM_VALIDATE)


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a pack's `stage.json` is missing",
    seen="StagingMissingError: …/pack/stage.json is not there; it was cleaned up or never finished. Clear the run from "
    "the task fetch on, so that it is made again",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_stage_is_missing(world: World, watch: Watch) -> None:
    damaged(world, watch, lambda shard, run: path(shard, "pack", STAGE_FILE).unlink(), cleared=FROM_FETCH)


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a pack's `pixels.npy` is missing",
    seen="StagingMissingError: …/pixels.npy is not there; …. Clear the run from the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_pixels_are_missing(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: path(shard, "pack", PIXELS_FILE).unlink(),
        cleared=FROM_FETCH,
        validated_only=True,
    )


@pytest.mark.slow
@fault(
    part="a staged file",
    what="`predictions.parquet` is cut",
    seen="StagingCorruptError: …/predictions.parquet cannot be read as Parquet (…); clear the shard's task classify, "
    "so that it is written again",
    recovery="clear the shard's `classify`, as the text says",
    after=SAME,
)
def test_predictions_are_cut(world: World, watch: Watch) -> None:
    damaged(world, watch, lambda shard, run: cut(path(shard, "predictions", PREDICTIONS_FILE)), cleared=("classify",))


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a shard's manifest is cut",
    seen="StagingCorruptError: …/manifest.parquet cannot be read as Parquet (…); clear the run from the task fetch on, "
    "so that it is written again",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_the_manifest_is_cut(world: World, watch: Watch) -> None:
    damaged(world, watch, lambda shard, run: cut(path(shard, "manifest", MANIFEST_FILE)), cleared=FROM_FETCH)


@pytest.mark.slow
@fault(
    part="a staged file",
    what="`plan.json` is cut",
    seen="StagingCorruptError: …/plan.json cannot be read as JSON (…); clear the run from the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_the_plan_is_cut(world: World, watch: Watch) -> None:
    def damage(shard: str, run: NightRun) -> None:
        cut(path(RunLayout(staging=world.services.staging, run_id=run.run_id).plan))

    damaged(world, watch, damage, cleared=FROM_FETCH)


@pytest.mark.slow
@fault(
    part="a staged file",
    what="`plan.json` is whole, but lacks what `fetch` writes into it",
    seen="StagingCorruptError: …/plan.json holds …, expected the numbers photos, shards, unchanged; clear the run from "
    "the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_the_plan_lacks_a_number(world: World, watch: Watch) -> None:
    def damage(shard: str, run: NightRun) -> None:
        path(RunLayout(staging=world.services.staging, run_id=run.run_id).plan).write_bytes(b'{"photos": 7}')

    damaged(world, watch, damage, cleared=FROM_FETCH)


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a pack of another run lies in a shard's place",
    seen="StagingCorruptError: …/pack holds other photos than …/manifest; clear the run from the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_a_pack_of_another_run(world: World, watch: Watch) -> None:
    def damage(shard: str, run: NightRun) -> None:
        world.put("R-1/1.jpg", b"other bytes", day=DAY - timedelta(days=30))
        other = replace(run, run_id="other", run_date=DAY - timedelta(days=30))
        check_health(other, world.services, plugin_errors={})
        strange = one_shard(world, other)
        validate_shard(strange, run=other, services=world.services)
        shutil.rmtree(path(shard, "pack"))
        shutil.copytree(path(strange, "pack"), path(shard, "pack"))
        forget(world, other, "R-1/1.jpg")

    damaged(world, watch, damage, cleared=FROM_FETCH, validated_only=True)


def forget(world: World, run: NightRun, name: str) -> None:
    """Take every trace of the other run away, which the undisturbed night has none of."""
    world.services.staging.remove(RunLayout(staging=world.services.staging, run_id=run.run_id).root)
    for item in [*world.services.objects.list("quarantine/"), *world.services.objects.list(f"incoming/{run.run_date}")]:
        if item.key.endswith(name) or f"/{Path(name).stem}~" in item.key:  # in quarantine, marked with its version
            world.services.objects.delete(item.key)
    with Database(world.roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM refund.run WHERE run_id = %s", (run.run_id,))


# --- rows taken away and added by hand -------------------------------------------------------------------------------


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def without_first(table: pa.Table) -> pa.Table:
    return table.slice(1)


def first_twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


FIRST = f"incoming/{DAY}/R-0/0.jpg"
DOES_NOT_ADD_UP = "ReconciliationError: nothing was published, because the staged night does not add up: "


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a row is missing in a pack's `photos.parquet`",
    seen=f"{DOES_NOT_ADD_UP}1 listed but without an outcome: '{FIRST}' 1 predicted but not accepted: '{FIRST}' the "
    "staged files count …, the tasks reported … Clear the run from the task fetch on, so that it is made again",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_a_fact_is_missing(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: rewrite(path(shard, "pack", PHOTOS_FILE), without_first),
        cleared=FROM_FETCH,
    )


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a photo stands in `predictions.parquet` twice",
    seen=f"{DOES_NOT_ADD_UP}1 predicted more than once: '{FIRST}' Clear the run from the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_a_prediction_twice(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: rewrite(path(shard, "predictions", PREDICTIONS_FILE), first_twice),
        cleared=FROM_FETCH,
    )


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a row is missing in `predictions.parquet`",
    seen=f"{DOES_NOT_ADD_UP}1 accepted but without a prediction: '{FIRST}' Clear the run from the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_a_prediction_is_missing(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: rewrite(path(shard, "predictions", PREDICTIONS_FILE), without_first),
        cleared=FROM_FETCH,
    )


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a row is missing in a shard's manifest: its verdict would belong to nothing",
    seen=f"{DOES_NOT_ADD_UP}1 with an outcome but not listed: '…' Clear the run from the task fetch on",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_a_listed_photo_is_missing(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: rewrite(path(shard, "manifest", MANIFEST_FILE), without_first),
        cleared=FROM_FETCH,
    )


@pytest.mark.slow
@fault(
    part="a staged file",
    what="a photo stands in a shard's manifest twice",
    seen=f"{DOES_NOT_ADD_UP}1 listed more than once: '{FIRST}'",
    recovery=CLEAR_FETCH,
    after=SAME,
)
def test_a_listed_photo_twice(world: World, watch: Watch) -> None:
    damaged(
        world,
        watch,
        lambda shard, run: rewrite(path(shard, "manifest", MANIFEST_FILE), first_twice),
        cleared=FROM_FETCH,
    )
