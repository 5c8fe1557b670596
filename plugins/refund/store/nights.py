"""Reads the figures of a night: what the morning report shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refund.errors import FatalRunError
from refund.keys import UNDATED
from refund.records import Reconciliation
from refund.store.night_refunds import REFUNDS, refund_figures
from refund.store.records import (
    CategoryFigures,
    EarlierNight,
    EvaluationFigures,
    NightFigures,
    OpenAlert,
    RejectionExample,
)

if TYPE_CHECKING:
    from refund.store.database import Database

EARLIER_NIGHT_COUNT = 28  # whose shares the report draws beside tonight's
WORK_MEMORY = "32MB"  # for what is sorted and hashed of a night of 100,000 photos; Postgres's 4 MB go to disk and back

# Every figure of "the night" counts what stands of all runs with its run date, of the newest version of each photo (an
# overwritten one keeps its outcome and decision); figures of "the run" count one run. A made-up run of the demo counts
# made-up runs alone, and any other run none of them.

# What stands of a photo that one of these runs decided is their decision as well.
RUNS = "SELECT run_id FROM refund.run WHERE run_date = %(run_date)s AND synthetic = %(synthetic)s"

# First of all, from an index alone: which dates the night's photos are of. Told these, the other statements read the
# months and days that hold them. Without, the photos of all years are read where the server thinks that cheaper.
PHOTO_DATES = """
SELECT DISTINCT o.photo_date FROM refund.run_photo o JOIN refund.run r USING (run_id)
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s AND o.outcome IN ('classified', 'rejected')
"""

CATEGORIES = """
SELECT d.category, count(*), count(*) FILTER (WHERE d.kind = 'auto'), count(*) FILTER (WHERE d.kind = 'review'),
       avg(d.score)
