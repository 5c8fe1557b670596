"""The running stack: what it offers, what it refuses, and that starting it again is harmless."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from refund.errors import StackError
from refund.local import processes, stack
from refund.local.paths import StackPaths
from refund.local.ports import Ports
from refund.night.room import HEAVY_TASKS_AT_ONCE
from refund.settings import DatabaseAccess
from tests.local.live import LiveStack

pytestmark = pytest.mark.live


def connect(access: DatabaseAccess, **overrides: str | None) -> None:
    import psycopg2

    values = {"user": access.user, "password": access.password, "dbname": access.database} | overrides
    psycopg2.connect(host=access.host, port=access.port, connect_timeout=5, **values).close()


def test_a_second_start_changes_nothing_and_takes_under_two_seconds(live_stack: LiveStack) -> None:
    before = stack.status(live_stack.home)
    seconds = []
    for _ in range(3):  # on a busy machine the quickest is what it costs
        said: list[str] = []
        started = time.monotonic()
        assert stack.up(live_stack.home, progress=said.append) == before
        seconds.append(time.monotonic() - started)
        assert said == ["the stack is running already"]
    assert min(seconds) < 2, seconds


def test_status_names_every_service_with_pid_and_address(live_stack: LiveStack) -> None:
    status = json.loads(json.dumps(stack.status(live_stack.home).as_json()))
    assert status["state"] == "running"
    services = {service["name"]: service for service in status["services"]}
    assert set(services) == {"postgres", "s3", "api-server", "scheduler", "dag-processor", "triggerer"}
    assert all(service["state"] == "running" and service["pid"] for service in services.values())
    assert services["postgres"]["address"] == f"127.0.0.1:{live_stack.ports.postgres}"
    assert status["airflow_url"] == f"http://127.0.0.1:{live_stack.ports.airflow}"
    assert all(Path(service["log"]).is_file() for service in services.values())


def test_everything_listens_on_loopback_only(live_stack: LiveStack) -> None:
    import psutil

    pids = {process.pid for process in live_stack.processes()}
    assert len(pids) > 6
    listening = {
        (found.laddr.ip, found.laddr.port)
        for found in psutil.net_connections(kind="inet")
        if found.status == psutil.CONN_LISTEN and found.pid in pids
    }
    ports = live_stack.ports
    assert listening == {("127.0.0.1", port) for port in (ports.postgres, ports.s3, ports.airflow)}


def test_postgres_asks_everyone_for_the_right_password(live_stack: LiveStack) -> None:
    import psycopg2

    access = stack.access(live_stack.home)
    for role in (access.database, access.owner, access.analyst):
        connect(role)
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            connect(role, password="wrong")
    for user in ("postgres", "refund_app"):
        with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
            connect(access.database, user=user, password=None)


def test_roles_have_their_rights_and_no_more(live_stack: LiveStack) -> None:
    import psycopg2

    access = stack.access(live_stack.home)
    for role in (access.database, access.analyst):
        with pytest.raises(psycopg2.OperationalError, match='permission denied for database "airflow"'):
            connect(role, dbname="airflow")
    connection = psycopg2.connect(
        host=access.owner.host,
        port=access.owner.port,
        dbname="refund",
        user=access.owner.user,
        password=access.owner.password,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin AND (rolsuper OR rolcreaterole OR rolcreatedb) ORDER BY 1"
        )
        assert cursor.fetchall() == [("postgres",)]
        cursor.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname IN ('refund', 'airflow') ORDER BY 1"
        )
        assert cursor.fetchall() == [("airflow",), ("refund_owner",)]
    connection.close()


def test_the_bucket_is_there_and_wrong_keys_are_refused(live_stack: LiveStack) -> None:
    from refund.local import s3

    access = stack.access(live_stack.home).s3
    assert s3.ensure_bucket(access) is None
    assert "SignatureDoesNotMatch" in str(s3.ensure_bucket(replace(access, secret_key="wrong" * 8)))


def test_airflow_takes_the_preset_login_and_no_other(live_stack: LiveStack) -> None:
    access = stack.access(live_stack.home)
    assert live_stack.token_answer(access.airflow_user, access.airflow_password)[0] == http.client.CREATED
    assert live_stack.token_answer(access.airflow_user, "wrong")[0] == http.client.UNAUTHORIZED


def test_airflow_has_the_inference_pool_and_no_import_errors(live_stack: LiveStack) -> None:
    assert live_stack.get("/api/v2/pools/refund_inference")["slots"] == HEAVY_TASKS_AT_ONCE
    assert live_stack.get("/api/v2/plugins/importErrors")["import_errors"] == []


def test_no_secret_stands_on_a_command_line_or_in_a_repr(live_stack: LiveStack) -> None:
    secrets = json.loads((live_stack.home / "secrets.json").read_text())
    values = [*secrets.pop("airflow_passwords").values(), *secrets.values()]
    reprs = [repr(stack.access(live_stack.home)), repr(stack.status(live_stack.home))]
    shown = "\n".join([*live_stack.command_lines(), *reprs])
    assert "supervisord" in shown
    assert not [value for value in values if value in shown]


def test_files_with_secrets_are_the_owners_alone(live_stack: LiveStack) -> None:
    files = [live_stack.home / "secrets.json", *(p for p in (live_stack.home / "run").iterdir() if p.is_file())]
    assert len(files) >= 5
    modes = {path.name: path.stat().st_mode & 0o077 for path in files if not path.name.endswith(".pid")}
    assert set(modes.values()) == {0}


def test_other_ports_are_refused_while_it_runs(live_stack: LiveStack) -> None:
    wanted = Ports(postgres=live_stack.ports.postgres, s3=live_stack.ports.s3, airflow=live_stack.ports.airflow + 1)
    with pytest.raises(StackError, match=r"asked for was .*; stop it first: refund down"):
        stack.up(live_stack.home, ports=wanted, progress=lambda _: None)


def test_a_child_of_the_stack_is_found_by_its_mark(live_stack: LiveStack) -> None:
    environ = {"PATH": os.environ["PATH"], processes.MARK: StackPaths(home=live_stack.home).stack_id}
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], env=environ, stdin=-1) as child:
        while child.pid not in {process.pid for process in live_stack.processes()}:
            assert child.poll() is None
            time.sleep(0.05)
        child.kill()


def test_without_a_stack_there_is_no_access(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"there is no local stack in .*; start one: refund up"):
        stack.access(tmp_path)
    status = stack.status(tmp_path / "never")
    assert (status.state, status.is_running, stack.down(tmp_path / "never")) == ("stopped", False, [])
    assert not (tmp_path / "never").exists()
