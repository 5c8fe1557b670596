"""What tests of publishing share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Roles, copied_database, migrated_database
from tests.store.factories import register_models


@pytest.fixture(scope="session")
def migrated(postgres: Roles) -> Iterator[Roles]:
    """A migrated database with two models registered, to make others from; nobody is connected to it."""
    with migrated_database(postgres) as roles:
        register_models(roles)
        yield roles


@pytest.fixture
def roles(migrated: Roles) -> Iterator[Roles]:
    """A migrated database of this test alone, with two models registered."""
    with copied_database(migrated) as made:
        yield made
