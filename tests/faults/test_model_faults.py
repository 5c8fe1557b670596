"""The model's file altered or gone, in the bucket and in a worker's cache."""

from __future__ import annotations

import pytest

from refund.errors import HealthCheckError, ModelArtefactError
from refund.night.classify import classify_shard
from refund.night.validate import validate_shard
from tests.faults.catalogue import Watch, fault
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, check_clean, fill, one_shard, said, undisturbed
from tests.night.conftest import World

SAME = "the rows of an undisturbed night"
ARTEFACT = "models/tiny/1/model.tflite"
ALTERED = "has SHA-256 …, its card says …: it was altered or damaged. Restore it, or run: refund model build"


def spoil_cache(world: World) -> None:
    for cached in world.services.settings.cache_folder.rglob("*.tflite"):
        cached.write_bytes(cached.read_bytes()[:-1] + b"\0\1")


@pytest.mark.slow
@fault(
    part="the model",
    what="its file in the bucket is altered or gone before the night",
    seen=f"HealthCheckError: the night cannot start, 1 fault found: 1. …{ARTEFACT} {ALTERED} … HealthCheckError: the "
    f"night cannot start, 1 fault found: 1. …{ARTEFACT} of model tiny@1 is missing; put it back, or build and register "
    "the model again: refund model build",
    recovery="restore the file, clear `health_check`",
    after=SAME,
)
def test_altered_or_gone_before_the_night(world: World, watch: Watch) -> None:
    fill(world, 3)
    objects = world.services.objects
    good = objects.get(ARTEFACT)
    objects.put(ARTEFACT, good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(HealthCheckError) as altered:
        world.start(RUN_ID)
    objects.delete(ARTEFACT)
    with pytest.raises(HealthCheckError) as gone:
        world.start(RUN_ID)
    watch.check_seen(f"{said(altered.value)}\n{said(gone.value)}")
    assert world.rows("SELECT count(*) FROM refund.run") == [(0,)]
    objects.put(ARTEFACT, good)
    world.night(RUN_ID)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(
    part="the model",
    what="its file is altered between `validate` and `classify`, in the worker's cache and in the bucket",
    seen=f"ModelArtefactError: …{ARTEFACT} {ALTERED}",
    recovery="restore the file in the bucket, clear `classify`; no cache needs a hand",
    after=SAME,
)
def test_altered_during_the_night(world: World, watch: Watch) -> None:
    fill(world, 3)
    run = world.start(RUN_ID)
    shard = one_shard(world, run)
    validate_shard(shard, run=run, services=world.services)
    objects = world.services.objects
    good = objects.get(ARTEFACT)
    spoil_cache(world)
    objects.put(ARTEFACT, b"altered")
    with pytest.raises(ModelArtefactError) as caught:
        classify_shard(shard, run=run, services=world.services)
    watch.check_seen(said(caught.value))
    objects.put(ARTEFACT, good)
    classify_shard(shard, run=run, services=world.services)
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(
    part="the model",
    what="a worker's cached copy is altered or half-written",
    seen="Published 6 photos: 3 classified, 3 rejected, 0 unchanged",
    recovery="none needed: the copy is checked at every load and fetched again",
    after=SAME,
)
def test_a_spoilt_cache(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world, 3)
    caplog.set_level("INFO")
    run = world.start(RUN_ID)
    spoil_cache(world)
    world.stage(run)
    world.finish(run)
    watch.check_seen(caplog.text)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)
