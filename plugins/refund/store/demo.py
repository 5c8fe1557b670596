"""Writes and removes the rows of made-up nights that no night writes itself: their runs and what people say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from refund.errors import ConfigurationError

if TYPE_CHECKING:
    from refund.store.database import Database

LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('refund.demo'))"

RUNS = """
SELECT run_id, run_date, state, model, taxonomy_version, notes, finished_at IS NOT NULL FROM refund.run
WHERE synthetic ORDER BY run_date, run_id
"""

# From its first moment a made-up run is marked as one: publishing gives the mark to all of its rows.
BEGIN = """
INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, notes, synthetic,
  started_at)
VALUES (%(run_id)s, %(run_date)s, 'running', %(model)s, %(taxonomy_version)s, %(code_version)s, %(params)s,
  ARRAY[%(note)s], true, %(at)s)
ON CONFLICT (run_id) DO NOTHING
"""

# Not twice: a load that was killed and is run again finds those that it wrote.
INSERT_REVIEWS = """
INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by, synthetic)
SELECT new.photo_date, new.photo_id, new.category, 'demo', new.reviewed_at, new.chosen_by, true
FROM unnest(%(photo_dates)s::date[], %(photo_ids)s::uuid[], %(categories)s::text[], %(times)s::timestamptz[],
            %(chosen_by)s::text[]) AS new (photo_date, photo_id, category, reviewed_at, chosen_by)
WHERE NOT EXISTS (
  SELECT FROM refund.review v
  WHERE v.photo_date = new.photo_date AND v.photo_id = new.photo_id AND v.reviewed_at = new.reviewed_at)
ORDER BY new.reviewed_at, new.photo_id
"""

PHOTO_KEYS = "SELECT key FROM refund.photo WHERE synthetic AND photo_date BETWEEN %(first)s AND %(last)s"

INSERT_AUDIT = """
INSERT INTO refund.audit (at, actor, action, subject, details)
VALUES (%(at)s, %(actor)s, %(action)s, %(subject)s, %(details)s)
"""

# What refers to a row before the row itself. The months of the made-up nights alone are read of what is partitioned. A
# person's own review of a made-up photo goes with the photo.
DELETE = {
    "notification": "DELETE FROM refund.notification n USING refund.alert a "
    "WHERE a.alert_id = n.alert_id AND a.synthetic",
    "alert": "DELETE FROM refund.alert WHERE synthetic",
    "report": "DELETE FROM refund.report WHERE synthetic",
    "drift": "DELETE FROM refund.drift WHERE synthetic",
    "review": "DELETE FROM refund.review v USING refund.photo p WHERE p.photo_date = v.photo_date "
    "AND p.photo_id = v.photo_id AND p.synthetic AND p.photo_date BETWEEN %(first)s AND %(last)s",
    "decision": "DELETE FROM refund.decision WHERE synthetic AND photo_date BETWEEN %(first)s AND %(last)s",
    "prediction": "DELETE FROM refund.prediction WHERE synthetic AND photo_date BETWEEN %(first)s AND %(last)s",
    "run_photo": "DELETE FROM refund.run_photo WHERE synthetic AND photo_date BETWEEN %(first)s AND %(last)s",
    "photo": "DELETE FROM refund.photo WHERE synthetic AND photo_date BETWEEN %(first)s AND %(last)s",
    "run": "DELETE FROM refund.run WHERE synthetic",
}


class DemoError(ConfigurationError):
    """Made-up nights cannot be loaded beside those that are there, or by two commands at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """One made-up night as it lies in ``refund.run``."""

    run_id: str
    run_date: date
    state: str  # running, published
    model: str  # name@version
    taxonomy_version: str
    notes: tuple[str, ...]
    finished: bool  # its report and alerts are there as well


@contextmanager
def alone(database: Database) -> Iterator[None]:
    """Keep a second ``refund demo`` out while this one runs.

    Raises:
        DemoError: another one is at work.
    """
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(LOCK)
        if cursor.fetchone() != (True,):
            msg = "another refund demo is at work on this database; expected one at a time. Wait for it, then try again"
            raise DemoError(msg)
        yield


def demo_runs(database: Database) -> list[DemoRun]:
    """Every made-up night there is, oldest first."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(RUNS)
        return [
            DemoRun(
                run_id=run_id,
                run_date=run_date,
                state=state,
                model=model,
                taxonomy_version=taxonomy_version,
                notes=tuple(notes),
                finished=finished,
            )
            for run_id, run_date, state, model, taxonomy_version, notes, finished in cursor.fetchall()
        ]


def begin_demo_run(
    database: Database,
    *,
    run_id: str,
    run_date: date,
    model: str,
    taxonomy_version: str,
    code_version: str,
    params: Mapping[str, Any],
    note: str,
    at: datetime,
) -> None:
    """Begin a made-up night, marked as such, or find it again."""
    values = {
        "run_id": run_id,
        "run_date": run_date,
        "model": model,
        "taxonomy_version": taxonomy_version,
        "code_version": code_version,
        "params": json.dumps(dict(params)),
        "note": note,
        "at": at,
    }
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(BEGIN, values)


def add_reviews(database: Database, reviews: Sequence[tuple[date, str, str, datetime, str]]) -> int:
    """Write (photo date, photo id, category, time, how chosen) as a person's reviews; return how many were new."""
    names = ("photo_dates", "photo_ids", "categories", "times", "chosen_by")
    columns = zip(*reviews, strict=True) if reviews else ([],) * len(names)
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(INSERT_REVIEWS, {name: list(column) for name, column in zip(names, columns, strict=True)})
        return int(cursor.rowcount)


def demo_keys(database: Database, *, first: date, last: date) -> set[str]:
    """The keys of all made-up photos of these photo dates; under few of them lies an object."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(PHOTO_KEYS, {"first": first, "last": last})
        return {key for (key,) in cursor.fetchall()}


def delete_demo_rows(owner: Database, *, first: date, last: date) -> dict[str, int]:
    """Delete every made-up row in one transaction; return how many by table.

    Args:
        owner: the database as ``refund_owner``: the application may delete nothing.
        first: run date of the first made-up night.
        last: of the last one.
    """
    deleted = {}
    with owner.connect() as connection, connection.cursor() as cursor:
        for table, statement in DELETE.items():
            cursor.execute(statement, {"first": first, "last": last})
            deleted[table] = int(cursor.rowcount)
    return deleted


def audit_demo(database: Database, *, at: datetime, actor: str, action: str, subject: str, details: Any) -> None:
    """Say in ``refund.audit`` who loaded or removed made-up nights."""
    values = {"at": at, "actor": actor, "action": action, "subject": subject, "details": json.dumps(details)}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(INSERT_AUDIT, values)
