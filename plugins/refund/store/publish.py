"""Publishes one night: all of its rows become visible in one transaction, or none do.

The shards' tables are copied into temporary tables, reconciled there photo by photo, and only then written to
``refund``. Killed at any point and called again, it leaves the same rows; called for a published run, it changes none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

from refund.errors import FatalRunError, ReconciliationError
from refund.records import OutcomeCounts
from refund.store.copy_text import copy_text

if TYPE_CHECKING:
    import pyarrow as pa

    from refund.store.database import Database

LOCK_KEY = 7_336_864  # pg_advisory_xact_lock: one publish at a time per database (`refund.store.migrate` has …863)
LOCK_TIMEOUT = "10min"  # longer than any publish; then the task retries
PARTITION_LOCK_TIMEOUT = "2min"  # while it waits, readers queue up behind it

_MANIFEST_COLUMNS = (
    "photo_id", "photo_date", "bucket", "key", "etag", "size_bytes", "refund_id", "declared_category",
)  # fmt: skip
_PHOTO_COLUMNS = (
    "photo_id", "reason", "detail", "image_format", "width_px", "height_px", "sha256", "perceptual_hash",
    "brightness_ratio", "contrast_ratio", "sharpness", "entropy_bits", "quality_labels", "quarantine_key",
)  # fmt: skip
_PREDICTION_COLUMNS = (
    "photo_id", "model", "class_id", "class_name", "confidence", "top_k", "category_scores", "category",
    "category_score", "kind", "reasons",
)  # fmt: skip

RUN = """
SELECT state, photos, classified, rejected, unchanged, params ->> 'review_threshold' FROM refund.run
WHERE run_id = %(run_id)s FOR UPDATE
"""

STAGING_TABLES = """
CREATE TEMPORARY TABLE staged_manifest (
  photo_id uuid, photo_date date, bucket text, key text, etag text, size_bytes bigint, refund_id text,
  declared_category text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_unchanged (LIKE staged_manifest) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_photo (
  photo_id uuid, reason text, detail text, image_format text, width_px integer, height_px integer, sha256 text,
  perceptual_hash bigint, brightness_ratio real, contrast_ratio real, sharpness real, entropy_bits real,
  quality_labels text[], quarantine_key text
) ON COMMIT DROP;
CREATE TEMPORARY TABLE staged_prediction (
  photo_id uuid, model text, class_id text, class_name text, confidence real, top_k jsonb, category_scores jsonb,
  category text, category_score real, kind text, reasons text[]
) ON COMMIT DROP;
"""

# What may not be, and the photos that are so. Keys where known, else ids: a row without a manifest has no key.
DIFFERENCES = {
    "listed more than once": """
        SELECT min(key)
        FROM (SELECT photo_id, key FROM staged_manifest UNION ALL SELECT photo_id, key FROM staged_unchanged) m
        GROUP BY photo_id HAVING count(*) > 1""",
    "listed but without an outcome": """
        SELECT m.key FROM staged_manifest m
        WHERE NOT EXISTS (SELECT FROM staged_photo p WHERE p.photo_id = m.photo_id)""",
    "with an outcome but not listed": """
        SELECT p.photo_id::text FROM staged_photo p
        WHERE NOT EXISTS (SELECT FROM staged_manifest m WHERE m.photo_id = p.photo_id)""",
    "with more than one outcome": """
        SELECT COALESCE((SELECT min(m.key) FROM staged_manifest m WHERE m.photo_id = p.photo_id), p.photo_id::text)
        FROM staged_photo p GROUP BY p.photo_id HAVING count(*) > 1""",
    "accepted but without a prediction": """
        SELECT COALESCE(m.key, p.photo_id::text) FROM staged_photo p LEFT JOIN staged_manifest m USING (photo_id)
        WHERE p.reason IS NULL AND NOT EXISTS (SELECT FROM staged_prediction s WHERE s.photo_id = p.photo_id)""",
    "predicted but not accepted": """
        SELECT COALESCE(m.key, s.photo_id::text) FROM staged_prediction s LEFT JOIN staged_manifest m USING (photo_id)
        WHERE NOT EXISTS (SELECT FROM staged_photo p WHERE p.photo_id = s.photo_id AND p.reason IS NULL)""",
    "predicted more than once": """
        SELECT COALESCE((SELECT min(m.key) FROM staged_manifest m WHERE m.photo_id = s.photo_id), s.photo_id::text)
        FROM staged_prediction s GROUP BY s.photo_id HAVING count(*) > 1""",
    "said to be unchanged but not in refund.photo": """
        SELECT u.key FROM staged_unchanged u
        WHERE NOT EXISTS (SELECT FROM refund.photo p WHERE p.photo_date = u.photo_date AND p.photo_id = u.photo_id)""",
}

DIFFERENCE = "SELECT count(*), (array_agg(key ORDER BY key))[:5] FROM ({query}) AS found (key)"

COUNTS = """
SELECT (SELECT count(*) FROM staged_photo WHERE reason IS NULL),
       (SELECT count(*) FROM staged_photo WHERE reason IS NOT NULL),
       (SELECT count(*) FROM staged_unchanged)
"""

PHOTO_DATES = "SELECT photo_date FROM staged_manifest UNION SELECT photo_date FROM staged_unchanged"

ENSURE_PARTITION = "SELECT refund.ensure_partitions(%(day)s, %(day)s)"

# Known facts are kept; those that an earlier, failed look did not find out are filled in.
INSERT_PHOTOS = """
INSERT INTO refund.photo AS known (photo_date, photo_id, bucket, key, etag, size_bytes, refund_id, declared_category,
  image_format, width_px, height_px, sha256, perceptual_hash, brightness_ratio, contrast_ratio, sharpness, entropy_bits,
  quality_labels, first_run_id)
SELECT m.photo_date, m.photo_id, m.bucket, m.key, m.etag, m.size_bytes, m.refund_id, m.declared_category,
  p.image_format, p.width_px, p.height_px, p.sha256, p.perceptual_hash, p.brightness_ratio, p.contrast_ratio,
  p.sharpness, p.entropy_bits, COALESCE(p.quality_labels, '{}'), %(run_id)s
FROM staged_manifest m JOIN staged_photo p USING (photo_id)
ON CONFLICT (photo_date, photo_id) DO UPDATE SET
  refund_id = COALESCE(known.refund_id, EXCLUDED.refund_id),
  declared_category = COALESCE(EXCLUDED.declared_category, known.declared_category),
  image_format = COALESCE(known.image_format, EXCLUDED.image_format),
  width_px = COALESCE(known.width_px, EXCLUDED.width_px),
  height_px = COALESCE(known.height_px, EXCLUDED.height_px),
  sha256 = COALESCE(known.sha256, EXCLUDED.sha256),
  perceptual_hash = COALESCE(known.perceptual_hash, EXCLUDED.perceptual_hash),
  brightness_ratio = COALESCE(known.brightness_ratio, EXCLUDED.brightness_ratio),
  contrast_ratio = COALESCE(known.contrast_ratio, EXCLUDED.contrast_ratio),
  sharpness = COALESCE(known.sharpness, EXCLUDED.sharpness),
  entropy_bits = COALESCE(known.entropy_bits, EXCLUDED.entropy_bits),
  quality_labels = CASE WHEN known.brightness_ratio IS NULL THEN EXCLUDED.quality_labels ELSE known.quality_labels END
"""

# Other versions under a listed key. The listed one is the newest, unless a run that began later has seen the other (a
# run that failed and was cleared days afterwards lists what lay there then). Looked for before the photos are
# inserted: of a table that grew within the transaction the planner knows too little (measured: quadratic).
FIND_RIVALS = """
CREATE TEMPORARY TABLE staged_rival ON COMMIT DROP AS
SELECT m.photo_date, m.photo_id, other.photo_id AS rival_id, seen.started_at > this.started_at AS rival_is_newer
FROM (SELECT * FROM staged_manifest UNION ALL SELECT * FROM staged_unchanged) m
JOIN refund.photo other ON other.photo_date = m.photo_date AND other.photo_date = ANY (%(dates)s::date[])
  AND other.key = m.key AND other.bucket = m.bucket AND other.photo_id <> m.photo_id AND other.superseded_by IS NULL
JOIN refund.run seen ON seen.run_id = other.first_run_id
JOIN refund.run this ON this.run_id = %(run_id)s
"""
REPLACE_OLDER_VERSIONS = """
UPDATE refund.photo old SET superseded_by = r.photo_id FROM staged_rival r
WHERE old.photo_date = r.photo_date AND old.photo_date = ANY (%(dates)s::date[]) AND old.photo_id = r.rival_id
  AND NOT r.rival_is_newer
"""
YIELD_TO_NEWER_VERSIONS = """
UPDATE refund.photo mine SET superseded_by = r.rival_id FROM staged_rival r
WHERE mine.photo_date = r.photo_date AND mine.photo_date = ANY (%(dates)s::date[]) AND mine.photo_id = r.photo_id
  AND r.rival_is_newer
"""
REVIVE_LISTED_VERSIONS = """
UPDATE refund.photo mine SET superseded_by = NULL
FROM (SELECT photo_date, photo_id FROM staged_manifest UNION ALL SELECT photo_date, photo_id FROM staged_unchanged) m
WHERE mine.photo_date = m.photo_date AND mine.photo_date = ANY (%(dates)s::date[]) AND mine.photo_id = m.photo_id
  AND mine.superseded_by IS NOT NULL
  AND NOT EXISTS (SELECT FROM staged_rival r WHERE r.photo_id = m.photo_id AND r.rival_is_newer)
"""

# Photos that a run which began later has looked at already, and the last such run: the same late clear. Its verdict, or
# the one that it left unchanged, stands; this run's is kept as superseded from the start.
FIND_NEWER_VERDICTS = """
CREATE TEMPORARY TABLE staged_newer ON COMMIT DROP AS
SELECT DISTINCT ON (m.photo_id) m.photo_id, seen.run_id AS newer_run_id
FROM staged_manifest m
JOIN refund.run_photo o ON o.photo_date = m.photo_date AND o.photo_date = ANY (%(dates)s::date[])
  AND o.photo_id = m.photo_id AND o.run_id <> %(run_id)s
JOIN refund.run seen ON seen.run_id = o.run_id
JOIN refund.run this ON this.run_id = %(run_id)s
WHERE seen.started_at > this.started_at
ORDER BY m.photo_id, seen.started_at DESC, seen.run_id
"""
SUPERSEDE_OUTCOMES = """
UPDATE refund.run_photo old SET superseded_by = %(run_id)s FROM staged_manifest m
WHERE old.photo_date = m.photo_date AND old.photo_date = ANY (%(dates)s::date[]) AND old.photo_id = m.photo_id
  AND old.run_id <> %(run_id)s AND old.outcome <> 'unchanged' AND old.superseded_by IS NULL
  AND NOT EXISTS (SELECT FROM staged_newer n WHERE n.photo_id = m.photo_id)
"""
SUPERSEDE_DECISIONS = """
UPDATE refund.decision old SET superseded_by = %(run_id)s FROM staged_manifest m
WHERE old.photo_date = m.photo_date AND old.photo_date = ANY (%(dates)s::date[]) AND old.photo_id = m.photo_id
  AND old.run_id <> %(run_id)s AND old.superseded_by IS NULL
  AND NOT EXISTS (SELECT FROM staged_newer n WHERE n.photo_id = m.photo_id)
"""

INSERT_OUTCOMES = """
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome, reason, detail, quarantine_key, superseded_by)
SELECT m.photo_date, m.photo_id, %(run_id)s, CASE WHEN p.reason IS NULL THEN 'classified' ELSE 'rejected' END,
       p.reason, p.detail, p.quarantine_key, n.newer_run_id
