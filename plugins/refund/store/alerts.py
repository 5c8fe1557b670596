"""Writes and reads alerts: what somebody should know, whether they were told, and who took it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.store.database import Database
    from refund.store.records import Alert

# What `array_position` counts in: the later, the worse.
_RANKS = "ARRAY['info', 'warning', 'critical']"

# Who closes what is no longer so: the night itself.
RESOLVED_BY = "refund_nightly"

# The same or an earlier time is not another sighting: callers give a time of the run, which a task that is tried again
# gives again. Whoever acknowledged it took it as it was: an alert that got worse is open again. What the night closed
# and finds again is open again, and seen after it was closed. What is said in general does not replace what the same
# sighting said in detail.
RAISE_ALERT = f"""
INSERT INTO refund.alert AS known (dedupe_key, rule, severity, run_id, run_date, message, details, synthetic,
  first_seen_at, last_seen_at)
VALUES (%(dedupe_key)s, %(rule)s, %(severity)s, %(run_id)s, %(run_date)s, %(message)s, %(details)s,
  COALESCE((SELECT synthetic FROM refund.run WHERE run_id = %(run_id)s), false), %(at)s, %(at)s)
ON CONFLICT (dedupe_key) DO UPDATE SET
  seen_count = known.seen_count + CASE WHEN EXCLUDED.last_seen_at > known.last_seen_at
    OR known.acknowledged_by = '{RESOLVED_BY}' THEN 1 ELSE 0 END,
  message = CASE WHEN {{same_in_general}} THEN known.message ELSE EXCLUDED.message END,
  details = CASE WHEN {{same_in_general}} THEN known.details ELSE EXCLUDED.details END,
  severity = EXCLUDED.severity, run_id = EXCLUDED.run_id, synthetic = EXCLUDED.synthetic,
  last_seen_at = GREATEST(known.last_seen_at, EXCLUDED.last_seen_at,
    CASE WHEN known.acknowledged_by = '{RESOLVED_BY}' THEN known.acknowledged_at END),
  acknowledged_at = CASE WHEN {{still_taken}} THEN known.acknowledged_at END,
  acknowledged_by = CASE WHEN {{still_taken}} THEN known.acknowledged_by END
RETURNING seen_count
""".format(  # noqa: S608 -- the only things put in are constants
    same_in_general="%(is_general)s AND known.run_id = EXCLUDED.run_id AND known.last_seen_at >= EXCLUDED.last_seen_at "
    f"AND known.acknowledged_by IS DISTINCT FROM '{RESOLVED_BY}'",
    still_taken=f"known.acknowledged_by <> '{RESOLVED_BY}' AND "
    f"array_position({_RANKS}, EXCLUDED.severity) <= array_position({_RANKS}, known.severity)",
)

# An alert seen since is still so.
RESOLVE = """
UPDATE refund.alert SET acknowledged_at = %(at)s, acknowledged_by = %(by)s
WHERE acknowledged_at IS NULL AND run_date = %(run_date)s AND synthetic = %(synthetic)s AND rule = ANY (%(rules)s)
  AND last_seen_at < %(before)s
RETURNING alert_id, rule
"""

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
WHERE (%(acknowledged)s OR a.acknowledged_at IS NULL) AND (%(run_date)s::date IS NULL OR a.run_date = %(run_date)s)
ORDER BY a.acknowledged_at IS NOT NULL, a.last_seen_at DESC, a.alert_id DESC LIMIT %(limit)s
"""

# What a channel has not told yet since it was last seen, at this severity, the worst first. What it held back or failed
# to tell is not told. Old ones are no news: a channel that is switched on tells of today. A critical one is never held
# back; others for a while after the same rule was told of the same subject, be it of another night.
_SUBJECT = "replace(substr({0}.dedupe_key, length({0}.rule) + 1), '/' || to_char({0}.run_date, 'YYYY-MM-DD'), '')"
PENDING = f"""
SELECT a.alert_id, a.rule, a.severity, a.run_id, a.run_date, a.message, a.details, a.first_seen_at, a.seen_count,
  a.severity <> 'critical' AND EXISTS (
    SELECT FROM refund.notification n JOIN refund.alert b USING (alert_id)
    WHERE b.rule = a.rule AND {_SUBJECT.format("b")} = {_SUBJECT.format("a")}
      AND n.channel = %(channel)s AND n.state = 'sent' AND n.at > %(cold_at)s
      AND array_position({_RANKS}, n.severity) >= array_position({_RANKS}, a.severity)) AS cooling_down,
  {_SUBJECT.format("a")} AS subject
FROM refund.alert a
WHERE a.acknowledged_at IS NULL AND NOT a.synthetic AND a.last_seen_at > %(news_at)s
  AND array_position({_RANKS}, a.severity) >= array_position({_RANKS}, %(min_severity)s)
  AND NOT EXISTS (
    SELECT FROM refund.notification n
    WHERE n.alert_id = a.alert_id AND n.channel = %(channel)s AND n.state = 'sent' AND n.at >= a.last_seen_at
      AND array_position({_RANKS}, n.severity) >= array_position({_RANKS}, a.severity))
ORDER BY array_position({_RANKS}, a.severity) DESC, a.last_seen_at DESC, a.alert_id
"""  # noqa: S608 -- the only things put in are the constants above

