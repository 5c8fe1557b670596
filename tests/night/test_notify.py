"""Sending: each alert once through each channel, again after a failure, and never at the cost of the night."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from refund.night.alert_message import AlertMessage
from refund.night.notify import Channel, ChannelError, send_pending
from refund.night.services import Services, open_services
from refund.settings import DatabaseAccess, S3Access, Settings
from refund.store import alerts
from refund.store.alerts import raise_alert
from refund.store.records import Alert
from tests.conftest import Roles
from tests.store.factories import DAY, rows


class Kept:
    """A channel that keeps what it is sent, or fails as it is told."""

    def __init__(self, failing: Exception | None = None) -> None:
        self.failing = failing
        self.asked = 0
        self.subjects: list[str] = []

    def send(self, message: AlertMessage) -> None:
        self.asked += 1
        if self.failing is not None:
            raise self.failing
        self.subjects.append(message.subject)


@pytest.fixture
def services(database: Roles) -> Iterator[Services]:
    rows(database.admin, "TRUNCATE refund.notification, refund.alert; SELECT 1")
    with open_services(settings=Settings(), s3=S3Access(bucket="b"), database=database.app) as opened:
        yield opened


def keep(services: Services, rule: str, severity: str = "warning", *, nights_ago: int = 0, subject: str = "") -> None:
    day = DAY - timedelta(days=nights_ago)
    alert = Alert(
        rule=rule,
        dedupe_key=f"{rule}/{day}{subject}",
        severity=severity,
        run_id="r1",
        run_date=day,
        message=f"{rule} seen",
    )
    raise_alert(services.database, alert, at=services.now())


def attempts(database: Roles) -> list[Any]:
    query = "SELECT rule, channel, state, error FROM refund.notification JOIN refund.alert USING (alert_id)"
    return rows(database.owner, f"{query} ORDER BY notification_id")


def test_every_channel_gets_each_alert_once_the_worst_first(services: Services, database: Roles) -> None:
    keep(services, "a")
    keep(services, "b", "critical")
    keep(services, "c", "info")  # below alert_min_severity
    smtp, slack = Kept(), Kept()
    channels: dict[str, Channel] = {"smtp": smtp, "slack": slack}
    assert send_pending(services, channels) == {"sent": 4, "failed": 0, "cooling_down": 0}
    assert smtp.subjects == slack.subjects == ["[refund] critical: b seen", "[refund] warning: a seen"]
    assert send_pending(services, channels) == {"sent": 0, "failed": 0, "cooling_down": 0}
    assert len(attempts(database)) == 4


def test_one_sending_tells_a_rule_once_of_each_subject(services: Services, database: Roles) -> None:
    for number in range(3):
        keep(services, "drift", nights_ago=number)
        keep(services, "accuracy", subject=f"/m@{number}")
    channel = Kept()
    assert send_pending(services, {"smtp": channel}) == {"sent": 4, "failed": 0, "cooling_down": 2}
    assert sorted((rule, state) for rule, _, state, _ in attempts(database)) == [
        ("accuracy", "sent"), ("accuracy", "sent"), ("accuracy", "sent"),
        ("drift", "cooling_down"), ("drift", "cooling_down"), ("drift", "sent"),
    ]  # fmt: skip


def test_one_sending_tells_every_critical_alert(services: Services) -> None:
    for number in range(3):
        keep(services, "failed_night", "critical", nights_ago=number)
    assert send_pending(services, {"smtp": Kept()}) == {"sent": 3, "failed": 0, "cooling_down": 0}


def test_a_channel_that_is_down_is_asked_twice_and_made_up_for(
    services: Services, database: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    for rule in "abc":
        keep(services, rule)
    down, up = Kept(ChannelError("no answer")), Kept()
    assert send_pending(services, {"smtp": down, "slack": up}) == {"sent": 3, "failed": 3, "cooling_down": 0}
    assert down.asked == 2
    failed = [error for _, channel, _, error in attempts(database) if channel == "smtp"]
    assert failed == ["no answer", "no answer", "not tried: the channel had just failed twice"]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "was not sent through smtp: no answer. It is kept and sent again with the next alerts" in warned[0]
    down.failing = None
    assert send_pending(services, {"smtp": down, "slack": up}) == {"sent": 3, "failed": 0, "cooling_down": 0}


def test_a_message_that_is_refused_does_not_keep_the_others(services: Services) -> None:
    class Picky(Kept):
        def send(self, message: AlertMessage) -> None:
            self.failing = ChannelError("too long") if "a seen" in message.subject else None
            super().send(message)

    keep(services, "a", "critical")
    keep(services, "b")
    keep(services, "c")
    channel = Picky()
    for sent in (2, 0):  # the refused one is tried again each time
        assert send_pending(services, {"smtp": channel}) == {"sent": sent, "failed": 1, "cooling_down": 0}
    assert sorted(channel.subjects) == ["[refund] warning: b seen", "[refund] warning: c seen"]


def test_a_fault_of_a_channel_itself_costs_nothing_and_tells_no_secret(
    services: Services, database: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    keep(services, "a")
    send_pending(services, {"smtp": Kept(ZeroDivisionError("https://hooks.example/SECRET"))})
    ((_, _, state, error),) = attempts(database)
    assert (state, error) == (
        "failed", "ZeroDivisionError in the channel itself; its text is withheld, as it may hold a secret",
    )  # fmt: skip
    assert "SECRET" not in caplog.text


def test_killed_between_sending_and_writing_it_sends_twice_never_not_at_all(
    services: Services, database: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(services, "a")
    channel = Kept()

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("refund.night.notify.add_notification", killed)
        with pytest.raises(KeyboardInterrupt):
            send_pending(services, {"smtp": channel})
    assert attempts(database) == []
    for _ in range(2):
        send_pending(services, {"smtp": channel})
    assert len(channel.subjects) == 2


def test_postgres_that_is_gone_ends_the_sending_not_the_night(caplog: pytest.LogCaptureFixture) -> None:
    gone = DatabaseAccess(host="127.0.0.1", port=1)
    with open_services(settings=Settings(), s3=S3Access(bucket="b"), database=gone) as services:
        assert send_pending(services, {"smtp": Kept()})["sent"] == 0
        assert send_pending(services, {}) == {"sent": 0, "failed": 0, "cooling_down": 0}
    assert "Sending alerts ended early: Postgres at" in caplog.text


def test_after_the_cool_down_the_next_night_is_told(services: Services, database: Roles) -> None:
    keep(services, "a", nights_ago=1)
    channel = Kept()
    send_pending(services, {"smtp": channel})
    moved = f"UPDATE refund.notification SET at = at - interval '{timedelta(hours=21)}' RETURNING 1"
    rows(database.owner, moved)
    keep(services, "a")
    send_pending(services, {"smtp": channel})
    assert len(channel.subjects) == 2
    assert services.settings.alert_cooldown_hours < alerts.NEWS_DAYS * 24
