"""``refund alerts`` and ``refund check`` as people and monitors run them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from refund.cli import alerts as alerts_module
from refund.cli import check as check_module
from refund.cli import main
from refund.cli.app import app
from refund.cli.check import due_night, time_of_day
from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from refund.store.alerts import raise_alert
from refund.store.database import Database
from refund.store.records import Alert
from tests.conftest import Roles
from tests.sinks import http_sink, mail_connection, mail_sink, silent_server
from tests.store.factories import DAY, register_models, rows

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)  # the day after DAY
SIX = NOW.replace(hour=6, minute=0)


class Stack:
    """What the commands of one test reach."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self.settings = Settings()
        self.now = NOW

    def keep(self, rule: str, **over: Any) -> None:
        fields: dict[str, Any] = {"severity": "warning", "run_id": "r1", "run_date": DAY, "message": f"{rule} [seen]"}
        raise_alert(Database(self.roles.app), Alert(rule=rule, dedupe_key=rule, **(fields | over)), at=NOW)

    def run(self, run_id: str, state: str, *, published_at: datetime | None = None, synthetic: bool = False) -> None:
        values = (run_id, DAY, state, published_at, published_at or NOW, synthetic)
        counts = "1, 1, 0, 0" if published_at else "NULL, NULL, NULL, NULL"
        rows(
            self.roles.owner,
            "INSERT INTO refund.run (run_id, run_date, state, published_at, started_at, synthetic, model, "
            "taxonomy_version, code_version, params, photos, classified, rejected, unchanged) "
            f"VALUES (%s, %s, %s, %s, %s, %s, 'mobilenet_v2@1', 't', '0', '{{}}', {counts}) RETURNING 1",
            *values,
        )

    def invoke(self, *arguments: str, code: int = 0) -> Result:
        answer = CliRunner().invoke(app, arguments)
        assert answer.exit_code == code, answer.output
        return answer


@pytest.fixture(scope="module")
def migrated(database: Roles) -> Roles:
    register_models(database)
    return database


