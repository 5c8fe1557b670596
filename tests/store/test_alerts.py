"""Alerts on a real Postgres: seen once, seen again, told, held back, taken."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from refund.errors import FatalRunError
from refund.store.alerts import (
    NEWS_DAYS,
    PendingAlert,
    acknowledge,
    add_notification,
    list_alerts,
    pending_alerts,
    raise_alert,
    sending_alone,
)
from refund.store.database import Database
from refund.store.records import Alert
from tests.conftest import Roles
from tests.store.factories import DAY, NOON, rows

LATER = NOON + timedelta(hours=1)


def make(rule: str = "drift", *, subject: str = "", **over: Any) -> Alert:
    fields: dict[str, Any] = {
        "severity": "warning",
        "run_id": "r1",
        "run_date": DAY,
        "message": "m",
        "details": {"a": 1},
    }
    return Alert(rule=rule, dedupe_key=f"{rule}/{DAY}{subject}", **(fields | over))


def pending(
    roles: Roles, *, at: datetime = NOON, channel: str = "smtp", hours: float = 20, worst: str = "info"
) -> list[PendingAlert]:
    return pending_alerts(
        Database(roles.app), channel=channel, at=at, min_severity=worst, cooldown=timedelta(hours=hours)
    )


def told(roles: Roles, alert: PendingAlert, state: str = "sent", *, at: datetime = NOON, channel: str = "smtp") -> None:
    error = "down" if state == "failed" else None
    add_notification(Database(roles.app), alert, channel=channel, state=state, error=error, at=at)


def test_an_alert_is_counted_again_only_when_seen_at_a_later_time(roles: Roles) -> None:
    def seen(at: datetime, run_id: str) -> int:
        return raise_alert(Database(roles.app), make(run_id=run_id, message=f"at {at}"), at=at)

    # tried again, then by another run of the date, then the first run's task once more
    assert [seen(NOON, "r1"), seen(NOON, "r1"), seen(LATER, "r2"), seen(NOON, "r1")] == [1, 1, 2, 2]
    kept = rows(roles.owner, "SELECT first_seen_at, last_seen_at, message, run_id FROM refund.alert")
    assert kept == [(NOON, LATER, f"at {NOON}", "r1")]


def test_what_was_sent_is_not_pending_and_what_failed_is(roles: Roles) -> None:
    raise_alert(Database(roles.app), make(), at=NOON)
    (alert,) = pending(roles)
    assert (alert.rule, alert.severity, alert.details, alert.cooling_down) == ("drift", "warning", {"a": 1}, False)
    told(roles, alert, "failed")
    assert len(pending(roles)) == 1
    told(roles, alert)
    assert pending(roles) == []
    assert len(pending(roles, channel="slack")) == 1, "each channel for itself"


def test_the_same_rule_cools_down_until_it_gets_worse(roles: Roles) -> None:
    raise_alert(Database(roles.app), make(), at=NOON)
    told(roles, pending(roles)[0])
    raise_alert(Database(roles.app), make(subject="/2"), at=LATER)
    raise_alert(Database(roles.app), make("other"), at=LATER)
    assert {(alert.rule, alert.cooling_down) for alert in pending(roles, at=LATER)} == {
        ("drift", True),
        ("other", False),
    }
    assert not any(alert.cooling_down for alert in pending(roles, at=NOON + timedelta(hours=21)))
    assert not any(alert.cooling_down for alert in pending(roles, at=LATER, hours=0))
    raise_alert(Database(roles.app), make(subject="/2", severity="critical"), at=LATER)
    assert [(alert.rule, alert.severity, alert.cooling_down) for alert in pending(roles, at=LATER)] == [
        ("drift", "critical", False), ("other", "warning", False),
    ]  # fmt: skip


def test_what_was_held_back_is_not_sent_later_but_when_it_got_worse(roles: Roles) -> None:
    raise_alert(Database(roles.app), make(), at=NOON)
    told(roles, pending(roles)[0], "cooling_down")
    assert pending(roles, at=NOON + timedelta(days=2)) == []
    raise_alert(Database(roles.app), make(severity="critical"), at=LATER)
    assert [alert.severity for alert in pending(roles)] == ["critical"]


def test_small_made_up_and_old_alerts_are_not_pending(roles: Roles) -> None:
    raise_alert(Database(roles.app), make(severity="info"), at=NOON)
    assert pending(roles, worst="warning") == []
    assert len(pending(roles)) == 1
    assert pending(roles, at=NOON + timedelta(days=NEWS_DAYS, seconds=1)) == []
    rows(roles.owner, "UPDATE refund.alert SET synthetic = true RETURNING 1")
    assert pending(roles) == []


def test_an_alert_is_taken_once_and_opens_again_when_it_gets_worse(roles: Roles) -> None:
    database = Database(roles.app)
    raise_alert(database, make(), at=NOON)
    (number,) = (alert.alert_id for alert in list_alerts(database))
    (first, gone) = acknowledge(database, [number, 999], by="ada", at=NOON, note="known")
    assert gone is None
    assert first is not None
    assert (first.by, first.before) == ("ada", False)
    (second,) = acknowledge(database, [number], by="bob", at=LATER)
    assert second is not None
    assert (second.by, second.at, second.before) == ("ada", NOON, True)
    audit = rows(roles.owner, "SELECT actor, action, subject, details FROM refund.audit")
    assert audit == [("ada", "alert.acknowledge", f"alert {number}", {"rule": "drift", "note": "known"})]
    assert list_alerts(database) == pending(roles) == []
    raise_alert(database, make(), at=LATER)
    assert list_alerts(database) == [], "seen again, no worse"
    raise_alert(database, make(severity="critical"), at=LATER)
    (opened,) = list_alerts(database)
    assert (opened.severity, opened.acknowledged_by) == ("critical", None)
    assert len(pending(roles)) == 1


def test_the_list_tells_who_was_told(roles: Roles) -> None:
    database = Database(roles.app)
    raise_alert(database, make(), at=NOON)
    alert = pending(roles)[0]
    told(roles, alert, "failed", channel="slack")
    told(roles, alert, channel="smtp")
    (row,) = list_alerts(database)
    assert (row.sent_through, row.not_sent) == (("smtp",), "slack: down")
    told(roles, alert, channel="slack")
    (row,) = list_alerts(database)
    assert (row.sent_through, row.not_sent) == (("slack", "smtp"), None)
    assert acknowledge(database, [row.alert_id], by="ada", at=NOON)
    assert [row.acknowledged_by for row in list_alerts(database, acknowledged=True)] == ["ada"]


def test_attempts_are_never_changed_and_a_failure_has_a_reason(roles: Roles) -> None:
    raise_alert(Database(roles.app), make(), at=NOON)
    alert = pending(roles)[0]
    with pytest.raises(FatalRunError, match="notification"):
        add_notification(Database(roles.app), alert, channel="smtp", state="failed", at=NOON)
    told(roles, alert)
    for statement in ("UPDATE refund.notification SET state = 'sent'", "DELETE FROM refund.notification"):
        with pytest.raises(Exception, match="permission denied"):
            rows(roles.app, f"{statement} RETURNING 1")


def test_two_do_not_send_at_the_same_time(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refund.store.alerts._LOCK_TIMEOUT_MS", 50)
    database = Database(roles.app)
    with sending_alone(database) as first, sending_alone(database) as second:
        assert (first, second) == (True, False)
    waited = threading.Event()
    monkeypatch.setattr("refund.store.alerts._LOCK_TIMEOUT_MS", 60_000)

    def wait() -> None:
        with sending_alone(database) as alone:
            assert alone
            waited.set()

    with sending_alone(database):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not waited.is_set()
    thread.join(timeout=30)
    assert waited.is_set()


def test_an_analyst_reads_who_was_told_and_cannot_take_it(roles: Roles) -> None:
    raise_alert(Database(roles.app), replace(make(), severity="critical"), at=NOON)
    told(roles, pending(roles)[0])
    assert rows(roles.analyst, "SELECT rule, notified_channels FROM reporting.alerts") == [("drift", ["smtp"])]
    with pytest.raises(Exception, match="permission denied"):
        acknowledge(Database(roles.analyst), [1], by="x", at=NOON)
