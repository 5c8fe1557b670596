"""Reads what the desk's first page shows of a night beyond its report: its runs, and a calendar of nights."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from refund.records import OutcomeCounts, Reconciliation
from refund.store.alerts import RESOLVED_BY
from refund.store.nights import RECONCILIATION

if TYPE_CHECKING:
    from refund.store.database import Database

# A night whose health check failed has no run, only what was told of it. A real night comes before any made-up one.
NIGHT_SPAN = """
WITH night AS (
  SELECT run_date, synthetic FROM refund.run WHERE state <> 'dry_run'
  UNION ALL
  SELECT run_date, synthetic FROM refund.alert WHERE rule = 'failed_night')
SELECT (SELECT min(run_date) FROM night), (SELECT run_date FROM night ORDER BY synthetic, run_date DESC LIMIT 1)
"""

LAST_COMPLETE = "SELECT max(run_date) FROM refund.run WHERE state = 'published' AND NOT synthetic"

# Who failed at the health check is told of by an alert alone; a later run that went well closes it.
FAILED_UNSEEN = """
SELECT EXISTS (SELECT FROM refund.alert
  WHERE run_date = %(run_date)s AND rule = 'failed_night' AND acknowledged_by IS DISTINCT FROM %(resolved_by)s)
"""

NIGHT_RUNS = """
SELECT run_id, state, model, photos, classified, rejected, unchanged, synthetic, started_at, published_at, finished_at
FROM refund.run WHERE run_date = %(run_date)s ORDER BY synthetic, number DESC
"""

# One row per date: where a real night and a made-up one share it, the real one. How many photos stand for a night its
# report says; to count them would take as long as there are photos.
CALENDAR = """
WITH night AS (
  SELECT run_date, synthetic, bool_or(state = 'published') AS published, bool_or(state = 'running') AS running,
         (array_agg(run_id ORDER BY published_at DESC) FILTER (WHERE state = 'published'))[1] AS run_id
  FROM refund.run
  WHERE run_date BETWEEN %(first)s AND %(last)s AND state <> 'dry_run' GROUP BY run_date, synthetic
), told AS (
  SELECT run_date, synthetic, count(*) FILTER (WHERE acknowledged_at IS NULL) AS open_alerts,
         bool_or(rule = 'failed_night' AND acknowledged_by IS DISTINCT FROM %(resolved_by)s) AS failed
  FROM refund.alert WHERE run_date BETWEEN %(first)s AND %(last)s GROUP BY run_date, synthetic
)
SELECT DISTINCT ON (day.run_date) day.run_date,
       CASE WHEN day.published THEN 'published' WHEN day.running THEN 'running'
            WHEN day.published IS NOT NULL OR day.failed THEN 'failed' ELSE 'missing' END,
       COALESCE((p.body ->> 'night_photos')::bigint, r.photos),
       EXISTS (SELECT FROM refund.drift d WHERE d.run_id = day.run_id AND d.status = 'drift'),
       COALESCE(day.open_alerts, 0), day.synthetic
FROM (night FULL JOIN told USING (run_date, synthetic)) AS day
LEFT JOIN refund.run r ON r.run_id = day.run_id
LEFT JOIN refund.report p ON p.run_id = day.run_id
ORDER BY day.run_date, day.synthetic
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRunRow:
    """One run of a night; counts are None until it is published or dry-run."""

    run_id: str
    state: str  # running, published, failed, dry_run
    model: str
    photos: int | None
    classified: int | None
    rejected: int | None
    unchanged: int | None
    synthetic: bool
    started_at: datetime
    published_at: datetime | None
    finished_at: datetime | None

    @property
    def counts(self) -> OutcomeCounts | None:
        """What became of its photos, once known."""
        return OutcomeCounts.if_known(
            photos=self.photos, classified=self.classified, rejected=self.rejected, unchanged=self.unchanged
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRow:
    """A night as its runs left it."""

    run_date: date
    runs: tuple[NightRunRow, ...]  # the latest first, made-up ones last
    failed_unseen: bool  # an alert tells of a failed run that nothing made good since
    last_complete: date | None  # newest real night that was published, of all

    @property
    def real_runs(self) -> tuple[NightRunRow, ...]:
        """Those that were to publish: of a night that is also in the demo the real ones alone."""
        runs = [run for run in self.runs if run.state != "dry_run"]
        return tuple(run for run in runs if not run.synthetic) or tuple(runs)

    @property
    def published(self) -> NightRunRow | None:
        """The run that was published last, whose report is the night's."""
        found = [run for run in self.real_runs if run.state == "published"]
        return max(found, key=lambda run: run.published_at or run.started_at, default=None)

    @property
    def state(self) -> str:
        """published, running, failed or missing."""
        if self.published:
            return "published"
        if any(run.state == "running" for run in self.real_runs):
            return "running"
        return "failed" if self.real_runs or self.failed_unseen else "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDay:
    """One night of a calendar."""

    run_date: date
    state: str  # as of `NightRow.state`
    photos: int | None  # that stand for it; None where nothing is published
    drift: bool
    open_alerts: int
    synthetic: bool


def night_span(database: Database) -> tuple[date, date] | None:
    """The dates of the oldest and of the newest night that began, or tried to; None before the first.

    The newest is a real one wherever there is any.
    """
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(NIGHT_SPAN)
        oldest, newest = cursor.fetchall()[0]
        return None if newest is None else (oldest, newest)


def get_night(database: Database, run_date: date) -> NightRow:
    """The night of this date; one that nobody ran has no runs."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        values = {"run_date": run_date, "resolved_by": RESOLVED_BY}
        cursor.execute(NIGHT_RUNS, values)
        names = tuple(NightRunRow.__dataclass_fields__)
        runs = tuple(NightRunRow(**dict(zip(names, row, strict=True))) for row in cursor.fetchall())
        cursor.execute(FAILED_UNSEEN, values)
        failed_unseen = bool(cursor.fetchall()[0][0])
        cursor.execute(LAST_COMPLETE)
        last_complete = cursor.fetchall()[0][0]
    return NightRow(run_date=run_date, runs=runs, failed_unseen=failed_unseen, last_complete=last_complete)


def get_reconciliation(database: Database, run_id: str) -> Reconciliation | None:
    """Whether the tables hold what the run listed, as they stand now; None before it is published."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(RECONCILIATION, {"run_id": run_id})
        row = cursor.fetchone()
        return (
            None if row is None else Reconciliation(**dict(zip(Reconciliation.__dataclass_fields__, row, strict=True)))
        )


def calendar_days(database: Database, *, first: date, last: date) -> list[CalendarDay]:
    """The nights from ``first`` to ``last`` that left a trace, oldest first; dates without one are not there."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(CALENDAR, {"first": first, "last": last, "resolved_by": RESOLVED_BY})
        names = tuple(CalendarDay.__dataclass_fields__)
        return [CalendarDay(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