FROM staged_manifest m JOIN staged_photo p USING (photo_id) LEFT JOIN staged_newer n USING (photo_id)
UNION ALL
SELECT u.photo_date, u.photo_id, %(run_id)s, 'unchanged', NULL, NULL, NULL, NULL FROM staged_unchanged u
"""
INSERT_PREDICTIONS = """
INSERT INTO refund.prediction (photo_date, photo_id, model, class_id, class_name, confidence, top_k, run_id)
SELECT m.photo_date, m.photo_id, s.model, s.class_id, s.class_name, s.confidence, s.top_k, %(run_id)s
FROM staged_prediction s JOIN staged_manifest m USING (photo_id)
ON CONFLICT DO NOTHING
"""
# The audit mark depends on the photo alone: whichever run, model or machine decides it, and a larger share only adds.
INSERT_DECISIONS = """
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at, superseded_by, audit)
SELECT m.photo_date, m.photo_id, r.run_id, s.category, s.category_score, s.kind, s.reasons, s.category_scores, s.model,
       r.taxonomy_version, %(threshold)s, %(at)s, n.newer_run_id,
       s.kind = 'auto' AND refund.audit_ratio(m.photo_id) < %(audit_share)s::double precision
FROM staged_prediction s JOIN staged_manifest m USING (photo_id) LEFT JOIN staged_newer n USING (photo_id)
CROSS JOIN refund.run r WHERE r.run_id = %(run_id)s
"""

CLOSE_RUN = """
UPDATE refund.run SET state = %(state)s, photos = %(photos)s, classified = %(classified)s, rejected = %(rejected)s,
  unchanged = %(unchanged)s, models = ARRAY(SELECT DISTINCT s.model FROM staged_prediction s ORDER BY 1),
  published_at = CASE WHEN %(state)s = 'published' THEN %(at)s::timestamptz END
