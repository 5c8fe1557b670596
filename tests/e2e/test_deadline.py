"""A night that has not ended by its deadline raises an alert, outside any task, by Airflow's own deadline."""

from __future__ import annotations

import json
import os
import re
import time
from http import HTTPStatus
from pathlib import Path

import pytest

from refund.local import stack
from refund.local.ports import Ports
from refund.store.database import Database
from refund.store.repository import Repository
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import run_refund
from tests.local.live import LiveStack, temporary_home
from tests.sinks import PASSWORD, mail_connection, mail_sink

PATIENCE_S = 600


def connect_mail(live: LiveStack, port: int) -> None:
    """Add the connection as a person does, into Airflow's database."""
    access = stack.access(live.home)
    token = live.token_answer(access.airflow_user, access.airflow_password)[1]["access_token"]
    fields = json.loads(mail_connection(port))
    body = {**fields, "connection_id": "refund_smtp", "extra": json.dumps(fields["extra"])}
    status, answer = live._call("POST", "/api/v2/connections", body=body, token=token)
    assert status == HTTPStatus.CREATED, answer


@pytest.mark.slow
@pytest.mark.live
def test_a_night_past_its_deadline_raises_an_alert_and_tries_to_send_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    text = (REPOSITORY / "dags" / "refund_nightly.py").read_text(encoding="utf-8")
    assert "interval=timedelta(hours=4).total_seconds()" in text
    shortened = text.replace("interval=timedelta(hours=4)", "interval=timedelta(seconds=1)")
    (tmp_path / "refund_nightly.py").write_text(shortened, encoding="utf-8")
    settings = {
        "REFUND_ALERT_CHANNELS": "smtp",
        "REFUND_ALERT_EMAIL_TO": "oncall@example.com",
        "REFUND_ALERT_EMAIL_FROM": "night@example.com",
    }
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REFUND_")} | settings
    with temporary_home() as home, mail_sink() as sink:
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        stack.up(home, ports=ports, progress=lambda _: None, dags_folder=tmp_path, environ=environ)
        live = LiveStack(home=home, ports=ports)
        connect_mail(live, sink.port)
        run_refund(home, "night")
        repository = Repository(Database(stack.access(home).database))
        deadline = time.monotonic() + PATIENCE_S
        query = (
            "SELECT a.severity, a.message, n.state, n.error FROM refund.alert a JOIN refund.notification n "
            "USING (alert_id) WHERE a.rule = 'overdue'"  # the scheduled night of that date is the same alert
        )
        while not (alerts := repository.select(f"{query} ORDER BY notification_id LIMIT 1")[1]):
            assert time.monotonic() < deadline, f"no alert was sent within {PATIENCE_S} s"
            time.sleep(0.5)
        ((severity, message, state, error),) = alerts
        assert severity == "critical"
        # Airflow 3.3.2 denies the callback the connections of its database: the attempt is kept, without secrets, and
        # the next sending makes up for it
        assert state == "sent" or "AirflowSecretsBackendAccessDenied" in error, error
        assert PASSWORD not in (error or "")
        assert re.match(r"The run \S+ had not ended at its deadline\. Expected: it ends within 4 hours", message)
        if state == "sent":
            subjects = [mail["Subject"] for mail in sink.mails]
            assert any("had not ended at its deadline" in subject for subject in subjects)
        shown = live.get("/ui/dags/refund_nightly/deadlineAlerts")["deadline_alerts"]
        assert [alert["interval"] for alert in shown] == [1.0], "Airflow's page of the DAG can show it"
