"""Reads what is known of one photo: its versions, and what every run, model and person made of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

if TYPE_CHECKING:
    from refund.store.database import Database

_Row = TypeVar("_Row")

OBJECT = """
SELECT bucket, key, etag, size_bytes FROM refund.photo
WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s::uuid AND NOT synthetic
"""

PHOTO = """
SELECT p.photo_date, p.photo_id::text, p.bucket, p.key, p.etag, p.size_bytes, p.refund_id, p.declared_category,
       p.image_format, p.width_px, p.height_px, p.sha256, p.brightness_ratio, p.contrast_ratio, p.sharpness,
       p.entropy_bits, p.quality_labels, p.superseded_by::text, p.first_run_id, r.run_date AS first_run_date,
       r.started_at AS first_seen_at, p.synthetic
FROM refund.photo p JOIN refund.run r ON r.run_id = p.first_run_id
WHERE p.photo_date = %(photo_date)s AND p.photo_id = %(photo_id)s::uuid
"""

# An overwritten version keeps its outcome and decision.
VERSIONS = """
SELECT p.photo_id::text, p.etag, p.size_bytes, p.width_px, p.height_px, p.superseded_by::text,
       r.run_date AS first_run_date, r.started_at AS first_seen_at, rp.outcome, rp.reason,
       COALESCE(rv.category, d.category) AS final_category
FROM refund.photo p JOIN refund.run r ON r.run_id = p.first_run_id
LEFT JOIN refund.run_photo rp ON rp.photo_date = p.photo_date AND rp.photo_id = p.photo_id
  AND rp.outcome <> 'unchanged' AND rp.superseded_by IS NULL
LEFT JOIN refund.decision d ON d.photo_date = p.photo_date AND d.photo_id = p.photo_id AND d.superseded_by IS NULL
LEFT JOIN LATERAL (
  SELECT v.category FROM refund.review v
  WHERE v.photo_date = p.photo_date AND v.photo_id = p.photo_id ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) rv ON true
WHERE p.photo_date = %(photo_date)s AND p.key = %(key)s AND p.bucket = %(bucket)s AND p.synthetic = %(synthetic)s
ORDER BY p.superseded_by IS NULL DESC, r.number DESC, p.photo_id
"""

OUTCOMES = """
SELECT o.run_id, r.run_date, r.started_at, r.published_at, o.outcome, o.reason, o.detail, o.quarantine_key,
       o.requeued_at, o.superseded_by
FROM refund.run_photo o JOIN refund.run r USING (run_id)
WHERE o.photo_date = %(photo_date)s AND o.photo_id = %(photo_id)s::uuid ORDER BY r.number DESC
"""

PREDICTIONS = """
SELECT p.model, p.class_id, p.class_name, p.confidence, p.top_k, p.run_id, r.run_date
FROM refund.prediction p JOIN refund.run r USING (run_id)
WHERE p.photo_date = %(photo_date)s AND p.photo_id = %(photo_id)s::uuid ORDER BY r.number DESC, p.model
"""

DECISIONS = """
SELECT d.run_id, r.run_date, d.decided_at, d.category, d.score, d.kind, d.reasons, d.category_scores, d.model,
       d.taxonomy_version, d.threshold, d.audit, d.superseded_by
