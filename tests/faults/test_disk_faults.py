"""The staging disk full, before the night and in the middle of each task that writes to it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from refund.errors import DiskSpaceError, HealthCheckError
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.validate import validate_shard
from tests.faults.catalogue import Watch, fault
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, check_clean, fill, one_shard, said, tmpfs, undisturbed
from tests.night.conftest import World

SAME = "the rows of an undisturbed night"
AMPLE = 900_000_000  # bytes
PHOTO = 224 * 224 * 3  # bytes in a pack


@pytest.mark.slow
@fault(
    part="the staging disk",
    what="too full for the night when it begins",
    seen="HealthCheckError: the night cannot start, 1 fault found: 1. … has 50 MB free, the run needs 200 MB; free "
    "some space or point REFUND_STAGING_ROOT at a larger disk",
    recovery="make room, clear `health_check`",
    after=SAME,
)
def test_full_when_the_night_begins(world: World, watch: Watch) -> None:
    fill(world)
    with tmpfs(world.folder / "staging") as disk:
        disk.leave_free(50_000_000)
        with pytest.raises(HealthCheckError) as caught:
            world.start(RUN_ID)
        watch.check_seen(said(caught.value))
        disk.leave_free(AMPLE)
        run = world.start(RUN_ID)
        disk.leave_free(50_000_000)
        with pytest.raises(DiskSpaceError, match="has 50 MB free, the run needs 201 MB"):
            fetch_manifest(run, world.services)
        disk.leave_free(AMPLE)
        world.stage(run)
        world.finish(run)
        assert night_tables(world.roles.app) == undisturbed(world)
        check_clean(world)


@pytest.mark.slow
@fault(
    part="the staging disk",
    what="fills up while `validate` writes pixels: no photo is rejected for it",
    seen="DiskSpaceError: … has 0 MB free, the run needs 202 MB; free some space or point REFUND_STAGING_ROOT at a "
    "larger disk",
    recovery="make room, clear `validate` of that shard",
    after=SAME,
)
def test_full_in_the_middle_of_validate(world: World, watch: Watch) -> None:
    fill(world, 12)
    with tmpfs(world.folder / "staging") as disk:
        run = world.start(RUN_ID)
        shard = one_shard(world, run)
        disk.leave_free(3 * PHOTO)
        with pytest.raises(DiskSpaceError) as caught:
            validate_shard(shard, run=run, services=world.services)
        watch.check_seen(said(caught.value))
        assert not Path(url2pathname(urlsplit(shard).path), "pack").exists()
        assert [item.key for item in world.services.objects.list("quarantine/")] == []
        disk.leave_free(AMPLE)
        world.shard(shard, run)
        world.finish(run)
        assert night_tables(world.roles.app) == undisturbed(world)
        check_clean(world)


@pytest.mark.slow
@fault(
    part="the staging disk",
    what="fills up while `classify` writes predictions",
    seen="DiskSpaceError: … has 0 MB free, the run needs 200 MB; free some space or point REFUND_STAGING_ROOT at a "
    "larger disk",
    recovery="make room, clear `classify` of that shard",
    after=SAME,
)
def test_full_in_the_middle_of_classify(world: World, watch: Watch) -> None:
    fill(world)
    with tmpfs(world.folder / "staging") as disk:
        run = world.start(RUN_ID)
        shard = one_shard(world, run)
        validate_shard(shard, run=run, services=world.services)
        disk.leave_free(0)
        with pytest.raises(DiskSpaceError) as caught:
            classify_shard(shard, run=run, services=world.services)
        watch.check_seen(said(caught.value))
        disk.leave_free(AMPLE)
        classify_shard(shard, run=run, services=world.services)
        world.finish(run)
        assert night_tables(world.roles.app) == undisturbed(world)
        check_clean(world)
