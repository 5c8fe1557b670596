"""Reads the window that drift is measured on, and writes and reads the verdicts."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import TYPE_CHECKING

from refund.monitor.drift import NightCounts
from refund.store.records import DriftRow

if TYPE_CHECKING:
    from refund.monitor.drift import DriftResult
    from refund.store.database import Database

# The dates first, then their runs' decisions by index: the time it takes must not grow with the history. A decision has
# the taxonomy version of its run, but its own model: run.models names all of a run's, so other runs are not read.
REFERENCE_SHARES = """
WITH alike AS (
  SELECT run_id, run_date FROM refund.run r
  WHERE run_date < %(run_date)s AND state = 'published' AND NOT synthetic AND %(model)s = ANY (models)
    AND (%(taxonomy_version)s::text IS NULL OR taxonomy_version = %(taxonomy_version)s)
    AND EXISTS (
      SELECT FROM refund.decision d WHERE d.run_id = r.run_id AND d.superseded_by IS NULL AND d.model = %(model)s)
), nights AS (SELECT DISTINCT run_date FROM alike ORDER BY run_date DESC LIMIT %(nights)s)
SELECT run_date, jsonb_object_agg(category, photos) FROM (
  SELECT run_date, d.category, count(*) AS photos
  FROM nights JOIN alike USING (run_date) JOIN refund.decision d USING (run_id)
  WHERE d.superseded_by IS NULL AND d.model = %(model)s AND NOT EXISTS (
    SELECT FROM refund.photo p
    WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
  GROUP BY run_date, d.category) counted
GROUP BY run_date ORDER BY run_date
"""


SAVE_DRIFT = """
INSERT INTO refund.drift (run_id, measure, run_date, status, distance, threshold, p_value, tonight_photos,
  reference_photos, reference_nights, floor, alpha, overdispersion, details, synthetic, computed_at)
VALUES (%(run_id)s, %(measure)s, %(run_date)s, %(status)s, %(distance)s, %(threshold)s, %(p_value)s,
  %(tonight_photos)s, %(reference_photos)s, %(reference_nights)s, %(floor)s, %(alpha)s, %(overdispersion)s, %(details)s,
  (SELECT synthetic FROM refund.run WHERE run_id = %(run_id)s), %(at)s)
ON CONFLICT (run_id, measure) DO UPDATE SET run_date = EXCLUDED.run_date, status = EXCLUDED.status,
  distance = EXCLUDED.distance, threshold = EXCLUDED.threshold, p_value = EXCLUDED.p_value,
  tonight_photos = EXCLUDED.tonight_photos, reference_photos = EXCLUDED.reference_photos,
  reference_nights = EXCLUDED.reference_nights, floor = EXCLUDED.floor, alpha = EXCLUDED.alpha,
  overdispersion = EXCLUDED.overdispersion, details = EXCLUDED.details, computed_at = EXCLUDED.computed_at
"""

GET_DRIFT = """
SELECT run_id, measure, run_date, status, distance, threshold, p_value, tonight_photos, reference_photos,
  reference_nights, floor, alpha, overdispersion, details, computed_at
FROM refund.drift WHERE run_id = %(run_id)s ORDER BY measure
"""


def reference_nights(
    database: Database, *, run_date: date, model: str, count: int, taxonomy_version: str | None = None
) -> list[NightCounts]:
    """The newest ``count`` nights before ``run_date`` with photos that this model classified, oldest first.

    Live decisions of this model only, also where it shared the night with another; with ``taxonomy_version`` only those
    that it sorted; made-up nights are left out.
    """
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        values = {"run_date": run_date, "model": model, "taxonomy_version": taxonomy_version, "nights": count}
        cursor.execute(REFERENCE_SHARES, values)
        return [NightCounts(run_date=day, categories=counts, rejected=0) for day, counts in cursor.fetchall()]


def save_drift(database: Database, run_id: str, run_date: date, result: DriftResult, *, at: datetime) -> None:
    """Write one comparison of the run, over an earlier one of the same measure."""
    values = {
        "run_id": run_id,
        "run_date": run_date,
        "measure": result.measure,
        "status": str(result.status),
        "distance": result.distance,
        "threshold": result.threshold,
        "p_value": result.p_value,
        "tonight_photos": result.tonight_photos,
        "reference_photos": result.reference_photos,
        "reference_nights": result.reference_nights,
        "floor": result.floor,
        "alpha": result.alpha,
        "overdispersion": result.overdispersion,
        "details": json.dumps(result.details()),
        "at": at,
    }
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(SAVE_DRIFT, values)


def get_drift(database: Database, run_id: str) -> list[DriftRow]:
    """The run's comparisons, by measure."""
    names = tuple(DriftRow.__dataclass_fields__)
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(GET_DRIFT, {"run_id": run_id})
        return [DriftRow(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
