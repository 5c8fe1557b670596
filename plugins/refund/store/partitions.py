"""Makes the month partitions that photos are written to, in transactions of their own.

Making one locks its parent against every reader until commit, so it never happens inside the transaction that publishes
a night. What it makes and what it refuses is `refund.ensure_partitions` of migration 0004.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from refund.errors import PartitionError, RefundError

if TYPE_CHECKING:
    from refund.store.database import Database

log = logging.getLogger(__name__)

MONTHS_AHEAD = 3
NEEDED_LOCK_TIMEOUT = "2min"  # while it waits, readers queue up behind it
AHEAD_LOCK_TIMEOUT = "5s"  # there are months of nights to try it again
_REFUSED = "RF001"  # what the function raises where a partition of another making is in the way

ENSURE_MONTH = "SELECT refund.ensure_partitions(%(day)s, %(day)s)"
ENSURE_AHEAD = "SELECT refund.ensure_partitions_ahead(COALESCE(%(today)s::date, current_date), %(months)s)"


def ensure_partitions(database: Database, days: Iterable[date]) -> int:
    """Make the partitions of these days' months; returns how many were new.

    Raises:
        PartitionError: a partition or table that somebody made by hand is in the way.
        DatabaseUnavailableError: readers held the tables for too long.
    """
    months = sorted({day.replace(day=1) for day in days})
    return _make(database, ENSURE_MONTH, [{"day": day} for day in months], lock_timeout=NEEDED_LOCK_TIMEOUT)


def ensure_partitions_ahead(
    database: Database, *, today: date | None = None, lock_timeout: str = NEEDED_LOCK_TIMEOUT
) -> int:
    """Make the partitions from the month of ``today`` (the server's date unless given) to `MONTHS_AHEAD` later.

    Returns how many were new. Raises as `ensure_partitions`.
    """
    values = {"today": today, "months": MONTHS_AHEAD}
    return _make(database, ENSURE_AHEAD, [values], lock_timeout=lock_timeout)


def try_partitions_ahead(database: Database, *, today: date) -> str | None:
    """As `ensure_partitions_ahead`, for a night that is published: says what an operator must mend, and raises nothing.

    A fault of the moment is logged alone; the next night tries again.
    """
    try:
        made = ensure_partitions_ahead(database, today=today, lock_timeout=AHEAD_LOCK_TIMEOUT)
    except PartitionError as exc:
        log.warning("The partitions for the months ahead could not be made: %s", exc)
        return f"the partitions for the months ahead could not be made: {exc}"
    except RefundError as exc:
        log.warning("The partitions for the months ahead were not made; the next night tries again: %s", exc)
        return None
    if made:
        log.info("Made %s partitions for the months ahead", made)
    return None


def _make(database: Database, statement: str, calls: Iterable[Mapping[str, Any]], *, lock_timeout: str) -> int:
    import psycopg2

    made = 0
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
        for values in calls:
            try:
                cursor.execute(statement, values)
            except psycopg2.Error as exc:
                if exc.pgcode != _REFUSED:
                    raise
                raise PartitionError(exc.diag.message_primary or str(exc)) from exc
            row = cursor.fetchone()
            made += row[0] if row else 0
    return made
