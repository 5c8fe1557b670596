"""Writes and reads alerts: what somebody should know, whether they were told, and who took it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.store.database import Database
    from refund.store.records import Alert

# What `array_position` counts in: the later, the worse.
_RANKS = "ARRAY['info', 'warning', 'critical']"

# The same or an earlier time is not another sighting: callers give a time of the run, which a task that is tried again
# gives again. Whoever acknowledged it took it as it was: an alert that got worse is open again.
RAISE_ALERT = f"""
INSERT INTO refund.alert AS known (dedupe_key, rule, severity, run_id, run_date, message, details, synthetic,
  first_seen_at, last_seen_at)
VALUES (%(dedupe_key)s, %(rule)s, %(severity)s, %(run_id)s, %(run_date)s, %(message)s, %(details)s,
  COALESCE((SELECT synthetic FROM refund.run WHERE run_id = %(run_id)s), false), %(at)s, %(at)s)
ON CONFLICT (dedupe_key) DO UPDATE SET
  seen_count = known.seen_count + CASE WHEN EXCLUDED.last_seen_at > known.last_seen_at THEN 1 ELSE 0 END,
  severity = EXCLUDED.severity, message = EXCLUDED.message, details = EXCLUDED.details, run_id = EXCLUDED.run_id,
  synthetic = EXCLUDED.synthetic, last_seen_at = GREATEST(known.last_seen_at, EXCLUDED.last_seen_at),
  acknowledged_at = CASE WHEN array_position({_RANKS}, EXCLUDED.severity) <= array_position({_RANKS}, known.severity)
    THEN known.acknowledged_at END,
  acknowledged_by = CASE WHEN array_position({_RANKS}, EXCLUDED.severity) <= array_position({_RANKS}, known.severity)
    THEN known.acknowledged_by END
RETURNING seen_count
"""  # noqa: S608 -- the only thing put in is the constant above

LIST_ALERTS = """
SELECT a.alert_id, a.rule, a.severity, a.run_id, a.run_date, a.message, a.details, a.synthetic, a.first_seen_at,
  a.last_seen_at, a.seen_count, a.acknowledged_at, a.acknowledged_by,
  ARRAY(SELECT DISTINCT channel FROM refund.notification n WHERE n.alert_id = a.alert_id AND state = 'sent'
        ORDER BY channel) AS sent_through,
  (SELECT channel || ': ' || error FROM refund.notification n WHERE n.alert_id = a.alert_id AND state = 'failed'
     AND NOT EXISTS (SELECT FROM refund.notification later WHERE later.alert_id = n.alert_id
       AND later.channel = n.channel AND later.notification_id > n.notification_id)
   ORDER BY notification_id DESC LIMIT 1) AS not_sent
FROM refund.alert a
WHERE (%(acknowledged)s OR a.acknowledged_at IS NULL)
ORDER BY a.acknowledged_at IS NOT NULL, a.last_seen_at DESC, a.alert_id DESC LIMIT %(limit)s
"""

# What a channel has not told yet at this severity, the worst first. What it did not tell because the same rule had just
# been told counts as told; what it failed to tell does not. Old ones are no news: a channel that is switched on tells
# of today.
PENDING = f"""
SELECT a.alert_id, a.rule, a.severity, a.run_id, a.run_date, a.message, a.details, a.first_seen_at, a.seen_count,
  EXISTS (
    SELECT FROM refund.notification n JOIN refund.alert b USING (alert_id)
    WHERE b.rule = a.rule AND n.channel = %(channel)s AND n.state = 'sent' AND n.at > %(cold_at)s
      AND array_position({_RANKS}, n.severity) >= array_position({_RANKS}, a.severity)) AS cooling_down
FROM refund.alert a
WHERE a.acknowledged_at IS NULL AND NOT a.synthetic AND a.last_seen_at > %(news_at)s
  AND array_position({_RANKS}, a.severity) >= array_position({_RANKS}, %(min_severity)s)
  AND NOT EXISTS (
    SELECT FROM refund.notification n
    WHERE n.alert_id = a.alert_id AND n.channel = %(channel)s AND n.state <> 'failed'
      AND array_position({_RANKS}, n.severity) >= array_position({_RANKS}, a.severity))
