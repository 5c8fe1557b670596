"""The stores that the lifecycle of a model works with, real ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from refund.store.objects import ObjectStore
from refund.store.registry import Registry
from tests.conftest import Roles, make_bucket
from tests.lifecycle.rejects import Rejects
from tests.store.factories import register_models


@pytest.fixture(scope="module")
def bucket(s3_moto: S3Access) -> ObjectStore:
    """A bucket of this test module, by one client: making one takes half a second."""
    access = replace(s3_moto, bucket=f"models-{secrets.token_hex(6)}")
    make_bucket(access)
    return ObjectStore(access)


@pytest.fixture
def services(database: Roles, bucket: ObjectStore, tmp_path: Path) -> Iterator[Services]:
    """The migrated database of this test module and a bucket that is empty when a test begins."""
    (tmp_path / "staging").mkdir()
    settings = Settings(
        staging_root=(tmp_path / "staging").as_uri(),
        cache_dir=str(tmp_path / "cache"),
        decode_workers=1,
        inference_threads=1,
    )
    with open_services(settings=settings, s3=bucket.access, database=database.app) as opened:
        yield replace(opened, objects=bucket, registry=Registry(objects=bucket, database=opened.database))
    for item in list(bucket.list("")):
        bucket.delete(item.key)


_dates = iter(date(2026, 3, 1) + timedelta(days=number) for number in range(200))


@pytest.fixture
def rejects(services: Services, database: Roles) -> Rejects:
    register_models(database)
    return Rejects(services=services, roles=database, run_date=next(_dates))
