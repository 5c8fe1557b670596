"""Alerts on a real Postgres: seen once, seen again, told, held back, taken."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import date, datetime, timedelta
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
    resolve_alerts,
    sending_alone,
)
from refund.store.database import Database
from refund.store.records import Alert
from tests.conftest import Roles
from tests.store.factories import DAY, NOON, rows

LATER = NOON + timedelta(hours=1)


def make(rule: str = "drift", *, subject: str = "", **over: Any) -> Alert:
    fields: dict[str, Any] = {
        "dedupe_key": f"{rule}/{DAY}{subject}",
        "severity": "warning",
        "run_id": "r1",
        "run_date": DAY,
        "message": "m",
        "details": {"a": 1},
    }
    return Alert(rule=rule, **(fields | over))


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


NIGHTS = [DAY + timedelta(days=number) for number in range(3)]


def night(day: date, rule: str = "drift", *, subject: str = "", **over: Any) -> Alert:
    return make(rule, run_date=day, **over, dedupe_key=f"{rule}/{day}{subject}")


def test_a_warning_cools_down_by_rule_and_subject_until_it_gets_worse(roles: Roles) -> None:
    raise_alert(Database(roles.app), night(NIGHTS[0], subject="/m@1"), at=NOON)
    told(roles, pending(roles)[0])
    raise_alert(Database(roles.app), night(NIGHTS[1], subject="/m@1"), at=LATER)
    raise_alert(Database(roles.app), night(NIGHTS[1], subject="/m@2"), at=LATER)
    raise_alert(Database(roles.app), night(NIGHTS[1], "other"), at=LATER)
    assert {(alert.rule, alert.subject, alert.cooling_down) for alert in pending(roles, at=LATER)} == {
        ("drift", "/m@1", True),
        ("drift", "/m@2", False),
        ("other", "", False),
    }
    assert not any(alert.cooling_down for alert in pending(roles, at=NOON + timedelta(hours=21)))
    assert not any(alert.cooling_down for alert in pending(roles, at=LATER, hours=0))
    raise_alert(Database(roles.app), night(NIGHTS[1], subject="/m@1", severity="critical"), at=LATER)
    (worst, *_) = pending(roles, at=LATER)
    assert (worst.subject, worst.severity, worst.cooling_down) == ("/m@1", "critical", False)


def test_critical_alerts_of_every_night_are_told(roles: Roles) -> None:
    for number, day in enumerate(NIGHTS):
        raise_alert(Database(roles.app), night(day, severity="critical"), at=NOON + timedelta(minutes=number))
        (alert,) = pending(roles, at=LATER)
        assert (alert.run_date, alert.cooling_down) == (day, False)
        told(roles, alert, at=LATER)
    assert pending(roles, at=LATER) == []


def test_what_was_held_back_is_told_when_the_cool_down_is_over(roles: Roles) -> None:
    raise_alert(Database(roles.app), night(NIGHTS[0]), at=NOON)
    told(roles, pending(roles)[0])
    raise_alert(Database(roles.app), night(NIGHTS[1]), at=LATER)
    for _ in range(3):
        (held,) = pending(roles, at=LATER)
        assert held.cooling_down
        told(roles, held, "cooling_down", at=LATER)
    query = "SELECT state FROM refund.notification ORDER BY notification_id"
    assert rows(roles.owner, query) == [("sent",), ("cooling_down",)], "written once, not at every sending"
    (due,) = pending(roles, at=NOON + timedelta(hours=21))
    assert (due.run_date, due.cooling_down) == (NIGHTS[1], False)
    assert pending(roles, at=LATER + timedelta(days=NEWS_DAYS)) == []


@pytest.mark.parametrize(("severity", "held"), [("critical", False), ("warning", True)])
def test_what_is_seen_again_is_told_again(roles: Roles, severity: str, *, held: bool) -> None:
    raise_alert(Database(roles.app), make(severity=severity), at=NOON)
    told(roles, pending(roles)[0], at=NOON + timedelta(minutes=20))
    raise_alert(Database(roles.app), make(severity=severity), at=NOON)  # the task tried again
    assert pending(roles) == []
    raise_alert(Database(roles.app), make(severity=severity), at=LATER)  # the run cleared, and failed again
    assert [(alert.seen_count, alert.cooling_down) for alert in pending(roles, at=LATER)] == [(2, held)]
    (later,) = pending(roles, at=NOON + timedelta(hours=21))
    assert not later.cooling_down


def test_a_run_cleared_long_after_is_news_when_it_fails(roles: Roles) -> None:
    long_after = NOON + timedelta(days=30)
    raise_alert(Database(roles.app), make(severity="critical"), at=long_after)
    assert len(pending(roles, at=long_after)) == 1


def test_what_was_said_in_detail_stays(roles: Roles) -> None:
    def said(message: str, at: datetime, **over: Any) -> str:
        raise_alert(Database(roles.app), make(message=message, details={"seen": message}), at=at, **over)
        ((kept, seen),) = rows(roles.owner, "SELECT message, details ->> 'seen' FROM refund.alert")
        assert kept == seen
        return str(kept)

    assert said("3 of 2", NOON) == "3 of 2"
    assert said("do not add up", NOON, is_general=True) == "3 of 2"
    assert said("do not add up", LATER, is_general=True) == "do not add up", "of another time"
    assert said("4 of 2", LATER) == "4 of 2"


def resolve(roles: Roles, *, before: datetime, **over: Any) -> list[int]:
    night = {"run_id": "r9", "run_date": DAY, "rules": {"failed_night", "overdue"}, "at": LATER}
    return resolve_alerts(Database(roles.app), before=before, **(night | over))


def test_what_is_no_longer_so_is_closed_by_the_night_and_opens_when_seen_again(roles: Roles) -> None:
    database = Database(roles.app)
    failed = make("failed_night", severity="critical")
    raise_alert(database, failed, at=NOON)
    raise_alert(database, night(NIGHTS[1], "failed_night"), at=NOON)
    raise_alert(database, make("drift"), at=NOON)
    assert resolve(roles, before=NOON) == resolve(roles, before=LATER, synthetic=True) == []
    (number,) = resolve(roles, before=LATER)
    assert {(row.rule, row.run_date) for row in list_alerts(database)} == {("drift", DAY), ("failed_night", NIGHTS[1])}
    assert {(alert.rule, alert.run_date) for alert in pending(roles)} == {("drift", DAY), ("failed_night", NIGHTS[1])}
    (closed,) = (row for row in list_alerts(database, acknowledged=True) if row.alert_id == number)
    assert (closed.acknowledged_by, closed.acknowledged_at) == ("refund_nightly", LATER)
    audit = rows(roles.owner, "SELECT actor, action, subject, details FROM refund.audit")
    said = {"rule": "failed_night", "run_id": "r9"}
    assert audit == [("refund_nightly", "alert.resolve", f"alert {number}", said)]
    for _ in range(2):  # by a run that began before it was closed; its task tried again is no other sighting
        assert raise_alert(database, failed, at=NOON) == 2
    (opened,) = (row for row in list_alerts(database) if row.alert_id == number)
    assert (opened.acknowledged_by, opened.last_seen_at) == (None, LATER)
    assert number in {alert.alert_id for alert in pending(roles, at=LATER)}


def test_what_somebody_took_stays_theirs(roles: Roles) -> None:
    database = Database(roles.app)
    raise_alert(database, make("overdue", severity="critical"), at=NOON)
    (number,) = (row.alert_id for row in list_alerts(database))
    acknowledge(database, [number], by="ada", at=NOON)
    assert resolve(roles, before=LATER) == []
    raise_alert(database, make("overdue", severity="critical"), at=LATER)
    assert [row.acknowledged_by for row in list_alerts(database, acknowledged=True)] == ["ada"]
    assert pending(roles, at=LATER) == []


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
