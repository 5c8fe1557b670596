"""Clocks that are wrong, jump or pass midnight during a night."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from refund.errors import HealthCheckError
from refund.store.database import Database
from tests.faults.catalogue import Watch, fault
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, check_clean, fill, said, undisturbed
from tests.night.conftest import DAY, World


def moved(world: World, **by: float) -> World:
    """The same world, seen by a worker whose clock is off."""
    return replace(world, services=replace(world.services, now=lambda: datetime.now(UTC) + timedelta(**by)))


@pytest.mark.slow
@fault(
    part="the clock",
    what="a worker's is wrong by an hour when the night begins",
    seen="HealthCheckError: the night cannot start, 1 fault found: 1. this worker's clock and Postgres's differ by … "
    "s, at most 60 s is safe; set both by NTP",
    recovery="set the clock, clear `health_check`",
    after="the rows of an undisturbed night",
)
def test_wrong_at_the_beginning(world: World, watch: Watch) -> None:
    fill(world, 3)
    with pytest.raises(HealthCheckError) as caught:
        moved(world, hours=-1).start(RUN_ID)
    watch.check_seen(said(caught.value))
    world.night(RUN_ID)
    assert night_tables(world.roles.app) == undisturbed(world)


@pytest.mark.slow
@fault(
    part="the clock",
    what="a worker's jumps a day ahead after `health_check`, over midnight",
    seen="Published 6 photos: 3 classified, 3 rejected, 0 unchanged",
    recovery="none needed: the run date is the run's, rows are stamped by Postgres",
    after="the rows of an undisturbed night, under the same run date",
)
def test_midnight_passes(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world, 3)
    caplog.set_level("INFO")
    run = world.start(RUN_ID)
    later = moved(world, days=1)
    later.stage(run)
    later.finish(run)
    watch.check_seen(caplog.text)
    assert world.rows("SELECT DISTINCT run_date FROM reporting.photos") == [(DAY,)]
    assert world.rows("SELECT published_at < now() FROM refund.run") == [(True,)]
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(
    part="the clock",
    what="Postgres's and the worker's were two days ahead during one run and are right again when its date is run "
    "again with another model",
    seen="Published 6 photos: 3 classified, 3 rejected, 0 unchanged … Published 6 photos: 3 classified, 0 rejected, 3 "
    "unchanged",
    recovery="none needed: runs are ordered by number, not by time",
    after="the rows of the same two runs undisturbed: the second run's decisions stand",
)
def test_set_back_between_two_runs(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world, 3)
    other = world.register("2")
    caplog.set_level("INFO")
    world.night("r1")
    with Database(world.roles.owner).connect() as connection, connection.cursor() as cursor:  # as it would have written
        for statement in (
            "UPDATE refund.run SET started_at = started_at + interval '2 days', published_at = published_at + '2 days'",
            "UPDATE refund.decision SET decided_at = decided_at + interval '2 days'",
        ):
            cursor.execute(statement)
    world.night("r2", model=other)
    watch.check_seen(caplog.text)
    assert world.rows("SELECT DISTINCT model FROM reporting.photos WHERE outcome = 'classified'") == [(other,)]
    assert night_tables(world.roles.app) == undisturbed(
        world, runs=({"run_id": "r1"}, {"run_id": "r2", "model": other})
    )
