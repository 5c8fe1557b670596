"""Trials of the desk: written together over a kept connection, which may be dropped at any time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from refund.errors import DatabaseUnavailableError, FatalRunError
from refund.store.database import Database
from refund.store.trials import Trial, Trials
from tests.conftest import Roles
from tests.postgres import free_port

AT = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
PREDICTIONS = [{"class_id": "n03063599", "class_name": "coffee_mug", "confidence": 0.9, "category": "kitchen_dining"}]
TRIAL = Trial(
    at=AT,
    tried_by="ana",
    request_id="abc",
    filename="cup.jpg",
    size_bytes=3,
    sha256="0" * 64,
    image_format="JPEG",
    width_px=40,
    height_px=30,
    outcome="classified",
    model="tiny@1",
    taxonomy_version="2-abc",
    category="kitchen_dining",
    category_score=0.9,
    decision="auto",
    predictions=PREDICTIONS,
    elapsed_ms=12.5,
)
REJECTED = Trial(
    at=AT, tried_by="ana", request_id="abc", filename="x", size_bytes=1, outcome="rejected", reason="corrupt"
)


@pytest.fixture
def trials(roles: Roles) -> Iterator[Trials]:
    made = Trials(Database(roles.app))
    yield made
    made.close()


def rows(roles: Roles, sql: str) -> list[tuple]:
    with Database(roles.admin).connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def drop_connections(roles: Roles) -> None:
    """As a restart of the server does."""
    with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'refund_app'")
        assert cursor.fetchall()


def test_trials_are_written_in_order_and_numbered(trials: Trials, roles: Roles) -> None:
    first, second = trials.add([TRIAL, REJECTED])
    assert trials.add([replace(TRIAL, filename="later.jpg")])[0] > second > first
    found = rows(roles, "SELECT trial_id, filename, outcome, reason FROM refund.trial ORDER BY trial_id")
    assert found[:2] == [(first, "cup.jpg", "classified", None), (second, "x", "rejected", "corrupt")]
    (row,) = rows(roles, "SELECT at, predictions, review_reasons, decision FROM reporting.trials LIMIT 1")
    assert row == (AT, PREDICTIONS, [], "auto")


def test_one_connection_is_kept_and_opened_anew_where_the_server_dropped_it(trials: Trials, roles: Roles) -> None:
    trials.add([TRIAL])
    trials.add([TRIAL])
    ours = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'refund_app' AND datname = current_database()"
    assert rows(roles, ours) == [(1,)]
    drop_connections(roles)
    assert len(trials.add([TRIAL, TRIAL])) == 2
    assert rows(roles, "SELECT count(*) FROM refund.trial") == [(4,)]


def test_a_server_that_is_gone_is_told_and_found_again(roles: Roles) -> None:
    trials = Trials(Database(replace(roles.app, port=free_port())))
    with pytest.raises(DatabaseUnavailableError, match=r"could not be reached"):
        trials.add([TRIAL])
    trials._database = Database(roles.app)
    assert trials.add([TRIAL])
    trials.close()


def test_a_trial_that_postgres_refuses_is_told_and_the_next_goes_through(trials: Trials, roles: Roles) -> None:
    with pytest.raises(FatalRunError, match=r"refused a statement, so nothing of it was written"):
        trials.add([TRIAL, replace(REJECTED, reason=None)])
    assert rows(roles, "SELECT count(*) FROM refund.trial") == [(0,)]
    assert trials.add([TRIAL])


def test_hostile_text_is_stored_as_text(trials: Trials, roles: Roles) -> None:
    name = "'; DROP TABLE refund.trial; --<script>%s%(at)s\N{RIGHT-TO-LEFT OVERRIDE}.jpg"
    trials.add([replace(REJECTED, filename=name, detail="nul \0 and half \ud800 a pair", tried_by="=cmd()")])
    found = rows(roles, "SELECT filename, detail, tried_by FROM refund.trial")
    assert found == [(name, "nul  and half ? a pair", "=cmd()")]


def test_a_trial_checks_itself() -> None:
    with pytest.raises(ValueError, match=r"^the time of a trial must be aware, got "):
        replace(TRIAL, at=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match=r"^a trial's file name has at most 255 characters, got 256$"):
        replace(TRIAL, filename="x" * 256)
