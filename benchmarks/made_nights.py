"""Fills a database with made-up nights of a large retailer's size, made by the server itself and always the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.settings import DatabaseAccess

LAST = date(2026, 11, 21)  # the night that is reported
BUCKET = "refund"
TAXONOMY = "2"
UNREVIEWED_NIGHTS = 7  # people are this far behind: what earlier nights sent to review is reviewed
LATE_DAYS = 2  # as of NightParams: a night lists these dates again, and all their photos are unchanged by then


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeNights:
    """How many nights, and how many new photos each."""

    nights: int
    photos: int
    model: str  # registered

    @property
    def days(self) -> list[date]:
        """Run dates, oldest first."""
        return [LAST - timedelta(days=back) for back in range(self.nights - 1, -1, -1)]


def run_id(day: date) -> str:
    """As Airflow names scheduled runs."""
    return f"scheduled__{day + timedelta(days=1)}T02:00:00+00:00"


# A photo's id is random to the server too, and every choice is a digit of it: the same rows each time. Of a night's
# photos 1 in 100 came late, 2 in 100 are rejected (10 on the last night, so that its alert looks for examples), 2 in
# 1,000 have been replaced since, 20 of 100 decisions are for review, 1 in 100 automatic ones is drawn for audit.
MAKE = """
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT id, i, CASE WHEN i %% 100 = 7 THEN %(day)s::date - 1 ELSE %(day)s::date END AS photo_date,
  (('x' || substr(id::text, 1, 8))::bit(32)::bigint & 65535) / 65536.0 AS draw,
  (('x' || substr(id::text, 25, 8))::bit(32)::bigint & 65535) / 65536.0 AS other
FROM (SELECT i, md5('made/' || %(day)s || '/' || i)::uuid AS id FROM generate_series(1, %(photos)s) i) ids;
CREATE TEMPORARY TABLE fates ON COMMIT DROP AS
SELECT *, other < %(rejected)s AS rejected, draw < 0.2 AS review,
  (%(categories)s::text[])[1 + floor(power((i * 7919 %% 10007) / 10007.0, %(slope)s) * %(count)s)::integer] AS category,
  (%(categories)s::text[])[1 + i %% %(count)s::integer] AS declared
FROM made;
"""
ROWS = """
INSERT INTO refund.photo (photo_date, photo_id, bucket, key, etag, size_bytes, refund_id, declared_category,
  image_format, width_px, height_px, sha256, perceptual_hash, brightness_ratio, contrast_ratio, sharpness, entropy_bits,
  quality_labels, first_run_id, superseded_by)
SELECT photo_date, id, %(bucket)s, format('incoming/%%s/R-%%s-%%s/%%s.jpg', photo_date, to_char(photo_date, 'YYMMDD'),
    i / 3, i), replace(id::text, '-', ''), 80000 + i %% 90000,
  format('R-%%s-%%s', to_char(photo_date, 'YYMMDD'), i / 3), CASE WHEN i %% 20 = 0 THEN declared ELSE category END,
  'JPEG', 500, 375, repeat(replace(id::text, '-', ''), 2), i::bigint * 2654435761, 0.2 + draw / 2, 0.2, 90 + other, 7,
  CASE WHEN draw > 0.97 THEN ARRAY['dark'] WHEN draw > 0.94 THEN ARRAY['blurry'] ELSE '{}' END, %(run_id)s,
  CASE WHEN i %% 500 = 499 THEN md5(id::text)::uuid END
FROM fates;
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome)
SELECT photo_date, photo_id, %(run_id)s, 'unchanged' FROM refund.photo
WHERE photo_date BETWEEN %(day)s::date - %(late_days)s AND %(day)s::date - 1 AND first_run_id <> %(run_id)s
  AND superseded_by IS NULL;
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome, reason, detail, quarantine_key)
SELECT photo_date, id, %(run_id)s, CASE WHEN rejected THEN 'rejected' ELSE 'classified' END,
  CASE WHEN rejected THEN (ARRAY['corrupt', 'truncated', 'too_small'])[1 + i %% 3] END,
  CASE WHEN rejected THEN 'broken data stream, expected a whole JPEG' END,
  CASE WHEN rejected THEN format('quarantine/%%s/corrupt/incoming/%%s.jpg', %(day)s, i) END
FROM fates;
INSERT INTO refund.prediction (photo_date, photo_id, model, class_id, class_name, confidence, top_k, run_id)
SELECT photo_date, id, %(model)s, 'n04120489', 'running_shoe', 0.3 + draw / 2, %(top_k)s::jsonb, %(run_id)s
FROM fates WHERE NOT rejected;
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at, audit, settled)
SELECT photo_date, id, %(run_id)s, category, 0.3 + draw / 2, CASE WHEN review THEN 'review' ELSE 'auto' END,
  CASE WHEN review THEN ARRAY['low_score'] ELSE '{}' END, %(scores)s::jsonb, %(model)s, %(taxonomy)s, 0.5,
  %(day)s::timestamptz + interval '27 hours', NOT review AND other > 0.99, %(reviewed)s AND review