WHERE run_id = %(run_id)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTables:
    """What the tasks staged for one shard, in the columns of `refund.schemas`."""

    manifest: pa.Table
    photos: pa.Table
    predictions: pa.Table


def publish(
    database: Database,
    *,
    run_id: str,
    shards: Iterable[ShardTables],
    unchanged: pa.Table | None,
    expected: OutcomeCounts,
    audit_share: float,
    at: datetime,
    dry_run: bool = False,
) -> OutcomeCounts:
    """Reconcile the staged night and write it; return what became of its photos.

    Taxonomy version and review threshold come from the run's row, the model of a photo from its staged prediction.
    Of the automatic decisions ``audit_share`` (0 to 1), always of the same photos, is marked for people to check.
    ``shards`` is read once, one at a time. With ``dry_run`` everything is reconciled and nothing written but the run's
    counts, models and state.

    Raises:
        ReconciliationError: manifest, packs, predictions and ``expected`` do not count the same (the text lists the
            differences, with up to five keys each), or a table took another number of rows.
        FatalRunError: the run was never begun, or Postgres refuses a value.
        DatabaseUnavailableError: the connection broke or another publish did not end; nothing was written.
    """
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        cursor.execute(RUN, {"run_id": run_id})
        run = cursor.fetchone()
        if run is None:
            msg = f"run {run_id!r} has no row in refund.run; expected that health_check began it. Clear it from there"
            raise FatalRunError(msg)
        state, photos, classified, rejected, left, threshold = run
        if state == "published":
            return OutcomeCounts(photos=photos, classified=classified, rejected=rejected, unchanged=left)
        cursor.execute(STAGING_TABLES)
        _stage(cursor, shards, unchanged)
        cursor.execute(PHOTO_DATES)
        dates = [row[0] for row in cursor.fetchall()]
        if not dry_run:
            _ensure_partitions(database, dates)
        counts = _reconcile(cursor, expected)
        if not dry_run:
            values = {
                "run_id": run_id,
                "dates": dates,
                "threshold": _threshold(run_id, threshold),
                "audit_share": audit_share,
                "at": at,
            }
            for statement in (
                FIND_RIVALS, FIND_NEWER_VERDICTS, INSERT_PHOTOS, REPLACE_OLDER_VERSIONS, YIELD_TO_NEWER_VERSIONS,
                REVIVE_LISTED_VERSIONS, SUPERSEDE_OUTCOMES, SUPERSEDE_DECISIONS,
            ):  # fmt: skip
                cursor.execute(statement, values)
            _insert(cursor, INSERT_OUTCOMES, values, expected=counts.photos, into="refund.run_photo")
            cursor.execute(INSERT_PREDICTIONS, values)
            _insert(cursor, INSERT_DECISIONS, values, expected=counts.classified, into="refund.decision")
        cursor.execute(
            CLOSE_RUN,
            {
                "run_id": run_id,
                "state": "dry_run" if dry_run else "published",
                "photos": counts.photos,
                "classified": counts.classified,
                "rejected": counts.rejected,
                "unchanged": counts.unchanged,
                "at": at,
            },
        )
    return counts


