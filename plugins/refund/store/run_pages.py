"""Reads runs for people: a page of all, and everything about those of one night."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.store.database import Database

RUN_COLUMNS = (
    "run_date", "run_id", "state", "synthetic", "model", "models", "taxonomy_version", "code_version", "photos",
    "classified", "rejected", "unchanged", "rejected_share", "photos_per_second", "error_rate", "started_at",
    "published_at", "finished_at",
)  # fmt: skip
RECONCILIATION_COLUMNS = (
    "manifest", "packed", "predicted", "outcomes", "classified", "rejected", "unchanged", "overtaken", "decisions",
    "adds_up",
)  # fmt: skip
STAGE_COLUMNS = (
    "stage", "seconds", "photos", "failed", "photos_per_second", "error_rate", "p50_ms", "p95_ms", "p99_ms", "max_ms",
)  # fmt: skip
_STAGES = "health_check", "fetch", "validate", "classify", "persist", "generate_report"

# The newest start of one date first: a night that was run again has several.
PAGE = """
SELECT {columns} FROM reporting.runs
ORDER BY run_date DESC, started_at DESC, run_id LIMIT %(limit)s OFFSET %(skipped)s
""".format(columns=", ".join(RUN_COLUMNS))
OF_DATE = """
SELECT {columns}, params, notes FROM reporting.runs
WHERE run_date = %(run_date)s ORDER BY started_at DESC, run_id
""".format(columns=", ".join(RUN_COLUMNS))
RECONCILIATION = """
SELECT run_id, {columns} FROM reporting.reconciliation WHERE run_date = %(run_date)s
""".format(columns=", ".join(RECONCILIATION_COLUMNS))
STAGES = """
SELECT run_id, {columns} FROM reporting.stage_metrics WHERE run_date = %(run_date)s
ORDER BY array_position(%(stages)s::text[], stage), stage
""".format(columns=", ".join(STAGE_COLUMNS))


def run_page(database: Database, *, limit: int, skipped: int = 0) -> tuple[list[dict[str, Any]], bool]:
    """Runs as `RUN_COLUMNS`, the newest night first, and whether there are more; made-up ones say so."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(PAGE, {"limit": limit + 1, "skipped": skipped})
        found = [dict(zip(RUN_COLUMNS, row, strict=True)) for row in cursor.fetchall()]
        return found[:limit], len(found) > limit


def runs_of(database: Database, run_date: date) -> list[dict[str, Any]]:
    """All runs of a date, last begun first: `RUN_COLUMNS`, params, notes, reconciliation and stages.

    There is no reconciliation before a run is published.
    """
    values = {"run_date": run_date, "stages": list(_STAGES)}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(OF_DATE, values)
        runs = [dict(zip((*RUN_COLUMNS, "params", "notes"), row, strict=True)) for row in cursor.fetchall()]
        cursor.execute(RECONCILIATION, values)
        sums = {run_id: dict(zip(RECONCILIATION_COLUMNS, row, strict=True)) for run_id, *row in cursor.fetchall()}
        cursor.execute(STAGES, values)
        stages: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for run_id, *row in cursor.fetchall():
            stages[run_id].append(dict(zip(STAGE_COLUMNS, row, strict=True)))
    return [run | {"reconciliation": sums.get(run["run_id"]), "stages": stages[run["run_id"]]} for run in runs]
