"""A night that has not ended by its deadline raises an alert, outside any task, by Airflow's own deadline."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from refund.local import stack
from refund.local.ports import Ports
from refund.store.database import Database
from refund.store.repository import Repository
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import run_refund
from tests.local.live import start, temporary_home

PATIENCE_S = 90


@pytest.mark.slow
@pytest.mark.live
def test_a_night_past_its_deadline_raises_an_alert(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    text = (REPOSITORY / "dags" / "refund_nightly.py").read_text(encoding="utf-8")
    assert "interval=timedelta(hours=4).total_seconds()" in text
    shortened = text.replace("interval=timedelta(hours=4)", "interval=timedelta(seconds=1)")
    (tmp_path / "refund_nightly.py").write_text(shortened, encoding="utf-8")
    with temporary_home() as home:
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        live = start(home, ports=ports, dags_folder=tmp_path)
        run_id = run_refund(home, "night").out.strip()
        repository = Repository(Database(stack.access(home).database))
        deadline = time.monotonic() + PATIENCE_S
        query = "SELECT severity, message FROM refund.alert WHERE rule = 'overdue'"
        # the scheduled night, which begins with this one, may be overdue too
        while not (alerts := [alert for alert in repository.select(query)[1] if run_id in alert[1]]):
            assert time.monotonic() < deadline, f"no alert within {PATIENCE_S} s"
            time.sleep(0.5)
        assert alerts == [
            ("critical", f"The run {run_id} had not ended at its deadline; look at its tasks in Airflow"),
        ]
        shown = live.get("/ui/dags/refund_nightly/deadlineAlerts")["deadline_alerts"]
        assert [alert["interval"] for alert in shown] == [1.0], "Airflow's page of the DAG can show it"
