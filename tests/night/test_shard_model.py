"""Which model decides a shard: what a rollback, a promotion, a retry and a clear change while a night is under way."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from refund.errors import DiskSpaceError, NoModelError, StagingCorruptError
from refund.imaging.pack import PIXELS_FILE, create_pixels, open_pixels
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.health_check import check_disk, check_health
from refund.night.persist import persist_run
from refund.night.services import ShardLayout
from refund.night.shard_model import model_in_force, pixel_bytes
from refund.night.staged import STAGE_FILE
from refund.night.validate import validate_shard
from tests.model.factories import make_card
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg

OLD, NEW = "tiny@1", "tiny@2"
NOTE = (
    "champion was rolled back from tiny@2 to tiny@1 during the night: shards validated since then use tiny@1; those "
    "before, and photos left unchanged before, rest on tiny@2"
)
BY_MODEL = "SELECT model, count(*)::int FROM reporting.photos GROUP BY 1 ORDER BY 1"


def fill(world: World, count: int, *, first: int = 0, **over: Any) -> None:
    for seed in range(first, first + count):
        world.put(f"R-{seed}/{seed}.jpg", jpeg(seed), **over)


def promoted(world: World, **over: Any) -> None:
    world.promote(world.register("2", **over))


def notes(world: World, run_id: str) -> list[str]:
    ((found,),) = world.rows(f"SELECT notes FROM reporting.runs WHERE run_id = '{run_id}'")
    return list(found)


def pack(shard: str) -> Path:
    return Path(url2pathname(urlsplit(ShardLayout(shard).pack).path))


def test_a_rollback_takes_effect_with_the_next_shard_and_the_next_night_decides_the_rest_anew(world: World) -> None:
    before = DAY - timedelta(days=1)
    fill(world, 4, first=50, day=before)
    world.night("r0", day=before, late_days=0)
    promoted(world)
    fill(world, 5)
    run = world.start("r1", shard_size=3, late_days=0)
    first, second = fetch_manifest(run, world.services)  # two photos, three photos
    world.shard(first, run)
    world.rollback()
    world.shard(second, run)
    classify_shard(first, run=run, services=world.services)  # killed and tried again
    assert world.finish(run)["classified"] == 5

    decided = "SELECT model, count(*)::int FROM refund.{} WHERE run_id = 'r1' GROUP BY 1 ORDER BY 1"
    for table in ("prediction", "decision"):
        assert world.rows(decided.format(table)) == [(OLD, 3), (NEW, 2)]
    assert world.rows("SELECT model, models, notes FROM reporting.runs WHERE run_id = 'r1'") == [
        (NEW, [OLD, NEW], [NOTE])
    ]
    assert world.rows("SELECT bool_and(adds_up) FROM reporting.reconciliation") == [(True,)]
    report = world.services.repository.get_report(run_id="r1")
    assert report is not None
    assert [(row["model"], row["photos"]) for row in report.body["models"]] == [(OLD, 3), (NEW, 2)]
    page = Path(world.services.report_copy(report.html_uri)).read_text(encoding="utf-8")
    assert NOTE in page
    assert "tiny@1, 3 photos of the night" in page
    compared = (
        "SELECT tonight_photos, reference_photos FROM reporting.drift WHERE run_id = 'r1' AND measure = 'largest_move'"
    )
    assert world.rows(compared) == [(3, 4)]  # those by tiny@1, with the night before, which was by tiny@1

    assert world.night("r2", late_days=0) == {"photos": 5, "classified": 2, "rejected": 0, "unchanged": 3}
    assert world.rows(BY_MODEL) == [(OLD, 9)]
    assert world.rows("SELECT DISTINCT superseded_by FROM refund.decision WHERE model = 'tiny@2'") == [("r2",)]
    assert notes(world, "r2") == []


def test_a_promotion_during_the_night_changes_nothing_and_nor_does_taking_it_back(world: World) -> None:
    fill(world, 3)
    run = world.start("r1", shard_size=1)
    first, second, third = fetch_manifest(run, world.services)
    world.shard(first, run)
    promoted(world)
    world.shard(second, run)
    world.rollback()
    world.shard(third, run)
    world.finish(run)
    assert world.rows(BY_MODEL) == [(OLD, 3)]
    assert notes(world, "r1") == []


def test_a_run_that_was_given_a_version_keeps_it(world: World) -> None:
    promoted(world)
    fill(world, 1)
    run = world.start("r1", model=NEW)
    world.rollback()
    world.stage(run)
    world.finish(run)
    assert world.rows(BY_MODEL) == [(NEW, 1)]


def test_a_shard_keeps_its_model_until_its_validation_is_cleared(world: World) -> None:
    promoted(world)
    fill(world, 1)
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    assert validate_shard(shard, run=run, services=world.services).as_xcom()["model"] == NEW
    world.rollback()
    for _ in range(2):
        assert classify_shard(shard, run=run, services=world.services).as_xcom()["model"] == NEW
    assert validate_shard(shard, run=run, services=world.services).model == OLD
    with pytest.raises(StagingCorruptError) as caught:  # its classify was not cleared with it
        persist_run(run, world.services)
    layout = ShardLayout(shard)
    assert str(caught.value) == (
        f"nothing was published: {layout.pack} was made for tiny@1, {layout.predictions} was made by tiny@2; clear the "
        f"shard's task classify, so that both are of one model"
    )
    classify_shard(shard, run=run, services=world.services)
    world.finish(run)
    assert world.rows(BY_MODEL) == [(OLD, 1)]


@pytest.mark.slow
def test_a_run_cleared_after_a_rollback_checks_the_model_it_goes_on_with_and_leaves_nothing_on_the_other(
    world: World,
) -> None:
    promoted(world)
    fill(world, 2)
    world.night("r1")
    fill(world, 1, first=2)
    run = world.start("r2")
    world.rollback()
    assert check_health(run, world.services, plugin_errors={}).model == OLD
    world.stage(run)
    assert world.finish(run) == {"photos": 3, "classified": 3, "rejected": 0, "unchanged": 0}
    assert world.rows(BY_MODEL) == [(OLD, 3)]
    assert world.rows("SELECT model, models FROM reporting.runs WHERE run_id = 'r2'") == [(NEW, [OLD])]


def test_the_alias_may_change_between_the_health_check_asking_and_the_run_beginning(world: World) -> None:
    def goes_on_with(began_with: str) -> str:
        row = world.services.repository.begin_run(
            run_id=f"began with {began_with}",
            run_date=DAY,
            model=began_with,
            taxonomy_version="1",
            code_version="1",
            params={"model": "champion"},
            started_at=world.services.database.now(),
        )
        return model_in_force(row, world.services).model

    promoted(world)
    assert goes_on_with(OLD) == OLD  # the promotion came too late for it
    world.rollback()
    assert goes_on_with(NEW) == OLD


# --- input sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_night_by_a_model_of_another_input_size(world: World) -> None:
    promoted(world, size=(96, 64))
    fill(world, 3)
    world.put("R-9/notes.jpg", b"this is not an image")
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    world.shard(shard, run)
    assert open_pixels(pack(shard) / PIXELS_FILE).shape == (4, 64, 96, 3)
    assert world.finish(run) == {"photos": 4, "classified": 3, "rejected": 1, "unchanged": 0}
    assert world.rows("SELECT DISTINCT width_px, height_px FROM refund.photo WHERE width_px > 0") == [(320, 240)]


def test_a_rollback_to_a_model_of_another_input_size(world: World) -> None:
    promoted(world, size=(96, 64))
    fill(world, 2)
    run = world.start("r1", shard_size=1)
    first, second = fetch_manifest(run, world.services)
    validate_shard(first, run=run, services=world.services)
    world.rollback()
    world.shard(second, run)
    classify_shard(first, run=run, services=world.services)
    shapes = [open_pixels(pack(shard) / PIXELS_FILE).shape for shard in (first, second)]
    assert shapes == [(1, 64, 96, 3), (1, 224, 224, 3)]
    world.finish(run)
    assert world.rows(BY_MODEL) == [(OLD, 1), (NEW, 1)]


def test_a_pack_that_does_not_fit_its_model_or_names_none_says_so(world: World) -> None:
    fill(world, 1)
    run = world.start("r1")
    (shard,) = fetch_manifest(run, world.services)
    validate_shard(shard, run=run, services=world.services)
    create_pixels(pack(shard) / PIXELS_FILE, count=1, size=(96, 64))
    with pytest.raises(StagingCorruptError) as caught:
        classify_shard(shard, run=run, services=world.services)
    assert str(caught.value) == (
        f"{shard}/pack holds pixels of 96×64, model tiny@1 takes 224×224; clear the shard's task validate, so that it "
        f"is decoded again"
    )
    for stage, error, says in (
        (
            b'{"photos": 1}',
            StagingCorruptError,
            "{}/pack/stage.json names no model, as packs of earlier versions of the code do; expected the one that the "
            "pixels were made for. Clear the shard's task validate, so that the pack is made again",
        ),
        (b"[1]", StagingCorruptError, "{}/pack/stage.json cannot be read as JSON"),
        (b'{"model": "gone@1"}', NoModelError, "no model is registered as 'gone@1'"),
    ):
        (pack(shard) / STAGE_FILE).write_bytes(stage)
        with pytest.raises(error, match=re.escape(says.format(shard))):
            classify_shard(shard, run=run, services=world.services)


def test_the_disk_must_hold_the_packs_at_the_size_that_the_model_takes(world: World) -> None:
    small, large = make_card(input_width=96, input_height=64), make_card(input_width=480, input_height=640)
    assert (pixel_bytes(small), pixel_bytes(large)) == (18_432, 921_600)
    free_bytes = world.services.staging.free_bytes()
    assert free_bytes is not None
    photos = (free_bytes - 300_000_000) // pixel_bytes(small) // 2
    check_disk(world.services, photos=photos, photo_bytes=pixel_bytes(small))
    with pytest.raises(DiskSpaceError, match="MB"):
        check_disk(world.services, photos=photos, photo_bytes=pixel_bytes(large))
