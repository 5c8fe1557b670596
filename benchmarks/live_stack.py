"""A local stack of its own for measurements: started in a temporary home, driven by Airflow's REST API."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import tree_cpu_s
from refund.local import stack
from refund.local.airflow_service import INFERENCE_POOL
from refund.local.paths import default_dags_folder
from refund.local.ports import HOST, Ports
from refund.night.services import Services, open_services

DAG = "/api/v2/dags/refund_nightly"
DAG_FILE = "refund_nightly.py"
_HEADER = "import sys\nsys.path.insert(0, {checkout!r})\nfrom benchmarks.import_clock import install\ninstall()\n"
_FUTURE = "from __future__ import annotations\n"
_PATIENCE_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTimes:
    """One task of one night, as Airflow's table has it: seconds of the epoch."""

    name: str
    map_index: int
    queued: float
    started: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NightTimes:
    """One night from the request to the answer that it succeeded."""

    run_id: str
    asked: float  # the moment of the POST
    seen: float  # when the API said success
    queued: float  # of the run, like the next two
    started: float
    ended: float
    tasks: tuple[TaskTimes, ...]  # as they started
    core_s: dict[str, float]  # CPU by service; "tasks" is what the scheduler's workers and their children used

    @property
    def seconds(self) -> float:
        """From the request to success."""
        return self.seen - self.asked


