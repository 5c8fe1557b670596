"""The rows that a night leaves, without what depends on the clock: equal for equal nights."""

from __future__ import annotations

from typing import Any

from refund.settings import DatabaseAccess
from refund.store.database import Database

_LEFT_OUT = {  # clocks, durations and numbers that gaps may be in
    "run": {"stage_seconds", "stage_metrics", "started_at", "published_at", "finished_at", "number", "listed"},
    "decision": {"decided_at"},
    "drift": {"computed_at"},
    "report": {"created_at", "body"},
}
TABLES = ("run", "photo", "run_photo", "prediction", "decision", "drift", "report")


def night_tables(access: DatabaseAccess) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of `TABLES`, sorted, as text; two nights of one bucket, run id and model must give the same."""
    found = {}
    with Database(access).connect(readonly=True) as connection, connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'refund' AND table_name = %s",
                (table,),
            )
            columns = sorted({name for (name,) in cursor.fetchall()} - _LEFT_OUT.get(table, set()))
            cursor.execute(f"SELECT {', '.join(columns)} FROM refund.{table}")
            found[table] = sorted(cursor.fetchall(), key=repr)
    return found