FROM fates WHERE NOT rejected;
INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by)
SELECT photo_date, id, category, (ARRAY['ada', 'bob', 'cem'])[1 + i %% 3], %(day)s::timestamptz + interval '34 hours',
  CASE WHEN review THEN 'queue' ELSE 'audit' END
FROM fates WHERE %(reviewed)s AND NOT rejected AND (review OR other > 0.99);
"""
RUN = """
INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, photos, classified,
  rejected, unchanged, packed, predicted, overtaken, started_at, published_at, finished_at, models, stage_metrics,
  sorted)
SELECT %(run_id)s, %(day)s, 'published', %(model)s, %(taxonomy)s, '0', %(params)s, n, c, r, u, c + r, c, 0,
  %(day)s::timestamptz + interval '26 hours', %(day)s::timestamptz + interval '27 hours',
  %(day)s::timestamptz + interval '28 hours', ARRAY[%(model)s], %(metrics)s, (
    SELECT jsonb_build_object(%(model)s::text, jsonb_object_agg(category, photos))
    FROM (SELECT category, count(*) AS photos FROM fates WHERE NOT rejected GROUP BY category) each_category)
FROM (
  SELECT count(*) AS n, count(*) FILTER (WHERE outcome = 'classified') AS c,
    count(*) FILTER (WHERE outcome = 'rejected') AS r, count(*) FILTER (WHERE outcome = 'unchanged') AS u
  FROM refund.run_photo WHERE run_id = %(run_id)s) counted
"""
# What an earlier night's report left is what this one's is drawn beside: the last night's own body, under its dates.
EARLIER_REPORTS = """
INSERT INTO refund.report (run_id, run_date, body, html_uri, csv_uri, created_at)
SELECT r.run_id, r.run_date, p.body, p.html_uri, p.csv_uri, r.finished_at
FROM refund.run r CROSS JOIN refund.report p WHERE p.run_id = %(run_id)s AND r.run_id <> %(run_id)s
"""


def fill(
    admin: DatabaseAccess, made: MadeNights, *, categories: Sequence[str], progress: Callable[[str], None]
) -> None:
    """Write all nights; the last one is written after the tables were vacuumed, as on any morning."""
    from refund.store.database import Database

    database = Database(admin)
    for number, day in enumerate(made.days):
        if day == LAST:
            progress("vacuuming what the nights before left")
            _vacuum(database)
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # checking references would take longest
            for statement in (MAKE, ROWS, RUN):
                cursor.execute(statement, _values(made, day, number, categories))
        if number % 10 == 9:
            progress(f"{(number + 1) * made.photos:,} photos in {number + 1} nights")
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def prepare(admin: DatabaseAccess, made: MadeNights) -> None:
    """Make the partitions."""
    from refund.store.database import Database

    with Database(admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT refund.ensure_partitions(%s, %s)", (made.days[0] - timedelta(days=1), LAST))


def copy_report(admin: DatabaseAccess) -> None:
    """Give the earlier nights the report of the last one, which must be there."""
    from refund.store.database import Database

    with Database(admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute(EARLIER_REPORTS, {"run_id": run_id(LAST)})
        cursor.execute("ANALYZE refund.report")


def _vacuum(database: Any) -> None:
    connection = database.open()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE, PARALLEL 0)")
    finally:
        connection.close()


def _values(made: MadeNights, day: date, number: int, categories: Sequence[str]) -> dict[str, Any]:
    last = day == LAST
    return {
        "day": day,
        "photos": made.photos,
        "run_id": run_id(day),
        "model": made.model,
        "bucket": BUCKET,
        "taxonomy": TAXONOMY,
        "categories": list(categories),
        "count": len(categories),
        "slope": 1.2 if last else 2.0,  # another mix on the last night: the report shows what moved
        "rejected": 0.10 if last else 0.02,
        "reviewed": number < made.nights - UNREVIEWED_NIGHTS,
        "late_days": LATE_DAYS,
        "params": json.dumps({"late_days": LATE_DAYS, "review_threshold": 0.5}),
        "metrics": json.dumps({"validate": {"photos": made.photos, "failed": 0, "seconds": 900.0}}),
        "top_k": json.dumps(
            [{"class_id": f"n0412048{n}", "class_name": "running_shoe", "confidence": 0.5 / (n + 1)} for n in range(5)]
        ),
        "scores": json.dumps({name: round(0.9 / (n + 2), 6) for n, name in enumerate(categories)}),
    }
