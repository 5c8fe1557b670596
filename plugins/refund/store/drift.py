"""Reads the window that drift is measured on, and writes and reads the verdicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from refund.monitor.drift import NightCounts
from refund.store.records import DriftRow

if TYPE_CHECKING:
    from refund.monitor.drift import DriftResult
    from refund.store.database import Database

# Newest dates first by the index of run dates, and no further back than wanted. A night counts for a model where one of
# its runs sorted photos with it under this taxonomy; where no run sorted any, because all were rejected, it counts for
# the model that its run began with. run.models names all of a run's models, so no decision is read here.
CANDIDATES = """
SELECT run_date, array_agg(run_id), array_agg(run_id) FILTER (WHERE {alike}), bool_and(cardinality(models) = 0)
FROM refund.run
WHERE run_date < %(before)s AND state = 'published' AND synthetic = %(synthetic)s
GROUP BY run_date
HAVING bool_or({alike} AND %(model)s = ANY (models))
    OR (bool_and(cardinality(models) = 0) AND bool_or({alike} AND model = %(model)s AND rejected > 0))
ORDER BY run_date DESC LIMIT %(nights)s
""".format(alike="(%(taxonomy_version)s::text IS NULL OR taxonomy_version = %(taxonomy_version)s)")

# Of these runs alone. The newest version of each photo, and what stands of it. A window may be millions of photos, so
# what each run sorted is not counted: it was written down when the run was published (one that an earlier release
# published is counted). Taken off are then what others decided anew, by an index of these alone, and the few decisions
# of which the photo has a newer version. OFFSET 0 has each of these looked up by itself, or all of the window would be
# read.
SORTED = """
SELECT run_id, jsonb_object_agg(category, photos) FROM (
  SELECT run_id, category, sum(photos)::bigint AS photos FROM (
    SELECT r.run_id, c.category, c.photos::bigint AS photos
    FROM refund.run r CROSS JOIN LATERAL jsonb_each(r.sorted) AS m (model, categories)
    CROSS JOIN LATERAL jsonb_each_text(m.categories) AS c (category, photos)
    WHERE r.run_id = ANY (%(runs)s::text[]) AND (%(model)s::text IS NULL OR m.model = %(model)s)
    UNION ALL
    SELECT r.run_id, d.category, d.photos FROM refund.run r
    CROSS JOIN LATERAL (
      SELECT category, count(*) AS photos FROM refund.decision
      WHERE run_id = r.run_id AND (%(model)s::text IS NULL OR model = %(model)s) GROUP BY category) d
    WHERE r.run_id = ANY (%(runs)s::text[]) AND r.sorted IS NULL
    UNION ALL
    SELECT d.run_id, d.category, -count(*) FROM refund.decision d
    WHERE d.run_id = ANY (%(runs)s::text[]) AND d.superseded_by IS NOT NULL
      AND (%(model)s::text IS NULL OR d.model = %(model)s)
    GROUP BY d.run_id, d.category
    UNION ALL
    SELECT d.run_id, d.category, -count(*)
    FROM (SELECT photo_date, photo_id FROM refund.photo WHERE superseded_by IS NOT NULL) p
    CROSS JOIN LATERAL (
      SELECT run_id, category, model FROM refund.decision
      WHERE photo_date = p.photo_date AND photo_id = p.photo_id AND superseded_by IS NULL OFFSET 0) d
    WHERE d.run_id = ANY (%(runs)s::text[]) AND (%(model)s::text IS NULL OR d.model = %(model)s)
    GROUP BY d.run_id, d.category) counted
  GROUP BY run_id, category HAVING sum(photos) > 0) d
GROUP BY run_id
"""
REJECTED = """
SELECT o.run_id, count(*) FROM refund.run_photo o
WHERE o.run_id = ANY (%(runs)s::text[]) AND o.outcome = 'rejected' AND o.superseded_by IS NULL AND NOT EXISTS (
  SELECT FROM refund.photo p
  WHERE p.photo_date = o.photo_date AND p.photo_id = o.photo_id AND p.superseded_by IS NOT NULL)
GROUP BY o.run_id
"""

# Nights that another model, or this one under another taxonomy, has sorted photos of as well.
SHARED_NIGHTS = """
SELECT run_date, array_agg(run_id) FROM refund.run
WHERE run_date = ANY (%(dates)s::date[]) AND state = 'published' AND synthetic = %(synthetic)s
GROUP BY run_date
HAVING bool_or(models <> '{}' AND (models <> ARRAY[%(model)s] OR taxonomy_version <> %(taxonomy_version)s))
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
    database: Database,
    *,
    run_date: date,
    model: str,
    count: int,
    taxonomy_version: str | None = None,
    synthetic: bool = False,
) -> list[NightCounts]:
    """The newest ``count`` nights before ``run_date`` that this model sorted under this taxonomy, oldest first.

    Categories are live decisions of this model only, also where it shared the night with another. A rejection has no
    model: those of all runs of the night count. A night whose photos were all rejected is one of the model that it
    began with, without categories; one without photos, or whose photos a later night decided anew, is none. Made-up
    nights are compared with made-up ones, real with real. Without ``taxonomy_version`` any taxonomy is taken.
    """
    found: list[NightCounts] = []
    before = run_date
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        while len(found) < count:
            wanted = count - len(found)
            values = {"before": before, "model": model, "taxonomy_version": taxonomy_version, "synthetic": synthetic}
            cursor.execute(CANDIDATES, {**values, "nights": wanted})
            candidates = cursor.fetchall()
            if candidates:
                found += _counted(cursor, candidates, model=model)
                before = candidates[-1][0]
            if len(candidates) < wanted:
                break
    return sorted(found, key=lambda night: night.run_date)


def whole_nights(
    database: Database, window: Sequence[NightCounts], *, model: str, taxonomy_version: str, synthetic: bool = False
) -> list[NightCounts]:
    """The nights of the window with all of their photos, also those that another model or taxonomy sorted.

    For what does not depend on the model: how many photos there were, and the share of them that was rejected.
    """
    values = {"dates": [night.run_date for night in window], "model": model, "taxonomy_version": taxonomy_version}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(SHARED_NIGHTS, {**values, "synthetic": synthetic})
        shared: dict[date, list[str]] = dict(cursor.fetchall())
        if not shared:
            return list(window)
        cursor.execute(SORTED, {"runs": [run for runs in shared.values() for run in runs], "model": None})
        categories: dict[str, dict[str, int]] = dict(cursor.fetchall())
    return [
        replace(night, categories=_summed(categories, shared[night.run_date])) if night.run_date in shared else night
        for night in window
    ]


def _summed(categories: Mapping[str, Mapping[str, int]], runs: Sequence[str]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for run in runs:
        total.update(categories.get(run, {}))
    return dict(total)


def _counted(cursor: Any, candidates: Sequence[tuple[Any, ...]], *, model: str) -> Iterator[NightCounts]:
    cursor.execute(SORTED, {"runs": [run for _, _, alike, _ in candidates for run in alike], "model": model})
    categories: dict[str, dict[str, int]] = dict(cursor.fetchall())
    cursor.execute(REJECTED, {"runs": [run for _, runs, _, _ in candidates for run in runs]})
    rejected: dict[str, int] = dict(cursor.fetchall())
    for day, runs, alike, nothing_sorted in candidates:
        shares = _summed(categories, alike)
        refused = sum(rejected.get(run, 0) for run in runs)
        if shares or (nothing_sorted and refused):
            yield NightCounts(run_date=day, categories=shares, rejected=refused)


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
