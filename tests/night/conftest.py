"""A night's stores, real ones: Postgres, an S3 server over HTTP, a staging folder, and a small model as champion."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from refund.night.alert_on_drift import raise_alerts
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.generate_report import write_report
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun, Services, open_services
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.settings import S3Access, Settings
from tests.conftest import Roles, make_bucket, migrated_database
from tests.night.factories import jpeg, write_model

DAY = date(2026, 11, 21)


@dataclass(frozen=True, kw_only=True)
class World:
    """The stores of one test, and the night as Airflow would run it."""

    services: Services
    roles: Roles
    s3: S3Access
    folder: Path  # for files of the test

    def register(self, version: str, **over: Any) -> str:
        """Another version of the tiny model, registered; returns its name@version."""
        folder = self.folder / f"model-{version}"
        write_model(folder, version=version, **{"seed": int(version), **over})
        return self.services.registry.register(folder, created_by="test").model

    def promote(self, model: str) -> None:
        self.services.registry.promote("champion", model, by="test", reason="better")

    def rollback(self) -> None:
        self.services.registry.rollback("champion", by="test", reason="worse")

    def put(self, name: str, body: bytes, *, day: date = DAY) -> str:
        key = f"incoming/{day.isoformat()}/{name}"
        self.services.objects.put(key, body, content_type="image/jpeg")
        return key

    def start(self, run_id: str, *, day: date = DAY, **params: Any) -> NightRun:
        run = NightRun(run_id=run_id, run_date=day, params=NightParams(**params))
        check_health(run, self.services, plugin_errors={})
        return run

    def stage(self, run: NightRun) -> None:
        """Everything up to persist."""
        for shard_uri in fetch_manifest(run, self.services):
            self.shard(shard_uri, run)

    def shard(self, shard_uri: str, run: NightRun) -> None:
        validate_shard(shard_uri, run=run, services=self.services)
        classify_shard(shard_uri, run=run, services=self.services)

    def finish(self, run: NightRun) -> dict[str, int]:
        counts = persist_run(run, self.services)
        write_report(run, self.services)
        raise_alerts(run, self.services, task_states={})
        return counts

    def night(self, run_id: str, *, day: date = DAY, **params: Any) -> dict[str, int]:
        """One whole night; returns its counts."""
        run = self.start(run_id, day=day, **params)
        self.stage(run)
        return self.finish(run)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.services.repository.select(sql)[1]

    def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """What must not change when a night is run again."""
        return {
            table: self.rows(f"SELECT * FROM refund.{table} ORDER BY photo_date, photo_id")
            for table in ("photo", "prediction", "decision")
        }


def fill(world: World, count: int = 6, *, day: date = DAY) -> list[str]:
    """Photos of a date, two of each refund; returns their keys."""
    return [world.put(f"R-{seed // 2}/{seed}.jpg", jpeg(seed), day=day) for seed in range(count)]


@contextmanager
def new_world(postgres: Roles, s3_moto: S3Access, folder: Path) -> Iterator[World]:
    """A migrated database, an empty bucket and a champion; ``folder`` gets the files."""
    s3 = replace(s3_moto, bucket=f"night-{secrets.token_hex(6)}")
    make_bucket(s3)
    settings = Settings(
        staging_root=(folder / "staging").as_uri(),
        cache_dir=str(folder / "cache"),
        report_dir=str(folder / "reports"),
        decode_workers=1,
        inference_threads=1,
    )
    (folder / "staging").mkdir()
    with (
        migrated_database(postgres) as roles,
        open_services(settings=settings, s3=s3, database=roles.app) as services,
    ):
        world = World(services=services, roles=roles, s3=s3, folder=folder)
        world.promote(world.register("1"))
        yield world


@pytest.fixture
def world(postgres: Roles, s3_moto: S3Access, tmp_path: Path) -> Iterator[World]:
    """A world of this test alone."""
    with new_world(postgres, s3_moto, tmp_path) as world:
        yield world