# That it is held back is written once for each time that it was seen: every sending finds it again.
ADD_NOTIFICATION = """
INSERT INTO refund.notification (alert_id, channel, state, severity, error, at)
SELECT %(alert_id)s, %(channel)s, %(state)s, %(severity)s, %(error)s, %(at)s
WHERE %(state)s <> 'cooling_down' OR NOT EXISTS (
  SELECT FROM refund.notification n JOIN refund.alert a USING (alert_id)
  WHERE n.alert_id = %(alert_id)s AND n.channel = %(channel)s AND n.state = 'cooling_down' AND n.at >= a.last_seen_at)
"""

ACKNOWLEDGE = """
UPDATE refund.alert SET acknowledged_at = %(at)s, acknowledged_by = %(by)s
WHERE alert_id = %(alert_id)s AND acknowledged_at IS NULL RETURNING rule
"""

GET_ACKNOWLEDGED = "SELECT rule, acknowledged_at, acknowledged_by FROM refund.alert WHERE alert_id = %(alert_id)s"

AUDIT_CLOSED = """
INSERT INTO refund.audit (at, actor, action, subject, details)
VALUES (%(at)s, %(by)s, %(action)s, %(subject)s, %(details)s)
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
    cooling_down: bool  # the same rule was told of the same subject a short while ago, at this severity or worse
    subject: str = ""  # what the dedupe key holds beyond rule and run date


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What became of one acknowledgement."""

    alert_id: int
    rule: str
    by: str
    at: datetime
    before: bool  # somebody had taken it already; ``by`` and ``at`` are theirs


def raise_alert(database: Database, alert: Alert, *, at: datetime, is_general: bool = False) -> int:
    """Write an alert, or count it once more where the key is known and ``at`` is new; return how often seen.

    ``at`` is a time of the run (when it began, or began again), not the clock's: a task tried again must not count
    twice. An acknowledged alert that is worse than before is open again, as is one that `resolve_alerts` closed. With
    ``is_general`` what the same run said at the same time stays.
    """
    values = {**asdict(alert), "details": json.dumps(dict(alert.details)), "at": at, "is_general": is_general}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(RAISE_ALERT, values)
        (seen,) = cursor.fetchall()[0]
        return int(seen)


def resolve_alerts(
    database: Database,
    *,
    run_id: str,
    run_date: date,
    rules: Collection[str],
    before: datetime,
    at: datetime,
    synthetic: bool = False,
) -> list[int]:
    """Close the open alerts of these rules and this night that were last seen before ``before``; return their numbers.

    They are closed in the name of the night (`RESOLVED_BY`), in one transaction and with an audit row each.
    """
    values = {"by": RESOLVED_BY, "run_date": run_date, "rules": sorted(rules), "before": before, "at": at}
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(RESOLVE, {**values, "synthetic": synthetic})
        closed = cursor.fetchall()
        for alert_id, rule in closed:
            details = json.dumps({"rule": rule, "run_id": run_id})
            audit = {"action": "alert.resolve", "subject": f"alert {alert_id}", "details": details}
            cursor.execute(AUDIT_CLOSED, {"at": at, "by": RESOLVED_BY, **audit})
    return sorted(alert_id for alert_id, _ in closed)


def list_alerts(
    database: Database, *, acknowledged: bool = False, run_date: date | None = None, limit: int = 1000
) -> list[AlertRow]:
    """The open alerts, last seen first, of one night where given; with ``acknowledged`` the others after them."""
    values = {"acknowledged": acknowledged, "run_date": run_date, "limit": limit}
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(LIST_ALERTS, values)
        names = tuple(AlertRow.__dataclass_fields__)
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return [AlertRow(**{**row, "sent_through": tuple(row["sent_through"])}) for row in rows]


def pending_alerts(
    database: Database, *, channel: str, at: datetime, min_severity: str, cooldown: timedelta
) -> list[PendingAlert]:
    """What the channel has to tell of, the worst first; made-up nights and acknowledged alerts are left out.

    An alert is told again where it got worse or was seen again since. One not seen for `NEWS_DAYS` is no news.
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
                audit = {"action": "alert.acknowledge", "subject": f"alert {alert_id}", "details": details}
                cursor.execute(AUDIT_CLOSED, {**values, **audit})
                answers.append(Acknowledged(alert_id=alert_id, rule=taken[0], by=by, at=at, before=False))
                continue
            cursor.execute(GET_ACKNOWLEDGED, values)
            row = cursor.fetchone()
            answers.append(
                None if row is None else Acknowledged(alert_id=alert_id, rule=row[0], at=row[1], by=row[2], before=True)
            )
    return answers