FROM refund.decision d JOIN refund.run r USING (run_id)
WHERE d.photo_date = %(photo_date)s AND d.photo_id = %(photo_id)s::uuid
ORDER BY d.superseded_by IS NULL DESC, r.number DESC
"""

REVIEWS = """
SELECT review_id, category, reviewed_by, reviewed_at, chosen_by, note FROM refund.review
WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s::uuid ORDER BY reviewed_at DESC, review_id DESC
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """Where one version of a photo lies, or lay."""

    bucket: str
    key: str
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoRow:
    """The facts of one version of a photo; those of its pixels are None where it could not be decoded."""

    photo_date: date
    photo_id: str
    bucket: str
    key: str
    etag: str
    size_bytes: int
    refund_id: str | None
    declared_category: str | None
    image_format: str | None
    width_px: int | None
    height_px: int | None
    sha256: str | None
    brightness_ratio: float | None  # 0 black to 1 white
    contrast_ratio: float | None
    sharpness: float | None
    entropy_bits: float | None
    quality_labels: list[str]
    superseded_by: str | None  # photo_id of the version that replaced it
    first_run_id: str
    first_run_date: date
    first_seen_at: datetime
    synthetic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One version under the photo's key, and what stands of it."""

    photo_id: str
    etag: str
    size_bytes: int
    width_px: int | None
    height_px: int | None
    superseded_by: str | None
    first_run_date: date
    first_seen_at: datetime
    outcome: str | None  # classified | rejected
    reason: str | None
    final_category: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """What one run made of the photo."""

    run_id: str
    run_date: date
    started_at: datetime
    published_at: datetime | None
    outcome: str  # classified | rejected | unchanged
    reason: str | None
    detail: str | None
    quarantine_key: str | None
    requeued_at: datetime | None  # when somebody put it back, to be looked at again
    superseded_by: str | None  # run whose outcome replaced this one


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRow:
    """What one model took the photo for."""

    model: str
    class_id: str
    class_name: str
    confidence: float  # ratio, 0 to 1
    top_k: list[dict[str, Any]]  # class_id, class_name, confidence; the most probable first
    run_id: str
    run_date: date


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """What one run decided."""

    run_id: str
    run_date: date
    decided_at: datetime
    category: str
    score: float  # ratio, 0 to 1
    kind: str  # auto | review
    reasons: list[str]
    category_scores: dict[str, float]
    model: str
    taxonomy_version: str
    threshold: float  # ratio, 0 to 1
    audit: bool  # a person is to check it although the machine was sure
    superseded_by: str | None  # run whose decision replaced this one


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """What one person decided."""

    review_id: int
    category: str
    reviewed_by: str
    reviewed_at: datetime
    chosen_by: str  # queue | audit | import | search
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoStory:
    """All that is known of one version of a photo; every list has the newest first, decisions the live one."""

    photo: PhotoRow
    versions: list[VersionRow]
    outcomes: list[OutcomeRow]
    predictions: list[PredictionRow]
    decisions: list[DecisionRow]
    reviews: list[ReviewRow]

    @property
    def outcome(self) -> OutcomeRow | None:
        """The outcome that stands."""
        return next((row for row in self.outcomes if row.outcome != "unchanged" and row.superseded_by is None), None)

    @property
    def decision(self) -> DecisionRow | None:
        """The decision that stands."""
        return next((row for row in self.decisions if row.superseded_by is None), None)

    @property
    def final_category(self) -> str | None:
        """The latest review's category, else the live decision's."""
        return self.reviews[0].category if self.reviews else self.decision.category if self.decision else None


def find_object(database: Database, *, photo_date: date, photo_id: UUID) -> StoredObject | None:
    """Where a photo lies; None where no night has seen it, or it was made up."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        found = _rows(cursor, OBJECT, StoredObject, {"photo_date": photo_date, "photo_id": str(photo_id)})
    return found[0] if found else None


def find_photo(database: Database, *, photo_date: date, photo_id: UUID) -> PhotoStory | None:
    """All that is known of a photo, as of one moment; None where no night has seen it."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        values: dict[str, Any] = {"photo_date": photo_date, "photo_id": str(photo_id)}
        found = _rows(cursor, PHOTO, PhotoRow, values)
        if not found:
            return None
        (photo,) = found
        values |= {"key": photo.key, "bucket": photo.bucket, "synthetic": photo.synthetic}
        return PhotoStory(
            photo=photo,
            versions=_rows(cursor, VERSIONS, VersionRow, values),
            outcomes=_rows(cursor, OUTCOMES, OutcomeRow, values),
            predictions=_rows(cursor, PREDICTIONS, PredictionRow, values),
            decisions=_rows(cursor, DECISIONS, DecisionRow, values),
            reviews=_rows(cursor, REVIEWS, ReviewRow, values),
        )


def _rows(cursor: Any, sql: str, kind: type[_Row], values: dict[str, Any]) -> list[_Row]:
    cursor.execute(sql, values)
    names = [column.name for column in cursor.description]
    return [kind(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
