"""How far a night is: begun, published, in agreement with itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refund.store.database import Database

# The first publication: a second run of the same date does not make a punctual night late.
PROGRESS = """
SELECT min(published_at) FILTER (WHERE state = 'published'),
  (array_agg(state ORDER BY started_at DESC))[1], (array_agg(run_id ORDER BY started_at DESC))[1]
FROM refund.run WHERE run_date = %(run_date)s AND NOT synthetic AND state <> 'dry_run'
"""


ADDS_UP = "SELECT bool_and(adds_up) FROM reporting.reconciliation WHERE run_id = %(run_id)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class NightProgress:
    """How far a night is, over all its runs."""

    run_date: date
    published_at: datetime | None  # first; None: it is not
    last_state: str | None  # of its newest run: running, published or failed; None: none began
    last_run_id: str | None


def night_progress(database: Database, run_date: date) -> NightProgress:
    """How far the night is; dry runs and made-up nights do not count."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(PROGRESS, {"run_date": run_date})
        published_at, last_state, last_run_id = cursor.fetchall()[0]
    return NightProgress(run_date=run_date, published_at=published_at, last_state=last_state, last_run_id=last_run_id)


def run_adds_up(database: Database, run_id: str) -> bool:
    """Whether the tables agree about a published run; True also for one that is not published."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(ADDS_UP, {"run_id": run_id})
        return cursor.fetchall()[0] != (False,)
