"""A night of the live tests of faults, and the same night with nothing happening to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from refund.night.alert_on_drift import raise_alerts
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.generate_report import write_report
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun, Services
from refund.night.validate import validate_shard
from refund.params import NightParams


@dataclass(frozen=True, kw_only=True)
class LiveNight:
    """One run of ``refund_nightly`` with photos of its own, below a prefix of its own."""

    run_id: str
    run_date: date
    photos: int

    @property
    def prefix(self) -> str:
        return f"{self.run_id}/"

    @property
    def params(self) -> dict[str, Any]:
        return {"run_date": self.run_date.isoformat(), "prefix": self.prefix}


def run_undisturbed(night: LiveNight, services: Services) -> None:
    """The seven tasks of the night, one after the other, without Airflow."""
    run = NightRun(run_id=night.run_id, run_date=night.run_date, params=NightParams.from_mapping(night.params))
    check_health(run, services, plugin_errors={})
    for shard_uri in fetch_manifest(run, services):
        validate_shard(shard_uri, run=run, services=services)
        classify_shard(shard_uri, run=run, services=services)
    persist_run(run, services)
    write_report(run, services)
    raise_alerts(run, services, task_states={})


def rows_of_night(night: LiveNight, tables: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Those rows of `tests.faults.tables.night_tables` that belong to the night; no two nights share a date."""
    return {
        table: [row for row in rows if night.run_date in row or night.run_id in row] for table, rows in tables.items()
    }
