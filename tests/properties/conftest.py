"""One migrated database for all properties; nothing is random that a seed does not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import Phase, settings

from tests.conftest import Roles
from tests.night.conftest import world  # noqa: F401  (a fixture)
from tests.store.factories import register_models


def examples(count: int, **over: Any) -> settings:
    """The same examples in every run, no deadline (the servers are real), nothing kept on disk.

    A failing example is shown as it was found: to shrink one takes minutes where each try is a night on Postgres.
    """
    phases = (Phase.explicit, Phase.generate)
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, phases=phases, **over)


@pytest.fixture(scope="module")
def nights(database: Roles) -> Roles:
    """A migrated database with the two models of `tests.store.factories`."""
    register_models(database)
    return database


@pytest.fixture(scope="module")
def tables(nights: Roles) -> Iterator[Any]:
    """A cursor of the superuser, outside transactions: reads everything, empties it between examples."""
    admin = nights.admin
    connection = psycopg2.connect(
        host=admin.host, port=admin.port, user=admin.user, password=admin.password, dbname=admin.database
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


def empty(cursor: Any) -> None:
    """Remove every night."""
    cursor.execute("TRUNCATE refund.run, refund.photo, refund.run_photo, refund.prediction, refund.decision CASCADE")


def select(cursor: Any, sql: str) -> list[tuple[Any, ...]]:
    cursor.execute(sql)
    return list(cursor.fetchall())
