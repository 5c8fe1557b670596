"""Drives a live stack as people do: the command line as a subprocess, Airflow's REST API, SQL as a role."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from refund.local import stack
from refund.local.stack import LocalAccess
from refund.night.services import Services, open_services
from refund.settings import DatabaseAccess

DAG = "/api/v2/dags/refund_nightly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


def run_refund(
    home: Path, *arguments: str | Path, code: int | None = 0, timeout_s: float = 300.0, cwd: Path = Path("/")
) -> Answer:
    """Run ``refund`` against the stack in ``home``; ``code`` is the exit code expected, None takes any."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("REFUND_", "AIRFLOW"))}
    done = subprocess.run(
        [str(Path(sysconfig.get_path("scripts")) / "refund"), *map(str, arguments)],
        env=environ | {"REFUND_HOME": str(home), "NO_COLOR": "1"},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    answer = Answer(code=done.returncode, out=done.stdout, err=done.stderr)
    assert code is None or answer.code == code, (
        f"refund {' '.join(map(str, arguments))} ended with {answer.code}: {answer.out[-800:]} {answer.err[-800:]}"
    )
    return answer


@dataclass(frozen=True, kw_only=True)
class Night:
    """How one ``refund night --wait`` ended."""

    answer: Answer
    last_run: dict[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.last_run["run_id"])


@dataclass(frozen=True, kw_only=True)
class Driver:
    """One running stack with a champion."""

    home: Path
    model: str

    @cached_property
    def access(self) -> LocalAccess:
        """Addresses and passwords; the environment of the developer's own stack stays out of it."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("REFUND_")}
        return stack.access(self.home, environ=environ)

    def refund(self, *arguments: str | Path, code: int | None = 0, timeout_s: float = 300.0) -> Answer:
        return run_refund(self.home, *arguments, code=code, timeout_s=timeout_s)

    def night(self, date: str, *params: str, code: int = 0) -> Night:
        """Run the night of a date to its end and read ``last_run.json``."""
        options = [text for param in params for text in ("--param", param)]
        answer = self.refund("night", "--date", date, "--wait", *options, code=code, timeout_s=900)
        return Night(answer=answer, last_run=json.loads((self.home / "last_run.json").read_text()))

    def sql(self, statement: str, values: Sequence[Any] = (), *, role: DatabaseAccess | None = None) -> list[Any]:
        """Rows of a query, as refund_app unless another role is given."""
        import psycopg2

        access = role or self.access.database
        connection = psycopg2.connect(
            host=access.host, port=access.port, dbname=access.database, user=access.user, password=access.password
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def airflow_sql(self, statement: str) -> list[Any]:
        """Rows of a query in Airflow's own database."""
        password = json.loads((self.home / "secrets.json").read_text())["postgres_airflow"]
        role = replace(self.access.database, database="airflow", user="airflow", password=password)
        return self.sql(statement, role=role)

    def api(self, method: str, path: str, **options: Any) -> Any:
        """A call of Airflow's REST API as admin; the answer must be 2xx."""
        answer = self._client.request(method, path, **options)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json()

    @cached_property
    def _client(self) -> httpx.Client:
        access = self.access
        client = httpx.Client(
            base_url=access.airflow_url, timeout=120.0, trust_env=False
        )  # a busy machine's answers take long
        login = {"username": access.airflow_user, "password": access.airflow_password}
        token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        return client

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def services(self) -> Iterator[Services]:
        """The stores, as a task of the night has them."""
        with open_services(settings=self.access.settings, s3=self.access.s3, database=self.access.database) as services:
            yield services


def await_that(condition: Callable[[], bool], *, within_s: float = 600.0, every_s: float = 0.3) -> None:
    """Wait until a condition of the live stack holds; the limit is for what hangs, not for a slow machine."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
        time.sleep(every_s)


def make_champion(home: Path, model_folder: Path) -> Driver:
    """Register a built model as the stack's champion, once; returns the driver."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REFUND_")}
    access = stack.access(home, environ=environ)
    with open_services(settings=access.settings, s3=access.s3, database=access.database) as services:
        key = services.registry.register(model_folder, created_by="tests").model
        services.registry.promote("champion", key, by="tests", reason="the model of this test session")
    return Driver(home=home, model=key)
