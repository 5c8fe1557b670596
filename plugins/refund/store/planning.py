"""Tells Postgres's planner of a large night, so that the statements of its report are planned for what is there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from refund.errors import RefundError

if TYPE_CHECKING:
    from refund.store.database import Database

log = logging.getLogger(__name__)

LARGE_NIGHT = 10_000  # photos; below, a plan for a handful of rows does as well, and the look costs more than it saves

ANALYZE = """
SELECT refund.analyze_months(ARRAY(SELECT DISTINCT photo_date FROM refund.run_photo WHERE run_id = %(run_id)s))
"""


def try_analyze(database: Database, run_id: str, *, photos: int) -> int:
    """Have the planner look at the months of a run of ``photos`` photos; the number of partitions it looked at.

    It looks at none for a night below `LARGE_NIGHT`. What keeps it from looking is only logged: without it the report
    is as right, and slower.
    """
    if photos < LARGE_NIGHT:
        return 0
    try:
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '10s'")  # another look at the same months is under way
            cursor.execute(ANALYZE, {"run_id": run_id})
            (count,) = cursor.fetchall()[0]
            return int(count)
    except RefundError as exc:
        log.warning("The planner was not told of the night, so its report may take longer: %s", exc)
        return 0
