"""What tests of faults share: the watch that holds them to the page, and the rows that must be the same afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.catalogue import Watch
from tests.night.conftest import World, world  # noqa: F401  (a fixture)


@pytest.fixture
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Fails a test that did not compare what was seen with what the page says."""
    watch = Watch(request.function.__fault__)
    yield watch
    assert watch.was_seen, "the test never called watch.check_seen"
