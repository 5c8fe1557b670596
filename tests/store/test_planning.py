"""The planner is told of a large night and of no small one, and a night is reported without it."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any

import pytest

from refund.store import planning
from refund.store.database import Database
from refund.store.planning import try_analyze
from tests.conftest import Roles
from tests.store.factories import Photo, night, register_models

OLD = date(2026, 9, 30)


def photos(*days: date) -> tuple[Photo, ...]:
    return tuple(Photo(key=f"incoming/{day}/R-1/{number}.jpg", day=day) for day in days for number in range(3))


def rows(roles: Roles, sql: str) -> list[tuple[Any, ...]]:
    with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


ANALYZED = (
    "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'refund' AND tablename LIKE '%\\_2026__' ORDER BY 1"
)


@pytest.fixture
def published(empty_database: Roles) -> Roles:
    from refund.store.migrate import migrate

    migrate(empty_database.owner)
    register_models(empty_database)
    night(empty_database.app, "r1", *photos(OLD, date(2026, 11, 21)))
    return empty_database


def test_the_months_of_a_large_night_are_looked_at_and_no_others(
    published: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "LARGE_NIGHT", 6)
    before = rows(published, ANALYZED)
    assert try_analyze(Database(published.app), "r1", photos=6) == 6
    wanted = {f"{table}_{month}" for table in ("photo", "run_photo", "decision") for month in ("202609", "202611")}
    assert {name for (name,) in rows(published, ANALYZED)} - {name for (name,) in before} == wanted


def test_a_small_night_is_left_to_autovacuum(published: Roles) -> None:
    assert try_analyze(Database(published.app), "r1", photos=planning.LARGE_NIGHT - 1) == 0


def test_what_keeps_the_planner_from_looking_costs_no_report(
    published: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    with Database(published.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("REVOKE EXECUTE ON FUNCTION refund.analyze_months FROM refund_app")
    with caplog.at_level(logging.WARNING):
        assert try_analyze(Database(published.app), "r1", photos=planning.LARGE_NIGHT) == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        "The planner was not told of the night, so its report may take longer: Postgres does not let"
    )


def test_the_planner_knows_the_runs_afterwards(published: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGE_NIGHT", 1)
    try_analyze(Database(published.app), "r1", photos=6)
    known = "SELECT most_common_vals::text FROM pg_stats WHERE tablename = 'decision_202611' AND attname = 'run_id'"
    assert rows(published, known) == [("{r1}",)]
