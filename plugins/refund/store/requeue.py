"""Reads which rejections of a run date stand, and marks those that were put back for the next run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from refund.store.publish import LOCK_KEY, LOCK_TIMEOUT

if TYPE_CHECKING:
    from refund.store.database import Database

# The same rows as `reporting.rejections`: of the newest version of each photo, and not superseded by a later run.
# Photos of another bucket cannot be looked at through this connection.
_STANDING = """
FROM refund.run r JOIN refund.run_photo o USING (run_id)
JOIN refund.photo p ON p.photo_date = o.photo_date AND p.photo_id = o.photo_id
WHERE r.run_date = %(run_date)s AND NOT r.synthetic AND o.outcome = 'rejected' AND o.superseded_by IS NULL
  AND p.superseded_by IS NULL AND p.bucket = %(bucket)s
"""
STANDING = f"""
SELECT o.photo_date, o.photo_id::text, o.run_id, p.key, p.etag, p.size_bytes, p.sha256, o.quarantine_key,
       o.requeued_at, r.params ->> 'prefix'
{_STANDING} AND o.reason = %(reason)s AND starts_with(p.key, %(key_prefix)s)
ORDER BY p.key, o.run_id
"""
COUNTS = f"SELECT o.reason, count(*) {_STANDING} GROUP BY o.reason ORDER BY count(*) DESC, o.reason"

# With which parameters the date was run last, by prefix: run with the same, what was decided with them stays.
LAST_PARAMS = """
SELECT DISTINCT ON (params ->> 'prefix') params FROM refund.run
WHERE run_date = %(run_date)s AND state = 'published' AND NOT synthetic
ORDER BY params ->> 'prefix', number DESC
"""

# Whatever a night has superseded, or another requeue has marked, since the rows were read stays as it is.
MARK = """
UPDATE refund.run_photo o SET requeued_at = %(at)s
FROM unnest(%(dates)s::date[], %(ids)s::uuid[], %(runs)s::text[]) AS back (photo_date, photo_id, run_id)
WHERE o.photo_date = back.photo_date AND o.photo_date = ANY (%(dates)s::date[]) AND o.photo_id = back.photo_id
  AND o.run_id = back.run_id AND o.outcome = 'rejected' AND o.superseded_by IS NULL AND o.requeued_at IS NULL
"""
INSERT_AUDIT = """
INSERT INTO refund.audit (at, actor, action, subject, details)
VALUES (%(at)s, %(actor)s, 'requeue', %(subject)s, %(details)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One rejection that stands, and what its photo was when it was rejected."""

    photo_date: date
    photo_id: str
    run_id: str
    key: str
    etag: str
    size_bytes: int
    sha256: str | None  # of its bytes; None where they were not read
    quarantine_key: str | None
    requeued_at: datetime | None
    prefix: str | None  # where its run looked for photos


def standing_rejections(
    database: Database, *, run_date: date, reason: str, key_prefix: str, bucket: str
) -> list[Rejection]:
    """The rejections of a run date that stand, of one reason, whose keys begin with ``key_prefix``; by key."""
    values = {"run_date": run_date, "reason": reason, "key_prefix": key_prefix, "bucket": bucket}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(STANDING, values)
        return [Rejection(**dict(zip(Rejection.__dataclass_fields__, row, strict=True))) for row in cursor.fetchall()]


def standing_counts(database: Database, *, run_date: date, bucket: str) -> dict[str, int]:
    """How many rejections of a run date stand, by reason, the most frequent first."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(COUNTS, {"run_date": run_date, "bucket": bucket})
        return {str(reason): int(count) for reason, count in cursor.fetchall()}


def last_params(database: Database, *, run_date: date) -> list[dict[str, Any]]:
    """The parameters of the last published run of a date, one for each prefix that it was run with."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(LAST_PARAMS, {"run_date": run_date})
        return [params for (params,) in cursor.fetchall()]


def mark_requeued(
    database: Database,
    rejections: Sequence[Rejection],
    *,
    at: datetime,
    actor: str,
    subject: str,
    details: Mapping[str, Any],
) -> int:
    """Mark rejections as put back, and keep who did it, in one transaction; returns how many still stood.

    It takes the lock of `refund.store.publish`, so that no night publishes meanwhile. Where none stood, nothing is
    kept.
    """
    values = {
        "at": at,
        "dates": [rejection.photo_date for rejection in rejections],
        "ids": [rejection.photo_id for rejection in rejections],
        "runs": [rejection.run_id for rejection in rejections],
    }
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        cursor.execute(MARK, values)
        marked = int(cursor.rowcount)
        if marked:
            told = json.dumps({"marked": marked, **details})
            cursor.execute(INSERT_AUDIT, {"at": at, "actor": actor, "subject": subject, "details": told})
    return marked
