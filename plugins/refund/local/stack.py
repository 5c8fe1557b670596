"""Starts, stops and describes the local stack: Postgres, an S3 server and Airflow on one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refund.errors import StackError
from refund.local import airflow_service, postgres, processes, s3
from refund.local.airflow_env import airflow_environ
from refund.local.credentials import StackCredentials, load, load_or_draw
from refund.local.paths import StackPaths, default_dags_folder
from refund.local.ports import HOST, Ports
from refund.local.state import StackState, stack_lock
from refund.local.supervisor import Supervisor
from refund.settings import DatabaseAccess, S3Access, Settings

Progress = Callable[[str], None]
SERVICES = ("postgres", "s3", *airflow_service.SERVICES)
_AIRFLOW_PATIENCE_S = 600.0  # idle 10 s; a loaded machine took 153
_SERVER_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One service of the stack."""

    name: str
    state: str  # running, starting, stopped, backoff, fatal, exited, stopping, unknown
    pid: int | None
    started_at: datetime | None  # aware UTC
    address: str | None
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """What runs, and where to reach it; nothing secret."""

    home: str
    state: str  # running (all services), partial, stopped
    services: tuple[ServiceStatus, ...]
    airflow_url: str | None
    s3_url: str | None
    database: str | None
    postgres_folder: str | None
    notes: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether every service runs."""
        return self.state == "running"

    def as_json(self) -> dict[str, Any]:
        """The same as plain values for ``json.dumps``."""
        values = asdict(self)
        for service in values["services"]:
            service["started_at"] = None if service["started_at"] is None else service["started_at"].isoformat()
        return values | {"services": list(values["services"]), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAccess:
    """How a command on this machine reaches the stack; its repr shows no secret."""

    s3: S3Access
    database: DatabaseAccess  # as refund_app
    owner: DatabaseAccess
    analyst: DatabaseAccess
    airflow_url: str
    airflow_user: str
    airflow_password: str = field(repr=False)
    settings: Settings


def up(
    home: Path,
    *,
    progress: Progress,
    ports: Ports | None = None,
    dags_folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> StackStatus:
    """Start whatever of the stack does not run, making it first if need be, and wait until all of it answers.

    Args:
        home: The stack's folder.
        progress: Told one line per step.
        ports: None takes them from the environment, an earlier start, or the defaults.
        dags_folder: None takes the checkout's ``dags/``.
        environ: The environment that services inherit from; None takes this process's.

    Raises:
        PortTakenError: something else listens on a port.
        StackError: a service does not start; the text ends with the last lines of its log.
    """
    environ = os.environ if environ is None else environ
    paths = StackPaths(home=home.absolute())
    paths.create()
    with stack_lock(paths.lock_file, progress=progress):
        state = StackState.read(paths.state_file)
        ports = ports or Ports.resolve(environ, remembered=state.ports if state else None)
        supervisor = Supervisor(paths)
        running = supervisor.pid() is not None
        if running and state is not None:
            if ports != state.ports:
                msg = f"the stack runs with {state.ports}, asked for was {ports}; stop it first: refund down"
                raise StackError(msg)
            if _all_well(supervisor, port=ports.airflow):
                progress("the stack is running already")
                return _status(paths, state, supervisor)
        made = paths.postgres.exists() or (state is not None and state.postgres_folder is not None)
        credentials = load_or_draw(paths.secrets_file, made_before=made)
        folder = dags_folder or default_dags_folder()
        state = replace(state or StackState(ports=ports, dags_folder=str(folder)), ports=ports, dags_folder=str(folder))
        services_environ = airflow_environ(
            paths=paths, ports=ports, credentials=credentials, dags_folder=folder, base=environ
        )
        if not running:
            _end_leftovers(paths, state, progress=progress)
            ports.check_free()
            state = _start_supervisor(paths, state, credentials, services_environ, supervisor, progress=progress)
        _start_servers(paths, state, credentials, supervisor, progress=progress)
        state = _migrate(paths, state, credentials, services_environ, progress=progress)
        _start_airflow(paths, state, credentials, supervisor, progress=progress)
        return _status(paths, state, supervisor)


def down(home: Path, *, progress: Progress | None = None) -> list[str]:
    """Stop the stack and leave no process of it; returns ``name (pid N)`` for each that was stopped.

    Raises:
        StackError: another command is changing the stack.
    """
    progress = progress or (lambda _: None)
    paths = StackPaths(home=home.absolute())
    if not paths.home.is_dir():
        return []
    with stack_lock(paths.lock_file, progress=progress):
        stopped = _stop(paths, progress=progress)
        airflow_service.forget_environment(paths)
        return stopped


def status(home: Path) -> StackStatus:
    """Describe the stack without changing anything.

    Raises:
        StackError: its state file cannot be read.
    """
    paths = StackPaths(home=home.absolute())
    return _status(paths, StackState.read(paths.state_file), Supervisor(paths) if paths.home.is_dir() else None)


def access(home: Path, *, environ: Mapping[str, str] | None = None) -> LocalAccess:
    """Addresses and passwords of a stack that was started at least once.

    Raises:
        StackError: there is none in this folder.
    """
    paths = StackPaths(home=home.absolute())
    state = StackState.read(paths.state_file)
    if state is None:
        msg = f"there is no local stack in {paths.home}; start one: refund up"
        raise StackError(msg)
    credentials = load(paths.secrets_file)
    services_environ = airflow_environ(
        paths=paths,
        ports=state.ports,
        credentials=credentials,
        dags_folder=Path(state.dags_folder),
        base=os.environ if environ is None else environ,
    )

    def database(user: str, password: str) -> DatabaseAccess:
        return DatabaseAccess(host=HOST, port=state.ports.postgres, database="refund", user=user, password=password)

    return LocalAccess(
        s3=s3.access_of(port=state.ports.s3, credentials=credentials),
        database=database("refund_app", credentials.postgres_app),
        owner=database("refund_owner", credentials.postgres_owner),
        analyst=database("refund_analyst", credentials.postgres_analyst),
        airflow_url=f"http://{HOST}:{state.ports.airflow}",
        airflow_user="admin",
        airflow_password=credentials.airflow_passwords["admin"],
        settings=Settings.load(services_environ),
    )


def _stop(paths: StackPaths, *, progress: Progress) -> list[str]:
    state = StackState.read(paths.state_file)
    supervisor = Supervisor(paths)
    family = processes.with_children(_processes(paths, state))
    if not family:
        return []
    stopped: list[str] = []
    if (pid := supervisor.pid()) is not None:
        for name in reversed(SERVICES):
            found = supervisor.states().get(name)
            if found is not None and found.pid is not None:
                stopped.append(f"{name} (pid {found.pid})")
        progress("stopping Airflow")
        supervisor.stop(*airflow_service.SERVICES)
        progress("stopping the S3 server and Postgres")
        supervisor.stop("s3", "postgres")
        supervisor.shut_down()
        stopped.append(f"supervisord (pid {pid})")
        import psutil

        psutil.wait_procs(family, timeout=10)
    leftovers = [process for process in family if process.is_running()]
    leftovers += [process for process in _processes(paths, state) if process not in leftovers]
    return stopped + processes.end(leftovers)


def _start_supervisor(
    paths: StackPaths,
    state: StackState,
    credentials: StackCredentials,
    environ: Mapping[str, str],
    supervisor: Supervisor,
    *,
    progress: Progress,
) -> StackState:
    cluster = postgres.prepare_cluster(paths, credentials=credentials, progress=progress)
    postgres.clear_stale_pid_file(cluster)
    state = replace(state, postgres_folder=str(cluster.folder), notes=cluster.notes)
    state.write(paths.state_file)
    airflow_service.write_passwords(paths, credentials)
    mark = {processes.MARK: paths.stack_id}
    supervisor.start(
        [
            postgres.program(cluster, port=state.ports.postgres, mark=mark),
            s3.program(paths, port=state.ports.s3, credentials=credentials, mark=mark),
            *airflow_service.programs(paths, port=state.ports.airflow, environ=environ),
        ]
    )
    return state


def _start_servers(
    paths: StackPaths, state: StackState, credentials: StackCredentials, supervisor: Supervisor, *, progress: Progress
) -> None:
    progress(f"starting Postgres on {HOST}:{state.ports.postgres} and the S3 server on {HOST}:{state.ports.s3}")
    supervisor.run("postgres", "s3")

    def postgres_refuses() -> str | None:
        return postgres.refusal(port=state.ports.postgres, credentials=credentials)

    _wait(paths, supervisor, "postgres", postgres_refuses, patience_s=_SERVER_PATIENCE_S)
    postgres.ensure_roles_and_databases(port=state.ports.postgres, credentials=credentials)
    bucket = s3.access_of(port=state.ports.s3, credentials=credentials)
    _wait(paths, supervisor, "s3", lambda: s3.ensure_bucket(bucket), patience_s=_SERVER_PATIENCE_S)


def _migrate(
    paths: StackPaths,
    state: StackState,
    credentials: StackCredentials,
    environ: Mapping[str, str],
    *,
    progress: Progress,
) -> StackState:
    from refund.store.migrate import migrate

    owner = DatabaseAccess(
        host=HOST, port=state.ports.postgres, user="refund_owner", password=credentials.postgres_owner
    )
    for version in migrate(owner):
        progress(f"migrated the refund database: {version}")
    installed = airflow_service.airflow_version()
    if state.airflow_migrated != installed:
        progress("making Airflow's database (some ten seconds)")
        airflow_service.migrate_database(paths, environ=environ)
        state = replace(state, airflow_migrated=installed)
        state.write(paths.state_file)
    return state


def _start_airflow(
    paths: StackPaths, state: StackState, credentials: StackCredentials, supervisor: Supervisor, *, progress: Progress
) -> None:
    progress(f"starting Airflow on http://{HOST}:{state.ports.airflow}")
    since = datetime.now(UTC)
    stopped = [name for name, found in supervisor.states().items() if found.state not in ("running", "starting")]
    supervisor.run(*airflow_service.SERVICES)
    waiting: set[str] = set()

    def ill() -> dict[str, str]:
        found = airflow_service.unhealthy(port=state.ports.airflow, since=since if stopped else None)
        well = waiting - set(found)
        if well and "api-server" not in found:
            progress(f"ready: {', '.join(sorted(well))}")
            waiting.difference_update(well)
        return found

    waiting.update(airflow_service.SERVICES)
    deadline = time.monotonic() + _AIRFLOW_PATIENCE_S
    while found := ill():
        name, reason = next(iter(found.items()))
        _fail_if_hopeless(paths, supervisor, name, reason, over=time.monotonic() > deadline)
        time.sleep(0.2)
    airflow_service.ensure_pool(port=state.ports.airflow, credentials=credentials)


def _wait(
    paths: StackPaths, supervisor: Supervisor, name: str, refusal: Callable[[], str | None], *, patience_s: float
) -> None:
    deadline = time.monotonic() + patience_s
    while (reason := refusal()) is not None:
        _fail_if_hopeless(paths, supervisor, name, reason, over=time.monotonic() > deadline)
        time.sleep(0.05)


def _fail_if_hopeless(paths: StackPaths, supervisor: Supervisor, name: str, reason: str, *, over: bool) -> None:
    found = supervisor.states()[name]
    if found.state in ("fatal", "exited", "stopped") or over:
        log = paths.log(name)
        msg = (
            f"{name} of the local stack did not become ready (state {found.state}): {reason}; last lines of {log}:\n"
            f"{airflow_service.last_lines(log)}"
        )
        raise StackError(msg)


def _all_well(supervisor: Supervisor, *, port: int) -> bool:
    states = supervisor.states()
    if any(name not in states or states[name].state != "running" for name in SERVICES):
        return False
    return not airflow_service.unhealthy(port=port, since=None)


def _processes(paths: StackPaths, state: StackState | None) -> list[Any]:
    clusters = [paths.postgres] + ([Path(state.postgres_folder)] if state and state.postgres_folder else [])
    return processes.stack_processes(paths.stack_id, clusters=clusters, airflow_home=paths.airflow)


def _end_leftovers(paths: StackPaths, state: StackState, *, progress: Progress) -> None:
    """End what an earlier stack left behind when its supervisor died, so that ports and files are free."""
    leftovers = processes.with_children(_processes(paths, state))
    if ended := processes.end(leftovers):
        names = sorted({name.partition(" ")[0] for name in ended})
        progress(f"ended {len(ended)} processes left over from an earlier start: {', '.join(names)}")


def _status(paths: StackPaths, state: StackState | None, supervisor: Supervisor | None) -> StackStatus:
    states = supervisor.states() if supervisor is not None and supervisor.pid() is not None else {}
    ports = state.ports if state else None
    addresses = (
        {}
        if ports is None
        else {
            "postgres": f"{HOST}:{ports.postgres}",
            "s3": f"http://{HOST}:{ports.s3}",
            "api-server": f"http://{HOST}:{ports.airflow}",
        }
    )
    services = []
    for name in SERVICES:
        found = states.get(name)
        services.append(
            ServiceStatus(
                name=name,
                state=found.state if found else "stopped",
                pid=found.pid if found else None,
                started_at=datetime.fromtimestamp(found.started_at_s, UTC) if found and found.pid else None,
                address=addresses.get(name),
                log=str(paths.log(name)),
            )
        )
    count = sum(service.state == "running" for service in services)
    return StackStatus(
        home=str(paths.home),
        state="running" if count == len(services) else "partial" if states else "stopped",
        services=tuple(services),
        airflow_url=addresses.get("api-server"),
        s3_url=addresses.get("s3"),
        database=None if ports is None else f"postgresql://{HOST}:{ports.postgres}/refund",
        postgres_folder=state.postgres_folder if state else None,
        notes=state.notes if state else (),
    )
