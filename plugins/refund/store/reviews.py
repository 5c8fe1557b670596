"""Writes people's reviews, and reads what waits for one.

A file of reviews is copied into a temporary table, matched with its photos there, and written whole or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from refund.errors import ReviewImportError
from refund.keys import UNDATED
from refund.store.copy_text import copy_rows

if TYPE_CHECKING:
    from refund.store.database import Database

LOCK_KEY = 7_336_865  # pg_advisory_xact_lock: one import at a time, so that two of one file give each review once
BATCH_ROWS = 10_000
TOLD = ReviewImportError.SHOWN
_DATE_FOLDER = re.compile(r"(?<![^/])\d{4}-\d{2}-\d{2}(?=/)")  # under whatever prefix the night of that photo used
_COLUMNS = ("line", "key", "photo_id", "category", "reviewed_by", "reviewed_at", "chosen_by", "note")

STAGING_TABLE = """
CREATE TEMPORARY TABLE staged_review (
  line integer, key text, photo_id uuid, category text, reviewed_by text, reviewed_at timestamptz, chosen_by text,
  note text
) ON COMMIT DROP
"""

# By key: the newest version, or the one whose id stands beside it. The dates of the keys name the partitions to read.
MATCH_PHOTOS = """
CREATE TEMPORARY TABLE matched_review ON COMMIT DROP AS
SELECT DISTINCT ON (s.line) s.*, p.photo_date, p.photo_id AS found_id
FROM staged_review s JOIN refund.photo p ON p.key = s.key AND p.bucket = %(bucket)s
  AND p.photo_date = ANY (%(dates)s::date[])
  AND CASE WHEN s.photo_id IS NULL THEN p.superseded_by IS NULL ELSE p.photo_id = s.photo_id END
ORDER BY s.line, p.photo_date DESC
"""
MATCH_BY_ID = """
INSERT INTO matched_review
SELECT s.*, p.photo_date, p.photo_id FROM staged_review s JOIN refund.photo p ON p.photo_id = s.photo_id
WHERE s.key IS NULL
"""

UNKNOWN = """
SELECT count(*) OVER (), line, key, photo_id::text FROM staged_review s WHERE NOT EXISTS (
  SELECT FROM matched_review m WHERE m.line = s.line) ORDER BY line LIMIT %(limit)s
"""

# One person, one photo, one time, two verdicts: in the file, or in the file and in refund.review.
CONTRADICTIONS = """
SELECT count(*) OVER (), found.* FROM (
SELECT line, category, first_line, first_category, reviewed_by FROM (
  SELECT line, category, reviewed_by, first_value(line) OVER same AS first_line,
         first_value(category) OVER same AS first_category
  FROM matched_review
  WINDOW same AS (PARTITION BY photo_date, found_id, reviewed_by, reviewed_at ORDER BY line)
) rows WHERE category <> first_category
UNION ALL
SELECT DISTINCT ON (m.line) m.line, m.category, NULL, v.category, m.reviewed_by
FROM matched_review m JOIN refund.review v ON v.photo_date = m.photo_date AND v.photo_id = m.found_id
  AND v.reviewed_by = m.reviewed_by AND v.reviewed_at = m.reviewed_at AND v.category <> m.category
) found ORDER BY line LIMIT %(limit)s
"""

# A review without a time is known where that person's latest verdict on that photo is the same; but who looked a photo
# up, and then finds it among the audits, says so anew: only the audit counts, and it waits until it is there.
NEW_REVIEWS = """
CREATE TEMPORARY TABLE new_review ON COMMIT DROP AS
SELECT DISTINCT ON (m.photo_date, m.found_id, m.reviewed_by, m.reviewed_at)
  m.line, m.photo_date, m.found_id, m.category, m.reviewed_by, COALESCE(m.reviewed_at, %(at)s) AS reviewed_at,
  COALESCE(m.chosen_by, CASE WHEN d.audit THEN 'audit' WHEN d.kind = 'review' THEN 'queue' ELSE 'import' END)
    AS chosen_by, m.note
FROM matched_review m
LEFT JOIN refund.decision d ON d.photo_date = m.photo_date AND d.photo_id = m.found_id AND d.superseded_by IS NULL
LEFT JOIN LATERAL (
  SELECT v.category, v.chosen_by FROM refund.review v
  WHERE v.photo_date = m.photo_date AND v.photo_id = m.found_id AND v.reviewed_by = m.reviewed_by
    AND (m.reviewed_at IS NULL OR v.reviewed_at = m.reviewed_at)
  ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) known ON true
WHERE known.category IS DISTINCT FROM m.category OR (
  m.reviewed_at IS NULL AND d.audit AND COALESCE(m.chosen_by, 'audit') = 'audit'
  AND known.chosen_by NOT IN ('audit', 'queue'))
ORDER BY m.photo_date, m.found_id, m.reviewed_by, m.reviewed_at, m.line
"""
COUNT_NEW = "SELECT chosen_by, count(*) FROM new_review GROUP BY chosen_by ORDER BY chosen_by"

INSERT_REVIEWS = """
INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by, note, synthetic)
SELECT n.photo_date, n.found_id, n.category, n.reviewed_by, n.reviewed_at, n.chosen_by, n.note, p.synthetic
FROM new_review n JOIN refund.photo p ON p.photo_date = n.photo_date AND p.photo_id = n.found_id
ORDER BY n.reviewed_at, n.line
"""

INSERT_AUDIT = """
INSERT INTO refund.audit (at, actor, action, subject, details)
VALUES (%(at)s, %(actor)s, 'review_import', %(subject)s, %(details)s)
"""

REVIEW_QUEUE = """
SELECT run_date, refund_id, key, photo_id::text, predicted_category, category_score,
       array_to_string(review_reasons, ' '), declared_category