@dataclass(frozen=True, kw_only=True)
class BenchStack:
    """A running stack."""

    home: Path

    @cached_property
    def access(self) -> stack.LocalAccess:
        """Addresses and passwords."""
        return stack.access(self.home, environ=_own_environment())

    @contextmanager
    def services(self) -> Iterator[Services]:
        """The stores, as a task of the night has them."""
        with open_services(settings=self.access.settings, s3=self.access.s3, database=self.access.database) as services:
            yield services

    def make_champion(self, model_folder: Path) -> str:
        """Register a built model and serve it."""
        with self.services() as services:
            key = services.registry.register(model_folder, created_by="benchmarks").model
            services.registry.promote("champion", key, by="benchmarks", reason="measured")
        return key

    def upload(self, bodies: Sequence[bytes], *, date: str) -> None:
        """Store photos under a date, three to a refund."""
        with self.services() as services:
            for number, body in enumerate(bodies):
                key = f"incoming/{date}/R-{number // 3:05d}/{number:06d}.jpg"
                services.objects.put(key, body, content_type="image/jpeg")

    def set_slots(self, slots: int) -> None:
        """Give the inference pool as many slots."""
        body = {"pool": INFERENCE_POOL, "slots": slots, "include_deferred": False}
        self.api("PATCH", f"/api/v2/pools/{INFERENCE_POOL}?update_mask=slots", json=body)

    def unpause(self) -> None:
        """Switch the DAG on and wait until the run that Airflow then makes for yesterday has ended."""
        self.api("PATCH", DAG, json={"is_paused": False})
        _await(lambda: self.api("GET", f"{DAG}/dagRuns")["total_entries"] > 0)
        _await(lambda: not self.api("GET", f"{DAG}/dagRuns?state=running&state=queued")["total_entries"])

    def night(self, date: str, **params: Any) -> NightTimes:
        """Trigger a night, wait until the API calls it a success, and read its times."""
        before = self._core_s()
        asked = time.time()
        conf = {"run_date": date, "force": True, **params}
        run_id = self.api("POST", f"{DAG}/dagRuns", json={"logical_date": None, "conf": conf})["dag_run_id"]
        while (state := self.api("GET", f"{DAG}/dagRuns/{run_id}")["state"]) != "success":
            if state == "failed" or time.time() > asked + _PATIENCE_S:
                ends = self._ends(run_id)
                msg = f"the night {run_id} is {state}, expected success; the last lines of its tasks:\n{ends}"
                raise RuntimeError(msg)
            time.sleep(0.1)
        seen = time.time()
        core_s = {name: round(after - before.get(name, 0.0), 2) for name, after in self._core_s().items()}
        ((queued, started, ended),) = self.airflow_sql(
            "SELECT queued_at, start_date, end_date FROM dag_run WHERE run_id = %s", (run_id,)
        )
        rows = self.airflow_sql(
            "SELECT task_id, map_index, queued_dttm, start_date, end_date FROM task_instance "
            "WHERE run_id = %s AND start_date IS NOT NULL ORDER BY start_date",
            (run_id,),
        )
        return NightTimes(
            run_id=run_id,
            asked=asked,
            seen=seen,
            queued=queued.timestamp(),
            started=started.timestamp(),
            ended=ended.timestamp(),
            tasks=tuple(
                TaskTimes(
                    name=name,
                    map_index=index,
                    queued=at[0].timestamp(),
                    started=at[1].timestamp(),
                    ended=at[2].timestamp(),
                )
                for name, index, *at in rows
            ),
            core_s=core_s,
        )

    def _ends(self, run_id: str) -> str:
        """The end of every log of a run: the files go with the stack."""
        folder = self.home / "airflow" / "logs" / "dag_id=refund_nightly" / f"run_id={run_id}"
        files = sorted(folder.rglob("*.log"))
        return "\n".join(f"{file.relative_to(folder)}: {file.read_text()[-1500:]}" for file in files)

    def log_lines(self, run_id: str, task: TaskTimes) -> list[dict[str, Any]]:
        """What a task logged in its first try."""
        folder = self.home / "airflow" / "logs" / "dag_id=refund_nightly" / f"run_id={run_id}" / f"task_id={task.name}"
        file = folder / ("attempt=1.log" if task.map_index < 0 else f"map_index={task.map_index}/attempt=1.log")
        return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]

    def airflow_sql(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Rows of a query in Airflow's own database."""
        import psycopg2

        password = json.loads((self.home / "secrets.json").read_text())["postgres_airflow"]
        role = replace(self.access.database, database="airflow", user="airflow", password=password)
        connection = psycopg2.connect(
            host=role.host, port=role.port, dbname=role.database, user=role.user, password=role.password
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, tuple(values))
                return list(cursor.fetchall())
        finally:
            connection.close()

    def api(self, method: str, path: str, **options: Any) -> Any:
        """A call of Airflow's REST API as admin."""
        return self._client.request(method, path, **options).raise_for_status().json()

    @cached_property
    def _client(self) -> httpx.Client:
        client = httpx.Client(base_url=self.access.airflow_url, timeout=600.0, trust_env=False)
        login = {"username": self.access.airflow_user, "password": self.access.airflow_password}
        token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        return client

    def _core_s(self) -> dict[str, float]:
        """CPU seconds so far, by service; the scheduler's without its workers', which are ``tasks``."""
        import psutil

        found = {}
        for service in stack.status(self.home).services:
            if service.pid is None:
                continue
            found[service.name] = tree_cpu_s(service.pid)
            if service.name == "scheduler":
                alone = sum(psutil.Process(service.pid).cpu_times()[:2])
                found["tasks"], found["scheduler"] = found["scheduler"] - alone, alone
        return found


@contextmanager
def running_stack(*, progress: Callable[[str], None], timed: bool = True) -> Iterator[BenchStack]:
    """Start a stack in a temporary home on free ports, and leave nothing of it.

    Args:
        progress: told one line per step.
        timed: whether tasks tell how long they imported (`import_clock`).
    """
    folder = Path(tempfile.mkdtemp(prefix="refund-bench-", dir="/tmp"))
    folder.chmod(0o711)  # Postgres's system user must reach its cluster where we are root
    home, dags = folder / ".refund", folder / "dags"
    try:
        dags.mkdir()
        text = (default_dags_folder() / DAG_FILE).read_text(encoding="utf-8")
        (dags / DAG_FILE).write_text(timed_dag(text) if timed else text, encoding="utf-8")
        ports = dict(zip(("postgres", "s3", "airflow"), _free_ports(3), strict=True))
        stack.up(home, ports=Ports(**ports), progress=progress, dags_folder=dags, environ=_own_environment())
        yield BenchStack(home=home)
    finally:
        elsewhere = stack.status(home).postgres_folder
        stack.down(home)
        if elsewhere and not Path(elsewhere).is_relative_to(home):
            shutil.rmtree(Path(elsewhere).parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def timed_dag(text: str) -> str:
    """The DAG file with `import_clock` installed before anything else of it runs."""
    return text.replace(_FUTURE, _FUTURE + _HEADER.format(checkout=str(Path(__file__).parents[1])), 1)


def _own_environment() -> dict[str, str]:
    """Without the settings of the developer's own stack."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REFUND_")}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            msg = f"not within {_PATIENCE_S:.0f} s"
            raise RuntimeError(msg)
        time.sleep(0.3)
