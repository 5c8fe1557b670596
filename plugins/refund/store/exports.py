"""Reads one night refund by refund, for the export to the systems downstream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from refund.errors import ReconciliationError
from refund.store.nights import WORK_MEMORY

if TYPE_CHECKING:
    from refund.store.database import Database

LOCK_SPACE = 7_336_865  # pg_advisory_xact_lock of two numbers, the second the date's: one export of a night at a time
LOCK_TIMEOUT = "10min"  # longer than any export; then the task retries
BATCH_ROWS = 10_000  # of a row group, and in memory at once

LOCK = "SELECT pg_advisory_xact_lock(%(space)s, %(day)s)"

LATEST_RUN = """
SELECT run_id, models, taxonomy_version FROM refund.run
WHERE run_date = %(run_date)s AND state = 'published' AND NOT synthetic
ORDER BY number DESC LIMIT 1
"""

# Of all runs of the night, for its rows are theirs together.
IN_DOUBT = """
SELECT run_id FROM reporting.reconciliation
WHERE run_date = %(run_date)s AND NOT adds_up AND NOT synthetic ORDER BY run_id LIMIT 1
"""

# The dates of the night's photos, from an index alone.
NIGHT_DATES = """
SELECT DISTINCT o.photo_date FROM refund.run_photo o JOIN refund.run r USING (run_id)
WHERE r.run_date = %(run_date)s AND r.state = 'published' AND NOT r.synthetic
  AND o.outcome IN ('classified', 'rejected')
"""
# The refunds of the night and all their photos, in tables of the moment: with the dates known the rest reads the months
# of these photos alone, however long the history is.
STAGE_REFUNDS = """
CREATE TEMPORARY TABLE night_refund ON COMMIT DROP AS
SELECT p.refund_id, count(*) AS photos
FROM refund.run r
JOIN refund.run_photo o ON o.run_id = r.run_id AND o.outcome <> 'unchanged' AND o.superseded_by IS NULL
JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id AND p.superseded_by IS NULL
WHERE r.run_date = %(run_date)s AND r.state = 'published' AND NOT r.synthetic
  AND o.photo_date = ANY (%(dates)s::date[]) AND p.photo_date = ANY (%(dates)s::date[])
GROUP BY p.refund_id
"""
# Refund by refund by its index (OFFSET 0): a refund may have photos of any date, and to read all photos there are took
# twenty seconds at ten million.
STAGE_PHOTOS = """
CREATE TEMPORARY TABLE night_photo ON COMMIT DROP AS
SELECT p.photo_date, p.photo_id, p.refund_id, p.declared_category
FROM night_refund n CROSS JOIN LATERAL (
  SELECT photo_date, photo_id, refund_id, declared_category FROM refund.photo
  WHERE refund_id = n.refund_id AND superseded_by IS NULL OFFSET 0) p