FROM reporting.review_queue ORDER BY run_date, photo_date, key LIMIT %(limit)s
"""
AUDIT_QUEUE = """
SELECT run_date, refund_id, key, photo_id::text FROM reporting.audit_queue
ORDER BY run_date, photo_date, key LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedReview:
    """One row of a file of reviews, read and checked; at least one of ``key`` and ``photo_id`` is given."""

    line: int  # where the row begins in the file, from 1
    key: str | None
    photo_id: str | None
    category: str
    reviewed_by: str
    reviewed_at: datetime | None  # aware; None: now
    chosen_by: str | None  # None: as the photo's live decision says
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReviews:
    """What became of the rows: added, by the way their photos were chosen, and known already."""

    added: dict[str, int]
    known: int


def write_reviews(
    database: Database,
    rows: Iterable[StagedReview],
    *,
    bucket: str,
    at: datetime,
    actor: str,
    subject: str,
    refuse: Callable[[list[tuple[int, str]], int], None],
    dry_run: bool = False,
) -> WrittenReviews:
    """Write the reviews that are not there yet, and who imported them, in one transaction.

    ``rows`` is read once and not kept. ``refuse`` is called with (line, fault) of photos that are not known and of
    contradictions, the first `TOLD` of each, and how many there are in all, also where there are none; it raises where
    nothing shall be written.
    """
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        cursor.execute(STAGING_TABLE)
        staged, dates, by_id = _stage(cursor, rows)
        cursor.execute("ANALYZE staged_review")
        cursor.execute(MATCH_PHOTOS, {"bucket": bucket, "dates": sorted(dates)})
        if by_id:
            cursor.execute(MATCH_BY_ID)
        cursor.execute("ANALYZE matched_review")
        refuse(*_faults(cursor, bucket))
        cursor.execute(NEW_REVIEWS, {"at": at})
        cursor.execute(COUNT_NEW)
        added = {str(chosen_by): int(count) for chosen_by, count in cursor.fetchall()}
        new = sum(added.values())
        if new and not dry_run:
            cursor.execute(INSERT_REVIEWS)
            details = json.dumps({"rows": staged, "added": added})
            cursor.execute(INSERT_AUDIT, {"at": at, "actor": actor, "subject": subject, "details": details})
    return WrittenReviews(added=added, known=staged - new)


def waiting(database: Database, *, audit: bool, limit: int | None) -> Iterator[tuple[Any, ...]]:
    """Rows of `REVIEW_QUEUE` or, with ``audit``, of `AUDIT_QUEUE`, the oldest night's first."""
    with database.connect(readonly=True) as connection, connection.cursor("waiting") as cursor:
        cursor.itersize = BATCH_ROWS
        cursor.execute(AUDIT_QUEUE if audit else REVIEW_QUEUE, {"limit": limit})
        yield from cursor


def _stage(cursor: Any, rows: Iterable[StagedReview]) -> tuple[int, set[date], bool]:
    """Copy the rows; return how many there are, the photo dates their keys may have, and whether ids stand alone."""
    import pyarrow as pa

    types = {name: pa.int64() if name == "line" else pa.string() for name in _COLUMNS}
    schema = pa.schema(list(types.items()))
    waiting_rows, staged, dates, by_id = iter(rows), 0, {UNDATED}, False
    while batch := list(islice(waiting_rows, BATCH_ROWS)):
        values: dict[str, list[Any]] = {name: [getattr(row, name) for row in batch] for name in _COLUMNS}
        values["reviewed_at"] = [None if when is None else when.isoformat() for when in values["reviewed_at"]]
        table = pa.table(values, schema=schema)
        copy_rows(cursor, "staged_review", table, _COLUMNS)
        staged += len(batch)
        by_id = by_id or any(row.key is None for row in batch)
        folders = {found for row in batch for found in _DATE_FOLDER.findall(row.key or "")}
        dates.update(day for folder in folders if (day := _day(folder)) is not None)
    return staged, dates, by_id


def _day(folder: str) -> date | None:
    try:
        return date.fromisoformat(folder)
    except ValueError:  # 2026-02-30
        return None


def _faults(cursor: Any, bucket: str) -> tuple[list[tuple[int, str]], int]:
    faults = []
    total = 0
    cursor.execute(UNKNOWN, {"limit": TOLD})
    for count, line, key, photo_id in cursor.fetchall():
        total = count
        named = f"key {key!r}" + (f" with photo_id {photo_id}" if photo_id else "") if key else f"photo_id {photo_id}"
        place = f" of bucket {bucket}" if key else ""
        faults.append((line, f"no photo with {named} is known; expected one{place} that a night has published"))
    contradictions = 0
    cursor.execute(CONTRADICTIONS, {"limit": TOLD})
    for count, line, category, first_line, first_category, reviewed_by in cursor.fetchall():
        contradictions = count
        where = "was imported before" if first_line is None else f"stands on line {first_line}"
        faults.append(
            (
                line,
                f"{reviewed_by!r} says {category!r}, but {first_category!r} of the same photo at the same time "
                f"{where}; expected one verdict, or another reviewed_at",
            )
        )
    return faults, total + contradictions
