"""What tests of publishing share."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest

from refund.store.migrate import migrate
from tests.conftest import Roles, fresh_database
from tests.store.factories import register_models

# What migration 0001 says of the database itself; a template hands on all but that.
RIGHTS = """
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE {name} TO refund_app;
GRANT CONNECT ON DATABASE {name} TO refund_analyst;
"""


@pytest.fixture(scope="session")
def migrated(postgres: Roles) -> Iterator[Roles]:
    """A migrated database with two models registered, to make others from; nobody is connected to it."""
    with fresh_database(postgres) as roles:
        migrate(roles.owner)
        register_models(roles)
        yield roles


@pytest.fixture
def roles(migrated: Roles) -> Iterator[Roles]:
    """A migrated database of this test alone, with two models registered."""
    with fresh_database(migrated, template=migrated.admin.database) as made:
        admin = made.admin
        connection = psycopg2.connect(
            host=admin.host, port=admin.port, user=admin.user, password=admin.password, dbname=admin.database
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(RIGHTS.format(name=admin.database))
        connection.close()
        yield made
