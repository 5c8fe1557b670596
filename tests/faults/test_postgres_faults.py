"""Postgres killed, down, read-only, full, cut off or locked while a night is under way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

from refund.errors import AccessDeniedError, DatabaseUnavailableError, RetriableRunError
from refund.night.classify import classify_shard
from refund.night.generate_report import write_report
from refund.night.persist import persist_run
from refund.night.services import NightRun
from refund.night.validate import validate_shard
from refund.settings import DatabaseAccess
from refund.store.publish import LOCK_KEY
from tests.faults.catalogue import Watch, fault
from tests.faults.pg_proxy import CLOSES_RUN, postgres_proxy
from tests.faults.tables import night_tables
from tests.faults.undisturbed import (
    RUN_ID,
    check_clean,
    fill,
    one_shard,
    said,
    staging_folder,
    through,
    tmpfs,
    undisturbed,
)
from tests.night.conftest import World
from tests.postgres import Cluster

SAME = "the rows of an undisturbed night"
IN_COPY = re.compile(rb"COPY staged_manifest.*incoming/", re.DOTALL)
WRITES_OUTCOMES = re.compile(rb"INSERT INTO refund\.run_photo")


def staged(world: World, **params: Any) -> NightRun:
    """A night up to persist."""
    run = world.start(RUN_ID, **params)
    world.stage(run)
    return run


def background(work: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def asked(access: DatabaseAccess, sql: str) -> list[tuple[Any, ...]]:
    """Ask as the superuser, past our own code."""
    connection = psycopg2.connect(
        host=access.host, port=access.port, user=access.user, password=access.password, dbname=access.database
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def await_answer(access: DatabaseAccess, sql: str) -> None:
    """Wait until a query has a row."""
    deadline = time.monotonic() + 30
    while not asked(access, sql):
        assert time.monotonic() < deadline, f"no row within 30 s: {sql}"
        time.sleep(0.02)  # between two looks


@pytest.mark.slow
@fault(
    part="Postgres",
    what="killed (SIGKILL of all its processes) in the middle of a COPY of `persist`, then started again",
    seen="DatabaseUnavailableError: Postgres at … could not be reached, broke the connection or was busy: …. The task "
    "retries; if it goes on, check that the server runs and is reachable from here",
    recovery="`persist` retries by itself",
    after=SAME,
)
def test_killed_in_the_middle_of_copy(mortal_world: World, mortal: Cluster, watch: Watch) -> None:
    world = mortal_world
    fill(world, 12)
    run = staged(world)
    with postgres_proxy(world.roles.app) as proxy, through(world, proxy.access) as disturbed:
        proxy.hold_at(IN_COPY, passing_half=True)
        attempt = background(lambda: persist_run(run, disturbed.services))
        assert proxy.reached.wait(60)
        await_answer(world.roles.admin, "SELECT 1 FROM pg_stat_progress_copy WHERE command = 'COPY FROM'")
        mortal.kill()
        proxy.go_on.set()
        failure = attempt.exception(60)
        assert isinstance(failure, DatabaseUnavailableError)
        watch.check_seen(said(failure))
        mortal.start()
        assert world.rows("SELECT count(*) FROM refund.run_photo") == [(0,)]
        disturbed.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@fault(
    part="Postgres",
    what="the connection is cut after the commit of `persist` was sent: the answer never comes",
    seen="DatabaseUnavailableError: Postgres at … broke the connection …",
    recovery="`persist` retries by itself, finds its own commit and clears the staging",
    after=SAME,
)
def test_the_answer_to_the_commit_is_lost(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world, 3)
    run = staged(world)
    with postgres_proxy(world.roles.app) as proxy, through(world, proxy.access) as disturbed:
        proxy.lose_reply_at(CLOSES_RUN)
        with pytest.raises(DatabaseUnavailableError) as caught:
            persist_run(run, disturbed.services)
        watch.check_seen(said(caught.value))
        assert world.rows("SELECT state FROM refund.run") == [("published",)]
        assert list(staging_folder(world).iterdir()) != []
        caplog.set_level("INFO")
        disturbed.finish(run)
    assert "This run is published already; its rows stay as they are" in caplog.text
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(
    part="Postgres",
    what="somebody ends the connection of `persist` (`pg_terminate_backend`) halfway through its transaction",
    seen="DatabaseUnavailableError: Postgres at … broke the connection or was busy: …. The task retries",
    recovery="`persist` retries by itself",
    after=SAME,
)
def test_terminated_in_the_transaction(world: World, watch: Watch) -> None:
    fill(world, 3)
    run = staged(world)
    with postgres_proxy(world.roles.app) as proxy, through(world, proxy.access) as disturbed:
        proxy.hold_at(WRITES_OUTCOMES)
        attempt = background(lambda: persist_run(run, disturbed.services))
        assert proxy.reached.wait(60)
        ended = asked(
            world.roles.admin,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'refund_app' "
            "AND datname = current_database() AND state = 'idle in transaction'",
        )
        assert ended == [(True,)]
        proxy.go_on.set()
        failure = attempt.exception(60)
        assert isinstance(failure, DatabaseUnavailableError)
        watch.check_seen(said(failure))
        disturbed.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)


@pytest.mark.slow
@fault(
    part="Postgres",
    what="down when any one of the tasks starts",
    seen="Error: Postgres at … could not be reached, broke the connection or was busy: … Connection refused …. The "
    "task retries; if it goes on, check that the server runs and is reachable from here",
    recovery="the task retries by itself",
    after=SAME,
)
def test_down_at_each_task(mortal_world: World, mortal: Cluster, watch: Watch) -> None:
    world = mortal_world
    fill(world, 3)
    run = NightRun(run_id=RUN_ID, run_date=world.start(RUN_ID).run_date, params=world.start(RUN_ID).params)
    shards: list[str] = []
    tasks: tuple[Callable[[], Any], ...] = (
        lambda: world.start(RUN_ID),
        lambda: shards.append(one_shard(world, run)),
        lambda: validate_shard(shards[0], run=run, services=world.services),
        lambda: classify_shard(shards[0], run=run, services=world.services),
        lambda: persist_run(run, world.services),
        lambda: write_report(run, world.services),
        lambda: world.finish(run),
    )
    for task in tasks:
        mortal.stop()
        with pytest.raises(RetriableRunError) as caught:
            task()
        watch.check_seen(said(caught.value))
        mortal.start()
        task()
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


@pytest.mark.slow
@fault(
    part="Postgres",
    what="a failover left the connection pointing at a read-only standby",
    seen="DatabaseUnavailableError: Postgres at … is a standby or read-only and takes no rows: …. The task retries; if "
    "it goes on, point the Airflow connection refund_db at the primary, or promote this server",
    recovery="the task retries by itself once the server is promoted or the connection corrected",
    after=SAME,
)
def test_a_standby(mortal_world: World, mortal: Cluster, watch: Watch) -> None:
    world = mortal_world
    fill(world, 3)
    run = staged(world)
    mortal.stop()
    signal_file = mortal.folder / "standby.signal"
    signal_file.touch()
    owner = mortal.folder.stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    mortal.start()
    with pytest.raises(DatabaseUnavailableError) as caught:
        persist_run(run, world.services)
    watch.check_seen(said(caught.value))
    mortal.promote()
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)


@pytest.mark.slow
@fault(
    part="Postgres",
    what="the application's role loses a right during the night",
    seen="AccessDeniedError: Postgres does not let … do this: permission denied for table decision …. Connect as the "
    "role that may, or have the owner run, with the Airflow connection refund_db_owner: refund migrate",
    recovery="give the right back, clear `persist`",
    after=SAME,
)
def test_a_right_is_revoked(world: World, watch: Watch) -> None:
    fill(world, 3)
    run = staged(world)
    asked(world.roles.owner, "REVOKE INSERT ON refund.decision FROM refund_app")
    with pytest.raises(AccessDeniedError) as caught:
        persist_run(run, world.services)
    watch.check_seen(said(caught.value))
    assert world.rows("SELECT count(*) FROM refund.run_photo") == [(0,)]
    asked(world.roles.owner, "GRANT INSERT ON refund.decision TO refund_app")
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)


@pytest.mark.slow
@fault(
    part="Postgres",
    what="a lock that somebody holds keeps `persist` from publishing",
    seen="Another night is publishing; this one waits for it, at most 10min",
    recovery="it goes on by itself when the lock is released; after ten minutes the task fails and retries",
    after=SAME,
)
def test_a_lock_is_held(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    fill(world, 3)
    run = staged(world)
    caplog.set_level("INFO")
    holder = world.services.database.connect()
    with holder as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        attempt = background(lambda: persist_run(run, world.services))
        await_answer(world.roles.admin, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        watch.check_seen(caplog.text)
        assert not attempt.done()
    attempt.result(60)
    world.finish(run)
    assert night_tables(world.roles.app) == undisturbed(world)


@pytest.mark.slow
@fault(
    part="Postgres",
    what="the disk of Postgres is full",
    seen="DatabaseUnavailableError: … could not … No space left on device …",
    recovery="make room for Postgres; the task retries by itself",
    after=SAME,
)
def test_the_disk_of_postgres_is_full(mortal_world: World, mortal: Cluster, watch: Watch) -> None:
    world = mortal_world
    fill(world, 3)
    folder = mortal.folder.parent / "tablespace"
    with tmpfs(folder) as disk:
        owner = mortal.folder.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        server = replace(world.roles.admin, database="postgres")
        name = world.roles.app.database
        asked(server, f"CREATE TABLESPACE small LOCATION '{folder}'")
        asked(server, f"ALTER DATABASE {name} SET TABLESPACE small")
        run = staged(world)
        disk.leave_free(16 * 1024)
        with pytest.raises(DatabaseUnavailableError) as caught:
            persist_run(run, world.services)
        watch.check_seen(said(caught.value))
        disk.leave_free(200_000_000)
        world.finish(run)
        assert night_tables(world.roles.app) == undisturbed(world)
        asked(server, f"ALTER DATABASE {name} SET TABLESPACE pg_default")
        asked(server, "DROP TABLESPACE small")
