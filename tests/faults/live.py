"""A live Airflow of these tests' own, and the nights in which they cause faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.local.paths import StackPaths
from refund.local.ports import HOST, Ports
from refund.local.stack import LocalAccess
from refund.local.supervisor import Supervisor
from refund.night.services import Services, open_services
from refund.settings import DatabaseAccess
from refund.store.migrate import migrate
from refund.store.publish import LOCK_KEY
from refund.store.staging import RUNS_FOLDER
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import DAG, Driver, await_that, make_champion
from tests.faults.live_night import LiveNight, rows_of_night, run_undisturbed
from tests.faults.marks import Visible
from tests.faults.tables import night_tables
from tests.local.live import LiveStack, start, temporary_home
from tests.night.factories import jpeg, write_model

if TYPE_CHECKING:
    import psutil

TASKS = (
    "health_check", "fetch", "shards.validate", "shards.classify", "persist", "generate_report", "alert_on_drift",
)  # fmt: skip
# Airflow's own patience, shortened from 300 s, 10 s, 5 s, 300 s and 5 s. A scheduler still counts as dead after 30 s:
# one that starts its first task is silent for seconds, and with less would take its own tasks for those of a dead one.
_AIRFLOW_CFG = """\
[scheduler]
task_instance_heartbeat_timeout = 20
task_instance_heartbeat_timeout_detection_interval = 1
scheduler_heartbeat_sec = 1
orphaned_tasks_check_interval = 2
[workers]
min_heartbeat_interval = 1
"""
_RETRY_DELAY = '"retry_delay": timedelta(seconds=30)'
REFERENCE = "refund_reference"


@dataclass(kw_only=True)
class Hold:
    """A lock that keeps tasks of the night waiting, at a known point of their work."""

    ground: Ground
    connection: Any

    def await_blocked(self) -> None:
        """Wait until somebody waits for it."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        values = (self.connection.info.backend_pid,)
        await_that(lambda: bool(self.ground.driver.sql(query, values, role=self.ground.superuser)[0][0]))

    def release(self) -> None:
        self.connection.close()