"""
ANALYZE_PHOTOS = "ANALYZE night_photo"
PHOTOS_WITHOUT_REFUND = "SELECT COALESCE(sum(photos), 0) FROM night_refund WHERE refund_id IS NULL"
PHOTO_DATES = "SELECT DISTINCT photo_date FROM night_photo"

# What stands of a photo is defined by reporting.photos, and what a refund's photos say together by reporting.refunds;
# a test compares.
NIGHT_REFUNDS = """
WITH photos AS (
  SELECT p.refund_id, p.declared_category, o.outcome, o.reason, d.kind, d.reasons, d.score, d.model, d.taxonomy_version,
    COALESCE(v.category, d.category) AS final_category, v.category IS NOT NULL AS reviewed,
    d.kind = 'review' AND v.category IS NULL AS waiting,
    (d.kind = 'review' OR o.outcome = 'rejected') AND v.category IS NULL AS undecided, r.run_date
  FROM night_photo p
  JOIN refund.run_photo o ON o.photo_date = p.photo_date AND o.photo_date = ANY (%(dates)s::date[])
    AND o.photo_id = p.photo_id AND o.outcome <> 'unchanged' AND o.superseded_by IS NULL
  JOIN refund.run r ON r.run_id = o.run_id AND NOT r.synthetic
  LEFT JOIN refund.decision d ON d.photo_date = p.photo_date AND d.photo_date = ANY (%(dates)s::date[])
    AND d.photo_id = p.photo_id AND d.superseded_by IS NULL
  LEFT JOIN (
    SELECT DISTINCT ON (photo_date, photo_id) photo_date, photo_id, category FROM refund.review
    WHERE photo_date = ANY (%(dates)s::date[]) ORDER BY photo_date, photo_id, reviewed_at DESC, review_id DESC
  ) v ON v.photo_date = p.photo_date AND v.photo_id = p.photo_id
)
SELECT refund_id,
  CASE
    WHEN bool_or(undecided) THEN 'review'
    WHEN bool_and(kind = 'auto' AND NOT reviewed) THEN 'auto'
    ELSE 'reviewed'
  END AS decision,
  mode() WITHIN GROUP (ORDER BY final_category) AS category,
  bool_or(undecided) AS needs_review,
  string_agg(CASE WHEN undecided THEN COALESCE(reason, array_to_string(reasons, ',')) END, ',') AS reasons,
  count(*) AS photos,
  count(*) FILTER (WHERE outcome = 'classified') AS classified,
  count(*) FILTER (WHERE outcome = 'rejected') AS rejected,
  count(*) FILTER (WHERE waiting) AS waiting,
  count(*) FILTER (WHERE reviewed) AS reviewed,
  count(DISTINCT final_category) AS categories,
  count(DISTINCT final_category) <= 1 AS photos_agree,
  min(declared_category) AS declared_category,
  bool_and(final_category = declared_category) AS matches_declared,
  min(score) AS min_score,
  COALESCE(array_agg(DISTINCT model) FILTER (WHERE model IS NOT NULL), '{}') AS models,
  COALESCE(array_agg(DISTINCT taxonomy_version) FILTER (WHERE model IS NOT NULL), '{}') AS taxonomy_versions,
  max(run_date) AS latest_run_date
FROM photos GROUP BY refund_id ORDER BY refund_id
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
        ReconciliationError: a run of the night does not add up.
        DatabaseUnavailableError: the connection broke, or another export of the night did not end.
    """
    values: dict[str, Any] = {"run_date": run_date, "space": LOCK_SPACE, "day": run_date.toordinal()}
    # Not repeatable read: its snapshot would be that of the moment before the wait. Nor read-only: temporary tables.
    with database.connect() as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute(f"SET LOCAL work_mem = '{WORK_MEMORY}'")
            cursor.execute(LOCK, values)
            cursor.execute(LATEST_RUN, values)
            run = cursor.fetchone()
            if run is None:
                yield None
                return
            run_id, models, taxonomy_version = run
            cursor.execute(IN_DOUBT, values)
            if (doubtful := cursor.fetchone()) is not None:
                msg = (
                    f"the night of {run_date} is not exported: its run {doubtful[0]!r} does not add up (see "
                    f"reporting.reconciliation), expected that every run of the night does; a file of an earlier "
                    f"export stays as it is. Find out what changed the tables, then clear generate_report"
                )
                raise ReconciliationError(msg)
            cursor.execute(NIGHT_DATES, values)
            values["dates"] = [day for (day,) in cursor.fetchall()]
            cursor.execute(STAGE_REFUNDS, values)
            cursor.execute(STAGE_PHOTOS)
            cursor.execute(ANALYZE_PHOTOS)
            cursor.execute(PHOTOS_WITHOUT_REFUND)
            (without,) = cursor.fetchall()[0]
            cursor.execute(PHOTO_DATES)
            dates = [day for (day,) in cursor.fetchall()]
        with connection.cursor("night_refunds") as cursor:  # server-side: the driver holds one batch
            cursor.execute(NIGHT_REFUNDS, {"dates": dates})
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
