"""Publishes one night: all of its rows become visible in one transaction, or none do.

The shards' tables are copied into temporary tables, reconciled there photo by photo, and only then written to
``refund``. Killed at any point and called again, it leaves the same rows; called for a published run, it changes none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from refund.errors import FatalRunError, ReconciliationError
from refund.records import OutcomeCounts
from refund.store import publish_sql as sql
from refund.store.copy_text import copy_rows
from refund.store.partitions import ensure_partitions, try_partitions_ahead
from refund.store.repository import ADD_NOTES, FINAL_REASONS

if TYPE_CHECKING:
    import pyarrow as pa

    from refund.store.database import Database

log = logging.getLogger(__name__)

LOCK_KEY = 7_336_864  # pg_advisory_xact_lock: one publish at a time per database (`refund.store.migrate` has …863)
LOCK_TIMEOUT = "10min"  # longer than any publish; then the task retries

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
    Two nights publish one after the other; what the first decided meanwhile, by the same model, taxonomy and threshold,
    the second leaves unchanged, unless it was told to classify again (``force``).
    Of the automatic decisions ``audit_share`` (0 to 1), always of the same photos, is marked for people to check.
    ``shards`` is read once, one at a time. With ``dry_run`` everything is reconciled and nothing written but the run's
    counts, models and state.

    Raises:
        ReconciliationError: manifest, packs, predictions and ``expected`` do not count the same (the text lists the
            differences, with up to five keys each), or a table took another number of rows.
        FatalRunError: the run was never begun, or Postgres refuses a value.
        PartitionError: a partition that somebody made by hand leaves no place for a month of the night.
        DatabaseUnavailableError: the connection broke or another publish did not end; nothing was written.
    """
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # For the checks of foreign keys, one per row. Planned for its values, each is planned anew, and for a date or a
        # run that statistics do not know yet it may walk through all of the night's rows, which is quadratic.
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        _await_turn(cursor)
        cursor.execute(sql.RUN, {"run_id": run_id})
        run = cursor.fetchone()
        if run is None:
            msg = f"run {run_id!r} has no row in refund.run; expected that health_check began it. Clear it from there"
            raise FatalRunError(msg)
        state, photos, classified, rejected, left, threshold, force = run
        if state == "published":
            return OutcomeCounts(photos=photos, classified=classified, rejected=rejected, unchanged=left)
        cursor.execute(sql.STAGING_TABLES)
        _stage(cursor, shards, unchanged)
        cursor.execute(sql.PHOTO_DATES)
        dates = [row[0] for row in cursor.fetchall()]
        if not dry_run:
            # before this transaction's first look at the partitioned tables: the two would wait for each other for ever
            ensure_partitions(database, dates)
        counts, overtaken = _reconcile(cursor, expected), 0
        if not dry_run:
            values = {
                "run_id": run_id,
                "dates": dates,
                "threshold": _threshold(run_id, threshold),
                "audit_share": audit_share,
                "at": at,
                "final_reasons": FINAL_REASONS,
            }
            if not force:
                overtaken = _leave_overtaken(cursor, values)
                counts = _counted(cursor)
            for statement in (
                sql.FIND_RIVALS, sql.FIND_NEWER_VERDICTS, sql.INSERT_PHOTOS, sql.REPLACE_OLDER_VERSIONS,
                sql.YIELD_TO_NEWER_VERSIONS, sql.REVIVE_LISTED_VERSIONS, sql.SUPERSEDE_OUTCOMES,
                sql.SUPERSEDE_DECISIONS,
            ):  # fmt: skip
                cursor.execute(statement, values)
            _insert(cursor, sql.INSERT_OUTCOMES, values, expected=counts.photos, into="refund.run_photo")
            cursor.execute(sql.INSERT_PREDICTIONS, values)
            _insert(cursor, sql.INSERT_DECISIONS, values, expected=counts.classified, into="refund.decision")
        cursor.execute(
            sql.CLOSE_RUN,
            {
                "run_id": run_id,
                "state": "dry_run" if dry_run else "published",
                "photos": counts.photos,
                "classified": counts.classified,
                "rejected": counts.rejected,
                "unchanged": counts.unchanged,
                "overtaken": overtaken,
                "at": at,
            },
        )
    if not dry_run:
        _look_ahead(database, run_id, at.date())
    return counts


def _look_ahead(database: Database, run_id: str, today: date) -> None:
    """Make the partitions of the months ahead; what hinders it is a note of the night, which is published."""
    if (note := try_partitions_ahead(database, today=today)) is not None:
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(ADD_NOTES, {"run_id": run_id, "notes": [note]})


def _stage(cursor: Any, shards: Iterable[ShardTables], unchanged: pa.Table | None) -> None:
    if unchanged is not None:
        copy_rows(cursor, "staged_unchanged", unchanged, _MANIFEST_COLUMNS)
    for shard in shards:
        copy_rows(cursor, "staged_manifest", shard.manifest, _MANIFEST_COLUMNS)
        copy_rows(cursor, "staged_photo", shard.photos, _PHOTO_COLUMNS)
        copy_rows(cursor, "staged_prediction", shard.predictions, _PREDICTION_COLUMNS)
    cursor.execute(sql.ANALYZE)


def _await_turn(cursor: Any) -> None:
    """Take the lock that makes nights publish one after the other, and say so where that takes time."""
    cursor.execute(sql.TRY_LOCK, {"key": LOCK_KEY})
    if not cursor.fetchone()[0]:
        log.info("Another night is publishing; this one waits for it, at most %s", LOCK_TIMEOUT)
        cursor.execute(sql.LOCK, {"key": LOCK_KEY})


def _leave_overtaken(cursor: Any, values: dict[str, Any]) -> int:
    """Make unchanged what another run published while this one was at work; returns how many photos."""
    cursor.execute(sql.FIND_OVERTAKEN, values)
    count = int(cursor.rowcount)
    if count:
        note = f"another run published {count} of these photos while this one was at work: left unchanged"
        log.warning("Note: %s", note)
        cursor.execute(ADD_NOTES, {"run_id": values["run_id"], "notes": [note]})
        for statement in sql.LEAVE_OVERTAKEN:
            cursor.execute(statement)
        cursor.execute(sql.ANALYZE)
    return count


def _counted(cursor: Any) -> OutcomeCounts:
    cursor.execute(sql.COUNTS)
    classified, rejected, unchanged = cursor.fetchone()
    return OutcomeCounts(
        photos=classified + rejected + unchanged, classified=classified, rejected=rejected, unchanged=unchanged
    )


def _reconcile(cursor: Any, expected: OutcomeCounts) -> OutcomeCounts:
    faults = []
    for what, query in sql.DIFFERENCES.items():
        cursor.execute(sql.DIFFERENCE.format(query=query))
        count, keys = cursor.fetchone()
        if count:
            shown = ", ".join(repr(key) for key in keys) + (" and more" if count > len(keys) else "")
            faults.append(f"{count} {what}: {shown}")
    found = _counted(cursor)
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