def _ensure_partitions(database: Database, dates: Iterable[date]) -> None:
    """Make the month partitions in a transaction of their own.

    Making one locks its parent against every reader until commit; inside the publishing transaction analysts would
    wait for the whole night to be written. For the same reason this comes before that transaction's first look at
    the partitioned tables: the two would wait for each other for ever.
    """
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{PARTITION_LOCK_TIMEOUT}'")
        for day in sorted({day.replace(day=1) for day in dates}):
            cursor.execute(ENSURE_PARTITION, {"day": day})


def _stage(cursor: Any, shards: Iterable[ShardTables], unchanged: pa.Table | None) -> None:
    if unchanged is not None:
        _copy(cursor, "staged_unchanged", unchanged, _MANIFEST_COLUMNS)
    for shard in shards:
        _copy(cursor, "staged_manifest", shard.manifest, _MANIFEST_COLUMNS)
        _copy(cursor, "staged_photo", shard.photos, _PHOTO_COLUMNS)
        _copy(cursor, "staged_prediction", shard.predictions, _PREDICTION_COLUMNS)
    cursor.execute("ANALYZE staged_manifest, staged_unchanged, staged_photo, staged_prediction")


def _copy(cursor: Any, target: str, table: pa.Table, columns: tuple[str, ...]) -> None:
    cursor.copy_expert(f"COPY {target} ({', '.join(columns)}) FROM STDIN", StringIO(copy_text(table, columns)))