@dataclass(kw_only=True)
class Ground:
    """The stack, and what one does to its nights."""

    home: Path
    ports: Ports
    driver: Driver
    model_folder: Path
    visible: Visible = field(default_factory=Visible)
    _holds: list[Hold] = field(default_factory=list)
    _dates: Iterator[date] = field(
        # each before all earlier ones: no night has reference nights, in either database
        default_factory=lambda: (date(2026, 3, 30) - timedelta(days=5 * number) for number in range(60))
    )

    @cached_property
    def supervisor(self) -> Supervisor:
        return Supervisor(StackPaths(home=self.home))

    @cached_property
    def secrets(self) -> dict[str, Any]:
        """Every password and key of the stack."""
        found: dict[str, Any] = json.loads((self.home / "secrets.json").read_text())
        return found

    @property
    def access(self) -> LocalAccess:
        return self.driver.access

    @cached_property
    def superuser(self) -> DatabaseAccess:
        return replace(self.access.database, user="postgres", password=self.secrets["postgres_superuser"])

    def as_superuser(self, statement: str, *, database: str = "refund") -> None:
        """Run one statement outside a transaction."""
        import psycopg2

        access = self.superuser
        connection = psycopg2.connect(
            host=access.host, port=access.port, dbname=database, user=access.user, password=access.password
        )
        with closing(connection):
            connection.autocommit = True
            connection.cursor().execute(statement)

    def restart_s3(self) -> None:
        """Stop the S3 server, if it runs, and start it; returns once it listens."""
        self.supervisor.stop("s3")
        self.supervisor.run("s3")
        await_that(lambda: _listens(self.ports.s3))

    # --- photos and runs ---------------------------------------------------------------------------------------------

    def photos(self, name: str, count: int, *, large: bool = False) -> LiveNight:
        """Upload ``count`` photos for a night that nobody has run; the last two must be rejected.

        Large ones have 3 megapixels, so that decoding takes a while.
        """
        night = LiveNight(run_id=name, run_date=next(self._dates), photos=count)
        bodies = [jpeg(1, width=2000, height=1500)] if large else [jpeg(seed) for seed in range(3)]
        with self.driver.services() as services:
            folder = f"{night.prefix}{night.run_date}"
            for number in range(count - 2):
                self._put(services, folder, number, bodies[number % len(bodies)])
            for number, body in ((count - 2, b"not a photo"), (count - 1, jpeg(9)[:-2000])):
                self._put(services, folder, number, body)
        # beforehand, so that what is locked during publishing is not the making of a partition
        self.driver.sql("SELECT refund.ensure_partitions(%s, %s)", (night.run_date, night.run_date))
        return night

    @staticmethod
    def _put(services: Services, folder: str, number: int, body: bytes) -> None:
        key = f"{folder}/R-{number // 4}/{number:03}.jpg"
        services.objects.put(key, body, content_type="image/jpeg")

    def start(self, night: LiveNight) -> None:
        """Trigger the night."""
        run = {"dag_run_id": night.run_id, "logical_date": None, "conf": night.params}
        self.driver.api("POST", f"{DAG}/dagRuns", json=run)

    def instances(self, night: LiveNight) -> dict[str, dict[str, Any]]:
        """State, try number and process of each task, by id; there is one shard.

        From Airflow's tables, which answer at once, also while its API server does not.
        """
        columns = ("task_id", "state", "try_number", "pid")
        rows = self.driver.airflow_sql(
            f"SELECT {', '.join(columns)} FROM task_instance WHERE run_id = '{night.run_id}' ORDER BY map_index"
        )
        return {row[0]: dict(zip(columns, row, strict=True)) for row in rows}

    def state(self, night: LiveNight) -> str:
        """The state of the run."""
        return str(self.driver.airflow_sql(f"SELECT state FROM dag_run WHERE run_id = '{night.run_id}'")[0][0])

    def await_state(self, night: LiveNight, task: str, *states: str) -> dict[str, Any]:
        """Wait until a task is in one of these states; returns the instance."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.instances(night)[task])
            return seen["state"] in states

        self._await(there, lambda: f"{task} of {night.run_id} is {seen}")
        return seen

    def await_end(self, night: LiveNight, *, state: str = "success") -> None:
        """Wait until the night is over and hold it to its state."""
        self._await(
            lambda: self.state(night) in {"success", "failed"},
            lambda: f"{ {name: found['state'] for name, found in self.instances(night).items()} }",
        )
        found = {name: instance["state"] for name, instance in self.instances(night).items()}
        assert self.state(night) == state, found

    @staticmethod
    def _await(condition: Callable[[], bool], told: Callable[[], str]) -> None:
        try:
            await_that(condition)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {told()}") from exc

    def clear(self, night: LiveNight, *tasks: str) -> None:
        """Clear these tasks and what comes after them, as a person does in the UI; without tasks, the whole run."""
        if not tasks:
            self.driver.api("POST", f"{DAG}/dagRuns/{night.run_id}/clear", json={"dry_run": False})
            return
        body = {
            "dry_run": False, "dag_run_id": night.run_id, "task_ids": list(tasks), "include_downstream": True,
            "only_failed": False, "reset_dag_runs": True,
        }  # fmt: skip
        self.driver.api("POST", f"{DAG}/clearTaskInstances", json=body)

    def log(self, night: LiveNight, task: str, *, attempt: int) -> str:
        """The log of one try of a task, as Airflow's page shows it."""
        index = 0 if task.startswith("shards.") else -1
        place = f"{DAG}/dagRuns/{night.run_id}/taskInstances/{task}/logs/{attempt}"
        answer = self.driver.api("GET", place, params={"map_index": index}, headers={"Accept": "application/json"})
        lines = []
        for line in answer["content"]:
            extra = {name: value for name, value in line.items() if name not in {"event", "timestamp", "error_detail"}}
            errors = [f"{error['exc_type']}: {error['exc_value']}" for error in line.get("error_detail") or []]
            lines.append(" ".join([line["event"], *(f"{name}={value}" for name, value in extra.items()), *errors]))
        return "\n".join(lines)

    def run_scheduled_night(self) -> None:
        """Unpause the DAG; the schedule then runs last night, which is watched for secrets that others could see."""
        with self.driver.services() as services:
            last_night = (services.now() - timedelta(hours=2)).date() - timedelta(days=1)
            for number in range(12):
                self._put(services, f"incoming/{last_night}", number, jpeg(1, width=2000, height=1500))
            self._put(services, f"incoming/{last_night}", 12, b"not a photo")
        self.driver.api("PATCH", DAG, json={"is_paused": False})
        runs = "SELECT run_id FROM dag_run"
        await_that(lambda: bool(self.driver.airflow_sql(runs)))
        ((run_id,),) = self.driver.airflow_sql(runs)
        night = LiveNight(run_id=run_id, run_date=last_night, photos=13)

        def look() -> None:
            self.visible.sample(LiveStack(home=self.home, ports=self.ports).processes())

        def has_begun(task: str) -> bool:
            look()
            return self.instances(night)[task]["state"] in {"running", "success"}

        await_that(lambda: has_begun("fetch"))
        with self.suspended(self.decoding(night)):  # its decoders wait for it until they were looked at
            look()
        await_that(lambda: has_begun("alert_on_drift"))
        self.await_end(night)

    # --- holding and killing -----------------------------------------------------------------------------------------

    def hold(self, table: str, *, mode: str = "EXCLUSIVE") -> Hold:
        """Hold back whoever writes to a table; in mode ``ACCESS EXCLUSIVE`` also who reads it."""
        import psycopg2

        access = self.superuser
        connection = psycopg2.connect(
            host=access.host, port=access.port, dbname=access.database, user=access.user, password=access.password
        )
        connection.cursor().execute(f"LOCK TABLE refund.{table} IN {mode} MODE")
        self._holds.append(Hold(ground=self, connection=connection))
        return self._holds[-1]

    def release_all(self) -> None:
        """Let the night go on whose test failed halfway; the next one waits for it."""
        while self._holds:
            self._holds.pop().release()

    def process(self, night: LiveNight, task: str, *, attempt: int = 1) -> psutil.Process:
        """The process in which this try of a task is at work, or a later one: a slow Airflow may give up a try more.

        Its parent is the worker that supervises it.
        """
        import psutil

        found: dict[str, Any] = {}

        def runs() -> bool:
            found.update(self.instances(night)[task])
            return found["state"] == "running" and found["try_number"] >= attempt

        self._await(runs, lambda: f"{task} of {night.run_id} is {found}")
        return psutil.Process(found["pid"])

    def decoding(self, night: LiveNight, *, attempt: int = 1) -> psutil.Process:
        """The process of validate, once its decoding interpreter has children."""
        process = self.process(night, "shards.validate", attempt=attempt)
        await_that(lambda: len(process.children(recursive=True)) > 1, every_s=0.03)  # they are there for a moment
        return process

    @staticmethod
    @contextmanager
    def suspended(process: psutil.Process) -> Iterator[None]:
        """Keep a task where it is (SIGSTOP); its supervisor goes on to answer for it."""
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def end(self, *processes: psutil.Process) -> None:
        """SIGKILL; then wait until these and all that they had started are gone."""
        family = {child for process in processes for child in process.children(recursive=True)} | set(processes)
        for process in processes:
            process.kill()
        self.await_gone(family)

    @staticmethod
    def await_gone(processes: Iterable[psutil.Process]) -> None:
        """Wait until all of these have ended; an ended one whose parent has not asked for its exit code has, too."""
        import psutil

        def alive(process: psutil.Process) -> bool:
            try:
                return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return False

        await_that(lambda: not any(map(alive, processes)))

    def kill_service(self, name: str) -> None:
        """SIGKILL to the main process of a service, which its supervisor starts again."""
        pid = self.supervisor.states()[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def mark_failed(self, night: LiveNight) -> None:
        """Mark the run failed, as a person does in the UI."""
        self.driver.api("PATCH", f"{DAG}/dagRuns/{night.run_id}", json={"state": "failed"})

    def await_publishing_waits(self) -> None:
        """Wait until one of two that publish waits for the other."""
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        await_that(lambda: bool(self.driver.sql(waiting, (LOCK_KEY,), role=self.superuser)[0][0]))

    def service_log(self, name: str) -> str:
        """What a service of the stack wrote."""
        return (self.home / "logs" / f"{name}.log").read_text(encoding="utf-8")

    def event(self, night: LiveNight, name: str) -> str:
        """What Airflow's list of events says of a run."""
        rows = self.driver.airflow_sql(f"SELECT extra FROM log WHERE run_id = '{night.run_id}' AND event = '{name}'")
        return "\n".join(text for (text,) in rows)

    # --- what a night leaves -----------------------------------------------------------------------------------------

    def keys(self) -> set[str]:
        """Every object in the bucket."""
        with self.driver.services() as services:
            return {item.key for item in services.objects.list("")}

    def rows(self, night: LiveNight) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of the night, by table."""
        return rows_of_night(night, night_tables(self.access.database))

    def staged(self) -> list[str]:
        """The files, and folders of runs, that lie in the staging folder."""
        root = self.home / "staging"
        names = {path.relative_to(root).as_posix() for path in root.rglob("*")}
        return sorted(names - {RUNS_FOLDER})

    def check_as_undisturbed(self, night: LiveNight, *, before: set[str]) -> None:
        """Hold tables, bucket and staging to a night in which nothing happened.

        Its verdicts are those of the same photos in another database, where the same tasks ran without Airflow.

        Args:
            before: the bucket's keys before the night, its photos among them.
        """
        rows = self.rows(night)
        objects = self.keys()
        assert len(rows["run_photo"]) == night.photos
        assert self.staged() == []
        with self._reference() as services:
            run_undisturbed(night, services)
            assert rows == rows_of_night(night, night_tables(self._reference_access))
        assert self.keys() == objects, "an undisturbed night leaves other objects"
        made = {key for key in objects - before if not key.startswith(("quarantine/", "reports/", "exports/"))}
        assert not made, made

    @property
    def _reference_access(self) -> DatabaseAccess:
        return replace(self.access.database, database=REFERENCE)

    @contextmanager
    def _reference(self) -> Iterator[Services]:
        staging = self.home.parent / "reference-staging"
        staging.mkdir(exist_ok=True)
        settings = replace(self.access.settings, staging_root=staging.as_uri(), report_dir="")
        with open_services(settings=settings, s3=self.access.s3, database=self._reference_access) as services:
            yield services

    def make_reference(self) -> None:
        """A second database on the same cluster, with the same model as champion."""
        self.as_superuser(f"CREATE DATABASE {REFERENCE} OWNER refund_owner", database="postgres")
        migrate(replace(self.access.owner, database=REFERENCE))
        with self._reference() as services:
            key = services.registry.register(self.model_folder, created_by="tests").model
            services.registry.promote("champion", key, by="tests", reason="the same as in the other database")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


@contextmanager
def live_ground() -> Iterator[Ground]:
    """Start a stack whose Airflow retries after a second and misses a worker after twenty; takes half a minute."""
    with temporary_home() as home:
        dags = home.parent / "dags"
        dags.mkdir()
        dag = (REPOSITORY / "dags" / "refund_nightly.py").read_text(encoding="utf-8")
        assert dag.count(_RETRY_DELAY) == 1
        (dags / "refund_nightly.py").write_text(dag.replace(_RETRY_DELAY, _RETRY_DELAY.replace("30", "1")))
        StackPaths(home=home).create()
        (home / "airflow" / "airflow.cfg").write_text(_AIRFLOW_CFG)
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        start(home, ports=ports, dags_folder=dags)
        model = home.parent / "model"
        write_model(model)
        ground = Ground(home=home, ports=ports, driver=make_champion(home, model), model_folder=model)
        ground.make_reference()
        with contextlib.closing(ground.driver):
            ground.run_scheduled_night()
            yield ground