@pytest.fixture
def stack(migrated: Roles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(migrated)

    @contextmanager
    def services() -> Iterator[Services]:
        with open_services(settings=made.settings, s3=S3Access(bucket="b"), database=migrated.app) as opened:
            yield replace(opened, now=lambda: made.now)

    for module in (alerts_module, check_module):
        monkeypatch.setattr(module, "command_services", services)
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # sinks are on loopback, whatever proxy the machine has
    yield made
    rows(migrated.admin, "TRUNCATE refund.notification, refund.alert, refund.audit RESTART IDENTITY; SELECT 1")
    rows(migrated.admin, "DELETE FROM refund.run RETURNING 1")


# --- alerts --------------------------------------------------------------------------------------------------------


def test_open_alerts_are_listed_and_taken(stack: Stack) -> None:
    assert "No open alerts" in stack.invoke("alerts", "list").output
    stack.keep("drift:volume")
    stack.keep("failed_night", severity="critical")
    listed = stack.invoke("alerts", "list").output
    assert "    2  critical  failed_night, night of 2026-11-21\n       failed_night [seen]\n" in listed
    assert "2026-11-22 06:30 UTC; sent to nobody" in listed
    taken = stack.invoke("alerts", "ack", "1", "2", "--note", "known").output
    assert taken.splitlines() == [
        "Alert 1 (drift:volume) is taken by ada, 2026-11-22 06:30 UTC",
        "Alert 2 (failed_night) is taken by ada, 2026-11-22 06:30 UTC",
    ]
    assert "No open alerts" in stack.invoke("alerts", "list").output
    assert "taken by ada 2026-11-22 06:30" in stack.invoke("alerts", "list", "--all").output
    assert rows(stack.roles.owner, "SELECT details ->> 'note' FROM refund.audit") == [("known",), ("known",)]


def test_one_that_is_taken_stays_theirs_and_is_no_error(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.keep("drift:volume")
    stack.invoke("alerts", "ack", "1")
    monkeypatch.setenv("USER", "bob")
    monkeypatch.setenv("LOGNAME", "bob")
    assert stack.invoke("alerts", "ack", "1").output == (
        "Alert 1 (drift:volume) was taken already by ada, 2026-11-22 06:30 UTC\n"
    )


def test_a_number_that_is_not_there_is_exit_code_1_and_the_others_are_taken(stack: Stack) -> None:
    stack.keep("drift:volume")
    output = stack.invoke("alerts", "ack", "77", "1", code=1).output
    assert "Alert 1 (drift:volume) is taken by ada" in output
    assert "There is no alert 77; refund alerts list --all shows all" in output
    answer = json.loads(stack.invoke("alerts", "ack", "77", "1", "--json", code=1).output)
    assert answer["missing"] == [77]
    assert answer["acknowledged"][0]["before"] is True
    stack.invoke("alerts", "ack", "0", code=2)
    stack.invoke("alerts", "ack", str(2**63), code=2)


def test_json_holds_everything(stack: Stack) -> None:
    stack.keep("drift:volume", details={"sql": "SELECT 1", "examples": ["a[/].jpg"]})
    (alert,) = json.loads(stack.invoke("alerts", "list", "--json").output)
    assert alert["details"] == {"sql": "SELECT 1", "examples": ["a[/].jpg"]}
    assert (alert["rule"], alert["sent_through"], alert["acknowledged_at"]) == ("drift:volume", [], None)


# --- check ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "run_date", "at"),
    [
        (SIX, DAY, SIX),
        (SIX - timedelta(seconds=1), DAY - timedelta(days=1), SIX - timedelta(days=1)),
        (datetime(2026, 3, 1, 23, 59, tzinfo=UTC), date(2026, 2, 28), datetime(2026, 3, 1, 6, 0, tzinfo=UTC)),
    ],
)
def test_the_night_that_is_asked_for(now: datetime, run_date: date, at: datetime) -> None:
    due = due_night(time_of_day("06:00"), now=now)
    assert (due.run_date, due.at) == (run_date, at)


def test_a_night_in_time_is_a_yes(stack: Stack) -> None:
    stack.run("r1", "published", published_at=SIX)
    stack.run("again", "published", published_at=SIX + timedelta(minutes=20))  # a second run makes it no later
    assert stack.invoke("check", "--by", "06:00").output == (
        "The night of 2026-11-21 was published at 2026-11-22 06:00 UTC\n"
    )


def test_a_late_night_is_told_as_late_and_a_no(stack: Stack) -> None:
    stack.run("r1", "published", published_at=SIX + timedelta(minutes=12))
    late = "The night of 2026-11-21 was published at 2026-11-22 06:12 UTC, late: expected by 2026-11-22 06:00 UTC\n"
    assert stack.invoke("check", "--by", "06:00", code=1).output == late
    assert stack.invoke("check", "--by", "06:00", "--allow-late").output == late
    answer = json.loads(stack.invoke("check", "--by", "06:00", "--json", code=1).output)
    assert answer == {
        "run_date": "2026-11-21", "due_at": "2026-11-22 06:00:00+00:00", "complete": False, "late": True,
        "published_at": "2026-11-22 06:12:00+00:00", "state": "published",
    }  # fmt: skip
    stack.invoke("check", "--by", "06:00", "--alert", code=1)
    assert rows(stack.roles.owner, "SELECT 1 FROM refund.alert") == []


@pytest.mark.parametrize(
    ("state", "rule", "words"),
    [(None, "never_started", "no run of it has begun"), ("running", "overdue", "its last run is running"),
     ("failed", "overdue", "its last run is failed")],
)  # fmt: skip
def test_a_missing_night_raises_one_alert_however_often_it_is_asked(
    stack: Stack, state: str | None, rule: str, words: str
) -> None:
    stack.run("made-up", "published", published_at=SIX, synthetic=True)
    if state:
        stack.run("r1", state)
    for _ in range(2):
        output = stack.invoke("check", "--by", "06:00", "--alert", code=1).output
        assert output.startswith("The night of 2026-11-21 is not published, expected by 2026-11-22 06:00 UTC; " + words)
    found = rows(stack.roles.owner, "SELECT rule, severity, seen_count, run_id FROM refund.alert")
    assert found == [(rule, "critical", 1, "r1" if state else "none")]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_the_alert_is_sent_by_the_channels_of_the_settings(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.settings = Settings(
        alert_channels="smtp, slack", alert_email_to="a@example.com", alert_email_from="b@example.com"
    )
    with mail_sink() as sink:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SMTP", mail_connection(sink.port))
        answer = stack.invoke("check", "--by", "06:00", "--alert", code=1)
    assert "1 sent, 1 failed, 0 cooling down" in answer.output
    (mail,) = sink.mails
    assert mail["Subject"] == "[refund] critical: No run of the night of 2026-11-21 has begun"
    listed = " ".join(stack.invoke("alerts", "list").output.split())
    assert "sent: smtp; failed: slack: Airflow has no connection refund_slack; add it under Admin" in listed


def test_the_heartbeat_is_called_on_yes_alone(stack: Stack) -> None:
    with http_sink() as sink:
        url = f"{sink.url}/SECRET-uuid"
        stack.settings = Settings(heartbeat_url=url)
        stack.invoke("check", "--by", "06:00", code=1)
        assert sink.requests == []
        stack.run("r1", "published", published_at=SIX)
        assert "SECRET" not in stack.invoke("check", "--by", "06:00").output
        assert [(method, path) for method, path, _ in sink.requests] == [("GET", "/SECRET-uuid")]
        stack.invoke("check", "--by", "06:00", "--heartbeat-url", f"{sink.url}/other")
        assert sink.requests[-1][1] == "/other"


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [(500, {}, "it answered 500"), (302, {"Location": "http://127.0.0.1:1/stolen"}, "it answered 302")],
)
def test_a_heartbeat_that_fails_is_a_warning(stack: Stack, status: int, headers: dict[str, str], why: str) -> None:
    stack.run("r1", "published", published_at=SIX)
    with http_sink(status=status, headers=headers) as sink:
        output = stack.invoke("check", "--by", "06:00", "--heartbeat-url", f"{sink.url}/SECRET").output
    assert f"The night is there, but the heartbeat at 127.0.0.1 could not be told: {why}" in output
    assert "SECRET" not in output


def test_a_heartbeat_that_says_nothing_is_not_waited_for(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "HEARTBEAT_TIMEOUT_S", 0.2)
    stack.run("r1", "published", published_at=SIX)
    with silent_server() as port:
        output = stack.invoke("check", "--by", "06:00", "--heartbeat-url", f"http://127.0.0.1:{port}/SECRET").output
    assert "could not be told: TimeoutError" in output
    assert "SECRET" not in output


@pytest.mark.parametrize("url", ["file:///etc/SECRET", "ftp://h/SECRET", "https:///SECRET", "http://[SECRET", "SECRET"])
def test_an_address_that_is_none_is_exit_code_3_and_not_shown(
    stack: Stack, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["refund", "check", "--by", "06:00", "--heartbeat-url", url])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "SettingsError: the heartbeat's address (--heartbeat-url, setting heartbeat_url) must read http://host/" in said
    )
    assert "SECRET" not in said
