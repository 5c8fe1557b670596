"""Picks a few photos of a night to look at: those that speak most clearly for what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refund.store.database import Database

# Surest first: these show best what the machine takes the category for. The id breaks ties, so the choice is stable.
EXAMPLES = """
SELECT p.photo_date, p.photo_id::text, p.bucket, p.key, p.etag, p.size_bytes, d.category, d.score
FROM refund.decision d JOIN refund.run r USING (run_id)
JOIN refund.photo p ON p.photo_date = d.photo_date AND p.photo_id = d.photo_id
WHERE r.run_date = %(run_date)s AND r.synthetic = %(synthetic)s AND d.category = %(category)s
  AND d.superseded_by IS NULL AND p.superseded_by IS NULL
ORDER BY d.score DESC, p.photo_id LIMIT %(count)s
"""

# Of the most frequent reason first.
REJECTED = """
SELECT key, reason FROM (
  SELECT p.key, rp.reason, rp.photo_id, count(*) OVER (PARTITION BY rp.reason) AS alike
  FROM refund.run_photo rp JOIN refund.run r USING (run_id)
  JOIN refund.photo p ON p.photo_date = rp.photo_date AND p.photo_id = rp.photo_id
  WHERE r.run_date = %(run_date)s AND r.state = 'published' AND r.synthetic = %(synthetic)s
    AND rp.outcome = 'rejected' AND rp.superseded_by IS NULL AND p.superseded_by IS NULL) rejected
ORDER BY alike DESC, reason, photo_id LIMIT %(count)s
"""

# Whatever became of them. Ids are random, so the first are a stable sample of the night. Few photos were replaced:
# those are left out by an index of them alone, and no photo but the few that are shown is read.
OF_THE_NIGHT = """
SELECT p.key FROM (
  SELECT rp.photo_date, rp.photo_id
  FROM refund.run_photo rp JOIN refund.run r USING (run_id)
  WHERE r.run_date = %(run_date)s AND r.state = 'published' AND r.synthetic = %(synthetic)s
    AND rp.outcome IN ('classified', 'rejected') AND rp.superseded_by IS NULL AND NOT EXISTS (
      SELECT FROM refund.photo n
      WHERE n.photo_date = rp.photo_date AND n.photo_id = rp.photo_id AND n.superseded_by IS NOT NULL)
  ORDER BY rp.photo_id LIMIT %(count)s) first
JOIN refund.photo p ON p.photo_date = first.photo_date AND p.photo_id = first.photo_id
ORDER BY p.photo_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePhoto:
    """One classified photo of a night."""

    photo_date: date
    photo_id: str
    bucket: str
    key: str  # hostile text
    etag: str
    size_bytes: int
    category: str
    score: float  # of that category, 0 to 1


def example_photos(
    database: Database, *, run_date: date, category: str, count: int, synthetic: bool = False
) -> list[ExamplePhoto]:
    """At most ``count`` photos of the night that were sorted into ``category``, surest first."""
    values = {"run_date": run_date, "category": category, "count": count, "synthetic": synthetic}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(EXAMPLES, values)
        names = tuple(ExamplePhoto.__dataclass_fields__)
        return [ExamplePhoto(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def example_rejections(
    database: Database, *, run_date: date, count: int, synthetic: bool = False
) -> list[tuple[str, str]]:
    """Key and reason of at most ``count`` photos that the night rejected, those of the most frequent reason first."""
    values = {"run_date": run_date, "count": count, "synthetic": synthetic}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(REJECTED, values)
        return [(key, reason) for key, reason in cursor.fetchall()]


def example_keys(database: Database, *, run_date: date, count: int, synthetic: bool = False) -> list[str]:
    """The keys of at most ``count`` photos that the night classified or rejected."""
    values = {"run_date": run_date, "count": count, "synthetic": synthetic}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(OF_THE_NIGHT, values)
        return [key for (key,) in cursor.fetchall()]