def _reconcile(cursor: Any, expected: OutcomeCounts) -> OutcomeCounts:
    faults = []
    for what, query in DIFFERENCES.items():
        cursor.execute(DIFFERENCE.format(query=query))
        count, keys = cursor.fetchone()
        if count:
            shown = ", ".join(repr(key) for key in keys) + (" and more" if count > len(keys) else "")
            faults.append(f"{count} {what}: {shown}")
    cursor.execute(COUNTS)
    classified, rejected, unchanged = cursor.fetchone()
    found = OutcomeCounts(
        photos=classified + rejected + unchanged, classified=classified, rejected=rejected, unchanged=unchanged
    )
    if found != expected:
        faults.append(f"the staged files count {_say(found)}, the tasks reported {_say(expected)}")
    if faults:
        msg = (
            "nothing was published, because the staged night does not add up:\n"
            + "\n".join(f"  {fault}" for fault in faults)
            + "\nClear the run from the task fetch on, so that it is made again"
        )
        raise ReconciliationError(msg)
    return found


def _insert(cursor: Any, statement: str, values: dict[str, Any], *, expected: int, into: str) -> None:
    cursor.execute(statement, values)
    if cursor.rowcount != expected:
        msg = (
            f"nothing was published, because {into} took {cursor.rowcount} rows, the reconciled night has {expected}. "
            f"Look for a trigger or rule on that table and clear the run from the task persist on"
        )
        raise ReconciliationError(msg)


def _say(counts: OutcomeCounts) -> str:
    return (
        f"{counts.photos} photos ({counts.classified} classified, {counts.rejected} rejected, "
        f"{counts.unchanged} unchanged)"
    )


def _threshold(run_id: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        msg = f"run {run_id!r} has review_threshold {text!r} among its params; expected a number from 0 to 1"
        raise FatalRunError(msg) from None
