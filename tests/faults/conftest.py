"""What tests of faults share: the watch that holds them to the page, and the rows that must be the same afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from refund.settings import S3Access
from tests.faults.catalogue import Watch
from tests.faults.live import Ground, live_ground
from tests.night.conftest import World, new_world, world  # noqa: F401  (a fixture)
from tests.postgres import Cluster, cluster

pytest.register_assert_rewrite("tests.faults.undisturbed")  # its checks say what they saw


@pytest.fixture
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Fails a test that did not compare what was seen with what the page says."""
    watch = Watch(request.function.__fault__)
    yield watch
    assert watch.was_seen, "the test never called watch.check_seen"


@pytest.fixture(scope="package")  # not idle beside the tests that come after
def faults_ground() -> Iterator[Ground]:
    """The one live stack of the tests of faults, whose Airflow is quicker to give up; takes half a minute."""
    with live_ground() as ground:
        yield ground


@pytest.fixture(scope="module")
def mortal() -> Iterator[Cluster]:
    """A Postgres server that the tests of one module may kill, stop and start; it has to run when they end."""
    with cluster() as server:
        yield server


@pytest.fixture
def mortal_world(mortal: Cluster, s3_moto: S3Access, tmp_path: Path) -> Iterator[World]:
    """A world whose Postgres may be killed."""
    with new_world(mortal.roles, s3_moto, tmp_path) as made:
        yield made