FROM refund.decision d
JOIN refund.run r USING (run_id)
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s AND d.superseded_by IS NULL AND NOT EXISTS (
  SELECT FROM refund.photo p
  WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
GROUP BY d.category ORDER BY count(*) DESC, d.category
"""

MODEL_CATEGORIES = """
SELECT model, jsonb_object_agg(category, photos) FROM (
  SELECT d.model, d.category, count(*) AS photos FROM refund.decision d JOIN refund.run r USING (run_id)
  WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s AND d.superseded_by IS NULL AND NOT EXISTS (
    SELECT FROM refund.photo p
    WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
  GROUP BY d.model, d.category) counted
GROUP BY model
"""

AUDITS = """
SELECT count(*) FROM refund.decision d JOIN refund.run r USING (run_id)
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s AND d.audit AND d.superseded_by IS NULL
  AND d.photo_date = ANY (%(dates)s::date[]) AND NOT EXISTS (
  SELECT FROM refund.photo p
  WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
"""

NIGHT_REJECTIONS = """
SELECT o.reason, count(*) FROM refund.run_photo o JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s
  AND o.outcome = 'rejected' AND o.superseded_by IS NULL AND p.superseded_by IS NULL
  AND o.photo_date = ANY (%(dates)s::date[]) AND p.photo_date = ANY (%(dates)s::date[])
GROUP BY o.reason ORDER BY count(*) DESC, o.reason
"""

# One of each reason before the second of any.
EXAMPLE_REJECTIONS = """
SELECT reason, key, detail FROM (
  SELECT o.reason, p.key, COALESCE(o.detail, '') AS detail,
         row_number() OVER (PARTITION BY o.reason ORDER BY p.key) AS place
  FROM refund.run_photo o JOIN refund.run r USING (run_id)
  JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id
  WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s
  AND o.outcome = 'rejected' AND o.superseded_by IS NULL
    AND p.superseded_by IS NULL
    AND o.photo_date = ANY (%(dates)s::date[]) AND p.photo_date = ANY (%(dates)s::date[])) ranked
ORDER BY place, reason, key LIMIT %(examples)s
"""

QUALITY_LABELS = """
SELECT label, count(*) FROM refund.run_photo o JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id
CROSS JOIN unnest(p.quality_labels) AS label
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s
  AND o.outcome = 'classified' AND o.superseded_by IS NULL AND p.superseded_by IS NULL
  AND o.photo_date = ANY (%(dates)s::date[]) AND p.photo_date = ANY (%(dates)s::date[])
GROUP BY label ORDER BY count(*) DESC, label
"""

# As many as reporting.review_queue has, which a test compares, from indexes alone: of each photo that is not known to
# be settled a review is looked for by itself (OFFSET 0), for little waits and much was reviewed.
REVIEW_QUEUE = """
SELECT count(*) FROM refund.decision d JOIN refund.run r USING (run_id)
WHERE d.kind = 'review' AND d.superseded_by IS NULL AND NOT d.settled AND NOT r.synthetic AND NOT EXISTS (
  SELECT FROM refund.review v WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id OFFSET 0) AND NOT EXISTS (
  SELECT FROM refund.photo p
  WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
"""
# Nobody is to work on these, so they are in no queue.
MADE_UP_QUEUE = "SELECT count(*) FROM reporting.photos WHERE decision = 'review' AND reviewed_at IS NULL AND synthetic"

NIGHT_SIZE = """
SELECT COALESCE(sum(p.size_bytes), 0)::bigint FROM refund.run_photo o JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s
  AND o.outcome <> 'unchanged' AND o.superseded_by IS NULL AND p.superseded_by IS NULL
  AND o.photo_date = ANY (%(dates)s::date[]) AND p.photo_date = ANY (%(dates)s::date[])
"""

LATE_PHOTOS = """
SELECT count(*) FROM refund.run_photo
WHERE run_id = %(run_id)s AND outcome <> 'unchanged' AND photo_date < %(run_date)s AND photo_date <> %(undated)s
"""

RECONCILIATION = """
SELECT manifest, outcomes, classified, rejected, unchanged, decisions, adds_up, packed, predicted, overtaken
FROM reporting.reconciliation WHERE run_id = %(run_id)s
"""

RUN = """
SELECT run_date, synthetic, stage_seconds, stage_metrics, taxonomy_version FROM refund.run WHERE run_id = %(run_id)s
"""

LAST_EVALUATIONS = """
SELECT DISTINCT ON (model) model, set_name, classified, (figures #>> '{accuracy,value}')::double precision,
       (figures #>> '{accuracy,low}')::double precision, (figures #>> '{accuracy,high}')::double precision
FROM refund.evaluation WHERE model = ANY (%(models)s::text[]) AND taxonomy_version = %(taxonomy_version)s
ORDER BY model, evaluation_id DESC
"""


# What was decided of other nights is read from their reports: to count it again would take as long as those nights have
# photos.
EARLIER_NIGHTS = """
SELECT run_date, photos, auto_share, rejected_share FROM (
  SELECT DISTINCT ON (p.run_date) p.run_date, (p.body ->> 'night_photos')::integer AS photos,
         (p.body ->> 'auto_share')::double precision AS auto_share,
         (p.body ->> 'rejected_share')::double precision AS rejected_share
  FROM refund.report p JOIN refund.run r USING (run_id)
  WHERE p.run_date < %(run_date)s AND r.synthetic = %(synthetic)s
  ORDER BY p.run_date DESC, r.published_at DESC LIMIT %(earlier_nights)s) newest
ORDER BY run_date
"""

# What says that the night is not there, or has no report, is no longer so when its report is written.
OPEN_ALERTS = """
SELECT rule, severity, message, seen_count FROM refund.alert
WHERE run_date = %(run_date)s AND synthetic = %(synthetic)s AND acknowledged_at IS NULL
  AND rule NOT IN ('failed_night', 'missing_report', 'reconciliation', 'overdue', 'never_started')
ORDER BY array_position(ARRAY['critical', 'warning', 'info'], severity), alert_id LIMIT %(examples)s
"""


def night_figures(database: Database, run_id: str, *, examples: int = 10) -> NightFigures:
    """Count a run and its night, all figures from one moment.

    Raises:
        FatalRunError: the run is not known.
    """
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(f"SET LOCAL work_mem = '{WORK_MEMORY}'")

        def rows(sql: str) -> Sequence[tuple[Any, ...]]:
            cursor.execute(sql, values)
            found: Sequence[tuple[Any, ...]] = cursor.fetchall()
            return found

        values: dict[str, Any] = {
            "run_id": run_id,
            "examples": examples,
            "undated": UNDATED,
            "earlier_nights": EARLIER_NIGHT_COUNT,
        }
        run = rows(RUN)
        if not run:
            msg = f"run {run_id!r} has no row in refund.run; expected a run that began. See reporting.runs"
            raise FatalRunError(msg)
        run_date, synthetic, stage_seconds, stage_metrics, taxonomy_version = run[0]
        values |= {"run_date": run_date, "synthetic": synthetic}
        values["runs"] = [run_of_night for (run_of_night,) in rows(RUNS)]
        values["dates"] = [day for (day,) in rows(PHOTO_DATES)]
        model_categories = dict(rows(MODEL_CATEGORIES))
        values |= {"models": list(model_categories), "taxonomy_version": taxonomy_version}
        reconciliation = rows(RECONCILIATION)
        return NightFigures(
            run_date=run_date,
            categories=tuple(
                CategoryFigures(
                    category=category,
                    photos=photos,
                    auto=auto,
                    review=review,
                    mean_score=mean_score,
                )
                for category, photos, auto, review, mean_score in rows(CATEGORIES)
            ),
            night_rejections=dict(rows(NIGHT_REJECTIONS)),
            example_rejections=tuple(
                RejectionExample(reason=reason, key=key, detail=detail)
                for reason, key, detail in rows(EXAMPLE_REJECTIONS)
            ),
            quality_labels=dict(rows(QUALITY_LABELS)),
            review_queue=rows(MADE_UP_QUEUE if values["synthetic"] else REVIEW_QUEUE)[0][0],
            size_bytes=rows(NIGHT_SIZE)[0][0],
            late_photos=rows(LATE_PHOTOS)[0][0],
            audits=rows(AUDITS)[0][0],
            model_categories=model_categories,
            evaluations={
                model: EvaluationFigures(set_name=set_name, photos=photos, accuracy=accuracy, low=low, high=high)
                for model, set_name, photos, accuracy, low, high in rows(LAST_EVALUATIONS)
            },
            reconciliation=Reconciliation(**dict(zip(Reconciliation.__dataclass_fields__, row, strict=True)))
            if (row := next(iter(reconciliation), None))
            else None,
            stage_seconds=stage_seconds,
            stage_metrics=stage_metrics,
            refunds=refund_figures(rows(REFUNDS)[0]),
            earlier=tuple(
                EarlierNight(run_date=day, photos=photos, auto_share=auto_share, rejected_share=rejected_share)
                for day, photos, auto_share, rejected_share in rows(EARLIER_NIGHTS)
            ),
            open_alerts=tuple(
                OpenAlert(rule=rule, severity=severity, message=message, seen_count=seen_count)
                for rule, severity, message, seen_count in rows(OPEN_ALERTS)
            ),
        )
