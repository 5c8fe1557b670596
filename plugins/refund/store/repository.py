"""Reads and writes the rows of ``refund``: runs, standing outcomes, reports.

Every method is one transaction. Publishing a night is `refund.store.publish`, its figures are `refund.store.nights`,
drift is `refund.store.drift`, alerts are `refund.store.alerts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from refund.errors import FatalRunError, QueryError, ReasonCode
from refund.store import nights
from refund.store.records import NightFigures, ReportRow, RunRow

if TYPE_CHECKING:
    from refund.monitor.stage_metrics import StageMetrics
    from refund.store.database import Database

# {columns} below stands for these; no value ever enters a statement but as a bound parameter.
_RUN_COLUMNS = ", ".join(RunRow.__dataclass_fields__)

# A run that is begun again keeps what it was begun with: its tasks may have been cleared halfway.
BEGIN_RUN = """
INSERT INTO refund.run AS known (run_id, run_date, state, model, taxonomy_version, code_version, params, started_at)
VALUES (%(run_id)s, %(run_date)s, 'running', %(model)s, %(taxonomy_version)s, %(code_version)s, %(params)s, %(at)s)
ON CONFLICT (run_id) DO UPDATE SET
  state = CASE WHEN known.state = 'published' THEN 'published' ELSE 'running' END,
  finished_at = CASE WHEN known.state = 'published' THEN known.finished_at END
RETURNING {columns}
"""

GET_RUN = "SELECT {columns} FROM refund.run WHERE run_id = %(run_id)s"

LOOKED_AT = """
SELECT run_date, max((params ->> 'late_days')::integer) FROM refund.run WHERE state = 'published' AND NOT synthetic
GROUP BY run_date ORDER BY run_date
"""

# A run that was killed for good stays "running"; after a day nobody waits for it.
UNDER_WAY = """
SELECT DISTINCT run_date FROM refund.run
WHERE state = 'running' AND NOT synthetic AND run_id <> %(run_id)s AND started_at > %(at)s - interval '1 day'
"""

BEGIN_LISTING = "UPDATE refund.run SET listed = nextval('refund.run_number_seq') WHERE run_id = %(run_id)s"

MARK_RUN_FAILED = """
UPDATE refund.run SET state = 'failed', finished_at = %(at)s WHERE run_id = %(run_id)s AND state = 'running'
"""

FINISH_RUN = "UPDATE refund.run SET finished_at = %(at)s WHERE run_id = %(run_id)s"

SET_STAGE_METRICS = """
UPDATE refund.run SET stage_metrics = stage_metrics || %(stage_metrics)s::jsonb,
  stage_seconds = stage_seconds || %(stage_seconds)s::jsonb
WHERE run_id = %(run_id)s
"""

ADD_NOTES = """
UPDATE refund.run SET notes = notes || ARRAY(
  SELECT note FROM unnest(%(notes)s::text[]) WITH ORDINALITY AS new (note, place)
  WHERE note <> ALL (notes) ORDER BY place)
WHERE run_id = %(run_id)s
"""

STANDING_OUTCOMES = """
SELECT d.photo_id::text FROM refund.decision d
WHERE d.photo_date = ANY (%(photo_dates)s::date[]) AND d.superseded_by IS NULL AND d.run_id <> %(run_id)s
  AND NOT d.synthetic
  AND d.model = %(model)s AND d.taxonomy_version = %(taxonomy_version)s AND d.threshold = %(threshold)s::real
UNION ALL
SELECT p.photo_id::text FROM refund.run_photo p
WHERE p.photo_date = ANY (%(photo_dates)s::date[]) AND p.superseded_by IS NULL AND p.run_id <> %(run_id)s
  AND NOT p.synthetic
  AND p.outcome = 'rejected' AND p.requeued_at IS NULL AND p.reason = ANY (%(final_reasons)s::text[])
"""

SAVE_REPORT = """
INSERT INTO refund.report (run_id, run_date, body, html_uri, csv_uri, synthetic, created_at)
VALUES (%(run_id)s, %(run_date)s, %(body)s, %(html_uri)s, %(csv_uri)s,
  (SELECT synthetic FROM refund.run WHERE run_id = %(run_id)s), %(at)s)
ON CONFLICT (run_id) DO UPDATE SET run_date = EXCLUDED.run_date, body = EXCLUDED.body, html_uri = EXCLUDED.html_uri,
  csv_uri = EXCLUDED.csv_uri, created_at = EXCLUDED.created_at
