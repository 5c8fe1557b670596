"""Photos and their bucket that change while the night is at work."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from refund.errors import BucketMissingError
from refund.night.validate import validate_shard
from tests.conftest import make_bucket
from tests.faults.catalogue import Watch, fault
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, check_clean, fill, one_shard, said, undisturbed
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg
from tests.night.test_reasons import picture, slow_picture

ONE_VERDICT = "SELECT count(*), count(DISTINCT photo_id) FROM refund.run_photo WHERE run_id = 'r1'"


def rejected(world: World) -> str:
    """What the page of rejections and the report say."""
    rows = world.rows("SELECT key, reason, detail FROM reporting.rejections ORDER BY key")
    return "\n".join(f"{key}: {reason}: {detail}" for key, reason, detail in rows)


@fault(
    part="photos",
    what="one is overwritten, another cut short and another deleted between `fetch` and `validate`",
    seen="incoming/2026-11-21/R-0/0.jpg: changed: … incoming/2026-11-21/R-0/1.jpg: changed: … "
    "incoming/2026-11-21/R-1/2.jpg: vanished: …",
    recovery="none needed: the next night takes the new versions",
    after="each listed version has its one verdict; the next night's versions supersede the old ones visibly",
)
def test_changed_under_its_hands(world: World, watch: Watch) -> None:
    for seed in range(4):
        world.put(f"R-{seed // 2}/{seed}.jpg", jpeg(seed))
    run = world.start("r1")
    shard = one_shard(world, run)
    world.put("R-0/0.jpg", jpeg(100))
    world.put("R-0/1.jpg", jpeg(1)[:4000])
    world.services.objects.delete(f"incoming/{DAY}/R-1/2.jpg")
    world.shard(shard, run)
    assert world.finish(run) == {"photos": 4, "classified": 1, "rejected": 3, "unchanged": 0}
    watch.check_seen(rejected(world))
    assert world.rows(ONE_VERDICT) == [(4, 4)]
    assert world.night("r2") == {"photos": 3, "classified": 1, "rejected": 1, "unchanged": 1}
    assert world.rows("SELECT reason, key FROM reporting.rejections ORDER BY key") == [
        ("truncated", f"incoming/{DAY}/R-0/1.jpg"),
        ("vanished", f"incoming/{DAY}/R-1/2.jpg"),
    ]
    superseded = "SELECT key FROM refund.photo WHERE superseded_by IS NOT NULL ORDER BY key"
    assert world.rows(superseded) == [(f"incoming/{DAY}/R-0/0.jpg",), (f"incoming/{DAY}/R-0/1.jpg",)]
    assert world.rows("SELECT bool_and(adds_up) FROM reporting.reconciliation") == [(True,)]


@pytest.mark.slow
@fault(
    part="photos",
    what="one arrives after `fetch` has listed its date",
    seen="Published 9 photos: 6 classified, 3 rejected, 0 unchanged … Published 10 photos: 1 classified, 0 rejected, 9 "
    "unchanged",
    recovery="none needed: the next night looks at `late_days` dates before its own",
    after="the rows of an undisturbed night, and the late photo's with the next",
)
def test_a_late_photo(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world)
    expected = undisturbed(world)
    caplog.set_level("INFO")
    run = world.start(RUN_ID)
    shard = one_shard(world, run)
    world.put("R-99/late.jpg", jpeg(99))
    world.shard(shard, run)
    world.finish(run)
    assert night_tables(world.roles.app) == expected
    world.night("next", day=DAY + timedelta(days=1))
    watch.check_seen(caplog.text)
    assert world.rows("SELECT run_date FROM reporting.photos WHERE refund_id = 'R-99'") == [(DAY + timedelta(days=1),)]


@pytest.mark.slow
@fault(
    part="photos",
    what="the whole bucket is deleted during the night: no photo is taken for vanished",
    seen="BucketMissingError: bucket '…' does not exist at …; create it, or correct service_config.s3.bucket_name in "
    "the extra of the Airflow connection refund_s3",
    recovery="bring bucket and objects back, clear `validate` of that shard",
    after="the rows of an undisturbed night",
)
def test_the_bucket_is_deleted(world: World, watch: Watch) -> None:
    fill(world, 3)
    run = world.start(RUN_ID)
    shard = one_shard(world, run)
    objects = world.services.objects
    kept = {item.key: objects.get(item.key) for item in objects.list("")}
    for key in kept:
        objects.delete(key)
    objects._client.delete_bucket(Bucket=world.s3.bucket)
    with pytest.raises(BucketMissingError) as caught:
        validate_shard(shard, run=run, services=world.services)
    watch.check_seen(said(caught.value))
    make_bucket(world.s3)
    for key, body in kept.items():
        objects.put(key, body)
    world.shard(shard, run)
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


def check_costs_itself(world: World, watch: Watch, body: bytes, **settings: Any) -> None:
    """A night with one photo more, which its decoder cannot bear: the rows of the others are as without it."""
    fill(world)
    without = undisturbed(world)
    world.put("R-5/bad.jpg", body)
    services = replace(world.services, settings=replace(world.services.settings, **settings))
    assert replace(world, services=services).night(RUN_ID)["rejected"] == 4
    watch.check_seen(rejected(world))
    found = night_tables(world.roles.app)
    for table, more in {"photo": 1, "run_photo": 1, "prediction": 0, "decision": 0}.items():
        rows, expected = set(map(repr, found[table])), set(map(repr, without[table]))
        assert expected <= rows
        assert len(rows - expected) == more
    assert world.rows("SELECT adds_up FROM reporting.reconciliation") == [(True,)]
    check_clean(world)


@pytest.mark.slow
@fault(
    part="photos",
    what="one keeps its decoder busy beyond `decode_timeout_s`",
    seen="incoming/2026-11-21/R-5/bad.jpg: decode_timeout: decoding took longer than … seconds, twice",
    recovery="none needed: the pool starts another decoder, the next night tries the photo again",
    after="the rows of a night without that photo, which is `rejected: decode_timeout`",
)
def test_one_that_hangs_its_decoder(world: World, watch: Watch) -> None:
    check_costs_itself(world, watch, slow_picture(), decode_timeout_s=1.0)


@pytest.mark.slow
@fault(
    part="photos",
    what="one makes its decoder swell to `decode_memory_bytes`",
    seen="incoming/2026-11-21/R-5/bad.jpg: decode_memory: decoding needed more than … MB of memory, twice",
    recovery="none needed: the pool starts another decoder, the next night tries the photo again",
    after="the rows of a night without that photo, which is `rejected: decode_memory`",
)
def test_one_that_swells_its_decoder(world: World, watch: Watch) -> None:
    body = picture("PNG", "RGBA", (4000, 4000))
    check_costs_itself(world, watch, body, decode_timeout_s=60.0, decode_memory_bytes=300_000_000)
