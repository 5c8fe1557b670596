"""The stores that the lifecycle of a model works with, real ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from tests.conftest import Roles, make_bucket


@pytest.fixture
def services(database: Roles, s3_moto: S3Access, tmp_path: Path) -> Iterator[Services]:
    """The migrated database of this test module and an empty bucket of this test; no model is registered for it."""
    s3 = replace(s3_moto, bucket=f"models-{secrets.token_hex(6)}")
    make_bucket(s3)
    (tmp_path / "staging").mkdir()
    settings = Settings(
        staging_root=(tmp_path / "staging").as_uri(),
        cache_dir=str(tmp_path / "cache"),
        decode_workers=1,
        inference_threads=1,
    )
    with open_services(settings=settings, s3=s3, database=database.app) as opened:
        yield opened
