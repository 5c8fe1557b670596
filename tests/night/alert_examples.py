"""One finding of every rule, as the night would raise it; for the page of alerts, its mail, and the SQL in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from refund.monitor.drift import MEASURES
from refund.night.alert_rules import (
    NightFacts,
    RuleLimits,
    drift_finding,
    never_started_finding,
    night_findings,
    not_published_finding,
    overdue_finding,
)
from refund.night.finding import Finding
from refund.records import OutcomeCounts
from refund.store.records import DriftRow

DAY = date(2026, 11, 21)  # a Saturday
WINDOW = [date(2026, 11, 13 + number).isoformat() for number in range(8)]
MOVES = [
    {"category": "women's shoes", "tonight_share": 0.174, "reference_share": 0.12},
    {"category": "bags", "tonight_share": 0.10, "reference_share": 0.125},
    {"category": "books", "tonight_share": 0.2, "reference_share": 0.21},
]
VALUES: dict[str, dict[str, Any]] = {
    "category_shares": {"moves": MOVES},
    "largest_move": {"moves": MOVES[:1], "tonight_value": 0.174, "reference_value": 0.12},
    "volume": {"moves": [], "tonight_value": 300.0, "reference_value": 1004.3},
    "rejection_rate": {"moves": [], "tonight_value": 0.093, "reference_value": 0.021},
}


def drift_row(measure: str = "category_shares", **over: Any) -> DriftRow:
    """A drift row of one measure, drifted."""
    fields: dict[str, Any] = {
        "run_id": "scheduled__2026-11-22T02:00:00+00:00",
        "measure": measure,
        "run_date": DAY,
        "status": "drift",
        "distance": 0.1312,
        "threshold": 0.1,
        "p_value": 0.0001,
        "tonight_photos": 1013,
        "reference_photos": 8004,
        "reference_nights": 8,
        "floor": 0.1,
        "alpha": 0.02,
        "overdispersion": 0.0021,
        "details": {"nights": WINDOW, "basis": "all_nights", **VALUES[measure]},
        "computed_at": datetime(2026, 11, 22, 2, 20, tzinfo=UTC),
    }
    return DriftRow(**(fields | over))


def night(**over: Any) -> NightFacts:
    """A night in which all is well."""
    fields: dict[str, Any] = {
        "run_id": "r1",
        "run_date": DAY,
        "failed_tasks": [],
        "published": True,
        "dry_run": False,
        "has_report": True,
        "counts": OutcomeCounts(photos=1000, classified=980, rejected=20, unchanged=0),
        "drift": [drift_row(measure, status="ok") for measure in MEASURES],
    }
    return NightFacts(**(fields | over))


def every_finding() -> list[Finding]:
    """At least one of every rule that a night or the check raises."""
    fell = drift_row("rejection_rate")
    fell = replace(fell, details=fell.details | {"tonight_value": 0.001})
    nights = [
        night(failed_tasks=["fetch", "persist"], published=False, counts=None, drift=[]),
        night(has_report=False, adds_up=False, drift=[drift_row(measure) for measure in MEASURES]),
        night(counts=OutcomeCounts(photos=0, classified=0, rejected=0, unchanged=0), drift=[]),
        night(counts=OutcomeCounts(photos=100, classified=50, rejected=50, unchanged=0), drift=[]),
    ]
    found = [finding for facts in nights for finding in night_findings(facts, limits=RuleLimits())]
    return [
        *found,
        drift_finding(fell),
        overdue_finding(run_id="r1", run_date=DAY),
        never_started_finding(DAY, by="2026-11-22 06:00"),
        not_published_finding(DAY, by="2026-11-22 06:00", state="running"),
    ]
