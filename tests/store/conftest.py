"""What tests of publishing share."""

from __future__ import annotations

import pytest

from refund.store.migrate import migrate
from tests.conftest import Roles
from tests.store.factories import register_models


@pytest.fixture
def roles(empty_database: Roles) -> Roles:
    """A migrated database of this test alone, with two models registered."""
    migrate(empty_database.owner)
    register_models(empty_database)
    return empty_database