"""

SAVE_EXPORT_URI = "UPDATE refund.report SET export_uri = %(uri)s WHERE run_id = %(run_id)s"

GET_REPORT = """
SELECT p.run_id, p.run_date, p.body, p.html_uri, p.csv_uri, p.created_at, p.export_uri FROM refund.report p
JOIN refund.run r USING (run_id)
WHERE (%(run_id)s::text IS NULL OR p.run_id = %(run_id)s) AND (%(run_date)s::date IS NULL OR p.run_date = %(run_date)s)
ORDER BY r.synthetic, p.run_date DESC, r.published_at DESC LIMIT 1
"""

# Faults of a query that the driver files under those of the connection: object not in prerequisite state (to write into
# a view that takes no rows), statement too complex, too many columns, too many arguments.
_STATES_OF_THE_QUERY = frozenset({"55000", "54001", "54011", "54023"})

SELECT_TIMEOUT_S = 60
# What Postgres takes into a cursor; comments and brackets may come before it. The rest (EXPLAIN, SHOW) answers briefly.
_TAKES_CURSOR = re.compile(r"(\s|\(|--[^\n]*\n|/\*.*?\*/)*(SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE | re.DOTALL)

FINAL_REASONS = [reason.value for reason in ReasonCode if reason.is_final]


class Repository:
    """The rows of ``refund`` as the application's role reads and writes them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def begin_run(
        self,
        *,
        run_id: str,
        run_date: date,
        model: str,
        taxonomy_version: str,
        code_version: str,
        params: Mapping[str, Any],
        started_at: datetime,
    ) -> RunRow:
        """Begin a run, or find it again: then model, taxonomy, params and start stay as they were.

        A failed run goes back to running; a published one stays published.

        Raises:
            FatalRunError: the run is known under another run date.
        """
        values = {
            "run_id": run_id,
            "run_date": run_date,
            "model": model,
            "taxonomy_version": taxonomy_version,
            "code_version": code_version,
            "params": json.dumps(dict(params)),
            "at": started_at,
        }
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(BEGIN_RUN.format(columns=_RUN_COLUMNS), values)
            row = _run_row(cursor.fetchone())
            if row.run_date != run_date:
                msg = (
                    f"run {run_id!r} began as the night of {row.run_date}, now it says {run_date}; one run is one "
                    f"night. Trigger a new run for {run_date}"
                )
                raise FatalRunError(msg)
        return row

    def get_run(self, run_id: str) -> RunRow | None:
        """The run, or None where it never began."""
        row = self._one(GET_RUN.format(columns=_RUN_COLUMNS), {"run_id": run_id})
        return None if row is None else _run_row(row)

    def require_run(self, run_id: str) -> RunRow:
        """The run, which must have begun.

        Raises:
            FatalRunError: it never did.
        """
        row = self.get_run(run_id)
        if row is None:
            msg = f"run {run_id!r} has no row in refund.run; expected that health_check began it. Clear it from there"
            raise FatalRunError(msg)
        return row

    def looked_at_dates(self) -> list[tuple[date, int]]:
        """Run date and ``late_days`` of every published night: which photo dates were looked at."""
        with self.database.connect(readonly=True) as connection, connection.cursor() as cursor:
            cursor.execute(LOOKED_AT)
            return [(run_date, late_days) for run_date, late_days in cursor.fetchall()]

    def nights_under_way(self, *, exclude_run_id: str, at: datetime) -> set[date]:
        """Run dates of other runs that began within a day before ``at`` and have not ended."""
        with self.database.connect(readonly=True) as connection, connection.cursor() as cursor:
            cursor.execute(UNDER_WAY, {"run_id": exclude_run_id, "at": at})
            return {run_date for (run_date,) in cursor.fetchall()}

    def begin_listing(self, run_id: str) -> None:
        """Give the run its place in the order of listings: of two versions of a photo the one listed later is newer."""
        self._change(BEGIN_LISTING, {"run_id": run_id})

    def mark_run_failed(self, run_id: str, at: datetime) -> bool:
        """Mark a running run as failed; False where there was none (published, dry run, unknown)."""
        return self._change(MARK_RUN_FAILED, {"run_id": run_id, "at": at}) == 1

    def finish_run(self, run_id: str, at: datetime) -> None:
        """Note when the last task ended."""
        self._change(FINISH_RUN, {"run_id": run_id, "at": at})

    def set_stage_metrics(self, run_id: str, stages: Mapping[str, StageMetrics]) -> None:
        """Note the figures of the stages named, over what they had: a task that is tried again adds nothing."""
        values = {
            "stage_metrics": json.dumps({name: stage.to_json() for name, stage in stages.items()}),
            "stage_seconds": json.dumps({name: round(stage.seconds, 3) for name, stage in stages.items()}),
        }
        self._change(SET_STAGE_METRICS, {"run_id": run_id, **values})

    def add_notes(self, run_id: str, notes: Sequence[str]) -> None:
        """Append notes that the run does not have yet."""
        self._change(ADD_NOTES, {"run_id": run_id, "notes": list(dict.fromkeys(notes))})

    def standing_outcomes(
        self,
        photo_dates: Sequence[date],
        *,
        model: str,
        taxonomy_version: str,
        threshold: float,
        exclude_run_id: str,
    ) -> set[UUID]:
        """Photos of these dates that tonight need not look at again.

        Their live decision was made with the same model, taxonomy version and threshold, or they are rejected for a
        reason that lies in the photo itself and were not requeued since. What ``exclude_run_id`` decided does not
        count: a run that is cleared makes its own plan again.
        """
        values = {
            "photo_dates": list(photo_dates),
            "model": model,
            "taxonomy_version": taxonomy_version,
            "threshold": threshold,
            "run_id": exclude_run_id,
            "final_reasons": FINAL_REASONS,
        }
        with self.database.connect(readonly=True) as connection, connection.cursor("standing_outcomes") as cursor:
            cursor.itersize = 10_000  # a server-side cursor: the driver holds one slice, not the whole answer
            cursor.execute(STANDING_OUTCOMES, values)
            return {UUID(photo_id) for (photo_id,) in cursor}

    def save_report(
        self, *, run_id: str, run_date: date, body: Mapping[str, Any], html_uri: str, csv_uri: str, at: datetime
    ) -> None:
        """Write the run's report, over an earlier one of the same run."""
        values = {"run_id": run_id, "run_date": run_date, "body": json.dumps(body)}
        self._change(SAVE_REPORT, {**values, "html_uri": html_uri, "csv_uri": csv_uri, "at": at})

    def save_export_uri(self, run_id: str, uri: str) -> None:
        """Note beside the run's report where the night's export lies."""
        self._change(SAVE_EXPORT_URI, {"run_id": run_id, "uri": uri})

    def get_report(self, *, run_id: str | None = None, run_date: date | None = None) -> ReportRow | None:
        """The report of a run, or the newest of a night; with neither, the newest of all.

        Of a night that is also in the demo, and of all nights, a real one comes before any that is made up.
        """
        row = self._one(GET_REPORT, {"run_id": run_id, "run_date": run_date})
        if row is None:
            return None
        return ReportRow(**dict(zip(ReportRow.__dataclass_fields__, row, strict=True)))

    def night_figures(self, run_id: str) -> NightFigures:
        """The figures of the run and its night, see `refund.store.nights.night_figures`."""
        return nights.night_figures(self.database, run_id)

    def select(self, sql: str, *, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and at most ``limit`` rows of a query that a person typed, in a read-only transaction.

        Only these rows leave the server, which gives up after `SELECT_TIMEOUT_S`.

        Raises:
            QueryError: Postgres refused it, it returns no rows, or it takes too long.
        """
        import psycopg2
        from psycopg2 import errors

        with self.database.connect(readonly=True) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = %s", (f"{SELECT_TIMEOUT_S * 1000:.0f}ms",))
            with connection.cursor("typed_query" if _TAKES_CURSOR.match(sql) else None) as cursor:
                try:
                    cursor.execute(sql)
                    if cursor.name is None and cursor.description is None:
                        msg = f"expected a query that returns rows, such as SELECT; got {sql.strip()[:80]!r}"
                        raise QueryError(msg)
                    rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
                except errors.QueryCanceled as exc:
                    msg = (
                        f"Postgres took longer than {SELECT_TIMEOUT_S} s over the query; narrow it, for example by date"
                    )
                    raise QueryError(msg) from exc
                except psycopg2.Error as exc:
                    if isinstance(exc, psycopg2.OperationalError) and exc.pgcode not in _STATES_OF_THE_QUERY:
                        raise  # the connection, not the query
                    # not the whole text: its quotation begins with the DECLARE that is not the person's
                    said = ". ".join(part for part in (exc.diag.message_primary, exc.diag.message_hint) if part)
                    msg = f"Postgres refused the query: {said or str(exc).strip()}"
                    raise QueryError(msg) from exc
                return [column.name for column in cursor.description or ()], rows

    def _one(self, sql: str, values: Mapping[str, Any], *, readonly: bool = True) -> tuple[Any, ...] | None:
        with self.database.connect(readonly=readonly) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row

    def _change(self, sql: str, values: Mapping[str, Any]) -> int:
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return int(cursor.rowcount)


def _run_row(row: Any) -> RunRow:
    values = dict(zip(RunRow.__dataclass_fields__, row, strict=True))
    return RunRow(**{**values, "notes": tuple(values["notes"]), "models": tuple(values["models"])})
