"""Two runs of one date at once, one run twice at once, and analysts who look all the while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

from refund.night.persist import persist_run
from refund.settings import DatabaseAccess
from tests.faults.catalogue import Watch, fault
from tests.faults.pg_proxy import CLOSES_RUN, postgres_proxy
from tests.faults.tables import night_tables
from tests.faults.test_postgres_faults import asked, await_answer, background
from tests.faults.undisturbed import RUN_ID, check_clean, fill, through, undisturbed
from tests.night.conftest import World

WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
OF_ONE_RUN_ONLY = frozenset({"overtaken", "notes", "packed", "predicted"})  # what refund.run tells of the meeting


@fault(
    part="two runs at once",
    what="two runs of one date publish at the same moment",
    seen="Another night is publishing; this one waits for it, at most 10min … Note: another run published 9 of these "
    "photos while this one was at work: left unchanged",
    recovery="none needed: the second waits, and leaves what the first published",
    after="the rows of the two runs one after the other",
)
def test_two_runs_of_one_date(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world)
    first, second = world.start("r1"), world.start("r2")
    for run in (first, second):
        world.stage(run)
    caplog.set_level("INFO")
    with postgres_proxy(world.roles.app) as proxy, through(world, proxy.access) as disturbed:
        proxy.hold_at(CLOSES_RUN)
        ahead = background(lambda: persist_run(first, disturbed.services))
        assert proxy.reached.wait(60)
        behind = background(lambda: persist_run(second, world.services))
        await_answer(world.roles.admin, WAITING)
        proxy.go_on.set()
        assert ahead.result(60) == {"photos": 9, "classified": 6, "rejected": 3, "unchanged": 0}
        assert behind.result(60) == {"photos": 9, "classified": 0, "rejected": 0, "unchanged": 9}
    watch.check_seen(caplog.text)
    assert world.rows("SELECT bool_and(adds_up), max(overtaken) FROM reporting.reconciliation") == [(True, 9)]
    one_after_the_other = undisturbed(world, runs=({"run_id": "r1"}, {"run_id": "r2"}))
    for run in (first, second):
        world.finish(run)
    found = night_tables(world.roles.app)
    assert {table: rows for table, rows in found.items() if table != "run"} == {
        table: rows for table, rows in one_after_the_other.items() if table != "run"
    }


@pytest.mark.slow
@fault(
    part="two runs at once",
    what="`persist` of one run is at work twice: an attempt that was given up for dead lives on",
    seen="Another night is publishing; this one waits for it, at most 10min",
    recovery="none needed: the second waits, finds the run published and changes nothing",
    after="the rows of an undisturbed night",
)
def test_one_run_twice(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world, 3)
    run = world.start(RUN_ID)
    world.stage(run)
    caplog.set_level("INFO")
    with postgres_proxy(world.roles.app) as proxy, through(world, proxy.access) as disturbed:
        proxy.hold_at(CLOSES_RUN)
        ahead = background(lambda: persist_run(run, disturbed.services))
        assert proxy.reached.wait(60)
        behind = background(lambda: persist_run(run, world.services))
        await_answer(world.roles.admin, WAITING)
        proxy.go_on.set()
        assert ahead.result(60) == behind.result(60)
    watch.check_seen(caplog.text)
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


LOOK = """
SELECT (SELECT array_agg(DISTINCT run_id ORDER BY run_id) FROM reporting.photos),
       (SELECT count(*)::int FROM reporting.photos),
       (SELECT count(*)::int FROM reporting.photos WHERE outcome = 'classified' AND model = '{model}'),
       (SELECT COALESCE(sum(photos), 0)::int FROM reporting.daily_categories),
       (SELECT count(*)::int FROM reporting.runs WHERE state = 'published')
"""


def analyst(access: DatabaseAccess, model: str) -> Callable[[], tuple[Any, ...]]:
    """A look at three views in one transaction."""

    def look() -> tuple[Any, ...]:
        connection = psycopg2.connect(
            host=access.host, port=access.port, user=access.user, password=access.password, dbname=access.database
        )
        try:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '20s'")
                cursor.execute(LOOK.format(model=model))
                (seen,) = cursor.fetchall()
                return tuple(seen)
        finally:
            connection.close()

    return look


@pytest.mark.slow
@fault(
    part="two runs at once",
    what="analysts read while a night is published, and while its date is run again with another model",
    seen="Published 9 photos: 6 classified, 3 rejected, 0 unchanged … Published 9 photos: 6 classified, 0 rejected, 3 "
    "unchanged",
    recovery="none needed",
    after="every look saw all of the old or all of the new, none of it mixed, also between any two statements of "
    "`persist`",
)
def test_analysts_see_all_of_a_night_or_none(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world)
    second_model = world.register("2")
    look = analyst(world.roles.analyst, second_model)
    nothing = (None, 0, 0, 0, 0)
    assert look() == nothing
    caplog.set_level("INFO")
    looks: dict[str, list[tuple[Any, ...]]] = {"r1": [], "r2": []}
    with postgres_proxy(world.roles.app) as proxy, through(world, proxy.access) as disturbed:
        for run_id, params in (("r1", {}), ("r2", {"model": second_model})):
            run = world.start(run_id, **params)
            world.stage(run)
            proxy.on_message = lambda _, seen=looks[run_id]: seen.append(look())  # type: ignore[misc]
            persist_run(run, disturbed.services)
            proxy.on_message = None
            looks[run_id].append(look())
    watch.check_seen(caplog.text)
    by_first = (["r1"], 9, 0, 6, 1)
    by_second = (["r1", "r2"], 9, 6, 6, 2)  # what is rejected for good keeps the first run's verdict
    for run_id, before, after in (("r1", nothing, by_first), ("r2", by_first, by_second)):
        seen = looks[run_id]
        assert set(map(repr, seen)) == {repr(before), repr(after)}
        assert len(seen) > 20, "the proxy looked between the statements"
        turn = seen.index(after)
        assert seen[:turn] == [before] * turn
        assert seen[turn:] == [after] * (len(seen) - turn)
    assert asked(world.roles.admin, "SELECT bool_and(adds_up) FROM reporting.reconciliation") == [(True,)]
