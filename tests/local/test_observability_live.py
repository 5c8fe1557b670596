"""Both switches on: a night's events arrive where they are sent, and hold no secret of the stack."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from refund.local import stack
from refund.local.observability import LINEAGE_FILE
from refund.local.ports import Ports
from tests.conftest import free_port
from tests.e2e.driver import DAG, Driver, await_that, make_champion
from tests.local.live import temporary_home
from tests.night.factories import jpeg, write_model
from tests.sinks import StatsdSink, statsd_sink

pytestmark = [pytest.mark.slow, pytest.mark.live]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A stack that was observed while it ran one night."""

    home: Path
    sink: StatsdSink
    driver: Driver
    run_date: date

    @property
    def lineage_text(self) -> str:
        return (self.home / LINEAGE_FILE).read_text(encoding="utf-8")

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lineage_text.splitlines()]


def _run_is_complete(lineage: Path) -> bool:
    """Whether the last event of the run has arrived, whole."""
    *lines, unfinished = lineage.read_text(encoding="utf-8").split("\n") if lineage.exists() else [""]
    events = [json.loads(line) for line in lines]
    ends = {event["job"]["name"] for event in events if event["eventType"] == "COMPLETE"}
    return not unfinished and "refund_nightly" in ends


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REFUND_")}
    with statsd_sink() as sink, temporary_home() as home:
        switches = {"REFUND_METRICS": f"statsd://127.0.0.1:{sink.port}", "REFUND_LINEAGE": "file"}
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        stack.up(home, ports=ports, progress=lambda _: None, environ=environ | switches)
        write_model(model := tmp_path_factory.mktemp("observed") / "model")
        driver = make_champion(home, model)
        with driver.services() as services:
            run_date = (services.now() - timedelta(hours=2)).date() - timedelta(days=1)
            for name, body in (("1", jpeg(1)), ("2", jpeg(2)), ("3", jpeg(3)), ("bad", b"not a photo")):
                services.objects.put(f"incoming/{run_date}/R-1/{name}.jpg", body, content_type="image/jpeg")
        driver.api("PATCH", DAG, json={"is_paused": False})  # the schedule then runs last night
        await_that(lambda: driver.airflow_sql("SELECT state FROM dag_run") == [("success",)])
        await_that(lambda: _run_is_complete(home / LINEAGE_FILE))  # a process of its own writes it, after the state
        yield Observed(home=home, sink=sink, driver=driver, run_date=run_date)
        driver.close()


def test_the_nights_figures_arrive_at_a_statsd_server(observed: Observed) -> None:
    names = {line.partition(":")[0] for line in observed.sink.lines}
    assert "airflow.dagrun.duration.success.refund_nightly" in names
    assert any(name.startswith("airflow.ti.finish.refund_nightly.persist.success") for name in names)
    assert {"airflow.refund.photos:4|g", "airflow.refund.classified:3|g"} <= set(observed.sink.lines)


def test_lineage_has_the_start_and_the_end_of_the_run_and_of_its_tasks(observed: Observed) -> None:
    seen = {(event["job"]["namespace"], event["job"]["name"], event["eventType"]) for event in observed.events}
    for job in ("refund_nightly", "refund_nightly.persist", "refund_nightly.shards.classify"):
        assert {("refund", job, "START"), ("refund", job, "COMPLETE")} <= seen


def test_neither_holds_a_secret_of_the_stack(observed: Observed) -> None:
    sent = observed.lineage_text + "\n".join(observed.sink.lines)
    secrets = [str(value) for value in _leaves(json.loads((observed.home / "secrets.json").read_text()))]
    assert len(secrets) > 8
    assert [secret for secret in secrets if len(secret) >= 8 and secret in sent] == []
    assert "AIRFLOW_CONN" not in sent
    assert "SQL_ALCHEMY_CONN" not in sent


def test_nothing_warns_of_it_and_every_plugin_loads(observed: Observed) -> None:
    files = [*(observed.home / "airflow").rglob("*.log"), *(observed.home / "logs").glob("*.log")]
    logs = "\n".join(path.read_text(errors="replace") for path in files)
    assert "Published 4 photos" in logs
    lines = [line for line in logs.splitlines() if "openlineage" in line.lower() or "statsd" in line.lower()]
    assert [line for line in lines if any(word in line.lower() for word in ("warning", "error", "exception"))] == []
    assert observed.driver.api("GET", "/api/v2/plugins/importErrors")["import_errors"] == []


def test_the_runs_own_figures_are_what_analysts_read(observed: Observed) -> None:
    rows = observed.driver.sql(
        "SELECT stage, photos, failed, p50_ms > 0 AND p50_ms <= p95_ms AND p95_ms <= p99_ms AND p99_ms <= max_ms "
        "FROM reporting.stage_metrics WHERE run_date = %s ORDER BY stage",
        (observed.run_date,),
        role=observed.driver.access.analyst,
    )
    assert rows == [
        ("classify", 3, 0, True),
        ("fetch", 4, 0, None),
        ("generate_report", 4, 0, None),
        ("health_check", None, None, None),
        ("persist", 4, 0, None),
        ("validate", 4, 1, True),
    ]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    else:
        yield value