ORDER BY array_position({_RANKS}, a.severity) DESC, a.last_seen_at DESC, a.alert_id
"""  # noqa: S608 -- the only thing put in is the constant above

ADD_NOTIFICATION = """
INSERT INTO refund.notification (alert_id, channel, state, severity, error, at)
VALUES (%(alert_id)s, %(channel)s, %(state)s, %(severity)s, %(error)s, %(at)s)
"""

ACKNOWLEDGE = """
UPDATE refund.alert SET acknowledged_at = %(at)s, acknowledged_by = %(by)s
WHERE alert_id = %(alert_id)s AND acknowledged_at IS NULL RETURNING rule
"""

GET_ACKNOWLEDGED = "SELECT rule, acknowledged_at, acknowledged_by FROM refund.alert WHERE alert_id = %(alert_id)s"

AUDIT_ACKNOWLEDGED = """
INSERT INTO refund.audit (at, actor, action, subject, details)
VALUES (%(at)s, %(by)s, 'alert.acknowledge', %(subject)s, %(details)s)
"""

# One task at a time, so that two that end together do not send everything twice.
SENDING_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('refund.notification', 0))"
_LOCK_TIMEOUT_MS = 60_000

NEWS_DAYS = 3  # an alert not seen for longer is not sent any more; `refund alerts list` still shows it


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """One alert as people see it."""

    alert_id: int
    rule: str
    severity: str  # info, warning or critical
    run_id: str
    run_date: date
    message: str  # hostile text: it may quote keys
    details: Mapping[str, Any]
    synthetic: bool
    first_seen_at: datetime
    last_seen_at: datetime
    seen_count: int
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    sent_through: tuple[str, ...]  # channels
    not_sent: str | None  # the last failure, where a channel has failed and not been tried since


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingAlert:
    """An alert that a channel has not told yet."""

    alert_id: int
    rule: str
    severity: str
    run_id: str
    run_date: date
    message: str
    details: Mapping[str, Any]
    first_seen_at: datetime
    seen_count: int
    cooling_down: bool  # the same rule was told a short while ago, at this severity or worse


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What became of one acknowledgement."""

    alert_id: int
    rule: str
    by: str
    at: datetime
    before: bool  # somebody had taken it already; ``by`` and ``at`` are theirs


def raise_alert(database: Database, alert: Alert, *, at: datetime) -> int:
    """Write an alert, or count it once more where the key is known and ``at`` is new; return how often seen.

    ``at`` is a time of the run (when it started), not the clock's: a task tried again must not count twice. An
    acknowledged alert that is worse than before is open again.
    """
    values = {**asdict(alert), "details": json.dumps(dict(alert.details)), "at": at}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(RAISE_ALERT, values)
        (seen,) = cursor.fetchall()[0]
        return int(seen)


def list_alerts(database: Database, *, acknowledged: bool = False, limit: int = 1000) -> list[AlertRow]:
    """The open alerts, last seen first; with ``acknowledged`` the others after them."""
    values = {"acknowledged": acknowledged, "limit": limit}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(LIST_ALERTS, values)
        names = tuple(AlertRow.__dataclass_fields__)
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return [AlertRow(**{**row, "sent_through": tuple(row["sent_through"])}) for row in rows]


def pending_alerts(
    database: Database, *, channel: str, at: datetime, min_severity: str, cooldown: timedelta
) -> list[PendingAlert]:
    """What the channel has to tell of, the worst first; made-up nights and acknowledged alerts are left out.

    An alert is told again where it got worse since. One not seen for `NEWS_DAYS` is no news.
    """
    values = {
        "channel": channel,
        "cold_at": at - cooldown,
        "news_at": at - timedelta(days=NEWS_DAYS),
        "min_severity": min_severity,
    }
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(PENDING, values)
        names = tuple(PendingAlert.__dataclass_fields__)
        return [PendingAlert(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


@contextmanager
def sending_alone(database: Database) -> Iterator[bool]:
    """Keep other tasks from sending meanwhile; False where one has been at it for a minute: better twice than never."""
    from psycopg2 import errors

    with database.connect(readonly=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{_LOCK_TIMEOUT_MS}ms",))
            try:
                cursor.execute(SENDING_ALONE)
                alone = True
            except errors.LockNotAvailable:
                connection.rollback()
                alone = False
        yield alone


def add_notification(
    database: Database,
    alert: PendingAlert,
    *,
    channel: str,
    state: str,
    at: datetime,
    error: str | None = None,
) -> None:
    """Keep one attempt; ``state`` is sent, failed (then with ``error``, free of secrets) or cooling_down."""
    values = {"alert_id": alert.alert_id, "channel": channel, "state": state, "severity": alert.severity}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(ADD_NOTIFICATION, {**values, "error": error, "at": at})


def acknowledge(
    database: Database, alert_ids: Sequence[int], *, by: str, at: datetime, note: str | None = None
) -> list[Acknowledged | None]:
    """Take alerts, in one transaction and with an audit row each; None in the place of a number there is not.

    One that somebody has taken already stays theirs.
    """
    answers: list[Acknowledged | None] = []
    with database.connect() as connection, connection.cursor() as cursor:
        for alert_id in alert_ids:
            values = {"alert_id": alert_id, "by": by, "at": at}
            cursor.execute(ACKNOWLEDGE, values)
            if (taken := cursor.fetchone()) is not None:
                details = json.dumps({"rule": taken[0], "note": note})
                cursor.execute(AUDIT_ACKNOWLEDGED, {**values, "subject": f"alert {alert_id}", "details": details})
                answers.append(Acknowledged(alert_id=alert_id, rule=taken[0], by=by, at=at, before=False))
                continue
            cursor.execute(GET_ACKNOWLEDGED, values)
            row = cursor.fetchone()
            answers.append(
                None if row is None else Acknowledged(alert_id=alert_id, rule=row[0], at=row[1], by=row[2], before=True)
            )
    return answers
