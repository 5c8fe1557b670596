"""Reads one night refund by refund, for the export to the systems downstream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.store.database import Database

LOCK_SPACE = 7_336_865  # pg_advisory_xact_lock of two numbers, the second the date's: one export of a night at a time
LOCK_TIMEOUT = "10min"  # longer than any export; then the task retries
BATCH_ROWS = 20_000  # of a row group, and in memory at once

LOCK = "SELECT pg_advisory_xact_lock(%(space)s, %(day)s)"

LATEST_RUN = """
SELECT run_id, models, taxonomy_version FROM refund.run
WHERE run_date = %(run_date)s AND state = 'published' AND NOT synthetic
ORDER BY number DESC LIMIT 1
"""

# What stands of the night, by the definition of reporting.photos; {standing} below. The runs' index finds it.
_STANDING = """
  FROM refund.run r
  JOIN refund.run_photo o ON o.run_id = r.run_id AND o.outcome <> 'unchanged' AND o.superseded_by IS NULL
  JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id AND p.superseded_by IS NULL
  WHERE r.run_date = %(run_date)s AND r.state = 'published' AND NOT r.synthetic
"""

PHOTOS_WITHOUT_REFUND = "SELECT count(*) {standing} AND p.refund_id IS NULL"

# All photos of these refunds, whichever night published them. What reporting.refunds has too means the same here.
NIGHT_REFUNDS = """
WITH night AS MATERIALIZED (SELECT DISTINCT p.refund_id {standing} AND p.refund_id IS NOT NULL)
SELECT p.refund_id,
  CASE
    WHEN bool_or((p.decision = 'review' AND p.reviewed_at IS NULL) OR p.outcome = 'rejected') THEN 'review'
    WHEN bool_and(p.decision = 'auto' AND p.reviewed_at IS NULL) THEN 'auto'
    ELSE 'reviewed'
  END AS decision,
  mode() WITHIN GROUP (ORDER BY p.final_category) AS category,
  bool_or((p.decision = 'review' AND p.reviewed_at IS NULL) OR p.outcome = 'rejected') AS needs_review,
  string_agg(
    CASE WHEN p.outcome = 'rejected' THEN p.rejection_reason
         WHEN p.decision = 'review' AND p.reviewed_at IS NULL THEN array_to_string(p.review_reasons, ',') END, ','
  ) AS reasons,
  count(*) AS photos,
  count(*) FILTER (WHERE p.outcome = 'classified') AS classified,
  count(*) FILTER (WHERE p.outcome = 'rejected') AS rejected,
  count(*) FILTER (WHERE p.decision = 'review' AND p.reviewed_at IS NULL) AS waiting,
  count(p.reviewed_at) AS reviewed,
  count(DISTINCT p.final_category) AS categories,
  count(DISTINCT p.final_category) <= 1 AS photos_agree,
  min(p.declared_category) AS declared_category,
  bool_and(p.final_category = p.declared_category) AS matches_declared,
  min(p.category_score) AS min_score,
  COALESCE(array_agg(DISTINCT p.model) FILTER (WHERE p.model IS NOT NULL), '{{}}') AS models,
  COALESCE(array_agg(DISTINCT p.taxonomy_version) FILTER (WHERE p.model IS NOT NULL), '{{}}') AS taxonomy_versions,
  max(p.run_date) AS latest_run_date
FROM night JOIN reporting.photos p USING (refund_id)
WHERE NOT p.synthetic GROUP BY p.refund_id ORDER BY p.refund_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRefunds:
    """A night to export; ``batches`` is read once, while the context of `night_refunds` is open."""

    run_id: str  # the latest published run of the night, by the order in which runs began
    models: tuple[str, ...]  # of that run
    taxonomy_version: str
    photos_without_refund: int  # of the night; they are in no row
    batches: Iterator[list[Mapping[str, Any]]]


@contextmanager
def night_refunds(database: Database, run_date: date) -> Iterator[NightRefunds | None]:
    """The refunds of which the night decided or rejected a photo, with all their photos; None: no published night.

    Made-up nights are left out. One reader of a night at a time: the next one waits until this context is left and sees
    what was committed by then, so that of two files the one written last is never the older one.

    Raises:
        DatabaseUnavailableError: the connection broke, or another export of the night did not end.
    """
    values = {"run_date": run_date, "space": LOCK_SPACE, "day": run_date.toordinal()}
    # Not repeatable read: its snapshot would be that of the moment before the wait.
    with database.connect(readonly=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute(LOCK, values)
            cursor.execute(LATEST_RUN, values)
            run = cursor.fetchone()
            cursor.execute(PHOTOS_WITHOUT_REFUND.format(standing=_STANDING), values)
            (without,) = cursor.fetchall()[0]
        if run is None:
            yield None
            return
        run_id, models, taxonomy_version = run
        with connection.cursor("night_refunds") as cursor:  # server-side: the driver holds one batch
            cursor.execute(NIGHT_REFUNDS.format(standing=_STANDING), values)
            yield NightRefunds(
                run_id=run_id,
                models=tuple(models),
                taxonomy_version=taxonomy_version,
                photos_without_refund=int(without),
                batches=_batches(cursor),
            )


def _batches(cursor: Any) -> Iterator[list[Mapping[str, Any]]]:
    while rows := cursor.fetchmany(BATCH_ROWS):
        names = [column.name for column in cursor.description]  # known after the first fetch of a named cursor
        yield [_row(dict(zip(names, row, strict=True))) for row in rows]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "reasons": sorted(set((row["reasons"] or "").split(",")) - {""})}
