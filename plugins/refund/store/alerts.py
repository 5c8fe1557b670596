"""Writes and reads alerts: what somebody should know, whether they were told, and who took it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refund.store.database import Database
    from refund.store.records import Alert

# The same time is not another sighting: callers give a time of the run, which a task that is tried again gives again.
RAISE_ALERT = """
INSERT INTO refund.alert AS known (dedupe_key, rule, severity, run_id, run_date, message, details, synthetic,
  first_seen_at, last_seen_at)
VALUES (%(dedupe_key)s, %(rule)s, %(severity)s, %(run_id)s, %(run_date)s, %(message)s, %(details)s,
  COALESCE((SELECT synthetic FROM refund.run WHERE run_id = %(run_id)s), false), %(at)s, %(at)s)
ON CONFLICT (dedupe_key) DO UPDATE SET
  seen_count = known.seen_count + CASE WHEN EXCLUDED.last_seen_at <> known.last_seen_at THEN 1 ELSE 0 END,
  severity = EXCLUDED.severity, message = EXCLUDED.message, details = EXCLUDED.details,
  last_seen_at = GREATEST(known.last_seen_at, EXCLUDED.last_seen_at)
RETURNING seen_count
"""


def raise_alert(database: Database, alert: Alert, *, at: datetime) -> int:
    """Write an alert, or count it once more where the key is known and ``at`` is new; return how often seen.

    ``at`` is a time of the run (when it started), not the clock's: a task tried again must not count twice.
    """
    values = {**asdict(alert), "details": json.dumps(dict(alert.details)), "at": at}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(RAISE_ALERT, values)
        (seen,) = cursor.fetchall()[0]
        return int(seen)
