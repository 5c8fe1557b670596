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


def keep(services: Services, rule: str, severity: str = "warning", subject: str = "") -> None:
    alert = Alert(
        rule=rule, dedupe_key=f"{rule}{subject}", severity=severity, run_id="r1", run_date=DAY, message=f"{rule} seen"
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


def test_one_sending_tells_a_rule_once(services: Services, database: Roles) -> None:
    for number in range(3):
        keep(services, "overlooked_photos", subject=str(number))
    channel = Kept()
    assert send_pending(services, {"smtp": channel}) == {"sent": 1, "failed": 0, "cooling_down": 2}
    assert [state for _, _, state, _ in attempts(database)] == ["sent", "cooling_down", "cooling_down"]


def test_a_channel_that_is_down_is_asked_once_and_made_up_for(
    services: Services, database: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    keep(services, "a")
    keep(services, "b")
    down, up = Kept(ChannelError("no answer")), Kept()
    assert send_pending(services, {"smtp": down, "slack": up}) == {"sent": 2, "failed": 2, "cooling_down": 0}
    assert down.asked == 1
    failed = [error for _, channel, _, error in attempts(database) if channel == "smtp"]
    assert failed == ["no answer", "not tried: the channel had just failed"]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "was not sent through smtp: no answer. It is kept and sent again with the next alerts" in warned[0]
    down.failing = None
    assert send_pending(services, {"smtp": down, "slack": up}) == {"sent": 2, "failed": 0, "cooling_down": 0}


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
    keep(services, "a", subject="1")
    channel = Kept()
    send_pending(services, {"smtp": channel})
    moved = f"UPDATE refund.notification SET at = at - interval '{timedelta(hours=21)}' RETURNING 1"
    rows(database.owner, moved)
    keep(services, "a", subject="2")
    send_pending(services, {"smtp": channel})
    assert len(channel.subjects) == 2
    assert services.settings.alert_cooldown_hours < alerts.NEWS_DAYS * 24
