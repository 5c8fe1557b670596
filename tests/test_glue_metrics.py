"""The counts of a published night reach Airflow's metrics; those of a dry run do not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.observability import stats

from refund.airflow_glue import published_only
from refund.night.services import NightRun
from refund.params import NightParams

COUNTS = {"photos": 7, "classified": 5, "rejected": 1, "unchanged": 1}


class Kept(NoStatsLogger):
    """Airflow's metrics, kept."""

    gauges: dict[str, float]

    def gauge(self, stat: str, value: float, *_: object, **__: object) -> None:
        self.gauges[stat] = value


@pytest.fixture
def gauges() -> Iterator[dict[str, float]]:
    backend = Kept()
    backend.gauges = {}
    stats.initialize(factory=lambda: backend, export_legacy_names=True)
    yield backend.gauges
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


def night(*, dry_run: bool) -> NightRun:
    return NightRun(run_id="r1", run_date=date(2026, 11, 21), params=NightParams(dry_run=dry_run))


def test_the_counts_of_a_published_night_are_gauges(gauges: dict[str, float]) -> None:
    assert published_only(night(dry_run=False), COUNTS) == COUNTS
    assert gauges == {f"refund.{outcome}": photos for outcome, photos in COUNTS.items()}


def test_a_dry_run_tells_metrics_nothing(gauges: dict[str, float]) -> None:
    with pytest.raises(AirflowSkipException, match="dry run: nothing was published of"):
        published_only(night(dry_run=True), COUNTS)
    assert gauges == {}
